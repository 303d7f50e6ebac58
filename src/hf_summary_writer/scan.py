"""Which files of a folder are there, which of them changed, and which no repo can hold.

A scan lists every folder once and asks for the status of each file that the patterns allow. It opens nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_summary_writer.ledger import Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hf_summary_writer.ledger import Arrival

__all__ = ["OUT_OF_DESCRIPTORS", "Candidate", "changed", "scan", "unpushable"]

# Trouble of this process or machine and not of one file: a scan that passed over it would take a full folder for empty.
OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
# What the Hub's client refuses as a part of a path, with all that is committed together with it.
_FORBIDDEN_PARTS = (".git", ".cache")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that the patterns allow, as the scan saw it.

    Attributes:
        relpath: Its path in the folder, with `/` between the parts.
        signature: What tells whether it changed.
        target: The path in the folder of the file to read; differs from `relpath` for a link to another file inside.
    """

    relpath: str
    signature: Signature
    target: str


def unpushable(relpath: str) -> str | None:
    """Say why no file of this name can be in a repo, or `None` if it can."""
    if not relpath.isprintable() and any(ord(c) < ord(" ") or c == "\x7f" for c in relpath):
        return "its name holds control characters"
    if "\\" in relpath:
        return "its name holds a backslash, which the Hub's client takes for a separator"
    for part in _FORBIDDEN_PARTS:
        if part in relpath and part in relpath.split("/"):
            return f"no file of a repo can be in a folder that is called {part}"
    try:
        relpath.encode()
    except UnicodeEncodeError:
        return "its name is not valid text"
    return None


def scan(
    folder: str, meant: Callable[[str], bool], prunes: Callable[[str], bool] = lambda _: False
) -> Iterator[Candidate]:
    """Yield the regular files below `folder` that `meant` allows, folder by folder; never follow a link to a folder.

    What disappears or cannot be listed meanwhile is passed over: it will be seen by a later scan, or is gone.

    Raises:
        OSError: If there is no descriptor left to list a folder with.
    """
    root = os.path.realpath(folder)
    pending = [""]
    while pending:
        reldir = pending.pop()
        with _passing_over_what_is_gone(), os.scandir(os.path.join(root, reldir)) as entries:
            for entry in entries:
                relpath = f"{reldir}/{entry.name}" if reldir else entry.name
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        if not prunes(relpath):
                            pending.append(relpath)
                    elif meant(relpath):
                        candidate = _linked(root, relpath) if entry.is_symlink() else _plain(entry, relpath)
                        if candidate is not None:
                            yield candidate


@contextlib.contextmanager
def _passing_over_what_is_gone() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in OUT_OF_DESCRIPTORS:
            raise


def _plain(entry: os.DirEntry[str], relpath: str) -> Candidate | None:
    status = entry.stat(follow_symlinks=False)
    return Candidate(relpath, Signature.of(status), relpath) if stat.S_ISREG(status.st_mode) else None


def _linked(root: str, relpath: str) -> Candidate | None:
    target = os.path.realpath(os.path.join(root, relpath))
    inside = os.path.relpath(target, root).replace(os.sep, "/")
    if os.path.commonpath((root, target)) != root:
        return None
    status = os.lstat(target)
    return Candidate(relpath, Signature.of(status), inside) if stat.S_ISREG(status.st_mode) else None


def changed(candidates: Iterator[Candidate], arrivals: Mapping[str, Arrival]) -> Iterator[Candidate]:
    """Yield the candidates that differ from what arrived, or were too young then to be sure."""
    for candidate in candidates:
        arrival = arrivals.get(candidate.relpath)
        if arrival is None or arrival.signature != candidate.signature or arrival.digest:
            yield candidate
