"""Commands with a closed or full standard output or error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import commands
import scripts
from hf_summary_writer.cli.terminal import say
from hf_summary_writer.events import EventWriter

if TYPE_CHECKING:
    from hub_process import HubProcess

SECONDS = 60.0

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    with EventWriter(tmp_path / "runs") as writer:
        for step in range(5000):
            writer.add_scalar("loss", 1 / (step + 1), step)
    return tmp_path / "runs"


def in_shell(hub: HubProcess, redirection: str, *words: object, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell that prints its exit code on standard error."""
    line = f'{{ "$@"; echo "code $?" >&3; }} 3>&2 {redirection}'
    return subprocess.run(
        ["/bin/sh", "-c", line, "sh", *commands.command(*words)],
        env=scripts.environment(hub, home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize("form", ["--csv", "--json", ""])
def test_a_pipe_that_is_closed_early_shows_no_error(hub: HubProcess, logs: Path, form: str) -> None:
    shown = in_shell(hub, "| head -n 1", "get", logs, "loss", *filter(None, [form]), home=logs)
    assert len(shown.stdout.splitlines()) == 1
    assert shown.stderr == "code 0\n"


@pytest.mark.parametrize("words", [["get"], ["get", "--csv"], ["sync", "user/run", "--dry-run"]])
def test_commands_work_without_standard_output(hub: HubProcess, logs: Path, words: list[str]) -> None:
    shown = in_shell(hub, ">&-", words[0], logs, *words[1:], home=logs)
    assert shown.stderr == "code 0\n"


def test_a_full_standard_output_is_an_error(hub: HubProcess, logs: Path) -> None:
    shown = in_shell(hub, ">/dev/full", "get", logs, "loss", home=logs)
    assert shown.stderr == "Error: standard output could not be written: No space left on device\ncode 1\n"


def test_lines_are_written_again_once_the_disk_has_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as disk, (tmp_path / "log").open("w") as log:
        monkeypatch.setattr(sys, "stdout", disk)
        say("lost")
        os.dup2(log.fileno(), disk.fileno())
        say("kept")
    assert (tmp_path / "log").read_text() == "kept\n"


def test_the_list_of_commands_cuts_no_description(hub: HubProcess, tmp_path: Path) -> None:
    shown = commands.invoke(hub, "--help", home=tmp_path)
    assert "..." not in shown.stdout.partition("Commands:")[2]


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&1 | true"])
def test_run_returns_the_exit_code_although_its_own_output_fails(
    hub: HubProcess, tmp_path: Path, redirection: str
) -> None:
    command = ["--", sys.executable, "-c", "import sys; sys.exit(7)"]
    ended = in_shell(hub, redirection, "run", "user/run", "--logdir", tmp_path / "empty", *command, home=tmp_path)
    assert ended.stderr == "code 7\n"
