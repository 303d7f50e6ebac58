"""The data that earlier runs beside a new one left unsent: named once for each process and folder of runs, or sent."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hf_summary_writer.checks import as_unicode
from hf_summary_writer.config import known_sync_command
from hf_summary_writer.errors import PushError
from hf_summary_writer.events import parse_name
from hf_summary_writer.folder import STATE_FOLDER, Inventory, StateFolder, WarnOnce, is_locked, ledgers_of
from hf_summary_writer.notices import amount, logger
from hf_summary_writer.process import is_running
from hf_summary_writer.push.once import sync

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from huggingface_hub import HfApi

    from hf_summary_writer.config import Destination, PushConfig
    from hf_summary_writer.folder import ChangedFile, Ledger
    from hf_summary_writer.push.job import Job

# Bounds of one look: entries of the folder of runs, the newest runs among them, and the time.
_MOST_ENTRIES = 5000
_MOST_RUNS = 100
_SECONDS = 10.0

# If it is unknown whether the writer of a file still runs, it is assumed to for so long after the last write.
_SECONDS_ALIVE = 3600.0

# Files that were created before belong to no run of this process, even if a process of the same number wrote them.
_LOADED_AT = int(time.time())

_looked_at: set[Path] = set()

_quiet = WarnOnce(quiet=True).warn


class _Leftover(NamedTuple):
    """The data that an earlier run left unsent.

    Attributes:
        folder: Its folder.
        config: Where it was to go, and how.
        files: The number of its files that the Hub lacks.
        bytes: The number of bytes.
    """

    folder: Path
    config: PushConfig
    files: int
    bytes: int


def look_for_leftovers(job: Job) -> None:
    """Name or send the unsent data of earlier runs beside a new one, in a thread of its own, since a disk may hang.

    Only the first call for runs in the same folder does anything.

    Args:
        job: The push of the new run. Runs of another Hub than its own are passed over: a folder alone is not trusted to
            name a Hub. With `push_leftovers` runs with a destination beside its own are sent.
    """
    parent = job.folder.parent
    if parent in _looked_at or parent == job.folder:
        return
    _looked_at.add(parent)
    thread = threading.Thread(target=_look, args=(job,), name="hf-summary-writer-leftovers", daemon=True)
    with contextlib.suppress(RuntimeError):  # the interpreter exits, or the system has no thread to give
        thread.start()


def _look(job: Job) -> None:
    folder, endpoint = job.folder, job.config.endpoint
    try:
        found = list(_leftovers(folder, endpoint))
        if job.config.push_leftovers:
            beside = job.full_destination
            found = [each for each in found if not (_goes_beside(each, beside) and _is_sent(each, job.remote.api))]
    except Exception:  # malformed folders of other runs are no failure of this one
        logger.debug("could not look for what earlier runs left unsent", exc_info=True)
        return
    if len(found) == 1:
        (only,) = found
        logger.warning(
            "Not all of the earlier run %s is in %s: %s missing. To send the rest: %s",
            only.folder,
            only.config.repo_id,
            amount(only.files, only.bytes),
            only.config.sync_command(only.folder, endpoint),
        )
    elif found:
        logger.warning(
            "%d earlier runs in %s are not all on the Hub: %s missing. To send the rest: %s",
            len(found),
            folder.parent,
            amount(sum(each.files for each in found), sum(each.bytes for each in found)),
            _command(folder.parent, found, endpoint),
        )


def _command(parent: Path, found: list[_Leftover], endpoint: str) -> str:
    if next(ledgers_of(parent, _quiet), None) is None:
        return known_sync_command(parent, endpoint)
    # A folder that was pushed as a whole would be so again.
    return " && ".join(each.config.sync_command(each.folder, endpoint) for each in found)


def _goes_beside(leftover: _Leftover, other: Destination) -> bool:
    """Return whether a run's destination has its own name and is beside `other`; its ledger is not trusted."""
    where = leftover.config.destination
    parent, slash, _ = other.path.rpartition("/")
    if where.path != f"{parent}{slash}{as_unicode(leftover.folder.name)}":
        return False
    # The name of a repo of the user's may lack the namespace.
    names = {where.repo_id.rpartition("/")[2], other.repo_id.rpartition("/")[2]}
    spaces = {where.repo_id.rpartition("/")[0], other.repo_id.rpartition("/")[0]} - {""}
    same_repo = len(names) == 1 and len(spaces) <= 1
    return same_repo and (where.repo_type, where.revision) == (other.repo_type, other.revision)


def _is_sent(leftover: _Leftover, api: HfApi) -> bool:
    try:
        synced = sync(leftover.folder, leftover.config, api)
    except PushError as error:
        logger.debug("%s could not be sent: %s", leftover.folder, error)
        return False
    return synced.error is None and not synced.missing


def _leftovers(folder: Path, endpoint: str) -> Iterator[_Leftover]:
    until = time.monotonic() + _SECONDS
    for run in _runs_beside(folder):
        if time.monotonic() > until:
            return
        for ledger in ledgers_of(run, _quiet):
            config = ledger.known_config
            if config.endpoint == endpoint and not _is_pushed(run, ledger):
                inventory = Inventory(run, config, ledger, WarnOnce(quiet=True))
                _, missing = inventory.missing()
                if missing and not _is_written(file for file, _ in missing):
                    yield _Leftover(run, config, len(missing), sum(size for _, size in missing))


def _runs_beside(folder: Path) -> list[Path]:
    """Return the newest folders beside `folder` that were pushed, or were to be."""
    dated = []
    with contextlib.suppress(OSError), os.scandir(folder.parent) as entries:
        for entry in itertools.islice(entries, _MOST_ENTRIES):
            with contextlib.suppress(OSError):
                # Links lead anywhere.
                if entry.path != str(folder) and entry.is_dir(follow_symlinks=False):
                    dated.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
    newest = heapq.nlargest(_MOST_RUNS, dated)
    return [Path(path) for _, path in newest if os.path.isdir(os.path.join(path, STATE_FOLDER))]  # noqa: PTH112


def _is_pushed(run: Path, ledger: Ledger) -> bool:
    """Return whether a process pushes a folder, or holds a lease of it."""
    locks = StateFolder(ledger.path.parent).names(".lock")
    return any(is_locked(run / STATE_FOLDER / name) for name in locks)


def _is_written(files: Iterable[ChangedFile]) -> bool:
    """Return whether a process that wrote one of the files may still run."""
    return any(map(_may_grow, files))


def _may_grow(file: ChangedFile) -> bool:
    name = parse_name(file.relpath)
    if name is not None and name.is_of_this_host:
        if name.pid == os.getpid():
            return name.created >= _LOADED_AT
        return is_running(name.pid)
    return time.time() - file.signature.written < _SECONDS_ALIVE
