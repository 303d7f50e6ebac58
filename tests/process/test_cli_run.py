"""`hf-summary-writer run` forwards signals, returns the command's exit code and uploads its logs."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import psutil
import pytest
from click.shell_completion import ShellComplete
from tensorboardX import SummaryWriter

import commands
import events
import remote
import scripts
from faults.proxy import FaultProxy, Hang
from hf_summary_writer.cli import main
from hf_summary_writer.push import RunPhase

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

SECONDS = 60.0
# Writes like a framework without our library.
LOG = """
import os, signal, sys, time
from tensorboardX import SummaryWriter
writer = SummaryWriter("runs/first")
for step in range(100):
    writer.add_scalar("loss", step, step)
writer.close()
"""
STEPS = list(range(100))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(body: str) -> list[str]:
    return ["--", sys.executable, "-c", LOG + textwrap.dedent(body)]


def assert_all_on_hub(api: HfApi, repo_id: str, here: Path) -> None:
    assert events.steps(here / "runs" / "first", "loss") == STEPS
    assert remote.files(api, repo_id) == remote.under(here / "runs", "tensorboard/runs")


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", 0),
        ("sys.exit(7)", 7),
        ("1 / 0", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
        ("os.abort()", 128 + signal.SIGABRT),
    ],
)
def test_logs_are_uploaded_and_the_exit_code_returned_however_the_command_ends(
    hub: HubProcess, api: HfApi, repo_id: str, here: Path, ending: str, code: int
) -> None:
    ended = commands.run(hub, "run", repo_id, *python(ending), home=here)
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ""
    assert_all_on_hub(api, repo_id, here)


# In short naps, since a signal that comes just before a sleep waits for its end.
GO_ON = """
print('ready', flush=True)
for _ in range(600):
    time.sleep(0.1)
