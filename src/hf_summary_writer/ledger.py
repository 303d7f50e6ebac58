"""What has arrived: a small journal per (folder, destination) that says up to where each file is on the Hub.

The journal is a text file of JSON lines: a head that names the destination, then one line per file that a commit
delivered, and one per commit. A later line about a file replaces an earlier one. So a push writes what it delivered,
not what the folder holds. When most lines are outdated the file is written anew, by the usual steps of temporary file,
fsync, rename, fsync of the folder.

A last line without its newline is what a crash in the middle of a write leaves; it is ignored and overwritten. Anything
else that does not parse means that the file cannot be trusted: it is set aside and the folder is planned afresh, which
costs time but never data, since the Hub's client drops what is already there.

The caller holds the folder's lock while it writes. Reading needs no lock.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_summary_writer import destination as checks
from hf_summary_writer import safe_open
from hf_summary_writer.destination import Destination

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["STATE_FOLDER", "Arrival", "CommitRecord", "Ledger", "LedgerError", "Settings", "Signature", "ledgers_of"]

# Where a folder's state lies in it. The Hub's client never uploads anything below `.cache/huggingface`.
STATE_FOLDER = Path(".cache", "huggingface", "hf-summary-writer")

VERSION = 1
# Far above the 100,000 files that the Hub advises as the most for a repo; a larger file is not one of ours.
_MAX_BYTES = 256 * 2**20
_MAX_HEAD_BYTES = 64 * 2**10
# Rewriting costs what the folder holds, so it waits until it at least halves the file.
_MIN_LINES_TO_COMPACT = 1000
# What opening something else than a regular file gives: a folder or FIFO, a link, a socket.
_NO_FILE = frozenset({errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.EMLINK, errno.ENXIO})
# What parsing raises where anything may stand: no JSON, JSON of another shape, and what nests or counts too far.
_MEANINGLESS = (KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError)


class LedgerError(Exception):
    """The journal cannot be trusted; the message says why."""


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


class Ledger:
    """The journal of one destination, held in memory and on disk.

    Not thread-safe: its owner uses it from one thread at a time.

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
        self.settings: Settings | None = None
        self._arrivals: dict[str, Arrival] = {}
        self._lines = 0
        self._whole_bytes = 0
        self._seen: Signature | None = None
        # Whether memory holds what the file that was seen does not, since it could not be written.
        self._ahead = False

    @property
    def arrivals(self) -> Mapping[str, Arrival]:
        """What has arrived, by relative path."""
        return self._arrivals

    def refresh(self) -> None:
        """Read what is on disk, if it is not what this object read or wrote last.

        Raises:
            LedgerError: If the journal could not be trusted and was set aside; the ledger is then empty.
            OSError: If the file is there but cannot be read; the ledger is unchanged.
        """
        try:
            with safe_open.regular_file(str(self.path.parent), self.path.name, buffering=-1) as file:
                signature = Signature.of(os.fstat(file.fileno()))
                if signature == self._seen:
                    return
                if signature.size > _MAX_BYTES:
                    raise LedgerError(f"it has {signature.size} bytes")
                self._forget()
                self._parse(file)
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

    def record(self, arrivals: Mapping[str, Arrival], commit: CommitRecord | None = None) -> None:
        """Note what a commit delivered, first in memory, then durably on disk.

        Raises:
            OSError: If it could not be written; memory holds it all the same.
        """
        news = {relpath: arrival for relpath, arrival in arrivals.items() if self._arrivals.get(relpath) != arrival}
        self._arrivals.update(news)
        self.commit = commit or self.commit
        lines = [_arrival_line(relpath, arrival) for relpath, arrival in news.items()]
        if commit is not None:
            lines.append({"commit": asdict(commit)})
        if lines:
            self._write(lines)

    def record_repo(self, repo_id: str, *, is_new: bool = False) -> None:
        """Note that the repo exists, under its full id `repo_id`, and whether it was created for this folder.

        Raises:
            OSError: If it could not be written; memory holds it all the same.
        """
        self.repo_id, self.is_new = repo_id, is_new
        self._write([self._repo_line()])

    def record_settings(self, settings: Settings) -> None:
        """Note how the folder is pushed, unless that is what was noted last.

        Raises:
            OSError: If it could not be written; memory holds it all the same.
        """
        if settings != self.settings:
            self.settings = settings
            self._write([{"settings": asdict(settings)}])

    def start_over(self) -> None:
        """Take back that anything arrived, durably: the repo is gone, and what comes back in its place may be empty.

        Raises:
            OSError: If it could not be written; memory holds it all the same.
        """
        if self._arrivals:
            self._arrivals = {}
            self._rewrite()

    def sweep(self) -> None:
        """Remove what processes that were killed in the middle of a rewrite left; only while the folder is locked."""
        for path in self.path.parent.glob(f"{self.path.name}.*.tmp"):
            with contextlib.suppress(OSError):
                path.unlink()

    def forget(self, relpaths: Iterable[str]) -> None:
        """Take back, in memory, that these files arrived, so that the next push looks at them again."""
        for relpath in relpaths:
            self._arrivals.pop(relpath, None)

    def _forget(self) -> None:
        self.repo_id, self.commit, self.settings, self._arrivals = None, None, None, {}
        self.is_new = False
        self._lines = self._whole_bytes = 0
        self._seen, self._ahead = None, False

    def _parse(self, lines: Iterable[bytes]) -> None:
        try:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                understand = self._apply if self._lines else self._check
                understand(json.loads(line))
                self._lines += 1
                self._whole_bytes += len(line)
        except _MEANINGLESS:
            raise LedgerError(f"its line {self._lines + 1} does not mean anything") from None
        if not self._lines:
            raise LedgerError("it is empty")

    def _check(self, head: dict[str, Any]) -> None:
        if head["version"] != VERSION:
            raise LedgerError(f"its version is {head['version']!r} and this library knows {VERSION}")
        if head["destination"] != asdict(self.destination):
            raise LedgerError("it is about another destination")

    def _apply(self, entry: dict[str, Any]) -> None:
        if "file" in entry:
            relpath, arrival = _parsed_arrival(entry)
            self._arrivals[relpath] = arrival
        elif "repo" in entry:
            self.repo_id = self._checked_repo(_typed(entry["repo"], str))
            self.is_new = _typed(entry.get("new", False), bool)
        elif "settings" in entry:
            self.settings = _parsed_settings(entry["settings"])
        else:
            commit = entry["commit"]
            self.commit = CommitRecord(
                oid=_typed(commit["oid"], str), url=_typed(commit["url"], str), time=float(commit["time"])
            )

    def _checked_repo(self, repo_id: str) -> str:
        # The Hub adds the user's name and may write it in another case; anything else would lead logs astray.
        if checks.check_repo_id(repo_id).casefold().rpartition("/")[2] != self.destination.name.casefold():
            raise ValueError(repo_id)
        return repo_id

    def _repo_line(self) -> dict[str, Any]:
        return {"repo": self.repo_id, **({"new": True} if self.is_new else {})}

    def _write(self, entries: list[dict[str, Any]]) -> None:
        outdated = self._lines - len(self._arrivals)
        stale = self._ahead or outdated > max(_MIN_LINES_TO_COMPACT, len(self._arrivals))
        self._ahead = True
        if stale or not self._append(entries):
            self._rewrite()
        self._ahead = False

    def _append(self, entries: list[dict[str, Any]]) -> bool:
        """Append to the file that this object knows; tell whether it is still that file."""
        if self._seen is None:
            return False
        content = b"".join(_encoded(entry) for entry in entries)
        try:
            with self.path.open("r+b") as file:
                if Signature.of(os.fstat(file.fileno())) != self._seen:
                    return False
                file.truncate(self._whole_bytes)
                file.seek(self._whole_bytes)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                self._seen = Signature.of(os.fstat(file.fileno()))
        except FileNotFoundError:
            return False
        self._whole_bytes += len(content)
        self._lines += len(entries)
        return True

    def _rewrite(self) -> None:
        entries: list[dict[str, Any]] = [{"version": VERSION, "destination": asdict(self.destination)}]
        if self.repo_id is not None:
            entries.append(self._repo_line())
        if self.settings is not None:
            entries.append({"settings": asdict(self.settings)})
        entries.extend(_arrival_line(relpath, arrival) for relpath, arrival in self._arrivals.items())
        if self.commit is not None:
            entries.append({"commit": asdict(self.commit)})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = b"".join(_encoded(entry) for entry in entries)
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
        self._seen, self._lines, self._whole_bytes = signature, len(entries), len(content)

    def _set_aside(self) -> None:
        self._forget()
        with contextlib.suppress(OSError):
            self.path.replace(self.path.with_name(f"{self.path.name}.set-aside-{time.time_ns()}"))


