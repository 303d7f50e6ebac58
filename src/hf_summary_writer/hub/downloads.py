"""Listing and download of the files of a repo or bucket."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections import deque
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from hf_summary_writer.checks import BUCKET
from hf_summary_writer.errors import PushError
from hf_summary_writer.hub.deadline import HubAnswerError
from hf_summary_writer.hub.responses import REVISION_NOT_FOUND, answer_of, failure_of
from hf_summary_writer.hub.thread import in_time

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator

    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    from hf_summary_writer.config import PushConfig

T = TypeVar("T")

# As the client's own download of a whole repo.
DOWNLOADS = 8

SECONDS = 60.0

# As many as the Hub advises for a repo.
_MOST_FILES = 100_000

# Bytes that a response may have besides those of a file: an error message, or a file that has grown.
MARGIN_BYTES = 2**20


def failed_read(config: PushConfig, error: Exception) -> str:
    """Return why a repo or bucket could not be read, in one line."""
    return f"{config.repo_id} could not be read from {config.endpoint}: {failure_of(error)}"


def missing_place(config: PushConfig, error: Exception) -> str:
    """Return which repo, bucket or revision the Hub does not find; empty if the error says nothing of that."""
    answer = answer_of(error)
    if answer is None or answer.status != 404:
        return ""
    if answer.error_code == REVISION_NOT_FOUND:
        return f"{config.repo_id} has no branch, tag or commit {config.revision!r}"
    return f"{config.repo_id!r} is no {config.repo_type or 'model'} at {config.endpoint} that the token may see"


@contextlib.contextmanager
def as_os_errors(config: PushConfig) -> Iterator[None]:
    """Raise `OSError` for the exceptions of a read that a caller does not expect: ours, and those about odd answers."""
    try:
        yield
    except (HubAnswerError, PushError, JSONDecodeError, KeyError) as error:
        raise OSError(failed_read(config, error)) from error


@contextlib.contextmanager
def download(
    api: HfApi, config: PushConfig, path: str, revision: str | None, start: int = 0
) -> Iterator[Iterator[bytes]]:
    """Yield the bytes of a file from `start` on, in pieces. Call it by `in_time`."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    if config.repo_type == BUCKET:
        url = f"{api.endpoint}/buckets/{config.repo_id}/resolve/{quote(path, safe='')}"
    else:
        url = hf_hub_url(config.repo_id, path, repo_type=config.repo_type, revision=revision, endpoint=api.endpoint)
    headers = build_hf_headers(token=api.token, library_name=api.library_name)
    if start:
        headers["Range"] = f"bytes={start}-"
    with get_session().stream("GET", url, headers=headers, timeout=SECONDS, follow_redirects=True) as answer:
        if answer.is_error:
            answer.read()  # or the client's exception would lack the reason
        hf_raise_for_status(answer)
        pieces = answer.iter_raw()
        yield pieces if answer.status_code == 206 else _from(pieces, start)


def list_files(api: HfApi, config: PushConfig) -> list[str]:
    """Return the paths of the files in the folder that a config names, of the first 100,000; its `repo_id` is full."""
    where = config.path_in_repo or None
    prefix = f"{where}/" if where else ""

    def listed() -> list[str]:
        files: Iterator[Any]
        if config.repo_type == BUCKET:
            entries: Any = api.list_bucket_tree(config.repo_id, prefix=where, recursive=True)
            files = (each for each in entries if each.type == "file")
        else:
            files = repo_files(api, config, config.revision, where)
        return [each.path for each in itertools.islice(files, _MOST_FILES) if each.path.startswith(prefix)]

    return in_time(listed, SECONDS)


def repo_files(api: HfApi, config: PushConfig, revision: str | None, folder: str | None = None) -> Iterator[RepoFile]:
    """Yield the files of a revision of a repo, or of a folder in it. Call it by `in_time`."""
    from huggingface_hub.hf_api import RepoFile

    found = api.list_repo_tree(config.repo_id, folder, recursive=True, revision=revision, repo_type=config.repo_type)
    return (each for each in found if isinstance(each, RepoFile))


def small_files(
    api: HfApi, config: PushConfig, paths: Collection[str], most_bytes: int
) -> Iterator[tuple[str, bytes | Exception]]:
    """Yield each path with the content, up to one byte more than `most_bytes`, or with the error of its download."""

    def read(path: str) -> bytes:
        content = b""
        with download(api, config, path, config.revision) as pieces:
            for piece in pieces:
                content += piece
                if len(content) > most_bytes:
                    break
        return content[: most_bytes + 1]

    return in_threads(
        lambda path: in_time(lambda: read(path), SECONDS, most_bytes + MARGIN_BYTES, downloads=True), paths
    )


def in_threads(
    download: Callable[[str], T], paths: Collection[str]
) -> Generator[tuple[str, T | Exception], None, None]:
    """Yield each path with the result or exception of `download`, as each ends; close the generator to stop early.

    The threads are not those of a pool, which the exit of the interpreter waits for: a Hub may hang.
    """
    waiting = deque(paths)
    done: queue.SimpleQueue[tuple[str, T | Exception]] = queue.SimpleQueue()

    def work() -> None:
        with contextlib.suppress(IndexError):
            while True:
                path = waiting.popleft()
                try:
                    done.put((path, download(path)))
                except Exception as error:  # noqa: BLE001 - the client raises many kinds
                    done.put((path, error))

    try:
        for _ in range(min(DOWNLOADS, len(waiting))):
            threading.Thread(target=work, name="hf-summary-writer-download", daemon=True).start()
        for _ in paths:
            yield done.get()
    finally:
        waiting.clear()


def _from(pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
    """Yield the bytes after the first `start`."""
    for piece in pieces:
        skipped = min(start, len(piece))
        start -= skipped
        if piece[skipped:]:
            yield piece[skipped:]
