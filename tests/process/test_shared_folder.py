"""Processes on one folder take turns, and an unavailable lock never blocks one for ever."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import filelock
import pytest

import events
import remote
import scripts
from aftermath import assert_sound
from faults.proxy import FaultProxy, Hang
from hf_summary_writer.folder.disk import STATE_FOLDER

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

INTERVAL = 1.2  # seconds
PATTERNS = f"path_in_repo='x', allow_patterns='*.txt', every={INTERVAL / 60}"


def files_sent(api: HfApi, repo_id: str) -> int:
    """Return the total number of files in all commits, from their titles."""
    found = [re.match(r"Logs of .*: (\d+) files?", title) for title in remote.commits(api, repo_id)]
    return sum(int(match[1]) for match in found if match)


@pytest.mark.faults("C1")
def test_another_process_takes_over_from_a_dead_one_and_sends_nothing_twice(
    proxy: FaultProxy, api: HfApi, repo_id: str, logdir: Path
) -> None:
    logdir.mkdir()
    for number in range(20):
        (logdir / f"{number}.txt").write_text(str(number))
    proxy.add("POST", "/commit/", Hang(), times=1)
    body = f"""
    scheduler = CommitScheduler(repo_id=repo_id, folder_path=logdir, {PATTERNS})
    mine = os.path.join(logdir, f"of-{{os.getpid()}}")
    open(mine, "w").write("mine")
    os.rename(mine, mine + ".txt")  # so that it never exists without its content
    print("made", flush=True)
    time.sleep(60)
    """
    ranks = [scripts.start(body, proxy, logdir, repo_id)]
    try:
        # The first process holds the lock, in the middle of its commit.
        events.wait_until(lambda: any(seen.action == Hang() for seen in proxy.requests), scripts.SECONDS)
        ranks += [scripts.start(body, proxy, logdir, repo_id) for _ in range(2)]
        for rank in ranks:
            assert rank.stdout is not None
            assert rank.stdout.readline() == "made\n"
        time.sleep(3 * INTERVAL)  # time for each to start a push
        assert sum("/preupload/" in seen.path for seen in proxy.requests) == 1, "the others wait for their turn"
        ranks[0].kill()
        events.wait_until(lambda: not any(path not in names(api, repo_id) for path in names_of(logdir)), 30)
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
    assert remote.files(api, repo_id) == remote.under(logdir, "x", "*.txt")
    assert files_sent(api, repo_id) == 23
    assert_sound(logdir)


def names(api: HfApi, repo_id: str) -> set[str]:
    return {name.removeprefix("x/") for name in api.list_repo_files(repo_id)} if api.repo_exists(repo_id) else set()


def names_of(logdir: Path) -> set[str]:
    return {path.name for path in logdir.glob("*.txt")}


@pytest.mark.faults
def test_processes_that_end_together_upload_all_files(hub: HubProcess, api: HfApi, repo_id: str, logdir: Path) -> None:
    body = """
    with HFSummaryWriter(repo_id, logdir=logdir, commit_every=60, close_timeout=45) as writer:
        for step in range(100):
            writer.add_scalar(f"rank-{os.getpid()}", step, step)
    """
    ranks = [scripts.start(body, hub, logdir, repo_id) for _ in range(3)]
    for rank in ranks:
        _, err = rank.communicate(timeout=scripts.SECONDS)
        assert rank.returncode == 0, err
        assert "WARNING" not in err
        assert events.steps(logdir, f"rank-{rank.pid}") == list(range(100))
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
    assert_sound(logdir)


@pytest.mark.faults("C6")
@pytest.mark.parametrize("code", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_pushed_with_one_warning(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, code: str
) -> None:
    ended = scripts.run(
        f"""
        import errno, fcntl
        def refuse(*_):
            raise OSError(errno.{code}, "no locks here")
        fcntl.flock = refuse
        with HFSummaryWriter(repo_id, logdir=logdir, commit_every=60) as writer:
            writer.add_scalar("loss", 1, 1)
            assert writer.scheduler.trigger().result(30) is not None
            writer.add_scalar("loss", 2, 2)
        """,
        hub, logdir, repo_id,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("WARNING") == 1, ended.stderr
    assert "do not upload this folder from another process" in ended.stderr
    assert events.steps(logdir, "loss") == [1, 2]
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
    assert_sound(logdir)


@pytest.mark.faults
def test_a_lock_held_for_ever_blocks_neither_the_constructor_nor_the_exit(
    hub: HubProcess, repo_id: str, logdir: Path
) -> None:
    state = logdir / STATE_FOLDER
    state.mkdir(parents=True)
    with filelock.FileLock(state / "push.lock"):
        ended = scripts.run(
            """
            began = time.monotonic()
            writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60, close_timeout=2)
            writer.add_scalar("loss", 1, 1)
            writer.flush()
            assert time.monotonic() - began < 10
            print(time.monotonic())
            """,
            hub, logdir, repo_id,
        )  # fmt: skip
        assert time.monotonic() - float(ended.stdout) < 20
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("hf-summary-writer sync") == 1
    assert events.steps(logdir, "loss") == [1]
    assert_sound(logdir)
