"""Brings content to the Hub: makes sure of the repo, uploads, and has the committer of the branch commit it."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from hf_summary_writer import card
from hf_summary_writer.additions import posted_bytes
from hf_summary_writer.ahead import SentAhead
from hf_summary_writer.batches import MAX_POSTED_BYTES_PER_COMMIT
from hf_summary_writer.committer import Part
from hf_summary_writer.errors import InterruptedPushError, PushError, RejectedError
from hf_summary_writer.hub import BYTES_AT_ONCE, over_xet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from huggingface_hub import CommitInfo, CommitOperationAdd

    from hf_summary_writer.additions import Uploaded
    from hf_summary_writer.attempt import Caller
    from hf_summary_writer.books import Books
    from hf_summary_writer.committer import Seat
    from hf_summary_writer.destination import Destination
    from hf_summary_writer.hub import Hub
    from hf_summary_writer.snapshot import Content

__all__ = ["Delivered", "Delivery"]

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
    committed: list[Content]
    arrived: list[Content]
    left_out: list[Content]


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
        self, contents: list[Content], *, last: bool, interrupted: Callable[[], bool]
    ) -> Iterator[tuple[Delivered, list[Content]]]:
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
        self, uploaded: Uploaded, contents: list[Content], last: bool, interrupted: Callable[[], bool]
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

    def _uploaded(self, contents: list[Content]) -> Uploaded:
        files = [(self._place(content), content.body) for content in contents]
        seconds = self._seconds_to_send(sum(content.arrival.length for content in contents))
        for content in contents:
            self._send_ahead(content)
        readme = self._card_due(contents)
        try:
            return self._caller.call(functools.partial(self._hub.upload, files, readme), seconds)
        except RejectedError:
            if readme is None:
                raise
        # It may be the card that is refused, and no card is worth a log.
        self._wants_card = False
        return self._caller.call(functools.partial(self._hub.upload, files), seconds)

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

    def _send_ahead(self, content: Content) -> None:
        def send(piece: bytes) -> None:
            self._call(functools.partial(self._hub.send_ahead, self._place(content), piece))

        if over_xet():
            self._sent_ahead.send(content, self._books.ledger.arrivals.get(content.relpath), BYTES_AT_ONCE, send)

    def _card_due(self, contents: list[Content]) -> bytes | None:
        """Return the card that the first commit to a repo that was created for this folder brings along."""
        ledger = self._books.ledger
        if not self._wants_card or not ledger.is_new or ledger.commit is not None:
            return None
        if any(self._place(content) == card.PATH for content in contents):
            return None
        return card.card(dataclasses.replace(self._destination, repo_id=self._hub.repo_id))

    def _made_sure_of_repo(self) -> tuple[str, bool]:
        return self._call(self._hub.ensure_repo), self._hub.created

    def _place(self, content: Content) -> str:
        return self._destination.path_in_repo(content.relpath)

    def _call(self, function: Callable[[], T]) -> T:
        return self._caller.call(function, self.call_seconds)
