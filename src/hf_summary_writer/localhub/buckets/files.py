"""The files of one bucket, and the log of their changes."""

from __future__ import annotations

import json
import os
import threading
import time
from bisect import bisect_left, bisect_right
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from hf_summary_writer.localhub.disk import append

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hf_summary_writer.localhub.disk import Disk

_LOG, _SNAPSHOT = "changes.ndjson", "files.json"
# A longer log is compacted into the list of files; at most twice as many batches are in memory.
_KEPT_BATCHES = 10_000
_MILLISECONDS = 1000
# Sorts after every path that starts with the same text.
_LAST = "\U0010ffff"


def iso(milliseconds: int) -> str:
    """Return a Unix time as the Hub writes it."""
    time_ = datetime.fromtimestamp(milliseconds / _MILLISECONDS, timezone.utc)
    return time_.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class BucketFile:
    """A file of a bucket; times are Unix times in milliseconds."""

    path: str
    xet_hash: str
    size: int
    mtime: int
    uploaded: int
    content_type: str | None = None

    def describe(self) -> dict[str, Any]:
        """Return the file as the API describes it."""
        times = {"mtime": iso(self.mtime), "uploadedAt": iso(self.uploaded)}
        return {"type": "file", "path": self.path, "size": self.size, "xetHash": self.xet_hash, **times}


@dataclass(frozen=True, slots=True)
class BucketFolder:
    """A folder, which exists only as the common prefix of paths; `uploaded` is that of its newest file."""

    path: str
    uploaded: int

    def describe(self) -> dict[str, Any]:
        """Return the folder as the API describes it."""
        return {"type": "directory", "path": self.path, "uploadedAt": iso(self.uploaded)}


@dataclass(frozen=True, slots=True)
class Change:
    """An added or updated file; without a file, a deletion."""

    path: str
    file: BucketFile | None
    operation: str = ""

    def describe(self) -> dict[str, Any]:
        """Return the change as the event feed reports it."""
        known = self.file.describe() if self.file else {}
        known.pop("type", None)
        return {"path": self.path, "op": self.operation, **known}


@dataclass(frozen=True, slots=True)
class Batch:
    """The changes of one request; `sequence` counts the batches of a bucket."""

    sequence: int
    time: int
    changes: tuple[Change, ...]


