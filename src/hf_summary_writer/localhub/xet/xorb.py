"""The xorb: up to 64 MiB of chunks, one after the other, each behind a small header."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import cramjam

from hf_summary_writer.localhub.errors import BadRequestError
from hf_summary_writer.localhub.xet.hashing import chunk_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_XORB_BYTES = 64 * 1024 * 1024
MAX_CHUNKS = 8 * 1024
_MAX_CHUNK_BYTES = 128 * 1024
# A chunk that does not compress may grow by the frame around it.
_MAX_PACKED_BYTES = _MAX_CHUNK_BYTES + 1024

_HEADER_BYTES = 8
# Older clients append a footer that repeats the chunk headers; it starts with this text in place of a header.
_FOOTER = b"XETBLOB"

_PLAIN, _LZ4, _GROUPED_LZ4 = range(3)
_INDEX_ENTRY = struct.Struct("<32sII")


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk of a xorb: the hash and size of its data, and the end of its frame in the xorb."""

    hash: bytes
    frame_end: int
    size: int


def read_chunks(xorb: IO[bytes]) -> Iterator[Chunk]:
    """Check the chunks of an uploaded xorb one by one, so that one chunk is in memory at a time."""
    position = 0
    while header := xorb.read(_HEADER_BYTES):
        if header.startswith(_FOOTER):
            return
        if len(header) < _HEADER_BYTES or header[0] != 0:
            raise BadRequestError(f"The xorb has no chunk header at byte {position}.")
        packed_size, size = int.from_bytes(header[1:4], "little"), int.from_bytes(header[5:8], "little")
        if packed_size > _MAX_PACKED_BYTES or not 0 < size <= _MAX_CHUNK_BYTES:
            raise BadRequestError(f"The chunk at byte {position} of the xorb is larger than a chunk can be.")
        packed = xorb.read(packed_size)
        if len(packed) < packed_size:
            raise BadRequestError(f"The chunk at byte {position} of the xorb is cut short.")
        data = unpack(packed, header[4], size)
        position += _HEADER_BYTES + packed_size
        yield Chunk(chunk_hash(data), position, size)


def read_data(xorb: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    """Yield the unpacked data of the frames of a stored xorb from byte `start` to byte `end`."""
    xorb.seek(start)
    while start < end:
        header = xorb.read(_HEADER_BYTES)
        packed_size = int.from_bytes(header[1:4], "little")
        yield unpack(xorb.read(packed_size), header[4], int.from_bytes(header[5:8], "little"))
        start += _HEADER_BYTES + packed_size


def unpack(packed: bytes, scheme: int, size: int) -> bytes:
    """Return the data of a chunk, which must have exactly `size` bytes."""
    if scheme == _PLAIN:
        data = packed
    elif scheme in (_LZ4, _GROUPED_LZ4):
        unpacked = bytearray(size)
        try:
            # Into a buffer of the announced size: a bomb gets no further.
            length = cramjam.lz4.decompress_into(packed, unpacked)
        except cramjam.DecompressionError as error:
            raise BadRequestError(f"A chunk of the xorb does not unpack: {error}") from error
        data = _ungroup(unpacked[:length]) if scheme == _GROUPED_LZ4 else bytes(unpacked[:length])
    else:
        raise BadRequestError(f"The xorb uses the unknown compression scheme {scheme}.")
    if len(data) != size:
        raise BadRequestError("A chunk of the xorb does not unpack to the size it announces.")
    return data


def _ungroup(grouped: bytearray) -> bytes:
    # The first bytes of all groups of four stand first, then all the second ones, and so on.
    data = bytearray(len(grouped))
    start = 0
    for lane in range(4):
        length = len(range(lane, len(grouped), 4))
        data[lane::4] = grouped[start : start + length]
        start += length
    return bytes(data)


def pack_index(chunks: Sequence[Chunk]) -> bytes:
    """Return the index of the chunks, which is stored next to the xorb."""
    return b"".join(_INDEX_ENTRY.pack(chunk.hash, chunk.frame_end, chunk.size) for chunk in chunks)


def unpack_index(index: bytes) -> list[Chunk]:
    """Return the chunks that `pack_index` wrote."""
    return [Chunk(*fields) for fields in _INDEX_ENTRY.iter_unpack(index)]
