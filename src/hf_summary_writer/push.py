"""One push: what changed in a folder goes into commits, and what arrived goes into the ledger.

The order is what makes a crash harmless. The ledger is written after the commit and never before, so at worst a file
is looked at once more, and the Hub's client drops what is already there.
"""

from __future__ import annotations

import functools
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from hf_summary_writer import snapshot
from hf_summary_writer.arrival import CommitRecord
from hf_summary_writer.batches import MAX_FILES_PER_COMMIT, batches
from hf_summary_writer.books import Books
from hf_summary_writer.delivery import Delivery
from hf_summary_writer.details import CommitDetails
from hf_summary_writer.errors import BranchGoneError, RepoGoneError, TemporaryError
from hf_summary_writer.inventory import Inventory
from hf_summary_writer.isolating import isolating
from hf_summary_writer.outbox import Outbox
from hf_summary_writer.snapshot import ClosedSegments, Nothing
from hf_summary_writer.trouble import Once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from huggingface_hub import CommitInfo

    from hf_summary_writer.arrival import Arrival, Settings, Signature
    from hf_summary_writer.attempt import Caller
    from hf_summary_writer.batches import Batch
    from hf_summary_writer.committer import Seat
    from hf_summary_writer.delivery import Delivered
    from hf_summary_writer.destination import Destination
    from hf_summary_writer.hub import Hub
    from hf_summary_writer.ledger import Ledger
    from hf_summary_writer.scan import Candidate
    from hf_summary_writer.snapshot import Content

__all__ = ["Pusher"]

