"""The files of a folder that changed since the last push."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import stat
import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from hf_summary_writer.checks import as_unicode
from hf_summary_writer.errors import TemporaryError
from hf_summary_writer.events import file_version, frame, parse_name
from hf_summary_writer.folder.disk import OUT_OF_DESCRIPTORS
from hf_summary_writer.folder.ledger import Signature
from hf_summary_writer.folder.patterns import PathFilter, private_places

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.folder.disk import WarnOnce
    from hf_summary_writer.folder.ledger import Ledger, LedgerEntry

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})

# Parts of a path for which the Hub's client refuses the whole commit.
_FORBIDDEN_PARTS = (".git", ".cache")


# An event file with its first record alone, which is no event.
NO_EVENT_BYTES: int = len(frame(file_version(1.0)))


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """A file that the patterns allow, as the scan saw it.

    Attributes:
        relpath: Its path in the folder, with `/` between the parts.
        signature: The identity and state of the file; another one means a change.
        target: The path in the folder of the file to read; for a link, that of the file that it leads to.
    """

    relpath: str
    signature: Signature
    target: str


def unpushable(relpath: str) -> str | None:
    """Return why no file of this name can be in a repo, or `None` if it can."""
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
        return "its name is not valid text" if as_unicode(relpath) == relpath else None
    return None


class FolderScan:
    """One scan of a folder: an iterable of its regular files that may have changed.

    A link to another folder below the folder is followed, as TensorBoard does, but for links below it: folders that
    link to each other would have no end of paths. A link to a folder that holds the link leads to nothing new. Files
    that disappear meanwhile are skipped.

    Args:
        folder: The folder.
        files: The files to be pushed at all.
        known: The files on the Hub. Those that have not changed since are left out, unless they were too young then to
            be sure.

    Attributes:
        links_out: Links that are not followed: to a folder, or to a file that would be pushed, outside of the folder,
            and to a folder from below another link.
        unlisted: Every sub-folder that exists and cannot be listed, and every file that exists and cannot be looked at,
            with the error.
    """

    def __init__(self, folder: str, files: PathFilter, known: Mapping[str, LedgerEntry] = MappingProxyType({})) -> None:
        self._root = os.path.realpath(folder)
        self._files = files
        self._known = known
        self.links_out: set[str] = set()
        self.unlisted: dict[str, OSError] = {}

    def __iter__(self) -> Iterator[ChangedFile]:
        """Yield the files.

        Raises:
            OSError: If the folder itself is there and cannot be listed, or no descriptor is left to list a folder with.
        """
        for entry, relpath, target in self._walk():
            before = self._known.get(relpath)
            if before is None and not self._files(relpath):
                continue
            signature = self._signature(entry, relpath, target)
            # Of a known file, the patterns are asked last: most have not changed.
            if before is not None and (
                (before.signature == signature and not before.young) or not self._files(relpath)
            ):
                continue
            if target is None:
                if unpushable(relpath) is None:
                    self._note_link(relpath)
            elif signature is not None:
                yield ChangedFile(relpath, Signature(*signature), target)

    def _walk(self) -> Iterator[tuple[os.DirEntry[str], str, str | None]]:
        """Yield all entries but folders, with their paths and the paths to read, `None` for those outside.

        The two paths differ for a link, and below one.
        """
        pending = [("", "")]
        while pending:
            reldir, source = pending.pop()
            for entry in self._entries(reldir, source):
                relpath, found = _joined(reldir, entry.name), _joined(source, entry.name)
                try:
                    is_link = entry.is_symlink()
                    target = self._target(found) if is_link else found
                except OSError as error:  # a link that is replaced at this moment, or a disk that fails
                    self._note_error(relpath, error)
                    continue
                # Not by the method of the entry, which raises for a link into a folder without permission.
                if not (os.path.isdir(entry) if is_link else _is_folder(entry)):  # noqa: PTH112
                    yield entry, relpath, target
                elif self._files.prunes(relpath) or (
                    target is not None and (self._files.prunes(target) or _holds(target, source))
                ):
                    continue
                elif target is None or (is_link and reldir != source):
                    self._note_link(relpath)
                else:
                    pending.append((relpath, target))

    def _entries(self, reldir: str, source: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(os.path.join(self._root, source)) as entries:
                yield from entries
        except OSError as error:
            if error.errno not in _GONE and (not reldir or error.errno in OUT_OF_DESCRIPTORS):
                raise
            self._note_error(reldir, error)

    def _target(self, link: str) -> str | None:
        """Return the path in the folder that a link leads to, `None` if it leads out.

        Raises:
            OSError: If the link is replaced or removed meanwhile.
        """
        target = os.path.realpath(os.path.join(self._root, link))
        if os.path.commonpath((self._root, target)) != self._root:
            return None
        return os.path.relpath(target, self._root).replace(os.sep, "/")

    def _signature(self, entry: os.DirEntry[str], relpath: str, target: str | None) -> tuple[int, ...] | None:
        """Return the signature of a file that may be read, `None` for all else."""
        if target is None or (target != relpath and self._files.is_private(target)):
            return None
        try:
            status = (
                entry.stat(follow_symlinks=False) if target == relpath else os.lstat(os.path.join(self._root, target))
            )
        except OSError as error:
            self._note_error(relpath, error)
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def _note_error(self, relpath: str, error: OSError) -> None:
        if error.errno not in _GONE:
            self.unlisted[relpath] = error

    def _note_link(self, relpath: str) -> None:
        if not self._files.ignores(relpath):
            self.links_out.add(relpath)


def _joined(reldir: str, name: str) -> str:
    return f"{reldir}/{name}" if reldir else name


def _holds(folder: str, other: str) -> bool:
    """Return whether a folder is, or holds, another one."""
    return folder in {".", other} or other.startswith(f"{folder}/")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Pending:
    """The part of a folder that is not on the Hub yet.

    Attributes:
        files: The number of files that wait for a push.
        bytes: The number of bytes missing on the Hub, refused files included.
        oldest: When the oldest of these files was last written (seconds since the epoch).
        refused: The number of further files that the Hub did not accept. They wait until they change, or for the last
            push.
        unlisted: The number of folders that could not be listed, whose files are unknown.
    """

    files: int = 0
    bytes: int = 0
    oldest: float | None = None
    refused: int = 0
    unlisted: int = 0

    @property
    def missing(self) -> int:
        """The number of files whose content is not on the Hub, including rejected files."""
        return self.files + self.refused

    @property
    def nothing(self) -> bool:
        """Whether everything is on the Hub."""
        return not (self.missing or self.unlisted)


class Inventory:
    """Compares a folder with its ledger.

    May be used from any thread, as long as the ledger is not written meanwhile.

    Args:
        folder: The folder, an absolute path without links.
        config: The patterns of the files to push, and where they go.
        ledger: The files on the Hub.
        warn_once: Names the files that no repo can hold.
        verify: Whether to take every file for changed, so that all content is compared with the ledger.
        names_links: Whether to warn of links out of the folder; else the caller follows or names them.

    Attributes:
        links_out: Links to files that would be pushed, or to folders, that are not followed.
        unread: A file or folder that the latest `changed` could not read for another reason than permissions, and the
            error.
    """

    def __init__(
        self,
        folder: Path,
        config: PushConfig,
        ledger: Ledger,
        warn_once: WarnOnce,
        *,
        verify: bool = False,
        names_links: bool = True,
    ) -> None:
        self._folder = folder
        # The Hub applies a .gitignore at the root of a repo to all uploads: a `*` in it would keep every file out.
        ignored = (*(config.ignore_patterns or ()), *(() if config.path_in_repo else (".gitignore",)))
        self._filter = PathFilter(config.allow_patterns, ignored, private_places(folder, os.environ))
        self._ledger = ledger
        self._warn_once = warn_once
        self._verify = verify
        self._names_links = names_links
        # Files that cannot be sent as they are; they are read again when they change.
        self._empty: dict[str, Signature] = {}
        self._refused: dict[str, Signature] = {}
        self.links_out: set[str] = set()
        self.unread: tuple[str, OSError] | None = None

    @property
    def has_refused(self) -> bool:
        """Whether there are files that the Hub did not accept."""
        return bool(self._refused)

    def changed(self) -> list[ChangedFile]:
        """Return the files that may have changed and that the Hub may accept, those that waited longest first.

        Files that are not on the Hub come first, the older before the newer; then the one that was uploaded longest
        ago. The time of the last write would not do: files that are written all the time would be in no order at all.

        Raises:
            TemporaryError: If the folder could not be listed to the end.
        """
        scan = self._scan()
        try:
            found = [file for file in self._files_of(scan) if not self._is_refused(file)]
        except OSError as error:
            raise TemporaryError(f"the folder cannot be listed: {error}") from None
        errors = (each for each in scan.unlisted.items() if not isinstance(each[1], PermissionError))
        self.unread = next(errors, None)
        if len(found) < 2:
            return found
        arrived = {relpath: number for number, relpath in enumerate(self._ledger.entries)}
        return sorted(found, key=lambda each: (arrived.get(each.relpath, -1), each.signature.mtime_ns))

    def are_news(self, files: Iterable[ChangedFile]) -> bool:
        """Return whether one of the files is worth a commit: an event file without an event only goes with others."""
        return not all(map(self._has_no_event, files))

    def holds(self, relpath: str) -> bool:
        """Return whether there is such a file and it is to be pushed, changed or not."""
        if not self._filter(relpath):
            return False
        try:
            return stat.S_ISREG(os.stat(self._folder / relpath).st_mode)  # noqa: PTH116 - as in all scans
        except OSError as error:
            return error.errno not in _GONE

    def missing(self, until: float = math.inf) -> tuple[Pending, list[tuple[ChangedFile, int]]]:
        """Return the files whose content is not on the Hub, with the number of missing bytes, as far as sizes tell.

        Args:
            until: When to stop, on the monotonic clock. The rest counts as one folder that could not be listed.
        """
        scan = self._scan()
        found: list[tuple[ChangedFile, int]] = []
        is_whole = False
        with contextlib.suppress(OSError):  # the files seen before the error are the best estimate
            for file in self._files_of(scan):
                if self._has_no_event(file):
                    continue
                before = self._ledger.entries.get(file.relpath)
                missing = file.signature.size - (before.length if before else 0)
                differs = before is not None and before.signature != file.signature
                if missing > 0 or differs or self._is_refused(file):
                    found.append((file, max(missing, 0)))
                    if time.monotonic() > until:
                        break
            else:
                is_whole = True
        refused = sum(self._is_refused(file) for file, _ in found)
        pending = Pending(
            files=len(found) - refused,
            bytes=sum(missing for _, missing in found),
            oldest=min((file.signature.written for file, _ in found), default=None),
            refused=refused,
            unlisted=len(scan.unlisted) + (not is_whole),
        )
        return pending, found

    def pending(self, until: float = math.inf) -> Pending:
        """Count the files and bytes that are not on the Hub yet, as `missing` does."""
        return self.missing(until)[0]

    def set_aside(self, relpath: str, signature: Signature) -> None:
        """Leave out a file that has nothing to send, until it changes."""
        self._empty[relpath] = signature

    def refuse(self, relpath: str, signature: Signature) -> None:
        """Leave out a file that the Hub does not accept, until it changes or `forget_refused` is called."""
        self._refused[relpath] = signature

    def forget_refused(self) -> Mapping[str, Signature]:
        """Return the signatures of the files that the Hub did not accept, by relative path, and leave out none."""
        refused, self._refused = self._refused, {}
        return refused

    def _scan(self) -> FolderScan:
        return FolderScan(str(self._folder), self._filter, {} if self._verify else self._ledger.entries)

    def _files_of(self, scan: FolderScan) -> Iterator[ChangedFile]:
        """Yield the files of a scan that can be sent; warn of others, of links and of errors."""
        for file in scan:
            reason = unpushable(file.relpath)
            if reason is not None:
                said = f"{file.relpath!a} stays only on this disk: {reason}"
                self._warn_once.warn("name", said, file.relpath)
            elif self._empty.get(file.relpath) != file.signature:
                yield file
        for relpath, error in scan.unlisted.items():
            said = f"{relpath!a} of {self._folder} cannot be looked at and waits for a later push: {error.strerror}"
            self._warn_once.warn("unlisted", said, relpath)
        self.links_out |= scan.links_out
        for relpath in sorted(scan.links_out) if self._names_links else ():
            said = (
                f"{relpath!a} of {str(self._folder)!a} is a link out of the folder, or below a link: it is not uploaded"
                " with it"
            )
            self._warn_once.warn("link", said, relpath)

    def _has_no_event(self, file: ChangedFile) -> bool:
        """Return whether it is an event file of this library's writer without an event."""
        return (
            file.signature.size <= NO_EVENT_BYTES
            and file.relpath not in self._ledger.entries
            and parse_name(file.relpath) is not None
        )

    def _is_refused(self, file: ChangedFile) -> bool:
        return self._refused.get(file.relpath) == file.signature
