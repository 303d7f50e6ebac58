"""`hf-summary-writer sync` uploads missing data, and its exit code tells whether all is on the Hub."""

from __future__ import annotations

import re
import shlex
import shutil
from importlib import import_module
from typing import TYPE_CHECKING

import pytest
from tensorboardX import SummaryWriter

import commands
import events
import remote
import scripts

if TYPE_CHECKING:
    import subprocess
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
    return commands.run(hub, "sync", *arguments, home=home)


@pytest.mark.client  # the client uploads in a process of its own
def test_sync_uploads_missing_data_once(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, tmp_path: Path
) -> None:
    first = sync(hub, logdir, repo_id, home=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "commit" in first.stdout
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run 1")
    before = len(hub.requests)
    again = sync(hub, logdir, home=tmp_path)
    assert again.returncode == 0, again.stderr
    # One request, to check that all files still exist.
    assert [seen.path for seen in hub.requests[before:]] == [f"/api/models/{repo_id}/paths-info/main"]


def test_ctrl_c_while_a_commit_is_printed_ends_a_sync(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("hf_summary_writer.cli.sync"), "tell", interrupted)
    ended = commands.invoke(hub, "sync", logdir, repo_id, home=tmp_path)
    assert ended.returncode == 130
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run 1")


def test_without_a_repo_id_the_earlier_destination_and_options_are_used(
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
def test_sync_fails_if_the_hub_is_unreachable(logdir: Path, tmp_path: Path, repo_id: str) -> None:
    failed = sync(commands.Nowhere(), logdir, repo_id, home=tmp_path)
    assert failed.returncode == 1
    assert repo_id in failed.stderr
    assert commands.Nowhere.token not in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_command_printed_at_an_unfinished_exit_uploads_the_rest(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    logdir = tmp_path / "it's a run"
    ended = scripts.run(
        """
        with HFSummaryWriter(repo_id, logdir=logdir, path_in_repo="x", repo_revision="dev", close_timeout=1) as writer:
            writer.add_scalar("loss", 1.0, 0)
        """,
        commands.Nowhere(), logdir, repo_id,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    printed = re.findall(r"hf-summary-writer (sync .*)", ended.stderr)
    assert len(printed) == 1, ended.stderr
    command = printed[0].replace(commands.Nowhere.endpoint, hub.endpoint)
    sent = sync(hub, *shlex.split(command)[1:], home=tmp_path)
    assert sent.returncode == 0, sent.stderr
    assert remote.files(api, repo_id, revision="dev") == remote.under(logdir, "x/it's a run")
    assert events.steps(logdir, "loss") == [0]


@pytest.mark.parametrize("unset", ["HF_TOKEN", "HF_HUB_OFFLINE"])
def test_the_printed_command_creates_a_private_repo_if_requested(
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


def test_the_printed_command_uploads_the_files_of_the_scheduler(
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
    # The command works without the state folder too.
    shutil.rmtree(logdir / ".cache", ignore_errors=True)
    sent = commands.pasted(commands.printed(ended.stderr), hub, tmp_path)
    assert sent.returncode == 0, sent.stderr
    assert set(remote.files(api, repo_id)) == {"metrics.jsonl", "it's.safetensors"}
    assert remote.card(api, repo_id) is None
    assert len(remote.commits(api, repo_id)) == 1


def test_the_printed_command_uses_the_endpoint_of_the_scheduler(
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


def test_omitted_options_have_the_values_of_the_earlier_upload(
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
    # Explicit options win, and another destination does not inherit the settings.
    (logdir / "c.tmp").write_text("1")
    options = ["--allow", "c.*", "--ignore", "nothing", "--no-squash-history"]
    assert sync(hub, logdir, repo_id, "--into", "/", *options, home=tmp_path).returncode == 0
    assert set(remote.files(api, repo_id)) == {"a.txt", "c.tmp"}
    assert len(remote.commits(api, repo_id)) == 2
    assert "0 files" in sync(hub, logdir, repo_id, "--into", "x", "--dry-run", home=tmp_path).stdout
