"""One push: what changed in a folder goes into commits, and what arrived goes into the ledger.

The order is what makes a crash harmless. The ledger is written after the commit and never before, so at worst a file
is looked at once more, and the Hub's client drops what is already there.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hf_summary_writer import snapshot
from hf_summary_writer.details import CommitDetails
from hf_summary_writer.errors import ActionNeededError, RejectedError, TemporaryError
from hf_summary_writer.folder_lock import LockUnavailableError, folder_lock
from hf_summary_writer.ledger import STATE_FOLDER, Arrival, CommitRecord, Ledger, LedgerError, Settings
from hf_summary_writer.patterns import PathFilter
from hf_summary_writer.snapshot import Candidate, ClosedSegments, Content, Nothing, Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from huggingface_hub import CommitInfo

    from hf_summary_writer.attempt import Caller
    from hf_summary_writer.destination import Destination
    from hf_summary_writer.hub import Committed, Hub
    from hf_summary_writer.ledger import Signature

__all__ = ["Pending", "Pusher"]

T = TypeVar("T")

logger = logging.getLogger("hf_summary_writer")

# The Hub advises under 100 files per commit.
MAX_FILES_PER_COMMIT = 100
# Bounds what one failed commit costs, and how long a commit takes.
MAX_BYTES_PER_COMMIT = 2**30
# Content is handed over as bytes up to this sum, and from private copies on disk beyond it.
MAX_BYTES_IN_MEMORY = 32 * 2**20
# A call to the Hub may take this long, and longer by the time its upload takes on a slow line.
CALL_SECONDS = 120.0
SLOW_LINE_BYTES_PER_SECOND = 128 * 1024
# So many files refused in a row, and none accepted, is no matter of single files.
_REFUSED_IN_A_ROW = 5


@dataclass(frozen=True, slots=True)
class Pending:
    """What the Hub does not hold yet: files, bytes, and when the oldest was last written (seconds since the epoch)."""

    files: int = 0
    bytes: int = 0
    oldest: float | None = None


class Pusher:
    """Brings one folder to one destination.

    Not thread-safe: its owner pushes from one thread at a time. Several pushers on one folder, in this process or in
    others, take turns.

    Args:
        folder: The folder, an absolute path without links.
        destination: Where it goes.
        settings: Which files of it, and how.
        hub: The branch it goes to.
        caller: Runs what talks to the Hub.
        content_lock: Held while content is read, so that a user who holds it can rewrite files in place.
        on_commit: Told of every commit.
    """

    def __init__(
        self,
        folder: Path,
        destination: Destination,
        settings: Settings,
        hub: Hub,
        caller: Caller,
        content_lock: contextlib.AbstractContextManager[object],
        on_commit: Callable[[CommitDetails], None],
    ) -> None:
        """Look at nothing yet."""
        self.folder = folder
        self.destination = destination
        self._settings = settings
        self._meant = PathFilter(settings.allow, settings.ignore)
        self._hub = hub
        self._caller = caller
        self._content_lock = content_lock
        self._on_commit = on_commit
        self._state = folder / STATE_FOLDER
        self.ledger = Ledger(self._state / f"{destination.key}.jsonl", destination)
        # Files that cannot be sent as they are, since they hold no record or the Hub does not take them; they are
        # looked at again when they change.
        self._unsendable: dict[str, Signature] = {}
        self.refused = 0
        self._said: set[str] = set()

    @property
    def lock_path(self) -> Path:
        """The file whose lock means that somebody pushes this folder."""
        return self._state / "push.lock"

    def candidates(self) -> Iterator[Candidate]:
        """Yield the files that may hold something new, by one scan of the folder and no request."""
        found = snapshot.scan(str(self.folder), self._wanted, self._meant.prunes)
        for candidate in snapshot.changed(found, self.ledger.arrivals):
            if self._unsendable.get(candidate.relpath) != candidate.signature:
                yield candidate

    def pending(self) -> Pending:
        """Sum up what the Hub does not hold yet, as far as sizes tell."""
        files, size, oldest = 0, 0, None
        for candidate in self.candidates():
            arrival = self.ledger.arrivals.get(candidate.relpath)
            missing = candidate.signature.size - (arrival.length if arrival else 0)
            if missing > 0 or (arrival and arrival.signature != candidate.signature):
                files += 1
                size += max(missing, 0)
                written = candidate.signature.mtime_ns / 1e9
                oldest = written if oldest is None else min(oldest, written)
        return Pending(files, size, oldest)

    def push(self, *, last: bool, interrupted: Callable[[], bool], lock_seconds: float) -> CommitInfo | None:
        """Send what is new; return the last commit, or `None` if there was nothing to send.

        Args:
            last: Whether event files that hold no event are meant too.
            interrupted: Asked between commits and while another process pushes; true ends the push.
            lock_seconds: How long to wait while another process pushes this folder.

        Raises:
            PushError: If something could not be delivered; what was delivered before is in the ledger.
        """
        self._refresh()
        if next(self.candidates(), None) is None:
            return None
        with self._folder_lock(lock_seconds, interrupted):
            self._refresh()
            self.ledger.sweep()
            # From now on a later process knows where this folder is to go, whatever becomes of this one.
            self._note(lambda: self.ledger.record_settings(self._settings))
            candidates = sorted(self.candidates(), key=lambda candidate: candidate.signature.mtime_ns)
            return self._push(candidates, last=last, interrupted=interrupted)

    def ensure_repo(self) -> None:
        """Make sure, at most once per destination, that the repo and its branch exist.

        Raises:
            PushError: If they do not and could not be created.
        """
        if self.ledger.repo_id is None:
            repo_id = self._call(self._hub.ensure_repo)
            self._note(lambda: self.ledger.record_repo(repo_id))
        self._hub.repo_id = self.ledger.repo_id or self._hub.repo_id
        self._hub.known = True

    def squash(self) -> None:
        """Fold the history into one commit; if it fails, the commits still count."""
        try:
            self._call(lambda: self._hub.squash(f"Logs of {self.folder.name}"))
        except Exception as error:  # noqa: BLE001 - the data has arrived; the next squash covers this one
            logger.warning("The history of %s could not be squashed: %s", self._hub.repo_id, error)

    def _push(self, candidates: list[Candidate], *, last: bool, interrupted: Callable[[], bool]) -> CommitInfo | None:
        outbox = Outbox(self._outbox_folder())
        outbox.empty()
        closed = ClosedSegments(str(self.folder))
        info = None
        began, done = time.monotonic(), 0
        try:
            for batch in self._batches(candidates, outbox, closed, last=last):
                self.ensure_repo()
                for committed, contents in self._commits(batch):
                    self._note_arrivals(committed, contents)
                    if committed.info is not None:
                        info = committed.info
                        self._tell(info, contents, time.monotonic() - began)
                    began = time.monotonic()
                outbox.empty()
                done += len(batch)
                if len(candidates) > MAX_FILES_PER_COMMIT:
                    logger.info("%d of %d files of %s are done", done, len(candidates), self.folder)
                if interrupted():
                    raise TemporaryError("the push was interrupted")
        finally:
            outbox.empty()
        if info is not None and self._settings.squash:
            self.squash()
        return info

    def _batches(
        self, candidates: Iterable[Candidate], outbox: Outbox, closed: ClosedSegments, *, last: bool
    ) -> Iterator[list[Content]]:
        """Read candidates in turn; yield what was read when it is enough for one commit."""
        remaining = iter(candidates)
        while True:
            batch, arrivals = self._batch(remaining, outbox, closed, last=last)
            if arrivals:
                self._note(functools.partial(self.ledger.record, arrivals))
            if not batch:
                return
            yield batch

    def _batch(
        self, remaining: Iterator[Candidate], outbox: Outbox, closed: ClosedSegments, *, last: bool
    ) -> tuple[list[Content], dict[str, Arrival]]:
        batch: list[Content] = []
        arrivals: dict[str, Arrival] = {}
        memory, size = MAX_BYTES_IN_MEMORY, 0
        with self._content_lock:
            for candidate in remaining:
                known = self.ledger.arrivals.get(candidate.relpath)
                try:
                    taken = snapshot.take(str(self.folder), candidate, known, outbox, closed, memory=memory, last=last)
                except OSError as error:
                    self._warn_once("copy", f"No private copy of {candidate.relpath!r} could be made: {error}")
                    continue
                if isinstance(taken, Content):
                    batch.append(taken)
                    memory -= taken.in_memory
                    size += taken.arrival.length
                elif isinstance(taken, Arrival):
                    if taken != known:
                        arrivals[candidate.relpath] = taken
                elif taken is Nothing.NO_RECORD:
                    self._unsendable[candidate.relpath] = candidate.signature
                elif taken is not Nothing.NO_EVENT:
                    logger.debug("%r waits for a later push: it %s", candidate.relpath, taken.value)
                if len(batch) == MAX_FILES_PER_COMMIT or size >= MAX_BYTES_PER_COMMIT:
                    break
        return batch, arrivals

    def _commits(self, batch: list[Content]) -> Iterator[tuple[Committed, list[Content]]]:
        """Commit a batch; where the Hub refuses it, halve it until the files that it refuses are alone."""
        waiting, refused, accepted = [batch], 0, False
        while waiting:
            part = waiting.pop()
            files = [(self.destination.path_in_repo(content.relpath), content.body) for content in part]
            message = f"Logs of {self.folder.name}: {len(part)} file{'s' if len(part) > 1 else ''}"
            seconds = CALL_SECONDS + sum(content.arrival.length for content in part) / SLOW_LINE_BYTES_PER_SECOND
            call = functools.partial(self._hub.commit, files, message)
            try:
                committed = self._caller.call(call, seconds)
            except RejectedError as error:
                if len(part) > 1:
                    middle = len(part) // 2
                    waiting += [part[middle:], part[:middle]]
                    continue
                refused += 1
                if refused >= _REFUSED_IN_A_ROW and not accepted:
                    raise ActionNeededError(str(error)) from None
                self._refuse(part[0], str(error))
                continue
            accepted = True
            yield committed, part

    def _tell(self, info: CommitInfo, contents: list[Content], seconds: float) -> None:
        size = sum(content.arrival.length for content in contents)
        details = CommitDetails(self._hub.repo_id, self.folder, info.oid, info.commit_url, len(contents), size, seconds)
        logger.info(
            "%d files (%.1f MB) of %s are in %s after %.1f s: %s",
            details.files,
            size / 1e6,
            self.folder,
            details.repo_id,
            seconds,
            details.url,
        )
        self._on_commit(details)

    def _refuse(self, content: Content, why: str) -> None:
        self.refused += 1
        self._unsendable[content.relpath] = content.arrival.signature
        logger.warning("%s keeps %r only on this disk until it changes: %s", self.folder, content.relpath, why)

    def _note_arrivals(self, committed: Committed, contents: list[Content]) -> None:
        arrivals = {}
        for content in contents:
            if self.destination.path_in_repo(content.relpath) in committed.left_out:
                self._refuse(content, f"the .gitignore of {self._hub.repo_id} leaves it out")
            else:
                arrivals[content.relpath] = content.arrival
        commit = committed.info and CommitRecord(committed.info.oid, committed.info.commit_url, time.time())
        self._note(lambda: self.ledger.record(arrivals, commit or None))

    def _refresh(self) -> None:
        try:
            self.ledger.refresh()
        except (LedgerError, OSError) as error:
            self._warn_once(
                "ledger-read", f"All of {self.folder} is looked at, since what arrived is not known: {error}"
            )
        if self.ledger.repo_id is not None:
            self._hub.repo_id, self._hub.known = self.ledger.repo_id, True

    @contextlib.contextmanager
    def _folder_lock(self, seconds: float, interrupted: Callable[[], bool]) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            try:
                self._state.mkdir(parents=True, exist_ok=True)
                held.enter_context(folder_lock(self.lock_path, seconds, interrupted))
            except (LockUnavailableError, OSError) as error:
                # Pushes are safe without the lock, since they only ever repeat; they may then send something twice.
                self._warn_once("lock", f"{self.folder} cannot be locked ({error}): let one process push it")
            yield

    def _outbox_folder(self) -> Path:
        # One per destination: pushes of a folder take turns only where it can be locked.
        inside = self._state / f"{self.destination.key}.outbox"
        if os.access(self._state, os.W_OK):
            return inside
        return Path(tempfile.gettempdir(), f"hf-summary-writer-{os.getpid()}-{self.destination.key}")

    def _call(self, function: Callable[[], T]) -> T:
        return self._caller.call(function, CALL_SECONDS)

    def _note(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self._warn_once("ledger", f"What arrived from {self.folder} is known to this process alone: {error}")

    def _wanted(self, relpath: str) -> bool:
        if not self._meant(relpath):
            return False
        reason = snapshot.unpushable(relpath)
        if reason is not None:
            self._warn_once(f"name {relpath}", f"{relpath!a} stays only on this disk: {reason}")
        return reason is None

    def _warn_once(self, key: str, message: str) -> None:
        if key not in self._said:
            self._said.add(key)
            logger.warning("%s", message)
