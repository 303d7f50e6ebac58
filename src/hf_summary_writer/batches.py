"""Reads changed files in turn into batches, each of them what one commit can take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hf_summary_writer.arrival import Arrival
from hf_summary_writer.errors import InterruptedPushError
from hf_summary_writer.snapshot import Content, Nothing

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterable, Iterator

    from hf_summary_writer.scan import Candidate

__all__ = ["MAX_FILES_PER_COMMIT", "MAX_POSTED_BYTES_PER_COMMIT", "Batch", "batches"]

# The Hub advises under 100 files per commit.
MAX_FILES_PER_COMMIT = 100
# Bounds what one failed commit costs, and how long a commit takes.
MAX_BYTES_PER_COMMIT = 2**30
# Text travels within the request for the commit, of which the client holds several copies, and on a slow line a large
# one would never come to its end. A single file may be larger: the Hub takes up to 10 MB in this way.
MAX_POSTED_BYTES_PER_COMMIT = 8 * 2**20
# Content is handed over as bytes up to this sum, and from private copies on disk beyond it.
MAX_BYTES_IN_MEMORY = 32 * 2**20
# Bounds how long the lock is held over files of which nothing is to be sent.
MAX_FILES_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit takes, and what was learned on the way of files that it does not take.

    Attributes:
        contents: What to commit; may be empty.
        arrived: What the Hub holds already, with a new signature, by relative path.
        nothing: Why there is nothing to send of other files.
        failed: What went wrong with reading or copying others.
    """

    contents: list[Content] = field(default_factory=list)
    arrived: dict[str, Arrival] = field(default_factory=dict)
    nothing: dict[Candidate, Nothing] = field(default_factory=dict)
    failed: dict[Candidate, OSError] = field(default_factory=dict)

    @property
    def looked_at(self) -> int:
        """How many files were looked at."""
        return len(self.contents) + len(self.arrived) + len(self.nothing) + len(self.failed)


def batches(
    candidates: Iterable[Candidate],
    take: Callable[[Candidate, int], Content | Arrival | Nothing],
    lock: contextlib.AbstractContextManager[object],
    interrupted: Callable[[], bool],
) -> Iterator[Batch]:
    """Yield batches until all candidates are read. What was yielded must be sent before the next one is asked for.

    Args:
        candidates: The files.
        take: Reads one of them; is told up to how many bytes it may return as `bytes`.
        lock: Held while a batch is read.
        interrupted: Asked before every file.

    Raises:
        InterruptedPushError: If there was an interruption.
    """
    remaining = iter(candidates)
    while True:
        with lock:
            batch = _read(remaining, take, interrupted)
        if not batch.looked_at:
            return
        yield batch


def _read(
    remaining: Iterator[Candidate],
    take: Callable[[Candidate, int], Content | Arrival | Nothing],
    interrupted: Callable[[], bool],
) -> Batch:
    batch = Batch()
    memory, size = MAX_BYTES_IN_MEMORY, 0
    for candidate in remaining:
        if interrupted():
            raise InterruptedPushError("the push was interrupted")
        try:
            taken = take(candidate, memory)
        except OSError as error:
            batch.failed[candidate] = error
            continue
        if isinstance(taken, Content):
            batch.contents.append(taken)
            memory -= taken.in_memory
            size += taken.arrival.length
        elif isinstance(taken, Arrival):
            batch.arrived[candidate.relpath] = taken
        else:
            batch.nothing[candidate] = taken
        if (
            len(batch.contents) == MAX_FILES_PER_COMMIT
            or size >= MAX_BYTES_PER_COMMIT
            or batch.looked_at >= MAX_FILES_LOOKED_AT
        ):
            break
    return batch
