"""The thread that pushes, and the commits that schedulers of one process share."""

from __future__ import annotations

import copy
import functools
import os
import random
import threading
import time
import weakref
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

from hf_summary_writer.config import commits_per_hour
from hf_summary_writer.errors import (
    ActionNeededError,
    DeadlineError,
    InterruptedPushError,
    PostponedError,
    PushError,
    RateLimitError,
    RejectedError,
    forget_frames,
)
from hf_summary_writer.folder.snapshot import MAX_FILES_PER_COMMIT, MAX_POSTED_BYTES_PER_COMMIT
from hf_summary_writer.hub.client import client_home
from hf_summary_writer.process import shared
from hf_summary_writer.push.budget import SharedBudget, Turns
from hf_summary_writer.push.timetable import Outcome, Stretched, Timetable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from huggingface_hub import CommitInfo

    from hf_summary_writer.hub.client import Hub

__all__ = [
    "Committer",
    "Part",
    "Phase",
    "PushLoop",
    "Seat",
    "State",
    "failed",
    "isolating",
    "pass_on",
    "resolved",
    "seat_at",
    "shared_future",
]

T = TypeVar("T")


def shared_future() -> Future[Any]:
    """Return a future that nobody cancels for the others who hold it, nor under the hands of who is to resolve it."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def resolved(result: T | None) -> Future[T | None]:
    """Return a future that holds `result`."""
    future: Future[T | None] = Future()
    future.set_result(result)
    return future


def failed(error: Exception) -> Future[Any]:
    """Return a future that holds `error`."""
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def pass_on(to: Future[Any], done: Future[Any]) -> None:
    """Let `to` hold what `done` holds."""
    error = done.exception()
    if error is None:
        to.set_result(done.result())
    else:
        to.set_exception(error)


class Phase(Enum):
    """What the loop is doing."""

    IDLE = "idle"
    PUSHING = "pushing"
    WAITING = "waiting"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class State:
    """What the loop is doing.

    Attributes:
        phase: What it is doing.
        seconds: For how much longer it waits, for `Phase.WAITING`.
        error: Why the last push failed.
        stretched: That pushes come less often than the interval says, if they do.
    """

    phase: Phase
    seconds: float = 0.0
    error: Exception | None = None
    stretched: Stretched | None = None


class PushLoop(Generic[T]):
    """Calls `push` in a thread of its own, at every interval and on demand. Thread-safe.

    Args:
        push: Pushes once. May raise anything.
        interval: Seconds between pushes.
        at_start: Called before the thread starts.
        at_end: Called when the thread ends. Neither may wait or call the loop.
        name: The thread's name.
        settled: Told in the thread what a push ended in, before its future is; must not raise.
        chance: Source of randomness for the back-off.
    """

    def __init__(
        self,
        push: Callable[[], T | None],
        interval: float,
        *,
        at_start: Callable[[], object] = lambda: None,
        at_end: Callable[[], object] = lambda: None,
        name: str,
        settled: Callable[[State], None] = lambda _: None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Start nothing yet."""
        self._push = push
        self._interval = interval
        self._at_start = at_start
        self._at_end = at_end
        self._name = name
        self._settled = settled
        self._chance = chance
        self.forked = False
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self.last_future: Future[T | None] | None = None
        # The default lock is reentrant: a signal handler may trigger while this thread is inside.
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._requested: Future[T | None] | None = None
        self._running: Future[T | None] | None = None
        self._inherited: T | None = None
        self._stopped = False
        self._ending = False
        self._timetable = Timetable(self._interval, time.monotonic(), self._chance)

    def start(self) -> None:
        """Start the thread, also after `finish`; does nothing while it runs or after `stop`.

        Raises:
            RuntimeError: If no thread can be started any more.
        """
        self._notice_fork()
        with self._changed:
            if self._stopped:
                return
            self._ending, self._timetable.finish_by = False, None
            self._changed.notify_all()  # what waits may have waited for the end
            if self._thread is None:
                self._timetable.begin_anew(time.monotonic())
                self._at_start()
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    self._at_end()
                    raise
                self._thread = thread

    def trigger(self) -> Future[T | None]:
        """Ask for a push and return its future.

        While the Hub said to wait, the future fails at once with what it said and the seconds that are left of it.
        Without a thread it resolves to `None`.
        """
        self._notice_fork()
        with self._changed:
            if self._thread is None or self._stopped:
                return resolved(None)
            error, remaining = self._timetable.error, self._timetable.seconds_to_wait(time.monotonic())
            if remaining > 0 and isinstance(error, PushError) and self._timetable.hub_asked_to_wait:
                # A fresh one for each: an exception that is raised twice collects the frames of both.
                return failed(type(error)(f"{error} ({remaining:.0f} s left)", retry_after=remaining))
            return self._request()

    def invite(self, share: float) -> bool:
        """Push now what is due soon anyway, since others push to the same place; tell whether a push comes of it.

        Args:
            share: The part of the interval within which it has to be due.
        """
        with self._changed:
            if self._pid != os.getpid() or self._thread is None or self._stopped or self._ending:
                return False
            if self._running is not None or not self._timetable.invite(time.monotonic(), share):
                return False
            self._changed.notify_all()
            return True

    def finish(self, seconds: float, *, end: bool = True) -> Future[T | None]:
        """Ask for the last push, to be done within `seconds`; the thread ends after it if `end`.

        What fails is tried again for as long as the time allows.
        """
        self._notice_fork()
        with self._changed:
            if self._thread is None or self._stopped:
                return resolved(None)
            self._ending = self._ending or end
            future = self._request()
            if not self._timetable.finish(time.monotonic(), seconds):
                self._give_up()
            # Also if somebody asked before: what he waits for comes sooner now.
            self._changed.notify_all()
            return future

    def go_on(self) -> None:
        """After `finish` without an end: what comes now is not the last push any more, and has its time again."""
        self._notice_fork()
        with self._changed:
            if not self._ending:
                self._timetable.finish_by = None

    def stop(self) -> None:
        """End the thread, after a push that is running; a push that waits resolves to `None`."""
        self._notice_fork()
        with self._changed:
            self._stopped = True
            requested, self._requested = self._requested, None
            self._changed.notify_all()
        if requested is not None:
            requested.set_result(None)

    def join(self, seconds: float) -> None:
        """Wait for the thread to end, unless it is the caller."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, seconds))

    def interrupted(self) -> bool:
        """Tell a running push whether there is no more time for it."""
        finish_by = self._timetable.finish_by
        return self._stopped or (finish_by is not None and time.monotonic() > finish_by)

    @property
    def seconds_left(self) -> float | None:
        """How long the last push may still take; `None` while the run goes on."""
        finish_by = self._timetable.finish_by
        return None if finish_by is None else max(0.0, finish_by - time.monotonic())

    @property
    def state(self) -> State:
        """What the loop is doing now."""
        self._notice_fork()
        with self._changed:
            error, stretched = self._timetable.error, self._timetable.stretched
            remaining = self._timetable.seconds_to_wait(time.monotonic())
            if self._running is not None:
                return State(Phase.PUSHING, 0.0, error, stretched)
            if self._thread is None or self._stopped:
                return State(Phase.STOPPED, error=error)
            return State(Phase.WAITING if remaining > 0 else Phase.IDLE, remaining, error, stretched)

    @property
    def alive(self) -> bool:
        """Whether there is a thread to push."""
        return self._thread is not None and not self._stopped

    def after_fork_in_child(self) -> None:
        """Forget the thread, which the child does not have, and its lock, which somebody may hold for ever."""
        self._reset()
        self._stopped = self.forked = True

    def _notice_fork(self) -> None:
        # Some application servers fork without telling Python.
        if self._pid != os.getpid():
            self.after_fork_in_child()

    def _request(self) -> Future[T | None]:
        if self._requested is None:
            self._requested = shared_future()
            self._changed.notify_all()
        return self._requested

    def _run(self) -> None:
        while (future := self._next()) is not None:
            self.last_future = future
            inherited, self._inherited = self._inherited, None
            error = None
            result: Any = None
            try:
                result = self._push()
            except BaseException as raised:  # noqa: BLE001 - also SystemExit from a user's override: the thread lives on
                error = raised
            again = self._settle(future, error, result)
            self._settled(self.state)
            if error is not None:
                # The loop and the future keep it until the next push, which may be long in coming.
                forget_frames(error)
            if error is None:
                # Who asked while a push was running, and finds nothing left to push, was served by that one.
                future.set_result(inherited if result is None else result)
            elif not again:
                self._fail(future, error)

    def _next(self) -> Future[T | None] | None:
        """Wait for the next push and return its future, or `None` when the thread is to end."""
        with self._changed:
            while True:
                if self._stopped or (self._ending and self._requested is None):
                    # Within the lock: whoever starts the loop anew begins with everything anew.
                    self._thread = None
                    self._at_end()
                    return None
                now = time.monotonic()
                ready = self._timetable.ready_at(requested=self._requested is not None)
                if now >= ready:
                    self._running = self._requested or shared_future()
                    self._requested = None
                    return self._running
                if self._requested is not None and self._timetable.is_hopeless(ready):
                    # Somebody asked when the last push had failed already.
                    self._give_up()
                    continue
                self._changed.wait(min(ready - now, threading.TIMEOUT_MAX))

    def _settle(self, future: Future[T | None], error: BaseException | None, result: T | None) -> bool:
        """Draw the consequences of a push; tell whether its future waits for it to be made once more."""
        with self._changed:
            self._running = None
            outcome = self._timetable.settle(time.monotonic(), error)
            if self._stopped:
                return False
            if outcome is Outcome.DONE and self._requested is not None:
                self._inherited = result
            elif outcome is Outcome.GIVEN_UP:
                self._give_up()
            elif outcome is Outcome.AGAIN:
                return self._ask_again(future, shared=isinstance(error, PostponedError))
            return False

    def _ask_again(self, future: Future[T | None], *, shared: bool) -> bool:
        """Let the next push be this one once more; where one is asked for already, only if both may be `shared`."""
        if self._requested is None:
            self._requested = future
            return True
        if shared:
            self._requested.add_done_callback(functools.partial(pass_on, future))
        return shared

    @staticmethod
    def _fail(future: Future[T | None], error: BaseException) -> None:
        if isinstance(error, PostponedError):  # stopped before its turn came, which is no failure
            future.set_result(None)
        else:
            future.set_exception(error)

    def _give_up(self) -> None:
        """Fail the push that waits: the moment for it comes after the end."""
        requested, self._requested = self._requested, None
        if requested is not None:
            requested.set_exception(self._timetable.error)


F = TypeVar("F")

R = TypeVar("R")

# So many files refused in a row, and none accepted, is no matter of single files.
_REFUSED_IN_A_ROW = 5


def isolating(
    files: list[F], commit: Callable[[list[F]], Iterable[tuple[R, list[F]]]], refuse: Callable[[F, str], None]
) -> Iterator[tuple[R, list[F]]]:
    """Yield what came of each commit, and the files in it.

    What the Hub refuses to commit is halved until the files that it refuses are alone.

    Args:
        files: What to commit.
        commit: Commits files, together or in several commits, of which it tells as this does. It raises
            `RejectedError` if the Hub refuses one of them, before which others may have been made.
        refuse: Told of a file that the Hub refuses even alone, and why.

    Raises:
        ActionNeededError: If the Hub refuses one file after the other, which is then no matter of these files.
    """
    waiting, refused, accepted = [files] if files else [], 0, False
    while waiting:
        part = waiting.pop()
        try:
            for result, done in commit(part):
                accepted = True
                part = [file for file in part if file not in done]
                yield result, done
        except RejectedError as error:
            if len(part) > 1:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
                continue
            refused += 1
            if refused >= _REFUSED_IN_A_ROW and not accepted:
                raise ActionNeededError(str(error)) from None
            refuse(part[0], str(error))


# Who is due within this part of its interval joins a commit that is made anyway.
_SOON = 0.5

# Runs often end one after the other. What the first of them brings along, the others need no commit for.
_SOON_AT_AN_END = 0.9

# How long a commit waits for those who were invited, or are about to come.
_GATHER_SECONDS = 1.0

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Part:
    """What one scheduler has uploaded and wants to be in the next commit.

    Attributes:
        additions: What to commit, as its client calls it.
        paths: Where that lands in the repo.
        run: What the commit's title calls it.
        files: How many files of the run they are.
        posted: How many bytes of their content travel within the commit.
        last: Whether it belongs to the last push of a run.
        commit: Commits additions under a title, with this scheduler's client; in the time that they take.
    """

    additions: Sequence[Any]
    paths: frozenset[str]
    run: str
    files: int
    posted: int
    last: bool
    commit: Callable[[Sequence[Any], str], CommitInfo]


class _Ticket:
    """A part on its way through a commit."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.result: tuple[CommitInfo, int] | None = None
        self.error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.result is not None or self.error is not None

    def fail(self, error: Exception) -> None:
        if not self.done:
            # A fresh one for each: an exception that is raised twice collects the frames of both.
            self.error = copy.copy(error) if isinstance(error, (PushError, PostponedError)) else error


