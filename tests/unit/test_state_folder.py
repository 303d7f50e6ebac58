"""State files must be regular files of this user; no link is followed and no foreign file deleted."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from hf_summary_writer.folder import disk, push_lock
from hf_summary_writer.folder.disk import STATE_FOLDER, StateFolder, new_temporary, read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

ABANDONED = "tmp-" + "0" * 32


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    state = StateFolder(tmp_path / "run" / STATE_FOLDER)
    state.root.mkdir()
    with state.opened(create=True):
        return state


def as_another_user() -> None:
    if os.geteuid():
        pytest.skip("only root may give a file away")


@pytest.mark.faults("D18")
def test_a_lock_that_could_not_be_unlocked_at_once_is_free_again(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, failed = fcntl.flock, list[int]()

    def fail_once(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_UN and not failed:
            failed.append(descriptor)
            raise OSError(errno.EIO, "disk error")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", fail_once)
    for _ in range(2):
        with push_lock(state) as unusable:
            assert unusable is None
    assert failed


@pytest.mark.faults("S12")
@pytest.mark.parametrize("part", [".cache", ".cache/huggingface", str(STATE_FOLDER)])
def test_a_linked_state_folder_is_neither_read_nor_written(tmp_path: Path, part: str) -> None:
    elsewhere, run = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir()
    write_json(elsewhere / STATE_FOLDER / "a.json", 1)
    (run / part).parent.mkdir(parents=True)
    (run / part).symlink_to(elsewhere / part)
    for step in (lambda: read_json(run / STATE_FOLDER / "a.json"), lambda: write_json(run / STATE_FOLDER / "b", 1)):
        with pytest.raises(NotADirectoryError, match="a link"):
            step()
    assert [path.name for path in (elsewhere / STATE_FOLDER).iterdir()] == ["a.json"]


@pytest.mark.faults("S12")
def test_links_pipes_and_files_of_others_are_never_read(state: StateFolder, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("1")
    (state.path / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(state.path / "pipe")
    (state.path / "folder").mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(OSError, match=r"symbolic links|not a regular file"):
            read_json(state.path / name)
    as_another_user()
    write_json(state.path / "theirs", 1)
    os.chown(state.path / "theirs", 12345, -1)
    with pytest.raises(PermissionError, match="another user"):
        read_json(state.path / "theirs")
    with pytest.raises(PermissionError, match="another user"):
        write_json(state.path / "theirs", 2)


@pytest.mark.faults("S12")
def test_a_link_in_place_of_a_state_file_is_replaced_and_not_followed(state: StateFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("years of work")
    (state.path / "a.json").symlink_to(outside)
    write_json(state.path / "a.json", {"b": 1})
    assert outside.read_text() == "years of work"
    assert read_json(state.path / "a.json") == {"b": 1}


@pytest.mark.parametrize("step", ["replace", "fstat", "open"])
def test_a_failed_write_leaves_only_the_old_file(
    state: StateFolder, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(state.path / "a.json", 1)
    before = set(state.path.iterdir())

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, step, fail)
        with pytest.raises(OSError, match="No space"):
            write_json(state.path / "a.json", 2)
    assert set(state.path.iterdir()) == before
    assert json.loads((state.path / "a.json").read_text()) == 1


def test_only_this_user_can_read_a_state_file(state: StateFolder) -> None:
    write_json(state.path / "a.json", 1)
    assert (state.path / "a.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.faults("S12")
def test_only_temporary_files_of_dead_processes_are_removed(state: StateFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("years of work")
    (state.path / ABANDONED).touch()
    kept = [f"tmp-{digit * 32}" for digit in "123"] + ["thesis.tmp", "tmp-1"]
    (state.path / kept[0]).symlink_to(outside)
    (state.path / kept[1]).mkdir()
    for name in kept[2:]:
        (state.path / name).touch()
    with (state.path / kept[2]).open("rb") as live:
        fcntl.flock(live, fcntl.LOCK_EX)
        state.sweep()
    assert sorted(path.name for path in state.path.iterdir()) == sorted(kept)
    assert outside.read_text() == "years of work"


def test_a_new_temporary_file_is_not_swept_while_it_is_written(state: StateFolder) -> None:
    with state.opened() as folder:
        name, file = new_temporary(folder)
        with file:
            state.sweep()
            assert (state.path / name).exists()
    state.sweep()
    assert not (state.path / name).exists()


def test_pipes_and_files_of_others_are_never_removed(state: StateFolder) -> None:
    os.mkfifo(state.path / ABANDONED)
    state.sweep()
    state.remove(ABANDONED)
    assert (state.path / ABANDONED).exists()
    as_another_user()
    (state.path / ABANDONED).unlink()
    (state.path / ABANDONED).touch()
    os.chown(state.path / ABANDONED, 12345, -1)
    state.sweep()
    state.remove(ABANDONED)
    assert (state.path / ABANDONED).exists()


def test_a_temporary_file_that_cannot_be_removed_keeps_no_other(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"tmp-{digit * 32}" for digit in "0123"]
    for name in names:
        (state.path / name).touch()
    unlink, tried = os.unlink, []

    def fail_once(name: str, **options: int) -> None:
        tried.append(name)
        if len(tried) == 1:
            raise OSError(errno.EBUSY, "Device or resource busy")
        unlink(name, **options)

    monkeypatch.setattr(os, "unlink", fail_once)
    state.sweep()
    assert sorted(tried) == names
    assert [path.name for path in state.path.iterdir()] == tried[:1]


def test_no_descriptor_is_left_open(state: StateFolder, tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "pipe").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.txt").touch()
    os.mkfifo(state.path / "pipe")
    lowest = os.open(tmp_path, os.O_RDONLY)  # a new descriptor is the lowest one that is free
    os.close(lowest)
    disk.regular_file(str(tmp_path), "a/b/c.txt").close()
    with pytest.raises(OSError, match="not a regular file"):
        disk.regular_file(str(tmp_path), "a/b/pipe")
    with pytest.raises(OSError, match="not a regular file"):
        state.open("pipe")
    write_json(state.path / "a.json", 1)
    state.names(".json")
    now = os.open(tmp_path, os.O_RDONLY)
    os.close(now)
    assert now == lowest


def test_a_failing_disk_raises_no_other_error_than_that_of_the_state_file(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    fsync = os.fsync
    monkeypatch.setattr(os, "rename", fail)
    state.set_aside("missing", "1")
    # Not every file system can sync a folder.
    monkeypatch.setattr(os, "fsync", lambda each: fail() if stat.S_ISDIR(os.fstat(each).st_mode) else fsync(each))
    state.write("a.json", b"1", durable=True)
    assert read_json(state.path / "a.json") == 1


def test_a_file_system_that_gives_all_files_one_owner_is_accepted(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(state.path / "a.json", 1)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    assert read_json(state.path / "a.json") == 1
    assert [path.name for path in state.path.iterdir()] == ["a.json"]
