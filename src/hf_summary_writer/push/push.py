"""One push: upload the files that changed, commit them, and record them in the ledger."""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from hf_summary_writer.errors import (
    BranchGoneError,
    CommitDetails,
    InterruptedPushError,
    PushError,
    RejectedError,
    RepoGoneError,
    TemporaryError,
)
from hf_summary_writer.folder.disk import StateFolder, WarnOnce
from hf_summary_writer.folder.lease import Books
from hf_summary_writer.folder.ledger import CommitRecord, ledgers_of
from hf_summary_writer.folder.scan import Inventory
from hf_summary_writer.folder.snapshot import (
    MAX_FILES_PER_COMMIT,
    MAX_POSTED_BYTES_PER_COMMIT,
    SkipReason,
    SnapshotReader,
    batches,
)
from hf_summary_writer.hub import uploads
from hf_summary_writer.hub.client import BYTES_AT_ONCE, Hub, over_xet
from hf_summary_writer.hub.deadline import Caller
from hf_summary_writer.hub.uploads import posted_bytes
from hf_summary_writer.push.loop import Part, isolating, seat_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi

    from hf_summary_writer.config import Destination, PushConfig
    from hf_summary_writer.folder.ledger import Ledger, LedgerEntry, Signature
    from hf_summary_writer.folder.scan import ChangedFile
    from hf_summary_writer.folder.snapshot import Batch, FileSnapshot
    from hf_summary_writer.hub.uploads import Uploaded
    from hf_summary_writer.push.loop import Seat

__all__ = [
    "OVERLAP_BYTES",
    "PIECE_BYTES",
    "Delivered",
    "Delivery",
    "Pusher",
    "SentAhead",
    "Synced",
    "known_configs",
    "sync",
]

# The client and the allocator below it hold about 20 times this. A piece takes two requests of the Hub's API.
PIECE_BYTES = 4 * 2**20

# A piece begins this long before the end of the one before it. Chunks are cut by content and have at most 128 kB, so
# that in most cases both pieces agree on a cut in between, and the chunk over the end is whole in the second one. Each
# that is not would be new in the whole file, and hold there the block that it was read with until the upload's end.
OVERLAP_BYTES = 256 * 2**10


class SentAhead:
    """Up to where large files were sent ahead, for an attempt that follows one that failed in the middle."""

    def __init__(self) -> None:
        """Nothing was sent yet."""
        self._ends: dict[tuple[int, int], int] = {}

    def send(
        self, content: FileSnapshot, known: LedgerEntry | None, at_least: int, send: Callable[[bytes], object]
    ) -> None:
        """Send what is new of `content`, but for a last part of less than a piece, if it is more than `at_least` bytes.

        Args:
            content: The file; only what lies in a file is sent, not what is in memory anyway.
            known: What the Hub holds of it.
            at_least: What is no more than this goes with the commit.
            send: Uploads one piece.
        """
        # The file may be another one by now. Then too much or too little is sent ahead, which does no harm.
        file_id = content.entry.signature[:2]
        start = max(known.length if known else 0, self._ends.get(file_id, 0))
        if isinstance(content.body, bytes) or content.entry.length - start <= at_least:
            return
        with content.body.open("rb") as file:
            for end in range(start + PIECE_BYTES, content.entry.length, PIECE_BYTES - OVERLAP_BYTES):
                file.seek(end - PIECE_BYTES)
                send(file.read(PIECE_BYTES))
                self._ends[file_id] = end


T = TypeVar("T")

# A call to the Hub may take this long, and longer by the time that the content it carries takes on a slow line.
CALL_SECONDS = 120.0

SLOW_LINE_BYTES_PER_SECOND = 128 * 1024


class Delivered(NamedTuple):
    """What came of a delivery, or of a share of it.

    Attributes:
        info: The commit; `None` if the Hub held everything.
        number: The commit's number among those of this process.
        committed: What the commit holds.
        arrived: What the Hub holds now for certain.
        left_out: What the repo's `.gitignore` keeps out.
    """

    info: CommitInfo | None
    number: int
    committed: list[FileSnapshot]
    arrived: list[FileSnapshot]
    left_out: list[FileSnapshot]


