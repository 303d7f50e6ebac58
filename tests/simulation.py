"""A day of many runs in seconds: the real timetable, turns, budget and back-off, on a clock that only events move.

What is real: `Timetable` with `delay_after` in it, `Turns`, `Budget`, the limits of the local Hub, and what `verdict`
reads in their answers. What is modelled: the threads around them, that is `PushLoop`, `Committer` and `Pusher`, as far
as they decide who commits when. A run is one event file that always has something new. A process has one folder for
each of its runs, as writers do, or one for all, as an agent on their parent folder does.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING

from hf_summary_writer.errors import PostponedError, PushError, RateLimitError
from hf_summary_writer.folder.snapshot import MAX_FILES_PER_COMMIT
from hf_summary_writer.hub.responses import Answer, judge_answer
from hf_summary_writer.localhub.errors import HubError
from hf_summary_writer.localhub.limits import Limits
from hf_summary_writer.push.budget import SharedBudget, Turns
from hf_summary_writer.push.timetable import Outcome, Timetable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["HOUR", "Layout", "Result", "most_in_an_hour", "simulate"]

HOUR = 3600.0
# As in `committer`, and as `scheduler` and `push` take them by default.
_GATHER_SECONDS, _CLOSE_SECONDS = 1.0, 20.0
_UPLOAD_SECONDS, _COMMIT_SECONDS = (0.3, 1.0), (0.5, 2.0)
_REQUESTS_OF_UPLOAD, _REQUESTS_OF_COMMIT = 2, 1


@dataclass(frozen=True)
class Layout:
    """Who pushes what.

    Attributes:
        runs: How many runs go on at every moment.
        machines: On how many machines with the same account; they know nothing of each other.
        processes: In how many processes on each machine; `None` for one for every run.
        agent: Whether each process pushes one parent folder of its runs.
        interval: Seconds between pushes, as asked for.
        limit: Commits per hour that the Hub allows.
        known: What the machines take that to be; `None` if nobody told them.
        hours: How long to look.
        start: Over how many seconds the runs begin.
        run_seconds: How long a run lasts before another one takes its place; `None` for all the time.
        seed: For all that is left to chance.
    """

    runs: int
    machines: int = 1
    processes: int | None = None
    agent: bool = False
    interval: float = 300.0
    limit: int = 128
    known: float | None = 120.0
    hours: float = 24.0
    start: float = 0.0
    run_seconds: float | None = None
    seed: int = 1


@dataclass
class Result:
    """What came of it.

    Attributes:
        accepted: When the Hub made a commit, in seconds since the beginning.
        asked: When each machine asked for one.
        refused: When it was refused to whom.
        requests: How many requests of the API were made, commits included.
        served: How many commits brought something of each run.
        worst: How old the newest data of each run on the Hub ever became, in seconds.
        last_pushes: How many runs ended.
        left: How many of them left something for the next process to send.
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
        """Return how old, in seconds, the newest data on the Hub is at most for `share` of the time, over all runs."""
        density = list(accumulate(self._ages))
        wanted = share * sum(density)
        return float(next((age for age, total in enumerate(accumulate(density)) if total >= wanted), len(density)))

    def note_age(self, least: float, most: float) -> None:
        """Count that the data of a run aged from `least` to `most` seconds."""
        self._ages.extend([0] * (int(most) + 2 - len(self._ages)))
        self._ages[int(least)] += 1
        self._ages[int(most) + 1] -= 1


def most_in_an_hour(moments: list[float]) -> int:
    """Return how many of `moments`, which are in order, lie in the fullest hour."""
    window: deque[float] = deque()
    most = 0
    for moment in moments:
        window.append(moment)
        while window[0] <= moment - HOUR:
            window.popleft()
        most = max(most, len(window))
    return most


def simulate(layout: Layout) -> Result:
    """Let a day go by."""
    world = _World(layout)
    world.run()
    return world.result


