"""A training that is killed repeatedly while it logs and pushes through a network with random faults.

Checked at the end: every record that was flushed to the disk is on the Hub exactly once, and every file on the Hub
equals the whole records of the local file byte for byte.
"""

from __future__ import annotations

import io
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensorboardX.proto.event_pb2 import Event

import remote
import scripts
from aftermath import assert_sound
from faults.proxy import Action, Answer, CutAnswer, CutRequest, Delay, FaultProxy, Hang, LoseAnswer, Reset
from hf_summary_writer.events.tfrecord import boundaries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HasEndpoint

__all__ = ["Outcome", "undergo"]

# Imports once, and then forks a training for each first step that it reads, so that a kill costs no import.
_NURSERY = """
import os, sys, time
import hf_xet, huggingface_hub._commit_api, huggingface_hub.hf_api
from hf_summary_writer import HFSummaryWriter
logdir, repo_id = sys.argv[1:3]
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def train(step):
    writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=0.003, path_in_repo="", segment_bytes=20_000)
    while True:
        for _ in range(50):
            writer.add_scalar("loss", step, step)
            step += 1
        writer.flush()
        say("flushed", step)
        time.sleep(0.005)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        train(int(line))
    say("born", pid)
    os.waitpid(pid, 0)
    say("dead", pid)
"""
_CATCH_UP = """
with CommitScheduler(
    repo_id=repo_id, folder_path=logdir, path_in_repo="run", allow_patterns="*.tfevents.*", close_timeout=250
):
    pass
"""
# A process is killed at a random moment after a random request, so that the places of the kills do not depend on the
# speed of the machine, or after this many seconds without a request.
_MOST_REQUESTS = 25
_SECONDS_WITHOUT_REQUESTS = 4.0
_MOST_SECONDS_AFTER = 0.1
_PLACES = ["/commit/", "/preupload/", "/xorb|/shard|/lfs", "."]
_FAILS = (Answer, Reset, CutRequest, CutAnswer, LoseAnswer, Hang)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The counts of an ordeal."""

    kills: int
    requests: int
    flushed: int
    on_hub: int
    files: int
    requests_that_failed: int

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.requests_that_failed} of {self.requests} requests failed; "
            f"{self.flushed} records were flushed, {self.on_hub} are on the Hub once and whole, in {self.files} files"
        )


class _Nursery:
    """The process that forks trainings, with its output."""

    def __init__(self, hub: HasEndpoint, logdir: Path, repo_id: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _NURSERY, str(logdir), repo_id],
            env=scripts.environment(hub, logdir.parent),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._said = threading.Condition()
        self._pid = 0
        self.flushed = 0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, number = line.split()
            with self._said:
                if word == "flushed":
                    self.flushed = int(number)
                else:
                    self._pid = int(number) if word == "born" else 0
                self._said.notify_all()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def live_and_die(self, start: int, until: Callable[[], None]) -> None:
        self._tell(str(start))
        with self._said:
            assert self._said.wait_for(lambda: self._pid, scripts.SECONDS)
            pid = self._pid
        until()
        os.kill(pid, signal.SIGKILL)
        with self._said:
            assert self._said.wait_for(lambda: not self._pid, scripts.SECONDS)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def _whole(content: bytes) -> bytes:
    return content[: [0, *boundaries(io.BytesIO(content))][-1]]


def _pass_some_requests(proxy: FaultProxy, chance: random.Random) -> None:
    wanted = len(proxy.requests) + chance.randrange(_MOST_REQUESTS)
    deadline = time.monotonic() + chance.uniform(0, _SECONDS_WITHOUT_REQUESTS)
    while (now := len(proxy.requests)) < wanted and time.monotonic() < deadline:
        time.sleep(0.005)
        if len(proxy.requests) > now:
            deadline = time.monotonic() + _SECONDS_WITHOUT_REQUESTS
    time.sleep(chance.uniform(0, _MOST_SECONDS_AFTER))


def _action(chance: random.Random) -> Action:
    some = chance.randrange(1, 5000)
    choices: list[Action] = [
        Answer(503), Answer(429, {"Retry-After": "1"}), Answer(200, {"Content-Type": "text/html"}, b"<html>log in"),
        Delay(0.3), Reset(), CutRequest(some), CutAnswer(some % 200), LoseAnswer(), Hang(),
    ]  # fmt: skip
    return chance.choice(choices)


def _meddle(api: HfApi, repo_id: str, logdir: Path, chance: random.Random) -> None:
    """Change the Hub or the folder between two processes, as another user may."""
    files = [path for path in api.list_repo_files(repo_id) if ".tfevents." in path] if api.repo_exists(repo_id) else []
    deed = chance.randrange(8)
    if deed == 0 and files:
        api.delete_file(chance.choice(files), repo_id)
    elif deed == 1 and files:
        # Shorter than any event file, since a longer foreign file is kept beside ours.
        api.upload_file(path_or_fileobj=b"x", path_in_repo=chance.choice(files), repo_id=repo_id)
    elif deed == 2 and logdir.exists():
        copy = logdir.with_name("copy")
        shutil.copytree(logdir, copy, symlinks=True)
        shutil.rmtree(logdir)
        copy.rename(logdir)


def undergo(
    hub: HasEndpoint,
    api: HfApi,
    repo_id: str,
    logdir: Path,
    *,
    seed: int,
    goes_on: Callable[[int], bool],
    faults: bool,
) -> Outcome:
    """Kill trainings while `goes_on(kills)`, upload the rest without faults, and check the files on the Hub.

    With `faults` the network fails at random, and the Hub or the folder is changed between two processes.
    """
    chance = random.Random(seed)
    kills, flushed = 0, set[int]()
    with FaultProxy(hub) as proxy:
        nursery = _Nursery(proxy, logdir, repo_id)
        try:
            while goes_on(kills):
                if faults:
                    proxy.clear()
                    for _ in range(chance.randrange(4)):
                        proxy.add("*", chance.choice(_PLACES), _action(chance))
                # Each process logs its own range of steps, far above the steps that the one before may have reached.
                start = nursery.flushed = kills * 1_000_000
                nursery.live_and_die(start, lambda: _pass_some_requests(proxy, chance))
                flushed.update(range(start, nursery.flushed))
                kills += 1
                if faults:
                    _meddle(api, repo_id, logdir, chance)
        finally:
            nursery.end()
        failed = sum(isinstance(seen.action, _FAILS) for seen in proxy.requests)
        requests = len(proxy.requests)
        proxy.clear()
        assert_sound(logdir)
        # Long enough for a busy machine: the time of an exit is tested elsewhere.
        ended = scripts.run(_CATCH_UP, proxy, logdir, repo_id, seconds=300)
        assert ended.returncode == 0, ended.stderr
        assert "hf-summary-writer sync" not in ended.stderr, ended.stderr

    held = remote.files(api, repo_id)
    here = {path: _whole(content) for path, content in remote.under(logdir, "run").items()}
    assert held == {path: content for path, content in here.items() if content}
    found: Counter[int] = Counter()
    for content in held.values():
        ends = [0, *boundaries(io.BytesIO(content))]
        for begin, end in itertools.pairwise(ends):
            found.update(_steps(content[begin + 12 : end - 4]))
    assert max(found.values(), default=1) == 1
    assert flushed <= set(found)
    assert_sound(logdir)
    return Outcome(kills, requests, len(flushed), len(found), len(held), failed)


def _steps(payload: bytes) -> list[int]:
    event = Event.FromString(payload)
    return [event.step for _ in event.summary.value]
