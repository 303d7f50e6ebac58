"""Access to the disk that never follows a link and never blocks: content, state files, and warnings given once."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from hf_summary_writer.notices import logger

if TYPE_CHECKING:
    from collections.abc import Iterator

# The Hub's client never uploads anything below `.cache/huggingface`.
STATE_FOLDER = Path(".cache", "huggingface", "hf-summary-writer")

# The last second of the year 9999: no calendar goes further.
LAST_SECOND = 253_402_300_799

# The exceptions of parsing a file that this library did not write, including JSON that nests or counts too far.
MALFORMED = (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError)

# O_NONBLOCK: opening a FIFO must not wait for its other end. The names missing on Windows mean nothing there.
_SAFE = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

_NONBLOCK = getattr(os, "O_NONBLOCK", 0)

_DIRECTORY = getattr(os, "O_DIRECTORY", 0)

# The names of this library's temporary files. Nothing else is ever swept.
_TEMPORARY = re.compile(r"tmp-[0-9a-f]{32}")

# The errors of opening a state folder where there is none, or can be none.
_NO_FOLDER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENOTSUP})

_ATTEMPTS = 5

# Far above the largest state file but the ledger, the budget of an account with many runs.
_MAX_JSON_BYTES = 2**20

_HAS_DIR_FD = os.open in os.supports_dir_fd


def regular_file(root: str, relpath: str) -> BinaryIO:
    """Open the regular file `relpath` below the folder `root`, unbuffered.

    Every part is opened relative to the one before it and none may be a link, so that a link swapped in after the
    scan leads nowhere.

    Raises:
        OSError: If it is not there, not readable, a link, or not a regular file.
    """
    *folders, name = relpath.split("/")
    if not _HAS_DIR_FD:
        return _checked(os.open(os.path.join(root, *folders, name), os.O_RDONLY | _SAFE), relpath, 0)
    with _folder_below(root, folders) as folder:
        return _checked(os.open(name, os.O_RDONLY | _SAFE | _NONBLOCK, dir_fd=folder), relpath, 0)


def _checked(descriptor: int, name: str, buffering: int, mode: str = "rb") -> BinaryIO:
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        return open(descriptor, mode, buffering=buffering)  # type: ignore[return-value]  # a binary mode
    except BaseException:
        os.close(descriptor)
        raise


@contextlib.contextmanager
def _folder_below(root: str, parts: list[str], *, create: bool = False) -> Iterator[int]:
    folder = os.open(root, os.O_RDONLY | _DIRECTORY | getattr(os, "O_CLOEXEC", 0))
    try:
        for depth, part in enumerate(parts, 1):
            if create:
                with contextlib.suppress(FileExistsError):
                    # Every user who can open a lock file, if only for reading, can hold the lock.
                    os.mkdir(part, 0o700 if depth == len(parts) else 0o777, dir_fd=folder)
            try:
                deeper = os.open(part, os.O_RDONLY | _DIRECTORY | _SAFE, dir_fd=folder)
            except OSError as error:
                if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                    raise
                raise NotADirectoryError(errno.ENOTDIR, "a link, or no folder", part) from None
            os.close(folder)
            folder = deeper
        yield folder
    finally:
        os.close(folder)


def is_deleted(folder: Path) -> bool:
    """Return whether a folder is certainly gone: a disk that fails for a moment still has it."""
    try:
        return not stat.S_ISDIR(os.stat(folder).st_mode)  # noqa: PTH116 - as in all scans
    except OSError as error:
        return error.errno in {errno.ENOENT, errno.ENOTDIR}


class StateFolder:
    """A folder of this library's own files. Everything in it that is not a regular file of this user is refused.

    Other users who can write to the folder of a run can put links, FIFOs and files of their own here.

    Args:
        path: The folder. If it is the state folder of a run, no part of it below the run may be a link; of another
            folder only the last part is checked.

    Attributes:
        root: The folder that it belongs to: the run.
    """

    def __init__(self, path: Path) -> None:
        depth = len(STATE_FOLDER.parts)
        if path.parts[-depth:] != STATE_FOLDER.parts:
            depth = 1
        self.path = path
        self.root: Path = path.parents[depth - 1]
        self._parts = list(path.parts[-depth:])

    @contextlib.contextmanager
    def opened(self, *, create: bool = False) -> Iterator[int]:
        """Yield a descriptor of the folder.

        Raises:
            OSError: If it is missing and not to be created, `root` is, it is a link, or cannot be reached without
                following one.
        """
        if not _HAS_DIR_FD:
            raise OSError(errno.ENOTSUP, "files cannot be opened relative to a folder on this system", str(self.path))
        with _folder_below(str(self.root), self._parts, create=create) as folder:
            yield folder

    def open(self, name: str, mode: str = "rb", buffering: int = -1) -> BinaryIO:
        """Open one file, by the modes `rb` or `r+b`.

        Raises:
            PermissionError: If it belongs to another user.
            OSError: If it is not there, not readable, a link, or not a regular file.
        """
        access = os.O_RDONLY if mode == "rb" else os.O_RDWR
        with self.opened() as folder:
            file = _checked(os.open(name, access | _SAFE | _NONBLOCK, dir_fd=folder), name, buffering, mode)
            if not _is_ours(os.fstat(file.fileno()), folder):
                file.close()
                raise PermissionError(errno.EPERM, "belongs to another user", name)
            return file

    def write(self, name: str, content: bytes, *, durable: bool = False) -> os.stat_result:
        """Replace one file in one step by a file with `content` that only this user can read; return its status.

        Args:
            name: The file.
            content: All of it.
            durable: Return only after a power loss could not undo it.

        Raises:
            PermissionError: If there is one that belongs to another user.
            OSError: If it could not be written; the file is then as it was, and nothing else is left behind.
        """
        with self.opened(create=True) as folder:
            with contextlib.suppress(FileNotFoundError):
                if not _is_ours(os.stat(name, dir_fd=folder, follow_symlinks=False), folder):
                    raise PermissionError(errno.EPERM, "belongs to another user", name)
            temporary, file = new_temporary(folder)
            with file:
                try:
                    file.write(content)
                    file.flush()
                    if durable:
                        os.fsync(file.fileno())
                    os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.unlink(temporary, dir_fd=folder)
                    raise
                status = os.fstat(file.fileno())
            if durable:
                with contextlib.suppress(OSError):  # the rename must survive as well; not every file system can say so
                    os.fsync(folder)
            return status

    def remove(self, name: str) -> None:
        """Remove one file; one that is missing, or not a regular file of this user, is left alone.

        Raises:
            OSError: If it is ours and cannot be removed.
        """
        with contextlib.suppress(FileNotFoundError), self.opened() as folder:
            if _is_ours_at(name, folder):
                os.unlink(name, dir_fd=folder)

    def set_aside(self, name: str, suffix: str) -> None:
        """Rename the entry `name` without opening it."""
        with contextlib.suppress(OSError), self.opened() as folder:
            os.rename(name, f"{name}.{suffix}", src_dir_fd=folder, dst_dir_fd=folder)

    def names(self, ending: str) -> list[str]:
        """Return the sorted names with this ending.

        Raises:
            OSError: If the folder is there and cannot be listed.
        """
        try:
            with self.opened() as folder:
                return sorted(name for name in os.listdir(folder) if name.endswith(ending))  # noqa: PTH208 - by descriptor
        except OSError as error:
            if error.errno not in _NO_FOLDER:
                raise
            return []

    def sweep(self) -> None:
        """Remove the temporary files of processes that were killed; those of live processes are locked."""
        with contextlib.suppress(OSError), self.opened() as folder:
            for name in filter(_TEMPORARY.fullmatch, os.listdir(folder)):  # noqa: PTH208 - by descriptor
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(name, folder)


def new_temporary(folder: int) -> tuple[str, BinaryIO]:
    """Return a new file, locked so that no other process sweeps it, and its name."""
    for _ in range(_ATTEMPTS):
        # Never a name that somebody else can predict or choose: in containers that share a folder, pids are the same.
        name = f"tmp-{os.urandom(16).hex()}"
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE, 0o600, dir_fd=folder)
        file = open(descriptor, "w+b")  # noqa: SIM115 - the caller closes it
        try:
            _lock(file.fileno())
            if os.fstat(file.fileno()).st_nlink:
                return name, file
        except BaseException:
            os.unlink(name, dir_fd=folder)
            file.close()
            raise
        file.close()  # swept before it was locked
    raise OSError(errno.EAGAIN, "another process removes every new file")


def _lock(descriptor: int) -> bool:
    """Lock a file while it is open; return whether that is possible. The lock of a process that dies ends with it."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_if_abandoned(name: str, folder: int) -> None:
    if not _is_ours_at(name, folder):
        return
    # For writing: over NFS nothing else can be locked.
    descriptor = os.open(name, os.O_RDWR | _SAFE | _NONBLOCK, dir_fd=folder)
    try:
        if _lock(descriptor):
            os.unlink(name, dir_fd=folder)
    finally:
        os.close(descriptor)


