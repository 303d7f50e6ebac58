"""Foreign, copied and damaged folders send no data to a wrong destination and lose none."""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

import commands
import remote
from faults.proxy import Answer
from hf_summary_writer.events import file_version, frame
from hf_summary_writer.folder.disk import STATE_FOLDER
from hf_summary_writer.folder.ledger import Signature, ledgers_of
from hf_summary_writer.push.status import inspect_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from huggingface_hub import HfApi

    from faults.conftest import World
    from hub_process import HubProcess

NAME = "events.out.tfevents.1.host"
RECORDS = [frame(file_version(1.0)), *(frame(bytes([number]) * 50) for number in range(200))]


def recorded_run(tmp_path: Path) -> Path:
    """Return the folder of a run with one event file."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / NAME).write_bytes(b"".join(RECORDS))
    return folder


def sync(hub: HubProcess, folder: Path, *arguments: str, code: int = 0) -> str:
    """Run `sync` and return its output."""
    ended = commands.invoke(hub, "sync", folder, *arguments, home=folder.parent)
    assert ended.returncode == code, ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.faults("S10")
def test_a_file_with_the_token_is_named_and_never_uploaded(world: World) -> None:
    dump = world.folder / "environment.json"
    dump.write_text(f'{{"HF_TOKEN": "{world.hub.token}"}}')
    (world.folder / "scores.json").write_text("{}")
    run = world.schedule()
    run.settle()
    run.scheduler.close()
    assert world.uploaded() == {"scores.json": b"{}"}
    assert [line for line in world.said(logging.ERROR) if "holds the access token" in line and dump.name in line] != []
    dump.unlink()


@pytest.mark.faults("S5")
def test_credentials_and_the_home_of_the_client_are_never_uploaded(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    secrets = [".ENV", ".npmrc", "sub/.pypirc", "_netrc", "Id_Rsa", ".docker/config.json", ".kube/config", "a/key.PEM"]
    secrets += [".config/gcloud/credentials.db", "hf-home/stored_tokens", "hf-home/hub/notes.txt", ".gitignore"]
    for name in (*secrets, "scores.json"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("*")
    ended = commands.invoke(hub, "sync", project, repo_id, "--allow", "*", "--into", "/", home=project)
    assert ended.returncode == 0, ended.stderr
    assert list(remote.files(api, repo_id)) == ["scores.json"]


@pytest.mark.faults("S11")
def test_a_copied_run_is_uploaded_to_the_originals_path_only_on_request(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    original, copy = tmp_path / "a", tmp_path / "b"
    original.mkdir()
    (original / NAME).write_bytes(b"".join(RECORDS))
    sync(hub, original, repo_id)
    shutil.copytree(original, copy)
    (copy / "new.tfevents.2").write_bytes(b"".join(RECORDS))
    told = sync(hub, copy, code=2)
    assert commands.invoke(hub, "status", copy, home=copy.parent).returncode == 2
    assert list(remote.files(api, repo_id)) == [f"tensorboard/a/{NAME}"]
    (line,) = [line for line in told.splitlines() if "seems to be a copy" in line]
    pasted = commands.pasted(line.rpartition("run: ")[2], hub, copy.parent)
    assert pasted.returncode == 0, pasted.stderr
    assert list(remote.files(api, repo_id)) == [f"tensorboard/a/{NAME}", "tensorboard/a/new.tfevents.2"]
    sync(hub, copy)


@pytest.mark.faults("S12")
def test_a_linked_state_folder_leaves_its_target_unchanged(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside" / STATE_FOLDER.relative_to(".cache")
    outside.mkdir(parents=True)
    kept = [f"tmp-{'0' * 32}", "thesis.tex"]
    for name in kept:
        (outside / name).write_text("years of work")
    (world.folder / ".cache").symlink_to(tmp_path / "outside")
    (world.folder / "a.json").write_text("{}")
    run = world.schedule()
    run.settle()
    run.scheduler.close()
    assert world.uploaded() == {"a.json": b"{}"}
    assert sorted(path.name for path in outside.iterdir()) == kept[::-1]
    assert ["cannot be used" in line for line in world.said(logging.WARNING)].count(True) == 1


@pytest.mark.faults("S12")
def test_pipes_in_place_of_state_files_hang_no_command(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    folder = recorded_run(tmp_path)
    sync(hub, folder, repo_id)
    state = folder / STATE_FOLDER
    (ledger,) = state.glob("*.jsonl")
    for name in (f"{ledger.stem}.{kind}.json" for kind in ("status", "lease")):
        os.mkfifo(state / name)
    assert commands.invoke(hub, "status", folder, home=tmp_path).returncode == 0
    (folder / "new.tfevents.2").write_bytes(b"".join(RECORDS))
    sync(hub, folder)
    assert remote.files(api, repo_id) == remote.under(folder, "tensorboard/run")


@pytest.mark.faults("P1")
def test_sync_without_changes_removes_temporary_files_of_a_killed_process(
    hub: HubProcess, repo_id: str, tmp_path: Path
) -> None:
    folder = recorded_run(tmp_path)
    sync(hub, folder, repo_id)
    left = folder / STATE_FOLDER / f"tmp-{'0' * 32}"
    left.touch()
    sync(hub, folder)
    assert not left.exists()


@pytest.mark.faults("D14")
def test_damaged_and_compressed_event_files_are_uploaded_with_a_warning(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    damaged = bytearray(b"".join(RECORDS))
    damaged[sum(map(len, RECORDS[:10])) + 20] ^= 1
    (folder / NAME).write_bytes(damaged)
    (folder / "compressed.tfevents.2.gz").write_bytes(gzip.compress(b"".join(RECORDS)))
    told = sync(hub, folder, repo_id)
    assert remote.files(api, repo_id) == remote.under(folder, "tensorboard/run")
    assert told.count("holds damaged records") == 2
    assert "holds damaged records" not in sync(hub, folder)


@pytest.mark.faults("D13")
def test_a_file_rewritten_in_place_is_uploaded_again(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / NAME
    path.write_bytes(b"".join(RECORDS))
    sync(hub, folder, repo_id)
    status = path.stat()
    path.write_bytes(b"".join([RECORDS[0], RECORDS[2], RECORDS[1], *RECORDS[3:]]))
    os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))
    assert "was rewritten" in sync(hub, folder)
    assert remote.files(api, repo_id) == remote.under(folder, "tensorboard/run")


@pytest.mark.faults("D6")
def test_outgoing_links_are_warned_about(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    runs, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    for folder in (runs, elsewhere):
        folder.mkdir()
        (folder / NAME).write_bytes(b"".join(RECORDS))
    (runs / "linked").symlink_to(elsewhere)
    (runs / "linked.tfevents.2").symlink_to(elsewhere / NAME)
    (runs / "notes.txt").symlink_to(tmp_path / "notes.txt")
    told = sync(hub, runs, repo_id, code=1)
    assert list(remote.files(api, repo_id)) == [f"tensorboard/runs/{NAME}"]
    assert "links out of it are not followed: 'linked', 'linked.tfevents.2'" in told


@pytest.mark.faults("S12")
def test_the_state_folder_and_its_files_are_private_to_the_user(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    folder = recorded_run(tmp_path)
    sync(hub, folder, repo_id)
    state = folder / STATE_FOLDER
    assert [oct(path.stat().st_mode & 0o077) for path in (state, *state.iterdir()) if path.is_dir()] == ["0o0"]
    assert [path.name for path in state.iterdir() if path.stat().st_mode & 0o077] == []


ODD: list[object] = [1e300, 10**400, float("nan"), -1, True, None, [], {}, [{}] * 5, "x\x1b]0;title\x07"]


@pytest.mark.faults("S12")
@pytest.mark.parametrize("odd", ODD, ids=[ascii(odd)[:12] for odd in ODD])
def test_invalid_values_in_state_files_are_not_shown_and_raise_nothing(world: World, odd: object) -> None:
    (world.folder / "a.json").write_text("{}")
    run = world.schedule()
    run.next_commit()
    run.settle()
    (world.folder / "b.json").write_text("{}")
    world.proxy.add("*", "/api/", Answer(503))
    run.fail()
    run.scheduler.stop()  # before it retries
    config = run.scheduler._config
    files = [path for path in (world.folder / STATE_FOLDER).iterdir() if path.suffix in {".json", ".jsonl"}]
    assert {path.suffix for path in files} == {".json", ".jsonl"}
    for path in files:
        before = path.read_text()
        lines = [json.loads(line) for line in before.splitlines()]
        for number, line in enumerate(lines):
            for name in line:
                changed = [*lines[:number], {**line, name: odd}, *lines[number + 1 :]]
                path.write_text("\n".join(map(json.dumps, changed)) + "\n")
                shown = json.dumps(inspect_folder(world.folder, config).status.as_dict(), ensure_ascii=False)
                assert shown.isprintable()
                assert "\\u001b" not in shown
                path.write_text(before)
    world.proxy.clear()


def recreate(api: HfApi, repo_id: str) -> None:
    api.delete_repo(repo_id)
    api.create_repo(repo_id)


def delete_a_file(api: HfApi, repo_id: str) -> None:
    api.delete_file(f"tensorboard/run/{NAME}", repo_id)


def delete_the_folder(api: HfApi, repo_id: str) -> None:
    api.delete_folder("tensorboard/run", repo_id)


def overwrite_files(api: HfApi, repo_id: str) -> None:
    """Replace an event file and a text file by others of the same sizes."""
    for name, size in ((NAME, len(b"".join(RECORDS))), ("notes.txt", 5)):
        api.upload_file(path_or_fileobj=b"x" * size, path_in_repo=f"tensorboard/run/{name}", repo_id=repo_id)


def reset_the_branch(api: HfApi, repo_id: str) -> None:
    first = api.list_repo_commits(repo_id, revision="logs")[-1].commit_id
    api.delete_branch(repo_id, branch="logs")
    api.create_branch(repo_id, branch="logs", revision=first)


def delete_the_branch(api: HfApi, repo_id: str) -> None:
    api.delete_branch(repo_id, branch="logs")


@pytest.mark.faults("N16")
@pytest.mark.parametrize(
    "change", [recreate, delete_a_file, delete_the_folder, overwrite_files, reset_the_branch, delete_the_branch]
)
def test_sync_uploads_again_files_removed_or_replaced_on_the_hub(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, change: Callable[[HfApi, str], None]
) -> None:
    folder = recorded_run(tmp_path)
    (folder / "notes.txt").write_bytes(b"hello")
    where = {"revision": "logs"} if "branch" in change.__name__ else {}
    sync(hub, folder, repo_id, "--allow=*", *(f"--revision={branch}" for branch in where.values()))
    change(api, repo_id)
    told = sync(hub, folder)
    assert remote.files(api, repo_id, **where) == remote.under(folder, "tensorboard/run", "*")
    assert "uploading again" in told or "Uploading all files" in told
    before = len(remote.commits(api, repo_id, **where))
    assert "uploading again" not in sync(hub, folder)
    assert len(remote.commits(api, repo_id, **where)) == before


@pytest.mark.faults("N16")
def test_sync_ignores_files_deleted_locally_and_on_the_hub(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (NAME, "old.tfevents.2"):
        (folder / name).write_bytes(b"".join(RECORDS))
    sync(hub, folder, repo_id)
    (folder / "old.tfevents.2").unlink()
    api.delete_file("tensorboard/run/old.tfevents.2", repo_id)
    assert "uploading again" not in sync(hub, folder)
    assert list(remote.files(api, repo_id)) == [f"tensorboard/run/{NAME}"]


@pytest.mark.faults("N16")
def test_sync_does_not_recreate_a_deleted_repo(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    folder = recorded_run(tmp_path)
    sync(hub, folder, repo_id)
    api.delete_repo(repo_id)
    assert "does not exist any more" in sync(hub, folder, code=1)
    assert not api.repo_exists(repo_id)


@pytest.mark.faults("D13")
def test_sync_verify_reads_all_files_and_uploads_changed_ones(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    folder = recorded_run(tmp_path)
    sync(hub, folder, repo_id)
    changed = b"".join([RECORDS[0], RECORDS[2], RECORDS[1], *RECORDS[3:]])
    (folder / NAME).write_bytes(changed)
    # As if the disk returned other bytes, without a new modification time.
    [ledger] = ledgers_of(folder)
    entry = ledger.entries[NAME]
    ledger.record({NAME: entry._replace(signature=Signature.of((folder / NAME).stat()))})
    sync(hub, folder)
    assert remote.files(api, repo_id) != remote.under(folder, "tensorboard/run")
    assert "was rewritten" in sync(hub, folder, "--verify")
    assert remote.files(api, repo_id) == remote.under(folder, "tensorboard/run")
