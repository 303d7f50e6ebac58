"""One push: what changed in a folder goes into commits, and what arrived goes into the ledger.

The order is what makes a crash harmless. The ledger is written after the commit and never before, so at worst a file
is looked at once more, and the Hub's client drops what is already there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from hf_summary_writer import card, scan, snapshot
from hf_summary_writer.batches import MAX_FILES_PER_COMMIT, batches
from hf_summary_writer.committer import Part
from hf_summary_writer.details import CommitDetails
from hf_summary_writer.errors import PushError, RejectedError, RepoGoneError, TemporaryError
from hf_summary_writer.folder_lock import LockUnavailableError, folder_lock
from hf_summary_writer.hub import BYTES_AT_ONCE, over_xet
from hf_summary_writer.isolating import isolating
from hf_summary_writer.ledger import STATE_FOLDER, CommitRecord, Ledger, LedgerError, Settings
from hf_summary_writer.outbox import Outbox
from hf_summary_writer.patterns import PathFilter
from hf_summary_writer.snapshot import ClosedSegments, Nothing
from hf_summary_writer.trouble import Once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from huggingface_hub import CommitInfo

    from hf_summary_writer.attempt import Caller
    from hf_summary_writer.batches import Batch
    from hf_summary_writer.committer import Seat
    from hf_summary_writer.destination import Destination
    from hf_summary_writer.hub import Hub, Uploaded
    from hf_summary_writer.ledger import Arrival, Signature
    from hf_summary_writer.scan import Candidate
    from hf_summary_writer.snapshot import Content

__all__ = ["Pending", "Pusher"]

T = TypeVar("T")

logger = logging.getLogger("hf_summary_writer")

# A call to the Hub may take this long, and longer by the time its upload takes on a slow line.
CALL_SECONDS = 120.0
SLOW_LINE_BYTES_PER_SECOND = 128 * 1024


@dataclass(frozen=True, slots=True)
class Pending:
    """What the Hub does not hold yet: files, bytes, and when the oldest was last written (seconds since the epoch)."""

    files: int = 0
    bytes: int = 0
    oldest: float | None = None


class _Landed(NamedTuple):
    """A commit, and its number among those of this process."""

    info: CommitInfo
    number: int


class _Committed(NamedTuple):
    """What came of an attempt to commit: `None` if the Hub held everything, and the paths that its .gitignore drops."""

    landed: _Landed | None
    left_out: frozenset[str]


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
        seat: Its place at the committer of the branch.
        call_seconds: How long a call to the Hub may take, besides the time for its upload.
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
        seat: Seat,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        """Look at nothing yet."""
        self.call_seconds = call_seconds
        self.folder = folder
        self.destination = destination
        self._settings = settings
        self._meant = PathFilter(settings.allow, settings.ignore)
        self._hub = hub
        self._caller = caller
        self._content_lock = content_lock
        self._on_commit = on_commit
        self._seat = seat
        self._state = folder / STATE_FOLDER
        self.ledger = Ledger(self._state / f"{destination.key}.jsonl", destination)
        # Files that cannot be sent as they are, since they hold no record or the Hub does not take them; they are
        # looked at again when they change.
        self._unsendable: dict[str, Signature] = {}
        self.refused = 0
        self._once = Once()
        # Files of a commit that was asked for and not answered. It may still be made, after a newer one, and put back
        # what these files were; so they have arrived only when a push finds them on the Hub as they are.
        self._in_doubt: set[str] = set()
        self._gone = self._card_refused = False

    @property
    def lock_path(self) -> Path:
        """The file whose lock means that somebody pushes this folder."""
        return self._state / "push.lock"

    def candidates(self) -> Iterator[Candidate]:
        """Yield the files that may hold something new, by one scan of the folder and no request.

        Raises:
            TemporaryError: If the folder could not be listed to the end.
        """
        try:
            for candidate in scan.scan(str(self.folder), self._wanted, self._meant.prunes, self.ledger.arrivals):
                if self._unsendable.get(candidate.relpath) != candidate.signature:
                    yield candidate
        except OSError as error:
            raise TemporaryError(f"the folder cannot be listed: {error}") from None

    def pending(self) -> Pending:
        """Sum up what the Hub does not hold yet, as far as sizes tell."""
        files, size, oldest = 0, 0, None
        with contextlib.suppress(TemporaryError):  # what was seen before it is the best that can be said
            for candidate, missing in self.missing():
                files += 1
                size += missing
                written = candidate.signature.mtime_ns / 1e9
                oldest = written if oldest is None else min(oldest, written)
        return Pending(files, size, oldest)

    def missing(self) -> Iterator[tuple[Candidate, int]]:
        """Yield the files that the Hub does not hold as they are, and how many bytes of each, as far as sizes tell.

        Raises:
            TemporaryError: If the folder could not be listed to the end.
        """
        for candidate in self.candidates():
            arrival = self.ledger.arrivals.get(candidate.relpath)
            missing = candidate.signature.size - (arrival.length if arrival else 0)
            if missing > 0 or (arrival and arrival.signature != candidate.signature):
                yield candidate, max(missing, 0)

    def push(self, *, last: bool, interrupted: Callable[[], bool], lock_seconds: float) -> CommitInfo | None:
        """Send what is new; return the last commit, or `None` if there was nothing to send.

        Args:
            last: Whether event files that hold no event are meant too.
            interrupted: Asked between commits and while another process pushes; true ends the push.
            lock_seconds: How long to wait while another process pushes this folder.

        Raises:
            PostponedError: If others of the account have their turn first.
            PushError: If something could not be delivered; what was delivered before is in the ledger.
        """
        self.refresh()
        if next(self.candidates(), None) is None:
            return None
        self._seat.expect(last=last)
        with self._folder_lock(lock_seconds, interrupted):
            self.refresh()
            self.ledger.sweep()
            # From now on a later process knows where this folder is to go, whatever becomes of this one.
            self._note(lambda: self.ledger.record_settings(self._settings))
            try:
                if self._gone:
                    self._call(self._hub.find_repo)  # costs less than to read all that would be sent
                    self._gone = False
                candidates = sorted(self.candidates(), key=lambda candidate: candidate.signature.mtime_ns)
                return self._push(candidates, last=last, interrupted=interrupted)
            except RepoGoneError:
                self._gone = True
                self._seat.committer.forget_repo()
                # What comes back under its name may be empty.
                self._note(self.ledger.start_over)
                raise

    def remember(self) -> None:
        """Note where the folder is to go, without pushing anything, for the process that does."""
        self.refresh()
        with contextlib.suppress(TemporaryError), self._folder_lock(0, lambda: True):
            self._note(lambda: self.ledger.record_settings(self._settings))

    def ensure_repo(self) -> None:
        """Make sure, at most once per destination, that the repo and its branch exist.

        Raises:
            PushError: If they do not and could not be created.
        """
        if self.ledger.repo_id is None:
            repo_id, is_new = self._seat.committer.ensure_repo(self._made_sure_of_repo)
            self._note(lambda: self.ledger.record_repo(repo_id, is_new=is_new))
        self._hub.repo_id = self.ledger.repo_id or self._hub.repo_id
        self._hub.known = True

    def _made_sure_of_repo(self) -> tuple[str, bool]:
        return self._call(self._hub.ensure_repo), self._hub.created

    def squash(self, since: int | None = None) -> None:
        """Fold the history into one commit; if it fails, the commits still count.

        Args:
            since: The number of the commit that was added; nothing is done if it was folded already.
        """

        def squash() -> None:
            self._call(lambda: self._hub.squash(f"Logs of {self.folder.name}"))

        try:
            if since is None:
                squash()
            else:
                self._seat.committer.squash(since, squash)
        except Exception as error:  # noqa: BLE001 - the data has arrived; the next squash covers this one
            logger.warning("The history of %s could not be squashed: %s", self._hub.repo_id, error)

    def _push(self, candidates: list[Candidate], *, last: bool, interrupted: Callable[[], bool]) -> CommitInfo | None:
        # One outbox per destination: pushes of a folder take turns only where it can be locked.
        outbox = Outbox(self._state / f"{self.destination.key}.outbox")
        take = functools.partial(self._take, outbox=outbox, closed=ClosedSegments(str(self.folder)), last=last)
        landed, failed, done = None, None, 0
        outbox.empty()
        try:
            for batch in batches(candidates, take, self._content_lock, interrupted):
                landed = self._deliver(batch, last=last, interrupted=interrupted) or landed
                outbox.empty()
                failed = failed or next(iter(batch.failed.items()), None)
                done += batch.looked_at
                if len(candidates) > MAX_FILES_PER_COMMIT:
                    logger.info("%d of %d files of %s are done", done, len(candidates), self.folder)
        finally:
            outbox.empty()
        if landed is not None and self._settings.squash:
            self.squash(landed.number)
        if failed is not None:
            candidate, error = failed
            raise TemporaryError(f"{candidate.relpath!r} could not be read or copied: {error}")
        return None if landed is None else landed.info

    def _take(
        self, candidate: Candidate, memory: int, *, outbox: Outbox, closed: ClosedSegments, last: bool
    ) -> Content | Arrival | Nothing:
        known = self.ledger.arrivals.get(candidate.relpath)
        return snapshot.take(str(self.folder), candidate, known, outbox, closed, memory=memory, last=last)

    def _deliver(self, batch: Batch, *, last: bool, interrupted: Callable[[], bool]) -> _Landed | None:
        """Commit what there is to commit of a batch, and note all that is known of it."""
        landed = None
        commit = functools.partial(self._commit, last=last, interrupted=interrupted)
        if batch.contents:
            self.ensure_repo()
        began = time.monotonic()
        for committed, contents in isolating(batch.contents, commit, self._refuse):
            self._note_arrivals(committed, contents)
            if committed.landed is not None:
                landed = committed.landed
                self._tell(landed.info, contents, time.monotonic() - began)
            began = time.monotonic()
        self._note(lambda: self.ledger.record(batch.arrived))
        for candidate, why in batch.nothing.items():
            if why is Nothing.NO_RECORD:
                self._unsendable[candidate.relpath] = candidate.signature
            elif why is Nothing.DENIED:
                message = (
                    f"{candidate.relpath!a} of {self.folder} may not be read: it stays only on this disk until then"
                )
                self._once.warn("denied", message, candidate.relpath)
            elif why is not Nothing.NO_EVENT:
                logger.debug("%r waits for a later push: it %s", candidate.relpath, why.value)
        return landed

    def _commit(self, contents: list[Content], *, last: bool, interrupted: Callable[[], bool]) -> _Committed:
        uploaded = self._uploaded(contents)
        if not uploaded.additions:
            return _Committed(None, uploaded.left_out)
        part = Part(
            uploaded.additions,
            frozenset(addition.path_in_repo for addition in uploaded.additions),
            self.folder.name,
            last,
            lambda additions, message: self._call(functools.partial(self._hub.commit, additions, message)),
        )
        try:
            landed = self._commit_without_refused_card(part, uploaded.card, interrupted)
        except PushError as error:
            if error.in_doubt:
                self._in_doubt.update(content.relpath for content in contents)
            raise
        return _Committed(_Landed(*landed), uploaded.left_out)

    def _commit_without_refused_card(
        self, part: Part, extra: object | None, interrupted: Callable[[], bool]
    ) -> tuple[CommitInfo, int]:
        try:
            return self._seat.commit(part, interrupted)
        except RejectedError:
            if extra is None:
                raise
        # It may be the card that is refused, and no card is worth a log.
        self._card_refused = True
        without = tuple(addition for addition in part.additions if addition is not extra)
        return self._seat.commit(dataclasses.replace(part, additions=without), interrupted)

    def _uploaded(self, contents: list[Content]) -> Uploaded:
        files = [(self.destination.path_in_repo(content.relpath), content.body) for content in contents]
        seconds = self.call_seconds + sum(content.arrival.length for content in contents) / SLOW_LINE_BYTES_PER_SECOND
        for content in contents:
            self._send_ahead(content)
        readme = self._readme_due(contents)
        try:
            return self._caller.call(functools.partial(self._hub.upload, files, readme), seconds)
        except RejectedError:
            if readme is None:
                raise
        self._card_refused = True
        return self._caller.call(functools.partial(self._hub.upload, files), seconds)

    def _send_ahead(self, content: Content) -> None:
        """Send what is new of large content in parts, for which the client needs less memory than for the whole."""
        known = self.ledger.arrivals.get(content.relpath)
        start = known.length if known else 0
        if isinstance(content.body, bytes) or content.arrival.length - start <= BYTES_AT_ONCE or not over_xet():
            return
        path = self.destination.path_in_repo(content.relpath)
        with content.body.open("rb") as file:
            file.seek(start)
            while part := file.read(BYTES_AT_ONCE // 2):
                self._call(functools.partial(self._hub.send_ahead, path, part))

    def _readme_due(self, contents: list[Content]) -> bytes | None:
        """Return the card that the first commit to a repo that was created for this folder brings along."""
        if self._card_refused or not self._settings.card or not self.ledger.is_new or self.ledger.commit is not None:
            return None
        if any(self.destination.path_in_repo(content.relpath) == card.PATH for content in contents):
            return None
        return card.card(dataclasses.replace(self.destination, repo_id=self._hub.repo_id))

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
        said = (
            f"{content.relpath!r} of {self.folder} stays only on this disk, and is tried again when it changes: {why}"
        )
        self._once.warn("refused", said, content.relpath)

    def _note_arrivals(self, committed: _Committed, contents: list[Content]) -> None:
        arrivals = {}
        for content in contents:
            if self.destination.path_in_repo(content.relpath) in committed.left_out:
                self._refuse(content, f"the .gitignore of {self._hub.repo_id} leaves it out")
            elif committed.landed is None or content.relpath not in self._in_doubt:
                arrivals[content.relpath] = content.arrival
        self._in_doubt.difference_update(content.relpath for content in contents)
        info = committed.landed and committed.landed.info
        commit = info and CommitRecord(info.oid, info.commit_url, time.time())
        self._note(lambda: self.ledger.record(arrivals, commit or None))

    def refresh(self) -> None:
        """Read in the ledger what other processes have pushed."""
        try:
            self.ledger.refresh()
        except LedgerError as error:
            self._once.warn("ledger", f"All of {self.folder} is looked at, since what arrived is not known: {error}")
        except OSError as error:
            self._say_state_is_lost(error)
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
                self._say_state_is_lost(error)
            yield

    def _call(self, function: Callable[[], T]) -> T:
        return self._caller.call(function, self.call_seconds)

    def _note(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self._say_state_is_lost(error)

    def _say_state_is_lost(self, error: Exception) -> None:
        # One cause, and one warning: where no lock can be, no ledger can be written, and the other way round.
        self._once.warn(
            "state",
            f"{self._state} cannot be used ({error}): pushes go on, but what arrived is known to this "
            "process alone, so let no other one push this folder",
        )

    def _wanted(self, relpath: str) -> bool:
        if not self._meant(relpath):
            return False
        reason = scan.unpushable(relpath)
        if reason is not None:
            self._once.warn("name", f"{relpath!a} stays only on this disk: {reason}", relpath)
        return reason is None
