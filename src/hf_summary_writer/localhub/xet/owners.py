"""The owners of stored chunks: only who may read as an owner gets to see a chunk, or that it is there.

An owner is a repo, by its id, or the user who uploaded: clients remember for days what they sent, even to a repo that
is gone by then. Beside a xorb or a file of the store lies a list with one line for each owner: its label, and the first
and the last chunk (exclusive) that it owns. An upload of a xorb makes the owner of all of it, a file that names a part
of one the owner of that part.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hf_summary_writer.localhub.disk import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    MayRead = Callable[[str], bool]

_SUFFIX = ".owners"


def add_owner(path: Path, owner: str, start: int, end: int) -> None:
    """Let an owner have chunks `start` to `end` (exclusive) of what lies at `path`, for good."""
    if covers((part for label, *part in _lines(path) if label == owner), start, end):
        return
    target = path.with_suffix(_SUFFIX)
    is_new = not target.exists()
    with target.open("ab") as file:
        # One write, so that lines of several threads do not mix.
        file.write(f"{owner} {start} {end}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync_folder(target.parent)


def readable_parts(path: Path, may_read: MayRead) -> list[list[int]]:
    """Return the parts of what lies at `path` that a caller may read: first and last chunk (exclusive)."""
    known: dict[str, bool] = {}
    return [part for owner, *part in _lines(path) if known.setdefault(owner, may_read(owner))]


def covers(parts: Iterable[list[int]], start: int, end: int) -> bool:
    """Return whether parts, joined, hold all chunks from `start` to `end` (exclusive)."""
    for first, last in sorted(parts):
        if first <= start < last:
            start = last
    return start >= end


def _lines(path: Path) -> Iterable[tuple[str, int, int]]:
    try:
        text = path.with_suffix(_SUFFIX).read_text()
    except FileNotFoundError:
        return
    for line in text.splitlines():
        # A loss of power may have cut a line short.
        if len(fields := line.split()) == len(("owner", "start", "end")):
            yield fields[0], int(fields[1]), int(fields[2])
