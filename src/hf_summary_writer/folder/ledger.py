"""The ledger: what the Hub holds of a folder, in a journal of JSON lines that survives a crash."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_summary_writer import config as checks
from hf_summary_writer.config import Destination, PushConfig
from hf_summary_writer.folder import disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from io import FileIO

__all__ = [
    "MEANINGLESS",
    "STATE_FOLDER",
    "CommitRecord",
    "Journal",
    "Ledger",
    "LedgerEntry",
    "LedgerError",
    "Signature",
    "destination_of",
    "ledgers_of",
    "of_arrival",
    "of_commit",
    "of_destination",
    "of_repo",
    "parsed_arrival",
    "parsed_commit",
    "parsed_destination",
    "parsed_repo",
]


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


class LedgerEntry(NamedTuple):
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


MEANINGLESS = (KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError)

"""What parsing raises where anything may stand: no JSON, JSON of another shape, and what nests or counts too far."""


def of_arrival(relpath: str, entry: LedgerEntry) -> dict[str, Any]:
    """Return the line of a file that a commit delivered."""
    line: dict[str, Any] = {"file": relpath, "signature": list(entry.signature), "length": entry.length}
    if entry.tail:
        line["tail"] = entry.tail
    if entry.digest:
        line["digest"] = entry.digest
    return line


def parsed_arrival(entry: dict[str, Any]) -> tuple[str, LedgerEntry]:
    """Return the path in the folder of the file of an entry, and what arrived of it."""
    relpath = _typed(entry["file"], str)
    signature = Signature(*(_typed(number, int) for number in entry["signature"]))
    length = _typed(entry["length"], int)
    if not 0 <= length <= signature.size or relpath.startswith("/") or ".." in relpath.split("/"):
        raise ValueError(relpath)
    return relpath, LedgerEntry(
        signature, length, tail=_typed(entry.get("tail", ""), str), digest=_typed(entry.get("digest", ""), str)
    )


def of_commit(commit: CommitRecord) -> dict[str, Any]:
    """Return the entry of a commit."""
    return {"commit": asdict(commit)}


def parsed_commit(entry: dict[str, Any]) -> CommitRecord:
    """Return the commit of an entry."""
    commit = entry["commit"]
    return CommitRecord(oid=_typed(commit["oid"], str), url=_typed(commit["url"], str), time=float(commit["time"]))


def of_repo(repo_id: str | None, *, is_new: bool) -> dict[str, Any]:
    """Return the entry that names the repo, and says whether it was created for this folder."""
    return {"repo": repo_id, **({"new": True} if is_new else {})}


def parsed_repo(entry: dict[str, Any]) -> tuple[str, bool]:
    """Return the repo of an entry, and whether it was created for this folder."""
    return checks.check_repo_id(_typed(entry["repo"], str)), _typed(entry.get("new", False), bool)


def of_destination(destination: Destination) -> dict[str, Any]:
    """Return what the head of a journal says of its destination."""
    return {"destination": asdict(destination)}


def parsed_destination(entry: dict[str, Any]) -> Destination:
    """Return the destination that the head of a journal names."""
    destination = entry["destination"]
    return Destination(
        endpoint=checks.check_endpoint(destination["endpoint"]),
        repo_type=checks.check_repo_type(destination["repo_type"]),
        repo_id=checks.check_repo_id(destination["repo_id"]),
        revision=checks.check_revision(destination["revision"]),
        path=checks.check_path_in_repo(destination["path"]),
    )


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(value)
    return value


_VERSION = 1

# Far above the 100,000 files that the Hub advises as the most for a repo; a larger file is not one of ours.
_MAX_BYTES = 256 * 2**20

_MAX_HEAD_BYTES = 64 * 2**10

# What opening something else than a regular file gives: a folder or FIFO, a link, a socket.
_NO_FILE = frozenset({errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.EMLINK, errno.ENXIO})


class LedgerError(Exception):
    """The journal cannot be trusted; the message says why."""


class Journal:
    """One file, and what of it was read or written last.

    Not thread-safe: its owner uses it from one thread at a time.

    Args:
        path: The file; its folder is made when something is written.
        destination: What it is about. One that speaks of another destination cannot be trusted.

    Attributes:
        lines: How many lines it holds.
    """

    def __init__(self, path: Path, destination: Destination) -> None:
        """Read nothing yet."""
        self.path = path
        self.lines = 0
        self._head = {"version": _VERSION, **of_destination(destination)}
        self._whole_bytes = 0
        self._seen: Signature | None = None

    def read(self, begin: Callable[[], None], apply: Callable[[dict[str, Any]], None]) -> None:
        """Read the file if it is not what this object read or wrote last: call `begin`, then `apply` with each entry.

        Raises:
            LedgerError: If the file could not be trusted and was set aside.
            OSError: If the file is there but cannot be read; nothing was called then.
        """
        try:
            with disk.regular_file(str(self.path.parent), self.path.name, buffering=-1) as file:
                signature = Signature.of(os.fstat(file.fileno()))
                if signature == self._seen:
                    return
                if signature.size > _MAX_BYTES:
                    raise LedgerError(f"it has {signature.size} bytes")
                self._forget()
                begin()
                self._parse(file, apply)
            self._seen = signature
        except FileNotFoundError:
            # Gone with a deleted or recreated folder. What this process knows of the Hub is still true.
            self._seen = None
        except LedgerError as error:
            self._set_aside()
            raise LedgerError(f"{self.path.name} was set aside because {error}") from None
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            self._set_aside()
            raise LedgerError(f"{self.path.name} was set aside because it is no file") from None

    def is_outdated(self) -> bool:
        """Tell whether somebody else has written the file since this object read or wrote it."""
        try:
            with disk.regular_file(str(self.path.parent), self.path.name, buffering=-1) as file:
                return self._seen is not None and Signature.of(os.fstat(file.fileno())) != self._seen
        except OSError:
            return False  # gone, or not to be read: nothing else is known

    def append(self, news: list[dict[str, Any]]) -> bool:
        """Append to the file, durably, if it is the one that this object knows; tell whether it is.

        Raises:
            OSError: If it could not be written; the file is then, as far as the disk allows, what it was before.
        """
        if self._seen is None:
            return False
        content = b"".join(map(_encoded, news))
        try:
            # Without a buffer: what a full disk did not take would be written once more when the file is closed.
            with self.path.open("r+b", buffering=0) as file:
                if Signature.of(os.fstat(file.fileno())) != self._seen:
                    return False
                try:
                    file.truncate(self._whole_bytes)
                    file.seek(self._whole_bytes)
                    _write_all(file, content)
                    os.fsync(file.fileno())
                except OSError:
                    with contextlib.suppress(OSError):
                        file.truncate(self._whole_bytes)
                    raise
                finally:
                    # However it went, or what was changed here would be taken for what somebody else wrote.
                    self._seen = Signature.of(os.fstat(file.fileno()))
        except FileNotFoundError:
            return False
        self._whole_bytes += len(content)
        self.lines += len(news)
        return True

    def rewrite(self, all_entries: list[dict[str, Any]]) -> None:
        """Replace the file, durably, by one that holds these entries.

        Raises:
            OSError: If it could not be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = b"".join(map(_encoded, [self._head, *all_entries]))
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                signature = Signature.of(os.fstat(file.fileno()))
            temporary.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _fsync_folder(self.path.parent)
        self._seen, self.lines, self._whole_bytes = signature, 1 + len(all_entries), len(content)

    def sweep(self) -> None:
        """Remove what processes that were killed in the middle of a rewrite left; only while the folder is locked."""
        for path in self.path.parent.glob(f"{self.path.name}.*.tmp"):
            with contextlib.suppress(OSError):
                path.unlink()

    def _forget(self) -> None:
        self.lines = self._whole_bytes = 0
        self._seen = None

    def _parse(self, lines: Iterable[bytes], apply: Callable[[dict[str, Any]], None]) -> None:
        try:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                understand = apply if self.lines else self._check
                understand(json.loads(line))
                self.lines += 1
                self._whole_bytes += len(line)
        except MEANINGLESS:
            raise LedgerError(f"its line {self.lines + 1} does not mean anything") from None
        if not self.lines:
            raise LedgerError("it is empty")

    def _check(self, head: dict[str, Any]) -> None:
        if head["version"] != _VERSION:
            raise LedgerError(f"its version is {head['version']!r} and this library knows {_VERSION}")
        if head["destination"] != self._head["destination"]:
            raise LedgerError("it is about another destination")

    def _set_aside(self) -> None:
        self._forget()
        with contextlib.suppress(OSError):
            self.path.replace(self.path.with_name(f"{self.path.name}.set-aside-{time.time_ns()}"))


