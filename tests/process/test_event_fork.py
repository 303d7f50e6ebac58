"""A forked child writes its own file, loses no event, and never disturbs or repeats its parent's events."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from events import event_files, run, steps
from hf_summary_writer.events.files import parse_name

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PREAMBLE = """
import multiprocessing, os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # the tests fork with threads
from hf_summary_writer.events.writer import EventWriter
logdir = sys.argv[1]

def reap(pid):
    assert os.waitpid(pid, 0)[1] == 0
"""


def pids(logdir: Path) -> set[int]:
    return {name.pid for path in event_files(logdir) if (name := parse_name(path.name))}


@pytest.mark.parametrize(
    "end", ["sys.exit(0)", "writer.flush(); os._exit(0)", "writer.close(); os._exit(0)", "os._exit(0)"]
)
def test_a_child_logs_to_its_own_file_and_the_parents_events_are_written_once(tmp_path: Path, end: str) -> None:
    result = run(
        PREAMBLE
        + f"""
writer = EventWriter(logdir)
for step in range(1000):
    writer.add_scalar("parent", step, step)
pid = os.fork()
if pid == 0:
    for step in range(100):
        writer.add_scalar("child", step, step)
    {end}
reap(pid)
for step in range(1000, 2000):
    writer.add_scalar("parent", step, step)
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert steps(tmp_path, "parent") == list(range(2000))
    if end != "os._exit(0)":
        assert steps(tmp_path, "child") == list(range(100))
        assert len(pids(tmp_path)) == 2


BOARD = """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
board = EventAccumulator(logdir, size_guidance={"scalars": 0})
"""


def test_tensorboard_follows_the_parents_curve_when_a_child_logs(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + BOARD
        + """
with EventWriter(logdir) as writer:
    for step in range(30):
        writer.add_scalar("parent", step, step)
        if step % 10 == 0:
            pid = os.fork()
            if pid == 0:
                writer.add_scalar("child", step, step)
                writer.close()
                os._exit(0)
            reap(pid)
        writer.flush()
        board.Reload()
        assert [event.step for event in board.Scalars("parent")] == list(range(step + 1))
""",
        tmp_path,
    )
    assert result.returncode == 0, result.stderr  # TensorBoard warns about the name that sorts earlier
    assert sorted(steps(tmp_path, "child")) == [0, 10, 20]


def test_tensorboard_follows_a_child_that_logs_instead_of_its_parent(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + BOARD
        + """
with EventWriter(logdir) as writer:
    board.Reload()
    pid = os.fork()
    if pid == 0:
        for step in range(10):
            writer.add_scalar("child", step, step)
            writer.flush()
            board.Reload()
            assert [event.step for event in board.Scalars("child")] == list(range(step + 1))
        os._exit(0)
    reap(pid)
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_a_child_that_logs_nothing_writes_nothing(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + """
writer = EventWriter(logdir)
writer.add_scalar("parent", 1, 1)
for end in (sys.exit, os._exit):
    pid = os.fork()
    if pid == 0:
        writer.flush()
        writer.close()
        end(0)
    reap(pid)
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert len(event_files(tmp_path)) == 1
    assert steps(tmp_path, "parent") == [1]


def test_multiprocessing_workers_may_log_and_exit_without_a_close(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + """
writer = EventWriter(logdir)
def work(n):
    for step in range(500):
        writer.add_scalar(f"worker{n}", step, step)
        writer.add_scalars("sub", {f"key{n}": step}, step)
context = multiprocessing.get_context("fork")
workers = [context.Process(target=work, args=(n,)) for n in range(4)]
for worker in workers:
    worker.start()
for step in range(500):
    writer.add_scalar("parent", step, step)
for worker in workers:
    worker.join()
    assert worker.exitcode == 0
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert steps(tmp_path, "parent") == list(range(500))
    for n in range(4):
        assert steps(tmp_path, f"worker{n}") == list(range(500))
        assert steps(tmp_path / "sub" / f"key{n}", "sub") == list(range(500))
    assert len(pids(tmp_path)) == 5


def test_children_forked_while_threads_log_and_flush_never_hang(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + """
writer = EventWriter(logdir, max_pending_bytes=100_000)
stop = threading.Event()
counts = [0] * 3
def busy(n):
    while not stop.is_set():
        writer.add_scalar(f"busy{n}", 1.0, counts[n])
        writer.add_text(f"text{n}", "x" * 1000, counts[n])
        counts[n] += 1
        if counts[n] % 20 == 0:
            writer.flush()
        if counts[n] % 100 == 0:
            writer.add_scalars(f"sub{n}", {"x": 1}, counts[n])
threads = [threading.Thread(target=busy, args=(n,)) for n in range(3)]
for thread in threads:
    thread.start()
for fork in range(30):
    pid = os.fork()
    if pid == 0:
        writer.add_scalar("child", fork, fork)
        writer.add_scalars("subchild", {"x": 1}, fork)
        if fork % 3 == 0:
            writer.flush()
        elif fork % 3 == 1:
            writer.close()
        if fork % 2 and fork % 3 != 2:
            os._exit(0)
        stop.set()
        os.environ["CHILD"] = "1"
        break
    reap(pid)
if "CHILD" not in os.environ:
    stop.set()
    for thread in threads:
        thread.join()
    writer.close()
    print(*counts)
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    counts = list(map(int, result.stdout.split()))
    for n, count in enumerate(counts):
        assert steps(tmp_path, f"busy{n}") == list(range(count))
    assert sorted(steps(tmp_path, "child")) == list(range(30))


def test_a_grandchild_writes_its_own_file(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + """
writer = EventWriter(logdir)
for generation in range(4):
    writer.add_scalar("generation", generation, generation)
    pid = os.fork()
    if pid:
        reap(pid)
        break
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(steps(tmp_path, "generation")) == [0, 1, 2, 3]
    assert len(pids(tmp_path)) == 4


def test_a_fork_outside_of_python_is_noticed(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + """
import ctypes
writer = EventWriter(logdir)
for step in range(100):
    writer.add_scalar("parent", step, step)
writer.flush()
pid = ctypes.PyDLL(None).fork()
if pid == 0:
    for step in range(100):
        writer.add_scalar("child", step, step)
    writer.flush()
    os._exit(0)
reap(pid)
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert steps(tmp_path, "parent") == list(range(100))
    assert steps(tmp_path, "child") == list(range(100))
    assert len(pids(tmp_path)) == 2


def test_the_child_of_a_closed_writer_may_reopen_it(tmp_path: Path) -> None:
    result = run(
        PREAMBLE
        + """
writer = EventWriter(logdir)
writer.add_scalar("a", 1, 1)
writer.close()
pid = os.fork()
if pid == 0:
    writer.add_scalar("a", 2, 2)
    sys.exit(0)
reap(pid)
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert steps(tmp_path, "a") == [1, 2]
