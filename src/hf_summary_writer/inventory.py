"""What a folder holds that the Hub does not, by one scan of it and no request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_summary_writer import scan
from hf_summary_writer.errors import TemporaryError
from hf_summary_writer.patterns import PathFilter

if TYPE_CHECKING:
    from collections.abc import Iterator
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
        files: How many files.
        bytes: How many bytes of them.
        oldest: When the oldest was last written, in seconds since the epoch.
        unlisted: How many folders could not be listed, of whose files nothing is known.
    """

    files: int = 0
    bytes: int = 0
    oldest: float | None = None
    unlisted: int = 0


class Inventory:
    """Compares a folder with what has arrived of it.

    May be used from any thread, as far as the ledger is not written meanwhile.

    Args:
        folder: The folder, an absolute path without links.
        settings: Which files of it.
        ledger: What has arrived.
        once: Names the files that no repo can hold.
    """

    def __init__(self, folder: Path, settings: Settings, ledger: Ledger, once: Once) -> None:
        """Look at nothing yet."""
        self._folder = folder
        self._meant = PathFilter(settings.allow, settings.ignore)
        self._ledger = ledger
        self._once = once
        # Files that cannot be sent as they are, since they hold no record or the Hub does not take them; they are
        # looked at again when they change.
        self._set_aside: dict[str, Signature] = {}

    def candidates(self, unlisted: list[str] | None = None) -> Iterator[Candidate]:
        """Yield the files that may hold something new.

        Args:
            unlisted: The folders in it that cannot be listed are appended to it.

        Raises:
            TemporaryError: If the folder could not be listed to the end.
        """

        def note(reldir: str, error: OSError) -> None:
            said = f"the folder {reldir!a} of {self._folder} cannot be listed, what is in it waits: {error.strerror}"
            self._once.warn("unlisted", said, reldir)
            if unlisted is not None:
                unlisted.append(reldir)

        arrivals = self._ledger.arrivals
        try:
            for candidate in scan.scan(str(self._folder), self._wanted, self._meant.prunes, arrivals, note):
                if self._set_aside.get(candidate.relpath) != candidate.signature:
                    yield candidate
        except OSError as error:
            raise TemporaryError(f"the folder cannot be listed: {error}") from None

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
            unlisted: As for `candidates`.

        Raises:
            TemporaryError: If the folder could not be listed to the end.
        """
        for candidate in self.candidates(unlisted):
            arrival = self._ledger.arrivals.get(candidate.relpath)
            missing = candidate.signature.size - (arrival.length if arrival else 0)
            if missing > 0 or (arrival and arrival.signature != candidate.signature):
                yield candidate, max(missing, 0)

    def pending(self) -> Pending:
        """Sum up what the Hub does not hold yet, as far as sizes tell."""
        files, size, oldest = 0, 0, None
        unlisted: list[str] = []
        try:
            for candidate, missing in self.missing(unlisted):
                files += 1
                size += missing
                written = candidate.signature.mtime_ns / 1e9
                oldest = written if oldest is None else min(oldest, written)
        except TemporaryError:  # what was seen before it is the best that can be said
            unlisted.append("")
        return Pending(files, size, oldest, len(unlisted))

    def set_aside(self, relpath: str, signature: Signature) -> None:
        """Leave a file out until it changes."""
        self._set_aside[relpath] = signature

    def _wanted(self, relpath: str) -> bool:
        if not self._meant(relpath):
            return False
        reason = scan.unpushable(relpath)
        if reason is not None:
            self._once.warn("name", f"{relpath!a} stays only on this disk: {reason}", relpath)
        return reason is None
