"""Access control for stored chunks: a caller sees only chunks of owners that the caller may read.

An owner is a repo or bucket (its id) or the uploading user, since clients remember uploaded chunks for days, even if
the repo has been deleted. Each xorb and each file has a list of owners next to it, one per line: label, first chunk,
last chunk (exclusive). Uploading a xorb gives its owner all chunks; registering a file gives its owner the chunks that
the file uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_summary_writer.localhub.disk import append

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    MayRead = Callable[[str], bool]

_SUFFIX = ".owners"


def add_owner(path: Path, owner: str, start: int, end: int) -> None:
    """Record durably that an owner has chunks `start` to `end` (exclusive) of the xorb or file at `path`."""
    if covers((part for label, *part in _lines(path) if label == owner), start, end):
        return
    # A line feed first as well: a full disk can leave a line without its end.
    append(path.with_suffix(_SUFFIX), f"\n{owner} {start} {end}\n".encode())


def readable_parts(path: Path, may_read: MayRead) -> list[list[int]]:
    """Return the chunk ranges of the xorb or file at `path` that a caller may read; ends are exclusive."""
    known: dict[str, bool] = {}
    return [part for owner, *part in _lines(path) if known.setdefault(owner, may_read(owner))]


def covers(parts: Iterable[list[int]], start: int, end: int) -> bool:
    """Return whether the union of ranges contains all chunks from `start` to `end` (exclusive)."""
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
        # A power loss or a full disk can truncate a line.
        if len(fields := line.split()) == len(("owner", "start", "end")):
            yield fields[0], int(fields[1]), int(fields[2])
