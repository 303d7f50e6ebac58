"""The hashes of the Xet protocol (Hub documentation, "Xet protocol specification", section on hashing)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HASH_BYTES = 32

# Keys that the protocol fixes, so that a hash of one kind never passes for another.
_DATA_KEY = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")
_NODE_KEY = bytes.fromhex("017ec5c7a5472996fd946666b48a02e65ddd536f37c76dd2f86352e64a53713f")
_RANGE_KEY = bytes.fromhex("7f1857d6ce56ed66127ff913e7a5c3f3a4cd26d5b5db49e64124987f28fb94c3")
_FILE_KEY = bytes(HASH_BYTES)

# A node of the tree over the chunks closes after a child whose hash is 0 modulo 4, with 3 to 9 children.
_MEAN_CHILDREN = 4
_FEWEST_BEFORE_A_CUT = 2
_MOST_CHILDREN = 2 * _MEAN_CHILDREN + 1

_WORDS = struct.Struct("<4Q")
_DEDUP_MODULUS = 1024


def to_hex(raw: bytes) -> str:
    """Return a hash as URLs spell it: four little-endian words, each written big end first."""
    return "".join(f"{word:016x}" for word in _WORDS.unpack(raw))


def from_hex(text: str) -> bytes:
    """Return the 32 bytes of a hash that a URL spells."""
    return _WORDS.pack(*(int(text[i : i + 16], 16) for i in range(0, 64, 16)))


def last_word(raw: bytes) -> int:
    """Return the word of a hash that decisions modulo something are taken on."""
    return int.from_bytes(raw[24:], "little")


def is_dedup_candidate(raw: bytes) -> bool:
    """Return whether clients ask every Hub about a chunk of this hash."""
    return last_word(raw) % _DEDUP_MODULUS == 0


def chunk_hash(data: bytes) -> bytes:
    """Return the hash of a chunk's unpacked bytes."""
    return blake3(data, key=_DATA_KEY).digest()


def range_hash(chunks: Iterable[bytes]) -> bytes:
    """Return the proof, within a shard, that its author knows the chunks of a term."""
    return blake3(b"".join(chunks), key=_RANGE_KEY).digest()


def xorb_hash(chunks: Sequence[tuple[bytes, int]]) -> bytes:
    """Return the hash of a xorb from the hash and unpacked size of each of its chunks."""
    level = list(chunks)
    if not level:
        return bytes(HASH_BYTES)
    while len(level) > 1:
        level = list(_parents(level))
    return level[0][0]


def file_hash(chunks: Sequence[tuple[bytes, int]]) -> bytes:
    """Return the hash of a file from the hash and unpacked size of each of its chunks."""
    if not chunks:
        return bytes(HASH_BYTES)
    return blake3(xorb_hash(chunks), key=_FILE_KEY).digest()


def _parents(level: Sequence[tuple[bytes, int]]) -> Iterable[tuple[bytes, int]]:
    start = 0
    while start < len(level):
        end = _next_cut(level, start)
        children = level[start:end]
        text = "".join(f"{to_hex(raw)} : {size}\n" for raw, size in children)
        yield blake3(text.encode(), key=_NODE_KEY).digest(), sum(size for _, size in children)
        start = end


def _next_cut(level: Sequence[tuple[bytes, int]], start: int) -> int:
    end = min(start + _MOST_CHILDREN, len(level))
    for index in range(start + _FEWEST_BEFORE_A_CUT, end):
        if last_word(level[index][0]) % _MEAN_CHILDREN == 0:
            return index + 1
    return end
