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
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.folder.disk import WarnOnce
    from hf_summary_writer.folder.ledger import Ledger, LedgerEntry

__all__ = ["ChangedFile", "Inventory", "Pending", "scan_folder", "unpushable"]

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


def scan_folder(
    folder: str,
    is_included: Callable[[str], bool],
    is_pruned: Callable[[str], bool] = lambda _: False,
    known: Mapping[str, LedgerEntry] = MappingProxyType({}),
    unlisted: Callable[[str, OSError], object] = lambda _, __: None,
    leads_out: Callable[[str], object] = lambda _: None,
    is_private: Callable[[str], bool] = lambda _: False,
) -> Iterator[ChangedFile]:
    """Yield the regular files below `folder` that may have changed.

    A link to another folder below `folder` is followed, as TensorBoard does, but for links below it: folders that link
    to each other would have no end of paths. A link to a folder that holds the link leads to nothing new. Files that
    disappear meanwhile are skipped.

    Args:
        folder: The folder.
        is_included: Returns by its path in the folder whether a file is to be pushed at all.
        is_pruned: Returns whether no file in a sub-folder is to be pushed.
        known: The files on the Hub. Those that have not changed since are left out, unless they were too young then to
            be sure. Most files of a folder are such, so `is_included` is not called for them.
        unlisted: Called with every sub-folder that exists and cannot be listed, every file that exists and cannot be
            looked at, and the error.
        leads_out: Called with every link that is not followed: to a folder, or to a file that is to be pushed, outside
            of `folder`, and to a folder from below another link.
        is_private: Returns whether a file behind a link, given by its own path in the folder, is never to be pushed
            under any name.

    Raises:
        OSError: If `folder` itself is there and cannot be listed, or no descriptor is left to list a folder with.
    """
    root = os.path.realpath(folder)
    for entry, relpath, target in _walk(root, is_pruned, unlisted, leads_out):
        if target is None:
            if is_included(relpath):
                leads_out(relpath)
            continue
        if target != relpath and is_private(target):
            continue
        before = known.get(relpath)
        if before is None and not is_included(relpath):
            continue
        file = _changed(entry, root, relpath, target, before, unlisted)
        if file is not None and (before is None or is_included(relpath)):
            yield file


def _walk(
    root: str,
    is_pruned: Callable[[str], bool],
    unlisted: Callable[[str, OSError], object],
    leads_out: Callable[[str], object],
) -> Iterator[tuple[os.DirEntry[str], str, str | None]]:
    """Yield all entries but folders, with their paths and the paths to read, `None` for those outside of `root`.

    The two paths differ for a link, and below one.
    """
    pending = [("", "")]
    while pending:
        reldir, source = pending.pop()
        with _passed_over(reldir, unlisted), os.scandir(os.path.join(root, source)) as entries:
            for entry in entries:
                relpath, found = _joined(reldir, entry.name), _joined(source, entry.name)
                is_link = entry.is_symlink()
                try:
                    target = _target(root, found) if is_link else found
                except OSError as error:
                    # A link that is replaced at this moment. It hides no other entry of its folder.
                    if error.errno not in _GONE:
                        unlisted(relpath, error)
                    continue
                # Not by the method of the entry, which raises for a link into a folder without permission.
                if not (os.path.isdir(entry) if is_link else _is_folder(entry)):  # noqa: PTH112
                    yield entry, relpath, target
                elif is_pruned(relpath) or (target is not None and (is_pruned(target) or _holds(target, source))):
                    continue
                elif target is None or (is_link and reldir != source):
                    leads_out(relpath)
                else:
                    pending.append((relpath, target))


def _joined(reldir: str, name: str) -> str:
    return f"{reldir}/{name}" if reldir else name


def _holds(folder: str, other: str) -> bool:
    """Return whether a folder is, or holds, another one."""
    return folder in {".", other} or other.startswith(f"{folder}/")


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


def _changed(
    entry: os.DirEntry[str],
    root: str,
    relpath: str,
    target: str,
    before: LedgerEntry | None,
    unlisted: Callable[[str, OSError], object],
) -> ChangedFile | None:
    """Return the file if it is a regular one that may have changed."""
    try:
        status = entry.stat(follow_symlinks=False) if target == relpath else os.lstat(os.path.join(root, target))
    except OSError as error:
        if error.errno not in _GONE:
            unlisted(relpath, error)
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if before is not None and before.signature == signature and not before.young:
        return None
    return ChangedFile(relpath, Signature(*signature), target)


