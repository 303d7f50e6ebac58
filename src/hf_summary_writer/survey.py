"""Looking at folders from outside: what their ledgers, their files and their locks tell any process."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_summary_writer.books import Books
from hf_summary_writer.folder_lock import is_locked
from hf_summary_writer.inventory import Inventory
from hf_summary_writer.ledger import STATE_FOLDER, Ledger, LedgerError, ledgers_of
from hf_summary_writer.push_loop import Phase
from hf_summary_writer.status import Status, TroubleFile
from hf_summary_writer.trouble import Once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hf_summary_writer.arrival import Settings
    from hf_summary_writer.destination import Destination

__all__ = ["Missing", "known_folders", "missing", "survey"]


@dataclass(frozen=True, slots=True)
class Missing:
    """A file that a push would send: its path in the folder and in the repo, and how many bytes the Hub lacks."""

    path: str
    path_in_repo: str
    bytes: int


def known_folders(root: Path) -> list[tuple[Path, Ledger]]:
    """Return the folders that were pushed, or were to be, and their ledgers: `root` itself, or else what lies below."""
    found = [(root, ledger) for ledger in ledgers_of(root)]
    return found or [(folder, ledger) for folder in _below(root) for ledger in ledgers_of(folder)]


def missing(folder: Path, destination: Destination, settings: Settings) -> list[Missing]:
    """Return what a push of `folder` would send, as far as sizes tell. Makes no request."""
    _, inventory = _look(folder, destination, settings)
    return [
        Missing(candidate.relpath, destination.path_in_repo(candidate.relpath), size)
        for candidate, size in inventory.missing()
    ]


def survey(folder: Path, destination: Destination, settings: Settings) -> Status:
    """Return how far `folder`, an absolute path without links, has come to `destination`. Makes no request.

    May be called while another process pushes; it then tells of one moment or another.
    """
    books, inventory = _look(folder, destination, settings)
    ledger = books.ledger
    trouble, stretched = TroubleFile.beside(ledger.path).read()
    named = dataclasses.replace(destination, repo_id=ledger.repo_id or destination.repo_id)
    if is_locked(books.lock_path):
        phase = Phase.PUSHING
    else:
        phase = Phase.WAITING if stretched or (trouble and trouble.until is not None) else Phase.IDLE
    return Status(folder, named, named.known_url, ledger.commit, inventory.pending(), phase, trouble, stretched)


def _look(folder: Path, destination: Destination, settings: Settings) -> tuple[Books, Inventory]:
    once = Once()
    books = Books(folder, destination, once)
    # A ledger that cannot be read means that nothing is known to have arrived, and so all is missing.
    with contextlib.suppress(LedgerError, OSError):
        books.ledger.refresh()
    return books, Inventory(folder, settings, books.ledger, once)


def _below(root: Path) -> Iterator[Path]:
    for folder, subfolders, _ in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in subfolders:
            # Not by the method of a Path, which raises for a folder that may not be looked into.
            if os.path.isdir(os.path.join(folder, name, STATE_FOLDER)):  # noqa: PTH112
                yield Path(folder, name)
