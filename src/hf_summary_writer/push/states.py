"""The states of the runs in one folder, as published on the Hub with the folder's files."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from hf_summary_writer.push.run_state import STATE_FILE, RunPhase, states_below

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from hf_summary_writer.push.run_state import Run

__all__ = ["RunStates", "StateOfRun", "StatesBelow"]

logger: logging.Logger = logging.getLogger("hf_summary_writer")


class RunStates:
    """No states at all: of a run whose user wants none published. One thread at a time may use it."""

    def along(self, written: Mapping[str, float], secret: str | None) -> Mapping[str, bytes]:  # noqa: ARG002
        """Return the contents of the state files to upload with other files, by their paths in the folder.

        Args:
            written: When each of the others was last written, in seconds since the epoch.
            secret: The access token, which the state files may not contain.
        """
        return {}

    def ends(self, secret: str | None, *, final: bool) -> Mapping[str, bytes]:  # noqa: ARG002
        """Return the files with the ends of runs that are still running according to the Hub.

        Args:
            secret: As for `along`.
            final: Whether this is the last push.
        """
        return {}

    def told(self) -> None:
        """Note that the files returned last are on the Hub."""

    def leave(self, secret: str | None) -> None:
        """Leave the state on the disk, for another process that uploads the run."""


class StateOfRun(RunStates):
    """The state of the run that this process logs to a folder.

    Args:
        folder: The folder.
        run: The run.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        self._folder = folder
        self._run = run
        self._told: RunPhase | None = None
        self._telling: RunPhase | None = None

    def along(self, written: Mapping[str, float], secret: str | None) -> Mapping[str, bytes]:
        self._run.note_event(max(written.values()))
        return self._state(secret)

    def ends(self, secret: str | None, *, final: bool) -> Mapping[str, bytes]:
        is_news = final and self._told is RunPhase.RUNNING and self._run.phase is not self._told
        return self._state(secret) if is_news else {}

    def told(self) -> None:
        self._told = self._telling

    def leave(self, secret: str | None) -> None:
        try:
            self._run.leave(self._folder, secret)
        except Exception:  # a disk, or a program that puts anything into `sys.argv`
            logger.debug("the state of %s is not left there", self._folder, exc_info=True)

    def _state(self, secret: str | None) -> Mapping[str, bytes]:
        self._telling = self._run.phase
        return {self._run.file_name: self._run.file(secret)}


class StatesBelow(RunStates):
    """The states that writers of any process have left in a folder and the folders below.

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
        newest: dict[str, float] = {}
        for relpath, seconds in written.items():
            for reldir in _folders_of(relpath):
                newest[reldir] = max(newest.get(reldir, 0.0), seconds)
        return self._found(newest, secret)

    def ends(self, secret: str | None, *, final: bool) -> Mapping[str, bytes]:  # noqa: ARG002 - they may come at any time
        return self._found(dict(self._going_on), secret, only_ends=True)

    def told(self) -> None:
        for reldir in self._ending:
            self._going_on.pop(reldir, None)

    def _found(self, newest: Mapping[str, float], secret: str | None, *, only_ends: bool = False) -> dict[str, bytes]:
        """Return the state files of the runs in some folders, given the time of the newest file in each."""
        self._ending.clear()
        found = {}
        for reldir, left in states_below(self._folder, newest):
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
                found[f"{reldir}/{STATE_FILE}" if reldir else STATE_FILE] = state.encoded(secret)
        return found


def _folders_of(relpath: str) -> Iterator[str]:
    """Yield the folders that hold a file, up to the root, which is empty."""
    while relpath:
        relpath = relpath.rpartition("/")[0]
        yield relpath
