"""One committer for all schedulers of this process that push to the same branch.

Each of them reads, uploads and keeps the books for itself, so that a bad file, a slow upload or a failing hook of one
delays no other. Only the commit itself they share. Whoever comes first leads: it invites those whose push is due soon
anyway, waits for a moment until they have come, and makes one commit of all. While it is under way the next ones
gather. So sixty writers make as many commits as one does.

There is no thread here: the one that leads is that of a scheduler, and makes the commit with its own client.
"""

from __future__ import annotations

import copy
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_summary_writer.batches import MAX_FILES_PER_COMMIT, MAX_POSTED_BYTES_PER_COMMIT
from hf_summary_writer.errors import (
    DeadlineError,
    InterruptedPushError,
    PostponedError,
    PushError,
    RateLimitError,
    RejectedError,
)
from hf_summary_writer.isolating import isolating

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from huggingface_hub import CommitInfo

    from hf_summary_writer.turns import Turns

__all__ = ["Committer", "Part", "Seat"]

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