class BucketFiles:
    """The files of one bucket, in memory and on disk; any thread may read, and one at a time may write.

    Every batch is one line of a log, so a kill leaves either all of it or nothing.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._lock = threading.Lock()
        self._files: dict[str, BucketFile] = {}
        self._paths: list[str] | None = None
        self._batches: list[Batch] = []
        self.sequence: int = 0
        self.updated: int = 0
        self.size: int = 0
        self._load()

    def _load(self) -> None:
        snapshot = self._folder / _SNAPSHOT
        if snapshot.exists():
            known = json.loads(snapshot.read_bytes())
            self.sequence, self.updated = known["sequence"], known["updated"]
            self._files = {each["path"]: BucketFile(**each) for each in known["files"]}
            self.size = sum(file.size for file in self._files.values())
        log = self._folder / _LOG
        if not log.exists():
            return
        whole = 0
        with log.open("r+b") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                batch = _unpack(json.loads(line))
                # A kill between the snapshot and the truncation of the log leaves lines that the snapshot contains.
                if batch.sequence > self.sequence:
                    self._apply(batch)
            file.truncate(whole)
        if len(self._batches) > _KEPT_BATCHES:
            self._fold()

    def _fold(self) -> None:
        files = [asdict(file) for file in self._files.values()]
        known = {"sequence": self.sequence, "updated": self.updated, "files": files}
        self._disk.write(self._folder / _SNAPSHOT, json.dumps(known).encode())
        self._disk.write(self._folder / _LOG, b"")
        # Streams may still need the newest ones.
        del self._batches[:-_KEPT_BATCHES]

    def _apply(self, batch: Batch) -> None:
        for change in batch.changes:
            # A file that is replaced is there all the time: `find` takes no lock.
            old = self._files.get(change.path)
            self.size += (change.file.size if change.file else 0) - (old.size if old else 0)
            if change.file:
                self._files[change.path] = change.file
            else:
                self._files.pop(change.path, None)
        self._paths = None
        self._batches.append(batch)
        self.sequence, self.updated = batch.sequence, batch.time

    def change(self, changes: Sequence[Change]) -> None:
        """Apply changes in order, durably and atomically."""
        now = max(int(time.time() * _MILLISECONDS), self.updated)
        with self._lock:
            known: dict[str, bool] = {}
            dated = []
            for change in changes:
                there = known.get(change.path, change.path in self._files)
                file = replace(change.file, uploaded=now) if change.file else None
                operation = "delete" if file is None else "update" if there else "add"
                known[change.path] = file is not None
                dated.append(Change(change.path, file, operation))
            batch = Batch(self.sequence + 1, now, tuple(dated))
            self._append(batch)
            self._apply(batch)
            if len(self._batches) > 2 * _KEPT_BATCHES:
                self._fold()

    def _append(self, batch: Batch) -> None:
        log = self._folder / _LOG
        size = log.stat().st_size if log.exists() else 0
        try:
            append(log, json.dumps(_pack(batch)).encode() + b"\n")
        except OSError:
            # A partial line would corrupt the next one.
            if log.exists():
                os.truncate(log, size)
            raise

    def find(self, path: str) -> BucketFile | None:
        """Return the file at a path, or None."""
        return self._files.get(path)

    def __len__(self) -> int:
        return len(self._files)

    def since(self, sequence: int) -> list[Batch] | None:
        """Return the batches after the given one; None if the log does not hold it."""
        with self._lock:
            first = self._batches[0].sequence if self._batches else self.sequence + 1
            if not first - 1 <= sequence <= self.sequence:
                return None
            return self._batches[sequence - first + 1 :]

    def sequence_at(self, milliseconds: int) -> int:
        """Return the last batch before a time; -1 if the log does not go back that far."""
        with self._lock:
            at = bisect_left(self._batches, milliseconds, key=lambda batch: batch.time)
            earlier = self._batches[at].sequence - 1 if at < len(self._batches) else self.sequence
            # The changes in a snapshot have no time.
            is_known = at > 0 or not earlier or (not self._batches and milliseconds > self.updated)
            return earlier if is_known else -1

    def listing(
        self, prefix: str, after: str, limit: int, *, recursive: bool
    ) -> tuple[list[BucketFile | BucketFolder], str | None]:
        """Return a page of the entries whose paths start with a prefix, and the cursor of the next page.

        If not recursive, deeper files are represented by the folder one level below the prefix.
        """
        with self._lock:
            if self._paths is None:
                self._paths = sorted(self._files)
            paths = self._paths
            at = max(bisect_left(paths, prefix), bisect_right(paths, after)) if after else bisect_left(paths, prefix)
            found: list[BucketFile | BucketFolder] = []
            while at < len(paths) and paths[at].startswith(prefix):
                if len(found) == limit:
                    return found, after
                path = paths[at]
                rest = path[len(prefix) :]
                # A prefix is plain text: "logs" matches "logs/a" and "logs-2/b".
                start = len(prefix) + (1 if prefix and rest.startswith("/") else 0)
                slash = -1 if recursive else path.find("/", start)
                if slash < 0:
                    found.append(self._files[path])
                    after, at = path, at + 1
                else:
                    after = f"{path[:slash]}/{_LAST}"
                    first, at = at, bisect_right(paths, after)
                    uploaded = max(self._files[each].uploaded for each in paths[first:at])
                    found.append(BucketFolder(path[:slash], uploaded))
            return found, None


def _pack(batch: Batch) -> dict[str, Any]:
    changes = [
        [change.path, change.operation, asdict(change.file) if change.file else None] for change in batch.changes
    ]
    return {"sequence": batch.sequence, "time": batch.time, "changes": changes}


def _unpack(line: dict[str, Any]) -> Batch:
    changes = (Change(path, BucketFile(**file) if file else None, op) for path, op, file in line["changes"])
    return Batch(line["sequence"], line["time"], tuple(changes))
