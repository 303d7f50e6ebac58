"""An agent pushes a folder of many runs; the runs leave it to that, and go on by themselves when it is gone."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import commands
import remote
import scripts
from aftermath import assert_sound
from events import wait_until
from hf_summary_writer.folder.ledger import STATE_FOLDER
from hf_summary_writer.push import RunPhase

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import Popen

    from huggingface_hub import HfApi

    from hub_process import HubProcess

SECONDS = 60.0
OFTEN = 0.005

# Logs and pushes, waits for a sign, logs more and ends.
TRAIN = """
writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60)
writer.add_scalar("loss", 1, 1)
print(writer.scheduler.trigger().result(30), flush=True)
while not os.path.exists(logdir + "/go on"):
    time.sleep(0.01)
writer.add_scalar("loss", 2, 2)
writer.close()
"""


def start_agent(hub: HubProcess, parent: Path, repo_id: str, every: float = OFTEN) -> Popen[str]:
    parent.mkdir(exist_ok=True)
    options = ["--into", "tensorboard", "--watch", "--every", every]
    process = commands.start(hub, "sync", parent, repo_id, *options, home=parent.parent)
    wait_until(lambda: any((parent / STATE_FOLDER).glob("*.lease.json")), SECONDS)
    return process


def stop(process: Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=SECONDS)
    return out, err


def titles(api: HfApi, repo_id: str) -> list[str]:
    return [title for title in remote.commits(api, repo_id) if title.startswith("Logs of")]


def test_runs_that_come_and_go_below_an_agent_make_no_commit_of_their_own(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    parent = tmp_path / "runs"
    agent = start_agent(hub, parent, repo_id)
    try:
        for name in ("a", "b/c", "d"):
            logged = scripts.run(
                'writer = HFSummaryWriter(repo_id, logdir=logdir); writer.add_scalar("loss", 1, 1); '
                "print(writer.scheduler.trigger().result(30)); writer.close()",
                hub,
                parent / name,
                repo_id,
            )
            assert logged.stdout == "None\n", logged.stderr
            assert "another process uploads" in logged.stderr
    finally:
        _, errors = stop(agent)
    assert agent.returncode == 0, errors
    assert remote.files(api, repo_id) == remote.under(parent, "tensorboard")
    assert all(title.startswith("Logs of runs") for title in titles(api, repo_id))
    assert [path.name for path in (parent / "a" / STATE_FOLDER).iterdir()] == ["run.json"]


def test_an_agent_tells_how_runs_have_ended(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    parent = tmp_path / "runs"
    agent = start_agent(hub, parent, repo_id, every=60.0)
    try:
        for name, last in {"a": "", "b/c": "1 / 0"}.items():
            log = 'writer = HFSummaryWriter(repo_id, logdir=logdir); writer.add_scalar("loss", 1, 1); '
            scripts.run(log + last, hub, parent / name, repo_id)
    finally:
        _, errors = stop(agent)
    assert agent.returncode == 0, errors
    assert {path: state.phase for path, state in remote.states(api, repo_id).items()} == {
        "tensorboard/a/hf-summary-writer.json": RunPhase.FINISHED,
        "tensorboard/b/c/hf-summary-writer.json": RunPhase.FAILED,
    }


def test_when_the_agent_is_killed_a_run_pushes_for_itself(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    parent = tmp_path / "runs"
    agent = start_agent(hub, parent, repo_id)
    run = scripts.start(TRAIN, hub, parent / "a", repo_id)
    assert run.stdout is not None
    assert run.stdout.readline() == "None\n"
    stop(agent, signal.SIGKILL)
    (parent / "a" / "go on").touch()
    _, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, errors
    assert remote.files(api, repo_id) == remote.under(parent, "tensorboard")
    assert_sound(parent)
    assert_sound(parent / "a")


def test_a_child_that_outlives_its_parent_watches_nothing(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    parent = tmp_path / "runs"
    pid_file = tmp_path / "pid"
    made = scripts.run(
        f"""
        import warnings; warnings.simplefilter('ignore', DeprecationWarning)
        scheduler = CommitScheduler(repo_id=repo_id, folder_path=logdir, path_in_repo="tensorboard", every=60)
        scheduler.trigger().result(30)
        pid = os.fork()
        if pid == 0:
            # Away from the pipes, whose end the test waits for.
            null = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            time.sleep(60)
            os._exit(0)
        open({str(pid_file)!r}, "w").write(str(pid))
        """,
        hub,
        parent,
        repo_id,
    )
    assert made.returncode == 0, made.stderr
    try:
        assert any((parent / STATE_FOLDER).glob("*.lease.json"))
        logged = scripts.run(TRAIN.replace("/go on", ""), hub, parent / "a", repo_id)
        assert "/commit/" in logged.stdout, logged.stderr
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
    assert remote.files(api, repo_id) == remote.under(parent, "tensorboard")


def test_an_agent_that_was_not_told_where_to_notices_runs_that_appear_later(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    parent = tmp_path / "runs"
    offline = "writer = HFSummaryWriter(repo_id, logdir=logdir); writer.add_scalar('loss', 1, 1)"
    mode = "os.environ['HF_SUMMARY_WRITER_MODE'] = 'offline'\n"
    assert scripts.run(mode + offline, hub, parent / "first", repo_id).returncode == 0
    with commands.start(hub, "sync", parent, "--watch", "--every", OFTEN, home=tmp_path) as agent:
        try:
            wait_until(lambda: api.repo_exists(repo_id) and titles(api, repo_id), SECONDS)
            assert scripts.run(mode + offline, hub, parent / "second", repo_id).returncode == 0
            wait_until(lambda: remote.files(api, repo_id) == remote.under(parent, "tensorboard"), SECONDS)
        finally:
            _, errors = stop(agent)
    assert agent.returncode == 0, errors
    assert {path.split("/")[1] for path in remote.files(api, repo_id)} == {"first", "second"}


def test_an_agent_outlives_all_the_runs_that_it_was_started_for(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    parent = tmp_path / "runs"
    offline = "writer = HFSummaryWriter(repo_id, logdir=logdir); writer.add_scalar('loss', 1, 1)"
    mode = "os.environ['HF_SUMMARY_WRITER_MODE'] = 'offline'\n"
    assert scripts.run(mode + offline, hub, parent / "first", repo_id).returncode == 0
    with commands.start(hub, "sync", parent, "--watch", "--every", OFTEN, home=tmp_path) as agent:
        try:
            wait_until(lambda: api.repo_exists(repo_id) and titles(api, repo_id), SECONDS)
            shutil.rmtree(parent / "first")
            assert scripts.run(mode + offline, hub, parent / "second", repo_id).returncode == 0
            wait_until(
                lambda: remote.under(parent, "tensorboard").items() <= remote.files(api, repo_id).items(), SECONDS
            )
        finally:
            _, errors = stop(agent)
    assert agent.returncode == 0, errors
