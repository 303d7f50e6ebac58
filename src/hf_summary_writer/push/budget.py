"""The budgets of an account for commits and for batches, shared by all processes of a user on a machine."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hf_summary_writer.config import commits_per_hour
from hf_summary_writer.errors import PostponedError, PushError, RateLimitError
from hf_summary_writer.folder import disk, new_lock
from hf_summary_writer.hub import COMMITS, client_home, temporary_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hf_summary_writer.hub import Remote

HOUR = 3600.0

_RATE, _BURST = 5 / 8, 1 / 8

_LEAST_SHARE = 1 / 256

# A 429 response reduces the share to this part. It takes effect after a while, so responses soon after count once.
_CUT, _SECONDS_FOR_A_CUT = 0.7, 1200.0

# A share recovers slowly at first and completely within this time, so that a hundred machines approach the limit as
# gently as two.
_SECONDS_TO_RECOVER = 4 * HOUR

# Tolerance for clock differences, in seconds.
_A_MOMENT = 0.001

# The time from a turn to its commit, in which the files are uploaded.
_SECONDS_TO_TAKE_A_TURN = 30.0

# A limit that a response named is used for a day; accounts change their plan.
_SECONDS_TO_BELIEVE = 24 * HOUR

# Some commits of a limit that a response names are left to the user.
_OURS_OF_NAMED = 15 / 16


@dataclass(frozen=True, slots=True)
class Budget:
    """The commits of an account at one moment, or the batches to buckets, which are counted alike.

    Attributes:
        limit: Commits per window that the Hub allows; `None` while unknown, which means no limit.
        at: The moment, in seconds since the epoch.
        tokens: Commits that may be made at once; if negative, the number of reserved commits that still have to wait.
        commits: How long ago the commits of the last window were made, in seconds, the oldest first.
        share: The part of the limit that this machine takes.
        blocked: The wait in seconds that the Hub asked for.
        named: The limit that a response of the Hub named, if one did.
        named_since: How long ago that was, in seconds.
        issued: The last position in the queue that was taken.
        idle: Seconds since the last turn or commit.
        cut_since: How long ago the share was cut, in seconds.
        window: The length of the window, in seconds.
    """

    limit: float | None
    at: float
    tokens: float
    commits: tuple[float, ...] = ()
    share: float = 1.0
    blocked: float = 0.0
    named: float | None = None
    named_since: float = 0.0
    issued: int = 0
    idle: float = 0.0
    cut_since: float = 0.0
    window: float = HOUR

    @classmethod
    def fresh(cls, limit: float | None, now: float, window: float = HOUR) -> Budget:
        """Return an unused budget."""
        return cls(limit, now, max(1.0, (limit or 0.0) * _BURST), window=window)

    @property
    def per_window(self) -> float | None:
        """The known limit: set by the user, or named by the Hub."""
        if self.limit is None or self.named is None:
            return self.named if self.limit is None else self.limit
        return min(self.limit, self.named)

    @property
    def seconds_per_token(self) -> float:
        """How long it takes until there is another token."""
        return 0.0 if self.per_window is None else self.window / (self.per_window * _RATE * self.share)

    def moved_to(self, now: float) -> Budget:
        """Return the budget at the time `now`.

        A clock that jumps costs an hour of refill at the most: one that goes back by less stands still, as one of
        another machine that runs ahead would let it seem, and one that goes back by more begins anew from there.
        """
        elapsed = min(now - self.at, HOUR)
        if elapsed < -HOUR:
            return replace(self, at=now)
        if elapsed <= 0:
            return self
        believed = self.named is not None and self.named_since + elapsed < _SECONDS_TO_BELIEVE
        moved = replace(
            self,
            at=now,
            commits=tuple([age for age in (age + elapsed for age in self.commits) if age < self.window]),
            share=min(1.0, self.share + _regained(self.cut_since + elapsed) - _regained(self.cut_since)),
            blocked=self.blocked - elapsed if self.blocked - elapsed > _A_MOMENT else 0.0,
            named=self.named if believed else None,
            named_since=self.named_since + elapsed,
            cut_since=self.cut_since + elapsed,
            idle=max(0.0, self.idle + elapsed - self.blocked),
        )
        gained = max(0.0, elapsed - self.blocked) / self.seconds_per_token if self.seconds_per_token else 0.0
        return replace(moved, tokens=min(moved.most_tokens, self.tokens + gained))

    def reserved(self) -> tuple[Budget, float]:
        """Take the next place in the queue, which is then `issued`; return its wait in seconds."""
        if self.per_window is None:
            return self, self.blocked
        # An empty queue has no turns to skip.
        idle = self.idle if self.tokens < 0 else 0.0
        after = replace(self, tokens=self.tokens - 1, issued=self.issued + 1, idle=idle)
        return after.turn_of(after.issued)

    def seconds_until(self, place: int) -> float:
        """Return how long it takes until it is the turn of a place in the queue, as it seems now."""
        if self.per_window is None:
            return self.blocked
        # A place of a queue that was lost with its file is at the end of this one.
        missing = min(place, self.issued) - self.issued - self.tokens
        return self.blocked + max(0.0, missing * self.seconds_per_token)

    def turn_of(self, place: int) -> tuple[Budget, float]:
        """Return the estimated wait in seconds for a position in the queue; 0 if it is next.

        If nobody takes a turn for a while, its owner has died, and the caller gets the turn.
        """
        seconds = self.seconds_until(place)
        if seconds < _A_MOMENT:
            return replace(self, idle=0.0), 0.0
        if (
            self.blocked > 0
            or self.per_window is None
            or self.idle < 2 * self.seconds_per_token + _SECONDS_TO_TAKE_A_TURN
        ):
            return self, seconds
        return replace(self, idle=0.0, tokens=self.tokens + 1), 0.0

    def spent(self, *, reserved: bool) -> tuple[Budget, float]:
        """Make a commit now, with a token that was `reserved` or one that is borrowed.

        Returns:
            The budget afterwards, and 0; or, if there can be no commit now, the same budget and how many seconds it
            takes until there can.
        """
        if self.blocked > 0 or self.per_window is None:
            return self, self.blocked
        if len(self.commits) + 1 > max(1.0, self.per_window):
            return self, self.window - self.commits[0]
        return replace(self, commits=(*self.commits, 0.0), tokens=self.tokens - (not reserved), idle=0.0), 0.0

    def unspent(self, *, token: bool) -> Budget:
        """Note that the commit was not made after all; return its `token`, too, unless it is kept for another one."""
        if self.per_window is None:
            return self
        return replace(self, commits=self.commits[:-1], tokens=min(self.most_tokens, self.tokens + token))

    def given_back(self) -> Budget:
        """Return a token, and with it a place in the queue."""
        return self if self.per_window is None else replace(self, tokens=min(self.most_tokens, self.tokens + 1))

    def refused(self, seconds: float, named: float | None) -> Budget:
        """Record a 429 Too Many Requests response.

        Args:
            seconds: The wait that the response asked for.
            named: The limit of commits per hour that the response named; `None` if it was not about commits.
        """
        after = replace(self, blocked=max(self.blocked, seconds))
        if named is None:
            return after
        after = replace(after, named=max(1.0, named * _OURS_OF_NAMED), named_since=0.0, tokens=min(after.tokens, 0.0))
        if self.named is not None and self.cut_since < _SECONDS_FOR_A_CUT:
            return after
        return replace(after, share=max(_LEAST_SHARE, self.share * _CUT), cut_since=0.0)

    @property
    def why(self) -> str:
        """The reason why a commit waits, for people."""
        if self.blocked > 0:
            return "the Hub asked this account to wait"
        most = self.per_window or 0.0
        shared = "" if self.share == 1 else f", {most * self.share:.0f} of them for this machine since a refusal,"
        what = "commits per hour" if self.window == HOUR else f"batches in {self.window / 60:.0f} minutes"
        return f"{most:.0f} {what}{shared} are shared by all that is pushed for this account"

    @property
    def most_tokens(self) -> float:
        """How many tokens can be saved up."""
        return max(1.0, (self.per_window or 0.0) * _BURST * self.share)


def _regained(since: float) -> float:
    """Return how much a share has grown so many seconds after the refusal."""
    return float((since / _SECONDS_TO_RECOVER) ** 3)


_LOCK_SECONDS = 2.0

_MOST = 1e9

# More positions in a queue than a machine has runs would keep all of them waiting for days.
_MOST_QUEUED = 10_000.0


class SharedBudget:
    """The budget of one account. Thread-safe.

    Args:
        path: The file.
        limit: Commits per window that the Hub allows; `None` until a response names it.
        clock: Returns the seconds since the epoch, on a clock that all processes share.
        window: The length of the window, in seconds.
        elsewhere: Returns the folder for the file where that of `path` is not writable; `None` if there is none.
    """

    def __init__(
        self,
        path: Path,
        limit: float | None,
        clock: Callable[[], float] = time.time,
        window: float = HOUR,
        elsewhere: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self._path = path
        self._elsewhere = elsewhere
        self._limit = limit
        self._clock = clock
        self._window = window
        disk.StateFolder(path.parent).sweep()
        # The budget of this process alone, for when the file cannot be used.
        self._own = Budget.fresh(limit, clock(), window)

    def change(self, step: Callable[[Budget], tuple[Budget, float]]) -> tuple[Budget, float]:
        """Apply `step` under the lock of all processes; return its result: the new budget, and a wait in seconds."""
        if self._limit is None and not os.path.exists(self._path):  # noqa: PTH110 - raises nothing, unlike the method
            after, seconds = step(self._own.moved_to(self._clock()))
            if after.per_window is None and not after.blocked:
                return after, seconds  # nothing is limited, and there is nothing to note
        with contextlib.ExitStack() as stack:
            shared = self._locked(stack)
            before = (self._read() if shared else None) or self._own
            after, seconds = step(before.moved_to(self._clock()))
            self._own = after
            if shared:
                with contextlib.suppress(OSError):
                    self._write(after)
        return after, seconds

    def look(self) -> Budget:
        """Return the budget as it is now, without changing it."""
        return (self._read() or self._own).moved_to(self._clock())

    def _locked(self, stack: contextlib.ExitStack) -> bool:
        try:
            self._lock(stack)
        except TimeoutError:
            return False
        except (OSError, NotImplementedError):
            # A home that many users share, or a container without one.
            elsewhere, self._elsewhere = self._elsewhere(), lambda: None
            if elsewhere is None:
                return False
            self._path = elsewhere / self._path.name
            return self._locked(stack)
        return True

    def _lock(self, stack: contextlib.ExitStack) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = new_lock(self._path.with_suffix(".lock"))
        stack.enter_context(lock.acquire(timeout=_LOCK_SECONDS, poll_interval=0.01))

    def _read(self) -> Budget | None:
        try:
            return _parsed(disk.read_json(self._path), self._limit, self._window)
        except (OSError, *disk.MALFORMED):
            return None

    def _write(self, budget: Budget) -> None:
        known = {"limit", "window"}
        disk.write_json(self._path, {name: value for name, value in asdict(budget).items() if name not in known})


def _parsed(said: dict[str, Any], limit: float | None, window: float) -> Budget:
    named = said["named"]
    return Budget(
        limit,
        at=_number(said["at"]),
        tokens=_number(said["tokens"], least=-_MOST_QUEUED),
        commits=tuple(_number(age) for age in said["commits"]),
        share=min(1.0, max(1e-3, _number(said["share"]))),
        blocked=disk.seconds(said["blocked"], HOUR),
        named=None if named is None else max(1.0, _number(named)),
        named_since=_number(said["named_since"]),
        issued=int(_number(said["issued"])),
        idle=_number(said["idle"]),
        cut_since=_number(said["cut_since"]),
        window=window,
    )


def _number(value: Any, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= 10 * _MOST:
        raise ValueError(value)
    return float(value)


class CommitQueue:
    """The position of one branch or bucket in the queue for the commits or batches of its account. Thread-safe.

    Args:
        budget: Returns the budget of the account that pushes now; `None` if nothing limits it.
    """

    def __init__(self, budget: Callable[[], SharedBudget | None]) -> None:
        self._budget = budget
        # Held while the budget is asked, which takes a moment at most: a branch queues up once.
        self._lock = threading.Lock()
        self._position: int | None = None
        self._is_first = False
        self._used: int | None = None  # the position of the commit that was made last, or is under way

    def wait_turn(self, *, final: bool) -> None:
        """Make sure that a push may commit now. The last push of a run does not queue.

        Raises:
            PostponedError: If others are first in the queue; a position behind them is taken.
        """
        budget = self._budget()
        if budget is not None and not final:
            with self._lock:
                self._wait_turn(budget)

    @contextlib.contextmanager
    def commit(self, *, final: bool) -> Iterator[None]:
        """Spend a commit of the budget on the block, and take it back if the block makes none.

        Raises:
            PostponedError: If others are first in the queue by now.
            RateLimitError: If the Hub's limit leaves no commit even for a last push.
        """
        self._spend(final=final)
        try:
            yield
        except PushError as error:
            if not error.in_doubt:
                self._give_back()
            if isinstance(error, RateLimitError):
                self._refused(error)
            raise

    def _spend(self, *, final: bool) -> None:
        budget = self._budget()
        if budget is None:
            return
        with self._lock:
            if not final:
                self._wait_turn(budget)
            reserved = self._position is not None
            after, seconds = budget.change(lambda before: before.spent(reserved=reserved))
            if seconds <= 0:
                self._used, self._position, self._is_first = self._position, None, False
                return
        if final:
            raise RateLimitError(f"{after.why}, and there can be none just now", retry_after=seconds)
        raise PostponedError(after.why, seconds)

    def _give_back(self) -> None:
        """Undo `_spend`, since no commit was made. The branch keeps its position for the next attempt."""
        budget = self._budget()
        if budget is None:
            return
        with self._lock:
            position, self._used = self._used, None
            budget.change(lambda before: (before.unspent(token=position is None), 0.0))
            if position is not None:
                if self._position is not None:  # another process is next in the queue
                    budget.change(lambda before: (before.given_back(), 0.0))
                self._position, self._is_first = position, True

    def _refused(self, error: RateLimitError) -> None:
        """Record a 429 Too Many Requests response for all that is pushed for this account."""
        budget = self._budget()
        if budget is not None and error.retry_after:
            seconds = error.retry_after
            budget.change(lambda before: (before.refused(seconds, error.commits_per_hour), 0.0))

    def _wait_turn(self, budget: SharedBudget) -> None:
        if self._is_first:
            after = budget.look()
            seconds = after.blocked
        elif self._position is None:
            after, seconds = budget.change(Budget.reserved)
            self._position = after.issued
        else:
            position = self._position
            after, seconds = budget.change(lambda before: before.turn_of(position))
        if seconds > 0:
            raise PostponedError(after.why, seconds)
        self._is_first = True


# The limits of other Hubs are unknown until one of their responses names them.
_THE_HUB = "huggingface.co"


def commit_queue_of(remote: Remote) -> CommitQueue:
    """Return a position for a branch or bucket in the queue of its account.

    Raises:
        ValueError: If the environment variable for the limit of commits is invalid.
    """
    commits = commits_per_hour()
    if commits == 0:
        return CommitQueue(lambda: None)
    given = commits if remote.rate_limit is COMMITS else None

    @functools.lru_cache(maxsize=1)
    def budget_of(account: str) -> SharedBudget:
        host = urlsplit(remote.client.endpoint).hostname or ""
        is_the_hub = host == _THE_HUB or host.endswith("." + _THE_HUB)
        what, times, seconds = remote.rate_limit
        path = client_home() / "hf-summary-writer" / "budgets" / f"{account}.{what}.json"
        limit = given or (times if is_the_hub else None)
        return SharedBudget(path, limit, window=seconds, elsewhere=lambda: temporary_home("budgets"))

    # The stored token may change while a run goes on.
    return CommitQueue(lambda: budget_of(remote.client.account_key))
