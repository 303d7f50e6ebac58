"""How far a folder has been pushed, from its state files alone."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_summary_writer.errors import describe
from hf_summary_writer.folder import (
    PUSH_LOCK,
    STATE_FOLDER,
    FolderScan,
    Inventory,
    Ledger,
    LedgerError,
    PathFilter,
    StateFolder,
    WarnOnce,
    disk,
    is_event_file,
    is_locked,
    ledgers_of,
)
from hf_summary_writer.hub import one_line
from hf_summary_writer.notices import counted
from hf_summary_writer.process import is_running
from hf_summary_writer.push.run_state import iso
from hf_summary_writer.push.timetable import Phase, Throttled

if TYPE_CHECKING:
    from collections.abc import Callable

    from hf_summary_writer.config import Destination, PushConfig
    from hf_summary_writer.folder import CommitRecord, Pending
    from hf_summary_writer.push.timetable import State

# Grace period in seconds after the announced retry; later, the process counts as gone.
_LATE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class LastFailure:
    """The last error and the time of the next attempt.

    Attributes:
        error: One line with the error and its remedy.
        since: When pushes began to fail (seconds since the epoch).
        until: The time of the next attempt; `None` if there is none, since the process has ended or given up.
    """

    error: str
    since: float
    until: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """The upload status of a folder.

    Attributes:
        folder: The folder on this disk.
        destination: The destination; its `repo_id` has a namespace once that is known from the Hub.
        url: The page that shows the logs; `None` until the repo's full name is known from the Hub.
        commit: The last commit that the Hub acknowledged: its `oid`, `url` and `time` (seconds since the epoch).
        pending: The data that is not on the Hub yet: the number of `files` that wait for a push, of further files that
            the Hub `refused` when this process sent them, the `bytes` of both, when the `oldest` was last written
            (seconds since the epoch), and the number of folders that are `unlisted`, since they cannot be read.
        phase: `idle`, `pushing`, `waiting` after a failed push, or `stopped` if this process does not push.
        failure: Why the last push failed; `None` if it did not.
        throttled: If pushes are less frequent than configured: the `seconds` between them, and `why`.
    """

    folder: Path
    destination: Destination
    url: str | None
    commit: CommitRecord | None
    pending: Pending
    phase: Phase
    failure: LastFailure | None
    throttled: Throttled | None

    @property
    def all_arrived(self) -> bool:
        """Whether the whole folder is on the Hub."""
        return self.pending.nothing

    def as_dict(self) -> dict[str, Any]:
        """Return the status as a dictionary for JSON, with times as ISO 8601 in UTC."""
        failure, commit, throttled = self.failure, self.commit, self.throttled
        return {
            "folder": str(self.folder),
            "destination": dataclasses.asdict(self.destination),
            "url": self.url,
            "commit": commit and {"oid": commit.oid, "url": commit.url, "time": iso(commit.time)},
            "pending": {**dataclasses.asdict(self.pending), "oldest": iso(self.pending.oldest)},
            "phase": self.phase.value,
            "waiting_until": iso(failure.until) if failure else None,
            "error": failure.error if failure else None,
            "error_since": iso(failure.since) if failure else None,
            "throttled_interval": throttled.seconds if throttled else None,
            "throttled_because": throttled.why if throttled else None,
        }


class Report(NamedTuple):
    """The error and the throttling of the process that pushes, if any."""

    failure: LastFailure | None = None
    throttled: Throttled | None = None


class StatusFile:
    """The file in which the process that pushes reports a failure or a wait in the commit queue to others.

    Not thread-safe: its owner writes it from the thread that pushes.

    Args:
        path: The file.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._since: float | None = None
        self._may_exist = True

    @classmethod
    def beside(cls, ledger: Path) -> StatusFile:
        """Return the one that belongs to a ledger."""
        return cls(ledger.with_suffix(".status.json"))

    def report(self, state: State) -> Report:
        """Return the report of this process."""
        return Report(self._failure(state), state.throttled)

    def _failure(self, state: State) -> LastFailure | None:
        if state.error is None:
            return None
        now = time.time()
        until = now + state.seconds if state.phase is Phase.WAITING else None
        return LastFailure(one_line(describe(state.error)), self._since or now, until)

    def note(self, state: State) -> None:
        """Write the result of a push to the file."""
        # The push has reported errors of the disk already, and this file is only a convenience.
        with contextlib.suppress(OSError):
            report = self.report(state)
            self._since = report.failure.since if report.failure else None
            if any(report):
                self._write(report, state.seconds)
            elif self._may_exist:
                disk.StateFolder(self.path.parent).remove(self.path.name)
                self._may_exist = False

    def read(self) -> Report:
        """Read the file; return an empty report if it is missing or invalid."""
        try:
            said = disk.read_json(self.path)
            until = None if said["until"] is None else disk.seconds(said["until"])
            if until is not None and (until < time.time() - _LATE_SECONDS or not _runs(said["host"], said["pid"])):
                until = None
            error, throttled = said["error"], said["throttled"]
            return Report(
                None if error is None else LastFailure(disk.text(error), disk.seconds(said["since"]), until),
                None
                if throttled is None or until is None
                else Throttled(disk.seconds(throttled[0]), disk.text(throttled[1])),
            )
        except (OSError, *disk.MALFORMED):
            return Report()

    def _write(self, report: Report, seconds: float) -> None:
        failure = report.failure
        said = {
            "error": failure and failure.error,
            "since": failure and failure.since,
            "until": failure.until if failure else time.time() + seconds,
            "throttled": report.throttled,
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }
        disk.write_json(self.path, said)
        self._may_exist = True


def _runs(host: str, pid: int) -> bool:
    """Return whether a process may still run, as every process of another machine may."""
    return host != socket.gethostname() or is_running(pid)


