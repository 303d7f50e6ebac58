"""Progress bars of uploads and downloads: bytes, files, rate and time left, on a terminal only."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from hf_summary_writer.notices import counted
from hf_summary_writer.push import inspect_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from huggingface_hub import CommitOperationAdd, HfApi

    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.errors import CommitDetails

__all__ = ["Bar", "UploadProgress", "are_bars_wanted", "bar", "download_progress"]

_OFF = frozenset({"1", "ON", "YES", "TRUE"})


def are_bars_wanted() -> bool:
    """Return whether standard error is a terminal that can show bars, and they are not switched off."""
    switched_off = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "").upper() in _OFF
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not switched_off


class Bar:
    """A progress bar; thread-safe.

    Args:
        total_bytes: The bytes to transfer.
        total_files: The files to transfer.
        label: The name of the folder or repo.
    """

    def __init__(self, total_bytes: int, total_files: int, label: str) -> None:
        from tqdm import tqdm

        self._total_bytes, self._total_files = total_bytes, total_files
        self._done_files = 0
        self._lock = threading.Lock()
        self._tqdm = tqdm(
            total=total_bytes, desc=label, unit="B", unit_scale=True, file=sys.stderr, leave=False, dynamic_ncols=True
        )
        self.advance()

    def advance(self, *, to_bytes: float = 0.0, files_done: int = 0) -> None:
        """Show that so many bytes, in all, and so many more files are done."""
        with self._lock:
            self._done_files += files_done
            self._tqdm.update(max(0.0, min(to_bytes, self._total_bytes) - self._tqdm.n))
            self._tqdm.set_postfix_str(f"{self._done_files} of {counted(self._total_files, 'file')}")

    def close(self) -> None:
        """Take the bar away."""
        self._tqdm.close()


@contextlib.contextmanager
def bar(total_bytes: int, total_files: int, label: str) -> Iterator[Bar | None]:
    """Show a bar during a block if there is something to transfer and it can be shown."""
    if not (total_files and are_bars_wanted()):
        yield None
        return
    shown = Bar(total_bytes, total_files, label)
    try:
        yield shown
    finally:
        shown.close()


@contextlib.contextmanager
def download_progress(label: str) -> Iterator[Callable[[int, int], Callable[[int], None]]]:
    """Give a function for `Mirror.refresh` that shows a bar until the end of the block."""
    with contextlib.ExitStack() as stack:

        def begin(files: int, size: int) -> Callable[[int], None]:
            shown = stack.enter_context(bar(size, files, label))
            done = 0

            def advance(size: int) -> None:
                nonlocal done
                done += size
                if shown is not None:
                    shown.advance(to_bytes=done, files_done=1)

            return advance

        yield begin


class UploadProgress:
    """The progress of one upload, from the reports of its client and its commits.

    Args:
        client: The client that makes the upload, and no other.
    """

    def __init__(self, client: HfApi) -> None:
        self.client = client
        self._bar: Bar | None = None
        self._lacking: dict[str, tuple[int, int]] = {}
        self._sent: dict[str, int] = {}
        self._committed = 0
        _report_uploads(self.client, self._note)

    @contextlib.contextmanager
    def shown(self, folder: Path, config: PushConfig) -> Iterator[None]:
        """Show a bar during the upload of the files of a folder that the Hub lacks, if there can be bars."""
        missing = inspect_folder(folder, config, quiet=True).missing if are_bars_wanted() else []
        for each in missing:
            with contextlib.suppress(OSError):
                self._lacking[each.path_in_repo] = each.bytes, max(1, (folder / each.path).stat().st_size)
        total = sum(each.bytes for each in missing)
        with bar(total, len(missing), folder.name) as self._bar:
            yield

    def committed(self, commit: CommitDetails) -> None:
        """Note a commit."""
        self._committed += commit.bytes
        if self._bar is not None:
            self._bar.advance(to_bytes=self._bytes(), files_done=commit.files)

    def _note(self, path: str, length: int) -> None:
        self._sent[path] = max(self._sent.get(path, 0), length)
        if self._bar is not None:
            self._bar.advance(to_bytes=self._bytes())

    def _bytes(self) -> float:
        # The client is given the whole of a file that has grown, and transfers only the part missing on the Hub.
        sent = (
            lacking * min(1.0, self._sent.get(path, 0) / length) for path, (lacking, length) in self._lacking.items()
        )
        return max(sum(sent), self._committed)


def _report_uploads(client: HfApi, report: Any) -> None:
    """Have a client report the path and the size of every file, or part of a file, that it has uploaded."""
    upload = client.preupload_lfs_files
    parts: dict[str, int] = {}

    def reporting(repo_id: str, additions: Iterable[CommitOperationAdd], **options: Any) -> None:
        several = list(additions)
        upload(repo_id=repo_id, additions=several, **options)
        for addition in several:
            # The client is given a large file in parts first, and then whole.
            path = addition.path_in_repo
            parts[path] = parts.get(path, 0) + addition.upload_info.size
            report(path, parts[path])

    client.preupload_lfs_files = reporting  # type: ignore[method-assign]
