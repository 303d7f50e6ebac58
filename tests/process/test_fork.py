"""Forked children never push, hang or keep the lock; the parent pushes their events."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest

import events
import remote
import scripts
from aftermath import assert_sound
from faults.proxy import Delay, FaultProxy
from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.events import EventWriter
from hf_summary_writer.events.files import parse_name
from hf_summary_writer.folder import STATE_FOLDER

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

QUIET = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"

# The parent is in the middle of a commit, so it holds the folder's lock and the locks of its threads.
FORK = (
    QUIET
    + """
writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60)
for step in range(1000):
    writer.add_scalar("parent", step, step)
writer.scheduler.trigger()
lock = os.path.join(logdir, ".cache", "huggingface", "hf-summary-writer", "push.lock")
import fcntl
def is_held():
    try:
        with open(lock, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
while not is_held():
    time.sleep(0.01)
held = threading.Event()
from huggingface_hub import get_session
pool = get_session()._transport._pool
def hold():
    with writer.scheduler.lock, writer.scheduler._loop.lock, writer._lifecycle, pool._optional_thread_lock:
        held.set()
        time.sleep(0.5)
holder = threading.Thread(target=hold)
holder.start()
held.wait()
pid = os.fork()
if pid == 0:
    began = time.monotonic()
    for step in range(100):
        writer.add_scalar("child", step, step)
    writer.flush()
    assert writer.scheduler.trigger().result(10) is None
    assert writer.scheduler.push_to_hub() is None
    {close}
    took = time.monotonic() - began
    names = [thread.name for thread in threading.enumerate()]
    if took > {seconds} or any(name.endswith(("-push", "-hub")) for name in names):
        print(took, names, flush=True)
        os._exit(1)
    print("fine", flush=True)
    {end}
assert os.waitpid(pid, 0)[1] == 0
holder.join()
"""
)


@pytest.mark.faults("P7")
@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)"])
@pytest.mark.parametrize("close", ["writer.close()", "pass"])
def test_a_child_logs_and_its_parent_pushes(
    proxy: FaultProxy, api: HfApi, repo_id: str, logdir: Path, end: str, close: str
) -> None:
    proxy.add("POST", "/commit/", Delay(1.5))
    # One second as documented, the rest for a busy machine; a copied lock would be held for ever.
    body = FORK.format(close=close, end=end, seconds=10)
    ended = scripts.run(body, proxy, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "fine\n"
    assert "WARNING" not in ended.stderr
    assert events.steps(logdir, "parent") == list(range(1000))
    assert events.steps(logdir, "child") == list(range(100))
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
    assert_sound(logdir)


def test_a_child_forked_during_an_import_of_the_push_thread_can_import_that_module(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import __main__; __main__.reached.set(); __main__.go_on.wait()")
    ended = events.run(
        QUIET
        + """
import importlib, os, signal, sys, threading, time
from hf_summary_writer.folder import prepare_for_forks
from hf_summary_writer.hub.thread import HubThread
prepare_for_forks()
sys.path.insert(0, sys.argv[1])
reached, go_on, sleep = threading.Event(), threading.Event(), time.sleep
def end_the_import(seconds):
    go_on.set()
    sleep(seconds)
threading.Thread(target=HubThread().call, args=(lambda: importlib.import_module("slow"), 60)).start()
reached.wait()
time.sleep = end_the_import
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    go_on.set()
    import slow
    os._exit(0)
go_on.set()
assert os.waitpid(pid, 0)[1] == 0
""",
        tmp_path,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.faults
def test_a_child_forked_outside_of_python_does_not_push(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path
) -> None:
    # No push is running: Python cannot repair its own locks after such a fork.
    ended = scripts.run(
        """
        import ctypes
        writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60)
        writer.add_scalar("parent", 1, 1)
        writer.scheduler.trigger().result(30)
        writer.flush()
        pid = ctypes.PyDLL(None).fork()
        if pid == 0:
            writer.add_scalar("child", 1, 1)
            writer.flush()
            done = writer.scheduler.trigger().result(10) is None and writer.scheduler.push_to_hub() is None
            writer.close()
            os._exit(0 if done else 1)
        assert os.waitpid(pid, 0)[1] == 0
        """,
        hub, logdir, repo_id,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert events.steps(logdir, "child") == [1]
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
    assert_sound(logdir)


@pytest.mark.faults
def test_a_child_that_outlives_its_parent_does_not_hold_the_lock(proxy: FaultProxy, repo_id: str, logdir: Path) -> None:
    proxy.add("POST", "/commit/", Delay(1.5))
    body = FORK[: FORK.index("held = ")] + (
        "pid = os.fork()\nif pid == 0:\n    os.close(1); os.close(2); time.sleep(30); os._exit(0)\n"
        "print(pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = scripts.run(body, proxy, logdir, repo_id)
    child = int(ended.stdout)
    try:
        os.kill(child, 0)
        assert_sound(logdir)
    finally:
        os.kill(child, 9)


@pytest.mark.faults("P18")
@pytest.mark.parametrize("end", ["writer.close()", "sys.exit(0)"])
def test_a_child_that_logs_after_its_parent_ended_names_the_sync_command(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, end: str
) -> None:
    body = f"""
