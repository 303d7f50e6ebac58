"""`hf-summary-writer status REPO_ID` shows the state of each run in a repo or bucket."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import commands
from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.push import RunPhase, RunState
from hub.test_bucket import needs_a_client_for_buckets

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

NOW, HOUR, DAY = time.time(), 3600.0, 86400.0
STATE = RunState(
    RunPhase.RUNNING,
    started=NOW - 5 * DAY,
    last_event=NOW - 2.2 * HOUR,
    last_push=NOW - 2.1 * HOUR,
    interval=HOUR,
    host="node-7",
    rank=0,
    command="train.py --lr 0.1",
    version="0.1.0",
)


@pytest.fixture(params=["model", "dataset", pytest.param("bucket", marks=needs_a_client_for_buckets)])
def where(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"repo_type": request.param}


def upload(api: HfApi, repo_id: str, repo_type: str, files: dict[str, bytes]) -> None:
    if repo_type == "bucket":
        api.create_bucket(repo_id, exist_ok=True)
        api.batch_bucket_files(repo_id, add=[(content, path) for path, content in files.items()])
        return
    api.create_repo(repo_id, repo_type=repo_type, exist_ok=True)
    for path, content in files.items():
        api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=repo_id, repo_type=repo_type)


def test_each_run_is_shown_with_its_state(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, where: dict[str, Any]
) -> None:
    with HFSummaryWriter(repo_id, logdir=tmp_path / "whole", hf_api=api, **where) as writer:
        writer.add_scalars("both", {"a": 1, "b": 2}, 1)
    killed = replace(STATE, last_push=NOW - 3 * DAY)
    files = {
        "tensorboard/live/hf-summary-writer.json": STATE.encoded(),
        "tensorboard/live/hf-summary-writer.rank-3.json": replace(STATE, phase=RunPhase.FAILED, rank=3).encoded(),
        "tensorboard/killed/hf-summary-writer.json": killed.encoded(),
        "tensorboard/old/events.out.tfevents.1.host": b"",
    }
    upload(api, repo_id, where["repo_type"], files)
    asked = commands.invoke(hub, "status", repo_id, "--repo-type", where["repo_type"], home=tmp_path)
    assert asked.returncode == 0, asked.stderr
    title, *lines = asked.stdout.splitlines()
    assert repo_id in title
    found = {tuple(line.split(maxsplit=1)) for line in lines}
    assert found >= {
        ("tensorboard/live", "running for 5 d, last push 2 h ago, last event 2 h ago; train.py --lr 0.1 on node-7"),
        ("tensorboard/live", "failed 2 h ago, after 5 d; train.py --lr 0.1 on node-7 (rank 3)"),
        ("tensorboard/killed", "stopped 3 d ago, no end was written; train.py --lr 0.1 on node-7"),
        ("tensorboard/old", "no state was written"),
    }
    (whole,) = [line for name, line in found if name == "tensorboard/whole"]
    assert whole.startswith("finished ")
    uri = f"hf://{where['repo_type']}s/{repo_id}/tensorboard/killed"
    (described,) = commands.objects(commands.invoke(hub, "status", uri, "--json", home=tmp_path).stdout)
    assert described == {
        "repo_id": repo_id,
        "run": "tensorboard/killed",
        **killed.as_dict(),
        "overdue": True,
        "error": None,
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"x" * 2**20,
        STATE.encoded().replace(b"node-7", b"\\u001b[31m"),
        STATE.encoded().replace(b"running", b"asleep"),
        STATE.encoded().replace(b'"rank": 0', b'"rank": true'),
        STATE.encoded().replace(b"3600.0,", b"1e999,"),
    ],
    ids=["empty", "torn", "nested", "large", "escape code", "unknown state", "no number", "infinite"],
)
def test_an_invalid_state_is_reported_and_not_printed(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, content: bytes
) -> None:
    upload(api, repo_id, "model", {"run/hf-summary-writer.json": content})
    asked = commands.invoke(hub, "status", repo_id, home=tmp_path)
    assert asked.returncode == 0, asked.stderr
    assert "run/hf-summary-writer.json cannot be read: it does not hold the state of a run" in asked.stdout
    assert "\x1b" not in asked.stdout


def test_empty_and_missing_repos_are_errors(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    api.create_repo(repo_id)
    empty = commands.invoke(hub, "status", repo_id, home=tmp_path)
    gone = commands.invoke(hub, "status", f"{repo_id}-gone", home=tmp_path)
    assert (empty.returncode, gone.returncode) == (1, 1)
    assert "holds no run" in empty.stderr
    assert "could not be read" in gone.stderr
    assert "404" in gone.stderr


@pytest.mark.parametrize("option", ["--exit-code", "--forget"])
def test_options_for_folders_are_refused_for_a_repo(hub: HubProcess, tmp_path: Path, option: str) -> None:
    asked = commands.invoke(hub, "status", "user/runs", option, home=tmp_path)
    assert asked.returncode == 2
    assert option in asked.stderr


@pytest.mark.parametrize("option", ["--endpoint", "--token"])
def test_options_for_repos_are_refused_for_a_folder(hub: HubProcess, tmp_path: Path, option: str) -> None:
    asked = commands.invoke(hub, "status", tmp_path, option, "https://hub.example", home=tmp_path)
    assert asked.returncode == 2
    assert option in asked.stderr