logger = logging.getLogger("hf_summary_writer")


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

    Attributes:
        inventory: What there is to push.
        delivery: How that comes to the Hub.
    """

    def __init__(
        self,
        folder: Path,
        destination: Destination,
        settings: Settings,
        hub: Hub,
        caller: Caller,
        content_lock: AbstractContextManager[object],
        on_commit: Callable[[CommitDetails], None],
        seat: Seat,
    ) -> None:
        """Look at nothing yet."""
        self.folder = folder
        self.destination = destination
        self._settings = settings
        self._hub = hub
        self._content_lock = content_lock
        self._on_commit = on_commit
        self._seat = seat
        self._once = Once()
        self._books = Books(folder, destination, self._once)
        self.inventory = Inventory(folder, settings, self.ledger, self._once)
        self.delivery = Delivery(folder.name, destination, settings.card, self._books, hub, caller, seat)
        # What to make sure of before a push, since that costs less than to read all that would be sent.
        self._first: Callable[[], None] | None = None
        # The losses that the ledger knows of. One from before this object may not stand in what is on disk.
        self._losses = 0
        # Files of commits that crossed those of somebody else, whom the folder's lock does not keep out. Which of them
        # the Hub made last nobody can tell, so a push has to find these files there as they are.
        self._crossed: set[str] = set()

    @property
    def ledger(self) -> Ledger:
        """What has arrived."""
        return self._books.ledger

    def refresh(self) -> None:
        """Read in the ledger what other processes have pushed."""
        self._books.refresh()
        self.ledger.forget(self._crossed)
        self.delivery.use_known_repo()

    def push(self, *, last: bool, interrupted: Callable[[], bool], lock_seconds: float) -> CommitInfo | None:
        """Send what is new; return the last commit, or `None` if there was nothing to send.

        Args:
            last: Whether event files that hold no event are meant too, and what the Hub refused before.
            interrupted: Asked between commits and while another process pushes; true ends the push.
            lock_seconds: How long to wait while another process pushes this folder.

        Raises:
            PostponedError: If others of the account have their turn first.
            PushError: If something could not be delivered; what was delivered before is in the ledger.
        """
        self.refresh()
        self.inventory.left_behind = 0
        refused = dict(self.inventory.refused) if last else {}
        if not (self._has_lost or refused) and next(self.inventory.candidates(), None) is None:
            return None
        self._seat.await_turn(last=last)
        with self._books.locked(lock_seconds, interrupted):
            self._seat.begin()
            self.refresh()
            self.ledger.sweep()
            # From now on a later process knows where this folder is to go, whatever becomes of this one.
            self._note_settings()
            push = functools.partial(self._push_what_is_new, refused, last=last, interrupted=interrupted)
            try:
                info = push()
            except BranchGoneError as error:
                logger.warning("All of %s is sent once more: %s", self.folder, error)
                info = push()
            # What arrived before another scheduler found it gone is in nothing that came back since.
            return (push() or info) if self._has_lost else info

    def remember(self) -> None:
        """Note where the folder is to go, without pushing anything, for the process that does."""
        if not self.folder.is_dir():
            return  # whoever deleted it does not want it back
        self.refresh()
        with suppress(TemporaryError), self._books.locked(0, lambda: True):
            self._note_settings()

    def squash(self, since: int | None = None) -> None:
        """Fold the history into one commit; if it fails, the commits still count.

        Args:
            since: The number of the commit that was added; nothing is done if it was folded already.

        Raises:
            RepoGoneError: If the repo is gone, and the commits with it.
            BranchGoneError: If the branch is.
        """
        try:
            self.delivery.squash(since)
        except (RepoGoneError, BranchGoneError):
            raise
        except Exception as error:  # noqa: BLE001 - the data has arrived; the next squash covers this one
            logger.warning("The history of %s could not be squashed: %s", self._hub.repo_id, error)

    def _note_settings(self) -> None:
        self._books.note(lambda: self.ledger.record_settings(self._settings))

    def _push_what_is_new(
        self, refused: Mapping[str, Signature], *, last: bool, interrupted: Callable[[], bool]
    ) -> CommitInfo | None:
        if self._has_lost:
            self._start_over()
        try:
            if self._first is not None:
                self._first()
                self._first = None
            push = functools.partial(self._push, last=last, interrupted=interrupted)
            info = push(self.inventory.longest_waiting_first())
            # After the rest, which is not to wait while it is found out that they are refused once more.
            return (push(self.inventory.try_again(refused)) if refused else None) or info
        except RepoGoneError:
            self._lose(self.delivery.find_repo)
            raise
        except BranchGoneError:
            self._lose(self.delivery.ensure_branch)
            raise

    @property
    def _has_lost(self) -> bool:
        return self._losses != self._seat.committer.losses

    def _lose(self, first: Callable[[], None]) -> None:
        self._first = first
        self._seat.committer.forget_repo(self._losses)
        self._start_over()

    def _start_over(self) -> None:
        self._losses = self._seat.committer.losses
        # What comes back under its name may be empty. Noted before it does: later on nothing would tell.
        self._books.note(self.ledger.start_over)

    def _push(self, candidates: list[Candidate], *, last: bool, interrupted: Callable[[], bool]) -> CommitInfo | None:
        # One outbox per destination: pushes of a folder take turns only where it can be locked.
        outbox = Outbox(self._books.state_folder / f"{self.destination.key}.outbox")
        take = functools.partial(self._take, outbox=outbox, closed=ClosedSegments(str(self.folder)), last=last)
        deliver = functools.partial(self.delivery.deliver, last=last, interrupted=interrupted)
        latest, failed, done = None, None, 0
        outbox.empty()
        try:
            for batch in batches(candidates, take, self._content_lock, interrupted):
                latest = self._deliver(batch, deliver) or latest
                outbox.empty()
                failed = failed or next(iter(batch.failed.items()), None)
                done += batch.looked_at
                if len(candidates) > MAX_FILES_PER_COMMIT:
                    logger.info("%d of %d files of %s are done", done, len(candidates), self.folder)
        finally:
            outbox.empty()
        if latest is not None and self._settings.squash:
            self.squash(latest.number)
        if failed is not None:
            candidate, error = failed
            raise TemporaryError(f"{candidate.relpath!r} could not be read or copied: {error}")
        if last and self._crossed:
            raise TemporaryError("another process pushed this folder at the same time, in spite of its lock")
        return None if latest is None else latest.info

    def _take(
        self, candidate: Candidate, memory: int, *, outbox: Outbox, closed: ClosedSegments, last: bool
    ) -> Content | Arrival | Nothing:
        known = self.ledger.arrivals.get(candidate.relpath)
        return snapshot.take(str(self.folder), candidate, known, outbox, closed, memory=memory, last=last)

    def _deliver(
        self, batch: Batch, deliver: Callable[[list[Content]], Iterator[tuple[Delivered, list[Content]]]]
    ) -> Delivered | None:
        """Deliver what there is to deliver of a batch, and note all that is known of it; return what made a commit."""
        latest = None
        if batch.contents:
            self.delivery.ensure_repo()
        began = time.monotonic()
        for delivered, _ in isolating(batch.contents, deliver, self._refuse):
            self._note(delivered)
            if delivered.info is not None:
                latest = delivered
                self._tell(delivered.info, delivered.committed, time.monotonic() - began)
            began = time.monotonic()
        self._books.note(lambda: self.ledger.record(batch.arrived))
        for candidate, why in batch.nothing.items():
            self._pass_over(candidate, why)
        return latest

    def _note(self, delivered: Delivered) -> None:
        for content in delivered.left_out:
            self._refuse(content, f"the .gitignore of {self._hub.repo_id} leaves it out")
        info = delivered.info
        commit = None if info is None else CommitRecord(info.oid, info.commit_url, time.time())
        arrivals = {content.relpath: content.arrival for content in delivered.arrived}
        if info is not None and self.ledger.is_outdated():
            self._crossed.update(arrivals)
            self.refresh()
            arrivals = {}
        self._crossed.difference_update(arrivals)
        self._books.note(lambda: self.ledger.record(arrivals, commit))

    def _pass_over(self, candidate: Candidate, why: Nothing) -> None:
        if why is Nothing.NO_RECORD:
            self.inventory.set_aside(candidate.relpath, candidate.signature)
        elif why is Nothing.DENIED:
            said = f"{candidate.relpath!a} of {self.folder} may not be read: it stays only on this disk until then"
            self._once.warn("denied", said, candidate.relpath)
            self.inventory.left_behind += 1
        elif why is not Nothing.NO_EVENT:
            self.inventory.left_behind += why is Nothing.BUSY
            logger.debug("%r waits for a later push: it %s", candidate.relpath, why.value)

    def _refuse(self, content: Content, why: str) -> None:
        self.inventory.refuse(content.relpath, content.arrival.signature)
        said = (
            f"{content.relpath!r} of {self.folder} stays here, and is tried again when it changes and at the end: {why}"
        )
        self._once.warn("refused", said, content.relpath)

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
