"""What comes of a push for each of its jobs: the last commit, and what was refused or failed."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_summary_writer.errors import ActionNeededError, PostponedError, PushError
from hf_summary_writer.hub import Published
from hf_summary_writer.push.job import Job

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from huggingface_hub import CommitInfo

    from hf_summary_writer.push.job import StagedFile

__all__ = ["Outcome", "Outcomes", "Refusals"]

# So many files refused in a row, and none accepted, is no matter of single files.
_REFUSED_IN_A_ROW = 5


@dataclass(slots=True)
class Outcome:
    """What came of one job: the last commit that holds files of it, and why it is not complete."""

    commit: CommitInfo | None = None
    error: Exception | None = None


class Outcomes(dict[Job, Outcome]):
    """The outcome of each job of a push."""

    def __missing__(self, job: Job) -> Outcome:
        return self.setdefault(job, Outcome())

    @contextlib.contextmanager
    def guard(self, job: Job) -> Iterator[None]:
        """Assign exceptions in the block to this job."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a bug in one folder's push is no other folder's failure
            self.fail([job], error)

    def fail(self, jobs: Iterable[Job], error: Exception) -> None:
        """Note why jobs are not complete."""
        for job in jobs:
            self[job].error = error
            # Another one for the next: who is handed the same exception may change it or keep its frames.
            error = copy.copy(error) if isinstance(error, (PushError, PostponedError)) else error


class Refusals:
    """The files that the Hub refuses in one push."""

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        self._in_a_row: Counter[Job] = Counter()
        self._accepted: set[Job] = set()

    def note(self, receipt: Published, files: Iterable[StagedFile]) -> None:
        """Tell the jobs of a receipt which of their files the Hub refused."""
        settled = [file for file in files if file.path in receipt.settled]
        self._accepted.update(file.job for file in settled if file.path not in receipt.refused)
        for file in settled:
            if file.path in receipt.refused:
                self._refuse(file, receipt.refused[file.path])

    def of_one(self, file: StagedFile, reason: str) -> Published:
        """Return the receipt of a file that the Hub refused by itself, and tell its job."""
        self._refuse(file, reason)
        return Published(None, frozenset(), frozenset(), frozenset(), frozenset({file.path}), {file.path: reason})

    def _refuse(self, file: StagedFile, reason: str) -> None:
        self._in_a_row[file.job] += 1
        if self._in_a_row[file.job] >= _REFUSED_IN_A_ROW and file.job not in self._accepted:
            self._outcomes.fail([file.job], ActionNeededError(reason))
        else:
            file.job.refuse(file.snapshot, reason)
