"""Opening and closing many writers leaks nothing, and strict modes report no error."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import events
import remote
import scripts
from aftermath import assert_sound

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess


@pytest.mark.faults("P11")
def test_hundreds_of_writers_leak_no_threads_descriptors_and_hooks(hub: HubProcess, repo_id: str, logdir: Path) -> None:
    ended = scripts.run(
        """
        import gc, json
        from hf_summary_writer import process

        def state():
            # A thread takes a moment to end.
            deadline = time.monotonic() + 20
            while threading.active_count() > 1 and time.monotonic() < deadline:
                time.sleep(0.01)
            gc.collect()
            return {
                "threads": [thread.name for thread in threading.enumerate()],
                "descriptors": len(os.listdir("/proc/self/fd")),
                "told at fork": len(process._fork_aware.newest_first()),
                "told at exit": len(process._exit_aware.newest_first()),
                "handler": str(signal.getsignal(signal.SIGTERM)),
                "asked": len(process.watch._members),
            }

        def cycle(count):
            for number in range(count):
                with HFSummaryWriter(
                    repo_id, logdir=logdir, repo_allow_patterns="none", push_on_sigterm=bool(number % 2)
                ) as writer:
                    writer.add_scalar("loss", number, number)
                with CommitScheduler(repo_id=repo_id, folder_path=logdir, allow_patterns="none"):
                    pass

        cycle(10)
        before = state()
        cycle(250)
        print(json.dumps([before, state()]))
        """,
        hub, logdir, repo_id,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    before, after = json.loads(ended.stdout)
    assert before["threads"] == ["MainThread"]
    assert after == before
    assert_sound(logdir)


@pytest.mark.faults
def test_a_users_test_that_closes_no_writer_shows_no_error_under_pytest(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, tmp_path: Path
) -> None:
    # pytest replaces the streams after a test; the last push runs later.
    (tmp_path / "test_mine.py").write_text(
        f"""
from hf_summary_writer import HFSummaryWriter
def test_mine(capsys):
    global writer
    writer = HFSummaryWriter({repo_id!r}, logdir={str(logdir)!r}, commit_every=60)
    for step in range(1000):
        writer.add_scalar("loss", step, step)
"""
    )
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", tmp_path],
        env=scripts.environment(hub, tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=scripts.SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    for complaint in ("Logging error", "Traceback", "I/O operation on closed file"):
        assert complaint not in ended.stdout + ended.stderr
    assert events.steps(logdir, "loss") == list(range(1000))
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")


# A wall clock that jumps a day forward and back every few readings; the monotonic clock is unchanged.
JUMPS = """
import itertools
real, real_ns, jumps = time.time, time.time_ns, itertools.cycle([0] * 50 + [86_400] * 50 + [-86_400] * 50)
time.time = lambda: real() + next(jumps)
time.time_ns = lambda: real_ns() + next(jumps) * 10**9
"""
RUN = """
pushes = []
with HFSummaryWriter(repo_id, logdir=logdir, commit_every=60, on_commit=pushes.append) as writer:
    for step in range(2000):
        writer.add_scalar("loss", step, step)
    writer.scheduler.trigger().result(30)
    writer.add_scalars("both", {"a": 1, "b": 2})
print(len(pushes))
"""


@pytest.mark.faults("P12")
@pytest.mark.parametrize(
    "before",
    ["", JUMPS, "sys.stderr.close(); sys.stdout.close(); sys.stdout = sys.stderr = None\n"],
    ids=["strict", "clock", "closed-streams"],
)
def test_strict_mode_a_jumping_clock_and_closed_streams_cause_no_error(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, before: str
) -> None:
    # Warnings about calls of huggingface_hub are not ours.
    allowed = ["-W", "ignore:hf_xet:DeprecationWarning", "-W", "ignore:Use 'content=<...>':DeprecationWarning"]
    # Runs after the preamble, so the filter covers our code only.
    strict = "import warnings\nwarnings.simplefilter('error', ResourceWarning)\n"
    ended = scripts.run(strict + before + RUN, hub, logdir, repo_id, "-W", "error", *allowed)
    assert ended.returncode == 0, ended.stderr
    for complaint in ("ResourceWarning", "Logging error", "Traceback", "Exception ignored", "WARNING"):
        assert complaint not in ended.stderr
    if "close" not in before:
        assert 2 <= int(ended.stdout) <= 3  # no burst
    assert events.steps(logdir, "loss") == list(range(2000))
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
    assert_sound(logdir)