writer = HFSummaryWriter(repo_id, logdir=logdir)
writer.add_scalar("parent", 1, 1)
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent:
        time.sleep(0.01)
    writer.add_scalar("child", 1, 1)
    writer.flush()
    {end}
    sys.exit(0)
writer.close()
"""
    # The child holds the pipes too, so this waits for both processes.
    ended = scripts.run(QUIET + body, hub, logdir, repo_id)
    assert events.steps(logdir, "child") == [1]
    assert ended.stderr.count("hf-summary-writer sync") == 1, ended.stderr
    assert set(remote.files(api, repo_id)) < set(remote.under(logdir, "tensorboard/run-1"))


@pytest.mark.faults("P18")
@pytest.mark.parametrize("logs", [True, False])
def test_events_of_a_child_after_the_parents_close_are_named_at_its_exit(
    hub: HubProcess, logdir: Path, repo_id: str, *, logs: bool
) -> None:
    body = f"""
writer = HFSummaryWriter(repo_id, logdir=logdir)
writer.add_scalar("parent", 1, 1)
closed, close = os.pipe()
child = os.fork()
if child == 0:
    os.read(closed, 1)
    if {logs}:
        writer.add_scalar("child", 1, 1)
        writer.flush()
    os._exit(0)
writer.close()
os.write(close, b"1")
os.waitpid(child, 0)
"""
    ended = scripts.run(QUIET + body, hub, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("hf-summary-writer sync") == logs, ended.stderr


@pytest.mark.parametrize(
    ("environment", "arguments", "is_named"),
    [({}, {}, True), ({"RANK": "0"}, {}, False), ({}, {"write_to_disk": False}, False)],
    ids=["alone", "one of several ranks", "without a file"],
)
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_data_that_other_processes_may_push_is_not_named_at_exit(
    api: HfApi,
    repo_id: str,
    logdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    environment: dict[str, str],
    arguments: dict[str, Any],
    is_named: bool,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with HFSummaryWriter(repo_id, logdir, hf_api=api, commit_every=60, **arguments) as writer:
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
    with EventWriter(logdir) as other:
        other.add_scalar("loss", 1.0, 1)
    writer.scheduler.at_exit()(False)
    assert ("Not all of" in caplog.text) is is_named


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_the_child_of_an_offline_run_does_not_end_it(api: HfApi, logdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_SUMMARY_WRITER_MODE", "offline")
    with HFSummaryWriter("user/run", logdir, hf_api=api) as writer:
        writer.add_scalar("loss", 1.0, 1)
        writer.flush()
        before = states_left(logdir)
        child = os.fork()
        if not child:
            writer.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert states_left(logdir) == before
    assert states_left(logdir) != before


def states_left(logdir: Path) -> list[bytes]:
    """Return the states of the run that it left for a later upload."""
    return [path.read_bytes() for path in (logdir / STATE_FOLDER).glob("*.json") if b"finished" in path.read_bytes()]


def test_with_multiprocessing_workers_only_the_parent_uploads(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path
) -> None:
    ended = scripts.run(
        QUIET
        + """
import multiprocessing
def work(number):
    for step in range(50):
        writer.add_scalar(f"worker{number}", step, step)
    writer.scheduler.trigger().result(10)
writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60)
assert writer.scheduler.trigger().result(30) is None  # the first push ends before there is a file to push
context = multiprocessing.get_context("fork")
workers = [context.Process(target=work, args=(number,)) for number in range(3)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join(20)
    assert worker.exitcode == 0
""",
        hub, logdir, repo_id,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    for number in range(3):
        assert events.steps(logdir, f"worker{number}") == list(range(50))
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
    assert len([title for title in remote.commits(api, repo_id) if title.startswith("Logs of")]) == 1
    assert_sound(logdir)


@pytest.mark.torch
@pytest.mark.faults("P8")
def test_forked_dataloader_workers_neither_hang_nor_commit(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path
) -> None:
    pytest.importorskip("torch")
    ended = scripts.run(
        QUIET
        + """
import torch
from torch.utils.data import DataLoader, Dataset
class Logged(Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, index):
        writer.add_scalar("worker", index, index)
        return torch.tensor([float(index)])
commits = []
writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60, on_commit=commits.append)
step = 0
loader = DataLoader(Logged(), batch_size=4, num_workers=4, persistent_workers=True, multiprocessing_context="fork")
for epoch in range(2):
    for batch in loader:
        writer.add_scalar("loss", batch.mean(), step)
        step += 1
del loader
writer.close()
print(len(commits))
""",
        hub, logdir, repo_id,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert events.steps(logdir, "loss") == list(range(32))
    workers = {name.pid for path in events.event_files(logdir) if (name := parse_name(path.name))}
    assert len(workers) == 5
    assert sorted(events.steps(logdir, "worker")) == sorted([*range(64), *range(64)])
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
    # Only the parent made commits.
    assert len([title for title in remote.commits(api, repo_id) if re.match("Logs of", title)]) == int(ended.stdout)
    assert_sound(logdir)