def destination_of(path: Path) -> Destination:
    """Return what the journal at `path` is about.

    Raises:
        LedgerError: If it cannot be trusted.
        OSError: If it cannot be read.
    """
    with disk.regular_file(str(path.parent), path.name, buffering=-1) as file:
        head = file.readline(_MAX_HEAD_BYTES)
    try:
        return parsed_destination(json.loads(head))
    except MEANINGLESS:
        raise LedgerError("its head does not mean anything") from None


def _encoded(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _write_all(file: FileIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _fsync_folder(folder: Path) -> None:
    # The rename itself must survive a power loss; not every system can open a folder (Windows cannot).
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Where a folder's state lies in it. The Hub's client never uploads anything below `.cache/huggingface`.
STATE_FOLDER = Path(".cache", "huggingface", "hf-summary-writer")

# Rewriting costs what the folder holds, so it waits until it at least halves the file.
_MIN_LINES_TO_COMPACT = 1000


class Ledger:
    """What arrived at one destination, in memory and on disk.

    Not thread-safe: its owner uses it from one thread at a time, and holds the folder's lock while it records.

    Args:
        path: The journal's file; its folder is made when something is recorded.
        destination: What the journal is about. One that speaks of another destination is set aside.
    """

    def __init__(self, path: Path, destination: Destination) -> None:
        """Start empty; `refresh` reads what is on disk."""
        self.path = path
        self.destination = destination
        self.repo_id: str | None = None
        self.is_new = False
        self.commit: CommitRecord | None = None
        self.config: PushConfig | None = None
        self._entries_by_path: dict[str, LedgerEntry] = {}
        self._journal = Journal(path, destination)
        # Whether memory holds what the file that was seen does not, since it could not be written.
        self._ahead = False

    @property
    def known_config(self) -> PushConfig:
        """How the folder is pushed: as noted last, or by default."""
        return self.config or PushConfig.from_ledger(self.destination, {})

    @property
    def entries(self) -> Mapping[str, LedgerEntry]:
        """What has arrived, by relative path; what arrived longest ago comes first."""
        return self._entries_by_path

    def refresh(self) -> None:
        """Read what is on disk, if it is not what this object read or wrote last.

        Raises:
            LedgerError: If the journal could not be trusted and was set aside; the ledger is then empty.
            OSError: If the file is there but cannot be read; the ledger is unchanged.
        """
        try:
            self._journal.read(self._forget, self._apply)
        except LedgerError:
            self._forget()
            raise

    def is_outdated(self) -> bool:
        """Tell whether somebody else has recorded something since this object read or wrote."""
        return self._journal.is_outdated()

    def record(self, entries: Mapping[str, LedgerEntry], commit: CommitRecord | None = None) -> None:
        """Note what a commit delivered, first in memory, then durably on disk.

        Raises:
            OSError: If it could not be written; memory holds it all the same.
        """
        news = {relpath: entry for relpath, entry in entries.items() if self._entries_by_path.get(relpath) != entry}
        for relpath, entry in news.items():
            self._put_last(relpath, entry)
        self.commit = commit or self.commit
        lines = [of_arrival(relpath, entry) for relpath, entry in news.items()]
        if commit is not None:
            lines.append(of_commit(commit))
        if lines:
            self._write(lines)

    def record_repo(self, repo_id: str, *, is_new: bool = False) -> None:
        """Note that the repo exists, under its full id `repo_id`, and whether it was created for this folder.

        The id of a repo that was renamed on the Hub is held in memory only: a file that names it could not be trusted.

        Raises:
            OSError: If it could not be written; memory holds it all the same.
        """
        self.repo_id, self.is_new = repo_id, is_new
        if self._is_meant(repo_id):
            self._write([of_repo(repo_id, is_new=is_new)])

    def record_config(self, config: PushConfig) -> None:
        """Note how the folder is pushed, unless that is what was noted last.

        Raises:
            OSError: If it could not be written; memory holds it all the same.
        """
        if self.config is None or config.settings != self.config.settings:
            self.config = config
            self._write([{"settings": config.settings}])

    def start_over(self) -> None:
        """Take back that anything arrived, durably: the repo is gone, and what comes back in its place may be empty.

        Raises:
            OSError: If it could not be written; memory holds it all the same.
        """
        if self._entries_by_path:
            self._entries_by_path = {}
            self._ahead = True
            self._journal.rewrite(self._entries())
            self._ahead = False

    def sweep(self) -> None:
        """Remove what processes that were killed in the middle of a write left; only while the folder is locked."""
        self._journal.sweep()

    def forget(self, relpaths: Iterable[str]) -> None:
        """Take back, in memory, that these files arrived, so that the next push looks at them again."""
        for relpath in relpaths:
            self._entries_by_path.pop(relpath, None)

    def _put_last(self, relpath: str, entry: LedgerEntry) -> None:
        # A dictionary keeps the order in which its keys came.
        self._entries_by_path.pop(relpath, None)
        self._entries_by_path[relpath] = entry

    def _forget(self) -> None:
        self.repo_id, self.commit, self.config, self._entries_by_path = None, None, None, {}
        self.is_new = self._ahead = False

    def _apply(self, entry: dict[str, Any]) -> None:
        if "file" in entry:
            self._put_last(*parsed_arrival(entry))
        elif "repo" in entry:
            repo_id, self.is_new = parsed_repo(entry)
            if not self._is_meant(repo_id):
                raise ValueError(repo_id)
            self.repo_id = repo_id
        elif "settings" in entry:
            self.config = PushConfig.from_ledger(self.destination, entry["settings"])
        else:
            self.commit = parsed_commit(entry)

    def _is_meant(self, repo_id: str) -> bool:
        # The Hub adds the user's name and may write it in another case; anything else would lead logs astray.
        return repo_id.casefold().rpartition("/")[2] == self.destination.name.casefold()

    def _entries(self) -> list[dict[str, Any]]:
        found = []
        if self.repo_id is not None and self._is_meant(self.repo_id):
            found.append(of_repo(self.repo_id, is_new=self.is_new))
        if self.config is not None:
            found.append({"settings": self.config.settings})
        found.extend(of_arrival(relpath, entry) for relpath, entry in self._entries_by_path.items())
        if self.commit is not None:
            found.append(of_commit(self.commit))
        return found

    def _write(self, news: list[dict[str, Any]]) -> None:
        outdated = self._journal.lines - len(self._entries_by_path)
        stale = self._ahead or outdated > max(_MIN_LINES_TO_COMPACT, len(self._entries_by_path))
        self._ahead = True
        if stale or not self._journal.append(news):
            self._journal.rewrite(self._entries())
        self._ahead = False


def ledgers_of(folder: Path) -> Iterator[Ledger]:
    """Yield the ledgers that lie in a folder, read; those that cannot be trusted are passed over."""
    for path in sorted((folder / STATE_FOLDER).glob("*.jsonl")):
        with contextlib.suppress(OSError, LedgerError):
            ledger = Ledger(path, destination_of(path))
            ledger.refresh()
            yield ledger
