"""The environment variables that hold for all folders of a process."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path

from hf_summary_writer.checks import PREFIX

__all__ = [
    "COMMITS_PER_HOUR",
    "MODE",
    "NO",
    "PUSHED_FOLDER",
    "YES",
    "Mode",
    "commits_per_hour",
    "is_client_offline",
    "mode_for",
]

MODE = f"{PREFIX}MODE"

COMMITS_PER_HOUR = f"{PREFIX}COMMITS_PER_HOUR"

# Set by `hf-summary-writer run` for its command: `run` itself pushes the files below this folder.
PUSHED_FOLDER = f"{PREFIX}PUSHED_FOLDER"

YES, NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


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
    if said == Mode.DISABLED.value or (folder is not None and _is_pushed_from_outside(folder)):
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
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{COMMITS_PER_HOUR} is {text!r}: use a whole number, 0 for no limit")
    return float(text)


def is_client_offline() -> bool:
    # The variable of transformers counts for the client where its own is unset or empty.
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE", "")
    return said.lower() in YES


def _is_pushed_from_outside(folder: Path) -> bool:
    pushed = os.environ.get(PUSHED_FOLDER, "")
    return bool(pushed) and folder.is_relative_to(Path(pushed).resolve())
