"""`push_on_sigterm=True` makes a last push, calls the earlier handler and exits with 143."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import events
import remote
import scripts
from aftermath import assert_sound
from faults.proxy import FaultProxy, Hang
from hf_summary_writer import CommitScheduler, HFSummaryWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

TRAIN = """
writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60, push_on_sigterm=True, close_timeout={seconds})
for step in range(1000):
    writer.add_scalar("loss", step, step)
{first}
print("ready", flush=True)
{rest}
"""


def train(seconds: float, rest: str = "time.sleep(60)", first: str = "") -> str:
    """Return a script that prints "ready", with code before and after that."""
    return TRAIN.format(seconds=seconds, first=first, rest=rest)


def terminated(body: str, hub: Any, logdir: Path, repo_id: str) -> subprocess.CompletedProcess[str]:
    with scripts.start(body, hub, logdir, repo_id) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        try:
            out, err = process.communicate(timeout=scripts.SECONDS)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_sigterm_pushes_the_last_scalar_and_exits_with_143(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path
) -> None:
    ended = terminated(train(seconds=20), hub, logdir, repo_id)
    assert ended.returncode == 143, ended.stderr
    assert events.steps(logdir, "loss") == list(range(1000))
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
    assert_sound(logdir)


def test_sigterm_exits_on_time_and_names_the_command_while_the_hub_hangs(
    proxy: FaultProxy, repo_id: str, logdir: Path
) -> None:
    proxy.add("*", ".", Hang(), times=99)
    began = time.monotonic()
    ended = terminated(train(seconds=2), proxy, logdir, repo_id)
    assert ended.returncode == 143, ended.stderr
    assert time.monotonic() - began < 30
    assert ended.stderr.count("hf-summary-writer sync") == 1
    assert events.steps(logdir, "loss") == list(range(1000))
    assert_sound(logdir)


def test_a_lock_held_by_the_main_thread_does_not_prevent_the_last_push(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path
) -> None:
    rest = "writer.scheduler.lock.acquire()\nos.kill(os.getpid(), signal.SIGTERM)\nwriter.scheduler.lock.release()\n"
    ended = scripts.run(train(seconds=8, rest=rest + "time.sleep(60)"), hub, logdir, repo_id)
    assert ended.returncode == 143, ended.stderr
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")


@pytest.mark.parametrize(
    ("handler", "code"), [("print('mine', flush=True)", 143), ("(print('mine', flush=True), sys.exit(7))", 7)]
)
def test_the_earlier_handler_is_called_and_may_choose_the_exit_code(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, handler: str, code: int
) -> None:
    before = f"signal.signal(signal.SIGTERM, lambda *_: {handler})\n"
    ended = terminated(before + train(seconds=12), hub, logdir, repo_id)
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == "mine\n"
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")


def test_the_earlier_handler_is_called_though_the_signal_does_not_wake_the_main_thread(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path
) -> None:
    before = "signal.signal(signal.SIGTERM, lambda *_: print('mine', flush=True))\n"
    # As if it had come just before the main thread began to sleep.
    rest = """
threading.Timer(1.0, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)).start()
time.sleep(60)
"""
    ended = scripts.run(before + train(seconds=8, rest=rest), hub, logdir, repo_id)
    assert (ended.returncode, ended.stdout) == (143, "ready\nmine\n"), ended.stderr
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")


def test_a_forked_worker_is_still_ended_by_sigterm(hub: HubProcess, api: HfApi, repo_id: str, logdir: Path) -> None:
    first = """
forked, tell = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(tell, b"!")  # a signal during the start of a forked child of Python is lost
    time.sleep(60)
os.read(forked, 1)
os.kill(pid, signal.SIGTERM)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
"""
    warned = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
    ended = terminated(warned + train(seconds=20, first=first), hub, logdir, repo_id)
    assert ended.returncode == 143, ended.stderr
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")


@pytest.mark.faults("P16")
@pytest.mark.parametrize(
    "in_c",
    [
        pytest.param("import hashlib; hashlib.pbkdf2_hmac('sha256', b'x', b'y', 1_000_000_000)", id="without the lock"),
        pytest.param("import re; re.match(r'(a+)+$', 'a' * 60 + 'b')", id="with the lock of the interpreter"),
    ],
)
def test_the_last_push_is_made_during_a_long_c_call_of_the_main_thread(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, in_c: str
) -> None:
    ended = terminated(train(seconds=20, rest=in_c), hub, logdir, repo_id)
    assert ended.returncode == 143, ended.stderr
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")


def test_a_child_terminated_during_its_start_does_not_end_its_parent(
    hub: HubProcess, repo_id: str, logdir: Path
) -> None:
    rest = """
import multiprocessing, warnings
warnings.simplefilter("ignore", DeprecationWarning)
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
for _ in range(20):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join()
writer.close()
print("done", flush=True)
"""
    ended = scripts.run(train(seconds=20, rest=rest), hub, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "ready\ndone\n"


def makers(logdir: Path) -> list[Callable[..., Any]]:
    return [
        lambda **more: HFSummaryWriter("user/run", logdir=logdir, repo_allow_patterns="none", **more),
        lambda **more: CommitScheduler(repo_id="user/run", folder_path=logdir, **more),
    ]


@pytest.mark.parametrize("kind", [0, 1])
def test_the_handler_is_installed_on_request_and_until_the_last_close(logdir: Path, kind: int) -> None:
    make = makers(logdir)[kind]
    before = signal.getsignal(signal.SIGTERM)
    plain = make()
    assert signal.getsignal(signal.SIGTERM) is before
    first, second = make(push_on_sigterm=True), make(push_on_sigterm=True)
    assert signal.getsignal(signal.SIGTERM) is not before
    first.close()
    assert signal.getsignal(signal.SIGTERM) is not before
    second.close()
    assert signal.getsignal(signal.SIGTERM) is before
    plain.close()


@pytest.mark.parametrize("kind", [0, 1])
def test_without_free_descriptors_the_handler_is_not_installed(
    logdir: Path, kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pipe() -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(os, "pipe", pipe)
    made = makers(logdir)[kind](push_on_sigterm=True)
    assert signal.getsignal(signal.SIGTERM) is before
    made.close()


@pytest.mark.parametrize("kind", [0, 1])
def test_push_on_sigterm_outside_the_main_thread_is_refused_at_once(logdir: Path, kind: int) -> None:
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            makers(logdir)[kind](push_on_sigterm=True)
        except ValueError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])
    assert not logdir.exists()
    with pytest.raises(TypeError, match="push_on_sigterm"):
        makers(logdir)[kind](push_on_sigterm="yes")
