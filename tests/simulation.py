"""A day of many runs in seconds: the real timetable, commit queue, budget and back-off, on a simulated clock.

The real parts are `Timetable` with its `delay_after`, `CommitQueue`, `Budget`, the local Hub's rate limits, and the
library's parsing of their responses. The commit scheduling of `PushLoop` and `Pusher` is modelled. A run is one event
file that grows all the time. A process has one folder per run, as with writers, or one for all of its runs, as with
`sync --watch` on their parent folder.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING

from hf_summary_writer.errors import PostponedError, PushError
from hf_summary_writer.hub.repo import MAX_FILES_PER_COMMIT
from hf_summary_writer.hub.responses import Answer, classify_response
from hf_summary_writer.localhub.errors import HubError
from hf_summary_writer.localhub.limits import Limits
from hf_summary_writer.push.budget import CommitQueue, SharedBudget
from hf_summary_writer.push.timetable import Result as Settled
from hf_summary_writer.push.timetable import Timetable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["HOUR", "Layout", "Result", "most_in_an_hour", "simulate"]

HOUR = 3600.0
_CLOSE_SECONDS = 20.0
_UPLOAD_SECONDS, _COMMIT_SECONDS = (0.3, 1.0), (0.5, 2.0)
_REQUESTS_OF_UPLOAD, _REQUESTS_OF_COMMIT = 2, 1


@dataclass(frozen=True)
class Layout:
    """The runs, processes and machines of a simulation, and the rate limit.

    Attributes:
        runs: The number of runs at any moment.
        machines: The number of machines with the same account; they do not communicate.
        processes: The number of processes per machine; `None` for one per run.
        one_folder: Whether each process pushes one parent folder of its runs.
        interval: Seconds between pushes, as configured.
        limit: Commits per hour that the Hub allows.
        known: The limit that the machines assume; `None` if they do not know one.
        hours: The simulated time.
        start: Seconds over which the starts of the runs are spread.
        run_seconds: The duration of a run, after which another one starts; `None` for the whole simulation.
        seed: The seed of the random numbers.
    """

    runs: int
    machines: int = 1
    processes: int | None = None
    one_folder: bool = False
    interval: float = 300.0
    limit: int = 128
    known: float | None = 120.0
    hours: float = 24.0
    start: float = 0.0
    run_seconds: float | None = None
    seed: int = 1


@dataclass
class Result:
    """The outcome of a simulation.

    Attributes:
        accepted: Times of the commits, in seconds since the start.
        asked: Times of each machine's commit requests.
        refused: Time and machine of each refused commit request.
        requests: The number of API requests, commits included.
        served: The number of commits with data of each run.
        worst: The greatest age of each run's newest data on the Hub, in seconds.
        last_pushes: The number of runs that ended.
        left: The number of runs that ended with data left to upload.
    """

    layout: Layout
    accepted: list[float] = field(default_factory=list)
    asked: dict[int, list[float]] = field(default_factory=dict)
    refused: list[tuple[float, int]] = field(default_factory=list)
    requests: int = 0
    served: Counter[int] = field(default_factory=Counter)
    worst: list[float] = field(default_factory=list)
    last_pushes: int = 0
    left: int = 0
    _ages: list[int] = field(default_factory=list)

    def staleness(self, share: float) -> float:
        """Return the quantile `share` of the age of the newest data on the Hub, in seconds, over all runs."""
        density = list(accumulate(self._ages))
        wanted = share * sum(density)
        return float(next((age for age, total in enumerate(accumulate(density)) if total >= wanted), len(density)))

    def note_age(self, least: float, most: float) -> None:
        """Record that the data of a run aged from `least` to `most` seconds."""
        self._ages.extend([0] * (int(most) + 2 - len(self._ages)))
        self._ages[int(least)] += 1
        self._ages[int(most) + 1] -= 1


def most_in_an_hour(moments: list[float]) -> int:
    """Return the greatest number of `moments`, which are sorted, within one hour."""
    window: deque[float] = deque()
    most = 0
    for moment in moments:
        window.append(moment)
        while window[0] <= moment - HOUR:
            window.popleft()
        most = max(most, len(window))
    return most


def simulate(layout: Layout) -> Result:
    """Run the simulation of a layout."""
    world = _World(layout)
    world.run()
    return world.result


class _BudgetInMemory(SharedBudget):
    """The budget of a machine, kept in memory instead of a file."""

    def __init__(self, limit: float | None, clock: Callable[[], float]) -> None:
        super().__init__(Path("/nowhere/at/all"), limit, clock)

    def _locked(self, stack: object) -> bool:  # noqa: ARG002 - it is overridden
        return False

    def _read(self) -> None:
        return None


class _World:
    """The clock, the future events, the Hub and the recorded result."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.result = Result(layout, worst=[0.0] * layout.runs)
        self.now = 0.0
        self.chance = random.Random(layout.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._limits = Limits(layout.limit, None, self.clock)
        # Of each run: the time up to which it was uploaded, and the age of that data at its upload.
        self._snapshot = [0.0] * layout.runs
        self._fresh = [0.0] * layout.runs
        for machine in range(layout.machines):
            runs = list(range(machine, layout.runs, layout.machines))
            budget = _BudgetInMemory(layout.known, self.clock)
            self.result.asked[machine] = []
            processes = layout.processes or len(runs)
            for number in range(processes):
                _Process(self, machine, budget, runs[number::processes])

    def clock(self) -> float:
        return self.now

    def between(self, bounds: tuple[float, float]) -> float:
        return self.chance.uniform(*bounds)

    def at(self, moment: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (moment, self._count, event))

    def run(self) -> None:
        end = self.layout.hours * HOUR
        while self._events and self._events[0][0] < end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end
        for run in range(self.layout.runs):
            self._aged(run)

    def begins(self, run: int, moment: float) -> None:
        """Record the start of a run that has nothing on the Hub yet."""
        self._snapshot[run], self._fresh[run] = moment, 0.0

    def longest_waiting_first(self, runs: list[int]) -> list[int]:
        """Return runs in the order in which `Inventory` lists their files."""
        return sorted(runs, key=lambda run: self._snapshot[run])

    def uploaded(self, run: int, snapshot: float) -> None:
        """Record that the data that a run had logged until `snapshot` was uploaded."""
        self._aged(run)
        self._snapshot[run], self._fresh[run] = snapshot, self.now - snapshot
        self.result.served[run] += 1

    def commit(self, machine: int) -> None:
        """Ask the Hub for a commit.

        Raises:
            PushError: The library's error for the response, if the Hub refuses.
        """
        self.result.requests += _REQUESTS_OF_COMMIT
        self.result.asked[machine].append(self.now)
        try:
            with self._limits.commit():
                self.result.accepted.append(self.now)
        except HubError as error:
            self.result.refused.append((self.now, machine))
            headers = {name.lower(): value for name, value in error.headers.items()}
            answer = Answer(error.status, headers, error.message)
            raise classify_response(answer, self.now, repo="the repo", known=True) from None

    def _aged(self, run: int) -> None:
        age = self.now - self._snapshot[run]
        if age > 0:
            self.result.note_age(self._fresh[run], age)
            self.result.worst[run] = max(self.result.worst[run], age)


class _Folder:
    """A folder that one scheduler pushes."""

    def __init__(self, runs: list[int], timetable: Timetable) -> None:
        self.runs = runs
        self.timetable = timetable

    @property
    def is_finishing(self) -> bool:
        return self.timetable.finish_by is not None

    def ready_at(self) -> float:
        return self.timetable.ready_at(requested=self.is_finishing)


class _Process:
    """The push loop of a branch with its folders: one push at a time, of all folders that are due."""

    def __init__(self, world: _World, machine: int, budget: SharedBudget, runs: list[int]) -> None:
        self._world = world
        self._machine = machine
        self._budget = budget
        self._queue = self._new_queue()
        self._is_pushing = False
        self._last: list[_Folder] = []
        self._wakes = -1.0
        layout = world.layout
        owned = [runs] if layout.one_folder else [[run] for run in runs]
        self._folders = [_Folder(each, Timetable(layout.interval, 0.0, world.chance.random)) for each in owned]
        for folder in self._folders:
            self._begin(folder, world.between((0.0, layout.start)))

    def _new_queue(self) -> CommitQueue:
        return CommitQueue(lambda: self._budget)

    def _begin(self, folder: _Folder, moment: float) -> None:
        layout = self._world.layout
        folder.timetable = Timetable(layout.interval, moment, self._world.chance.random)
        for run in folder.runs:
            self._world.begins(run, moment)
        self._wake()
        if layout.run_seconds is not None:
            self._world.at(moment + layout.run_seconds * self._world.between((0.5, 1.5)), lambda: self._end(folder))

    def _wake(self) -> None:
        """Schedule the next push, as `PushLoop` does."""
        for folder in self._folders:
            if folder.timetable.is_hopeless(folder.ready_at()):
                self._leave(folder, left=True)
                return
        wakes = max(min(folder.ready_at() for folder in self._folders), self._world.now)
        if not self._is_pushing and wakes != self._wakes:
            self._wakes = wakes
            self._world.at(wakes, self._push)

    def _push(self) -> None:
        now = self._world.now
        if self._is_pushing or now != self._wakes:
            return  # rescheduled in the meantime
        self._wakes = -1.0
        folders = [folder for folder in self._folders if folder.ready_at() <= now]
        final = any(folder.is_finishing for folder in folders)
        share = 0.9 if final else 0.5
        folders += [each for each in self._folders if each not in folders and each.timetable.bring_forward(now, share)]
        self._is_pushing = True
        self._last = [folder for folder in folders if folder.is_finishing]
        try:
            self._queue.wait_turn(final=final)
        except PostponedError as error:
            self._settle(folders, error)
            return
        runs = [run for folder in folders for run in folder.runs]
        self._upload(folders, iter(self._world.longest_waiting_first(runs)), final=final)

    def _upload(self, folders: list[_Folder], remaining: Iterator[int], *, final: bool) -> None:
        runs = list(islice(remaining, MAX_FILES_PER_COMMIT))
        if not runs:
            self._settle(folders, None)
            return
        self._world.result.requests += _REQUESTS_OF_UPLOAD
        snapshot = self._world.now

        def commit() -> None:
            try:
                with self._queue.commit(final=final):
                    self._world.commit(self._machine)
            except (PushError, PostponedError) as error:
                self._settle(folders, error)
            else:
                self._world.at(self._world.now + self._world.between(_COMMIT_SECONDS), committed)

        def committed() -> None:
            for run in runs:
                self._world.uploaded(run, snapshot)
            self._upload(folders, remaining, final=final)

        self._world.at(self._world.now + self._world.between(_UPLOAD_SECONDS), commit)

    def _settle(self, folders: list[_Folder], error: PushError | PostponedError | None) -> None:
        self._is_pushing = False
        for folder in folders:
            was_last = folder in self._last
            result = folder.timetable.settle(self._world.now, error)
            if result is Settled.GIVEN_UP or (result is Settled.DONE and was_last):
                self._leave(folder, left=result is Settled.GIVEN_UP)
        self._wake()

    def _end(self, folder: _Folder) -> None:
        if not folder.timetable.finish(self._world.now, _CLOSE_SECONDS):
            self._leave(folder, left=True)
        self._wake()

    def _leave(self, folder: _Folder, *, left: bool) -> None:
        """End a run and start another one in its place."""
        self._world.result.last_pushes += 1
        self._world.result.left += left
        if len(self._folders) == 1:
            self._queue = self._new_queue()  # the next run is another process
        self._begin(folder, self._world.now)
