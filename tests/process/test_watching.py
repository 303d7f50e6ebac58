"""`sync --watch` uploads a folder of many runs; the runs leave it to that, and push themselves when it is gone."""

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
from hf_summary_writer.folder.disk import STATE_FOLDER
from hf_summary_writer.push import RunPhase

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import Popen

    from huggingface_hub import HfApi

    from hub_process import HubProcess

SECONDS = 60.0
OFTEN = 0.005

# Logs and triggers, waits for a file, logs more and ends.
TRAIN = """
writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60)
writer.add_scalar("loss", 1, 1)
print(writer.scheduler.trigger().result(30), flush=True)
while not os.path.exists(logdir + "/go on"):
    time.sleep(0.01)
writer.add_scalar("loss", 2, 2)
writer.close()
"""


def start_watcher(hub: HubProcess, parent: Path, repo_id: str, every: float = OFTEN) -> Popen[str]:
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


def test_runs_below_a_watched_folder_make_no_commits_themselves(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    parent = tmp_path / "runs"
    watcher = start_watcher(hub, parent, repo_id)
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
        _, errors = stop(watcher)
    assert watcher.returncode == 0, errors
    assert remote.files(api, repo_id) == remote.under(parent, "tensorboard")
    assert all(title.startswith("Logs of runs") for title in titles(api, repo_id))
    assert [path.name for path in (parent / "a" / STATE_FOLDER).iterdir()] == ["run.json"]


def test_the_watcher_uploads_the_final_states_of_runs(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    parent = tmp_path / "runs"
    watcher = start_watcher(hub, parent, repo_id, every=60.0)
    try:
        for name, last in {"a": "", "b/c": "1 / 0"}.items():
            log = 'writer = HFSummaryWriter(repo_id, logdir=logdir); writer.add_scalar("loss", 1, 1); '
            scripts.run(log + last, hub, parent / name, repo_id)
    finally:
        _, errors = stop(watcher)
    assert watcher.returncode == 0, errors
    assert {path: state.phase for path, state in remote.states(api, repo_id).items()} == {
        "tensorboard/a/hf-summary-writer.json": RunPhase.FINISHED,
        "tensorboard/b/c/hf-summary-writer.json": RunPhase.FAILED,
    }


def test_a_run_pushes_itself_after_the_watcher_was_killed(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    parent = tmp_path / "runs"
    watcher = start_watcher(hub, parent, repo_id)
    run = scripts.start(TRAIN, hub, parent / "a", repo_id)
    assert run.stdout is not None
    assert run.stdout.readline() == "None\n"
    wait_until(lambda: api.repo_exists(repo_id) and titles(api, repo_id), SECONDS)
    stop(watcher, signal.SIGKILL)
    (parent / "a" / "go on").touch()
    _, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, errors
    assert remote.files(api, repo_id) == remote.under(parent, "tensorboard")
    assert "already holds a run" not in errors
    assert_sound(parent)
    assert_sound(parent / "a")


def test_a_forked_child_that_outlives_its_scheduler_does_not_hold_the_folder(
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
            # Close the pipes: the test waits for their end.
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


def train_offline(hub: HubProcess, logdir: Path, repo_id: str) -> None:
    offline = "os.environ['HF_SUMMARY_WRITER_MODE'] = 'offline'\n"
    log = "writer = HFSummaryWriter(repo_id, logdir=logdir); writer.add_scalar('loss', 1, 1)"
    assert scripts.run(offline + log, hub, logdir, repo_id).returncode == 0


def test_a_watcher_without_a_repo_id_uploads_runs_that_are_added_later(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    parent = tmp_path / "runs"
    train_offline(hub, parent / "first", repo_id)
    with commands.start(hub, "sync", parent, "--watch", "--every", OFTEN, home=tmp_path) as watcher:
        try:
            wait_until(lambda: api.repo_exists(repo_id) and titles(api, repo_id), SECONDS)
            train_offline(hub, parent / "second", repo_id)
            wait_until(lambda: remote.files(api, repo_id) == remote.under(parent, "tensorboard"), SECONDS)
        finally:
            _, errors = stop(watcher)
    assert watcher.returncode == 0, errors
    assert {path.split("/")[1] for path in remote.files(api, repo_id)} == {"first", "second"}


def test_a_watcher_continues_after_its_first_runs_were_deleted(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    parent = tmp_path / "runs"
    train_offline(hub, parent / "first", repo_id)
    with commands.start(hub, "sync", parent, "--watch", "--every", OFTEN, home=tmp_path) as watcher:
        try:
            wait_until(lambda: api.repo_exists(repo_id) and titles(api, repo_id), SECONDS)
            shutil.rmtree(parent / "first")
            train_offline(hub, parent / "second", repo_id)
            wait_until(
                lambda: remote.under(parent, "tensorboard").items() <= remote.files(api, repo_id).items(), SECONDS
            )
        finally:
            _, errors = stop(watcher)
    assert watcher.returncode == 0, errors