class Committer:
    """Makes the commits of one branch. Thread-safe; used through `Seat`.

    Args:
        turns: Keeps the commits within the account's budget.
    """

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self._changed = threading.Condition()
        self._seats: weakref.WeakSet[Seat] = weakref.WeakSet()
        self._coming: set[int] = set()
        self._queue: list[_Ticket] = []
        self._is_led = False
        self._repo_lock = threading.Lock()
        self._repo_id: str | None = None
        self._losses = 0
        self._squash_lock = threading.Lock()
        self._commits = 0
        self._squashed = 0

    def take(self, seat: Seat) -> None:
        """Let a scheduler be one of those who share commits, for as long as `seat` lives."""
        with self._changed:
            self._seats.add(seat)

    def expect(self, seat: Seat) -> None:
        """Note that a scheduler is about to bring its part."""
        with self._changed:
            self._coming.add(id(seat))

    def expect_no_more(self, seat: Seat) -> None:
        """Note that a scheduler has brought its part, or brings none."""
        with self._changed:
            self._coming.discard(id(seat))
            self._changed.notify_all()

    def ensure_repo(self, ensure: Callable[[], tuple[str, bool]]) -> tuple[str, bool]:
        """Return the repo's full id, and whether it was created just now, for this caller; only one asks the Hub."""
        with self._repo_lock:
            if self._repo_id is not None:
                return self._repo_id, False
            self._repo_id, created = ensure()
            return self._repo_id, created

    @property
    def losses(self) -> int:
        """How often somebody here found the repo or its branch gone, and with it all that had arrived."""
        return self._losses

    def forget_repo(self, losses: int) -> None:
        """Ask the Hub anew: the repo is gone, or its branch.

        Args:
            losses: How many losses the caller knew of when it began: what several find gone at once is one more.
        """
        with self._changed:
            self._repo_id = None
            if losses == self._losses:
                self._losses += 1

    def squash(self, number: int, squash: Callable[[], None]) -> None:
        """Fold the history, unless that was done since commit `number`; once for all who shared a commit."""
        with self._squash_lock:
            if self._squashed < number:
                covered = self._commits
                squash()
                self._squashed = covered

    def commit(self, seat: Seat, part: Part, interrupted: Callable[[], bool]) -> tuple[CommitInfo, int]:
        """Have `part` committed, alone or with others; return the commit and its number in this process.

        Args:
            seat: Whose part it is.
            part: What to commit.
            interrupted: Asked while others commit; true ends the wait.

        Raises:
            PostponedError: If others of the account have their turn first.
            PushError: If it could not be committed.
        """
        ticket = _Ticket(part)
        with self._changed:
            self._coming.discard(id(seat))
            self._queue.append(ticket)
            self._changed.notify_all()
            while self._is_led and not ticket.done:
                self._changed.wait(_POLL_SECONDS)
                if interrupted() and not ticket.done:
                    self._leave(ticket)
            if not ticket.done:
                self._is_led = True
        if not ticket.done:
            try:
                self._lead(seat, ticket)
            finally:
                with self._changed:
                    self._is_led = False
                    self._changed.notify_all()
        if ticket.result is None:
            raise ticket.error or InterruptedPushError("the commit was not made")
        return ticket.result

    def _leave(self, ticket: _Ticket) -> None:
        if ticket in self._queue:
            self._queue.remove(ticket)
            raise InterruptedPushError("the push was interrupted")
        late = DeadlineError("the Hub did not answer in time")
        late.in_doubt = True
        raise late

    def _lead(self, seat: Seat, own: _Ticket) -> None:
        try:
            if not own.part.last:
                self.turns.await_turn()
        except Exception as error:  # noqa: BLE001 - it belongs to this part alone
            own.fail(error)
            with self._changed:
                self._queue = [ticket for ticket in self._queue if ticket is not own]
            return
        self._gather(seat, last=own.part.last)
        group = self._next_group(own)
        try:
            for number, tickets in isolating(group, lambda part: [(self._committed(own, part), part)], _refuse):
                for ticket in tickets:
                    ticket.result = number
        except Exception as error:  # noqa: BLE001 - it belongs to all whose part was not committed
            for ticket in group:
                ticket.fail(error)

    def _gather(self, seat: Seat, *, last: bool) -> None:
        deadline = time.monotonic() + _GATHER_SECONDS
        with self._changed:
            others = [other for other in self._seats if other is not seat and id(other) not in self._coming]
            self._coming.update(map(id, others))
        # Without the lock: to invite takes the lock of the one who is invited.
        share = _SOON_AT_AN_END if last else _SOON
        declined = {id(other) for other in others if not other.invite(share)}
        with self._changed:
            self._coming -= declined
            while self._coming and (remaining := deadline - time.monotonic()) > 0:
                self._changed.wait(remaining)

    def _next_group(self, own: _Ticket) -> list[_Ticket]:
        """Take from the queue what the next commit can hold: the leader's part, and of the others the oldest first."""
        with self._changed:
            group, paths, posted = [own], set(own.part.paths), own.part.posted
            for ticket in self._queue:
                # Two folders that go to the same place are committed one after the other.
                if ticket is not own and _fits(ticket.part, len(paths), posted) and not paths & ticket.part.paths:
                    group.append(ticket)
                    paths |= ticket.part.paths
                    posted += ticket.part.posted
            self._queue = [ticket for ticket in self._queue if ticket not in group]
            return group

    def _committed(self, own: _Ticket, tickets: list[_Ticket]) -> tuple[CommitInfo, int]:
        self.turns.spend(last=any(ticket.part.last for ticket in tickets))
        additions = [addition for ticket in tickets for addition in ticket.part.additions]
        try:
            info = own.part.commit(additions, _title(tickets))
        except PushError as error:
            if not error.in_doubt:
                self.turns.give_back()
            if isinstance(error, RateLimitError):
                self.turns.refused(error)
            raise
        with self._changed:
            self._commits += 1
            return info, self._commits


