"""Progress bars of uploads and downloads: bytes, files, rate and time left, on a terminal only."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants

from hf_summary_writer.notices import counted
from hf_summary_writer.push import inspect_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from huggingface_hub import CommitOperationAdd, HfApi

    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.errors import CommitDetails


def are_bars_wanted() -> bool:
    """Return whether standard error is a terminal that can show bars, and they are not switched off."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return is_terminal and not constants.HF_HUB_DISABLE_PROGRESS_BARS


@contextlib.contextmanager
def _bar(total_bytes: int, total_files: int, label: str) -> Iterator[Callable[[float, int], None]]:
    """Show a bar during a block if there is something to transfer and it can be shown.

    Yields:
        A function for any thread that shows how many bytes and files are done.
    """
    if not (total_files and are_bars_wanted()):
        yield lambda _bytes, _files: None
        return
    from tqdm import tqdm

    lock = threading.Lock()
    with tqdm(
        total=total_bytes, desc=label, unit="B", unit_scale=True, file=sys.stderr, leave=False, dynamic_ncols=True
    ) as shown:

        def show(done_bytes: float, done_files: int) -> None:
            with lock:
                shown.update(max(0.0, min(done_bytes, total_bytes) - shown.n))
                shown.set_postfix_str(f"{done_files} of {counted(total_files, 'file')}")

        show(0, 0)
        yield show


@contextlib.contextmanager
def download_progress(label: str) -> Iterator[Callable[[int, int], Callable[[int], None]]]:
    """Give a function for `Mirror.refresh` that shows a bar until the end of the block."""
    with contextlib.ExitStack() as stack:

        def begin(files: int, size: int) -> Callable[[int], None]:
            show = stack.enter_context(_bar(size, files, label))
            done_bytes = done_files = 0

            def advance(size: int) -> None:
                nonlocal done_bytes, done_files
                done_bytes += size
                done_files += 1
                show(done_bytes, done_files)

            return advance

        yield begin


class UploadProgress:
    """The progress of one upload, from the reports of its client and its commits.

    Args:
        client: The client that makes the upload, and no other.
    """

    def __init__(self, client: HfApi) -> None:
        self.client = client
        self._show: Callable[[float, int], None] = lambda _bytes, _files: None
        self._lacking: dict[str, tuple[int, int]] = {}
        self._sent: dict[str, int] = {}
        self._committed_bytes = self._committed_files = 0
        self._report_uploads()

    @contextlib.contextmanager
    def shown(self, folder: Path, config: PushConfig) -> Iterator[None]:
        """Show a bar during the upload of the files of a folder that the Hub lacks, if there can be bars."""
        missing = inspect_folder(folder, config, quiet=True).missing if are_bars_wanted() else []
        for each in missing:
            with contextlib.suppress(OSError):
                self._lacking[each.path_in_repo] = each.bytes, max(1, (folder / each.path).stat().st_size)
        with _bar(sum(each.bytes for each in missing), len(missing), folder.name) as self._show:
            yield

    def committed(self, commit: CommitDetails) -> None:
        """Note a commit."""
        self._committed_bytes += commit.bytes
        self._committed_files += commit.files
        self._update()

    def _update(self) -> None:
        # The client is given the whole of a file that has grown, and transfers only the part missing on the Hub.
        sent = sum(
            lacking * min(1.0, self._sent.get(path, 0) / length) for path, (lacking, length) in self._lacking.items()
        )
        self._show(max(sent, self._committed_bytes), self._committed_files)

    def _report_uploads(self) -> None:
        """Have the client report the size of every file, or part of a file, that it has uploaded."""
        upload = self.client.preupload_lfs_files

        def reporting(repo_id: str, additions: Iterable[CommitOperationAdd], **options: Any) -> None:
            several = list(additions)
            upload(repo_id=repo_id, additions=several, **options)
            for addition in several:
                # The client is given a large file in parts first, and then whole.
                path = addition.path_in_repo
                self._sent[path] = self._sent.get(path, 0) + addition.upload_info.size
            self._update()

        self.client.preupload_lfs_files = reporting  # type: ignore[method-assign]
