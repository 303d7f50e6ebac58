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

RUNS = int(os.environ.get("HF_SUMMARY_WRITER_TEST_ORDERS", "10000"))
RUNS_PER_WRITER = 500
SECONDS = 60.0


@pytest.mark.faults("C4")
@pytest.mark.timeout(300)
def test_threads_may_flush_trigger_close_and_stop_in_any_order(logdir: Path) -> None:
    chance = random.Random(20)
    for round_ in range(max(1, RUNS // RUNS_PER_WRITER)):
        folder = logdir / str(round_)
        writer = HFSummaryWriter("user/run", logdir=folder, repo_allow_patterns="none", close_timeout=SECONDS)
        futures: list[Future[Any]] = []
        logged: list[list[int]] = [[], [], [], []]
        errors: list[BaseException] = []

        def act(
            thread: int,
            seed: int,
            writer: HFSummaryWriter = writer,
            logged: list[list[int]] = logged,
            futures: list[Future[Any]] = futures,
            errors: list[BaseException] = errors,
        ) -> None:
            own = random.Random(seed)
            steps = logged[thread]
            try:
                for _ in range(RUNS_PER_WRITER // 4):
                    choice = own.choices(["log", "trigger", "flush", "close", "stop"], [60, 30, 8, 2, 0.05])[0]
                    if choice == "log":
                        writer.add_scalar(f"thread-{thread}", len(steps), len(steps))
                        steps.append(len(steps))
                    elif choice == "trigger":
                        futures.append(writer.scheduler.trigger())
                    elif choice == "stop":
                        writer.scheduler.stop()
                    else:
                        getattr(writer, choice)()
            except BaseException as error:  # noqa: BLE001 - the main thread raises it
                errors.append(error)

        threads = [threading.Thread(target=act, args=(n, chance.random()), daemon=True) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
            assert not thread.is_alive(), "a deadlock"
        writer.flush()
        assert not errors
        for thread_number, steps in enumerate(logged):
            assert events.steps(folder, f"thread-{thread_number}", growing=True) == steps
        writer.close()
        assert wait(futures, SECONDS).not_done == set()
        assert_sound(folder)
