"""The budget of commits that all processes of a user on a machine share, in a small file behind a lock.

The file is no ledger: what is lost with it is only how much was used in the last hour. So it is replaced at once but
not fsynced, and where it cannot be read, written or locked, this process keeps a budget of its own.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hf_summary_writer import json_file
from hf_summary_writer.budget import Budget
from hf_summary_writer.folder_lock import new_lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["SharedBudget"]

_LOCK_SECONDS = 2.0
_MAX_BYTES = 2**20
_MOST = 1e9


class SharedBudget:
    """The budget of one account. Thread-safe.

    Args:
        path: The file.
        limit: Commits per hour that the Hub allows; `None` if that is not known until an answer names it.
        clock: Tells the seconds since the epoch, on a clock that all processes share.
    """

    def __init__(self, path: Path, limit: float | None, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._limit = limit
        self._clock = clock
        # What is known where the file cannot be used.
        self._own = Budget.fresh(limit, clock())

    def change(self, step: Callable[[Budget], tuple[Budget, float]]) -> tuple[Budget, float]:
        """Take one step, alone among all processes; return the budget after it, and the seconds that it answered."""
        if self._limit is None and not self._path.exists():
            after, seconds = step(self._own.moved_to(self._clock()))
            if after.per_hour is None and not after.blocked:
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
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = new_lock(self._path.with_suffix(".lock"))
            stack.enter_context(lock.acquire(timeout=_LOCK_SECONDS, poll_interval=0.01))
        except (OSError, NotImplementedError):  # a time-out is one, too
            return False
        return True

    def _read(self) -> Budget | None:
        try:
            return _parsed(json_file.read(self._path, _MAX_BYTES), self._limit)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _write(self, budget: Budget) -> None:
        json_file.write(self._path, {name: value for name, value in asdict(budget).items() if name != "limit"})


def _parsed(said: dict[str, Any], limit: float | None) -> Budget:
    named = said["named"]
    return Budget(
        limit,
        at=_number(said["at"]),
        tokens=_number(said["tokens"], least=-_MOST),
        commits=tuple(_number(age) for age in said["commits"]),
        share=min(1.0, max(1e-3, _number(said["share"]))),
        blocked=_number(said["blocked"]),
        named=None if named is None else max(1.0, _number(named)),
        named_since=_number(said["named_since"]),
        issued=int(_number(said["issued"])),
        idle=_number(said["idle"]),
        cut_since=_number(said["cut_since"]),
    )


def _number(value: Any, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= 10 * _MOST:
        raise ValueError(value)
    return float(value)
