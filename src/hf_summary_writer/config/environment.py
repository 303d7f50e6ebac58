"""The environment variables that hold for all folders of a process, those of launchers included."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from hf_summary_writer.checks import PREFIX, YES

if TYPE_CHECKING:
    from collections.abc import Mapping

MODE = f"{PREFIX}MODE"

COMMITS_PER_HOUR = f"{PREFIX}COMMITS_PER_HOUR"

# Set by `hf-summary-writer run` for its command: `run` itself pushes the files below this folder.
PUSHED_FOLDER = f"{PREFIX}PUSHED_FOLDER"

# The rank as launchers set it: torchrun, accelerate launch, deepspeed and Ray Train; mpirun of Open MPI, of MPICH and
# Intel, of MVAPICH; jsrun. SLURM is not among them: a batch script is its task 0, and every launcher that the script
# starts inherits that variable, so it counts only where no other launcher sets a rank.
_RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "JSM_NAMESPACE_RANK")
# Lightning, in the processes that it starts itself, sets the number of the host and of the process on it.
_OTHER_RANKS = ("SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")


class Mode(Enum):
    """Whether folders are pushed."""

    ONLINE = "online"
    OFFLINE = "offline"
    DISABLED = "disabled"


def mode_for(folder: Path | None = None) -> Mode:
    """Return whether `folder`, an absolute path without links, is to be pushed from this process.

    Raises:
        ValueError: If the variable has an invalid value.
    """
    said = os.environ.get(MODE, "").strip().lower()
    if said not in {"", *(mode.value for mode in Mode)}:
        raise ValueError(f"{MODE} is {said!r}: use {', '.join(mode.value for mode in Mode)}")
    if said == Mode.DISABLED.value or (folder is not None and is_pushed_from_outside(folder)):
        return Mode.DISABLED
    # The client, which reads its variables when it is imported, then refuses every request.
    if said == Mode.OFFLINE.value or is_client_offline():
        return Mode.OFFLINE
    return Mode.ONLINE


def commits_per_hour() -> float | None:
    """Return the commits per hour allowed for all pushes of an account; `None` if the variable is unset, 0 for any.

    Raises:
        ValueError: If the variable has an invalid value.
    """
    text = os.environ.get(COMMITS_PER_HOUR, "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise ValueError(f"{COMMITS_PER_HOUR} is {text!r}: use a whole number, 0 for no limit")
    return float(text)


def is_client_offline() -> bool:
    # The variable of transformers counts for the client where its own is unset or empty.
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE", "")
    return said.lower() in YES


def is_pushed_from_outside(folder: Path) -> bool:
    """Return whether `hf-summary-writer run`, which started this process, pushes `folder`."""
    pushed = os.environ.get(PUSHED_FOLDER, "")
    return bool(pushed) and folder.is_relative_to(Path(pushed).resolve())


def rank_of(environment: Mapping[str, str]) -> int:
    """Return the number that a launcher gave this process in its run; 0 for the main process, and the only one."""
    for name in _RANKS:
        if name in environment:
            return _number(environment, name)
    return next((rank for name in _OTHER_RANKS if (rank := _number(environment, name))), 0)


def has_ranks(environment: Mapping[str, str]) -> bool:
    """Return whether a launcher gave this process a rank."""
    return any(name in environment for name in (*_RANKS, *_OTHER_RANKS))


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else 0
