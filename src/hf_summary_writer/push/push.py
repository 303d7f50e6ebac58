"""One push: the changed files of the folders that share a destination, in as few commits as possible.

The order makes a crash harmless: the ledger is written after the commit and never before, so at worst a file is read
once more, and the Hub's client skips content that the Hub already holds.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from hf_summary_writer.checks import as_unicode
from hf_summary_writer.errors import (
    ActionNeededError,
    BranchGoneError,
    FolderBusyError,
    InterruptedPushError,
    PostponedError,
    PushError,
    RejectedError,
    RepoGoneError,
    copy_of,
)
from hf_summary_writer.folder import LedgerEntry, is_event_file, most_open_files
from hf_summary_writer.hub import CARD_PATH, Published, Remote, Upload, model_card
from hf_summary_writer.notices import logger
from hf_summary_writer.push.batches import BatchLimits, batches
from hf_summary_writer.push.budget import commit_queue_of
from hf_summary_writer.push.job import Job, JobFile, StagedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from huggingface_hub import CommitInfo

    from hf_summary_writer.hub import RemoteFile
    from hf_summary_writer.push.batches import Batch
    from hf_summary_writer.push.budget import CommitQueue

__all__ = ["OneJob", "Outcomes", "Pusher", "Round", "is_at"]


# After so many refused files in a row, and none accepted, the cause is not a single file.
_REFUSED_IN_A_ROW = 5


class Round(Protocol):
    """The jobs that one push serves."""

    def due(self) -> Iterator[Job]:
        """Yield the jobs whose push is due, those that become due meanwhile included."""

    def due_soon(self) -> Iterator[Job]:
        """Yield the jobs whose push is due soon and is made together with the others."""

    def others_wait(self) -> bool:
        """Return whether a job that this push does not serve has become due."""


@dataclass(slots=True)
class Outcome:
    """The result of one job: the last commit that holds files of it, and why it is not complete."""

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
            error = copy_of(error)


class Pusher:
    """Pushes folders to one branch. One thread at a time may use it.

    Args:
        remote: The branch.

    Raises:
        ValueError: If the environment variable for the limit of commits is invalid.

    Attributes:
        remote: The same.
        queue: The branch's place in the account's budget of commits.
        limits: The limits of one batch.
    """

    limits: ClassVar[BatchLimits] = BatchLimits()

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.queue: CommitQueue = commit_queue_of(remote)
        self._batch_began = 0.0

    def push(self, jobs: Round) -> Outcomes:
        """Upload the changed files of the folders that share the destination.

        An error of the disk fails one job; an error of the Hub fails all jobs that had something to send.
        """
        outcomes = Outcomes()
        ready = self._with_news(jobs, outcomes)
        if not ready:
            return outcomes
        with contextlib.ExitStack() as locks:
            try:
                self.queue.wait_turn(final=any(job.final for job in ready))
                ready = _locked(ready, locks, outcomes)
                self._send_all(ready, jobs.others_wait, outcomes)
                self._tell_ends([job for job in ready if outcomes[job].error is None])
            except (PushError, PostponedError) as error:
                outcomes.fail(ready, error)
        return outcomes

    def _with_news(self, jobs: Round, outcomes: Outcomes) -> list[Job]:
        """Return the jobs that have something to send, those of last pushes first."""
        ready: list[Job] = []

        # Each keeps the file of its lock open until the end. The others are due as soon as these are done.
        most = max(1, most_open_files() // 2)

        def take(some: Iterator[Job]) -> None:
            while len(ready) < most and (job := next(some, None)) is not None:
                with outcomes.guard(job):
                    if job.has_news():
                        ready.append(job)

        take(jobs.due())
        if ready:
            take(jobs.due_soon())
        return sorted(ready, key=lambda job: not job.final)

    def _send_all(self, jobs: list[Job], others_wait: Callable[[], bool], outcomes: Outcomes) -> None:
        try:
            self.remote.recheck()
            self._send(jobs, others_wait, outcomes)
            lacking = self._compare(jobs, outcomes)
            if lacking:
                self._send(lacking, others_wait, outcomes)
        except BranchGoneError as error:
            logger.warning("Uploading all files of %s again: %s", ", ".join(str(job.folder) for job in jobs), error)
            self.remote.lost_branch()
            self._start_over(jobs)
            self.remote.recheck()
            self._send(jobs, others_wait, outcomes)
        except RepoGoneError:
            self.remote.lost_repo()
            self._start_over(jobs)
            raise

    def _compare(self, jobs: list[Job], outcomes: Outcomes) -> list[Job]:
        """Compare the ledgers that are due with the branch, and return the jobs that have files to send again."""
        due = {job: job.unconfirmed() for job in jobs if job.compares and outcomes[job].error is None}
        paths = [path for files in due.values() for path in files]
        there: Mapping[str, RemoteFile] = {}
        try:
            if paths:
                self.remote.ensure()
                there = self.remote.files(paths, _interrupted(due))
        except (BranchGoneError, RepoGoneError):
            raise
        except PushError as error:
            # All data of this push is on the Hub. Only a last push has to report the rest.
            logger.debug("%s could not be compared with %s: %s", _name_of(due), self.remote.repo_id, error)
            outcomes.fail((job for job in due if job.final), error)
            return []
        return [
            job
            for job, files in due.items()
            if job.take_back({path for path, entry in files.items() if not is_at(entry, there.get(path))})
        ]

    def _start_over(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.start_over()

    def _send(self, jobs: list[Job], others_wait: Callable[[], bool], outcomes: Outcomes) -> None:
        changed = _changed(jobs, outcomes)
        unsent = Counter(file.job for file in changed)
        self._batch_began = time.monotonic()
        found = batches(changed, self.remote.max_files, self.limits, _interrupted(jobs))
        try:
            with contextlib.closing(found):
                for batch in found:
                    unsent.subtract(_settle_unsent(batch))
                    for receipt in self._publish(batch.staged, outcomes):
                        unsent.subtract(self._record(receipt, batch.staged, outcomes))
                    if others_wait():
                        raise PostponedError("other runs have asked for a push meanwhile")
        except (BranchGoneError, RepoGoneError):
            raise
        except (PushError, PostponedError) as error:
            outcomes.fail((job for job in +unsent if outcomes[job].error is None), error)
        for job in jobs:
            if outcomes[job].error is None:
                with outcomes.guard(job):
                    job.check_complete()
        if any(outcomes[job].commit and job.config.squash_history for job in jobs):
            self.squash([job for job in jobs if outcomes[job].commit])

    def _publish(self, files: list[StagedFile], outcomes: Outcomes) -> Iterator[Published]:
        """Publish files; halve a refused batch until each refused file is alone."""
        waiting = [files] if files else []
        refusals = _Refusals(outcomes)
        while waiting:
            part = [file for file in waiting.pop() if outcomes[file.job].error is None]
            if not part:
                continue
            try:
                for receipt in self._publish_together(part):
                    refusals.note(receipt, part)
                    part = [file for file in part if file.path not in receipt.settled]
                    yield receipt
                    if part and all(file.job.interrupted() for file in part):
                        raise InterruptedPushError("the push was interrupted")
            except RejectedError as error:
                if len(part) > 1:
                    middle = len(part) // 2
                    waiting += [part[middle:], part[:middle]]
                else:
                    yield refusals.of_one(part[0], str(error))
            except PushError as error:
                if error.in_doubt:
                    for job, mine in _by_job(part).items():
                        job.doubt([file.snapshot.relpath for file in mine])
                raise

    def _along(self, files: list[StagedFile]) -> list[Upload]:
        """Return the uploads that accompany files: the states of their runs, and the README.md of a new repo."""
        found = {}
        new = next((file.job for file in files if file.job.wants_card()), None)
        if new is not None:
            card = model_card(new.full_destination, holds_logs=any(is_event_file(file.path) for file in files))
            found[CARD_PATH] = Upload(CARD_PATH, card, len(card), only_new=True)
        for job, mine in _by_job(files).items():
            try:
                states = job.states([file.snapshot for file in mine])
            except Exception:  # a program may put anything into `sys.argv`
                logger.debug("the state of %s is left out", job.folder, exc_info=True)
                continue
            found |= {state.path: state for state in states}
        users = {file.path for file in files}
        return [upload for path, upload in found.items() if path not in users]

    def _tell_ends(self, jobs: list[Job]) -> None:
        """Publish the ends of runs without other new data, where that needs no commit."""
        try:
            ends = {job: found for job in jobs if (found := job.ends())}
            if ends:
                uploads = [upload for found in ends.values() for upload in found]
                self.remote.publish_small(uploads, lambda: self.queue.commit(final=True))
            for job in ends:
                job.runs.told()
        except Exception:  # all logs are on the Hub, the purpose of a last push
            logger.debug("the ends of %s are not told", _name_of(jobs), exc_info=True)

    def _publish_together(self, files: list[StagedFile]) -> Iterator[Published]:
        jobs = list(dict.fromkeys(file.job for file in files))
        is_new = self.remote.ensure()
        for job in jobs:
            job.record_repo(is_new=is_new)
            is_new = False  # one README.md is enough

        yield from self.remote.publish(
            [
                Upload(
                    file.path,
                    file.snapshot.body,
                    file.snapshot.entry.length,
                    known_bytes=file.job.known_bytes(file.snapshot),
                    file_id=file.snapshot.entry.signature[:2],
                    is_intact=file.snapshot.is_intact,
                    is_first=file.job.is_first,
                )
                for file in files
            ],
            f"Logs of {_name_of(jobs)}",
            lambda: self.queue.commit(final=any(job.final for job in jobs)),
            self._along(files),
        )

    def _record(self, receipt: Published, files: list[StagedFile], outcomes: Outcomes) -> Counter[Job]:
        """Record the uploaded files in each ledger; return the number of settled files by job."""
        settled = [file for file in files if file.path in receipt.settled]
        seconds = time.monotonic() - self._batch_began
        self._batch_began = time.monotonic()
        for job, mine in _by_job(settled).items():
            committed = [file.snapshot for file in mine if file.path in receipt.committed]
            commit = receipt.commit if committed else None
            for file in mine:
                if file.path in receipt.left_out:
                    job.refuse(file.snapshot, f"the .gitignore of {self.remote.repo_id} leaves it out")
            arrived = [file for file in mine if file.path in receipt.arrived]
            job.record(commit, {file.snapshot.relpath: _entry(file, receipt) for file in arrived})
            if commit is not None:
                outcomes[job].commit = commit
                job.announce(commit, committed, seconds)
        return Counter(file.job for file in settled)

    def push_one(self, job: Job) -> CommitInfo | None:
        """Push one folder; return the last commit, or `None` if there was nothing new.

        Raises:
            PostponedError: If others of the account have their turn first.
            PushError: If something could not be delivered.
        """
        # Not the method of a subclass that calls an override of the user's, which may have called this one.
        outcome = Pusher.push(self, OneJob(job))[job]
        if outcome.error is not None:
            raise outcome.error
        return outcome.commit

    def squash(self, jobs: list[Job]) -> None:
        """Squash the history of the branch; where that fails, the commits still count.

        Raises:
            BranchGoneError: If the branch is gone, and the commits with it.
            RepoGoneError: If the repo is.
        """
        try:
            self.remote.squash(f"Logs of {_name_of(jobs)}")
        except (BranchGoneError, RepoGoneError):
            raise
        except PushError as error:
            logger.warning("The history of %s could not be squashed: %s", self.remote.repo_id, error)


def _entry(file: StagedFile, receipt: Published) -> LedgerEntry:
    entry = file.snapshot.entry
    listed = receipt.listed.get(file.path)
    if listed is None:
        return entry
    sha256, git_oid = listed.sha256 or entry.sha256, listed.git_oid or entry.git_oid
    return entry._replace(sha256=sha256, git_oid=git_oid, xet_hash=listed.xet_hash)


def is_at(entry: LedgerEntry, there: RemoteFile | None) -> bool:
    """Return whether a file on the Hub is, as far as its hashes are known, the one of a ledger's entry."""
    if there is None or there.size != entry.length:
        return False
    # A repo tells one of the first two, a bucket the third.
    hashes = (
        (entry.sha256, there.sha256),
        ("" if there.sha256 else entry.git_oid, there.git_oid),
        (entry.xet_hash, there.xet_hash),
    )
    return all(not ours or not theirs or ours == theirs for ours, theirs in hashes)


