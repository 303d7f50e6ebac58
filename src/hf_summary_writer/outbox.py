"""Private copies of files that may change while they are sent."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from hf_summary_writer.scan import OUT_OF_DESCRIPTORS

__all__ = ["Outbox"]


class Outbox:
    """A folder for private copies, emptied after every push whatever happens.

    Args:
        folder: Where the copies go; on the same file system as the originals, a copy may cost no space. Where it
            cannot be, a folder for temporary files takes its place.
    """

    def __init__(self, folder: Path) -> None:
        """Make nothing yet."""
        self._folder = folder
        self._elsewhere: Path | None = None

    def new_file(self) -> tuple[Path, BinaryIO]:
        """Return a fresh file, readable by this user alone, and its path.

        Raises:
            OSError: If there can be none, here or elsewhere.
        """
        if self._elsewhere is None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                return self._created(self._folder)
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    raise
            import tempfile

            self._elsewhere = Path(tempfile.mkdtemp(prefix="hf-summary-writer-"))
        return self._created(self._elsewhere)

    def _created(self, folder: Path) -> tuple[Path, BinaryIO]:
        # Never a name that somebody else may choose, too: in containers that share a folder, pids are the same.
        path = folder / os.urandom(16).hex()
        return path, open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")

    def empty(self) -> None:
        """Remove all copies, also those that a killed process left in the folder."""
        elsewhere, self._elsewhere = self._elsewhere, None
        for folder in filter(None, (self._folder, elsewhere)):
            with contextlib.suppress(OSError):
                for path in folder.iterdir():
                    with contextlib.suppress(OSError):
                        path.unlink()
                folder.rmdir()
