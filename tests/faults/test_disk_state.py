"""Without a usable state folder, or with a damaged one, all files are uploaded and no foreign ones."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import remote
from events import wait_until
from faults.conftest import fill_up
from faults.proxy import Answer, Delay, Pass
from faults.rights import an_ordinary_user
from hf_summary_writer.errors import RepoGoneError, TemporaryError
from hf_summary_writer.events.tfrecord import frame
from hf_summary_writer.folder.disk import STATE_FOLDER
from hf_summary_writer.folder.ledger import Ledger, ledgers_of
from hf_summary_writer.hub.repo import RepoRemote
from hf_summary_writer.push.batches import BatchLimits
from hf_summary_writer.push.push import Pusher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from huggingface_hub import HfApi

    from faults.conftest import World

RECORDS = frame(b"\x09\0\0\0\0\0\0\xf0\x3f\x1a\x0dbrain.Event:2") + frame(b"x" * 50)
NAME = "a.tfevents.1"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder in which no state can be written: the scheduler's path and a writable path."""

    seen: Path
    written: Path


@pytest.fixture(params=["read-only file system", "no rights", "a file in its place", "a folder for a lock"])
def unwritable(request: pytest.FixtureRequest, tmp_path: Path, folder: Path) -> Iterator[Place]:
    match request.param:
        case "read-only file system":
            seen = tmp_path / "mounted"
            seen.mkdir()
            for options in (["--bind", str(folder), str(seen)], ["-o", "remount,bind,ro", str(seen)]):
                mounted = subprocess.run(["mount", *options], check=False, capture_output=True)  # noqa: S607 - on PATH
                if mounted.returncode:
                    pytest.skip("may not mount")
            yield Place(seen, folder)
            subprocess.run(["umount", "--lazy", str(seen)], check=True)  # noqa: S607 - likewise
        case "no rights":
            (folder / NAME).touch()
            folder.chmod(0o500)
            with an_ordinary_user():
                yield Place(folder, folder)
            folder.chmod(0o700)
        case "a file in its place":
            (folder / ".cache").touch()
            yield Place(folder, folder)
        case _:
            (folder / STATE_FOLDER / "push.lock").mkdir(parents=True)
            yield Place(folder, folder)


@pytest.mark.faults("D2")
def test_without_a_state_folder_pushes_continue_from_memory_with_one_warning(
    world: World, api: HfApi, unwritable: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pusher, "limits", BatchLimits(bytes_in_memory=0))  # private copies need a folder too
    (unwritable.written / NAME).write_bytes(RECORDS)
    run = world.schedule(folder_path=unwritable.seen, allow_patterns="*.tfevents.*")
    run.next_commit()
    run.settle()
    before = world.proxy.requests
    assert run.push() is None
    assert world.proxy.requests == before
    with (unwritable.written / NAME).open("ab") as file:
        file.write(frame(b"y" * 50))
    assert run.push() is not None
    run.scheduler.close()
    assert remote.files(api, world.repo_id) == {NAME: RECORDS + frame(b"y" * 50)}
    assert [line for line in world.said(logging.WARNING) if "cannot be used" not in line] == []
    assert len(world.said(logging.WARNING)) == 1


@pytest.mark.faults("D2")
def test_a_full_disk_while_the_repo_is_gone_keeps_no_outdated_entries(
    world: World, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RepoRemote, "max_files", 1)
    for number in range(3):
        (world.folder / f"{number}.bin").write_bytes(b"%d" % number)
    run = world.schedule()
    run.settle()
    api.delete_repo(world.repo_id)
    (world.folder / "late.bin").write_bytes(b"late")
    with monkeypatch.context() as disk:
        disk.setattr(Ledger, "_rewrite", full)
        assert isinstance(run.fail(), RepoGoneError)
    api.create_repo(world.repo_id)
    world.proxy.add("POST", "/commit/", Pass())
    world.proxy.add("POST", "/commit/", Answer(503))
    assert isinstance(run.fail(), TemporaryError)
    run.scheduler.stop()
    [ledger] = ledgers_of(world.folder)  # as the next process reads it
    assert list(ledger.entries) == list(remote.files(api, world.repo_id))
    world.schedule().scheduler.close()
    assert remote.files(api, world.repo_id) == world.on_disk()


@pytest.mark.faults("D2")
def test_a_ledger_on_a_full_disk_causes_no_requests_and_is_completed_later(
    world: World, tiny_disk: Path, api: HfApi
) -> None:
    folder = tiny_disk / "run"
    folder.mkdir()
    (folder / "first.bin").write_bytes(b"1")
    run = world.schedule(folder_path=folder)
    run.next_commit()
    run.settle()
    for number in range(30):  # their ledger entries take more than one page of the disk
        (folder / f"{number:0100}.bin").write_bytes(b"2")
    ballast = tiny_disk / "ballast"
    fill_up(ballast)
    assert run.push() is not None
    before = len(world.proxy.requests)
    assert [run.push() for _ in range(3)] == [None] * 3
    assert len(world.proxy.requests) == before
    assert run.missing() == 0
    ballast.unlink()
    (folder / "last.bin").write_bytes(b"3")
    run.scheduler.close()
    assert remote.files(api, world.repo_id) == remote.under(folder, "", "*")
    assert ["cannot be used" in line for line in world.said(logging.WARNING)] == [True]
    [ledger] = ledgers_of(folder)
    assert len(ledger.entries) == 32


