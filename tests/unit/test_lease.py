"""One owner pushes a folder, and the files below it that its patterns include."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import pytest

from hf_summary_writer.config import PushConfig
from hf_summary_writer.errors import FolderBusyError
from hf_summary_writer.folder.disk import STATE_FOLDER, StateFolder
from hf_summary_writer.folder.lease import PUSH_LOCK, Lease, is_locked, new_lock, owner_above, push_lock

CONFIG = PushConfig(repo_id="run", endpoint="https://hub")
ALL_FILES = replace(CONFIG, allow_patterns=None)


def lease(folder: Path, config: PushConfig = CONFIG, *, waits: bool = False, covers_below: bool = False) -> Lease:
    return Lease(folder, config, waits=waits, covers_below=covers_below)


def test_one_of_two_owns_a_folder_until_it_gives_it_back(tmp_path: Path) -> None:
    first, second = lease(tmp_path), lease(tmp_path)
    assert first.claim("run")
    assert first.held
    assert first.may_claim()
    assert not first.is_held_elsewhere
    assert not second.may_claim()
    assert not second.claim("run")
    first.release()
    assert not first.held
    assert second.may_claim()
    assert second.claim("run")
    assert second.held


def test_a_lease_can_be_given_back_in_another_thread(tmp_path: Path) -> None:
    first = lease(tmp_path)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(first.claim, "run").result()
        assert not lease(tmp_path).may_claim()
        first.release()
        assert lease(tmp_path).may_claim()


def test_only_a_lease_of_another_process_is_held_elsewhere(tmp_path: Path) -> None:
    first, second = lease(tmp_path), lease(tmp_path)
    first.claim("run")
    assert not second.is_held_elsewhere
    first.release()
    with new_lock(first._lock_path):  # as another process holds it
        assert second.is_held_elsewhere
    assert not second.is_held_elsewhere


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_the_lease_of_a_parent_is_held_elsewhere_for_a_forked_child(tmp_path: Path) -> None:
    of_parent = lease(tmp_path)
    of_parent.claim("run")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if lease(tmp_path).is_held_elsewhere else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert of_parent.held


def test_another_rank_leaves_the_first_interval_to_others(tmp_path: Path) -> None:
    rank = lease(tmp_path, waits=True)
    assert [rank.may_claim() for _ in range(3)] == [False, True, True]


@pytest.mark.parametrize(
    ("owner", "mine"),
    [(ALL_FILES, CONFIG), (CONFIG, CONFIG), (replace(ALL_FILES, ignore_patterns=("a",)),) * 2],
)
def test_an_owner_whose_patterns_include_ours_is_left_alone(
    tmp_path: Path, owner: PushConfig, mine: PushConfig
) -> None:
    holder = lease(tmp_path, owner)
    assert holder.claim("run")
    assert not lease(tmp_path, mine).may_claim()
    assert not lease(tmp_path, mine).claim("run")


@pytest.mark.parametrize("mine", [ALL_FILES, replace(CONFIG, ignore_patterns=("a",))])
def test_an_owner_of_other_files_stops_nobody(tmp_path: Path, mine: PushConfig) -> None:
    owner = lease(tmp_path)
    assert owner.claim("run")
    assert lease(tmp_path, mine).may_claim()
    assert lease(tmp_path, mine).claim("run")


@pytest.mark.parametrize("written", ["", "[]", "{}", '{"allow": 5, "ignore": null}'])
def test_an_owner_whose_file_cannot_be_read_counts_as_one_of_all_files(tmp_path: Path, written: str) -> None:
    owner = lease(tmp_path)
    assert owner.claim("run")
    [file] = (tmp_path / STATE_FOLDER).glob("*.lease.json")
    file.write_text(written)
    assert not lease(tmp_path, ALL_FILES).may_claim()


def test_a_lease_on_a_folder_that_was_recreated_is_claimed_again(tmp_path: Path) -> None:
    first = lease(tmp_path)
    assert first.claim("run")
    state = tmp_path / STATE_FOLDER
    state.rename(tmp_path / "old")
    second = lease(tmp_path)
    assert second.claim("run")
    assert not first.held
    assert not first.claim("run")
    second.release()
    assert first.claim("run")
    assert first.held
    assert [path.suffix for path in sorted(state.iterdir())] == [".json", ".lock"]


def test_a_lease_names_the_repo_as_given_and_in_full(tmp_path: Path) -> None:
    first = lease(tmp_path)
    for repo_id, ids in (("run", ["run"]), ("user/run", ["run", "user/run"])):
        assert first.claim(repo_id)
        [file] = (tmp_path / STATE_FOLDER).glob("*.lease.json")
        assert json.loads(file.read_text())["repo_ids"] == ids
        file.unlink()
        assert first.claim(repo_id)
        assert json.loads(file.read_text())["repo_ids"] == ids


def no_locks(*_: object, **__: object) -> None:
    raise NotImplementedError("no locks here")


def no_disk(*_: object, **__: object) -> None:
    raise OSError("no disk here")


@pytest.mark.parametrize("fail", [no_locks, no_disk])
def test_without_locks_everybody_may_push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Any) -> None:
    with push_lock(StateFolder(tmp_path)) as unusable:
        assert unusable is None
    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    assert not is_locked(tmp_path / PUSH_LOCK)
    assert lease(tmp_path).claim("run")
    assert lease(tmp_path).claim("run")
    with push_lock(StateFolder(tmp_path)) as unusable:
        assert str(unusable).endswith("here")


def test_only_one_pushes_at_a_time(tmp_path: Path) -> None:
    with push_lock(StateFolder(tmp_path)):
        assert is_locked(tmp_path / PUSH_LOCK)
        assert (tmp_path / PUSH_LOCK).stat().st_mode & 0o077 == 0
        with pytest.raises(FolderBusyError), push_lock(StateFolder(tmp_path)):
            pass
    assert not is_locked(tmp_path / PUSH_LOCK)


def test_a_look_at_a_lock_creates_no_file_and_frees_it(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "x.lock")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x.lock").touch()
    assert not is_locked(tmp_path / "x.lock")
    assert not is_locked(tmp_path / "x.lock")


def test_a_process_with_many_open_files_pushes_without_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    os.close(descriptor)
    monkeypatch.setattr("hf_summary_writer.folder.lease.most_open_files", lambda: descriptor // 2)
    first = lease(tmp_path)
    assert first.claim("run")
    assert not first.held
    monkeypatch.setattr("hf_summary_writer.folder.lease.most_open_files", lambda: descriptor)
    assert first.claim("run")
    assert first.held


DESTINATION = CONFIG.destination


@pytest.mark.parametrize("above", ["run", ".", ".."])
def test_an_owner_above_takes_a_folder_along(tmp_path: Path, above: str) -> None:
    run = tmp_path / "runs" / "run"
    run.mkdir(parents=True)
    folder = {"run": run, ".": run.parent, "..": tmp_path}[above]
    owner = lease(folder, replace(CONFIG, path_in_repo="elsewhere"), covers_below=True)
    assert owner.claim("user/run")
    assert owner_above(run, DESTINATION, "run") == folder
    owner.release()
    assert owner_above(run, DESTINATION, "run") is None


@pytest.mark.parametrize(
    ("owners", "mine", "known", "is_same"),
    [
        ("run", "run", "run", True),
        ("run", "run", "user/run", True),
        ("user/run", "run", "user/run", True),
        ("user/run", "run", "run", False),
        ("user/run", "other/run", "other/run", False),
    ],
)
def test_an_owner_above_may_know_the_repo_by_its_full_name(
    tmp_path: Path, owners: str, mine: str, known: str, is_same: bool
) -> None:
    owner = lease(tmp_path, replace(CONFIG, repo_id=owners), covers_below=True)
    assert owner.claim(owners)
    where = replace(CONFIG, repo_id=mine).destination
    assert owner_above(tmp_path / "run", where, known) == (tmp_path if is_same else None)


@pytest.mark.parametrize(
    "differs",
    [
        {"endpoint": "https://hub2"},
        {"repo_type": "dataset"},
        {"revision": "dev"},
        {"allow_patterns": ("*.txt",)},
        {"ignore_patterns": ("*run*",)},
    ],
    ids=str,
)
def test_an_owner_above_that_pushes_elsewhere_takes_nothing_along(tmp_path: Path, differs: dict[str, Any]) -> None:
    owner = lease(tmp_path, replace(CONFIG, **differs), covers_below=True)
    assert owner.claim("run")
    assert owner_above(tmp_path / "run", DESTINATION, "run") is None


def test_a_run_above_takes_nothing_along(tmp_path: Path) -> None:
    owner = lease(tmp_path)
    assert owner.claim("run")
    assert owner_above(tmp_path / "run", DESTINATION, "run") is None


@pytest.mark.parametrize("written", ["", "[]", "{}", "[" * 100_000, '{"covers_below": true}'], ids=len)
def test_a_malformed_lease_above_is_passed_over(tmp_path: Path, written: str) -> None:
    state = tmp_path / STATE_FOLDER
    state.mkdir(parents=True)
    (state / "0.lease.json").write_text(written)
    (state / "1.lease.json").mkdir()
    owner = lease(tmp_path, covers_below=True)
    assert owner.claim("run")
    assert owner_above(tmp_path / "run", DESTINATION, "run") == tmp_path


def test_a_disk_that_fails_above_takes_nothing_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", no_disk)
    assert owner_above(tmp_path / "run", DESTINATION, "run") is None