def _is_ours_at(name: str, folder: int) -> bool:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return stat.S_ISREG(status.st_mode) and _is_ours(status, folder)


def _is_ours(status: os.stat_result, folder: int) -> bool:
    if status.st_uid == os.geteuid():
        return True
    # A share may give the same owner to the files of all users.
    with contextlib.suppress(OSError):
        name, file = new_temporary(folder)
        with file:
            os.unlink(name, dir_fd=folder)
            return status.st_uid == os.fstat(file.fileno()).st_uid
    return False


def read_json(path: Path) -> Any:
    """Return the content of a small state file; of a large one only a part is read.

    Raises:
        OSError: If it cannot be read, or is not a regular file of this user.
        ValueError: If it is no JSON, or RecursionError if it nests too far.
    """
    with StateFolder(path.parent).open(path.name) as file:
        return json.loads(file.read(_MAX_JSON_BYTES))


def seconds(value: Any, most: float = LAST_SECOND) -> float:
    """Return a number of seconds, or a time in seconds since the epoch, that a state file gives.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is negative, not finite, or greater than `most`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(value)
    if not 0 <= value <= most:
        raise ValueError(value)
    return float(value)


def text(value: Any) -> str:
    """Return a text that a state file gives and that can be shown: no escape codes may reach a terminal.

    Raises:
        TypeError: If it is no text.
        ValueError: If it holds control characters.
    """
    if not isinstance(value, str):
        raise TypeError(value)
    if not value.isprintable():
        raise ValueError(value)
    return value


def write_json(path: Path, value: Any) -> None:
    """Replace a state file in one step; create its folder if need be.

    Raises:
        OSError: If it could not be written; the file is then as it was.
    """
    StateFolder(path.parent).write(path.name, json.dumps(value, separators=(",", ":")).encode())


# Errors of this process or machine and not of one file: a scan that passed over it would take a full folder for empty.
OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})

# So many files of one kind are named; more only hide other lines.
_NAMED = 10


class WarnOnce:
    """Logs each warning once, and of many alike only the first few.

    Not thread-safe, which costs at most a repeated line.

    Args:
        quiet: Whether to log at the level `DEBUG`, since the process that pushes warns.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._said: dict[str, set[str]] = {}

    def warn(self, kind: str, message: str, about: str = "", level: int = logging.WARNING) -> None:
        """Log `message`, unless one of this `kind` was logged `about` the same thing, or about many things."""
        said = self._said.setdefault(kind, set())
        if about in said or len(said) > _NAMED:
            return
        said.add(about)
        if len(said) > _NAMED:
            message = f"{message}; more like it are not named"
        logger.log(logging.DEBUG if self._quiet else level, "%s", message)
