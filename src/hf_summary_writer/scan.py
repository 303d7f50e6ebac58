"""Which files of a folder are there, which of them changed, and which no repo can hold.

A scan lists every folder once and asks for the status of each file that the patterns allow. It opens nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from hf_summary_writer.arrival import Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hf_summary_writer.arrival import Arrival

__all__ = ["OUT_OF_DESCRIPTORS", "Candidate", "scan", "unpushable"]

# Trouble of this process or machine and not of one file: a scan that passed over it would take a full folder for empty.
OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})
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
    if ":" in relpath and any(part[1:2] == ":" for part in relpath.split("/")):
        return "its name begins as a drive of Windows does, and the Hub's client downloads no repo with such a file"
    for part in _FORBIDDEN_PARTS:
        if part in relpath and part in relpath.split("/"):
            return f"no file of a repo can be in a folder that is called {part}"
    try:
        relpath.encode()
    except UnicodeEncodeError:
        return "its name is not valid text"
    return None


def scan(
    folder: str,
    meant: Callable[[str], bool],
    prunes: Callable[[str], bool] = lambda _: False,
    arrivals: Mapping[str, Arrival] = MappingProxyType({}),
    unlisted: Callable[[str, OSError], object] = lambda _, __: None,
) -> Iterator[Candidate]:
    """Yield the regular files below `folder` that may hold something new; never follow a link to a folder.

    What disappears meanwhile is passed over.

    Args:
        folder: The folder.
        meant: Tells by its path in the folder whether a file is to be pushed at all.
        prunes: Tells of a folder whether nothing in it can be meant.
        arrivals: What has arrived. Files that have not changed since are left out, unless they were too young then to
            be sure. Most files of a folder are such, so for them even the question whether they are meant is saved.
        unlisted: Told of every folder in it that is there and cannot be listed, and why.

    Raises:
        OSError: If `folder` itself is there and cannot be listed, or no descriptor is left to list a folder with.
    """
    root = os.path.realpath(folder)
    pending = [""]
    while pending:
        reldir = pending.pop()
        with _passed_over(reldir, unlisted), os.scandir(os.path.join(root, reldir)) as entries:
            for entry in entries:
                relpath = f"{reldir}/{entry.name}" if reldir else entry.name
                if _is_folder(entry):
                    if not prunes(relpath):
                        pending.append(relpath)
                    continue
                arrival = arrivals.get(relpath)
                if arrival is None and not meant(relpath):
                    continue
                candidate = _changed(entry, root, relpath, arrival)
                if candidate is not None and (arrival is None or meant(relpath)):
                    yield candidate


@contextlib.contextmanager
def _passed_over(reldir: str, unlisted: Callable[[str, OSError], object]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _GONE:
            return
        if not reldir or error.errno in OUT_OF_DESCRIPTORS:
            raise
        unlisted(reldir, error)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _changed(entry: os.DirEntry[str], root: str, relpath: str, arrival: Arrival | None) -> Candidate | None:
    """Return the file if it is one and not what arrived."""
    target = relpath
    try:
        if entry.is_symlink():
            inside = _target(root, relpath)
            if inside is None:
                return None
            target = inside
            status = os.lstat(os.path.join(root, target))
        else:
            status = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if arrival is not None and arrival.signature == signature and not arrival.digest:
        return None
    return Candidate(relpath, Signature(*signature), target)


def _target(root: str, relpath: str) -> str | None:
    """Return where in the folder a link leads, `None` if it leads out."""
    target = os.path.realpath(os.path.join(root, relpath))
    if os.path.commonpath((root, target)) != root:
        return None
    return os.path.relpath(target, root).replace(os.sep, "/")
