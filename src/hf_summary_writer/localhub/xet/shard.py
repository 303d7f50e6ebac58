"""The shard: which chunks of which xorbs make up each file (Hub documentation, "Shard file format")."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from hf_summary_writer.localhub.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hf_summary_writer.localhub.xet.xorb import Chunk

MAX_SHARD_BYTES = 64 * 1024 * 1024

_MAGIC = b"HFRepoMetaData\x00" + bytes.fromhex("556967456a7b815783a5bdd95ccdd14aa9")
_HEADER = struct.Struct("<32sQQ")
_HEADER_VERSION = 2
_FILE = struct.Struct("<32sII8x")
_TERM = struct.Struct("<32sIIII")
_HASH = struct.Struct("<32s16x")
_XORB = struct.Struct("<32sIIII")
_XORB_CHUNK = struct.Struct("<32sIIII")
_ENTRY_BYTES = 48
_END = b"\xff" * 32 + bytes(16)
_HAS_PROOFS = 1 << 31
_HAS_METADATA = 1 << 30
_DEDUP_CANDIDATE = 1 << 31

# version, 8 offsets and counts, key, created, expires, 6 unused, 3 totals, offset of the footer
_FOOTER = struct.Struct("<9Q32s2Q48x4Q")
_FOOTER_VERSION = 1
_DEDUP_ANSWER_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Term:
    """A run of chunks of one xorb, as a part of a file."""

    xorb: bytes
    size: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file as a shard describes it."""

    hash: bytes
    terms: tuple[Term, ...]
    proofs: tuple[bytes, ...]
    sha256: bytes | None


@dataclass(frozen=True, slots=True)
class Shard:
    """The content of an uploaded shard: the files, and the chunks that clients may query for deduplication."""

    files: tuple[FileEntry, ...]
    candidates: frozenset[bytes]


def read_shard(shard: IO[bytes]) -> Shard:
    """Parse an uploaded shard; its author is not trusted."""
    header = shard.read(_HEADER.size)
    if len(header) < _HEADER.size or _HEADER.unpack(header)[:2] != (_MAGIC, _HEADER_VERSION):
        raise BadRequestError("The body is not a shard of version 2.")
    return Shard(tuple(_read_files(shard)), frozenset(_read_candidates(shard)))


def _entries(shard: IO[bytes], number: int) -> bytes:
    # `read` allocates the requested size in advance, even if the file is shorter.
    data = shard.read(min(number * _ENTRY_BYTES, MAX_SHARD_BYTES))
    if len(data) < number * _ENTRY_BYTES:
        raise BadRequestError("The shard is cut short.")
    return data


def _read_files(shard: IO[bytes]) -> Iterator[FileEntry]:
    while (head := _entries(shard, 1)) != _END:
        file_hash, flags, number = _FILE.unpack(head)
        terms = tuple(
            Term(xorb, size, start, end) for xorb, _, size, start, end in _TERM.iter_unpack(_entries(shard, number))
        )
        proofs: tuple[bytes, ...] = ()
        if flags & _HAS_PROOFS:
            proofs = tuple(raw for (raw,) in _HASH.iter_unpack(_entries(shard, number)))
        sha256 = None
        if flags & _HAS_METADATA:
            (sha256,) = _HASH.unpack(_entries(shard, 1))
        yield FileEntry(file_hash, terms, proofs, sha256)


def _read_candidates(shard: IO[bytes]) -> Iterator[bytes]:
    while (head := _entries(shard, 1)) != _END:
        number = _XORB.unpack(head)[2]
        for raw, _, _, flags, _ in _XORB_CHUNK.iter_unpack(_entries(shard, number)):
            if flags & _DEDUP_CANDIDATE:
                yield raw


def pack_terms(terms: Sequence[Term]) -> bytes:
    """Return the terms of a file as the store keeps them."""
    return b"".join(_TERM.pack(term.xorb, 0, term.size, term.start, term.end) for term in terms)


def unpack_terms(data: bytes) -> list[Term]:
    """Return the terms that `pack_terms` wrote."""
    return [Term(xorb, size, start, end) for xorb, _, size, start, end in _TERM.iter_unpack(data)]


def dedup_shard(xorbs: Sequence[tuple[bytes, Sequence[Chunk]]], candidates: frozenset[bytes]) -> bytes:
    """Return a shard that tells a client about the chunks of `xorbs`, so that it need not send them."""
    parts = [_HEADER.pack(_MAGIC, _HEADER_VERSION, _FOOTER.size), _END]
    xorbs_at = len(parts[0]) + len(_END)
    stored = unpacked = 0
    for raw, chunks in xorbs:
        size, position = sum(chunk.size for chunk in chunks), 0
        parts.append(_XORB.pack(raw, 0, len(chunks), size, chunks[-1].frame_end))
        for chunk in chunks:
            flags = _DEDUP_CANDIDATE if chunk.hash in candidates else 0
            parts.append(_XORB_CHUNK.pack(chunk.hash, position, chunk.size, flags, 0))
            position += chunk.size
        stored, unpacked = stored + chunks[-1].frame_end, unpacked + size
    parts.append(_END)
    footer_at = sum(map(len, parts))
    now = int(time.time())
    # The lookup tables may be empty: clients rebuild them from the sections.
    offsets = (_HEADER.size, xorbs_at, footer_at, 0, footer_at, 0, footer_at, 0)
    lifetime = (now, now + _DEDUP_ANSWER_SECONDS)
    parts.append(_FOOTER.pack(_FOOTER_VERSION, *offsets, bytes(32), *lifetime, stored, 0, unpacked, footer_at))
    return b"".join(parts)