class Delivery:
    """Delivers the content of one folder to one destination.

    Not thread-safe: its owner uses it from one thread at a time.

    Args:
        name: What commits call the folder.
        destination: Where it goes.
        wants_card: Whether a repo that is created for the folder starts with a card.
        books: Where it is noted which repo that is.
        hub: The branch.
        caller: Runs what talks to the Hub.
        seat: The place at the committer of the branch.

    Attributes:
        call_seconds: How long a call to the Hub may take, besides the time for what it carries.
    """

    def __init__(
        self,
        name: str,
        destination: Destination,
        wants_card: bool,
        books: Books,
        hub: Hub,
        caller: Caller,
        seat: Seat,
    ) -> None:
        """Connect to nothing yet."""
        self.call_seconds = CALL_SECONDS
        self._name = name
        self._destination = destination
        self._wants_card = wants_card
        self._books = books
        self._hub = hub
        self._caller = caller
        self._seat = seat
        # Files of a commit that was asked for and not answered. It may still be made, after a newer one, and put back
        # what these files were; so they have arrived only when a push finds them on the Hub as they are.
        self._in_doubt: set[str] = set()
        self._sent_ahead = SentAhead()

    def ensure_repo(self) -> None:
        """Make sure, at most once per destination, that the repo and its branch exist.

        Raises:
            PushError: If they do not and could not be created.
        """
        ledger = self._books.ledger
        if ledger.repo_id is None:
            repo_id, is_new = self._seat.committer.ensure_repo(self._made_sure_of_repo)
            self._books.note(lambda: ledger.record_repo(repo_id, is_new=is_new))
        self.use_known_repo()

    def use_known_repo(self) -> None:
        """Go on with the repo that the ledger names, if it does."""
        repo_id = self._books.ledger.repo_id
        if repo_id is not None:
            self._hub.repo_id, self._hub.known = repo_id, True

    def find_repo(self) -> None:
        """Make sure that the repo exists, and create nothing.

        Raises:
            PushError: If it does not.
        """
        self._call(self._hub.find_repo)

    def ensure_branch(self) -> None:
        """Make the branch again where it does not exist any more.

        Raises:
            PushError: If it could not be made.
        """
        self._call(self._hub.ensure_branch)

    def squash(self, since: int | None) -> None:
        """Fold the history into one commit.

        Args:
            since: The number of the commit that was added; nothing is done if that was folded already.

        Raises:
            PushError: If it could not be done; the commits still count.
        """
        squash = functools.partial(self._call, lambda: self._hub.squash(f"Logs of {self._name}"))
        if since is None:
            squash()
        else:
            self._seat.committer.squash(since, squash)

    def deliver(
        self, contents: list[FileSnapshot], *, last: bool, interrupted: Callable[[], bool]
    ) -> Iterator[tuple[Delivered, list[FileSnapshot]]]:
        """Upload `contents` and have them committed, alone or together with what others of this process push.

        Text travels within the commits and not before them, so there are as many of these as it needs. Yields what came
        of each one, and the contents that it settles, before it asks for the next.

        Args:
            contents: What to deliver.
            last: Whether it belongs to the last push of a run.
            interrupted: Asked while others commit, and between commits; true ends the delivery.

        Raises:
            PostponedError: If others of the account have their turn first.
            PushError: If it could not be delivered.
        """
        uploaded = self._uploaded(contents)
        later = {addition.path_in_repo for addition in uploaded.additions}
        for share in uploaded.shares(MAX_POSTED_BYTES_PER_COMMIT):
            later.difference_update(addition.path_in_repo for addition in share.additions)
            # What needs no commit is settled with the first one.
            settled = [content for content in contents if self._place(content) not in later]
            contents = [content for content in contents if self._place(content) in later]
            yield self._settled(share, settled, last, interrupted), settled
            if contents and interrupted():
                raise InterruptedPushError("the push was interrupted")

    def _settled(
        self, uploaded: Uploaded, contents: list[FileSnapshot], last: bool, interrupted: Callable[[], bool]
    ) -> Delivered:
        info, number = None, 0
        if uploaded.additions:
            try:
                info, number = self._committed(uploaded, last, interrupted)
            except PushError as error:
                if error.in_doubt:
                    self._in_doubt.update(content.relpath for content in contents)
                raise
        paths = {addition.path_in_repo for addition in uploaded.additions}
        committed = [content for content in contents if self._place(content) in paths]
        left_out = [content for content in contents if self._place(content) in uploaded.left_out]
        arrived = [
            content
            for content in contents
            if content not in left_out and (info is None or content.relpath not in self._in_doubt)
        ]
        self._in_doubt.difference_update(content.relpath for content in contents)
        return Delivered(info, number, committed, arrived, left_out)

    def _uploaded(self, contents: list[FileSnapshot]) -> Uploaded:
        files = [(self._place(content), content.body) for content in contents]
        seconds = self._seconds_to_send(sum(content.entry.length for content in contents))
        for content in contents:
            self._send_ahead(content)
        readme = self._card_due(contents)
        try:
            uploaded = self._caller.call(functools.partial(self._hub.upload, files, readme), seconds)
        except RejectedError:
            if readme is None:
                raise
            # It may be the card that is refused, and no card is worth a log.
            self._wants_card = False
            uploaded = self._caller.call(functools.partial(self._hub.upload, files), seconds)
        for content in contents:
            if not content.is_intact():
                raise TemporaryError(f"{content.relpath!a} changed while it was uploaded")
        return uploaded

    def _committed(self, uploaded: Uploaded, last: bool, interrupted: Callable[[], bool]) -> tuple[CommitInfo, int]:
        part = Part(
            uploaded.additions,
            frozenset(addition.path_in_repo for addition in uploaded.additions),
            self._name,
            len(uploaded.additions) - (uploaded.card is not None),
            posted_bytes(uploaded.additions),
            last,
            self._commit,
        )
        try:
            return self._seat.commit(part, interrupted)
        except RejectedError:
            if uploaded.card is None:
                raise
        self._wants_card = False
        without = tuple(addition for addition in uploaded.additions if addition is not uploaded.card)
        return self._seat.commit(dataclasses.replace(part, additions=without), interrupted)

    def _commit(self, additions: Sequence[CommitOperationAdd], message: str) -> CommitInfo:
        on_the_wire = posted_bytes(additions) * 4 / 3  # base64
        return self._caller.call(
            functools.partial(self._hub.commit, additions, message), self._seconds_to_send(on_the_wire)
        )

    def _seconds_to_send(self, nbytes: float) -> float:
        return self.call_seconds + nbytes / SLOW_LINE_BYTES_PER_SECOND

    def _send_ahead(self, content: FileSnapshot) -> None:
        def send(piece: bytes) -> None:
            self._call(functools.partial(self._hub.send_ahead, self._place(content), piece))

        if over_xet():
            self._sent_ahead.send(content, self._books.ledger.entries.get(content.relpath), BYTES_AT_ONCE, send)

    def _card_due(self, contents: list[FileSnapshot]) -> bytes | None:
        """Return the card that the first commit to a repo that was created for this folder brings along."""
        ledger = self._books.ledger
        if not self._wants_card or not ledger.is_new or ledger.commit is not None:
            return None
        if any(self._place(content) == uploads.CARD_PATH for content in contents):
            return None
        return uploads.model_card(dataclasses.replace(self._destination, repo_id=self._hub.repo_id))

    def _made_sure_of_repo(self) -> tuple[str, bool]:
        return self._call(self._hub.ensure_repo), self._hub.created

    def _place(self, content: FileSnapshot) -> str:
        return self._destination.path_in_repo(content.relpath)

    def _call(self, function: Callable[[], T]) -> T:
        return self._caller.call(function, self.call_seconds)


