"""Whose turn it is to commit: one branch's place in the queue of all that is pushed for an account."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from hf_summary_writer.budget import Budget
from hf_summary_writer.errors import PostponedError, RateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hf_summary_writer.shared_budget import SharedBudget

__all__ = ["Turns"]


class Turns:
    """Keeps the commits of one branch within the budget of its account. Thread-safe.

    Args:
        budget: Returns the budget of the account that pushes now; `None` if nothing limits it.
        clock: Tells the seconds on a clock that never goes back.
    """

    def __init__(self, budget: Callable[[], SharedBudget | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
        self._clock = clock
        # Held while the budget is asked, which takes a moment at most: two of one branch shall not queue up twice.
        self._lock = threading.Lock()
        self._reserved: float | None = None

    def await_turn(self) -> None:
        """Make sure that an ordinary push may commit now; those of one branch share their place in the queue.

        Raises:
            PostponedError: If others come first; a place in the queue is taken.
        """
        budget = self._budget()
        if budget is not None:
            with self._lock:
                self._await_turn(budget)

    def spend(self, *, last: bool) -> None:
        """Use a turn for a commit that is about to be made.

        Args:
            last: Whether it belongs to the last push of a run, which need not wait for its turn.

        Raises:
            PostponedError: If others come first after all.
            RateLimitError: If not even the last push may commit within what the Hub allows.
        """
        budget = self._budget()
        if budget is None:
            return
        with self._lock:
            if not last:
                self._await_turn(budget)
            reserved = self._reserved is not None
            after, seconds = budget.change(lambda before: before.spent(reserved=reserved))
            if seconds <= 0:
                self._reserved = None
                return
            if not last:
                self._reserved = self._clock() + seconds
        if last:
            raise RateLimitError(f"{after.why}, and there can be none just now", retry_after=seconds)
        raise PostponedError(after.why, seconds)

    def give_back(self) -> None:
        """Return a turn with which no commit was made."""
        budget = self._budget()
        if budget is not None:
            budget.change(lambda before: (before.given_back(), 0.0))

    def refused(self, error: RateLimitError) -> None:
        """Tell all who push for this account that the Hub answered 429."""
        budget = self._budget()
        if budget is not None and error.retry_after:
            seconds = error.retry_after
            budget.change(lambda before: (before.refused(seconds, error.commits_per_hour), 0.0))

    def _await_turn(self, budget: SharedBudget) -> None:
        if self._reserved is None:
            _, seconds = budget.change(Budget.reserved)
            self._reserved = self._clock() + seconds
        remaining = self._reserved - self._clock()
        if remaining > 0:
            raise PostponedError(budget.look().why, remaining)
