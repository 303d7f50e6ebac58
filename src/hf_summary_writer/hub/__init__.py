"""The remote end of a push. The only room that calls `huggingface_hub`; knows no folder and no schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_summary_writer.checks import BUCKET
from hf_summary_writer.hub.bucket import BucketRemote
from hf_summary_writer.hub.repo import RepoRemote

if TYPE_CHECKING:
    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.hub.client import Client
    from hf_summary_writer.hub.remote import Remote

__all__ = ["remote_of"]


def remote_of(config: PushConfig, client: Client) -> Remote:
    """Return the remote end of what goes to the destination of a config.

    Raises:
        ValueError: If the installed client cannot push to it.
    """
    return (BucketRemote if config.repo_type == BUCKET else RepoRemote)(config, client)
