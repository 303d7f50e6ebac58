"""Two hosts share a folder without shared locks, and the Hub ends up with the folder's content."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import events
import remote
import scripts
from faults.proxy import Delay, FaultProxy, Hold
from hf_summary_writer.config import Destination
from hf_summary_writer.folder import PUSH_LOCK, STATE_FOLDER, ledgers_of
from scale.history import assert_every_commit_is_whole, history
from scale.launched import Launched

if TYPE_CHECKING:
    from collections.abc import Mapping

    from huggingface_hub import HfApi

    from hub_process import HubProcess

pytestmark = pytest.mark.timeout(300)

TRAINING = Path(__file__).parent / "training" / "host.py"
SECONDS = 90.0
# Unlike on another host, file system and processes are shared; only the two lock files are different ones.
MOUNT_AND_RUN = 'mount --bind "$0" "$1" && mount --bind "$2" "$3" && shift 3 && exec "$@"'


@functools.cache
def why_no_mounts() -> str:
    """Return why bind mounts in a new namespace are not possible here; empty if they are."""
    if shutil.which("unshare") is None:
        return "there is no `unshare` (Debian: util-linux)"
    done = subprocess.run(
        ["unshare", "-m", "mount", "--bind", "/proc/version", "/proc/uptime"],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return f"`unshare -m` or `mount` is not allowed here: {done.stderr.strip()}" if done.returncode else ""


class Hosts:
    """Start trainings on one folder, each with its own lock files."""

    def __init__(self, logdir: Path, repo_id: str, stop: Path, environment: Mapping[str, str]) -> None:
        destination = Destination(environment["HF_ENDPOINT"], "model", repo_id, "main", f"tensorboard/{logdir.name}")
        state = logdir / STATE_FOLDER
        state.mkdir(parents=True)
        self._locks = [state / PUSH_LOCK, state / f"{destination.key}.lease.lock"]
        for lock in self._locks:
            lock.touch()
        self._arguments = [repo_id, str(logdir)]
        self._stop = stop
        self._environment = environment

    def host(self, name: str) -> Launched:
        mounts = []
        for lock in self._locks:
            own = self._stop.with_name(f"{name}.{lock.name}")
            own.touch()
            mounts += [str(own), str(lock)]
        training = [sys.executable, str(TRAINING), *self._arguments, str(self._stop.with_name(f"{name}.stop"))]
        return Launched(["unshare", "-m", "sh", "-c", MOUNT_AND_RUN, *mounts, *training], self._environment)

    def stop(self, name: str) -> None:
        self._stop.with_name(f"{name}.stop").touch()


def pid_of(training: Launched) -> int:
    return training.process.pid


def size_on_hub(hub: HubProcess, repo_id: str, pid: int) -> int:
    """Return the size of a host's file on the Hub."""
    return next(
        (
            change.size
            for commit in reversed(history(hub.root, repo_id))
            for path, change in commit.changes.items()
            if f".{pid}_" in path
        ),
        0,
    )


def size_known(logdir: Path, pid: int) -> int:
    """Return the uploaded size of a host's file, as recorded in the folder's ledger."""
    [ledger] = ledgers_of(logdir)
    return sum(entry.length for path, entry in ledger.entries.items() if f".{pid}_" in path)


def size_here(logdir: Path, pid: int) -> int:
    return sum(path.stat().st_size for path in logdir.glob(f"*.{pid}_*"))


@pytest.mark.parametrize("late", ["commit", "record"])
def test_hosts_on_a_folder_without_shared_locks_upload_its_exact_content(
    late: str, hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, mark: Mapping[str, str]
) -> None:
    """An older commit is made after a newer one of the other host, in one case with ledger records out of order too.

    `second` pushes its last events and ends, while a commit of `first` with fewer of these is still being made.
    """
    if reason := why_no_mounts():
        pytest.skip(reason)
    logdir = tmp_path / "shared" / "run"
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(FaultProxy(hub))
        environment = {**scripts.environment(proxy, tmp_path), **mark, "HF_SUMMARY_WRITER_COMMIT_EVERY": "0.05"}
        hosts = Hosts(logdir, repo_id, tmp_path / "stop", environment)
        first, second = stack.enter_context(hosts.host("first")), stack.enter_context(hosts.host("second"))
        for training in (first, second):
            training.wait_for(lambda _: size_on_hub(hub, repo_id, pid_of(second)) > 20_000, SECONDS)

        # While `second` is stopped, the held commit is that of `first`.
        os.kill(pid_of(second), signal.SIGSTOP)
        proxy.add("POST", "/commit/", Hold(), times=1)
        first.wait_for(lambda _: any(seen.action == Hold() for seen in proxy.requests), SECONDS)
        if late == "record":
            proxy.add("POST", "/commit/", Delay(2.0), times=math.inf)
        os.kill(pid_of(second), signal.SIGCONT)
        # With working locks this would not happen: `first` is in the middle of its push.
        old = size_on_hub(hub, repo_id, pid_of(second))
        second.wait_for(lambda _: size_on_hub(hub, repo_id, pid_of(second)) > old, SECONDS)
        hosts.stop("second")
        if late == "commit":
            assert second.end(SECONDS) == 0, "\n".join(second.said)
            proxy.clear()
        else:
            second.wait_for(lambda lines: "ends" in lines, SECONDS)
            size = size_here(logdir, pid_of(second))
            second.wait_for(lambda _: size_on_hub(hub, repo_id, pid_of(second)) == size, SECONDS)
            # All data was on the Hub and is not any more, while `second` has not recorded its commit yet.
            os.kill(pid_of(second), signal.SIGSTOP)
            proxy.clear()
            first.wait_for(lambda _: size_on_hub(hub, repo_id, pid_of(second)) < size, SECONDS)
            first.wait_for(lambda _: size_known(logdir, pid_of(second)) < size, SECONDS)
            os.kill(pid_of(first), signal.SIGSTOP)
            assert size_on_hub(hub, repo_id, pid_of(second)) < size
            os.kill(pid_of(second), signal.SIGCONT)
            assert second.end(SECONDS) == 0, "\n".join(second.said)
            os.kill(pid_of(first), signal.SIGCONT)
        hosts.stop("first")
        assert first.end(SECONDS) == 0, "\n".join(first.said)
        said = "\n".join([*first.said, *second.said])
    assert "Traceback" not in said
    here = remote.under(logdir, "tensorboard/run")
    assert len(here) == 2
    assert remote.files(api, repo_id) == here
    assert_every_commit_is_whole(history(hub.root, repo_id), here)
    assert len(list(ledgers_of(logdir))) == 1
    counts = [int(count) for count in re.findall(r"flushed (\d+)", said)]
    assert len(events.steps(logdir, "loss")) >= max(counts)