def _arrival_line(relpath: str, arrival: Arrival) -> dict[str, Any]:
    line: dict[str, Any] = {"file": relpath, "signature": list(arrival.signature), "length": arrival.length}
    if arrival.tail:
        line["tail"] = arrival.tail
    if arrival.digest:
        line["digest"] = arrival.digest
    return line


def _parsed_arrival(entry: dict[str, Any]) -> tuple[str, Arrival]:
    relpath = _typed(entry["file"], str)
    signature = Signature(*(_typed(number, int) for number in entry["signature"]))
    length = _typed(entry["length"], int)
    if not 0 <= length <= signature.size or relpath.startswith("/") or ".." in relpath.split("/"):
        raise ValueError(relpath)
    return relpath, Arrival(
        signature, length, tail=_typed(entry.get("tail", ""), str), digest=_typed(entry.get("digest", ""), str)
    )


def _parsed_settings(entry: dict[str, Any]) -> Settings:
    def patterns(value: Any) -> tuple[str, ...] | None:
        return None if value is None else tuple(_typed(pattern, str) for pattern in _typed(value, list))

    private = entry["private"]
    return Settings(
        allow=patterns(entry["allow"]),
        ignore=patterns(entry["ignore"]),
        private=None if private is None else _typed(private, bool),
        squash=_typed(entry["squash"], bool),
        card=_typed(entry.get("card", True), bool),
    )


def ledgers_of(folder: Path) -> Iterator[Ledger]:
    """Yield the ledgers that lie in a folder, read; those that cannot be trusted are passed over."""
    for path in sorted((folder / STATE_FOLDER).glob("*.jsonl")):
        with contextlib.suppress(OSError, LedgerError, *_MEANINGLESS):
            with safe_open.regular_file(str(path.parent), path.name, buffering=-1) as file:
                head = json.loads(file.readline(_MAX_HEAD_BYTES))
            ledger = Ledger(path, _parsed_destination(head["destination"]))
            ledger.refresh()
            yield ledger


def _parsed_destination(entry: dict[str, Any]) -> Destination:
    return Destination(
        endpoint=_typed(entry["endpoint"], str),
        repo_type=checks.check_repo_type(entry["repo_type"]),
        repo_id=checks.check_repo_id(entry["repo_id"]),
        revision=checks.check_revision(entry["revision"]),
        path=checks.check_path_in_repo(entry["path"]),
    )


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(value)
    return value


def _encoded(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _fsync_folder(folder: Path) -> None:
    # The rename itself must survive a power loss; not every system can open a folder (Windows cannot).
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
