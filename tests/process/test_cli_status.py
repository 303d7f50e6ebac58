"""`hf-summary-writer status` shows a folder's upload state from another process."""

from __future__ import annotations

import signal
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import HfApi

import commands
import remote
import scripts
from hf_summary_writer import CommitScheduler
from hf_summary_writer.events import frame
from hf_summary_writer.folder import STATE_FOLDER, StateFolder, push_lock

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

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


def test_links_that_are_not_followed_are_named_until_they_are(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    for each in (folder, elsewhere):
        each.mkdir()
        (each / "events.out.tfevents.1.host").write_bytes(frame(b"x"))
    (folder / "linked").symlink_to(elsewhere)
    (tmp_path / "link").symlink_to(folder)

    def invoke(*words: object) -> subprocess.CompletedProcess[str]:
        return commands.invoke(hub, *words, home=tmp_path)

    assert invoke("sync", tmp_path / "link", repo_id).returncode == 1
    [found] = commands.objects(invoke("status", tmp_path / "link", "--json").stdout)
    assert (found["folder"], found["unfollowed_links"]) == (str(folder), ["linked"])
    assert found["destination"]["path"] == "tensorboard/run"
    assert found["pending"]["files"] == 0
    assert [invoke("status", folder, *words).returncode for words in ((), ("--exit-code",))] == [0, 1]
    assert "left out     links that are not followed: 'linked'" in invoke("status", folder).stdout
    assert invoke("sync", folder, repo_id, "--follow-links").returncode == 0
    first, second = commands.objects(invoke("status", folder, "--json", "--exit-code").stdout)
    assert (first["folder"], second["folder"]) == (str(folder), str(elsewhere))
    assert first["unfollowed_links"] == second["unfollowed_links"] == []


def test_a_folder_that_does_not_exist_or_whose_state_is_unreadable_is_not_forgotten(
    hub: HubProcess, tmp_path: Path
) -> None:
    state = tmp_path / STATE_FOLDER
    state.mkdir(parents=True)
    (state / "0123456789abcdef.jsonl").write_text("nonsense\n")
    for folder, words, code in (("nowhere", (), 2), (".", ("--forget",), 2), (".", ("--exit-code",), 1)):
        asked = commands.invoke(hub, "status", f"{tmp_path}/{folder}", *words, home=tmp_path)
        assert asked.returncode == code, asked.stderr


def known(folder: Path, monkeypatch: pytest.MonkeyPatch, **where: Any) -> None:
    """Leave a folder with a file that an offline process was to upload."""
    folder.mkdir()
    (folder / "a.txt").write_text("1")
    with monkeypatch.context() as offline:
        offline.setenv("HF_SUMMARY_WRITER_MODE", "offline")
        api = HfApi(endpoint=commands.Nowhere.endpoint, token=commands.Nowhere.token)
        CommitScheduler(folder_path=folder, hf_api=api, **where).close()


@pytest.mark.parametrize(
    ("where", "lines"),
    [
        (
            {"repo_id": "logs", "revision": "dev"},
            [
                f"goes to      model logs, branch dev, root at {commands.Nowhere.endpoint}",
                "shown at     not known yet",
                "last commit  none",
            ],
        ),
        (
            {"repo_id": "user/logs", "repo_type": "bucket", "path_in_repo": "all"},
            [
                f"goes to      bucket user/logs, all at {commands.Nowhere.endpoint}",
                f"shown at     {commands.Nowhere.endpoint}/buckets/user/logs/tree/all",
                "last push    none",
            ],
        ),
    ],
)
def test_the_text_names_the_place_and_what_is_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: dict[str, Any], lines: list[str]
) -> None:
    known(tmp_path / "run", monkeypatch, **where)
    shown = commands.invoke(commands.Nowhere(), "status", tmp_path / "run", home=tmp_path).stdout
    first, *rows = [line.strip() for line in shown.splitlines()]
    assert (first, rows[:3], rows[4:]) == (str(tmp_path / "run"), lines, ["state        idle"])
    assert rows[3].startswith("pending      1 file, 1 byte, the oldest for ")


def test_a_forgotten_folder_keeps_no_error_and_is_not_forgotten_during_a_push(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(tmp_path / "run", monkeypatch, repo_id="user/logs")
    state = tmp_path / "run" / STATE_FOLDER
    [ledger] = state.glob("*.jsonl")
    ledger.with_suffix(".status.json").write_text("{}")

    def forget() -> subprocess.CompletedProcess[str]:
        return commands.invoke(commands.Nowhere(), "status", tmp_path / "run", "--forget", home=tmp_path)

    with push_lock(StateFolder(state)):
        refused = forget()
    assert (refused.returncode, "is being pushed" in refused.stderr) == (1, True)
    with monkeypatch.context() as full:
        full.setattr(StateFolder, "remove", fail)
        refused = forget()
    assert (refused.returncode, "cannot be removed: no disk" in refused.stderr) == (1, True)
    assert ledger.exists()
    assert forget().returncode == 0
    assert [path.name for path in state.iterdir() if path.suffix != ".lock"] == []


def fail(*_: object) -> None:
    raise OSError(5, "no disk")