"""


def started(hub: HubProcess, repo_id: str, here: Path, body: str, *options: object) -> subprocess.Popen[str]:
    process = commands.start(hub, "run", repo_id, *options, *python(f"{body}\n{GO_ON}"), home=here)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_is_forwarded_and_the_rest_is_pushed(
    hub: HubProcess, api: HfApi, repo_id: str, here: Path, number: signal.Signals
) -> None:
    body = f"signal.signal({int(number)}, lambda *_: (print('caught', flush=True), sys.exit(9)))"
    with started(hub, repo_id, here, body) as process:
        process.send_signal(number)
        out, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (9, "caught\n"), errors
    assert_all_on_hub(api, repo_id, here)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_last_push_and_the_exit_code_is_kept(
    hub: HubProcess, repo_id: str, here: Path, number: signal.Signals
) -> None:
    with FaultProxy(hub) as proxy:
        proxy.add("*", ".", Hang(), times=99)
        with commands.start(
            proxy, "run", repo_id, *python("print('ending', flush=True); sys.exit(7)"), home=here
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ending\n"
            events.wait_until(lambda: not psutil.Process(process.pid).children() and bool(proxy.requests), SECONDS)
            process.send_signal(number)
            _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 7, errors
    assert "hf-summary-writer sync" in errors


def test_a_command_killed_by_a_signal_exits_with_128_plus_its_number(
    hub: HubProcess, api: HfApi, repo_id: str, here: Path
) -> None:
    with started(hub, repo_id, here, "") as process:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert_all_on_hub(api, repo_id, here)


def test_run_pushes_while_the_command_runs(hub: HubProcess, api: HfApi, repo_id: str, here: Path) -> None:
    with started(hub, repo_id, here, "", "--every", 0.005) as process:
        assert process.stderr is not None
        assert "/commit/" in process.stderr.readline()
        assert_all_on_hub(api, repo_id, here)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SECONDS)


def test_a_writer_of_ours_in_the_command_only_writes_to_disk(
    hub: HubProcess, api: HfApi, repo_id: str, here: Path
) -> None:
    script = """
    from hf_summary_writer import HFSummaryWriter
    with HFSummaryWriter(logdir="runs/ours") as writer:
        writer.add_scalar("loss", 1, 1)
        assert writer.scheduler.trigger().result() is None
    """
    ended = commands.run(hub, "run", repo_id, *python(script), home=here)
    assert ended.returncode == 0, ended.stderr
    assert {path.split("/")[2] for path in remote.files(api, repo_id)} == {"first", "ours"}
    assert_all_on_hub(api, repo_id, here)
    states = {path: state.phase for path, state in remote.states(api, repo_id).items()}
    assert states == {"tensorboard/runs/ours/hf-summary-writer.json": RunPhase.FINISHED}


def test_without_a_hub_the_exit_code_is_returned_and_the_sync_command_named(repo_id: str, here: Path) -> None:
    ended = commands.run(commands.Nowhere(), "run", repo_id, "--close-timeout", 0.5, *python("sys.exit(4)"), home=here)
    assert ended.returncode == 4
    assert f"hf-summary-writer sync {here / 'runs'} {repo_id}" in ended.stderr
    assert commands.Nowhere.token not in ended.stderr


@pytest.mark.parametrize(("command", "code"), [("no-such-command-here", 127), ("/", 126)])
def test_a_command_that_cannot_be_run_exits_with_a_shells_code(
    hub: HubProcess, repo_id: str, here: Path, command: str, code: int
) -> None:
    ended = commands.run(hub, "run", repo_id, "--", command, home=here)
    assert ended.returncode == code
    assert command in ended.stderr
    assert "Traceback" not in ended.stderr


def test_nothing_is_uploaded_if_the_command_is_not_found(hub: HubProcess, here: Path) -> None:
    (here / "runs").mkdir()
    (here / "runs" / "old.tfevents.1").write_bytes(b"")
    (here / "plain.txt").write_text("no program")
    before = len(hub.requests)
    for command, code in (("no-such-command", 127), ("./no-such-command", 127), ("./plain.txt", 126)):
        ended = commands.run(hub, "run", "my-runs", "--", command, home=here)
        assert ended.returncode == code
        assert command in ended.stderr
    for words in (["python", "train.py"], ["--", "python", "train.py"], ["train.py", "--", "python"]):
        ended = commands.run(hub, "run", *words, home=here)
        assert ended.returncode == 2
        assert "REPO_ID" in ended.stderr
    assert [
        seen for seen in hub.requests[before:] if "/events" not in seen.path
    ] == []  # a view of another test may poll


def test_an_empty_logdir_after_the_command_is_reported(hub: HubProcess, repo_id: str, here: Path) -> None:
    ended = commands.run(hub, "run", repo_id, "--logdir", "wrong", *python("sys.exit(4)"), home=here)
    assert ended.returncode == 4
    assert "--logdir" in ended.stderr


@pytest.mark.parametrize(
    ("repo_id", "said"),
    [("a/b/c", "repo_id"), ("train.py", "a script"), ("sh", "a program: hf-summary-writer run user/my-runs -- ")],
)
def test_invalid_arguments_are_reported_before_the_command_runs(
    hub: HubProcess, here: Path, repo_id: str, said: str
) -> None:
    ended = commands.run(hub, "run", repo_id, *python(""), home=here)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("words", "incomplete", "found"),
    [
        (["run"], "--logd", [("plain", "--logdir")]),
        (["run", "user/run"], "--re", [("plain", "--repo-type"), ("plain", "--revision")]),
        (["run", "user/run", "--logdir"], "r", [("dir", "r")]),
        (["run", "user/run", "--", "python"], "tr", [("file", "tr")]),
        (["run", "user/run", "--", "python"], "--re", [("file", "--re")]),
    ],
)
def test_a_shell_completes_options_and_files_behind_the_separator(
    words: list[str], incomplete: str, found: list[tuple[str, str]]
) -> None:
    shell = ShellComplete(main, {}, "hf-summary-writer", "_HF_SUMMARY_WRITER_COMPLETE")
    assert [(each.type, each.value) for each in shell.get_completions(words, incomplete)] == found


def test_an_empty_logdir_is_not_the_working_folder(hub: HubProcess, here: Path) -> None:
    ended = commands.invoke(hub, "run", "user/run", "--logdir", "", "--", "true", home=here)
    assert ended.returncode == 2
    assert "the name of the folder is empty" in ended.stderr


def test_variables_for_arguments_do_not_change_where_a_command_pushes(
    hub: HubProcess, api: HfApi, repo_id: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SummaryWriter(str(here / "runs" / "first")) as writer:
        writer.add_scalar("loss", 1.0, 0)
    for name, value in {"REPO_TYPE": "dataset", "REVISION": "dev", "PRIVATE": "1", "COMMIT_EVERY": "never"}.items():
        monkeypatch.setenv(f"HF_SUMMARY_WRITER_{name}", value)
    assert commands.invoke(hub, "run", repo_id, "--", "true", home=here).returncode == 0
    assert remote.files(api, repo_id) == remote.under(here / "runs", "tensorboard/runs")
    assert not api.repo_info(repo_id).private
    assert not api.repo_exists(repo_id, repo_type="dataset")


def test_help_after_the_separator_is_an_argument_of_the_command(hub: HubProcess, repo_id: str, here: Path) -> None:
    show = "import sys; print(sys.argv[1:])"
    ended = commands.run(hub, "run", repo_id, "--", sys.executable, "-c", show, "--help", "-h", home=here)
    assert (ended.returncode, ended.stdout) == (0, "['--help', '-h']\n"), ended.stderr


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["user/run", "-h"], ["user/run", "--help", "--", "true"]])
def test_help_before_the_separator_is_the_help_of_run(hub: HubProcess, here: Path, words: list[str]) -> None:
    shown = commands.invoke(hub, "run", *words, home=here)
    assert shown.returncode == 0
    assert "Run COMMAND and upload its logs" in shown.stdout


def test_run_works_without_standard_error(hub: HubProcess, api: HfApi, repo_id: str, here: Path) -> None:
    words = ["sh", "-c", 'exec "$@" 2>&-', "sh", *commands.command("run", repo_id, *python("sys.exit(7)"))]
    ended = subprocess.run(words, env=scripts.environment(hub, here), cwd=here, timeout=SECONDS, check=False)
    assert ended.returncode == 7
    assert_all_on_hub(api, repo_id, here)


def test_the_exit_code_is_returned_although_sigchld_is_ignored(hub: HubProcess, repo_id: str, here: Path) -> None:
    words = commands.command("run", repo_id, "--", "sh", "-c", "exit 7")
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", ignoring, *words],
        env=scripts.environment(hub, here),
        cwd=here,
        timeout=SECONDS,
        check=False,
        capture_output=True,
    )
    assert ended.returncode == 7, ended.stderr
