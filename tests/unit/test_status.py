"""The upload status of folders, from their state files alone."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from hf_summary_writer.config import PushConfig
from hf_summary_writer.errors import ActionNeededError, TemporaryError
from hf_summary_writer.folder import PUSH_LOCK, STATE_FOLDER, CommitRecord, Ledger, StateFolder, push_lock
from hf_summary_writer.push import Phase, StatusFile, inspect_folder, known_folders, matches_nothing
from hf_summary_writer.push.timetable import State, Throttled

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = PushConfig(repo_id="run", endpoint="https://hub", path_in_repo="logs")
EVENTS = "events.out.tfevents.1.host"
WAITING = State(Phase.WAITING, 60.0, TemporaryError("no route"))
THROTTLED = Throttled(600.0, "shared with others")


@pytest.fixture
def file(tmp_path: Path) -> StatusFile:
    return StatusFile(tmp_path / STATE_FOLDER / "x.status.json")


def test_an_error_is_read_by_other_processes_until_a_push_succeeds(file: StatusFile) -> None:
    before = time.time()
    file.note(WAITING)
    failure, throttled = StatusFile(file.path).read()
    assert failure is not None
    assert (failure.error, throttled) == ("no route", None)
    assert before <= failure.since <= time.time()
    assert failure.until is not None
    assert before + 60 <= failure.until <= time.time() + 60
    time.sleep(0.001)
    file.note(State(Phase.STOPPED, 60.0, ActionNeededError("the token\nis \x1b[31mwrong")))
    later = StatusFile(file.path).read().failure
    assert later is not None
    assert (later.since, later.until) == (failure.since, None)
    assert "\n" not in later.error
    assert "\x1b" not in later.error
    file.note(State(Phase.IDLE))
    assert not any(StatusFile(file.path).read())
    assert not file.path.exists()
    time.sleep(0.001)
    file.note(WAITING)
    again = file.read().failure
    assert again is not None
    assert again.since > failure.since


def test_a_throttled_push_is_read_by_other_processes(file: StatusFile) -> None:
    file.note(State(Phase.WAITING, 60.0, throttled=THROTTLED))
    assert tuple(file.read()) == (None, THROTTLED)


@pytest.mark.parametrize("ended", [True, False])
def test_a_process_that_has_ended_or_is_late_waits_no_more(file: StatusFile, ended: bool) -> None:
    file.note(replace(WAITING, throttled=THROTTLED))
    said = json.loads(file.path.read_text())
    if ended:
        with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
            process.wait()
        said["pid"] = process.pid
    else:
        said["until"] = time.time() - 10
    file.path.write_text(json.dumps(said))
    failure, throttled = file.read()
    assert failure is not None
    assert (failure.error, failure.until, throttled) == ("no route", None, None)
    if ended:  # of a process of another machine nothing is known
        file.path.write_text(json.dumps({**said, "host": f"not-{socket.gethostname()}"}))
        assert all(file.read())


@pytest.mark.parametrize(
    "change",
    [
        {"error": 5},
        {"error": "\x1b[31m"},
        {"since": "yesterday"},
        {"until": -1},
        {"pid": "x"},
        {"throttled": ["x", "y"]},
        {"throttled": [1.0, 5]},
    ],
    ids=str,
)
def test_an_invalid_status_file_says_nothing(file: StatusFile, change: dict[str, Any]) -> None:
    file.note(replace(WAITING, throttled=THROTTLED))
    assert all(file.read())
    file.path.write_text(json.dumps({**json.loads(file.path.read_text()), **change}))
    assert not any(file.read())


def test_a_status_file_that_is_missing_or_cannot_be_written_raises_nothing(file: StatusFile, tmp_path: Path) -> None:
    assert not any(file.read())
    (tmp_path / ".cache").touch()
    for state in (WAITING, State(Phase.IDLE)):
        file.note(state)
    assert not any(file.read())


def ledger_in(folder: Path, config: PushConfig = CONFIG) -> Ledger:
    """Return the ledger of a folder with an event file that was pushed before."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / EVENTS).write_bytes(b"events")
    ledger = Ledger(folder / STATE_FOLDER / f"{config.destination.key}.jsonl", config.destination)
    ledger.record({}, CommitRecord("1", "https://hub/commit/1", 1000.0))
    return ledger


def test_a_folder_that_was_never_pushed_is_pending(tmp_path: Path) -> None:
    (tmp_path / EVENTS).write_bytes(b"events")
    status, missing, links = inspect_folder(tmp_path, CONFIG)
    assert (status.commit, status.url, status.phase, status.all_arrived) == (None, None, Phase.IDLE, False)
    assert (status.pending.files, status.pending.bytes) == (1, 6)
    assert [(each.path, each.path_in_repo, each.bytes) for each in missing] == [(EVENTS, f"logs/{EVENTS}", 6)]
    assert links == set()
    assert not (tmp_path / STATE_FOLDER).exists()


