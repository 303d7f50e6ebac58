"""After changes on the Hub by others no missing file is reported as uploaded."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING

import pytest

import remote
from faults.conftest import SECONDS
from faults.proxy import Answer
from hf_summary_writer.errors import PushError
from hf_summary_writer.events import file_version, frame
from hf_summary_writer.hub import remote as hub_remote
from hf_summary_writer.push import job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from huggingface_hub import HfApi

    from faults.conftest import World

pytestmark = [pytest.mark.faults("N16"), pytest.mark.client]

BINARY, TEXT = "run/early.bin", "run/early.txt"


def recreate(api: HfApi, repo_id: str) -> None:
    api.delete_repo(repo_id)
    api.create_repo(repo_id)


def delete_file(api: HfApi, repo_id: str) -> None:
    api.delete_file(BINARY, repo_id)


def delete_folder(api: HfApi, repo_id: str) -> None:
    api.delete_folder("run", repo_id)


def overwrite(api: HfApi, repo_id: str) -> None:
    """Replace files by others of the same size, so that only the content differs."""
    for path in (BINARY, TEXT):
        api.upload_file(path_or_fileobj=b"x" * 1000, path_in_repo=path, repo_id=repo_id)


def reset_branch(api: HfApi, repo_id: str) -> None:
    first = api.list_repo_commits(repo_id, revision="runs")[-1].commit_id
    api.delete_branch(repo_id, branch="runs")
    api.create_branch(repo_id, branch="runs", revision=first)


CHANGES = [recreate, delete_file, delete_folder, overwrite, reset_branch]


def write(folder: Path) -> None:
    (folder / "early.bin").write_bytes(os.urandom(1000))
    (folder / "early.txt").write_bytes(b"1" * 1000)


def asked(world: World) -> list[str]:
    return [seen.path for seen in world.proxy.requests if "/paths-info/" in seen.path]


@pytest.mark.parametrize("change", CHANGES)
def test_the_last_push_uploads_again_files_that_the_hub_lost(
    world: World, change: Callable[[HfApi, str], None]
) -> None:
    revision = "runs" if change is reset_branch else "main"
    world.api.create_repo(world.repo_id)
    write(world.folder)
    run = world.schedule(path_in_repo="run", revision=revision)
    run.next_commit()
    run.settle()
    change(world.api, world.repo_id)
    run.scheduler.close()
    expected = remote.under(world.folder, "run", "*")
    assert remote.files(world.api, world.repo_id, revision=revision) == expected
    [warning] = world.said(logging.WARNING)
    assert "not on the Hub any more" in warning
    # The next process finds all files on the Hub.
    world.schedule(path_in_repo="run", revision=revision).scheduler.close()
    assert world.said(logging.WARNING) == [warning]


def test_a_run_compares_its_files_at_every_twelfth_commit_in_small_requests(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_remote, "_PATHS_PER_REQUEST", 2)
    for number in range(3):
        (world.folder / f"{number}.bin").write_bytes(os.urandom(1000))
    run = world.schedule()
    run.next_commit()
    run.settle()
    world.api.delete_file("0.bin", world.repo_id)
    for number in range(11):
        assert asked(world) == []
        (world.folder / "growing.bin").write_bytes(os.urandom(10 + number))
        assert run.push() is not None
    assert len(asked(world)) == 2  # without the file of the last push
    assert world.uploaded() == world.on_disk()
    for _ in range(20):
        assert run.push() is None
    assert len(asked(world)) == 2


def test_a_last_push_that_cannot_compare_does_not_report_success(world: World) -> None:
    write(world.folder)
    run = world.schedule(close_timeout=1.0)
    run.next_commit()
    run.settle()
    world.proxy.add("POST", "/paths-info/", Answer(500), float("inf"))
    assert run.push() is None
    run.scheduler.close()
    future = run.scheduler.last_future
    assert future is not None
    assert future.exception(SECONDS) is not None
    assert not [line for line in world.said(logging.INFO) if line.startswith("All of")]


@pytest.mark.parametrize("attributes", [None, b"*.bin filter=lfs diff=lfs merge=lfs -text\n"], ids=["lfs", "git"])
def test_an_event_file_replaced_by_one_of_the_same_size_is_uploaded_again(
    world: World, attributes: bytes | None
) -> None:
    name = "events.out.tfevents.1.host"
    if attributes is not None:
        world.api.create_repo(world.repo_id)
        world.api.upload_file(path_or_fileobj=attributes, path_in_repo=".gitattributes", repo_id=world.repo_id)
    (world.folder / name).write_bytes(frame(file_version(1.0)) + frame(b"1" * 500))
    run = world.schedule(path_in_repo="run")
    run.next_commit()
    size = (world.folder / name).stat().st_size
    world.api.upload_file(path_or_fileobj=b"2" * size, path_in_repo=f"run/{name}", repo_id=world.repo_id)
    run.scheduler.close()
    assert world.uploaded() == remote.under(world.folder, "run", "*")


@pytest.mark.parametrize("odd", [{"path": None}, {"path": "early.bin", "size": "x"}, {"path": "early.bin", "oid": 5}])
def test_a_listing_with_invalid_values_does_not_hide_a_file(world: World, odd: dict[str, object]) -> None:
    write(world.folder)
    run = world.schedule()
    run.next_commit()
    run.settle()
    listing = json.dumps([{"type": "file", "size": 1000, "oid": "0" * 40, **odd}]).encode()
    world.proxy.add("POST", "/paths-info/", Answer(200, {"Content-Type": "application/json"}, listing), float("inf"))
    run.scheduler.close()
    assert run.scheduler.last_future is not None
    error = run.scheduler.last_future.exception(SECONDS)
    assert error is None or isinstance(error, PushError)
    assert world.uploaded() == world.on_disk()


def test_a_process_that_uploaded_nothing_compares_at_exit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_SECONDS_UNTIL_COMPARED", 0.0)
    write(world.folder)
    world.schedule(path_in_repo="run").scheduler.close()
    delete_file(world.api, world.repo_id)
    run = world.schedule(path_in_repo="run")
    run.settle()
    assert world.uploaded().keys() == {TEXT}
    run.scheduler.close()
    assert world.uploaded() == remote.under(world.folder, "run", "*")


def test_a_file_restored_to_an_old_version_is_uploaded_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_SECONDS_UNTIL_COMPARED", 0.0)
    write(world.folder)
    early = world.folder / "early.bin"
    before, status = early.read_bytes(), early.stat()
    first = world.schedule(path_in_repo="run")
    first.next_commit()
    first.settle()
    ledger = first.scheduler._job.ledger.path
    saved = ledger.read_bytes()
    early.write_bytes(os.urandom(2000))
    first.push()
    first.scheduler.stop()
    # The commit was not recorded, and the file is restored with its times, as from a disk snapshot.
    with early.open("r+b") as file:
        file.write(before)
        file.truncate()
    os.utime(early, ns=(status.st_atime_ns, status.st_mtime_ns))
    ledger.write_bytes(saved)
    world.schedule(path_in_repo="run").scheduler.close()
    assert world.uploaded() == remote.under(world.folder, "run", "*")


def test_a_file_deleted_locally_and_on_the_hub_stays_deleted(world: World) -> None:
    write(world.folder)
    run = world.schedule(path_in_repo="run")
    run.next_commit()
    run.settle()
    (world.folder / "early.bin").unlink()
    delete_file(world.api, world.repo_id)
    run.scheduler.close()
    assert list(world.uploaded()) == [TEXT]
    assert world.said(logging.WARNING) == []


@pytest.mark.faults("N20")
@pytest.mark.parametrize("name", ["data.jsonl", "data.bin"])
def test_a_restart_with_an_empty_disk_keeps_the_longer_file_on_the_hub(world: World, tmp_path: Path, name: str) -> None:
    first, second = os.urandom(5000).hex().encode(), b"the second life\n"
    for number, content in enumerate((first, second)):
        folder = tmp_path / f"life-{number}"
        folder.mkdir()
        (folder / name).write_bytes(content)
        run = world.schedule(folder_path=folder, squash_history=True)
        run.next_commit()
        run.settle()
        (folder / name).write_bytes(content + b"more")
        assert run.push() is not None
        run.scheduler.close()
    contents = world.uploaded()
    assert contents.pop(name) == second + b"more"
    [(kept, content)] = contents.items()
    assert kept.startswith(f"{name}.replaced-")
    assert content == first + b"more"
    [warning] = world.said(logging.WARNING)
    assert kept in warning
