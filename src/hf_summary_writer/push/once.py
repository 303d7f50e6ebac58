"""`sync`: one push of one folder, in the calling thread."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_summary_writer.errors import FolderBusyError, PushError, TemporaryError
from hf_summary_writer.hub import Client, remote_of
from hf_summary_writer.notices import counted
from hf_summary_writer.push.job import Job
from hf_summary_writer.push.links import unfollowed, unfollowed_error
from hf_summary_writer.push.push import Pusher, Round

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from huggingface_hub import HfApi

    from hf_summary_writer.config import PushConfig

# How long `sync` waits for another process that is pushing the folder.
LOCK_SECONDS = 300.0
_BUSY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Synced:
    """The outcome of `sync`.

    Attributes:
        missing: How many files the Hub still lacks.
        error: Why it lacks them, or may lack others.
        repo_id: The repo, with its namespace once that is known from the Hub.
    """

    missing: int
    error: PushError | None
    repo_id: str


def sync(
    folder: Path,
    config: PushConfig,
    api: HfApi,
    *,
    verify: bool = False,
    elsewhere: Collection[Path] = (),
) -> Synced:
    """Push the files of a folder that are new or missing on the Hub, once, in the calling thread.

    Args:
        folder: The folder, an absolute path without links.
        config: The destination, the patterns of the files, the options, and a hook for each commit.
        api: The client.
        verify: Whether to compare the content of all files with the ledger, even if their times are unchanged.
        elsewhere: Folders that the caller pushes as well, so that a link to one leaves nothing out.
    """
    remote = remote_of(config, Client(None, api))
    pusher = Pusher(remote)
    job = Job(
        folder,
        config,
        remote,
        content_lock=threading.Lock(),
        verify=verify,
        names_links=False,  # the error does
    )
    job.asked = job.final = True
    error: PushError | None = None
    try:
        _push_when_free(pusher, job)
    except PushError as raised:
        error = raised
    finally:
        remote.thread.stop()
    pending = job.inventory.pending()
    if error is None and pending.unlisted:
        error = TemporaryError(f"{counted(pending.unlisted, 'folder')} in it cannot be listed")
    links = unfollowed(folder, job.inventory.links_out, elsewhere)
    if error is None and links:
        error = unfollowed_error(links)
    return Synced(pending.missing, error, remote.repo_id)


def _push_when_free(pusher: Pusher, job: Job) -> None:
    began = time.monotonic()
    while (error := pusher.push(Round(iter([job])))[job].error) is not None:
        waited = time.monotonic() - began
        if not isinstance(error, FolderBusyError) or waited > LOCK_SECONDS:
            raise error
        time.sleep(max(_BUSY_SECONDS, waited / 8))  # each attempt scans the folder
