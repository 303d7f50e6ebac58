"""Ctrl-C ends the program as without the library, and skips the wait for the last push."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

import events
import remote
import scripts
from aftermath import assert_sound
from faults.proxy import Delay, FaultProxy, Hang

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from huggingface_hub import HfApi


TRAIN = """
with HFSummaryWriter(repo_id, logdir=logdir, commit_every=60, close_timeout=45) as writer:
    for step in range(1000):
        writer.add_scalar("loss", step, step)
    %s
"""
# In many calls, because a signal just before a call is handled after it.
SLEEP = "print('ready', flush=True); [time.sleep(0.1) for _ in range(600)]  # the user's own line"
TRIGGER = "writer.scheduler.trigger(); "
WITHOUT_WITH = """
writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60, close_timeout=45)
for step in range(1000):
    writer.add_scalar("loss", step, step)
other = HFSummaryWriter(repo_id, logdir=logdir + "-other", commit_every=60, close_timeout=45)
other.add_scalar("loss", 1, 1)
"""


def wait_for_line(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == line


def wait_for_commit(proxy: FaultProxy) -> None:
    events.wait_until(lambda: any("/commit/" in seen.path for seen in proxy.requests), scripts.SECONDS)


def wait_for_explanation(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said = ""
    while "Ctrl-C skips the wait" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


@pytest.mark.faults("P3")
@pytest.mark.parametrize("when", ["idle", "in a push"])
def test_ctrl_c_during_training_ends_the_program_as_usual_and_loses_nothing(
    proxy: FaultProxy, api: HfApi, repo_id: str, logdir: Path, when: str
) -> None:
    if when == "in a push":
        proxy.add("POST", "/commit/", Delay(1))
    body = (TRIGGER if when == "in a push" else "") + SLEEP
    with scripts.start(TRAIN % body, proxy, logdir, repo_id) as process:
        wait_for_line(process, "ready\n")
        if when == "in a push":
            wait_for_commit(proxy)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=scripts.SECONDS)
    assert process.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert err.count("Traceback") == 1
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
    assert_sound(logdir)


@pytest.mark.parametrize("ending", ["the block ends", "close"])
@pytest.mark.faults
def test_ctrl_c_while_close_waits_skips_the_wait_and_the_program_continues(
    proxy: FaultProxy, repo_id: str, logdir: Path, ending: str
) -> None:
    proxy.add("POST", "/commit/", Hang(), times=9)
    body = TRAIN % ("pass" if ending == "the block ends" else "writer.close()")
    # In short naps, since a signal that comes just before a sleep waits for its end.
    goes_on = "print('saved', flush=True)\nfor _ in range(600):\n    time.sleep(0.1)"
    with scripts.start(f"{body}{goes_on}", proxy, logdir, repo_id) as process:
        err = wait_for_explanation(process)
        wait_for_commit(proxy)
        process.send_signal(signal.SIGINT)
        wait_for_line(process, "saved\n")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)  # after `close`, the signal ends the program
        err += process.communicate(timeout=scripts.SECONDS)[1]
        assert time.monotonic() - began < 15
    assert process.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1, err
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert err.count("hf-summary-writer sync") == 1
    assert_sound(logdir)


@pytest.mark.faults
def test_ctrl_c_in_the_last_push_skips_the_wait_and_prints_one_traceback(
    proxy: FaultProxy, repo_id: str, logdir: Path
) -> None:
    proxy.add("POST", "/commit/", Hang(), times=9)
    with scripts.start(TRAIN % SLEEP, proxy, logdir, repo_id) as process:
        wait_for_line(process, "ready\n")
        process.send_signal(signal.SIGINT)
        err = wait_for_explanation(process)
        wait_for_commit(proxy)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        err += process.communicate(timeout=scripts.SECONDS)[1]
        assert time.monotonic() - began < 15
    assert process.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1, err
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert err.count("hf-summary-writer sync") == 1
    assert_sound(logdir)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.faults
def test_a_signal_after_the_scripts_end_skips_all_waits_and_keeps_the_exit_code(
    proxy: FaultProxy, repo_id: str, logdir: Path, number: signal.Signals
) -> None:
    proxy.add("POST", "/commit/", Hang(), times=9)
    own_handler = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))"
    with scripts.start(f"{own_handler}{WITHOUT_WITH}sys.exit(3)", proxy, logdir, repo_id) as process:
        err = wait_for_explanation(process)
        began = time.monotonic()
        process.send_signal(number)
        err += process.communicate(timeout=scripts.SECONDS)[1]
        assert time.monotonic() - began < 15
    assert process.returncode == 3, err
    assert "Traceback" not in err
    assert err.count("hf-summary-writer sync") == 2
    assert_sound(logdir)