class Seat:
    """One scheduler's place at the committer of its branch.

    Args:
        committer: The committer.
        invite: Asks the scheduler to push now what is due within that part of its interval; tells whether it does.
    """

    def __init__(self, committer: Committer, invite: Callable[[float], bool] = lambda _: False) -> None:
        self.committer = committer
        self.invite = invite
        committer.take(self)

    def await_turn(self, *, last: bool) -> None:
        """Make sure that a push that has something to commit may do so.

        Raises:
            PostponedError: If others of the account have their turn first.
        """
        if not last:
            self.committer.turns.await_turn()

    def begin(self) -> None:
        """Begin such a push; whoever commits meanwhile waits for a moment for what it brings."""
        self.committer.expect(self)

    def commit(self, part: Part, interrupted: Callable[[], bool]) -> tuple[CommitInfo, int]:
        """Have `part` committed; see `Committer.commit`."""
        return self.committer.commit(self, part, interrupted)

    def end(self) -> None:
        """End a push, however it went."""
        self.committer.expect_no_more(self)


def _fits(part: Part, files: int, posted: int) -> bool:
    """Tell whether a commit of so many files, that posts so many bytes, can take `part` as well."""
    fits_in_request = not part.posted or posted + part.posted <= MAX_POSTED_BYTES_PER_COMMIT
    return fits_in_request and files + len(part.paths) <= MAX_FILES_PER_COMMIT


