"""Whose turn it is to commit: one branch's place in the queue of all that is pushed for an account."""

from __future__ import annotations

import threading
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
    """

    def __init__(self, budget: Callable[[], SharedBudget | None]) -> None:
        self._budget = budget
        # Held while the budget is asked, which takes a moment at most: two of one branch shall not queue up twice.
        self._lock = threading.Lock()
        self._place: int | None = None
        self._has_come = False  # the turn of this place
        self._used: int | None = None  # the place of the commit that was made last, or is under way

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
            reserved = self._place is not None
            after, seconds = budget.change(lambda before: before.spent(reserved=reserved))
            if seconds <= 0:
                self._used, self._place, self._has_come = self._place, None, False
                return
        if last:
            raise RateLimitError(f"{after.why}, and there can be none just now", retry_after=seconds)
        raise PostponedError(after.why, seconds)

    def give_back(self) -> None:
        """Undo `spend`, since no commit was made. The branch keeps its place in the queue for the next attempt."""
        budget = self._budget()
        if budget is None:
            return
        with self._lock:
            place, self._used = self._used, None
            budget.change(lambda before: (before.unspent(token=place is None), 0.0))
            if place is not None:
                if self._place is not None:  # somebody has queued up for the commit after that
                    budget.change(lambda before: (before.given_back(), 0.0))
                self._place, self._has_come = place, True

    def refused(self, error: RateLimitError) -> None:
        """Tell all who push for this account that the Hub answered 429."""
        budget = self._budget()
        if budget is not None and error.retry_after:
            seconds = error.retry_after
            budget.change(lambda before: (before.refused(seconds, error.commits_per_hour), 0.0))

    def _await_turn(self, budget: SharedBudget) -> None:
        if self._has_come:
            after = budget.look()
            seconds = after.blocked
        elif self._place is None:
            after, seconds = budget.change(Budget.reserved)
            self._place = after.issued
        else:
            place = self._place
            after, seconds = budget.change(lambda before: before.turn_of(place))
        if seconds > 0:
            raise PostponedError(after.why, seconds)
        self._has_come = True
