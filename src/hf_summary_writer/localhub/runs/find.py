"""Finds the training runs in a repo or bucket."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from hf_summary_writer.localhub.runs.eventfiles import Scalars, read_scalars
from hf_summary_writer.localhub.runs.state import MOST_STATE_BYTES, RunState, is_state_file, read_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Limits that keep a page fast.
_MOST_FILE_BYTES = 32_000_000
_MOST_BYTES = 100_000_000
_MOST_FILES = 500
# About 250 MB: a point takes some 120 bytes.
_REMEMBERED_POINTS = 2_000_000


@dataclass(frozen=True, slots=True)
class LoggedFile:
    """A file of a run: its path, size, an id of its content, and how to read it."""

    path: str
    size: int
    content: str
    read: Callable[[], Iterable[bytes]] = field(repr=False)


@dataclass(slots=True)
class Run:
    """A folder with event files, their scalars, and the states that its writers report."""

    name: str
    scalars: Scalars = field(default_factory=Scalars)
    states: list[RunState] = field(default_factory=list)
    files: int = 0
    left_out: int = 0


def is_run_file(path: str) -> bool:
    """Return whether TensorBoard reads a file with this name as an event file, or it is a state file."""
    return "tfevents" in path.rpartition("/")[2] or is_state_file(path)


class RunFinder:
    """Reads event files and caches their scalars by content; thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: OrderedDict[str, Scalars] = OrderedDict()
        self._points = 0

    def find(self, files: Iterable[LoggedFile]) -> list[Run]:
        """Return the runs that have these files, the one with the newest event first."""
        runs: dict[str, Run] = {}
        budget, number = _MOST_BYTES, 0
        for file in files:
            run = runs.setdefault(file.path.rpartition("/")[0], Run(file.path.rpartition("/")[0]))
            if is_state_file(file.path):
                state = read_state(file.read()) if file.size <= MOST_STATE_BYTES else None
                run.states += [] if state is None else [state]
                continue
            run.files += 1
            number += 1
            scalars = self._remembered(file.content)
            if scalars is None and file.size <= min(_MOST_FILE_BYTES, budget) and number <= _MOST_FILES:
                budget -= file.size
                scalars = read_scalars(file.read())
                self._remember(file.content, scalars)
            if scalars is None:
                run.left_out += 1
            else:
                run.scalars.merge(scalars)
        return sorted(runs.values(), key=lambda run: (-run.scalars.last_time, run.name))

    def _remembered(self, content: str) -> Scalars | None:
        with self._lock:
            if content in self._known:
                self._known.move_to_end(content)
            return self._known.get(content)

    def _remember(self, content: str, scalars: Scalars) -> None:
        with self._lock:
            if content in self._known:  # read by another thread at the same time
                return
            self._known[content] = scalars
            self._points += scalars.size
            while self._points > _REMEMBERED_POINTS:
                _, oldest = self._known.popitem(last=False)
                self._points -= oldest.size
