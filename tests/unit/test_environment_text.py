"""The text about a run's environment names its command, commit and versions, and masks secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import events
from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.events.environment import _masked, command_line, environment_text

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["train.py", "--lr", "0.1"], ["train.py", "--lr", "0.1"]),
        (["--token", "abc", "--lr", "1"], ["--token", "***", "--lr", "1"]),
        (["--hub-token=abc"], ["--hub-token=***"]),
        (["model.api_key=abc", "model.size=3"], ["model.api_key=***", "model.size=3"]),
        (["--use-token", "--lr", "1"], ["--use-token", "--lr", "1"]),
        (["hf_abcdefghijk"], ["***"]),
        (["x=hf_abcdefghijk"], ["x=***"]),
        (["https://user:word@host/path"], ["https://***@host/path"]),
        (["token.txt", "rest"], ["token.txt", "rest"]),
        (["--wandb-key", "abc", "--monkey", "2"], ["--wandb-key", "***", "--monkey", "2"]),
        (['{"api_key": "abc", "lr": 1}'], ['{"api_key": "***", "lr": 1}']),
        (["logger={password: abc, lr: 1}"], ["logger={password: ***, lr: 1}"]),
        (["https://host/?token=abc&lr=1"], ["https://host/?token=***"]),
        (["https://host/?sig=abc&lr=1"], ["https://host/?sig=***"]),
        (["--db-pass=abc", "--passes=3"], ["--db-pass=***", "--passes=3"]),
        (["--pwd", "abc", "--passphrase=abc"], ["--pwd", "***", "--passphrase=***"]),
        (["--header=Authorization: Bearer abc"], ["--header=Authorization: Bearer ***"]),
        (["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc"], ["***"]),
        (["--http-auth", "ann:abc", "--author=ann"], ["--http-auth", "***", "--author=ann"]),
        (["--github-pat=abc", "--pattern=*"], ["--github-pat=***", "--pattern=*"]),
        (["--header=Authorization: Basic YWJj"], ["--header=Authorization: Basic ***"]),
        (["store=AccountKey=abc=="], ["store=AccountKey=***"]),
        (["--tokenizer", "bert", "model.tokenizer=gpt2"], ["--tokenizer", "bert", "model.tokenizer=gpt2"]),
        (["--max_tokens", "512", "--token-budget=1e6"], ["--max_tokens", "512", "--token-budget=1e6"]),
        (["--token", "512", "--tokens=abc"], ["--token", "***", "--tokens=***"]),
        (["--token-password", "512", "--token_secret=1"], ["--token-password", "***", "--token_secret=***"]),
    ],
    ids=str,
)
def test_secrets_among_the_arguments_are_masked(arguments: list[str], shown: list[str]) -> None:
    assert _masked(arguments) == shown


def test_the_text_names_command_commit_versions_and_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "--name", "a|b"])
    monkeypatch.setenv("RANK", "3")
    assert "Git commit" not in environment_text()
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("1")
    for words in (["init", "-q"], ["add", "file"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], check=True, capture_output=True)  # noqa: S607
    clean = environment_text()
    (tmp_path / "file").write_text("2")
    changed = environment_text()
    assert "train.py --name 'a\\|b'" in clean
    assert "RANK=3" in clean
    assert "tensorboardX" in clean
    assert "with changes" not in clean
    assert "with changes" in changed


def test_the_command_of_a_notebook_is_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/lib/ipykernel_launcher.py", "-f", "/run/kernel-1.json"])
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert command_line() == "notebook"
    monkeypatch.setenv("JPY_SESSION_NAME", "work/my first.ipynb")
    assert command_line() == "'my first.ipynb'"


def test_the_index_of_the_repository_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("1")
    for words in (["init", "-q"], ["add", "file"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "1"]):
        subprocess.run(["git", *words], check=True, capture_output=True)  # noqa: S607
    os.utime(tmp_path / "file", (1, 1))
    index = (tmp_path / ".git" / "index").read_bytes()
    assert "Git commit" in environment_text()
    assert (tmp_path / ".git" / "index").read_bytes() == index


def test_a_writer_logs_its_environment_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_SUMMARY_WRITER_MODE", "disabled")
    for wanted in (False, True):
        HFSummaryWriter("user/run", logdir=tmp_path / str(wanted), log_environment=wanted).close()
    tags = [
        {value.tag for event in events.logged(tmp_path / str(wanted)) for value in event.summary.value}
        for wanted in (False, True)
    ]
    assert tags == [set(), {"environment/text_summary"}]


def test_a_deleted_working_folder_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(sys, "argv", [tmp_path / "train.py"])
    text = environment_text()
    assert "train.py" in text
    assert "working folder" not in text
