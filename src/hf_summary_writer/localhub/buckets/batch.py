"""Batches of additions, copies and deletions; each operation can fail on its own."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hf_summary_writer.localhub.bodies import parse_json
from hf_summary_writer.localhub.buckets.files import BucketFile, Change
from hf_summary_writer.localhub.errors import BadRequestError, HubError
from hf_summary_writer.localhub.lfs import SHA256

if TYPE_CHECKING:
    from collections.abc import Callable

    from hf_summary_writer.localhub.buckets.files import BucketFiles

MAX_OPERATIONS = 1000
# Room for paths and names of that many operations.
MAX_BATCH_BYTES = 16 * 1024 * 1024

_MAX_PATH_BYTES = 1024
_MAX_TYPE_CHARACTERS = 256
# The Xet hash of an empty file, which hf_xet does not upload.
_EMPTY = "0" * 64
# A time before 1973 in milliseconds is a current time in seconds, which some clients send.
_LEAST_MILLISECONDS = 10**11


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a batch: the changes to apply, and the failed operations with their reasons."""

    processed: int
    changes: list[Change] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        """Return the body of the answer."""
        counts = {"processed": self.processed, "succeeded": len(self.changes)}
        return {"success": not self.failed, **counts, "failed": self.failed}

    @property
    def status(self) -> int:
        """Return the status of the answer: a batch of which a part failed is still a success."""
        return 422 if self.failed and not self.changes else 200


def read_batch(body: bytes) -> list[dict[str, Any]]:
    """Return the operations of a request, which are JSON objects, one a line."""
    operations = [parse_json(line, "A line of the batch") for line in body.splitlines() if line.strip()]
    if len(operations) > MAX_OPERATIONS:
        raise BadRequestError(f"A batch takes at most {MAX_OPERATIONS} operations; these are {len(operations)}.")
    if not all(isinstance(operation, dict) for operation in operations):
        raise BadRequestError("A line of the batch is no object.")
    return operations


def judge_batch(
    operations: list[dict[str, Any]], files: BucketFiles, size_of: Callable[[dict[str, Any]], int]
) -> Outcome:
    """Return the result of a batch.

    Args:
        operations: the operations.
        files: the files as they are.
        size_of: adds the content that an operation names to the bucket and returns its size; raises `HubError` if
            the caller cannot read such content.
    """
    outcome = Outcome(len(operations))
    # The paths that earlier operations of the batch added (True) or deleted (False).
    there: dict[str, bool] = {}
    for operation in operations:
        path = operation.get("path")
        try:
            change = _change(operation, _checked(path), size_of)
            if change.file is None and not there.get(change.path, files.find(change.path) is not None):
                raise HubError(404, "There is no such file.")
        except HubError as error:
            outcome.failed.append({"path": str(path), "error": error.message})
        else:
            there[change.path] = change.file is not None
            outcome.changes.append(change)
    return outcome


def _checked(path: object) -> str:
    if not isinstance(path, str) or not path:
        raise BadRequestError("The operation has no path.")
    parts = path.split("/")
    if "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise BadRequestError("A path has no backslash, and no part that is empty, '.' or '..'.")
    if len(path.encode()) > _MAX_PATH_BYTES:
        raise BadRequestError(f"A path has at most {_MAX_PATH_BYTES} bytes.")
    return path


def _change(operation: dict[str, Any], path: str, size_of: Callable[[dict[str, Any]], int]) -> Change:
    kind = operation.get("type")
    if kind == "deleteFile":
        return Change(path, None)
    if kind not in ("addFile", "copyFile"):
        raise BadRequestError(f"There is no operation {kind!r}.")
    xet_hash, content_type = operation.get("xetHash"), operation.get("contentType")
    if not isinstance(xet_hash, str) or not SHA256.fullmatch(xet_hash):
        raise BadRequestError("The xetHash of a file is 64 hexadecimal digits.")
    if not isinstance(content_type, str) or len(content_type) > _MAX_TYPE_CHARACTERS:
        content_type = None
    size = 0 if xet_hash == _EMPTY else size_of(operation)
    return Change(path, BucketFile(path, xet_hash, size, _mtime(operation.get("mtime")), 0, content_type))


def _mtime(value: object) -> int:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 10**15:
        return int(time.time() * 1000)
    return int(value if value >= _LEAST_MILLISECONDS else value * 1000)
