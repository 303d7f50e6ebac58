"""The batches of a push: the files of one commit each, with stable content."""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hf_summary_writer.errors import InterruptedPushError
from hf_summary_writer.folder import FileSnapshot, most_open_files
from hf_summary_writer.push.job import StagedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from hf_summary_writer.folder import LedgerEntry, SkipReason
    from hf_summary_writer.push.job import JobFile


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The limits of one batch, besides the number of files, which depends on the remote.

    Attributes:
        bytes: The size at which a batch is full. It bounds the cost of a failed commit, and how long a commit takes.
        bytes_in_memory: Up to this sum files are handed over as `bytes`, beyond it from private copies on disk.
        files_read: The most files that are read. It bounds how long a folder's lock is held for files that have nothing
            to send.
    """

    bytes: int = 2**30
    bytes_in_memory: int = 32 * 2**20
    files_read: int = 1000


@dataclass(slots=True)
class Batch:
    """The files of one commit, and the files that were read and have nothing to send.

    Attributes:
        max_files: The most files that the remote accepts in one commit.
        limits: The other limits of the batch.
        staged: The files to send.
        unsent: The other files: those that the Hub holds already, with a new entry for the ledger, those that have
            nothing to send, and why, and those that could not be read or copied.
    """

    max_files: int
    limits: BatchLimits
    staged: list[StagedFile] = field(default_factory=list)
    unsent: list[tuple[JobFile, LedgerEntry | SkipReason | OSError]] = field(default_factory=list)
    _paths: set[str] = field(default_factory=set)
    _bytes: int = 0
    _in_memory: int = 0
    _most_open: int = field(default_factory=most_open_files)
    _open: int = 0

    def takes(self, file: JobFile) -> bool:
        """Return whether a commit should take one more file, and can take this one."""
        return (
            len(self.staged) < self.max_files
            and self._bytes < self.limits.bytes
            and self._open < self._most_open
            and len(self._paths) < self.limits.files_read
            and file.path not in self._paths
        )

    def add(self, file: JobFile) -> None:
        """Read a file."""
        self._paths.add(file.path)
        found: FileSnapshot | LedgerEntry | SkipReason | OSError
        try:
            found = file.job.read(file.file, self.limits.bytes_in_memory - self._in_memory)
        except OSError as error:
            found = error
        if isinstance(found, FileSnapshot):
            self.staged.append(StagedFile(file.job, found, file.path))
            self._in_memory += found.in_memory
            self._bytes += found.entry.length
            self._open += not isinstance(found.body, bytes)
        else:
            self.unsent.append((file, found))


def batches(
    changed: Iterable[JobFile], max_files: int, limits: BatchLimits, interrupted: Callable[[], bool]
) -> Generator[Batch, None, None]:
    """Yield batches of files with stable content, until all are read; the caller sends one before it asks for the next.

    The lock of a job is held while its files of one batch are read. Two files that go to the same path of the repo are
    in different batches. The private copies of a batch are removed when the next one is asked for, or the generator is
    closed: those of all batches would take as much of the disk as the folder.

    Raises:
        InterruptedPushError: If there is no more time.
    """
    waiting = deque(changed)
    while waiting:
        batch = Batch(max_files, limits)
        with contextlib.ExitStack() as copies:
            while waiting and batch.takes(waiting[0]):
                job = waiting[0].job
                copies.callback(job.remove_copies)
                with job.content_lock:
                    while waiting and waiting[0].job is job and batch.takes(waiting[0]):
                        if interrupted():
                            raise InterruptedPushError("the push was interrupted")
                        batch.add(waiting.popleft())
            yield batch
