"""A scheduler for a folder that other programs write to, for the long-running commands."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from hf_summary_writer.cli.terminal import emit, say
from hf_summary_writer.notices import amount
from hf_summary_writer.scheduler import CommitScheduler

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from huggingface_hub import HfApi

    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.errors import CommitDetails


class FolderScheduler(CommitScheduler):
    """A scheduler with a config of the command line, which the caller starts.

    Args:
        folder: The folder.
        config: The destination, the patterns of the files, and the options.
        hf_api: The client; by default, one of the Hub of `config`.
        names_links: As for `Inventory`.
    """

    def __init__(
        self, folder: Path, config: PushConfig, hf_api: HfApi | None = None, *, names_links: bool = True
    ) -> None:
        self._names_links = names_links
        self._set_up(config, folder, hf_api)

    def held(self) -> AbstractContextManager[object]:
        """Keep pushes to the same destination from beginning in the `with` block."""
        return self._loop.lock


def start_together(schedulers: Sequence[FolderScheduler]) -> None:
    """Start schedulers so that the first pushes of those with the same destination share commits."""
    with contextlib.ExitStack() as locks:
        # A loop that sees the first one alone would make a commit for it alone.
        for scheduler in schedulers:
            locks.enter_context(scheduler.held())
        for scheduler in schedulers:
            scheduler.start()


def tell(commit: CommitDetails, *, as_json: bool = False, err: bool = False) -> None:
    """Print a line about a commit."""
    if as_json:
        emit({"commit": describe(commit)})
    else:
        say(f"{amount(commit.files, commit.bytes)}, {commit.seconds:.1f} s: {commit.url}", err=err)


def describe(commit: CommitDetails) -> dict[str, object]:
    """Return a commit as a JSON object."""
    return {**dataclasses.asdict(commit), "folder": str(commit.folder), "seconds": round(commit.seconds, 3)}
