"""The state of a run, as a small file beside its event files on the Hub shows it: whether it still goes on."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from hf_summary_writer.folder import disk
from hf_summary_writer.notices import in_notebook

# Beside the event files of a run on the Hub.
STATE_FILE = "hf-summary-writer.json"

# Far above the size of any file that is written.
MAX_STATE_BYTES = 64 * 2**10

_FILE_NAME = re.compile(r"hf-summary-writer(?:\.rank-\d{1,10})?\.json", flags=re.ASCII)

MAX_TEXT = 2000

# A push is overdue after so many intervals, and never sooner than that: one may take a while.
_INTERVALS_UNTIL_OVERDUE = 3
_SECONDS_UNTIL_OVERDUE = 300.0

# So much the clocks of two machines may differ, and the times of a file system from both.
_CLOCK_SECONDS = 60.0

# As a shell has it: 128 + the number of the signal.
_ENDED_BY_SIGNAL = range(129, 160)


class RunPhase(Enum):
    """Whether a run is running, or how it ended."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"

    @classmethod
    def after(cls, error: BaseException | None) -> RunPhase:
        """Return the phase of a run that ended with `error`, or without one."""
        if isinstance(error, SystemExit):
            if isinstance(error.code, int) and error.code in _ENDED_BY_SIGNAL:
                return cls.STOPPED
            return cls.FAILED if error.code else cls.FINISHED
        if error is None or isinstance(error, StopIteration):
            return cls.FINISHED
        return cls.FAILED if isinstance(error, Exception) else cls.STOPPED

    @classmethod
    def at_exit(cls) -> RunPhase:
        """Return the phase of a run whose process exits without closing its writer."""
        # A notebook or prompt keeps the last error of a cell or line there, which ended nothing.
        is_prompt = hasattr(sys, "ps1") or in_notebook()
        return cls.after(None if is_prompt else getattr(sys, "last_value", None))


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run, as published on the Hub. Times are in seconds since the epoch.

    Attributes:
        phase: Whether it is running, or how it ended.
        started: When its writer was opened.
        last_event: When an event was last written to the disk.
        last_push: When this was written.
        interval: Seconds between two pushes.
        host: The name of its machine.
        rank: The rank of the process.
        command: The script and its arguments, without secrets.
        version: The version of this package.
    """

    phase: RunPhase
    started: float
    last_event: float
    last_push: float
    interval: float
    host: str
    rank: int
    command: str
    version: str

    @classmethod
    def parse(cls, content: bytes) -> RunState:
        """Parse the content of a state file, which is not trusted.

        Raises:
            ValueError: If it is not a valid state file.
        """
        try:
            if len(content) > MAX_STATE_BYTES:
                raise ValueError(len(content))
            said = json.loads(content)
            rank = said["rank"]
            if type(rank) is not int or not 0 <= rank < 2**31:
                raise ValueError(rank)
            return cls(
                phase=RunPhase(said["state"]),
                started=_seconds(said["started"]),
                last_event=_seconds(said["last_event"]),
                last_push=_seconds(said["last_push"]),
                interval=disk.seconds(said["interval"]),
                host=_text(said["host"]),
                rank=rank,
                command=_text(said["command"]),
                version=_text(said["version"]),
            )
        except disk.MALFORMED:
            raise ValueError("it does not hold the state of a run") from None

    def as_dict(self) -> dict[str, Any]:
        """Return the state as a dictionary for JSON, with times as ISO 8601 in UTC."""
        return {
            "state": self.phase.value,
            "started": iso(self.started),
            "last_event": iso(self.last_event),
            "last_push": iso(self.last_push),
            "interval": self.interval,
            "host": self.host,
            "rank": self.rank,
            "command": self.command,
            "version": self.version,
        }

    def encoded(self, secret: str | None = None) -> bytes:
        """Return the content of the file, in which a secret is masked."""
        content = json.dumps(self.as_dict(), indent=2)
        return (content.replace(secret, "***") if secret else content).encode() + b"\n"

    def brought_along(self, last_event: float, now: float, interval: float) -> RunState | None:
        """Return the state as another process uploads it with files of the run; `None` if it is outdated.

        Args:
            last_event: When the newest of these files was written.
            now: The time of the upload.
            interval: Seconds between two uploads of that process.
        """
        state = replace(self, last_event=max(self.last_event, last_event))
        if self.phase is not RunPhase.RUNNING:
            is_outdated = last_event > self.last_push + _CLOCK_SECONDS  # another process has gone on with the run
            return None if is_outdated else state
        state = replace(state, last_push=now, interval=max(self.interval, interval))
        silent = replace(state, last_push=state.last_event)
        return silent if silent.is_overdue(now) else state  # it was killed long before this upload

    def is_overdue(self, now: float) -> bool:
        """Return whether the state is `running` although pushes have stopped."""
        longest = max(_INTERVALS_UNTIL_OVERDUE * self.interval, _SECONDS_UNTIL_OVERDUE)
        return self.phase is RunPhase.RUNNING and now - self.last_push > longest


def is_state_file(path: str) -> bool:
    """Return whether a file holds the state of a run, by its name."""
    return _FILE_NAME.fullmatch(path.rpartition("/")[2]) is not None


def iso(seconds: float | None) -> str | None:
    """Return a time in seconds since the epoch as ISO 8601 in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def _seconds(text: str) -> float:
    return disk.seconds(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def _text(value: Any) -> str:
    if len(value) > MAX_TEXT:
        raise ValueError(len(value))
    return disk.text(value)
