"""The runs in a folder, and the states of them that are published with its files.

A writer leaves the state of its run in its state folder as well, for other processes that upload the run.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import time
import weakref
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from hf_summary_writer.events import command_line, writer_thread
from hf_summary_writer.folder import STATE_FOLDER, StateFolder, disk
from hf_summary_writer.notices import logger, printable
from hf_summary_writer.process import Registry, shared
from hf_summary_writer.push.run_state import MAX_STATE_BYTES, MAX_TEXT, STATE_FILE, RunPhase, RunState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.events import EventWriter

_LEFT_FILE = "run.json"


@dataclass(eq=False)
class _Known:
    """What this process knows of the run in a folder that is pushed to one destination, whichever writers log to it.

    Attributes:
        runs: Its parts by writer, in the order in which they began or ended last.
        last_event: When an event was last written to the disk.
        left: The phase in the file on the disk.
        told: The phase in the file on the Hub.
        telling: The phase in the file on its way there.
    """

    runs: Registry = field(default_factory=Registry)
    last_event: float = 0.0
    left: RunPhase | None = None
    told: RunPhase | None = None
    telling: RunPhase | None = None


class Run:
    """The run in a folder, as far as one writer logs it. Any thread may use it; one thread at a time pushes it.

    Several writers of this process on one folder log to the same run.

    Args:
        folder: The folder.
        config: Where it is pushed, how often, and whether its state is told to others.
        rank: The rank of this process. Other ranks than 0, which push from disks of their own, have files of their own.
        writer: The writer. Held weakly, or the thread that pushes would keep alive one that the user has dropped.

    Attributes:
        folder: The folder.
        config: The same.
        phase: Whether it is running, or how it ended.
    """

    def __init__(self, folder: Path, config: PushConfig, rank: int, writer: EventWriter) -> None:
        self.folder = folder
        self.config = config
        self._rank = rank
        self._writer = weakref.ref(writer)
        self._started = time.time()
        self.phase: RunPhase = RunPhase.RUNNING
        # How many events the writer had logged when a later writer began.
        self._logged_before_the_next: int | None = None
        self._known: _Known = shared(("run", folder, config.destination, rank), _Known)

    def go_on(self) -> None:
        """Note that the run begins, or continues even after an end."""
        self.phase, self._logged_before_the_next = RunPhase.RUNNING, None
        for other in self._known.runs.newest_first():
            if other is not self:
                other.note_later_one()
        self._known.runs.add(self)

    def note_later_one(self) -> None:
        """Note that a later writer logs to the same folder."""
        self._logged_before_the_next = self._logged or 0

    def end(self, phase: RunPhase) -> None:
        """Note how the run ended, unless it has ended already."""
        if self.phase is RunPhase.RUNNING:
            if self.is_used:
                self._known.runs.add(self)
            self.phase = phase

    def flush(self) -> EventWriter | None:
        """Write all logged events to disk; return the writer unless it was dropped without `close`."""
        writer = self._writer()
        if writer is None:
            writer_thread.flush()
        else:
            writer.flush()
        return writer

    def states(self, written: Mapping[str, float], secret: str | None, *, final: bool) -> Mapping[str, bytes]:
        """Return the contents of the state files to upload, by their paths in the folder.

        Args:
            written: When each of the files that they come along with was last written, in seconds since the epoch. With
                none there are only ends of runs that are still running according to the Hub.
            secret: The access token, which the state files may not contain.
            final: Whether this is the last push.
        """
        known, latest = self._known, self._latest
        if written:
            known.last_event = max(known.last_event, *written.values())
        elif not (final and known.told is RunPhase.RUNNING and latest.phase is not known.told):
            return {}
        if not self.config.run_state:
            return {}
        known.telling = latest.phase
        name = f"hf-summary-writer.rank-{self._rank}.json" if self._rank else STATE_FILE
        return {name: latest.content(secret)}

    def told(self) -> None:
        """Note that the files returned last are on the Hub."""
        self._known.told = self._known.telling

    def leave(self, secret: str | None) -> None:
        """Leave the state on the disk, unless it is there; of a distributed run, that of rank 0 is the state."""
        latest = self._latest
        phase = latest.phase  # before its content: the writer may be closed meanwhile
        if not self.config.run_state or self._rank or self._known.left is phase:
            return
        try:
            StateFolder(self.folder / STATE_FOLDER).write(_LEFT_FILE, latest.content(secret))
            self._known.left = phase
        except Exception:  # a disk, or a program that puts anything into `sys.argv`
            logger.debug("the state of %s is not left there", self.folder, exc_info=True)

    @property
    def _logged(self) -> int | None:
        """How many events the writer has logged; `None` if it is closed or gone."""
        writer = self._writer()
        return None if writer is None else writer.logged_events

    @property
    def is_open(self) -> bool:
        """Whether the writer may log more."""
        return self._logged is not None

    @property
    def is_used(self) -> bool:
        """Whether the writer is open, and goes on logging if there is a later one.

        One without a use was left open, as by a cell of a notebook that is run again.
        """
        before = self._logged_before_the_next
        return self.phase is RunPhase.RUNNING and (before is None or self._logged not in {before, None})

    @property
    def _latest(self) -> Run:
        """The latest run that is used; if there is none, the one that ended last."""
        runs: list[Run] = self._known.runs.newest_first() or [self]
        return next((run for run in runs if run.is_used), runs[0])

    def content(self, secret: str | None) -> bytes:
        """Return the content of a file with the state."""
        command = command_line()
        if secret:
            command = command.replace(secret, "***")
        state = RunState(
            self.phase,
            self._started,
            self._known.last_event,
            time.time(),
            self.config.minutes * 60,
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

    def states(self, written: Mapping[str, float], secret: str | None, *, final: bool) -> Mapping[str, bytes]:  # noqa: ARG002 - ends may come at any time
        """As `Run.states`."""
        newest = {} if written else dict(self._going_on)
        for relpath, seconds in written.items():
            for reldir in _folders_of(relpath):
                newest[reldir] = max(newest.get(reldir, 0.0), seconds)
        self._ending.clear()
        found = {}
        for reldir, left in _states_left(self._folder, newest):
            if left.phase is not RunPhase.RUNNING:
                self._ending.add(reldir)
            elif written:
                self._going_on[reldir] = newest[reldir]
            else:
                continue
            state = left.brought_along(newest[reldir], time.time(), self._interval)
            if state is None:
                self._going_on.pop(reldir, None)
            else:
                found[f"{reldir}/{STATE_FILE}" if reldir else STATE_FILE] = state.encoded(secret)
        return found

    def told(self) -> None:
        """As `Run.told`."""
        for reldir in self._ending:
            self._going_on.pop(reldir, None)

    def leave(self, secret: str | None) -> None:
        """Do nothing: writers leave the states of their own runs."""


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


@functools.cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return version("hf-summary-writer")
    except PackageNotFoundError:  # its files alone were copied
        return ""


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
