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

    from hf_summary_writer.cli.progress import UploadProgress
    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.errors import CommitDetails

__all__ = ["describe", "scheduler_of", "start_together", "tell"]


def scheduler_of(
    folder: Path,
    config: PushConfig,
    *,
    as_json: bool,
    err: bool,
    progress: UploadProgress | None = None,
    names_links: bool = True,
) -> FolderScheduler:
    """Return a scheduler that prints each commit, and is not started."""

    def note(commit: CommitDetails) -> None:
        if progress is not None:
            progress.committed(commit)
        tell(commit, as_json=as_json, err=err)

    client = None if progress is None else progress.client
    return FolderScheduler(dataclasses.replace(config, on_commit=note), folder, client, names_links=names_links)


class FolderScheduler(CommitScheduler):
    """A scheduler with a config of the command line, which the caller starts.

    Args:
        config: The destination, the patterns of the files, and the options.
        folder: The folder.
        hf_api: The client.
        names_links: As for `Inventory`.
    """

    def __init__(self, config: PushConfig, folder: Path, hf_api: HfApi | None, *, names_links: bool) -> None:
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


def tell(commit: CommitDetails, *, as_json: bool, err: bool = False) -> None:
    """Print a line about a commit."""
    if as_json:
        emit({"commit": describe(commit)})
    else:
        say(f"{amount(commit.files, commit.bytes)}, {commit.seconds:.1f} s: {commit.url}", err=err)


def describe(commit: CommitDetails) -> dict[str, object]:
    """Return a commit as a JSON object."""
    return {
        "repo_id": commit.repo_id,
        "folder": str(commit.folder),
        "oid": commit.oid,
        "url": commit.url,
        "files": commit.files,
        "bytes": commit.bytes,
        "seconds": round(commit.seconds, 3),
    }
