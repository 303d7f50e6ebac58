"""Sends the new part of a large file ahead of the commit that is to hold it, in pieces.

The Xet client collects up to 64 MB of new chunks before it uploads them, and holds those several times over. Pieces
that were uploaded before cost it no memory when the whole file follows: it finds all their chunks known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from hf_summary_writer.arrival import Arrival
    from hf_summary_writer.snapshot import Content

__all__ = ["OVERLAP_BYTES", "PIECE_BYTES", "SentAhead"]

# The client and the allocator below it hold about 20 times this. A piece takes two requests of the Hub's API.
PIECE_BYTES = 4 * 2**20
# A piece begins this long before the end of the one before it. Chunks are cut by content and have at most 128 kB, so
# that in most cases both pieces agree on a cut in between, and the chunk over the end is whole in the second one. Each
# that is not would be new in the whole file, and hold there the block that it was read with until the upload's end.
OVERLAP_BYTES = 256 * 2**10


class SentAhead:
    """Up to where large files were sent ahead, for an attempt that follows one that failed in the middle."""

    def __init__(self) -> None:
        """Nothing was sent yet."""
        self._ends: dict[tuple[int, int], int] = {}

    def send(self, content: Content, known: Arrival | None, at_least: int, send: Callable[[bytes], object]) -> None:
        """Send what is new of `content`, but for a last part of less than a piece, if it is more than `at_least` bytes.

        Args:
            content: The file; only what lies in a file is sent, not what is in memory anyway.
            known: What the Hub holds of it.
            at_least: What is no more than this goes with the commit.
            send: Uploads one piece.
        """
        # The file may be another one by now. Then too much or too little is sent ahead, which does no harm.
        file_id = content.arrival.signature[:2]
        start = max(known.length if known else 0, self._ends.get(file_id, 0))
        if isinstance(content.body, bytes) or content.arrival.length - start <= at_least:
            return
        with content.body.open("rb") as file:
            for end in range(start + PIECE_BYTES, content.arrival.length, PIECE_BYTES - OVERLAP_BYTES):
                file.seek(end - PIECE_BYTES)
                send(file.read(PIECE_BYTES))
                self._ends[file_id] = end
