"""Reads the state file of a run, in which its writer reports whether the run continues."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_STATE_BYTES = 64 * 2**10

_FILE_NAME = re.compile(r"hf-summary-writer(?:\.rank-\d{1,10})?\.json", flags=re.ASCII)
_STATES = frozenset({"running", "finished", "failed", "stopped"})

# A push is overdue after this many intervals, and after this many seconds at the earliest.
_INTERVALS = 3
_SECONDS = 300


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run as its writer reports it.

    Attributes:
        name: `running`, `finished`, `failed` or `stopped`.
        last_push: the time of its last push, in seconds since the epoch.
        interval: seconds between its pushes.
        about: the command, host and rank of the run.
    """

    name: str
    last_push: float
    interval: float
    about: str

    @property
    def is_overdue(self) -> bool:
        """Whether the run has not pushed for so long that its process seems to be gone."""
        return self.name == "running" and time.time() - self.last_push > max(_INTERVALS * self.interval, _SECONDS)


def is_state_file(path: str) -> bool:
    """Return whether the file with this path is a state file."""
    return _FILE_NAME.fullmatch(path.rpartition("/")[2]) is not None


def read_state(pieces: Iterable[bytes]) -> RunState | None:
    """Return the state in a file, or `None` if its content is invalid."""
    try:
        said = json.loads(b"".join(pieces))
        pushed = datetime.fromisoformat(said["last_push"].replace("Z", "+00:00")).timestamp()
        host, rank, command = str(said["host"]), int(said["rank"]), str(said["command"])
        about = f"{command} on {host}{f' (rank {rank})' if rank else ''}"
        if said["state"] not in _STATES:
            return None
        return RunState(said["state"], pushed, float(said["interval"]), about)
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError):
        return None
