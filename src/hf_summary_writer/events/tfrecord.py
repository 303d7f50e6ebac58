"""The TFRecord frame: how one record lies in a file, and where whole records end.

A record is `length (8 bytes) · masked CRC-32C of the length (4) · payload · masked CRC-32C of the payload (4)`, all
little-endian. The format and the mask are TensorFlow's (`tensorflow/core/lib/io/record_writer.h` and
`tensorflow/core/lib/hash/crc32c.h`). This module knows frames and nothing of events or of the life of a file.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

with warnings.catch_warnings():
    # Where there is no wheel for the platform, google-crc32c is slow and says so to every user of ours.
    warnings.simplefilter("ignore", RuntimeWarning)
    import google_crc32c

crc32c: Callable[[bytes], int] = google_crc32c.value

extend_crc: Callable[[int, bytes], int] = google_crc32c.extend

HEADER_BYTES = 12

FOOTER_BYTES = 4

_LENGTH = struct.Struct("<Q")

_CRC = struct.Struct("<I")

_HEADER = struct.Struct("<QI")

_MASK_DELTA = 0xA282EAD8

_WORD = 0xFFFFFFFF

_BLOCK_BYTES = 1 << 20

"""Bytes of a file held in memory during a search for boundaries."""

_LARGEST_PAYLOAD = 16 << 20

"""Larger payloads are images and the like, which no caller wants in memory."""


def masked_crc(data: bytes) -> int:
    """Return the CRC-32C of `data`, rotated and shifted as TFRecord stores it."""
    return _mask(crc32c(data))


def _mask(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _WORD


def header(length: int) -> bytes:
    """Return the 12 bytes that stand before a payload of `length` bytes."""
    packed = _LENGTH.pack(length)
    return packed + _CRC.pack(masked_crc(packed))


# Most events of a run have one of a few lengths, and the header depends on nothing else.
_SHORT_HEADERS = tuple(header(length) for length in range(256))


def frame(payload: bytes) -> bytes:
    """Return `payload` as one whole record."""
    return frames([payload])[0]


def frames(payloads: Iterable[bytes]) -> list[bytes]:
    """Return each of `payloads` as one whole record."""
    # Inlined in one loop: this is the hot path of the writer thread.
    framed = []
    short, headers, checksum, pack = len(_SHORT_HEADERS), _SHORT_HEADERS, crc32c, _CRC.pack
    for payload in payloads:
        length = len(payload)
        start = headers[length] if length < short else header(length)
        crc = checksum(payload)
        framed.append(start + payload + pack(((crc >> 15 | crc << 17) + _MASK_DELTA) & _WORD))
    return framed


def boundaries(file: IO[bytes], start: int = 0, end: int | None = None) -> Iterator[int]:
    """Yield the offset at which each whole record of a file ends, in order, up to the first that is not whole.

    Both checksums of each record are verified. Damaged bytes (zeros, a torn tail, noise) raise nothing; memory stays
    bounded for any length that a record claims.

    Args:
        file: A file that can seek. Its position is left anywhere.
        start: Offset in bytes of a known boundary; 0 is one.
        end: Offset in bytes behind which nothing is looked at; the size at the time of the call by default.

    Raises:
        OSError: The file cannot be read.
    """
    size = file.seek(0, io.SEEK_END)
    end = size if end is None else min(end, size)
    window = _Window(file, start, end)
    offset = start
    while end - offset >= HEADER_BYTES + FOOTER_BYTES:
        head = window.take(offset, HEADER_BYTES)
        if len(head) < HEADER_BYTES:
            return
        length, length_crc = _HEADER.unpack(head)
        if masked_crc(head[:8]) != length_crc or length > end - offset - HEADER_BYTES - FOOTER_BYTES:
            return
        offset += HEADER_BYTES
        crc = window.checksum(offset, length)
        offset += length
        if window.take(offset, FOOTER_BYTES) != _CRC.pack(_mask(crc)):
            return
        offset += FOOTER_BYTES
        yield offset


def payloads(file: IO[bytes]) -> Iterator[bytes | None]:
    """Yield the payload of each whole record of a file, up to its size at the time of the call.

    Where data is damaged, yield `None` once and go on with the next whole record. A torn record at the end may still be
    written and yields nothing; one of more than 16 MiB is skipped.

    Raises:
        OSError: The file cannot be read.
    """
    end = file.seek(0, io.SEEK_END)
    start, wanted = 0, _BLOCK_BYTES
    while (rest := end - start) >= HEADER_BYTES + FOOTER_BYTES:
        file.seek(start)
        block = file.read(min(wanted, rest))
        if len(block) < min(wanted, rest):
            return  # another process has truncated the file
        used, needed = yield from _payloads_in(block)
        start, wanted = start + used, max(needed, _BLOCK_BYTES)
        if not needed:
            yield None
            found = next_record(file, start + 1, end)
            if found is None:
                return
            start = found
        elif needed > end - start:
            return
        elif needed > _LARGEST_PAYLOAD:
            start, wanted = start + needed, _BLOCK_BYTES


def _payloads_in(block: bytes) -> Generator[bytes, None, tuple[int, int]]:
    """Yield the payloads of the whole records at the beginning of a block.

    Returns:
        The offset behind them, and how many bytes the next record needs at least; 0 if the data there is damaged.
    """
    # Inlined in one loop, as in `frames`: most files have many short records.
    at, size = 0, len(block)
    short, headers, checksum = len(_SHORT_HEADERS), _SHORT_HEADERS, crc32c
    unpack_length, unpack_crc = _LENGTH.unpack_from, _CRC.unpack_from
    while size - at >= HEADER_BYTES + FOOTER_BYTES:
        body = at + HEADER_BYTES
        (length,) = unpack_length(block, at)
        if block[at:body] != (headers[length] if length < short else header(length)):
            return at, 0
        footer = body + length
        if footer + FOOTER_BYTES > size:
            return at, HEADER_BYTES + length + FOOTER_BYTES
        payload = block[body:footer]
        crc = checksum(payload)
        if ((crc >> 15 | crc << 17) + _MASK_DELTA) & _WORD != unpack_crc(block, footer)[0]:
            return at, 0
        yield payload
        at = footer + FOOTER_BYTES
    return at, HEADER_BYTES + FOOTER_BYTES


def is_torn(file: IO[bytes], offset: int, end: int) -> bool:
    """Return whether the bytes from `offset` to `end` may be the beginning of a record that is still being written.

    If not, they are damaged: a checksum is wrong.
    """
    head = _read(file, offset, min(HEADER_BYTES, end - offset))
    if len(head) < HEADER_BYTES:
        return True
    length, crc = _HEADER.unpack(head)
    return bool(crc == masked_crc(head[:8]) and length > end - offset - HEADER_BYTES - FOOTER_BYTES)


def next_record(file: IO[bytes], start: int, end: int) -> int | None:
    """Return the offset of the first whole record at or behind `start`, past any damage; `None` if there is none.

    Records of 4 GB and more are not found: in the length of all others four bytes are zero, and the search is
    fast because it looks for these alone.
    """
    while end - start >= HEADER_BYTES + FOOTER_BYTES:
        block = _read(file, start, min(_BLOCK_BYTES, end - start))
        at = 0
        while (zeros := block.find(bytes(4), at + 4)) >= 0 and zeros + 8 <= len(block):
            at = zeros - 4
            if _CRC.unpack_from(block, zeros + 4)[0] == masked_crc(block[at : zeros + 4]):
                if next(boundaries(file, start + at, end), None) is not None:
                    return start + at
            elif not any(block[at : at + HEADER_BYTES]):
                # Within a hole no record begins, but the length of one may reach into it from its end.
                hole = _NOT_ZERO.search(block, at)
                at = (hole.start() if hole else len(block)) - HEADER_BYTES
            at += 1
        if len(block) < HEADER_BYTES:
            return None
        start += len(block) - HEADER_BYTES + 1
    return None


_NOT_ZERO = re.compile(rb"[^\0]")


class _Window:
    """A moving block of a file, so that thousands of small records cost one read."""

    def __init__(self, file: IO[bytes], start: int, end: int) -> None:
        self._file = file
        self._offset = start
        self._end = end
        self._block = b""

    def take(self, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset`, or fewer where the file has become shorter."""
        at = offset - self._offset
        if not 0 <= at <= len(self._block) - length:
            self._block = _read(self._file, offset, max(length, min(_BLOCK_BYTES, self._end - offset)))
            self._offset, at = offset, 0
        return self._block[at : at + length]

    def checksum(self, offset: int, length: int) -> int:
        """Return the CRC-32C of `length` bytes at `offset`."""
        if length <= _BLOCK_BYTES:
            return crc32c(self.take(offset, length))
        crc = 0
        for at in range(offset, offset + length, _BLOCK_BYTES):
            crc = extend_crc(crc, self.take(at, min(_BLOCK_BYTES, offset + length - at)))
        return crc


def _read(file: IO[bytes], offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)
