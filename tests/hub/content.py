"""Content for tests of the local Hub, and commits with the real client."""

from __future__ import annotations

import contextlib
import random
import resource
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub import CommitInfo, HfApi

LOG = "events.tfevents.1"


def noise(seed: int, size: int = 200_000) -> bytes:
    """Return incompressible bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Limit the size of files that this process writes, to simulate a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def push(api: HfApi, repo_id: str, files: dict[str, bytes | None], **more: Any) -> CommitInfo:
    """Commit files by path; a content of None deletes the file."""
    operations = [
        CommitOperationDelete(path) if content is None else CommitOperationAdd(path, content)
        for path, content in files.items()
    ]
    info: CommitInfo = api.create_commit(repo_id, operations, commit_message="Change", commit_description="why", **more)
    return info