@pytest.mark.faults("D2")
def test_a_disk_that_fills_up_during_the_last_push_does_not_stop_it(
    world: World, tiny_disk: Path, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RepoRemote, "max_files", 25)
    folder = tiny_disk / "run"
    folder.mkdir()
    (folder / "first.bin").write_bytes(b"1")
    run = world.schedule(folder_path=folder)
    run.next_commit()
    run.settle()
    for number in range(50):
        (folder / f"{number:0100}.bin").touch()
    fill_up(tiny_disk / "ballast")
    run.scheduler.close()
    assert remote.files(api, world.repo_id) == remote.under(folder, "", "*")
    assert ["cannot be used" in line for line in world.said(logging.WARNING)] == [True]


def emptied(ledger: Path) -> None:
    ledger.write_bytes(b"")


def torn_in_the_middle(ledger: Path) -> None:
    ledger.write_bytes(ledger.read_bytes().replace(b'"length"', b'"len', 1))


def of_wrong_types(ledger: Path) -> None:
    ledger.write_bytes(ledger.read_bytes().replace(b'"signature":[', b'"signature":["', 1))


def huge(ledger: Path) -> None:
    os.truncate(ledger, 2**40)


def from_a_newer_version(ledger: Path) -> None:
    ledger.write_bytes(ledger.read_bytes().replace(b'"version":1', b'"version":7', 1))


def a_folder(ledger: Path) -> None:
    ledger.unlink()
    ledger.mkdir()


def a_fifo(ledger: Path) -> None:
    ledger.unlink()
    os.mkfifo(ledger)


def a_link_out_of_the_folder(ledger: Path) -> None:
    ledger.rename(ledger.parents[4] / "elsewhere")
    ledger.symlink_to(ledger.parents[4] / "elsewhere")


def about_files_outside(ledger: Path) -> None:
    outside = {"file": "../secret.tfevents.1", "signature": [0, 0, 9, 0], "length": 0}
    ledger.write_bytes(ledger.read_bytes() + json.dumps(outside).encode() + b"\n")


def about_somebody_elses_repo(ledger: Path) -> None:
    ledger.write_bytes(ledger.read_bytes() + b'{"repo":"tester/somebody-elses"}\n')


@pytest.mark.faults("D9")
@pytest.mark.parametrize(
    "damaged",
    [
        emptied,
        torn_in_the_middle,
        of_wrong_types,
        huge,
        from_a_newer_version,
        a_folder,
        a_fifo,
        a_link_out_of_the_folder,
        about_files_outside,
        about_somebody_elses_repo,
    ],
)
def test_a_damaged_ledger_is_set_aside_and_the_folder_compared_again(
    world: World, damaged: Callable[[Path], None], api: HfApi
) -> None:
    (world.folder.parent / "secret.tfevents.1").write_bytes(RECORDS)
    (world.folder / NAME).write_bytes(RECORDS)
    first = world.schedule()
    first.next_commit()
    first.scheduler.close()
    (ledger,) = (world.folder / STATE_FOLDER).glob("*.jsonl")
    damaged(ledger)

    second = world.schedule()
    second.settle()
    assert len(remote.commits(api, world.repo_id)) == 2  # the Hub's initial commit and the first scheduler's
    (world.folder / "b.tfevents.1").write_bytes(RECORDS)
    assert second.push() is not None
    second.scheduler.close()
    assert remote.files(api, world.repo_id) == {NAME: RECORDS, "b.tfevents.1": RECORDS}
    assert ["set aside" in line for line in world.said(logging.WARNING)] == [True]
    (kept,) = ledger.parent.glob("*.set-aside-*")
    if kept.is_file() and not kept.is_symlink():
        kept.unlink()  # `watch` would read a huge file

    third = world.schedule()
    third.settle()
    assert third.missing() == 0
    assert len(world.said(logging.WARNING)) == 1


@pytest.mark.client  # the client reports a commit in between
def test_a_crossing_commit_of_another_host_is_corrected(world: World, api: HfApi) -> None:
    """Two commits cross, since locks are not shared with the other host: theirs, with less data, is made after ours."""
    (world.folder / NAME).write_bytes(RECORDS)
    run = world.schedule(allow_patterns="*.tfevents.*")
    run.push()
    longer = RECORDS + frame(b"y" * 50)
    (world.folder / NAME).write_bytes(longer)
    world.proxy.add("POST", "/commit/", Delay(60), times=1)
    coming = run.scheduler.trigger()
    wait_until(lambda: remote.files(api, world.repo_id)[NAME] == longer)
    api.upload_file(path_or_fileobj=RECORDS, path_in_repo=NAME, repo_id=world.repo_id)
    [other] = ledgers_of(world.folder)
    other.record({}, other.commit)
    world.proxy.clear()
    assert coming.result(20) is not None
    assert run.push() is not None
    assert remote.files(api, world.repo_id) == {NAME: longer}
    assert run.push() is None
    assert run.missing() == 0
