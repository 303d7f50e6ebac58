"""The remote end of a push. The only room that calls `huggingface_hub`; knows no folder and no schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_summary_writer.checks import BUCKET
from hf_summary_writer.hub.bucket import BucketRemote, check_client
from hf_summary_writer.hub.client import Client, client_of, default_endpoint, endpoint_for
from hf_summary_writer.hub.downloads import as_os_errors, failed_read, list_files, missing_place, small_files
from hf_summary_writer.hub.home import client_home, temporary_home
from hf_summary_writer.hub.mirror import REPO_SECONDS, Mirror, refresh_seconds, with_full_name
from hf_summary_writer.hub.remote import COMMITS, Published, Remote, RemoteFile, Upload
from hf_summary_writer.hub.repo import RepoRemote
from hf_summary_writer.hub.responses import failure_of, one_line
from hf_summary_writer.hub.uploads import CARD_PATH, model_card

if TYPE_CHECKING:
    from hf_summary_writer.config import PushConfig

__all__ = [
    "CARD_PATH",
    "COMMITS",
    "REPO_SECONDS",
    "Client",
    "Mirror",
    "Published",
    "Remote",
    "RemoteFile",
    "Upload",
    "as_os_errors",
    "check_client",
    "client_home",
    "client_of",
    "default_endpoint",
    "endpoint_for",
    "failed_read",
    "failure_of",
    "list_files",
    "missing_place",
    "model_card",
    "one_line",
    "refresh_seconds",
    "remote_of",
    "small_files",
    "temporary_home",
    "with_full_name",
]


def remote_of(config: PushConfig, client: Client) -> Remote:
    """Return the remote for the destination of a config.

    Raises:
        ValueError: If the installed client cannot push to it.
    """
    return (BucketRemote if config.repo_type == BUCKET else RepoRemote)(config, client)