class OneJob:
    """The round of a single job."""

    def __init__(self, job: Job) -> None:
        self._jobs = [job]

    def due(self) -> Iterator[Job]:
        while self._jobs:
            yield self._jobs.pop()

    def due_soon(self) -> Iterator[Job]:
        return iter(())

    def others_wait(self) -> bool:
        return False


def _locked(jobs: Iterable[Job], locks: contextlib.ExitStack, outcomes: Outcomes) -> list[Job]:
    """Take the push locks of jobs; a folder that is pushed already is left to a later round."""
    locked: dict[Path, Job] = {}
    for job in jobs:
        with outcomes.guard(job):
            if job.folder in locked:  # no use in waiting for a lock of this very round
                raise FolderBusyError("another writer of this process is pushing this folder")
            locks.enter_context(job.locked())
            locked[job.folder] = job
    return list(locked.values())


def _interrupted(jobs: Collection[Job]) -> Callable[[], bool]:
    """Return a function that returns whether there is no more time for any of the jobs."""
    return lambda: all(job.interrupted() for job in jobs)


def _changed(jobs: Iterable[Job], outcomes: Outcomes) -> list[JobFile]:
    """Return the changed files of all jobs, and at the end those that the Hub refused before."""
    changed: list[JobFile] = []
    for job in jobs:
        with outcomes.guard(job):
            changed += job.changed()
    return sorted(changed, key=lambda file: file.was_refused)


