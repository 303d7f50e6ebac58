"""flush, trigger, close and stop from several threads in any order never deadlock."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import traceback
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

import pytest

import events
from aftermath import assert_sound
from hf_summary_writer import HFSummaryWriter

if TYPE_CHECKING:
    from pathlib import Path

CALLS = int(os.environ.get("TEST_ORDERS", "10000"))
CALLS_PER_WRITER = 500
THREADS = 4
SECONDS = 60.0


class Worker(threading.Thread):
    """Call a writer's methods at random and count the logged events."""

    def __init__(self, writer: HFSummaryWriter, tag: str, seed: float) -> None:
        super().__init__(daemon=True)
        self.writer = writer
        self.tag = tag
        self.logged = 0
        self.futures: list[Future[Any]] = []
        self.error: BaseException | None = None
        self.calls = 0
        self._chance = random.Random(seed)

    def run(self) -> None:
        try:
            for _ in range(CALLS_PER_WRITER // THREADS):
                [call] = self._chance.choices(["log", "trigger", "flush", "close", "stop"], [60, 30, 8, 2, 0.05])
                self._do(call)
                self.calls += 1
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.error = error

    def _do(self, call: str) -> None:
        if call == "log":
            self.writer.add_scalar(self.tag, self.logged, self.logged)
            self.logged += 1
        elif call == "trigger":
            self.futures.append(self.writer.scheduler.trigger())
        elif call == "stop":
            self.writer.scheduler.stop()
        else:
            getattr(self.writer, call)()


def await_all(workers: list[Worker]) -> None:
    """Wait for all workers, and fail with the stacks of all threads if none of their calls returns for a minute."""
    calls, deadline = -1, 0.0
    while any(worker.is_alive() for worker in workers):
        # On a slow machine calls still return, in a deadlock none does.
        if (now := sum(worker.calls for worker in workers)) != calls:
            calls, deadline = now, time.monotonic() + SECONDS
        if time.monotonic() > deadline:
            stacks = "\n".join("".join(traceback.format_stack(frame)) for frame in sys._current_frames().values())
            pytest.fail(f"no call returned for {SECONDS:.0f} s\n{stacks}")
        time.sleep(0.01)


@pytest.mark.faults("C4")
@pytest.mark.timeout(600)
def test_threads_may_flush_trigger_close_and_stop_in_any_order(logdir: Path) -> None:
    chance = random.Random(20)
    for round_ in range(max(1, CALLS // CALLS_PER_WRITER)):
        folder = logdir / str(round_)
        writer = HFSummaryWriter("user/run", logdir=folder, repo_allow_patterns="none", close_timeout=2 * SECONDS)
        workers = [Worker(writer, f"thread-{number}", chance.random()) for number in range(THREADS)]
        for worker in workers:
            worker.start()
        await_all(workers)
        assert [worker.error for worker in workers] == [None] * THREADS
        writer.flush()
        for worker in workers:
            assert events.steps(folder, worker.tag, growing=True) == list(range(worker.logged))
        writer.close()
        assert wait([future for worker in workers for future in worker.futures], SECONDS).not_done == set()
        assert_sound(folder)
