"""The states of runs: small files beside event files on the Hub, which show whether a run is still running.

A writer leaves the state in the state folder of its run as well, for other processes that upload the run.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import socket
import sys
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from hf_summary_writer.events import command_line
from hf_summary_writer.folder import STATE_FOLDER, StateFolder, disk
from hf_summary_writer.notices import in_notebook, logger, printable
from hf_summary_writer.process import Registry, shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from hf_summary_writer.config import Destination

__all__ = ["MAX_STATE_BYTES", "Run", "RunPhase", "RunState", "RunsBelow", "is_state_file", "iso"]

# Beside the event files of a run on the Hub.
_STATE_FILE = "hf-summary-writer.json"

_LEFT_FILE = "run.json"

# Far above the size of any file that is written.
MAX_STATE_BYTES = 64 * 2**10

_FILE_NAME = re.compile(r"hf-summary-writer(?:\.rank-\d{1,10})?\.json", flags=re.ASCII)

_MAX_TEXT = 2000

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


@dataclass(eq=False)
class _Session:
    """The part of a run that one writer logs.

    Attributes:
        interval: Seconds between two pushes.
        logged: Returns how many events the writer has logged; `None` if it is closed or gone.
        logged_before_the_next: How many it had logged when a later writer began.
        started: When it was opened.
        phase: Whether it is running, or how it ended.
    """

    interval: float
    logged: Callable[[], int | None]
    logged_before_the_next: int | None = None
    started: float = field(default_factory=time.time)
    phase: RunPhase = RunPhase.RUNNING

    @property
    def is_used(self) -> bool:
        """Whether the writer is open, and goes on logging if there is a later one.

        One without a use was left open, as by a cell of a notebook that is run again.
        """
        logged = self.logged_before_the_next
        return self.phase is RunPhase.RUNNING and (logged is None or self.logged() not in {logged, None})


@dataclass(eq=False)
class _Known:
    """What this process knows of the run in a folder that is pushed to one destination, whichever writers log to it.

    Attributes:
        sessions: Those that have begun, in the order in which they began or ended last.
        last_event: When an event was last written to the disk.
        left: The phase in the file on the disk.
        told: The phase in the file on the Hub.
        telling: The phase in the file on its way there.
    """

    sessions: Registry = field(default_factory=Registry)
    last_event: float = 0.0
    left: RunPhase | None = None
    told: RunPhase | None = None
    telling: RunPhase | None = None


class Run:
    """The run that a writer logs to a folder. Any thread may use it; one thread at a time pushes it.

    Several writers of this process on one folder log to the same run.

    Args:
        folder: The folder.
        destination: Where it is pushed.
        rank: The rank of this process. Other ranks than 0, which push from disks of their own, have files of their own.
        interval: Seconds between two pushes.
        logged: Returns how many events the writer has logged; `None` if it is closed or gone.
        tells: Whether its state is uploaded, and left on the disk for other processes that upload the run.
    """

    def __init__(
        self,
        folder: Path,
        destination: Destination,
        rank: int,
        interval: float,
        logged: Callable[[], int | None] = lambda: None,
        *,
        tells: bool = True,
    ) -> None:
        self._folder = folder
        self._rank = rank
        self._tells = tells
        self._session = _Session(interval, logged)
        self._known: _Known = shared(("run", folder, destination, rank), _Known)

    def go_on(self) -> None:
        """Note that the run begins, or continues even after an end."""
        self._session.phase, self._session.logged_before_the_next = RunPhase.RUNNING, None
        for other in self._known.sessions.newest_first():
            if other is not self._session:
                other.logged_before_the_next = other.logged() or 0
        self._make_latest()

    def end(self, phase: RunPhase) -> None:
        """Note how the run ended, unless it has ended already."""
        if self._session.phase is RunPhase.RUNNING:
            if self._session.is_used:
                self._make_latest()
            self._session.phase = phase

    def along(self, written: Mapping[str, float], secret: str | None) -> Mapping[str, bytes]:
        """Return the contents of the state files to upload with other files, by their paths in the folder.

        Args:
            written: When each of the others was last written, in seconds since the epoch.
            secret: The access token, which the state files may not contain.
        """
        self._known.last_event = max(self._known.last_event, *written.values())
        return self._files(secret)

    def ends(self, secret: str | None, *, final: bool) -> Mapping[str, bytes]:
        """Return the files with the ends of runs that are still running according to the Hub.

        Args:
            secret: As for `along`.
            final: Whether this is the last push.
        """
        told = self._known.told
        is_news = final and told is RunPhase.RUNNING and self._latest.phase is not told
        return self._files(secret) if is_news else {}

    def told(self) -> None:
        """Note that the files returned last are on the Hub."""
        self._known.told = self._known.telling

    def leave(self, secret: str | None) -> None:
        """Leave the state on the disk, unless it is there; of a distributed run, that of rank 0 is the state."""
        phase = self._latest.phase
        if not self._tells or self._rank or self._known.left is phase:
            return
        try:
            StateFolder(self._folder / STATE_FOLDER).write(_LEFT_FILE, self._content(phase, secret))
            self._known.left = phase
        except Exception:  # a disk, or a program that puts anything into `sys.argv`
            logger.debug("the state of %s is not left there", self._folder, exc_info=True)

    def _make_latest(self) -> None:
        self._known.sessions.discard(self._session)
        self._known.sessions.add(self._session)

    @property
    def _latest(self) -> _Session:
        """The latest session that is used; if there is none, the one that ended last."""
        sessions: list[_Session] = self._known.sessions.newest_first() or [self._session]
        return next((session for session in sessions if session.is_used), sessions[0])

    def _files(self, secret: str | None) -> dict[str, bytes]:
        if not self._tells:
            return {}
        self._known.telling = self._latest.phase
        name = f"hf-summary-writer.rank-{self._rank}.json" if self._rank else _STATE_FILE
        return {name: self._content(self._known.telling, secret)}

    def _content(self, phase: RunPhase, secret: str | None) -> bytes:
        command = command_line()
        if secret:
            command = command.replace(secret, "***")
        session = self._latest
        state = RunState(
            phase,
            session.started,
            self._known.last_event,
            time.time(),
            session.interval,
            _shortened(printable(socket.gethostname())),
            self._rank,
            _shortened(printable(command)),
            _version(),
        )
        return state.encoded()


class RunsBelow:
    """The runs whose states writers of any process have left in a folder and the folders below; as `Run` in a push.

    Args:
        folder: The folder.
        interval: Seconds between two pushes of it.
    """

    def __init__(self, folder: Path, interval: float) -> None:
        self._folder = folder
        self._interval = interval
        # By folder, the time of the newest file of each run that is running according to the Hub.
        self._going_on: dict[str, float] = {}
        # Those of them whose ends are being published.
        self._ending: set[str] = set()

    def along(self, written: Mapping[str, float], secret: str | None) -> Mapping[str, bytes]:
        """As `Run.along`."""
        newest: dict[str, float] = {}
        for relpath, seconds in written.items():
            for reldir in _folders_of(relpath):
                newest[reldir] = max(newest.get(reldir, 0.0), seconds)
        return self._found(newest, secret)

    def ends(self, secret: str | None, *, final: bool) -> Mapping[str, bytes]:  # noqa: ARG002 - they may come at any time
        """As `Run.ends`."""
        return self._found(dict(self._going_on), secret, only_ends=True)

    def told(self) -> None:
        """As `Run.told`."""
        for reldir in self._ending:
            self._going_on.pop(reldir, None)

    def leave(self, secret: str | None) -> None:
        """Do nothing: writers leave the states of their own runs."""

    def _found(self, newest: Mapping[str, float], secret: str | None, *, only_ends: bool = False) -> dict[str, bytes]:
        """Return the state files of the runs in some folders, given the time of the newest file in each."""
        self._ending.clear()
        found = {}
        for reldir, left in _states_left(self._folder, newest):
            if left.phase is not RunPhase.RUNNING:
                self._ending.add(reldir)
            else:
                self._going_on[reldir] = newest[reldir]
                if only_ends:
                    continue
            state = left.brought_along(newest[reldir], time.time(), self._interval)
            if state is None:
                self._going_on.pop(reldir, None)
            else:
                found[f"{reldir}/{_STATE_FILE}" if reldir else _STATE_FILE] = state.encoded(secret)
        return found


def _folders_of(relpath: str) -> Iterator[str]:
    """Yield the folders that hold a file, up to the root, which is empty."""
    while relpath:
        relpath = relpath.rpartition("/")[0]
        yield relpath


def _states_left(folder: Path, reldirs: Mapping[str, float]) -> Iterator[tuple[str, RunState]]:
    """Yield the valid states that writers have left in folders below `folder`."""
    for reldir in reldirs:
        with contextlib.suppress(OSError, ValueError):
            place = PurePosixPath(reldir, STATE_FOLDER.as_posix(), _LEFT_FILE)
            with disk.regular_file(str(folder), str(place)) as file:
                yield reldir, RunState.parse(file.read(MAX_STATE_BYTES + 1))


def is_state_file(path: str) -> bool:
    """Return whether a file holds the state of a run, by its name."""
    return _FILE_NAME.fullmatch(path.rpartition("/")[2]) is not None


def iso(seconds: float | None) -> str | None:
    """Return a time in seconds since the epoch as ISO 8601 in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


@functools.cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return version("hf-summary-writer")
    except PackageNotFoundError:  # its files alone were copied
        return ""


def _seconds(text: str) -> float:
    return disk.seconds(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def _text(value: Any) -> str:
    if len(value) > _MAX_TEXT:
        raise ValueError(len(value))
    return disk.text(value)


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"