def _settle_unsent(batch: Batch) -> Counter[Job]:
    """Record the files of a batch that are not sent; return their number by job."""
    unchanged: defaultdict[Job, dict[str, LedgerEntry]] = defaultdict(dict)
    for file, found in batch.unsent:
        if isinstance(found, LedgerEntry):
            unchanged[file.job][file.file.relpath] = found
        elif isinstance(found, OSError):
            file.job.could_not_read(file.file, found)
        else:
            file.job.skip(file.file, found)
    for job, entries in unchanged.items():
        job.record_unchanged(entries)
    return Counter(file.job for file, _ in batch.unsent)


def _by_job(files: Iterable[StagedFile]) -> dict[Job, list[StagedFile]]:
    found: dict[Job, list[StagedFile]] = {}
    for file in files:
        found.setdefault(file.job, []).append(file)
    return found


class _Refusals:
    """The files that the Hub refuses in one push."""

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        self._in_a_row: Counter[Job] = Counter()
        self._accepted: set[Job] = set()

    def note(self, receipt: Published, files: Iterable[StagedFile]) -> None:
        """Note which files of a receipt the Hub refused, in their jobs."""
        settled = [file for file in files if file.path in receipt.settled]
        self._accepted.update(file.job for file in settled if file.path not in receipt.refused)
        for file in settled:
            if file.path in receipt.refused:
                self._refuse(file, receipt.refused[file.path])

    def of_one(self, file: StagedFile, reason: str) -> Published:
        """Return the receipt of a file that the Hub refused by itself, and record the refusal in its job."""
        self._refuse(file, reason)
        return Published(settled=frozenset({file.path}), refused={file.path: reason})

    def _refuse(self, file: StagedFile, reason: str) -> None:
        self._in_a_row[file.job] += 1
        if self._in_a_row[file.job] >= _REFUSED_IN_A_ROW and file.job not in self._accepted:
            self._outcomes.fail([file.job], ActionNeededError(reason))
        else:
            file.job.refuse(file.snapshot, reason)


def _name_of(jobs: Iterable[Job]) -> str:
    # A folder's name may be invalid text, which no request can carry.
    names = [as_unicode(job.folder.name).encode(errors="replace").decode() for job in jobs]
    return names[0] if len(names) == 1 else f"{len(names)} runs"
