"""What has arrived: for each pair of a folder and a destination, up to where each file is on the Hub.

A ledger lives in memory and in a journal on disk, to which a push appends what it delivered, not what the folder holds.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_summary_writer import entries
from hf_summary_writer.journal import Journal, LedgerError, destination_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hf_summary_writer.arrival import Arrival, CommitRecord, Settings
    from hf_summary_writer.destination import Destination

__all__ = ["STATE_FOLDER", "Ledger", "LedgerError", "ledgers_of"]

# Where a folder's state lies in it. The Hub's client never uploads anything below `.cache/huggingface`.
STATE_FOLDER = Path(".cache", "huggingface", "hf-summary-writer")

# Rewriting costs what the folder holds, so it waits until it at least halves the file.
_MIN_LINES_TO_COMPACT = 1000


class Ledger:
    """What arrived at one destination, in memory and on disk.

    Not thread-safe: its owner uses it from one thread at a time, and holds the folder's lock while it records.

    Args:
        path: The journal's file; its folder is made when something is recorded.
        destination: What the journal is about. One that speaks of another destination is set aside.
    """

    def __init__(self, path: Path, destination: Destination) -> None:
        """Start empty; `refresh` reads what is on disk."""
        self.path = path
        self.destination = destination
        self.repo_id: str | None = None
        self.is_new = False
        self.commit: CommitRecord | None = None
        self.settings: Settings | None = None
        self._arrivals: dict[str, Arrival] = {}
        self._journal = Journal(path, destination)
        # Whether memory holds what the file that was seen does not, since it could not be written.
        self._ahead = False

    @property
    def arrivals(self) -> Mapping[str, Arrival]:
        """What has arrived, by relative path; what arrived longest ago comes first."""
        return self._arrivals

    def refresh(self) -> None:
        """Read what is on disk, if it is not what this object read or wrote last.

        Raises:
            LedgerError: If the journal could not be trusted and was set aside; the ledger is then empty.
            OSError: If the file is there but cannot be read; the ledger is unchanged.
        """
        try:
            self._journal.read(self._forget, self._apply)
        except LedgerError:
            self._forget()
            raise

    def is_outdated(self) -> bool:
        """Tell whether somebody else has recorded something since this object read or wrote."""
        return self._journal.is_outdated()

    def record(self, arrivals: Mapping[str, Arrival], commit: CommitRecord | None = None) -> None:
        """Note what a commit delivered, first in memory, then durably on disk.

        Raises:
            OSError: If it could not be written; memory holds it all the same.
        """
        news = {relpath: arrival for relpath, arrival in arrivals.items() if self._arrivals.get(relpath) != arrival}
        for relpath, arrival in news.items():
            self._put_last(relpath, arrival)
        self.commit = commit or self.commit
        lines = [entries.of_arrival(relpath, arrival) for relpath, arrival in news.items()]
        if commit is not None:
            lines.append(entries.of_commit(commit))
        if lines:
            self._write(lines)

    def record_repo(self, repo_id: str, *, is_new: bool = False) -> None:
        """Note that the repo exists, under its full id `repo_id`, and whether it was created for this folder.

        The id of a repo that was renamed on the Hub is held in memory only: a file that names it could not be trusted.

        Raises:
            OSError: If it could not be written; memory holds it all the same.
        """
        self.repo_id, self.is_new = repo_id, is_new
        if self._is_meant(repo_id):
            self._write([entries.of_repo(repo_id, is_new=is_new)])

    def record_settings(self, settings: Settings) -> None:
        """Note how the folder is pushed, unless that is what was noted last.

        Raises:
            OSError: If it could not be written; memory holds it all the same.
        """
        if settings != self.settings:
            self.settings = settings
            self._write([entries.of_settings(settings)])

    def start_over(self) -> None:
        """Take back that anything arrived, durably: the repo is gone, and what comes back in its place may be empty.

        Raises:
            OSError: If it could not be written; memory holds it all the same.
        """
        if self._arrivals:
            self._arrivals = {}
            self._ahead = True
            self._journal.rewrite(self._entries())
            self._ahead = False

    def sweep(self) -> None:
        """Remove what processes that were killed in the middle of a write left; only while the folder is locked."""
        self._journal.sweep()

    def forget(self, relpaths: Iterable[str]) -> None:
        """Take back, in memory, that these files arrived, so that the next push looks at them again."""
        for relpath in relpaths:
            self._arrivals.pop(relpath, None)

    def _put_last(self, relpath: str, arrival: Arrival) -> None:
        # A dictionary keeps the order in which its keys came.
        self._arrivals.pop(relpath, None)
        self._arrivals[relpath] = arrival

    def _forget(self) -> None:
        self.repo_id, self.commit, self.settings, self._arrivals = None, None, None, {}
        self.is_new = self._ahead = False

    def _apply(self, entry: dict[str, Any]) -> None:
        if "file" in entry:
            relpath, arrival = entries.parsed_arrival(entry)
            self._put_last(relpath, arrival)
        elif "repo" in entry:
            repo_id, self.is_new = entries.parsed_repo(entry)
            if not self._is_meant(repo_id):
                raise ValueError(repo_id)
            self.repo_id = repo_id
        elif "settings" in entry:
            self.settings = entries.parsed_settings(entry)
        else:
            self.commit = entries.parsed_commit(entry)

    def _is_meant(self, repo_id: str) -> bool:
        # The Hub adds the user's name and may write it in another case; anything else would lead logs astray.
        return repo_id.casefold().rpartition("/")[2] == self.destination.name.casefold()

    def _entries(self) -> list[dict[str, Any]]:
        found = []
        if self.repo_id is not None and self._is_meant(self.repo_id):
            found.append(entries.of_repo(self.repo_id, is_new=self.is_new))
        if self.settings is not None:
            found.append(entries.of_settings(self.settings))
        found.extend(entries.of_arrival(relpath, arrival) for relpath, arrival in self._arrivals.items())
        if self.commit is not None:
            found.append(entries.of_commit(self.commit))
        return found

    def _write(self, news: list[dict[str, Any]]) -> None:
        outdated = self._journal.lines - len(self._arrivals)
        stale = self._ahead or outdated > max(_MIN_LINES_TO_COMPACT, len(self._arrivals))
        self._ahead = True
        if stale or not self._journal.append(news):
            self._journal.rewrite(self._entries())
        self._ahead = False


def ledgers_of(folder: Path) -> Iterator[Ledger]:
    """Yield the ledgers that lie in a folder, read; those that cannot be trusted are passed over."""
    for path in sorted((folder / STATE_FOLDER).glob("*.jsonl")):
        with contextlib.suppress(OSError, LedgerError):
            ledger = Ledger(path, destination_of(path))
            ledger.refresh()
            yield ledger
