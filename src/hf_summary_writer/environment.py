"""What environment variables say: whether to push at all, and what the code left out.

They let a job script redirect a run, or keep it off the network, without a change to the training code.
"""

from __future__ import annotations

import functools
import inspect
import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from hf_summary_writer import destination as checks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "COMMITS_PER_HOUR",
    "MODE",
    "PREFIX",
    "PUSHED_FOLDER",
    "VARIABLES",
    "Mode",
    "commits_per_hour",
    "fills_in",
    "mode_for",
]

P = ParamSpec("P")

PREFIX = "HF_SUMMARY_WRITER_"
MODE = f"{PREFIX}MODE"
COMMITS_PER_HOUR = f"{PREFIX}COMMITS_PER_HOUR"
# Set by `hf-summary-writer run` for the command it runs: what lies below this folder is pushed from outside.
PUSHED_FOLDER = f"{PREFIX}PUSHED_FOLDER"

_YES, _NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


class Mode(Enum):
    """Whether folders are pushed."""

    ONLINE = "online"
    OFFLINE = "offline"
    DISABLED = "disabled"


def _switch(value: str) -> bool:
    if value.lower() in _YES:
        return True
    if value.lower() in _NO:
        return False
    raise ValueError(f"{value!r} is neither yes nor no: use 1 or 0")


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a number") from None


def _minutes(value: str) -> float:
    return checks.check_interval("it", _number(value))


def _seconds(value: str) -> float:
    return checks.check_seconds("it", _number(value))


# What fills in what: the end of the variable's name, and what makes a value of its text or raises a ValueError.
VARIABLES: dict[str, Callable[[str], object]] = {
    "REPO_ID": checks.check_repo_id,
    "REPO_TYPE": checks.check_repo_type,
    "REVISION": checks.check_revision,
    "PRIVATE": _switch,
    "PATH_IN_REPO": checks.check_path_in_repo,
    "COMMIT_EVERY": _minutes,
    "SQUASH_HISTORY": _switch,
    "CLOSE_TIMEOUT": _seconds,
    "MODEL_CARD": _switch,
}


def mode_for(folder: Path | None = None) -> Mode:
    """Return whether `folder`, an absolute path without links, is to be pushed from this process.

    Raises:
        ValueError: If the variable for it says something that means nothing.
    """
    said = os.environ.get(MODE, "").strip().lower()
    if said not in {"", *(mode.value for mode in Mode)}:
        raise ValueError(f"{MODE} is {said!r}: use {', '.join(mode.value for mode in Mode)}")
    if said == Mode.DISABLED.value or (folder is not None and _is_pushed_from_outside(folder)):
        return Mode.DISABLED
    # The client reads this variable too, when it is imported; whoever sets it wants no request to be tried.
    if said == Mode.OFFLINE.value or os.environ.get("HF_HUB_OFFLINE", "").lower() in _YES:
        return Mode.OFFLINE
    return Mode.ONLINE


def commits_per_hour() -> float | None:
    """Return how many commits per hour all that is pushed for an account may make; `None` if nobody says, 0 for any.

    Raises:
        ValueError: If the variable for it says something that means nothing.
    """
    text = os.environ.get(COMMITS_PER_HOUR, "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{COMMITS_PER_HOUR} is {text!r}: use a whole number, 0 for no limit")
    return float(text)


def fills_in(**arguments: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Let environment variables give a constructor the arguments that its caller left out.

    Args:
        **arguments: By the name of an argument, the end of its variable's name: one of `VARIABLES`.
    """

    def decorate(init: Callable[P, None]) -> Callable[P, None]:
        signature = inspect.signature(init)

        @functools.wraps(init)
        def filled(*args: P.args, **kwargs: P.kwargs) -> None:
            given = signature.bind_partial(*args, **kwargs).arguments
            init(*args, **{**_found(arguments, given), **kwargs})  # type: ignore[arg-type]

        return filled

    return decorate


def _found(arguments: dict[str, str], given: dict[str, Any]) -> dict[str, object]:
    found = {}
    for name, ending in arguments.items():
        text = os.environ.get(PREFIX + ending, "").strip()
        if text and name not in given:
            try:
                found[name] = VARIABLES[ending](text)
            except ValueError as error:
                raise ValueError(f"the environment variable {PREFIX}{ending} cannot be used: {error}") from None
    return found


def _is_pushed_from_outside(folder: Path) -> bool:
    pushed = os.environ.get(PUSHED_FOLDER, "")
    return bool(pushed) and folder.is_relative_to(Path(pushed).resolve())