class _BudgetInMemory(SharedBudget):
    """The budget of a machine, without the file."""

    def __init__(self, limit: float | None, clock: Callable[[], float]) -> None:
        super().__init__(Path("/nowhere/at/all"), limit, clock)

    def _locked(self, stack: object) -> bool:  # noqa: ARG002 - it is overridden
        return False

    def _read(self) -> None:
        return None


class _World:
    """The clock, the events to come, the Hub, and what is written down of it all."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.result = Result(layout, worst=[0.0] * layout.runs)
        self.now = 0.0
        self.chance = random.Random(layout.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._limits = Limits(layout.limit, None, self.clock)
        # Of each run: up to when the Hub holds it, and how old that was when it arrived.
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
        """Note that a new run begins, of which nothing is on the Hub yet."""
        self._snapshot[run], self._fresh[run] = moment, 0.0

    def longest_waiting_first(self, runs: list[int]) -> list[int]:
        """Return runs in the order in which `Inventory` has them pushed."""
        return sorted(runs, key=lambda run: self._snapshot[run])

    def arrived(self, run: int, snapshot: float) -> None:
        """Note that the Hub holds what a run had logged until `snapshot`."""
        self._aged(run)
        self._snapshot[run], self._fresh[run] = snapshot, self.now - snapshot
        self.result.served[run] += 1

    def commit(self, machine: int) -> None:
        """Ask the Hub for a commit.

        Raises:
            PushError: What the library reads in the answer, if it is no.
        """
        self.result.requests += _REQUESTS_OF_COMMIT
        self.result.asked[machine].append(self.now)
        try:
            self._limits.check_commit()
        except HubError as error:
            self.result.refused.append((self.now, machine))
            headers = {name.lower(): value for name, value in error.headers.items()}
            answer = Answer(error.status, headers, error.message)
            raise judge_answer(answer, self.now, repo="the repo", known=True) from None
        self._limits.count_commit()
        self.result.accepted.append(self.now)

    def _aged(self, run: int) -> None:
        age = self.now - self._snapshot[run]
        if age > 0:
            self.result.note_age(self._fresh[run], age)
            self.result.worst[run] = max(self.result.worst[run], age)


class _Folder:
    """What one scheduler pushes, and how far its push has come."""

    def __init__(self, runs: list[int], timetable: Timetable) -> None:
        self.runs = runs
        self.timetable = timetable
        self.remaining: Iterator[int] = iter(())
        self.is_pushing = self.is_last = False
        self.wakes = -1.0


@dataclass
class _Part:
    folder: _Folder
    runs: list[int]
    snapshot: float


class _Process:
    """The committer of a branch, and the schedulers that share it."""

    def __init__(self, world: _World, machine: int, budget: SharedBudget, runs: list[int]) -> None:
        self._world = world
        self._machine = machine
        self._budget = budget
        self._turns = self._new_turns()
        self._is_led = False
        self._uploading = 0
        self._queue: list[_Part] = []
        layout = world.layout
        owned = [runs] if layout.agent else [[run] for run in runs]
        self._folders = [_Folder(each, Timetable(layout.interval, 0.0, world.chance.random)) for each in owned]
        for folder in self._folders:
            self._begin(folder, world.between((0.0, layout.start)))

    def _new_turns(self) -> Turns:
        return Turns(lambda: self._budget)

    def _begin(self, folder: _Folder, moment: float) -> None:
        layout = self._world.layout
        folder.timetable = Timetable(layout.interval, moment, self._world.chance.random)
        folder.is_last = False
        for run in folder.runs:
            self._world.begins(run, moment)
        self._wake(folder)
        if layout.run_seconds is not None:
            self._world.at(moment + layout.run_seconds * self._world.between((0.5, 1.5)), lambda: self._end(folder))

    def _wake(self, folder: _Folder) -> None:
        """Let the loop wait for its next push, as `PushLoop` does."""
        ready = folder.timetable.ready_at(requested=folder.timetable.finish_by is not None)
        if folder.timetable.is_hopeless(ready):
            self._leave(folder, left=True)
            return
        folder.wakes = max(ready, self._world.now)
        self._world.at(folder.wakes, lambda: self._push(folder))

    def _push(self, folder: _Folder) -> None:
        if folder.is_pushing or self._world.now != folder.wakes:
            return  # something else came in between
        folder.is_last = folder.timetable.finish_by is not None
        try:
            if not folder.is_last:
                self._turns.await_turn()
        except PostponedError as error:
            self._settle(folder, error)
            return
        folder.is_pushing = True
        folder.remaining = iter(self._world.longest_waiting_first(folder.runs))
        self._upload(folder)

    def _upload(self, folder: _Folder) -> None:
        runs = list(islice(folder.remaining, MAX_FILES_PER_COMMIT))
        if not runs:
            self._settle(folder, None)
            return
        self._uploading += 1
        self._world.result.requests += _REQUESTS_OF_UPLOAD
        part = _Part(folder, runs, self._world.now)
        self._world.at(self._world.now + self._world.between(_UPLOAD_SECONDS), lambda: self._bring(part))

    def _bring(self, part: _Part) -> None:
        self._uploading -= 1
        self._queue.append(part)
        self._lead()

    def _lead(self) -> None:
        """Let whoever waits first make the next commit, as `Committer` does."""
        while self._queue and not self._is_led:
            folder = self._queue[0].folder
            try:
                if not folder.is_last:
                    self._turns.await_turn()
            except PostponedError as error:
                self._queue.pop(0)
                self._settle(folder, error)
                continue
            self._is_led = True
            invited = [other for other in self._folders if self._invites(other)]
            for other in invited:
                self._wake(other)
            seconds = _GATHER_SECONDS if invited or self._uploading else 0.0
            self._world.at(self._world.now + seconds, self._commit)

    def _invites(self, other: _Folder) -> bool:
        is_free = not other.is_pushing and other.timetable.finish_by is None
        return is_free and other.timetable.invite(self._world.now, 0.5)

    def _commit(self) -> None:
        group: list[_Part] = []
        for part in self._queue:
            if sum(len(each.runs) for each in (*group, part)) <= MAX_FILES_PER_COMMIT:
                group.append(part)
        self._queue = [part for part in self._queue if part not in group]
        try:
            self._turns.spend(last=any(part.folder.is_last for part in group))
            self._ask()
        except (PushError, PostponedError) as error:
            self._is_led = False
            for part in group:
                self._settle(part.folder, error)
            self._lead()
        else:
            self._world.at(self._world.now + self._world.between(_COMMIT_SECONDS), lambda: self._landed(group))

    def _ask(self) -> None:
        try:
            self._world.commit(self._machine)
        except RateLimitError as error:
            self._turns.give_back()
            self._turns.refused(error)
            raise

    def _landed(self, group: list[_Part]) -> None:
        self._is_led = False
        for part in group:
            for run in part.runs:
                self._world.arrived(run, part.snapshot)
            self._upload(part.folder)
        self._lead()

    def _settle(self, folder: _Folder, error: PushError | PostponedError | None) -> None:
        folder.is_pushing = False
        outcome = folder.timetable.settle(self._world.now, error)
        if outcome is Outcome.GIVEN_UP or (outcome is Outcome.DONE and folder.is_last):
            self._leave(folder, left=outcome is Outcome.GIVEN_UP)
        else:
            self._wake(folder)

    def _end(self, folder: _Folder) -> None:
        if not folder.timetable.finish(self._world.now, _CLOSE_SECONDS):
            self._leave(folder, left=True)
        elif not folder.is_pushing:
            self._wake(folder)

    def _leave(self, folder: _Folder, *, left: bool) -> None:
        """End a run, and begin another one in its place."""
        self._world.result.last_pushes += 1
        self._world.result.left += left
        if len(self._folders) == 1:
            self._turns = self._new_turns()  # it is another process
        self._begin(folder, self._world.now)
