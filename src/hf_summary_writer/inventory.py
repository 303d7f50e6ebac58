"""What a folder holds that the Hub does not, by one scan of it and no request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_summary_writer import scan
from hf_summary_writer.errors import TemporaryError
from hf_summary_writer.patterns import PathFilter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from hf_summary_writer.arrival import Settings, Signature
    from hf_summary_writer.ledger import Ledger
    from hf_summary_writer.scan import Candidate
    from hf_summary_writer.trouble import Once

__all__ = ["Inventory", "Pending"]


@dataclass(frozen=True, slots=True)
class Pending:
    """What the Hub does not hold yet.

    Attributes:
        files: How many files wait for a push.
        bytes: How many bytes the Hub lacks, of files of both kinds.
        oldest: When the oldest of them was last written (seconds since the epoch).
        refused: How many more files a push has tried to send and the Hub did not take. They wait until they change, or
            for the last push.
        unlisted: How many folders could not be listed, of whose files nothing is known.
    """

    files: int = 0
    bytes: int = 0
    oldest: float | None = None
    refused: int = 0
    unlisted: int = 0

    @property
    def missing(self) -> int:
        """How many files the Hub does not hold as they are, for whatever reason."""
        return self.files + self.refused

    @property
    def nothing(self) -> bool:
        """Whether the Hub holds all there is."""
        return not (self.missing or self.unlisted)


class Inventory:
    """Compares a folder with what has arrived of it.

    May be used from any thread, as far as the ledger is not written meanwhile.

    Args:
        folder: The folder, an absolute path without links.
        settings: Which files of it.
        ledger: What has arrived.
        once: Names the files that no repo can hold.

    Attributes:
        left_behind: How many files the latest push could not read as they were; whoever pushes counts them here.
    """

    def __init__(self, folder: Path, settings: Settings, ledger: Ledger, once: Once) -> None:
        """Look at nothing yet."""
        self._folder = folder
        self._meant = PathFilter(settings.allow, settings.ignore)
        self._ledger = ledger
        self._once = once
        # Files that cannot be sent as they are; they are looked at again when they change.
        self._empty: dict[str, Signature] = {}
        self._refused: dict[str, Signature] = {}
        self.left_behind = 0

    @property
    def refused(self) -> Mapping[str, Signature]:
        """What the Hub did not take, by relative path, as it was then."""
        return self._refused

    def candidates(self) -> Iterator[Candidate]:
        """Yield the files that may hold something new and that the Hub may take.

        Raises:
            TemporaryError: If the folder could not be listed to the end.
        """
        return (candidate for candidate in self._changed() if not self._is_refused(candidate))

    def longest_waiting_first(self) -> list[Candidate]:
        """Return the candidates in a fair order, for when there are more than can be pushed at once.

        What never arrived comes first, the older before the newer; then the rest, as it arrived. The time of the last
        write would not do: files that are written all the time would come in no order at all.

        Raises:
            TemporaryError: If the folder could not be listed to the end.
        """
        found = list(self.candidates())
        if len(found) < 2:
            return found
        arrived = {relpath: number for number, relpath in enumerate(self._ledger.arrivals)}
        return sorted(found, key=lambda each: (arrived.get(each.relpath, -1), each.signature.mtime_ns))

    def missing(self, unlisted: list[str] | None = None) -> Iterator[tuple[Candidate, int]]:
        """Yield the files that the Hub does not hold as they are, and how many bytes of each, as far as sizes tell.

        Args:
            unlisted: The folders in it that cannot be listed are appended to it.

        Raises:
            TemporaryError: If the folder could not be listed to the end.
        """
        for candidate in self._changed(unlisted):
            arrival = self._ledger.arrivals.get(candidate.relpath)
            missing = candidate.signature.size - (arrival.length if arrival else 0)
            differs = arrival is not None and arrival.signature != candidate.signature
            if missing > 0 or differs or self._is_refused(candidate):
                yield candidate, max(missing, 0)

    def pending(self) -> Pending:
        """Sum up what the Hub does not hold yet, as far as sizes tell."""
        files, size, oldest, refused = 0, 0, None, 0
        unlisted: list[str] = []
        try:
            for candidate, missing in self.missing(unlisted):
                if self._is_refused(candidate):
                    refused += 1
                else:
                    files += 1
                size += missing
                written = candidate.signature.mtime_ns / 1e9
                oldest = written if oldest is None else min(oldest, written)
        except TemporaryError:  # what was seen before it is the best that can be said
            unlisted.append("")
        return Pending(files, size, oldest, refused, len(unlisted))

    def set_aside(self, relpath: str, signature: Signature) -> None:
        """Leave out a file that holds nothing to send, until it changes."""
        self._empty[relpath] = signature

    def refuse(self, relpath: str, signature: Signature) -> None:
        """Leave out a file that the Hub does not take, until it changes or is to be tried again."""
        self._refused[relpath] = signature

    def try_again(self, refused: Mapping[str, Signature]) -> list[Candidate]:
        """Return what the Hub did not take before, as in `refused`, and has not taken or refused since.

        Raises:
            TemporaryError: If the folder could not be listed to the end.
        """
        for relpath, signature in refused.items():
            if self._refused.get(relpath) == signature:
                del self._refused[relpath]
        return [each for each in self.longest_waiting_first() if refused.get(each.relpath) == each.signature]

    def _changed(self, unlisted: list[str] | None = None) -> Iterator[Candidate]:
        def note(reldir: str, error: OSError) -> None:
            said = f"the folder {reldir!a} of {self._folder} cannot be listed, what is in it waits: {error.strerror}"
            self._once.warn("unlisted", said, reldir)
            if unlisted is not None:
                unlisted.append(reldir)

        arrivals = self._ledger.arrivals
        try:
            for candidate in scan.scan(str(self._folder), self._wanted, self._meant.prunes, arrivals, note):
                if self._empty.get(candidate.relpath) != candidate.signature:
                    yield candidate
        except OSError as error:
            raise TemporaryError(f"the folder cannot be listed: {error}") from None

    def _is_refused(self, candidate: Candidate) -> bool:
        return self._refused.get(candidate.relpath) == candidate.signature

    def _wanted(self, relpath: str) -> bool:
        if not self._meant(relpath):
            return False
        reason = scan.unpushable(relpath)
        if reason is not None:
            self._once.warn("name", f"{relpath!a} stays only on this disk: {reason}", relpath)
        return reason is None