logger = logging.getLogger("hf_summary_writer")


class Pusher:
    """Brings one folder to one destination.

    Not thread-safe: its owner pushes from one thread at a time. Several pushers on one folder, in this process or in
    others, take turns.

    Args:
        folder: The folder, an absolute path without links.
        config: Where it goes, which files of it, and how.
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
        config: PushConfig,
        hub: Hub,
        caller: Caller,
        content_lock: AbstractContextManager[object],
        on_commit: Callable[[CommitDetails], None],
        seat: Seat,
    ) -> None:
        """Look at nothing yet."""
        self.folder = folder
        self.destination = config.destination
        self._config = config
        self._hub = hub
        self._content_lock = content_lock
        self._on_commit = on_commit
        self._seat = seat
        self._once = WarnOnce()
        self._books = Books(folder, self.destination, self._once)
        self.inventory = Inventory(folder, config, self.ledger, self._once)
        self.delivery = Delivery(folder.name, self.destination, config.model_card, self._books, hub, caller, seat)
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
        if not (self._has_lost or refused) and next(self.inventory.changed(), None) is None:
            return None
        self._seat.await_turn(last=last)
        with self._books.locked(lock_seconds, interrupted):
            self._seat.begin()
            self.refresh()
            # From now on a later process knows where this folder is to go, whatever becomes of this one.
            self._note_config()
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
            self._note_config()

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

    def _note_config(self) -> None:
        self._books.note(lambda: self.ledger.record_config(self._config))

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

    def _push(self, candidates: list[ChangedFile], *, last: bool, interrupted: Callable[[], bool]) -> CommitInfo | None:
        reader = SnapshotReader(
            str(self.folder), StateFolder(self._books.state_folder), self._once, filter(None, [self._hub.secret()])
        )

        def take(file: ChangedFile, memory: int) -> FileSnapshot | LedgerEntry | SkipReason:
            return reader.take(file, self.ledger.entries.get(file.relpath), memory=memory, last=last)

        deliver = functools.partial(self.delivery.deliver, last=last, interrupted=interrupted)
        latest, failed, done = None, None, 0
        try:
            for batch in batches(candidates, take, self._content_lock, interrupted):
                latest = self._deliver(batch, deliver) or latest
                reader.clear()
                failed = failed or next(iter(batch.failed.items()), None)
                done += batch.files
                if len(candidates) > MAX_FILES_PER_COMMIT:
                    logger.info("%d of %d files of %s are done", done, len(candidates), self.folder)
        finally:
            reader.clear()
        if latest is not None and self._config.squash_history:
            self.squash(latest.number)
        if failed is not None:
            candidate, error = failed
            raise TemporaryError(f"{candidate.relpath!r} could not be read or copied: {error}")
        if last and self._crossed:
            raise TemporaryError("another process pushed this folder at the same time, in spite of its lock")
        return None if latest is None else latest.info

    def _deliver(
        self, batch: Batch, deliver: Callable[[list[FileSnapshot]], Iterator[tuple[Delivered, list[FileSnapshot]]]]
    ) -> Delivered | None:
        """Deliver what there is to deliver of a batch, and note all that is known of it; return what made a commit."""
        latest = None
        if batch.snapshots:
            self.delivery.ensure_repo()
        began = time.monotonic()
        for delivered, _ in isolating(batch.snapshots, deliver, self._refuse):
            self._note(delivered)
            if delivered.info is not None:
                latest = delivered
                self._tell(delivered.info, delivered.committed, time.monotonic() - began)
            began = time.monotonic()
        self._books.note(lambda: self.ledger.record(batch.unchanged))
        for candidate, why in batch.skipped.items():
            self._pass_over(candidate, why)
        return latest

    def _note(self, delivered: Delivered) -> None:
        for content in delivered.left_out:
            self._refuse(content, f"the .gitignore of {self._hub.repo_id} leaves it out")
        info = delivered.info
        commit = None if info is None else CommitRecord(info.oid, info.commit_url, time.time())
        entries = {content.relpath: content.entry for content in delivered.arrived}
        if info is not None and self.ledger.is_outdated():
            self._crossed.update(entries)
            self.refresh()
            entries = {}
        self._crossed.difference_update(entries)
        self._books.note(lambda: self.ledger.record(entries, commit))

    def _pass_over(self, candidate: ChangedFile, why: SkipReason) -> None:
        if why is SkipReason.NO_RECORD:
            self.inventory.set_aside(candidate.relpath, candidate.signature)
        elif why is SkipReason.SECRET:
            self.inventory.refuse(candidate.relpath, candidate.signature)
            said = f"{candidate.relpath!a} of {self.folder} holds the access token: it is never uploaded"
            self._once.warn("secret", said, candidate.relpath, logging.ERROR)
        elif why is SkipReason.DENIED:
            said = f"{candidate.relpath!a} of {self.folder} may not be read: it stays only on this disk until then"
            self._once.warn("denied", said, candidate.relpath)
            self.inventory.left_behind += 1
        elif why is not SkipReason.NO_EVENT:
            self.inventory.left_behind += why in {SkipReason.BUSY, SkipReason.DAMAGED}
            logger.debug("%r waits for a later push: it %s", candidate.relpath, why.value)

    def _refuse(self, content: FileSnapshot, why: str) -> None:
        self.inventory.refuse(content.relpath, content.entry.signature)
        said = (
            f"{content.relpath!r} of {self.folder} stays here, and is tried again when it changes and at the end: {why}"
        )
        self._once.warn("refused", said, content.relpath)

    def _tell(self, info: CommitInfo, contents: list[FileSnapshot], seconds: float) -> None:
        size = sum(content.entry.length for content in contents)
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


# How long to wait for another process that is pushing the folder.
LOCK_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Synced:
    """What came of it: how many files are still missing on the Hub, and why."""

    missing: int
    error: PushError | None


def known_configs(folder: Path) -> list[PushConfig]:
    """Return the configs that earlier processes pushed `folder` with, or were to, as far as its ledgers tell."""
    return [ledger.config for ledger in ledgers_of(folder) if ledger.config is not None]


def sync(folder: Path, config: PushConfig, api: HfApi, on_commit: Callable[[CommitDetails], None]) -> Synced:
    """Push what the Hub does not hold yet of `folder`.

    Args:
        folder: The folder, an absolute path without links.
        config: Where it goes, and how.
        api: The client.
        on_commit: Told of every commit.
    """
    where = config.destination
    hub = Hub(where.repo_id, where.repo_type, where.revision, config.private, token=None, api=api)
    caller = Caller("hf-summary-writer-hub")
    pusher = Pusher(folder, config, hub, caller, threading.Lock(), on_commit, seat_at(hub))
    error: PushError | None = None
    try:
        pusher.push(last=True, interrupted=lambda: False, lock_seconds=LOCK_SECONDS)
    except PushError as raised:
        error = raised
    finally:
        caller.stop()
    pending = pusher.inventory.pending()
    if error is None and pending.unlisted:
        error = TemporaryError(f"{pending.unlisted} folders in it cannot be listed")
    return Synced(pending.missing, error)
