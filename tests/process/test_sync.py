"""`hf-summary-writer sync`: sends what is missing, and says by its exit code whether all arrived."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tensorboardX import SummaryWriter

import commands
import events
import remote
import scripts

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HasEndpoint, HubProcess


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    folder = tmp_path / "run 1"
    with SummaryWriter(str(folder)) as writer:
        writer.add_scalar("loss", 1.0, 0)
    return folder


def sync(hub: HasEndpoint, *arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hf_summary_writer", "sync", *map(str, arguments)],
        env=scripts.environment(hub, home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.client  # the client uploads in a process of its own
def test_it_sends_what_is_missing_once(hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, tmp_path: Path) -> None:
    first = sync(hub, logdir, repo_id, home=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "commit" in first.stdout
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run 1")
    before = len(hub.requests)
    again = sync(hub, logdir, home=tmp_path)
    assert again.returncode == 0, again.stderr
    # One request, whether all of it is still there.
    assert [seen.path for seen in hub.requests[before:]] == [f"/api/models/{repo_id}/paths-info/main"]


def test_without_a_repo_it_goes_where_it_went_before_and_as_it_did(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, tmp_path: Path
) -> None:
    (logdir / "a.txt").write_text("1")
    (logdir / "b.log").write_text("1")
    options = ["--into", "logs", "--revision", "dev", "--repo-type", "dataset", "--allow", "*.txt", "--squash-history"]
    assert sync(hub, logdir, repo_id, *options, home=tmp_path).returncode == 0
    (logdir / "c.txt").write_text("1")
    assert sync(hub, logdir, home=tmp_path).returncode == 0
    where = {"repo_type": "dataset", "revision": "dev"}
    assert set(remote.files(api, repo_id, **where)) == {"logs/a.txt", "logs/c.txt"}
    assert len(remote.commits(api, repo_id, **where)) == 1


def test_a_folder_that_was_never_pushed_needs_a_repo(hub: HubProcess, logdir: Path, tmp_path: Path) -> None:
    refused = sync(hub, logdir, home=tmp_path)
    assert refused.returncode == 2
    assert "REPO_ID" in refused.stderr


@pytest.mark.client  # the client raises the error
def test_it_fails_when_the_hub_is_out_of_reach(hub: HubProcess, logdir: Path, tmp_path: Path, repo_id: str) -> None:
    class Nowhere:
        endpoint = "http://127.0.0.1:9"
        token = hub.token

    failed = sync(Nowhere(), logdir, repo_id, home=tmp_path)
    assert failed.returncode == 1
    assert repo_id in failed.stderr
    assert hub.token not in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_command_that_an_unfinished_exit_prints_sends_the_rest(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    class Nowhere:
        endpoint = "http://127.0.0.1:9"
        token = hub.token

    logdir = tmp_path / "it's a run"
    ended = scripts.run(
        """
        with HFSummaryWriter(repo_id, logdir=logdir, path_in_repo="x", repo_revision="dev", close_timeout=1) as writer:
            writer.add_scalar("loss", 1.0, 0)
        """,
        Nowhere(), logdir, repo_id,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    printed = re.findall(r"hf-summary-writer (sync .*)", ended.stderr)
    assert len(printed) == 1, ended.stderr
    command = printed[0].replace(Nowhere.endpoint, hub.endpoint)
    sent = sync(hub, *shlex.split(command)[1:], home=tmp_path)
    assert sent.returncode == 0, sent.stderr
    assert remote.files(api, repo_id, revision="dev") == remote.under(logdir, "x/it's a run")
    assert events.steps(logdir, "loss") == [0]


@pytest.mark.parametrize("unset", ["HF_TOKEN", "HF_HUB_OFFLINE"])
def test_the_command_that_is_printed_makes_a_private_repo_where_one_was_asked_for(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, unset: str
) -> None:
    logdir = tmp_path / "run"
    without = {"HF_TOKEN": 'del os.environ["HF_TOKEN"]', "HF_HUB_OFFLINE": 'os.environ["HF_HUB_OFFLINE"] = "1"'}[unset]
    ended = scripts.run(
        f"""
        {without}
        with HFSummaryWriter(repo_id, logdir=logdir, repo_private=True, close_timeout=1) as writer:
            writer.add_scalar("loss", 1.0, 0)
        """,
        hub, logdir, repo_id,
    )  # fmt: skip
    assert "--private" in commands.printed(ended.stderr)
    sent = commands.pasted(commands.printed(ended.stderr), hub, tmp_path)
    assert sent.returncode == 0, sent.stderr
    assert api.repo_info(repo_id).private
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run")


def test_the_command_that_is_printed_sends_the_files_that_the_scheduler_would_have_sent(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    logdir = tmp_path / "run"
    ended = scripts.run(
        """
        scheduler = CommitScheduler(
            repo_id=repo_id, folder_path=logdir, ignore_patterns="*.tmp", squash_history=True, model_card=False,
            token="hf_wrong", close_timeout=1,
        )
        for name in ("metrics.jsonl", "it's.safetensors", "x.tmp"):
            open(os.path.join(logdir, name), "w").write("1")
        scheduler.close()
        """,
        hub, logdir, repo_id,
    )  # fmt: skip
    # Also where the state was lost on the way.
    shutil.rmtree(logdir / ".cache", ignore_errors=True)
    sent = commands.pasted(commands.printed(ended.stderr), hub, tmp_path)
    assert sent.returncode == 0, sent.stderr
    assert set(remote.files(api, repo_id)) == {"metrics.jsonl", "it's.safetensors"}
    assert remote.card(api, repo_id) is None
    assert len(remote.commits(api, repo_id)) == 1


def test_the_command_that_is_printed_goes_to_the_hub_that_the_scheduler_was_given(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    logdir = tmp_path / "run"
    ended = scripts.run(
        f"""
        from huggingface_hub import HfApi
        api = HfApi(endpoint={hub.endpoint!r}, token="hf_wrong")
        with HFSummaryWriter(repo_id, logdir=logdir, hf_api=api, close_timeout=1) as writer:
            writer.add_scalar("loss", 1.0, 0)
        """,
        commands.Nowhere(), logdir, repo_id,
    )  # fmt: skip
    shell = type("Shell", (), {"endpoint": commands.Nowhere.endpoint, "token": hub.token})()
    sent = commands.pasted(commands.printed(ended.stderr), shell, tmp_path)
    assert sent.returncode == 0, sent.stderr
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run")


def test_what_no_option_says_is_as_the_folder_went_to_the_same_place_before(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    logdir = tmp_path / "run"
    ended = scripts.run(
        """
        os.environ["HF_SUMMARY_WRITER_MODE"] = "offline"
        CommitScheduler(repo_id=repo_id, folder_path=logdir, private=True, ignore_patterns="*.tmp", squash_history=True)
        for name in ("a.txt", "b.tmp"):
            open(os.path.join(logdir, name), "w").write("1")
        """,
        hub, logdir, repo_id,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert sync(hub, logdir, repo_id, "--into", "/", home=tmp_path).returncode == 0
    assert api.repo_info(repo_id).private
    assert set(remote.files(api, repo_id)) == {"a.txt"}
    assert len(remote.commits(api, repo_id)) == 1
    # What is said goes first, and what is a place of its own has nothing to do with it.
    (logdir / "c.tmp").write_text("1")
    options = ["--allow", "c.*", "--ignore", "nothing", "--no-squash-history"]
    assert sync(hub, logdir, repo_id, "--into", "/", *options, home=tmp_path).returncode == 0
    assert set(remote.files(api, repo_id)) == {"a.txt", "c.tmp"}
    assert len(remote.commits(api, repo_id)) == 2
    assert "0 files" in sync(hub, logdir, repo_id, "--into", "x", "--dry-run", home=tmp_path).stdout
