"""The operations of a commit request; all are checked before the first one is applied."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from hf_summary_writer.localhub.attributes import LARGE_BYTES
from hf_summary_writer.localhub.bodies import parse_json
from hf_summary_writer.localhub.cards import check_card
from hf_summary_writer.localhub.errors import BadRequestError, HubError
from hf_summary_writer.localhub.lfs import MAX_FILE_BYTES, SHA256, Pointer, parse_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hf_summary_writer.localhub.lfs import LfsStore
    from hf_summary_writer.localhub.trees import TreeEditor

MAX_COMMIT_BYTES = 1024**3
MAX_OPERATIONS = 25_000
# Room for a file of `LARGE_BYTES` in base64, and the JSON around it.
_MAX_LINE_BYTES = LARGE_BYTES * 4 // 3 + 64 * 1024
_MAX_PATH_BYTES = 4096
_MAX_NAME_BYTES = 255
# Tools that read trees recursively have a limited stack.
_MAX_DEPTH = 200


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """A checked commit request: the fields of its header, and the body with its operations."""

    message: str
    parent: str | None
    body: IO[bytes] = field(repr=False)
    lfs: LfsStore = field(repr=False)

    def apply(self, tree: TreeEditor) -> None:
        """Apply the operations in order."""
        for key, value in _lines(self.body):
            path = value.get("path", "")
            if key == "file":
                tree.write(path, _content(value))
            elif key == "lfsFile":
                tree.write(path, _pointer(value, self.lfs).encode())
            elif key == "deletedFile":
                tree.delete(path)
            elif key == "deletedFolder":
                tree.delete(path.rstrip("/"), folder=True)


def read_commit(body: IO[bytes], lfs: LfsStore) -> CommitRequest:
    """Check a whole commit request; its large files must be uploaded, with the sizes that their pointers state."""
    header: dict[str, Any] | None = None
    for number, (key, value) in enumerate(_lines(body)):
        if number > MAX_OPERATIONS:
            raise BadRequestError(f"A commit takes at most {MAX_OPERATIONS} operations.")
        if (number == 0) != (key == "header"):
            raise BadRequestError("The first line of a commit, and no other, is its header.")
        if key == "header":
            header = value
        else:
            _check_operation(key, value, lfs)
    if header is None:
        raise BadRequestError("The commit has no header.")
    summary, description, parent = header.get("summary"), header.get("description") or "", header.get("parentCommit")
    if not isinstance(summary, str) or not summary.strip() or not isinstance(description, str):
        raise BadRequestError("The header of the commit needs a summary, and a description that is text.")
    if parent is not None and not isinstance(parent, str):
        raise BadRequestError("The parentCommit of the commit must be text.")
    return CommitRequest(f"{summary}\n\n{description}".strip(), parent, body, lfs)


def _lines(body: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    body.seek(0)
    while line := body.readline(_MAX_LINE_BYTES + 1):
        if len(line) > _MAX_LINE_BYTES:
            raise HubError(413, f"A file over {LARGE_BYTES} bytes must be uploaded as a large file, by LFS or Xet.")
        if not line.strip():
            continue
        item = parse_json(line, "A line of the commit")
        if not isinstance(item, dict) or not isinstance(item.get("value"), dict):
            raise BadRequestError("A line of the commit is no object with a key and a value.")
        yield str(item.get("key")), item["value"]


def _check_operation(key: str, value: dict[str, Any], lfs: LfsStore) -> None:
    path = value.get("path")
    if not isinstance(path, str):
        raise BadRequestError(f"A {key} of the commit has no path.")
    check_path(path.rstrip("/") if key == "deletedFolder" else path)
    if key == "file":
        content = _content(value)
        if len(content) > LARGE_BYTES:
            raise HubError(413, f"{path} is over {LARGE_BYTES} bytes: upload it as a large file, by LFS or Xet.")
        if path == "README.md":
            _check_readme(content)
        if pointer := parse_pointer(content):
            _check_arrived(path, pointer, lfs)
    elif key == "lfsFile":
        _check_arrived(path, _pointer(value, lfs), lfs)
    elif key not in ("deletedFile", "deletedFolder"):
        raise BadRequestError(f"There is no commit operation {key!r}.")


def _check_readme(content: bytes) -> None:
    try:
        _, errors = check_card(content.decode())
    except UnicodeDecodeError as error:
        raise BadRequestError("README.md is not UTF-8.") from error
    if errors:
        raise BadRequestError(f"Invalid metadata in README.md. {' '.join(errors)}")


def _check_arrived(path: str, pointer: Pointer, lfs: LfsStore) -> None:
    stored = lfs.find(pointer.oid)
    if stored is None:
        raise BadRequestError(f"The large file {pointer.oid} for {path} was never uploaded to this repo.")
    if stored.size != pointer.size:
        raise BadRequestError(f"The large file for {path} has {stored.size} bytes, not {pointer.size}.")


def check_path(path: str) -> None:
    """Reject an invalid path of a file."""
    if "\\" in path:
        raise HubError(422, f"The path {path!r} has a backslash: use / between folders.")
    try:
        raw = path.encode()
    except UnicodeEncodeError as error:
        raise BadRequestError(f"The path {path!r} is not Unicode.") from error
    parts = path.split("/")
    if "" in parts or "\0" in path or any(part in (".", "..") or part.lower() == ".git" for part in parts):
        raise BadRequestError(f"The path {path!r} has a part that is empty, '.', '..' or '.git'.")
    if len(raw) > _MAX_PATH_BYTES or any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
        raise BadRequestError(
            f"A name in the path {path[:80]!r}… is over {_MAX_NAME_BYTES} bytes, or the path too long."
        )
    if len(parts) > _MAX_DEPTH:
        raise BadRequestError(f"The path {path[:80]!r}… is more than {_MAX_DEPTH} folders deep.")


def _content(value: dict[str, Any]) -> bytes:
    content = value.get("content")
    if not isinstance(content, str):
        raise BadRequestError("The content of a file must be text.")
    if value.get("encoding", "utf-8") != "base64":
        return content.encode()
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError(f"The content of a file is not base64: {error}") from error


def _pointer(value: dict[str, Any], lfs: LfsStore) -> Pointer:
    oid, size = value.get("oid"), value.get("size")
    if value.get("algo") != "sha256" or not isinstance(oid, str) or not SHA256.fullmatch(oid):
        raise BadRequestError("A large file is named by its sha256, 64 hexadecimal digits.")
    if size is None:
        # Clients send no size for a copy of an existing file.
        stored = lfs.find(oid)
        size = stored.size if stored else 0
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_FILE_BYTES:
        raise BadRequestError("The size of a large file is a number of bytes.")
    return Pointer(oid, size)
