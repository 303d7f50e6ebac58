"""A copy of downloaded event files that only grows, as TensorBoard wants to see it.

The client replaces a file that changed. A reader that has the earlier one open would never see the rest of it. So what
is new is appended to files of the same name elsewhere, as a training run would have written it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Changed", "update"]

# So much of the end of what is there is compared before anything is appended to it.
_COMPARED_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Changed:
    """How many files grew or are new, and by how many bytes."""

    files: int = 0
    bytes: int = 0


def update(source: Path, shown: Path) -> Changed:
    """Bring `shown` to the state of `source`; files that are gone from `source` stay."""
    files = size = 0
    shown.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if not path.is_file() or ".cache" in relative.parts:
            continue
        grown = _update_file(path, shown / relative)
        files += grown > 0
        size += grown
    return Changed(files, size)


def _update_file(source: Path, shown: Path) -> int:
    shown.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as new, shown.open("a+b") as old:
        have, size = old.tell(), source.stat().st_size
        start = max(0, have - _COMPARED_BYTES)
        new.seek(start)
        old.seek(start)
        if have > size or new.read(have - start) != old.read():
            old.truncate(0)
            new.seek(0)
            have = 0
        shutil.copyfileobj(new, old)
    return size - have
