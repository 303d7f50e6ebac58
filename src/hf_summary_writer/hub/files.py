"""A file on its way to the Hub, and a file that is there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

__all__ = ["RemoteFile", "Upload"]

_HASH = re.compile(r"[0-9a-f]{0,64}")


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to publish.

    Attributes:
        path: Its path in the repo.
        body: Its bytes, or the path of a file that holds exactly them and does not change.
        size: How many bytes it has.
        known_bytes: How many of them, from the start, the Hub already holds in an earlier version.
        file_id: Identifies the file on disk across pushes.
        is_intact: Returns whether `body` is unchanged since the upload was created.
        is_first: Whether its folder has uploaded nothing before, so that an earlier version on the Hub is not its own.
        only_new: Whether an earlier version on the Hub stays as it is.
    """

    path: str
    body: bytes | Path
    size: int
    known_bytes: int = 0
    file_id: Hashable = None
    is_intact: Callable[[], bool] = lambda: True
    is_first: bool = False
    only_new: bool = False


class RemoteFile(NamedTuple):
    """A file as the Hub lists it.

    Attributes:
        size: The number of its bytes.
        sha256: Its hash, if it is stored in LFS, else empty.
        git_oid: The hash by which Git knows it; empty in a bucket.
        xet_hash: The hash by which a bucket knows it; empty in a repo.
    """

    size: int
    sha256: str = ""
    git_oid: str = ""
    xet_hash: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether all fields have valid values: the client passes on the response of the Hub unchecked."""
        size: Any = self.size
        hashes: tuple[Any, ...] = (self.sha256, self.git_oid, self.xet_hash)
        is_size = isinstance(size, int) and size >= 0
        return is_size and all(isinstance(each, str) and _HASH.fullmatch(each) for each in hashes)
