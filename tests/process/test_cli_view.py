"""`hf-summary-writer view` shows the logs on the Hub, and later uploads, in TensorBoard."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

import commands
import remote
from hf_summary_writer import HFSummaryWriter
from hub.test_bucket import needs_a_client_for_buckets

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

SECONDS = 100.0


def steps(board: str, run: str, tag: str) -> list[int]:
    """Return the steps that TensorBoard shows."""
    query = urllib.parse.urlencode({"run": run, "tag": tag})
    try:
        with urllib.request.urlopen(f"{board}data/plugin/scalars/scalars?{query}", timeout=10) as answer:  # noqa: S310
            return [step for _, step, _ in json.load(answer)]
    except OSError:
        return []


@pytest.mark.parametrize("repo_type", ["model", pytest.param("bucket", marks=needs_a_client_for_buckets)])
def test_view_shows_uploaded_logs_and_later_uploads(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, repo_type: str
) -> None:
    where: dict[str, Any] = {"repo_type": repo_type, "repo_private": True, "logdir": tmp_path / "first"}
    with (
        socket.create_server(("127.0.0.1", 0)) as used,
        HFSummaryWriter(repo_id, hf_api=api, commit_every=60, **where) as writer,
    ):
        for step in range(3):
            writer.add_scalar("loss", 1.0, step)
        writer.scheduler.trigger().result(SECONDS)
        port = used.getsockname()[1]  # in use, so `view` chooses another one
        options = ["--repo-type", repo_type, "--port", port, "--refresh", 1, "--folder", tmp_path / "view"]
        with commands.start(hub, "view", repo_id, *options, home=tmp_path) as process:
            assert process.stderr is not None
            board = next(found[0] for line in process.stderr if (found := re.search(r"http://\S+/", line)))
            assert f":{port}/" not in board
            deadline = time.monotonic() + SECONDS
            for wanted in (3, 5):
                for step in range(wanted):
                    if wanted == 5 and step >= 3:
                        writer.add_scalar("loss", 1.0, step)
                writer.scheduler.trigger().result(SECONDS)
                while (shown := steps(board, "tensorboard/first", "loss")) != list(range(wanted)):
                    assert time.monotonic() < deadline, shown
                    time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    assert process.returncode == 0
    assert remote.under(tmp_path / "view", "") == remote.files(api, repo_id, repo_type=repo_type)


def test_view_waits_for_the_first_event_files_of_a_repo(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    api.create_repo(repo_id)
    with commands.start(hub, "view", repo_id, "--port", 0, home=tmp_path) as process:
        assert process.stderr is not None
        assert any("waiting for the first" in line for line in process.stderr)
        assert any("http://" in line for line in process.stderr)  # TensorBoard runs
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_missing_repo_is_an_error_in_one_line(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    asked = commands.run(hub, "view", repo_id, home=tmp_path)
    assert asked.returncode == 1
    assert repo_id in asked.stderr
    assert "Traceback" not in asked.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hf://user/run@main", "--revision", "other"], "leave one of them out"),
        (["user/run", "--folder="], "is empty"),
        (["user/run", "--refresh", "nan"], "no length of time"),
    ],
)
def test_invalid_arguments_are_reported_before_anything_is_downloaded(
    hub: HubProcess, tmp_path: Path, words: list[str], said: str
) -> None:
    shown = commands.invoke(hub, "view", *words, home=tmp_path)
    assert shown.returncode == 2
    assert said in shown.stderr


@pytest.mark.parametrize(("name", "code"), [("runs", 1), ("./runs", 2)])
def test_the_name_of_a_folder_leads_to_tensorboard(
    hub: HubProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    shown = commands.invoke(hub, "view", name, home=tmp_path)
    assert shown.returncode == code
    assert f"tensorboard --logdir {name}" in shown.stderr


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_ends_view_and_removes_the_temporary_copy(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, number: signal.Signals
) -> None:
    api.create_repo(repo_id)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with commands.start(hub, "view", repo_id, "--port", 0, home=tmp_path, TMPDIR=str(temporary)) as process:
        assert process.stderr is not None
        assert any("http://" in line for line in process.stderr)
        assert list(temporary.glob("hf-summary-writer-view-*"))
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert list(temporary.glob("hf-summary-writer-view-*")) == []