def _title(tickets: list[_Ticket]) -> str:
    count = sum(ticket.part.files for ticket in tickets)
    runs = tickets[0].part.run if len(tickets) == 1 else f"{len(tickets)} runs"
    return f"Logs of {runs}: {count} file{'s' if count > 1 else ''}"


def _refuse(ticket: _Ticket, why: str) -> None:
    # Of a single part, its owner finds out which of its files it is.
    ticket.error = RejectedError(why)


# huggingface.co answers "128 per hour" to ordinary accounts; some are left to the user. Of other Hubs nothing is known
# until they answer that.
_LIMIT_OF_THE_HUB = 120.0

_THE_HUB = "huggingface.co"


def seat_at(hub: Hub, invite: Callable[[float], bool] = lambda _: False) -> Seat:
    """Return a place at the committer that all schedulers of this process share that push to the branch of `hub`.

    Args:
        hub: The branch.
        invite: Asks the scheduler to push now what is due within that part of its interval; tells whether it does.

    Raises:
        ValueError: If the environment variable for the limit means nothing.
    """
    budgets = _Budgets(hub, commits_per_hour())
    return Seat(shared(("committer", hub.branch_key), lambda: Committer(Turns(budgets.current))), invite)


class _Budgets:
    """Finds the budget of the account that pushes now: the stored token may change while a run goes on.

    Args:
        hub: Any branch of that account.
        limit: Commits per hour, if somebody said so; 0 for no limit at all.
    """

    def __init__(self, hub: Hub, limit: float | None) -> None:
        self._hub = hub
        self._limit = limit
        self._account = ""
        self._budget: SharedBudget | None = None

    def current(self) -> SharedBudget | None:
        if self._limit == 0:
            return None
        account = self._hub.account_key
        if account != self._account or self._budget is None:
            host = urlsplit(self._hub.endpoint).hostname or ""
            is_the_hub = host == _THE_HUB or host.endswith("." + _THE_HUB)
            limit = self._limit or (_LIMIT_OF_THE_HUB if is_the_hub else None)
            self._budget = SharedBudget(client_home() / "hf-summary-writer" / "budgets" / f"{account}.json", limit)
            self._account = account
        return self._budget
