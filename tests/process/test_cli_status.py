"""`hf-summary-writer status` shows a folder's upload state from another process."""

from __future__ import annotations

import signal
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import commands
import remote
import scripts

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

LOG = """
writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60)
writer.add_scalar("loss", 1, 1)
writer.scheduler.trigger().exception(50)
"""


def status(hub: HubProcess, logdir: Path, home: Path) -> dict[str, Any]:
    asked = commands.invoke(hub, "status", logdir, "--json", home=home)
    assert asked.returncode == 0, asked.stderr
    (found,) = commands.objects(asked.stdout)
    return found


def test_after_a_push_nothing_is_pending_and_the_commit_is_named(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    logdir = tmp_path / "run-1"
    assert scripts.run(LOG, hub, logdir, repo_id).returncode == 0
    before = hub.requests
    found = status(hub, logdir, tmp_path)
    head = api.list_repo_commits(repo_id)[0].commit_id
    assert found["commit"]["oid"] == head
    assert found["commit"]["url"] == f"{hub.endpoint}/{repo_id}/commit/{head}"
    assert datetime.fromisoformat(found["commit"]["time"].replace("Z", "+00:00")).timestamp() > time.time() - 120
    assert found["pending"] == {"files": 0, "bytes": 0, "oldest": None, "refused": 0, "unlisted": 0}
    assert found["destination"]["path"] == "tensorboard/run-1"
    assert (found["phase"], found["error"], found["url"]) == ("idle", None, f"{hub.endpoint}/{repo_id}/tensorboard")
    text = commands.invoke(hub, "status", logdir, "--exit-code", home=tmp_path)
    assert text.returncode == 0
    for word in (repo_id, head, "nothing", "idle"):
        assert word in text.stdout
    assert "\x1b" not in text.stdout
    assert len(hub.requests) == len(before) + 1  # `list_repo_commits` above


def test_the_pending_files_of_a_killed_process_are_shown(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    logdir = tmp_path / "run-1"
    body = LOG + "writer.add_scalar('loss', 2, 2)\nwriter.flush()\nprint('ready', flush=True)\ntime.sleep(60)"
    with scripts.start(body, hub, logdir, repo_id) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        alive = status(hub, logdir, tmp_path)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    found = status(hub, logdir, tmp_path)
    assert found == alive
    assert found["pending"]["files"] == 1
    assert 0 < found["pending"]["bytes"] < 200
    assert found["commit"] is not None
    assert commands.invoke(hub, "status", logdir, "--exit-code", home=tmp_path).returncode == 1


def test_the_error_of_a_live_process_is_shown_and_a_dead_one_is_idle(
    hub: HubProcess, repo_id: str, tmp_path: Path
) -> None:
    logdir = tmp_path / "run-1"
    body = LOG + "print('ready', flush=True)\ntime.sleep(60)"
    wrong = type("Wrong", (), {"endpoint": hub.endpoint, "token": "hf_wrong"})()
    with scripts.start(body, wrong, logdir, repo_id) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        alive = status(hub, logdir, tmp_path)
        text = commands.invoke(hub, "status", logdir, home=tmp_path).stdout
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert alive["phase"] == "waiting"
    assert alive["waiting_until"] > alive["error_since"]
    assert "hf_wrong" not in text
    assert "waiting until" in text
    dead = status(hub, logdir, tmp_path)
    assert (dead["phase"], dead["waiting_until"]) == ("idle", None)
    assert dead["error"] == alive["error"]


def test_a_push_of_another_process_is_shown(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    logdir = tmp_path / "run-1"
    body = """
    def tell(commit):
        print("pushing", flush=True)
        time.sleep(60)
    writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60, on_commit=tell)
    writer.add_scalar("loss", 1, 1)
    writer.scheduler.trigger().exception(50)
    """
    with scripts.start(body, hub, logdir, repo_id) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "pushing\n"
        assert status(hub, logdir, tmp_path)["phase"] == "pushing"
        process.kill()
        process.communicate()
    assert status(hub, logdir, tmp_path)["phase"] == "idle"


def test_each_run_in_a_folder_is_shown(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert scripts.run(LOG, hub, tmp_path / "runs" / name, repo_id).returncode == 0
    asked = commands.invoke(hub, "status", tmp_path / "runs", "--json", home=tmp_path)
    assert [found["destination"]["path"] for found in commands.objects(asked.stdout)] == [
        "tensorboard/a",
        "tensorboard/b",
    ]


def test_a_folder_that_was_never_pushed_is_an_error(hub: HubProcess, tmp_path: Path) -> None:
    asked = commands.invoke(hub, "status", tmp_path, home=tmp_path)
    assert asked.returncode == 2
    assert "never pushed" in asked.stderr


def test_a_forgotten_folder_can_be_uploaded_again(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "a.txt").write_text("1")
    assert commands.invoke(hub, "sync", folder, repo_id, "--allow", "*", home=tmp_path).returncode == 0
    forgotten = commands.invoke(hub, "status", folder, "--forget", home=tmp_path)
    assert forgotten.returncode == 0, forgotten.stderr
    assert "no longer" in forgotten.stdout
    assert commands.invoke(hub, "status", folder, home=tmp_path).returncode == 2
    assert commands.invoke(hub, "sync", folder, home=tmp_path).returncode == 2
    assert commands.invoke(hub, "sync", folder, repo_id, "--allow", "*", home=tmp_path).returncode == 0
    assert remote.files(api, repo_id) == {"tensorboard/run/a.txt": b"1"}
    assert commands.invoke(hub, "status", folder, "--forget", "--json", home=tmp_path).returncode == 2
