"""Files that are whole or absent, and stay once they are there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents so that they survive a loss of power."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def move_into_place(temporary: Path, target: Path) -> None:
    """Give a finished temporary file of the same disk its name, for good."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    make_folder(target.parent)
    temporary.replace(target)
    sync_folder(target.parent)


@contextlib.contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """Open a file in `folder` that is gone at the end unless it was moved into place."""
    descriptor, name = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def write_file(target: Path, content: bytes) -> None:
    """Write a small file whole, for good, in place of an earlier one if there is one."""
    make_folder(target.parent)
    with temporary_file(target.parent) as (file, temporary):
        file.write(content)
        file.flush()
        move_into_place(temporary, target)


def sharded(folder: Path, name: str) -> Path:
    """Return where a file named by a hash lives, a few hundred to a folder."""
    return folder / name[:2] / name[2:4] / name
