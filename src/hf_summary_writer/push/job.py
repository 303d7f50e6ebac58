"""The push of one folder to one destination: its changed files, and the record of its uploaded files."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from typing import TYPE_CHECKING, NamedTuple

from hf_summary_writer.checks import BUCKET
from hf_summary_writer.errors import CommitDetails, TemporaryError, UnwrittenError
from hf_summary_writer.folder import (
    STATE_FOLDER,
    CommitRecord,
    FileSnapshot,
    Inventory,
    Lease,
    Ledger,
    LedgerError,
    SkipReason,
    SnapshotReader,
    StateFolder,
    WarnOnce,
    disk,
    push_lock,
)
from hf_summary_writer.hub import Upload, default_endpoint
from hf_summary_writer.notices import counted, logger
from hf_summary_writer.push.report import PushReport
from hf_summary_writer.push.runs import Run, RunsBelow
from hf_summary_writer.push.status import StatusFile, page_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from huggingface_hub import CommitInfo

    from hf_summary_writer.config import Destination, PushConfig
    from hf_summary_writer.folder import ChangedFile, LedgerEntry
    from hf_summary_writer.hub import Remote

# At an interval of five minutes, a run asks once an hour whether the Hub still holds its older files.
_COMMITS_UNTIL_COMPARED = 12
_SECONDS_UNTIL_COMPARED = 3600.0


class JobFile(NamedTuple):
    """A file of a job that may hold something new, its path in the repo, and whether the Hub has refused it before."""

    job: Job
    file: ChangedFile
    path: str
    was_refused: bool


class StagedFile(NamedTuple):
    """A file of a job with the stable content that a batch sends of it, and its path in the repo."""

    job: Job
    snapshot: FileSnapshot
    path: str


class Job:
    """A folder to push.

    Only the thread that pushes calls its methods, except for `flush` and those that leave a note for other processes.
    Any thread may use `inventory` and the properties that describe the folder.

    Args:
        folder: The folder, an absolute path without links.
        config: The destination, the patterns of the files, and the options.
        remote: The end of the destination at the Hub.
        content_lock: Held while content is read, so that a user who holds it can rewrite files in place.
        announces: Whether to announce where the logs can be seen.
        verify: Whether to compare the content of all files with the ledger, even if their times are unchanged.
        names_links: As for `Inventory`.
        runs: The runs in the folder, if it knows better than the states that are left in it.
        lease: The right to push the folder, if not that to push those of writers below as well.

    Attributes:
        asked: Whether this push was requested, as by `trigger`.
        final: Whether it is the last push of the run.
        began: When this push began, on the monotonic clock.
        runs: The runs in the folder, whose states come along with its files.
        is_first: Whether nothing of the folder was uploaded before this push.
        report: Tells the user of the pushes.
        status_file: Tells other processes of a failure or a wait.
        has_lost: Whether logged data did not get into the folder, as far as the last push knows.
        left_behind: The number of files that the latest push could not read.
        owner_above: The folder above whose owner pushes this one as well, as of this push.
        interrupted: Returns whether there is no more time for the push.
    """

    def __init__(
        self,
        folder: Path,
        config: PushConfig,
        remote: Remote,
        *,
        content_lock: AbstractContextManager[object],
        announces: bool = False,
        verify: bool = False,
        names_links: bool = True,
        runs: Run | None = None,
        lease: Lease | None = None,
    ) -> None:
        self.folder = folder
        destination = config.destination
        self.destination: Destination = destination
        self.config = config
        self.remote = remote
        self.content_lock = content_lock
        self.asked = self.final = False
        self.began: float = 0.0
        self.is_first: bool = False
        self.interrupted: Callable[[], bool] = lambda: False
        self.announces = announces
        self._verify = verify
        self.runs: Run | RunsBelow = runs or RunsBelow(folder, config.minutes * 60)
        self._once = WarnOnce()
        self._state = StateFolder(folder / STATE_FOLDER)
        self.ledger: Ledger = Ledger(self._state.path / f"{destination.key}.jsonl", destination)
        self.inventory: Inventory = Inventory(
            folder, config, self.ledger, self._once, verify=verify, names_links=names_links
        )
        self.lease: Lease = lease or Lease(folder, config, waits=False, covers_below=True)
        self.status_file: StatusFile = StatusFile.beside(self.ledger.path)
        self.report: PushReport = PushReport(self)
        self.has_lost: bool = False
        self.left_behind: int = 0
        self._reader: SnapshotReader | None = None
        # How many losses of the repo or branch the ledger knows of. One from before this object may not be in it.
        self._losses = 0
        # Files of commits that were concurrent with those of a process that the push lock does not keep out. The order
        # of the commits is unknown, so the next push uploads these files again.
        self._crossed: set[str] = set()
        # Files that the Hub acknowledged in this push.
        self._confirmed: set[str] = set()
        self._is_flushed = True
        self._is_remembered = False
        # When the ledger was compared with the Hub, on the monotonic clock, and the commits since then.
        self._compared_at = -math.inf
        self._commits = 0
        self.owner_above: Path | None = None
        self._was_left_to_others = False
        self._failed: tuple[ChangedFile, OSError] | None = None
        # The changed files as `has_news` listed them, until the ledger says something else.
        self._found: list[ChangedFile] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self.folder)!r}>"

    @property
    def full_destination(self) -> Destination:
        """The destination, with the full id of the repo once that is known."""
        return dataclasses.replace(self.destination, repo_id=self.remote.repo_id)

    @property
    def url(self) -> str | None:
        """The page of the Hub that shows the files; `None` until the full id of the repo is known."""
        return page_of(self.full_destination, self.config, self.ledger)

    @property
    def sync_command(self) -> str:
        """The command that uploads the rest of the folder, ready to paste into a shell."""
        return self.config.sync_command(self.folder, default_endpoint())

    @property
    def is_abandoned(self) -> bool:
        """Whether the writer is gone, and all that it logged is uploaded or left to another process."""
        return False

    def flush(self) -> bool:
        """Write the logged data to disk; return whether the disk took all of it."""
        return True

    def has_news(self) -> bool:
        """Return whether the folder has new data that this process should push now.

        Raises:
            ActionNeededError: If there is no token.
            TemporaryError: If the folder could not be listed, or logged data cannot be written to the disk.
        """
        self._is_flushed = self.flush()
        if not self._may_look():
            return False
        self.refresh()
        self._check_token()
        if not (self._has_news() or (self._reports and self.ledger.entries)):
            self._check_flushed()
            return False
        return not disk.is_deleted(self.folder) and self._may_push()

    def _may_look(self) -> bool:
        """Return whether this process may look at the folder for something new; claim the right to push it."""
        if self.final:
            # Before the folder is looked at: a writer below that closes later has to push for itself.
            self.lease.release()
        else:
            self.lease.claim(self.remote.repo_id)
        return True

    def _may_push(self) -> bool:
        """Return whether this process may push what is new."""
        return True

    def _check_token(self) -> None:
        # A later process has to know where the folder was to go. The import of the client takes seconds on a network
        # disk, and this one may be killed meanwhile.
        if self.ledger.config is None or not self._is_remembered:
            self._is_remembered = True
            self.remember()
        try:
            self.remote.check_token()
        except Exception:
            self.remember()
            raise

    def refresh(self) -> None:
        """Re-read the ledger, to which other processes write."""
        try:
            if not self.ledger.refresh():
                return
        except LedgerError as error:
            self._once.warn(
                "ledger", f"The upload state of {self.folder} cannot be read: {error}; all files are checked again"
            )
        except OSError as error:
            self._warn_of_state(error)
            return
        self._found = None
        self.ledger.forget(self._crossed)
        if self.ledger.repo_id is not None:
            self.remote.use(self.ledger.repo_id)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other pushes of the folder out.

        Raises:
            FolderBusyError: If another process or thread pushes it.
        """
        with push_lock(self._state) as unusable:
            if unusable is not None:
                # Pushes are safe without the lock, since they only ever repeat; they may then send something twice.
                self._warn_of_state(unusable)
            yield

    def changed(self) -> list[JobFile]:
        """Return the files that may hold something new, those that waited longest first; only while locked.

        A last push tries the files that the Hub refused before once more.

        Raises:
            TemporaryError: If the folder could not be listed.
        """
        self.refresh()
        self._reader = SnapshotReader(
            str(self.folder),
            self._state,
            self._once,
            filter(None, [self.remote.client.secret]),
            verify=self._verify,
        )
        self._failed = None
        self._confirmed.clear()
        self.left_behind = 0
        # From now on a later process knows the destination of this folder, even if this one is killed.
        self._note(lambda: self.ledger.record_config(self.config))
        self.leave_state()
        if self._losses != self.remote.losses:
            self.start_over()
        self.is_first = self.ledger.commit is None and not self.ledger.entries
        refused = self.inventory.forget_refused() if self.final else {}
        found, self._found = self._found, None
        if found is None:
            found = self.inventory.changed()
        place = self.destination.path_in_repo
        return [JobFile(self, each, place(each.relpath), refused.get(each.relpath) == each.signature) for each in found]

    def start_over(self) -> None:
        """Mark all files as not uploaded: the repo or its branch is gone, and may be recreated empty."""
        self._losses = self.remote.losses
        self._found = None
        # Recorded before it is recreated: later on the loss could not be detected.
        self._note(lambda: self.ledger.retract([*self.ledger.entries]))

    def read(self, file: ChangedFile, memory: int) -> FileSnapshot | LedgerEntry | SkipReason:
        """Read one file into something stable.

        Args:
            file: The file.
            memory: Up to how many bytes the content may be returned as `bytes`.

        Raises:
            OSError: If it could not be read or copied.
        """
        if self._reader is None:
            raise RuntimeError("files are read after `changed`")
        return self._reader.take(file, self.ledger.entries.get(file.relpath), memory=memory, last=self.final)

    def upload_of(self, file: StagedFile) -> Upload:
        """Return the upload of a file."""
        snapshot, known = file.snapshot, self.ledger.entries.get(file.snapshot.relpath)
        return Upload(
            file.path,
            snapshot.body,
            snapshot.entry.length,
            known_bytes=known.length if known else 0,
            file_id=snapshot.entry.signature[:2],
            is_intact=snapshot.is_intact,
            is_first=self.is_first,
        )

    def wants_card(self) -> bool:
        """Return whether the next commit should bring the README.md of a repo that was created for this folder."""
        is_repo = self.destination.repo_type != BUCKET
        return is_repo and self.config.model_card and self.ledger.is_new and self.ledger.commit is None

    def states(self, snapshots: Iterable[FileSnapshot] = ()) -> list[Upload]:
        """Return the files with states of runs that come along with files; without any, those with ends of runs.

        `runs` is told once they are published.
        """
        if self.lease.is_held_elsewhere:
            return []  # that process publishes them
        written = {snapshot.relpath: snapshot.entry.signature.written for snapshot in snapshots}
        contents = self.runs.states(written, self.remote.client.secret, final=self.final)
        # An owner above has uploaded the state of this very run.
        is_first = self.is_first and not self._was_left_to_others
        return [
            Upload(self.destination.path_in_repo(name), content, len(content), is_first=is_first)
            for name, content in contents.items()
            if name not in self.ledger.entries  # else the user has a file of that name
        ]

    def record_repo(self, *, is_new: bool) -> None:
        """Note that the repo exists, unless the ledger knows."""
        if self.ledger.repo_id is None:
            self._note(lambda: self.ledger.record_repo(self.remote.repo_id, is_new=is_new))

    def record(self, commit: CommitInfo | None, arrived: Mapping[str, LedgerEntry]) -> None:
        """Record the files of a commit, or the files that the Hub already has if there is no commit."""
        record = None if commit is None else CommitRecord(commit.oid, commit.commit_url, time.time())
        if commit is not None:
            self.runs.told()
            with contextlib.suppress(LedgerError, OSError):
                if self.ledger.refresh():  # another process has recorded something meanwhile
                    self._crossed.update(arrived)
                    self.ledger.forget(self._crossed)
                    arrived = {}
        self._crossed.difference_update(arrived)
        self._confirmed.update(arrived)
        self._note(lambda: self.ledger.record(arrived, record))

    def record_unchanged(self, entries: Mapping[str, LedgerEntry]) -> None:
        """Note new signatures of files whose content has not changed since it was uploaded."""
        self._note(lambda: self.ledger.record(entries))

    def doubt(self, relpaths: Iterable[str]) -> None:
        """Note that a commit with these files was requested and not answered, so that a later process looks again."""
        self._note(lambda: self.ledger.retract(relpaths))

    @property
    def compares(self) -> bool:
        """Whether the ledger is to be compared with the Hub at the end of this push."""
        return self._reports or self._commits >= _COMMITS_UNTIL_COMPARED

    def unconfirmed(self) -> dict[str, LedgerEntry]:
        """Return the uploaded files by path in the repo, except for those that the Hub acknowledged in this push."""
        return {
            self.destination.path_in_repo(relpath): entry
            for relpath, entry in self.ledger.entries.items()
            if relpath not in self._confirmed and self.inventory.holds(relpath)
        }

    def take_back(self, lost: Collection[str]) -> bool:
        """Note which files are no longer on the Hub as they were uploaded; return whether there are any.

        Args:
            lost: Their paths in the repo; everything else is as it was uploaded.
        """
        self._commits = 0
        self._compared_at = time.monotonic()
        gone = [relpath for relpath in self.ledger.entries if self.destination.path_in_repo(relpath) in lost]
        if gone:
            logger.warning(
                "%s of %s: not on the Hub any more as uploaded; uploading again",
                counted(len(gone), "file"),
                self.folder,
            )
            self._note(lambda: self.ledger.retract(gone))
        return bool(gone)

    def announce(self, commit: CommitInfo, snapshots: Iterable[FileSnapshot], seconds: float) -> None:
        """Report a commit."""
        sizes = [snapshot.entry.length for snapshot in snapshots]
        details = CommitDetails(
            self.remote.repo_id, self.folder, commit.oid, commit.commit_url, len(sizes), sum(sizes), seconds
        )
        self._commits += 1
        self.report.committed(details)

    def skip(self, file: ChangedFile, reason: SkipReason) -> None:
        """Note why there is nothing to send of a file."""
        if reason is SkipReason.NO_RECORD:
            self.inventory.set_aside(file.relpath, file.signature)
        elif reason is SkipReason.DENIED:
            said = f"{file.relpath!a} of {self.folder} cannot be read: permission denied; it is uploaded once it can"
            self._once.warn("denied", said, file.relpath)
            self.left_behind += 1
        elif reason is SkipReason.SECRET:
            self.inventory.refuse(file.relpath, file.signature)
            said = f"{file.relpath!a} of {self.folder} holds the access token: it is never uploaded"
            self._once.warn("secret", said, file.relpath, logging.ERROR)
        elif reason is not SkipReason.NO_EVENT:
            self.left_behind += reason in {SkipReason.BUSY, SkipReason.DAMAGED}
            logger.debug("%r waits for a later push: it %s", file.relpath, reason.value)

    def refuse(self, snapshot: FileSnapshot, reason: str) -> None:
        """Note that the Hub does not take a file as it is."""
        self.inventory.refuse(snapshot.relpath, snapshot.entry.signature)
        said = (
            f"{snapshot.relpath!r} of {self.folder} is not uploaded, and is retried when it changes and at exit: "
            f"{reason}"
        )
        self._once.warn("refused", said, snapshot.relpath)

    def could_not_read(self, file: ChangedFile, error: OSError) -> None:
        """Note a file that could not be read or copied."""
        self._failed = self._failed or (file, error)

    def remove_copies(self) -> None:
        """Remove the private copies of the files that were read."""
        if self._reader is not None:
            self._reader.clear()

    def check_complete(self) -> None:
        """Raise an error if the push is incomplete although no request failed.

        Raises:
            TemporaryError: If a file could not be read, or the result of a commit is uncertain.
        """
        if self._failed is not None:
            file, error = self._failed
            raise TemporaryError(f"{file.relpath!r} could not be read or copied: {error}")
        if self.inventory.unread is not None:
            relpath, error = self.inventory.unread
            raise TemporaryError(f"{relpath!r} could not be looked at: {error}")
        if self.final and self._crossed:
            raise TemporaryError("another process pushed this folder at the same time, in spite of its lock")
        self._check_flushed()

    def _check_flushed(self) -> None:
        # Only a push that was asked for has a caller to tell; for others, the log names the error of the disk.
        if self.asked and not self._is_flushed:
            raise UnwrittenError("the disk has not taken all that was logged")

    def remember(self) -> None:
        """Note where the folder is to go and the state of its run, for the process that pushes it."""
        self.refresh()
        with contextlib.suppress(TemporaryError), self.locked():
            self._note(lambda: self.ledger.record_config(self.config))
        self.leave_state()

    def leave_state(self) -> None:
        """Leave the state of a writer's run on the disk, for the process that pushes it."""
        self.runs.leave(self.remote.client.known_secret)

    @property
    def _reports(self) -> bool:
        """Whether all of the folder is taken to be on the Hub after this push."""
        if not self.final or self.asked or self._commits:
            return self.final
        # The comparison that another process, or an earlier pass of the exit, has just made need not be repeated.
        if time.monotonic() - self._compared_at < _SECONDS_UNTIL_COMPARED:
            return False
        commit = self.ledger.commit
        return commit is not None and not 0 <= time.time() - commit.time < _SECONDS_UNTIL_COMPARED

    def _has_news(self) -> bool:
        self._found = None
        if self._losses != self.remote.losses or (self.final and self.inventory.has_refused):
            return True
        self._found = self.inventory.changed()
        # An error of the disk may hide new data, so the push has to find out.
        return self.inventory.are_news(self._found) or self.inventory.unread is not None

    def _note(self, write: Callable[[], None]) -> None:
        """Write to the ledger; after an error of the disk, the change is in memory alone."""
        try:
            write()
        except OSError as error:
            self._warn_of_state(error)

    def _warn_of_state(self, error: Exception) -> None:
        if disk.is_deleted(self.folder):
            return
        # One cause, and one warning: where no lock can be, no ledger can be written, and the other way round.
        self._once.warn(
            "state",
            f"{self._state.path} cannot be used ({error}): uploads continue with the upload state in memory, "
            "so do not upload this folder from another process",
        )