def test_the_repo_has_its_full_name_once_it_is_known(tmp_path: Path) -> None:
    ledger = ledger_in(tmp_path)
    assert inspect_folder(tmp_path, CONFIG).status.destination == CONFIG.destination
    ledger.record_repo("user/run")
    status = inspect_folder(tmp_path, CONFIG).status
    assert (status.destination.repo_id, status.url) == ("user/run", "https://hub/user/run/tensorboard")


@pytest.mark.parametrize("quiet", [True, False])
def test_files_that_cannot_be_sent_are_named_unless_a_push_names_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, quiet: bool
) -> None:
    (tmp_path / f"{EVENTS}\\x").touch()
    inspect_folder(tmp_path, CONFIG, quiet=quiet)
    assert bool(caplog.messages) is not quiet


def test_the_phase_is_that_of_the_process_that_pushes(tmp_path: Path) -> None:
    ledger = ledger_in(tmp_path)
    file = StatusFile.beside(ledger.path)
    for state, phase in (
        (WAITING, Phase.WAITING),
        (State(Phase.STOPPED, error=TemporaryError("x")), Phase.IDLE),
        (State(Phase.WAITING, 60.0, throttled=THROTTLED), Phase.WAITING),
        (State(Phase.IDLE), Phase.IDLE),
    ):
        file.note(state)
        assert inspect_folder(tmp_path, CONFIG).status.phase is phase
    with push_lock(StateFolder(tmp_path / STATE_FOLDER)):
        assert inspect_folder(tmp_path, CONFIG).status.phase is Phase.PUSHING
    assert (tmp_path / STATE_FOLDER / PUSH_LOCK).exists()


def test_an_unreadable_ledger_counts_every_file_as_pending(tmp_path: Path) -> None:
    ledger = ledger_in(tmp_path)
    assert inspect_folder(tmp_path, CONFIG).status.commit is not None
    ledger.path.write_text("nonsense\n")
    status = inspect_folder(tmp_path, CONFIG).status
    assert (status.commit, status.pending.files) == (None, 1)


def test_a_status_is_written_as_json(tmp_path: Path) -> None:
    ledger = ledger_in(tmp_path)
    StatusFile.beside(ledger.path).note(replace(WAITING, throttled=THROTTLED))
    found = json.loads(json.dumps(inspect_folder(tmp_path, CONFIG).status.as_dict()))
    assert found["commit"] == {"oid": "1", "url": "https://hub/commit/1", "time": "1970-01-01T00:16:40Z"}
    assert (found["phase"], found["error"], found["throttled_interval"]) == ("waiting", "no route", 600.0)
    assert found["throttled_because"] == "shared with others"
    assert found["error_since"] < found["waiting_until"]


def names(root: Path, warned: dict[str, str]) -> list[str]:
    return [folder.name for folder, _ in known_folders(root, lambda kind, line: warned.update({kind: line}))]


def test_a_folder_that_was_pushed_as_a_whole_stands_for_the_runs_in_it(tmp_path: Path) -> None:
    ledger_in(tmp_path / "runs" / "one")
    ledger_in(tmp_path / "runs")
    assert names(tmp_path / "runs", {}) == ["runs"]


def test_runs_in_a_folder_are_found_and_unknown_ones_are_named(tmp_path: Path) -> None:
    for name in ("b", "a", ".git/c"):
        ledger_in(tmp_path / name)
    warned: dict[str, str] = {}
    assert names(tmp_path, warned) == ["a", "b"]
    assert warned == {}
    for unknown in ("z/new", "other", "a/of/a/known/run", ".hidden"):
        (tmp_path / unknown).mkdir(parents=True)
        (tmp_path / unknown / EVENTS).touch()
    assert names(tmp_path, warned) == ["a", "b"]
    assert warned["unknown"].startswith(f"the event files in {tmp_path / 'other'} and in 1 other folder were never")


def test_a_folder_of_unknown_runs_alone_names_none(tmp_path: Path) -> None:
    (tmp_path / EVENTS).touch()
    warned: dict[str, str] = {}
    assert (names(tmp_path, warned), warned) == ([], {})


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that cannot be listed."""
    scandir = os.scandir
    locked = tmp_path / "locked"
    locked.mkdir()

    def refuse(folder: Any) -> Any:
        if str(folder).rstrip("/").endswith("locked"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    return locked


def test_a_folder_that_cannot_be_listed_is_named(locked: Path) -> None:
    warned: dict[str, str] = {}
    assert names(locked.parent, warned) == []
    assert warned == {"unlisted": f"{str(locked)!r} is left out: it cannot be listed: Permission denied"}


def test_only_a_folder_without_matching_files_matches_nothing(tmp_path: Path, locked: Path) -> None:
    assert not matches_nothing(locked, CONFIG)
    assert matches_nothing(tmp_path, CONFIG)
    (tmp_path / EVENTS).touch()
    assert not matches_nothing(tmp_path, CONFIG)
    assert matches_nothing(tmp_path, replace(CONFIG, allow_patterns=("*.txt",)))
