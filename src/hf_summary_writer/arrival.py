"""What is known of files and commits that reached the Hub: plain values, kept by the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import os

__all__ = ["Arrival", "CommitRecord", "Settings", "Signature"]


class Signature(NamedTuple):
    """What tells that a file is the one that was read before; compared with `!=`, never with `<`."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Signature:
        """Take the signature from the answer of `os.fstat`."""
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


class Arrival(NamedTuple):
    """What the Hub holds of one file.

    Attributes:
        signature: The local file when it was read for the push.
        length: How many of its bytes the Hub holds.
        tail: For event files, a fingerprint of the bytes before `length`, which tells an append from a rewrite.
        digest: For a file that was very young when it was read, a fingerprint of all of it, else empty.
    """

    signature: Signature
    length: int
    tail: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """The latest commit: its id, its page on the Hub and when it was acknowledged (seconds since the epoch)."""

    oid: str
    url: str
    time: float


@dataclass(frozen=True, slots=True)
class Settings:
    """How a folder is pushed besides where to: what a later process needs to go on in the same way."""

    allow: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    private: bool | None = None
    squash: bool = False
    card: bool = True
