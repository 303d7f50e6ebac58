"""The files of every commit of a branch, read from the Hub's Git repository without a download."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_summary_writer.events.tfrecord import boundaries
from hub.gitcheck import git

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Commit", "assert_every_commit_is_whole", "assert_nothing_is_sent_twice", "history", "repository", "whole"]

_CHANGE = re.compile(r":\d+ (\d+) [0-9a-f]+ ([0-9a-f]+) [A-Z]\t(.*)")
_POINTER = re.compile(rb"oid sha256:([0-9a-f]{64})\nsize (\d+)\n")


@dataclass(frozen=True, slots=True)
class Change:
    """The sha256 and size of an event file in a commit."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit: its title and the large files that it changed, by path."""

    title: str
    changes: Mapping[str, Change]


def repository(root: Path, repo_id: str) -> Path:
    """Return the path of a model's Git repository in the root of a Hub."""
    return root / "repos" / "models" / f"{repo_id}.git"


def history(root: Path, repo_id: str) -> list[Commit]:
    """Return the commits of the main branch, oldest first; empty while there is none."""
    place = repository(root, repo_id)
    # The Hub creates the branch last; before that the folder may not be a valid repository.
    if not (place / "refs" / "heads" / "main").exists():
        return []
    log = git(place, "log", "--reverse", "--raw", "--no-abbrev", "--root", "--format=>%s", "main")
    found: list[tuple[str, dict[str, str]]] = []
    for line in log.splitlines():
        if line.startswith(">"):
            found.append((line[1:], {}))
        elif match := _CHANGE.fullmatch(line):
            _, blob, path = match.groups()
            found[-1][1][path] = blob
    changes = _large(place, sorted({blob for _, blobs in found for blob in blobs.values()}))
    return [
        Commit(title, {path: changes[blob] for path, blob in blobs.items() if blob in changes})
        for title, blobs in found
    ]


def _large(place: Path, blobs: list[str]) -> dict[str, Change]:
    """Return the sha256 and size in those blobs that are LFS pointers."""
    asked = "".join(f"{blob}\n" for blob in blobs).encode()
    batch = subprocess.run(
        ["git", "-C", str(place), "cat-file", "--batch"],  # noqa: S607
        input=asked,
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    said, found = io.BytesIO(batch), {}
    for blob in blobs:
        name, kind, size = said.readline().split()
        assert (name.decode(), kind) == (blob, b"blob")
        content = said.read(int(size))
        said.readline()
        if match := _POINTER.search(content):
            found[blob] = Change(match[1].decode(), int(match[2]))
    return found


def assert_every_commit_is_whole(commits: list[Commit], local: Mapping[str, bytes]) -> None:
    """Check that every file in a commit is a prefix of the local file that ends with a record."""
    ends = {path: {0, *boundaries(io.BytesIO(content))} for path, content in local.items()}
    for commit in commits:
        for path, change in commit.changes.items():
            assert change.size in ends[path], f"{commit.title} tore {path} at {change.size}"
            assert hashlib.sha256(local[path][: change.size]).hexdigest() == change.sha256, path


def assert_nothing_is_sent_twice(commits: list[Commit]) -> None:
    """Check that every commit of logs has changes, and that each changed file is longer than before."""
    sizes: dict[str, int] = {}
    for commit in commits:
        if commit.title.startswith("Logs of"):
            assert commit.changes, f"{commit.title!r} brought nothing"
        for path, change in commit.changes.items():
            assert change.size > sizes.get(path, 0), f"{path} had {sizes[path]} bytes and then {change.size}"
            sizes[path] = change.size


def whole(content: bytes) -> bytes:
    """Return an event file without the torn record that a killed process leaves at its end."""
    return content[: [0, *boundaries(io.BytesIO(content))][-1]]
