"""The content of a Hub, as downloaded by the real client."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_summary_writer.push import RunState, is_state_file

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["card", "commits", "files", "states", "under"]

# Files that the Hub itself puts into a new repo.
_OF_THE_HUB = {".gitattributes"}
_OUR_CARD = b"\n- hf-summary-writer\n"


def files(api: HfApi, repo_id: str, **where: Any) -> dict[str, bytes]:
    """Return the content of every file of a branch by its path, without the Hub's own files and our model card.

    Of a bucket, return all files. The states of runs are left out.
    """
    return {path: content for path, content in _files(api, repo_id, **where).items() if not _is_state(path, content)}


def states(api: HfApi, repo_id: str, **where: Any) -> dict[str, RunState]:
    """Return the states of the runs of a branch or bucket by the paths of their files."""
    found = _files(api, repo_id, **where).items()
    return {path: RunState.parse(content) for path, content in found if is_state_file(path)}


def _is_state(path: str, content: bytes) -> bool:
    return is_state_file(path) and bool(RunState.parse(content))


def _files(api: HfApi, repo_id: str, **where: Any) -> dict[str, bytes]:
    if where.get("repo_type") == "bucket":
        return _bucket_files(api, repo_id)
    with tempfile.TemporaryDirectory() as folder:
        # Into a cache: a download into a folder lengthens every name, which fails for the longest ones.
        root = Path(api.snapshot_download(repo_id, cache_dir=folder, **where))
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.name not in _OF_THE_HUB
            if path != root / "README.md" or _OUR_CARD not in path.read_bytes()
        }


def _bucket_files(api: HfApi, bucket_id: str) -> dict[str, bytes]:
    found = [file for file in api.list_bucket_tree(bucket_id, recursive=True) if file.type == "file"]
    with tempfile.TemporaryDirectory() as folder:
        # Numbered, because the names may be too long for the disk.
        copies = [(file, Path(folder) / str(number)) for number, file in enumerate(found)]
        api.download_bucket_files(bucket_id, list(copies))
        return {file.path: copy.read_bytes() for file, copy in copies}


def card(api: HfApi, repo_id: str, **where: Any) -> str | None:
    """Return the README.md of a branch, if there is one."""
    if "README.md" not in api.list_repo_files(repo_id, **where):
        return None
    with tempfile.TemporaryDirectory() as folder:
        return Path(api.hf_hub_download(repo_id, "README.md", local_dir=folder, **where)).read_text(encoding="utf-8")


def under(folder: Path, prefix: str, pattern: str = "*.tfevents.*") -> dict[str, bytes]:
    """Return the content of every matching file below a local folder, by its path in the repo."""
    return {
        f"{prefix}/{path.relative_to(folder).as_posix()}" if prefix else path.relative_to(folder).as_posix(): (
            path.read_bytes()
        )
        for path in sorted(folder.rglob(pattern))
        if path.is_file() and ".cache" not in path.relative_to(folder).parts
    }


def commits(api: HfApi, repo_id: str, **where: Any) -> list[str]:
    """Return the titles of a branch's commits, newest first."""
    return [commit.title for commit in api.list_repo_commits(repo_id, **where)]