@dataclass(frozen=True, slots=True)
class Missing:
    """A file that a push would send: its path in the folder and in the repo, and how many bytes the Hub lacks."""

    path: str
    path_in_repo: str
    bytes: int


class Inspection(NamedTuple):
    """The result of one scan of a folder.

    Attributes:
        status: The upload status of the folder.
        missing: The files that a push would send, as far as sizes tell.
        links_out: Links to folders, or to files that the patterns include, that no push of the folder follows.
    """

    status: Status
    missing: list[Missing]
    links_out: set[str]


def known_folders(root: Path, warn: Callable[[str, str], object]) -> list[tuple[Path, Ledger]]:
    """Return the folders that were pushed, or were to be, and their ledgers: `root` itself, or else those below.

    Args:
        root: The folder, an absolute path without links.
        warn: Called, as `WarnOnce.warn`, for each folder that is left out.
    """
    found = [(root, ledger) for ledger in ledgers_of(root, warn)]
    if found:
        return found

    def unlisted(error: OSError) -> None:
        warn("unlisted", f"{error.filename!a} is left out: it cannot be listed: {error.strerror}")

    pushed: set[Path] = set()  # by themselves, or from above
    unknown = []
    for path, subfolders, names in os.walk(root, onerror=unlisted):
        folder = Path(path)
        subfolders[:] = _of_runs(path, subfolders)
        # Runs of this user that are kept elsewhere, as on a larger disk; the walk itself enters no links.
        linked = [folder / name for name in subfolders if _is_run_elsewhere(path, name, root)]
        for each in (folder, *linked) if folder != root else linked:
            found += [(each, ledger) for ledger in ledgers_of(each, warn)]
        if folder.parent in pushed or _has_ledger(folder):
            pushed.add(folder)
        elif any(map(is_event_file, names)):
            unknown.append(folder)
    if found and unknown:
        others = f" and in {counted(len(unknown) - 1, 'other folder')}" if unknown[1:] else ""
        warn("unknown", f"the event files in {unknown[0]}{others} were never pushed from here: sync them with REPO_ID")
    return found


def matches_nothing(folder: Path, config: PushConfig) -> bool:
    """Return whether no file of `folder` is one that `config` means."""
    chosen = PathFilter(config.allow_patterns, config.ignore_patterns)
    try:
        return next(iter(FolderScan(str(folder), chosen)), None) is None
    except OSError:
        return False  # unknown


def inspect_folder(folder: Path, config: PushConfig, *, quiet: bool = False) -> Inspection:
    """Scan a folder, an absolute path without links, and return its upload status with `config`. Makes no request.

    The caller names the links out of the folder that are not followed.

    May be called while another process pushes; the status is then that of some moment during the push.

    Args:
        folder: The folder.
        config: The destination, and the patterns of the files.
        quiet: Whether to leave it to the push to warn of files that cannot be sent.
    """
    named = config.destination
    ledger = Ledger(folder / STATE_FOLDER / f"{named.key}.jsonl", named)
    # Without a readable ledger no file is known to be uploaded, so all are missing.
    with contextlib.suppress(LedgerError, OSError):
        ledger.refresh(sets_aside=False)
    if ledger.repo_id is not None:
        named = dataclasses.replace(named, repo_id=ledger.repo_id)
    failure, throttled = StatusFile.beside(ledger.path).read()
    if is_locked(folder / STATE_FOLDER / PUSH_LOCK):
        phase = Phase.PUSHING
    else:
        phase = Phase.WAITING if throttled or (failure and failure.until is not None) else Phase.IDLE
    inventory = Inventory(folder, config, ledger, WarnOnce(quiet=quiet), names_links=False)
    pending, files = inventory.missing()
    missing = [Missing(file.relpath, named.path_in_repo(file.relpath), size) for file, size in files]
    if failure and failure.until is None and pending.nothing and ledger.commit and ledger.commit.time > failure.since:
        failure = None  # another process, such as `sync`, has uploaded the rest since
    url = page_of(named, config, ledger)
    status = Status(folder, named, url, ledger.commit, pending, phase, failure, throttled)
    return Inspection(status, missing, inventory.links_out)


def page_of(destination: Destination, config: PushConfig, ledger: Ledger) -> str | None:
    """Return the page of the Hub that shows the files of a folder; `None` until the repo's full name is known.

    Args:
        destination: The destination, with the repo's full name if that is known.
        config: The patterns of the files.
        ledger: The files on the Hub.
    """
    # The tab for training metrics is empty without event files.
    holds_events = any(map(is_event_file, [*(config.allow_patterns or ()), *ledger.entries]))
    return destination.url if holds_events else destination.folder_url


def _of_runs(folder: str, subfolders: list[str]) -> list[str]:
    """Return the sub-folders that may be or hold runs, sorted: of hidden ones, those that are runs themselves."""
    return sorted(name for name in subfolders if not name.startswith(".") or _has_state(folder, name))


def _has_state(folder: str, name: str) -> bool:
    # Not by the method of a Path, which raises for a folder that may not be looked into.
    return os.path.isdir(os.path.join(folder, name, STATE_FOLDER))  # noqa: PTH112


def _is_run_elsewhere(folder: str, name: str, root: Path) -> bool:
    path = os.path.join(folder, name)
    return os.path.islink(path) and _has_state(folder, name) and root not in Path(os.path.realpath(path)).parents  # noqa: PTH114


def _has_ledger(folder: Path) -> bool:
    # Not every state folder has one: a writer leaves only the state of its run to a process that uploads it from above.
    try:
        return bool(StateFolder(folder / STATE_FOLDER).names(".jsonl"))
    except OSError:
        return True  # it is named already, because its ledgers cannot be listed
