"""Invariants of a folder's state that hold after any failure of the processes that pushed it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import filelock

from hf_summary_writer.folder.disk import STATE_FOLDER
from hf_summary_writer.folder.ledger import ledgers_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["assert_sound"]


def assert_sound(folder: Path) -> None:
    """Check that every ledger loads, the lock is free and no ledger was set aside."""
    state = folder / STATE_FOLDER
    journals = list(state.glob("*.jsonl"))
    assert len(list(ledgers_of(folder))) == len(journals)
    if state.exists():
        with filelock.FileLock(state / "push.lock", timeout=0):
            pass
    assert not [path.name for path in state.rglob("*") if "set-aside" in path.name]
