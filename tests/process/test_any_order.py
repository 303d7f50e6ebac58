"""flush, trigger, close and stop from several threads in any order never wait for each other."""

from __future__ import annotations

import os
import random
import threading
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
    """Does at random what one may do with a writer, and remembers what it logged."""

    def __init__(self, writer: HFSummaryWriter, tag: str, seed: float) -> None:
        super().__init__(daemon=True)
        self.writer = writer
        self.tag = tag
        self.logged = 0
        self.futures: list[Future[Any]] = []
        self.error: BaseException | None = None
        self._chance = random.Random(seed)

    def run(self) -> None:
        try:
            for _ in range(CALLS_PER_WRITER // THREADS):
                [call] = self._chance.choices(["log", "trigger", "flush", "close", "stop"], [60, 30, 8, 2, 0.05])
                self._do(call)
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


@pytest.mark.faults("C4")
@pytest.mark.timeout(300)
def test_threads_may_flush_trigger_close_and_stop_in_any_order(logdir: Path) -> None:
    chance = random.Random(20)
    for round_ in range(max(1, CALLS // CALLS_PER_WRITER)):
        folder = logdir / str(round_)
        writer = HFSummaryWriter("user/run", logdir=folder, repo_allow_patterns="none", close_timeout=SECONDS)
        workers = [Worker(writer, f"thread-{number}", chance.random()) for number in range(THREADS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(SECONDS)
            assert not worker.is_alive(), "a deadlock"
            assert worker.error is None
        writer.flush()
        for worker in workers:
            assert events.steps(folder, worker.tag, growing=True) == list(range(worker.logged))
        writer.close()
        assert wait([future for worker in workers for future in worker.futures], SECONDS).not_done == set()
        assert_sound(folder)
