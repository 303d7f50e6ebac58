"""One folder on this disk: its changed files, their stable content, the ledger, the lease. Knows no network."""

from __future__ import annotations

from hf_summary_writer.folder.copies import most_open_files
from hf_summary_writer.folder.disk import STATE_FOLDER, StateFolder, WarnOnce
from hf_summary_writer.folder.lease import (
    PUSH_LOCK,
    Lease,
    is_locked,
    new_lock,
    owner_above,
    prepare_for_forks,
    push_lock,
)
from hf_summary_writer.folder.ledger import CommitRecord, Ledger, LedgerEntry, LedgerError, ledgers_of
from hf_summary_writer.folder.patterns import PathFilter
from hf_summary_writer.folder.scan import NO_EVENT_BYTES, ChangedFile, FolderScan, Inventory, Pending
from hf_summary_writer.folder.snapshot import FileSnapshot, SkipReason, SnapshotReader, is_event_file

__all__ = [
    "NO_EVENT_BYTES",
    "PUSH_LOCK",
    "STATE_FOLDER",
    "ChangedFile",
    "CommitRecord",
    "FileSnapshot",
    "FolderScan",
    "Inventory",
    "Lease",
    "Ledger",
    "LedgerEntry",
    "LedgerError",
    "PathFilter",
    "Pending",
    "SkipReason",
    "SnapshotReader",
    "StateFolder",
    "WarnOnce",
    "is_event_file",
    "is_locked",
    "ledgers_of",
    "most_open_files",
    "new_lock",
    "owner_above",
    "prepare_for_forks",
    "push_lock",
]
