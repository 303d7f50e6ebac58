"""Finds what a scheduler shares with others: in this process the committer of its branch, on this machine a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hf_summary_writer.committer import Committer, Seat
from hf_summary_writer.environment import commits_per_hour
from hf_summary_writer.hub import client_home
from hf_summary_writer.process import shared
from hf_summary_writer.shared_budget import SharedBudget
from hf_summary_writer.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from hf_summary_writer.hub import Hub

__all__ = ["seat_at"]

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
