"""The command that sends what a process could not: what it says, and what it takes for granted."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from hf_summary_writer.arrival import Settings
from hf_summary_writer.destination import DEFAULT_REVISION, DEFAULT_TYPE

if TYPE_CHECKING:
    from pathlib import Path

    from hf_summary_writer.destination import Destination

__all__ = ["EVENT_FILES", "UNSAID", "sync_command"]

EVENT_FILES = ("*.tfevents.*",)
UNSAID = Settings(allow=EVENT_FILES)
"""How `hf-summary-writer` pushes a folder unless its options say otherwise."""

_PUBLIC_HUB = "https://huggingface.co"
# On the command line no pattern means the usual ones. These mean all files, and none.
_ALL, _NONE = ("*",), ("",)


def sync_command(destination: Destination, folder: Path, settings: Settings, assumed_endpoint: str) -> str:
    """Return the command that sends what is missing of `folder` as its scheduler would, ready to paste into a shell.

    Args:
        destination: Where it goes.
        folder: The folder, an absolute path.
        settings: Which files of it, and how. What the command does by itself is left out of it.
        assumed_endpoint: The Hub that this process talks to unless told otherwise.
    """
    words = ["hf-summary-writer", "sync", str(folder), destination.repo_id, "--into", destination.path or "/"]
    if destination.repo_type != DEFAULT_TYPE:
        words += ["--repo-type", destination.repo_type]
    if destination.revision != DEFAULT_REVISION:
        words += ["--revision", destination.revision]
    command = shlex.join([*words, *_options(settings)])
    # Whether the shell that it is pasted into has the variables of this process is not known.
    if destination.endpoint == assumed_endpoint == _PUBLIC_HUB:
        return command
    return f"HF_ENDPOINT={shlex.quote(destination.endpoint)} {command}"


def _options(settings: Settings) -> list[str]:
    words = []
    if settings.private is not None:
        words.append("--private" if settings.private else "--public")
    if settings.allow != UNSAID.allow:
        for pattern in _ALL if settings.allow is None else settings.allow or _NONE:
            words += ["--allow", pattern]
    for pattern in settings.ignore or ():
        words += ["--ignore", pattern]
    if settings.squash:
        words.append("--squash-history")
    if not settings.card:
        words.append("--no-model-card")
    return words
