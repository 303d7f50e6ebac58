"""One push: the changed files of the folders that share a destination, in as few commits as possible.

The order makes a crash harmless: the ledger is written after the commit and never before, so at worst a file is read
once more, and the Hub's client skips content that the Hub already holds.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from hf_summary_writer.checks import BUCKET, as_unicode
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

# After so many refused files in a row, and none accepted, the cause is not a single file.
_REFUSED_IN_A_ROW = 5


class Round(NamedTuple):
    """The jobs that one push serves.

    Attributes:
        due: Those whose push is due, or becomes due meanwhile.
        due_soon: Those whose push is due soon and is made together with the others.
        others_wait: Returns whether a job that this push does not serve has become due.
    """

    due: Iterator[Job]
    due_soon: Iterator[Job] = iter(())
    others_wait: Callable[[], bool] = lambda: False


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

    def push(self, jobs: Round) -> Outcomes:
        """Upload the changed files of the folders that share the destination.

        An error of the disk fails one job; an error of the Hub fails all jobs that had something to send.
        """
        return _Push(self, jobs).run()

    def push_one(self, job: Job) -> CommitInfo | None:
        """Push one folder; return the last commit, or `None` if there was nothing new.

        Raises:
            PostponedError: If others of the account have their turn first.
            PushError: If something could not be delivered.
        """
        # Not the method of a subclass that calls an override of the user's, which may have called this one.
        outcome = Pusher.push(self, Round(iter([job])))[job]
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


class OverriddenPusher(Pusher):
    """Calls a push of the user's own, for a single folder.

    Args:
        remote: The branch.
        overridden: Pushes the folder; returns its commit.
    """

    def __init__(self, remote: Remote, overridden: Callable[[], CommitInfo | None]) -> None:
        super().__init__(remote)
        self._overridden = overridden

    def push(self, jobs: Round) -> Outcomes:
        outcomes = Outcomes()
        for job in jobs.due:
            with outcomes.guard(job):
                outcomes[job].commit = self._overridden()
        return outcomes


class _Push:
    """One push, from the folders with something new to their ledgers."""

    def __init__(self, pusher: Pusher, jobs: Round) -> None:
        self._pusher = pusher
        self._remote = pusher.remote
        self._queue = pusher.queue
        self._jobs = jobs
        self._outcomes = Outcomes()
        self._batch_began = 0.0
        # Of each job whose files the Hub has all refused so far, their number.
        self._refused_in_a_row: Counter[Job] = Counter()
        self._accepted: set[Job] = set()

    def run(self) -> Outcomes:
        ready = self._with_news()
        if ready:
            try:
                self._queue.wait_turn(final=any(job.final for job in ready))
                with contextlib.ExitStack() as locks:
                    ready = self._locked(ready, locks)
                    self._send_and_compare(ready)
                    self._tell_ends(self._without_error(ready))
            except (PushError, PostponedError) as error:
                self._outcomes.fail(ready, error)
        return self._outcomes

    def _with_news(self) -> list[Job]:
        """Return the jobs that have something to send, those of last pushes first."""
        ready: list[Job] = []

        # Each keeps the file of its lock open until the end. The others are due as soon as these are done.
        most = max(1, most_open_files() // 2)

        def take(some: Iterator[Job]) -> None:
            while len(ready) < most and (job := next(some, None)) is not None:
                with self._outcomes.guard(job):
                    if job.has_news():
                        ready.append(job)

        take(self._jobs.due)
        if ready:
            take(self._jobs.due_soon)
        return sorted(ready, key=lambda job: not job.final)

    def _locked(self, jobs: list[Job], locks: contextlib.ExitStack) -> list[Job]:
        """Take the push locks of jobs; a folder that is pushed already is left to a later round."""
        locked: dict[Path, Job] = {}
        for job in jobs:
            with self._outcomes.guard(job):
                if job.folder in locked:  # no use in waiting for a lock of this very round
                    raise FolderBusyError("another writer of this process is pushing this folder")
                locks.enter_context(job.locked())
                locked[job.folder] = job
        return list(locked.values())

    def _send_and_compare(self, jobs: list[Job]) -> None:
        try:
            self._remote.recheck()
            self._send(jobs)
            lacking = self._compare(self._without_error(jobs))
            if lacking:
                self._send(lacking)
        except BranchGoneError as error:
            logger.warning("Uploading all files of %s again: %s", ", ".join(str(job.folder) for job in jobs), error)
            self._remote.lost_branch()
            self._start_over(jobs)
            self._remote.recheck()
            self._send(jobs)
        except RepoGoneError:
            self._remote.lost_repo()
            self._start_over(jobs)
            raise

    def _start_over(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.start_over()

    def _send(self, jobs: list[Job]) -> None:
        """Send the changed files of jobs, batch by batch, and record what arrived."""
        changed = self._changed(jobs)
        unsent = Counter(file.job for file in changed)
        self._batch_began = time.monotonic()
        found = batches(changed, self._remote.max_files, self._pusher.limits, _interrupted(jobs))
        try:
            with contextlib.closing(found):
                for batch in found:
                    unsent.subtract(file.job for file, _ in batch.unsent)
                    _record_unsent(batch)
                    for receipt in self._publish(batch.staged):
                        settled = [file for file in batch.staged if file.path in receipt.settled]
                        unsent.subtract(file.job for file in settled)
                        self._record(receipt, settled)
                    if self._jobs.others_wait():
                        raise PostponedError("other runs have asked for a push meanwhile")
        except (BranchGoneError, RepoGoneError):
            raise
        except (PushError, PostponedError) as error:
            self._outcomes.fail(self._without_error(+unsent), error)
        for job in self._without_error(jobs):
            with self._outcomes.guard(job):
                job.check_complete()
        committed = [job for job in jobs if self._outcomes[job].commit]
        if any(job.config.squash_history for job in committed):
            self._pusher.squash(committed)

    def _changed(self, jobs: Iterable[Job]) -> list[JobFile]:
        """Return the changed files of all jobs, and at the end those that the Hub refused before."""
        changed: list[JobFile] = []
        for job in jobs:
            with self._outcomes.guard(job):
                changed += job.changed()
        return sorted(changed, key=lambda file: file.was_refused)

    def _publish(self, files: list[StagedFile]) -> Iterator[Published]:
        """Publish files; halve a refused batch until each refused file is alone."""
        waiting = [files] if files else []
        while waiting:
            part = [file for file in waiting.pop() if self._outcomes[file.job].error is None]
            if not part:
                continue
            try:
                for receipt in self._publish_together(part):
                    part = [file for file in part if file.path not in receipt.settled]
                    yield receipt
                    if part and all(file.job.interrupted() for file in part):
                        raise InterruptedPushError("the push was interrupted")
            except RejectedError as error:
                if len(part) > 1:
                    middle = len(part) // 2
                    waiting += [part[middle:], part[:middle]]
                else:
                    path = part[0].path
                    yield Published(settled=frozenset({path}), refused={path: str(error)})
            except PushError as error:
                if error.in_doubt:
                    for job, mine in _by_job(part).items():
                        job.doubt([file.snapshot.relpath for file in mine])
                raise

    def _publish_together(self, files: list[StagedFile]) -> Iterator[Published]:
        jobs = list(_by_job(files))
        is_new = self._remote.ensure()
        for job in jobs:
            job.record_repo(is_new=is_new)
            is_new = False  # one README.md is enough
        yield from self._remote.publish(
            [file.job.upload_of(file) for file in files],
            f"Logs of {_name_of(jobs)}",
            lambda: self._queue.commit(final=any(job.final for job in jobs)),
            _along(files),
        )

    def _record(self, receipt: Published, settled: list[StagedFile]) -> None:
        """Record the files of a receipt in the ledgers of their jobs."""
        seconds = time.monotonic() - self._batch_began
        self._batch_began = time.monotonic()
        for job, files in _by_job(settled).items():
            if any(file.path not in receipt.refused for file in files):
                self._accepted.add(job)
            for file in files:
                if file.path in receipt.refused:
                    self._refuse(file, receipt.refused[file.path])
                elif file.path in receipt.left_out:
                    job.refuse(file.snapshot, f"the .gitignore of {self._remote.repo_id} leaves it out")
            committed = [file.snapshot for file in files if file.path in receipt.committed]
            commit = receipt.commit if committed else None
            arrived = [file for file in files if file.path in receipt.arrived]
            job.record(commit, {file.snapshot.relpath: _entry(file, receipt) for file in arrived})
            if commit is not None:
                self._outcomes[job].commit = commit
                job.announce(commit, committed, seconds)

    def _refuse(self, file: StagedFile, reason: str) -> None:
        self._refused_in_a_row[file.job] += 1
        if self._refused_in_a_row[file.job] >= _REFUSED_IN_A_ROW and file.job not in self._accepted:
            self._outcomes.fail([file.job], ActionNeededError(reason))
        else:
            file.job.refuse(file.snapshot, reason)

    def _compare(self, jobs: list[Job]) -> list[Job]:
        """Compare the ledgers that are due with the branch, and return the jobs that have files to send again."""
        due = {job: job.unconfirmed() for job in jobs if job.compares}
        paths = [path for files in due.values() for path in files]
        there: Mapping[str, RemoteFile] = {}
        try:
            if paths:
                self._remote.ensure()
                there = self._remote.files(paths, _interrupted(due))
        except (BranchGoneError, RepoGoneError):
            raise
        except PushError as error:
            # All data of this push is on the Hub. Only a last push has to report the rest.
            logger.debug("%s could not be compared with %s: %s", _name_of(due), self._remote.repo_id, error)
            self._outcomes.fail((job for job in due if job.final), error)
            return []
        return [
            job
            for job, files in due.items()
            if job.take_back({path for path, entry in files.items() if not is_at(entry, there.get(path))})
        ]

    def _tell_ends(self, jobs: list[Job]) -> None:
        """Publish the ends of runs without other new data, where that needs no commit."""
        jobs = [job for job in jobs if job.destination.repo_type == BUCKET and not job.interrupted()]
        try:
            ends = {job: found for job in jobs if (found := job.states())}
            if ends:
                uploads = [upload for found in ends.values() for upload in found]
                self._remote.publish_small(uploads, lambda: self._queue.commit(final=True))
            for job in ends:
                job.runs.told()
        except Exception:  # all logs are on the Hub, the purpose of a last push
            logger.debug("the ends of %s are not told", _name_of(jobs), exc_info=True)

    def _without_error(self, jobs: Iterable[Job]) -> list[Job]:
        return [job for job in jobs if self._outcomes[job].error is None]


def _interrupted(jobs: Collection[Job]) -> Callable[[], bool]:
    """Return a function that returns whether there is no more time for any of the jobs."""
    return lambda: all(job.interrupted() for job in jobs)


def _record_unsent(batch: Batch) -> None:
    """Record the files of a batch that are not sent."""
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


def _along(files: list[StagedFile]) -> list[Upload]:
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


def _by_job(files: Iterable[StagedFile]) -> dict[Job, list[StagedFile]]:
    found: dict[Job, list[StagedFile]] = {}
    for file in files:
        found.setdefault(file.job, []).append(file)
    return found


def _name_of(jobs: Iterable[Job]) -> str:
    # A folder's name may be invalid text, which no request can carry.
    names = [as_unicode(job.folder.name).encode(errors="replace").decode() for job in jobs]
    return names[0] if len(names) == 1 else f"{len(names)} runs"
