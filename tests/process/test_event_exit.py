"""Logged events are on disk however the process ends, as far as that kind of exit allows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from events import event_files, payloads, run, scalars, start, steps, wait_until

if TYPE_CHECKING:
    from pathlib import Path

PREAMBLE = """
import atexit, os, signal, sys, threading, time
from hf_summary_writer.events.writer import EventWriter
logdir = sys.argv[1]
"""
NO_THREADS = """
def refuse(self):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
"""


def test_a_script_without_a_close_has_all_events_on_disk(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + """
writer = EventWriter(logdir)
for step in range(5000):
    writer.add_scalar("a", step, step)
writer.add_scalars("m", {"x": 1, "y": 2}, 7)
writer.add_text("last", "word", 8)
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert steps(tmp_path, "a") == list(range(5000))
    assert steps(tmp_path, "last/text_summary") == [8]
    assert scalars(tmp_path / "m" / "y", "m") == [(7, 2.0)]


def test_an_unreferenced_writer_has_all_events_on_disk(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + """
def train():
    writer = EventWriter(logdir)
    for step in range(500):
        writer.add_scalar("a", step, step)
train()
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert steps(tmp_path, "a") == list(range(500))


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(3)", 3), ("raise SystemExit(4)", 4), ("1 / 0", 1), ("raise KeyboardInterrupt", -2)]
)
def test_the_exit_code_is_unchanged(tmp_path: Path, end: str, code: int) -> None:
    result = run(PREAMBLE + f"EventWriter(logdir).add_scalar('a', 1, 1)\n{end}\n", tmp_path)
    assert result.returncode == code
    assert steps(tmp_path, "a") == [1]


def test_events_of_a_thread_that_outlives_the_main_module_are_on_disk(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + """
writer = EventWriter(logdir)
main = threading.current_thread()
def late():
    main.join()
    for step in range(1000):
        writer.add_scalar("late", step, step)
threading.Thread(target=late).start()
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert steps(tmp_path, "late") == list(range(1000))


def test_an_exit_handler_may_log_and_close(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + """
writer = EventWriter(logdir)
writer.add_scalar("a", 1, 1)
@atexit.register
def finish():
    writer.add_scalar("a", 2, 2)
    writer.close()
    writer.add_scalar("a", 3, 3)
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert steps(tmp_path, "a") == [1, 2, 3]


def test_a_writer_made_in_an_exit_handler_works_without_a_thread(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + """
@atexit.register
def finish():
    with EventWriter(logdir) as writer:
        writer.add_scalar("a", 1, 1)
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert steps(tmp_path, "a") == [1]


def test_events_are_logged_when_no_thread_can_be_started(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + NO_THREADS
        + """
writer = EventWriter(logdir, max_pending_bytes=20_000)
for step in range(2000):
    writer.add_scalar("a", step, step)
writer.flush()
assert len(os.listdir(logdir)) == 1
for step in range(2000, 3000):
    writer.add_scalar("a", step, step)
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert steps(tmp_path, "a") == list(range(3000))


@pytest.mark.faults("M4")
def test_without_a_thread_events_are_on_the_disk_before_a_kill(tmp_path: Path) -> None:
    process = start(
        PREAMBLE
        + NO_THREADS
        + """
from hf_summary_writer.events import queue
queue._REGISTER_SECONDS = 0.0  # how often a call looks for the thread
writer = EventWriter(logdir)
for step in range(100):
    writer.add_scalar("a", step, step)
os.kill(os.getpid(), signal.SIGKILL)
""",
        tmp_path,
    )
    process.communicate(timeout=60)
    assert steps(tmp_path, "a") == list(range(100))


def test_a_kill_loses_only_the_newest_events_and_tears_no_record(tmp_path: Path) -> None:
    process = start(
        PREAMBLE
        + """
writer = EventWriter(logdir)
step = 0
while True:
    writer.add_scalar("a", step, step)
    if step == 2000:
        writer.flush()
        print("flushed", flush=True)
    step += 1
""",
        tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "flushed\n"
    process.kill()
    process.wait()
    process.stdout.close()
    found = steps(tmp_path, "a", growing=True)
    assert found == list(range(len(found)))
    assert len(found) > 2000


def test_events_logged_a_while_before_a_kill_are_in_the_file(tmp_path: Path) -> None:
    process = start(
        PREAMBLE
        + """
writer = EventWriter(logdir)
writer.add_scalar("a", 1, 1)
signal.pause()
""",
        tmp_path,
    )
    wait_until(lambda: event_files(tmp_path) and steps(tmp_path, "a", growing=True) == [1])
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    [path] = event_files(tmp_path)
    assert len(payloads(path)) == 2


def test_sigterm_ends_the_process_at_once(tmp_path: Path) -> None:
    process = start(
        PREAMBLE + "writer = EventWriter(logdir)\nprint('ready', flush=True)\nsignal.pause()\n",
        tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(timeout=10) == -signal.SIGTERM
    process.stdout.close()


def test_a_signal_handler_may_log_flush_and_close_during_any_call(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + """
writer = EventWriter(logdir)
calls = 0
def handler(*_):
    global calls
    calls += 1
    writer.add_scalar("signal", calls, calls)
    writer.add_text("signal", str(calls), calls)
    writer.flush()
    if calls % 10 == 0:
        writer.close()
    if calls < 100:
        signal.setitimer(signal.ITIMER_REAL, 0.002)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.002)
step = 0
while calls < 100:
    writer.add_scalar("a", step, step)
    if step % 50 == 0:
        writer.add_text("text", str(step), step)
        writer.flush()
    if step % 1000 == 0:
        writer.close()
    step += 1
writer.close()
print(step, calls)
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    last, calls = map(int, result.stdout.split())
    assert steps(tmp_path, "a") == list(range(last))
    assert steps(tmp_path, "signal") == list(range(1, calls + 1))


def test_ctrl_c_while_flushing_loses_and_repeats_no_event(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + """
writer = EventWriter(logdir)
signal.signal(signal.SIGALRM, signal.default_int_handler)
step = interrupted = 0
while interrupted < 100:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        while True:
            for _ in range(100):
                next_step = step + 1
                writer.file_writer.add_scalar(writer._prefix("a"), 1.0, step); step = next_step
            writer.flush()
    except KeyboardInterrupt:
        interrupted += 1
writer.close()
print(step)
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    found = steps(tmp_path, "a")
    counted = int(result.stdout)
    # An interrupted call may have logged before it was counted, and is then repeated, except for the last one.
    assert sorted(set(found)) in (list(range(counted)), list(range(counted + 1)))
    assert found == sorted(found)


@pytest.mark.parametrize("call", ["flush", "close"])
def test_a_finalizer_at_interpreter_shutdown_does_not_hang(tmp_path: Path, call: str) -> None:
    result = run(
        PREAMBLE
        + f"""
class Trainer:
    def __init__(self):
        self.writer = EventWriter(logdir)
    def __del__(self):
        self.writer.add_scalar("a", 1, 1)
        self.writer.{call}()
def train():
    with EventWriter(logdir) as writer:
        while True:
            writer.add_scalar("b", 1, 1)
            yield
kept = [Trainer(), training := train()]
next(training)
""",
        tmp_path,
    )
    assert result.returncode == 0
    assert steps(tmp_path, "a") == steps(tmp_path, "b") == [1]


def test_importing_starts_no_thread_and_writes_no_file(tmp_path: Path) -> None:
    result = run(
        "import threading, os\nimport hf_summary_writer.events.writer\n"
        "assert threading.active_count() == 1\nassert os.listdir('.') == []\n",
        tmp_path,
        cwd=tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_development_mode_reports_no_open_file(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None\n" + PREAMBLE + "EventWriter(logdir).close()"
    result = subprocess.run(
        [
            sys.executable,
            "-X",
            "dev",
            "-W",
            "error::ResourceWarning",
            "-c",
            code,
            tmp_path,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    assert (result.returncode, result.stderr) == (0, "")
