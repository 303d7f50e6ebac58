"""The commands with a storage bucket instead of a repo."""

from __future__ import annotations

import re
import signal
import sys
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING

import click
import pytest

import commands
import remote
from hub.test_bucket import BUCKET, needs_a_client_for_buckets

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

pytestmark = needs_a_client_for_buckets

LOG = """
from hf_summary_writer import HFSummaryWriter
with HFSummaryWriter(logdir="runs/first") as writer:
    writer.add_scalar("loss", 1, 1)
"""


def a_run(tmp_path: Path) -> Path:
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "notes.txt").write_text("1")
    return folder


def test_sync_check_and_status_support_buckets(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    folder, uri = a_run(tmp_path), f"hf://buckets/{repo_id}"
    checked = commands.invoke(hub, "check", uri, home=tmp_path)
    assert (checked.returncode, "the first push creates it" in checked.stdout) == (0, True)
    synced = commands.invoke(hub, "sync", folder, uri, "--allow", "*", home=tmp_path)
    assert synced.returncode == 0, synced.stderr
    assert remote.files(api, repo_id, **BUCKET) == remote.under(folder, "tensorboard/first", "*")
    checked = commands.invoke(hub, "check", repo_id, "--repo-type", "bucket", home=tmp_path)
    assert (checked.returncode, "may write" in checked.stdout) == (0, True)
    status = commands.invoke(hub, "status", folder, "--exit-code", home=tmp_path)
    assert (status.returncode, f"bucket {repo_id}, tensorboard/first" in status.stdout) == (0, True)
    assert f"{hub.endpoint}/buckets/{repo_id}" in status.stdout
    (folder / "notes.txt").write_text("22")
    assert commands.invoke(hub, "sync", folder, home=tmp_path).returncode == 0  # to the same bucket
    assert remote.files(api, repo_id, **BUCKET)["tensorboard/first/notes.txt"] == b"22"


def test_the_live_demo_shows_a_bucket_until_ctrl_c(hub: HubProcess, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the demo trains with scikit-learn")
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    with commands.start(hub, "demo", "--live", "--seconds", 3, home=tmp_path, BROWSER=f"{browser} %s") as process:
        assert process.stdout is not None
        lines: list[str] = []
        while "until Ctrl-C" not in (line := process.stdout.readline()):
            assert line, lines
            lines.append(line)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    shown = "".join(lines)
    assert process.returncode == 0, shown
    assert opened.read_text().strip() in shown
    assert "NO" not in shown
    assert re.search(r"event files, byte for byte +(\d) +\1 +yes", shown)


def test_a_live_demo_that_cannot_print_the_address_ends_tensorboard(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def closed(_: str) -> None:
        raise BrokenPipeError

    pytest.importorskip("sklearn", reason="the demo trains with scikit-learn")
    demo = import_module("hf_summary_writer.cli.demo")
    board = tmp_path / "board"
    board.write_text("#!/bin/sh\necho http://localhost:6006/ >&2\nexec sleep 600\n")
    board.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(board))
    monkeypatch.setattr(click, "echo", closed)
    api = SimpleNamespace(create_bucket=lambda *_, **__: SimpleNamespace(bucket_id="local/logs"))
    hub = SimpleNamespace(endpoint="http://localhost:1", token="hf_local")
    with pytest.raises(BrokenPipeError), demo._live_board(hub, api):
        pass


def test_sync_refuses_options_that_a_bucket_does_not_support(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    folder, uri = a_run(tmp_path), f"hf://buckets/{repo_id}"
    for option in (["--revision", "dev"], ["--squash-history"]):
        refused = commands.invoke(hub, "sync", folder, uri, *option, home=tmp_path)
        assert (refused.returncode, "a bucket has no" in refused.stderr) == (2, True)
    assert commands.invoke(hub, "sync", folder, uri, "--allow", "*", home=tmp_path).returncode == 0
    refused = commands.invoke(hub, "sync", folder, "--squash-history", home=tmp_path)
    assert (refused.returncode, "a bucket has no" in refused.stderr) == (2, True)


def test_run_pushes_the_logs_of_a_command_to_a_bucket(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    script = LOG.replace('"runs/first"', repr(str(tmp_path / "runs" / "first")))
    (tmp_path / "train.py").write_text(script)
    words = ["--logdir", tmp_path / "runs", "--", sys.executable, tmp_path / "train.py"]
    done = commands.run(hub, "run", f"hf://buckets/{repo_id}", *words, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert remote.files(api, repo_id, **BUCKET) == remote.under(tmp_path / "runs", "tensorboard/runs")


def test_the_variable_for_the_repo_may_name_a_bucket(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    script = LOG.replace('"runs/first"', repr(str(tmp_path / "first")))
    (tmp_path / "train.py").write_text(script)
    words = ["--logdir", tmp_path / "other", "--", sys.executable, tmp_path / "train.py"]
    variables = {"HF_SUMMARY_WRITER_REPO_ID": f"hf://buckets/{repo_id}"}
    done = commands.run(hub, "run", "tester/unused", *words, home=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert remote.files(api, repo_id, **BUCKET) == remote.under(tmp_path / "first", "tensorboard/first")