def _target(root: str, relpath: str) -> str | None:
    """Return the path in the folder that a link leads to, `None` if it leads out.

    Raises:
        OSError: If the link is replaced or removed meanwhile.
    """
    target = os.path.realpath(os.path.join(root, relpath))
    if os.path.commonpath((root, target)) != root:
        return None
    return os.path.relpath(target, root).replace(os.sep, "/")


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
        follows: Returns whether the caller follows, or names by itself, a link out of the folder.

    Attributes:
        left_behind: The number of files that the latest push could not read; the code that pushes counts them here.
        links_out: Links to files that would be pushed, or to folders, that are not followed.
        unread: A file or folder that the latest scan could not read for another reason than permissions, and the error.
    """

    def __init__(
        self,
        folder: Path,
        config: PushConfig,
        ledger: Ledger,
        warn_once: WarnOnce,
        *,
        verify: bool = False,
        follows: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._folder = folder
        self._filter = PathFilter(config.allow_patterns, config.ignore_patterns)
        self._private = private_places(folder, os.environ)
        self._ledger = ledger
        self._warn_once = warn_once
        self._verify = verify
        self._follows = follows
        # The Hub applies the one at the root of a repo to all uploads: a `*` in it would keep every file out.
        self._gitignore = ".gitignore" if not config.path_in_repo else None
        # Files that cannot be sent as they are; they are read again when they change.
        self._empty: dict[str, Signature] = {}
        self._refused: dict[str, Signature] = {}
        self.left_behind = 0
        self.links_out: set[str] = set()
        self.unread: tuple[str, OSError] | None = None

    @property
    def has_refused(self) -> bool:
        """Whether there are files that the Hub did not accept."""
        return bool(self._refused)

    def changed(self) -> Iterator[ChangedFile]:
        """Yield the files that may have changed and that the Hub may accept.

        Raises:
            TemporaryError: If the folder could not be listed to the end.
        """
        return (file for file in self._scan() if not self._is_refused(file))

    def are_news(self, files: Iterable[ChangedFile]) -> bool:
        """Return whether one of the files is worth a commit: an event file without an event only goes with others."""
        return not all(map(self._has_no_event, files))

    def holds(self, relpath: str) -> bool:
        """Return whether there is such a file and it is to be pushed, changed or not."""
        if not self._is_included(relpath):
            return False
        try:
            return stat.S_ISREG(os.stat(self._folder / relpath).st_mode)  # noqa: PTH116 - as in all scans
        except OSError as error:
            return error.errno not in _GONE

    def longest_waiting_first(self) -> list[ChangedFile]:
        """Return the changed files in a fair order, for when there are more than one push can send.

        Files that are not on the Hub come first, the older before the newer; then the one that was uploaded longest
        ago. The time of the last write would not do: files that are written all the time would be in no order at all.

        Raises:
            TemporaryError: If the folder could not be listed to the end.
        """
        found = list(self.changed())
        if len(found) < 2:
            return found
        arrived = {relpath: number for number, relpath in enumerate(self._ledger.entries)}
        return sorted(found, key=lambda each: (arrived.get(each.relpath, -1), each.signature.mtime_ns))

    def missing(self, unlisted: list[str] | None = None) -> Iterator[tuple[ChangedFile, int]]:
        """Yield the files whose content is not on the Hub, and the number of missing bytes, as far as sizes tell.

        Args:
            unlisted: Sub-folders that cannot be listed are appended to it.

        Raises:
            TemporaryError: If the folder could not be listed to the end.
        """
        for file in self._scan(unlisted):
            if self._has_no_event(file):
                continue
            before = self._ledger.entries.get(file.relpath)
            missing = file.signature.size - (before.length if before else 0)
            differs = before is not None and before.signature != file.signature
            if missing > 0 or differs or self._is_refused(file):
                yield file, max(missing, 0)

    def pending(self, until: float = math.inf, note: Callable[[str, int], object] = lambda _, __: None) -> Pending:
        """Count the files and bytes that are not on the Hub yet, as far as sizes tell.

        Args:
            until: When to stop, on the monotonic clock. The rest counts as one folder that could not be listed.
            note: Called with the path of each file in the folder and the number of its missing bytes.
        """
        files, size, oldest, refused = 0, 0, None, 0
        unlisted: list[str] = []
        try:
            for file, missing in self.missing(unlisted):
                note(file.relpath, missing)
                if self._is_refused(file):
                    refused += 1
                else:
                    files += 1
                size += missing
                written = file.signature.written
                oldest = written if oldest is None else min(oldest, written)
                if time.monotonic() > until:
                    unlisted.append("")
                    break
        except TemporaryError:  # the files seen before the error are the best estimate
            unlisted.append("")
        return Pending(files, size, oldest, refused, len(unlisted))

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

    def _scan(self, unlisted: list[str] | None = None) -> Iterator[ChangedFile]:
        def note(reldir: str, error: OSError) -> None:
            said = f"{reldir!a} of {self._folder} cannot be looked at and waits for a later push: {error.strerror}"
            self._warn_once.warn("unlisted", said, reldir)
            if unlisted is not None:
                unlisted.append(reldir)
            elif not isinstance(error, PermissionError):
                self.unread = (reldir, error)

        known = {} if self._verify else self._ledger.entries
        if unlisted is None:
            self.unread = None
        try:
            for file in scan_folder(
                str(self._folder), self._is_included, self._is_pruned, known, note, self._note_link, self._is_private
            ):
                if self._empty.get(file.relpath) != file.signature:
                    yield file
        except OSError as error:
            raise TemporaryError(f"the folder cannot be listed: {error}") from None

    def _note_link(self, relpath: str) -> None:
        if self._filter.ignores(relpath):
            return
        self.links_out.add(relpath)
        if not self._follows(relpath):
            text = (
                f"{relpath!a} of {str(self._folder)!a} is a link out of the folder, or below a link: it is not uploaded"
                " with it"
            )
            self._warn_once.warn("link", text, relpath)

    def _is_pruned(self, reldir: str) -> bool:
        return reldir in self._private or self._filter.prunes(reldir)

    def _is_private(self, target: str) -> bool:
        return self._filter.is_private(target) or any(_holds(place, target) for place in self._private)

    def _has_no_event(self, file: ChangedFile) -> bool:
        """Return whether it is an event file of this library's writer without an event."""
        return (
            file.signature.size <= NO_EVENT_BYTES
            and file.relpath not in self._ledger.entries
            and parse_name(file.relpath) is not None
        )

    def _is_refused(self, file: ChangedFile) -> bool:
        return self._refused.get(file.relpath) == file.signature

    def _is_included(self, relpath: str) -> bool:
        if not self._filter(relpath) or relpath in self._private or relpath == self._gitignore:
            return False
        reason = unpushable(relpath)
        if reason is not None:
            self._warn_once.warn("name", f"{relpath!a} stays only on this disk: {reason}", relpath)
        return reason is None
