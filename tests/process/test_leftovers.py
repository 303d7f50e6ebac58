"""Data that earlier runs beside a new one did not upload is reported, or uploaded, when the new run starts."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

import commands
import remote
import scripts
from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.events import EventWriter
from hf_summary_writer.folder import STATE_FOLDER
from hf_summary_writer.push import leftovers

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

LOG = """
writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60)
writer.add_scalar("loss", 1, 1)
writer.scheduler.trigger().exception(50)
"""
LEAVE = LOG + "writer.add_scalar('loss', 2, 2)\nwriter.flush()\n"
KILLED = LEAVE + "os.kill(os.getpid(), signal.SIGKILL)\n"
LOOK = """
for thread in threading.enumerate():
    if thread.name.endswith("leftovers"):
        thread.join(50)
"""


def warnings(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("WARNING")]


def test_the_next_run_names_the_command_that_uploads_the_rest_of_a_killed_run(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    scripts.run(KILLED, hub, runs / "killed", repo_id)
    said = scripts.run(LOG + LOOK + LOG, hub, runs / "next", repo_id).stderr
    (warning,) = warnings(said)
    assert f"Not all of the earlier run {runs / 'killed'} is in {repo_id}: 1 file, " in warning
    assert commands.pasted(commands.printed(said), hub, tmp_path).returncode == 0
    assert remote.files(api, repo_id) == remote.under(runs, "tensorboard")
    assert not warnings(scripts.run(LOG + LOOK, hub, runs / "last", repo_id).stderr)


def test_one_command_uploads_the_rest_of_several_runs(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    for name in ("a", "b"):
        scripts.run(KILLED, hub, runs / name, repo_id)
    said = scripts.run(LOG + LOOK, hub, runs / "next", repo_id).stderr
    (warning,) = warnings(said)
    assert f"2 earlier runs in {runs} are not all on the Hub: 2 files, " in warning
    assert commands.pasted(commands.printed(said), hub, tmp_path).returncode == 0
    assert remote.files(api, repo_id) == remote.under(runs, "tensorboard")


def test_a_live_run_is_not_reported(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    body = LEAVE + "print('ready', flush=True)\ntime.sleep(60)"
    with scripts.start(body, hub, runs / "other", repo_id) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        said = scripts.run(LOG + LOOK, hub, runs / "next", repo_id).stderr
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not warnings(said)


def test_push_leftovers_uploads_runs_with_the_same_parent_folder_in_the_repo(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    scripts.run(KILLED, hub, runs / "same", repo_id)
    scripts.run(KILLED, hub, runs / "other", f"{repo_id}-other")
    # A copied folder may claim the path of another run.
    claim = KILLED.replace("commit_every=60", "commit_every=60, path_in_repo='claimed'")
    scripts.run(claim, hub, runs / "strange", repo_id)
    claimed = remote.files(api, repo_id)
    body = LOG.replace("commit_every=60", "commit_every=60, push_leftovers=True") + LOOK
    said = scripts.run(body, hub, runs / "next", repo_id).stderr
    (warning,) = warnings(said)
    assert "2 earlier runs" in warning
    assert remote.files(api, repo_id) == {
        **{path: body for path, body in claimed.items() if path.startswith("claimed/")},
        **remote.under(runs / "same", "tensorboard/same"),
        **remote.under(runs / "next", "tensorboard/next"),
    }


def test_a_run_for_another_hub_is_neither_reported_nor_uploaded(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    scripts.run(KILLED, hub, runs / "killed", repo_id)
    (ledger,) = (runs / "killed" / STATE_FOLDER).glob("*.jsonl")
    ledger.write_text(ledger.read_text().replace(json.dumps(hub.endpoint), '"http://127.0.0.1:9"'))
    body = LOG.replace("commit_every=60", "commit_every=60, push_leftovers=True") + LOOK
    assert not warnings(scripts.run(body, hub, runs / "next", repo_id).stderr)


def test_only_the_newest_runs_are_checked_and_no_links_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        (tmp_path / "runs" / str(number) / STATE_FOLDER).mkdir(parents=True)
        os.utime(tmp_path / "runs" / str(number), (number, number))
    (tmp_path / "elsewhere" / STATE_FOLDER).mkdir(parents=True)
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "file").touch()
    monkeypatch.setattr(leftovers, "_MOST_RUNS", 3)
    found = leftovers._runs_beside(tmp_path / "runs" / "4")
    assert [path.name for path in found] == ["3", "2", "1"]


def test_a_file_of_an_earlier_process_with_the_same_pid_does_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_scalar("loss", 1, 1)
    (path,) = tmp_path.iterdir()
    file = type("File", (), {"relpath": path.name})
    assert leftovers._may_grow(file)  # type: ignore[arg-type]
    monkeypatch.setattr(leftovers, "_LOADED_AT", time.time() + 10)
    assert not leftovers._may_grow(file)  # type: ignore[arg-type]


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_0_alone_names_the_rest_of_an_earlier_run(
    api: HfApi,
    repo_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    rank: int,
) -> None:
    with monkeypatch.context() as offline:
        offline.setenv("HF_SUMMARY_WRITER_MODE", "offline")
        with HFSummaryWriter(repo_id, tmp_path / "runs" / "earlier", hf_api=api) as writer:
            writer.add_scalar("loss", 1, 1)
    monkeypatch.setattr(leftovers, "_LOADED_AT", time.time() + 10)
    monkeypatch.setenv("RANK", str(rank))
    with HFSummaryWriter(repo_id, tmp_path / "runs" / "next", hf_api=api, commit_every=60) as writer:
        writer.add_scalar("loss", 1, 1)
        writer.scheduler.trigger().result(60)
        for thread in threading.enumerate():
            if thread.name.endswith("leftovers"):
                thread.join(60)
    assert ("Not all of the earlier run" in caplog.text) == (rank == 0)


def test_a_file_with_an_impossible_pid_does_not_grow(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_scalar("loss", 1, 1)
    (path,) = tmp_path.iterdir()
    file = type("File", (), {"relpath": path.name.replace(f".{os.getpid()}_", f".{10**20}_")})
    assert not leftovers._may_grow(file)  # type: ignore[arg-type]
