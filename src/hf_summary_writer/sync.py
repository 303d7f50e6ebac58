"""Send what is missing of a folder, once, from the process that asks for it: what `hf-summary-writer sync` does."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_summary_writer.attempt import Caller
from hf_summary_writer.errors import PushError, TemporaryError
from hf_summary_writer.hub import Hub
from hf_summary_writer.ledger import ledgers_of
from hf_summary_writer.push import Pusher
from hf_summary_writer.sharing import seat_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from huggingface_hub import HfApi

    from hf_summary_writer.arrival import Settings
    from hf_summary_writer.destination import Destination
    from hf_summary_writer.details import CommitDetails

__all__ = ["Plan", "Synced", "known_plans", "sync"]

# How long to wait for another process that is pushing the folder.
LOCK_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a folder goes, and how."""

    destination: Destination
    settings: Settings


@dataclass(frozen=True, slots=True)
class Synced:
    """What came of it: how many files are still missing on the Hub, and why."""

    missing: int
    error: PushError | None


def known_plans(folder: Path) -> list[Plan]:
    """Return the plans that earlier processes pushed `folder` by, or were to, as far as its ledgers tell."""
    return [Plan(ledger.destination, ledger.settings) for ledger in ledgers_of(folder) if ledger.settings is not None]


def sync(folder: Path, plan: Plan, api: HfApi, on_commit: Callable[[CommitDetails], None]) -> Synced:
    """Push what the Hub does not hold yet of `folder`.

    Args:
        folder: The folder, an absolute path without links.
        plan: Where it goes, and how.
        api: The client.
        on_commit: Told of every commit.
    """
    destination = plan.destination
    hub = Hub(
        destination.repo_id, destination.repo_type, destination.revision, plan.settings.private, token=None, api=api
    )
    caller = Caller("hf-summary-writer-hub")
    pusher = Pusher(folder, destination, plan.settings, hub, caller, threading.Lock(), on_commit, seat_at(hub))
    error: PushError | None = None
    try:
        pusher.push(last=True, interrupted=lambda: False, lock_seconds=LOCK_SECONDS)
    except PushError as raised:
        error = raised
    finally:
        caller.stop()
    pending = pusher.inventory.pending()
    if error is None and pending.unlisted:
        error = TemporaryError(f"{pending.unlisted} folders in it cannot be listed")
    return Synced(pending.missing, error)
