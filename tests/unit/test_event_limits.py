"""The memory that pending events may take, and the log lines about a disk or device that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hf_summary_writer.events.failures import WriteFailures
from hf_summary_writer.events.memory import MemoryLimit
from hf_summary_writer.events.signals import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

SCALAR = 192  # bytes
QUEUE, OTHER = object(), object()


@pytest.fixture
def memory() -> MemoryLimit:
    memory = MemoryLimit(10 * SCALAR)
    memory.join(QUEUE)
    return memory


def test_queues_share_the_memory_that_is_left(memory: MemoryLimit) -> None:
    assert memory.items == 10
    memory.acquire(4 * SCALAR)
    assert memory.items == 6
    memory.join(OTHER)
    assert memory.items == 3
    memory.release(2 * SCALAR)
    assert memory.items == 4
    memory.leave(OTHER)
    assert memory.items == 8
    memory.acquire(8 * SCALAR)
    assert memory.items == 0


def test_one_event_passes_a_limit_that_is_too_small_for_any() -> None:
    memory = MemoryLimit(1)
    memory.join(QUEUE)
    assert memory.items == 1
    memory.acquire(1)
    assert memory.items == 0
    memory.release(1)
    assert memory.items == 1


def test_the_memory_of_a_device_has_a_limit_of_its_own(memory: MemoryLimit) -> None:
    assert memory.acquire_on_device(6 * SCALAR)
    assert not memory.acquire_on_device(5 * SCALAR)
    assert memory.acquire_on_device(4 * SCALAR)
    assert not memory.acquire_on_device(1)
    memory.release_on_device(SCALAR)
    memory.give_back_on_device(SCALAR)
    assert memory.acquire_on_device(2 * SCALAR)
    assert not memory.acquire_on_device(1)
    assert memory.items == 10


def test_a_forked_child_begins_with_all_of_the_memory(memory: MemoryLimit) -> None:
    memory.acquire(4 * SCALAR)
    assert memory.acquire_on_device(10 * SCALAR)
    memory.waiting.append(Signal())
    memory.reset()
    assert (memory.items, list(memory.waiting)) == (10, [])
    assert memory.acquire_on_device(10 * SCALAR)


def test_all_waiting_callers_are_woken_once(memory: MemoryLimit) -> None:
    waiting = [Signal(), Signal()]
    memory.waiting.extend(waiting)
    memory.wake_waiting()
    assert [signal.wait(0) for signal in waiting] == [True, True]
    assert not memory.waiting


@pytest.fixture
def failures() -> WriteFailures:
    return WriteFailures(2**20)


def test_a_disk_that_fails_is_named_until_every_queue_can_write_again(
    failures: WriteFailures, caplog: pytest.LogCaptureFixture
) -> None:
    failures.recover(QUEUE, "runs")
    for queue in (QUEUE, OTHER, QUEUE):
        failures.fail(queue, OSError("full"), "runs")
    failures.refuse_one()
    failures.lose(2)
    failures.recover(QUEUE, "runs")
    assert failures.any_failing
    assert len(caplog.messages) == 1
    failures.recover(OTHER, "runs")
    failures.recover(OTHER, "runs")
    assert not failures.any_failing
    failures.fail(QUEUE, OSError("full"), "runs")
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "ERROR"]
    assert "1.0 MB" in caplog.messages[0]
    assert caplog.messages[1].endswith("events dropped: 3")


def test_a_queue_that_is_gone_fails_no_more(failures: WriteFailures, caplog: pytest.LogCaptureFixture) -> None:
    failures.fail(QUEUE, OSError("full"), "runs")
    failures.fail(OTHER, OSError("full"), "runs")
    failures.forget(QUEUE)
    failures.recover(OTHER, "runs")
    assert caplog.messages[1:] == ["event files in runs are written again; events dropped: 0"]


def test_a_forked_child_has_no_failures_of_its_parent(failures: WriteFailures) -> None:
    failures.fail(QUEUE, OSError("full"), "runs")
    failures.reset()
    assert not failures.any_failing
    failures.refuse_one()
    assert failures.dropped == 1


@pytest.mark.parametrize(
    "report",
    [
        lambda failures: failures.report_sync(OSError("no sync"), "runs"),
        lambda failures: failures.report_device(RuntimeError("no device"), "runs"),
    ],
)
def test_a_failing_fsync_or_device_is_named_once(
    failures: WriteFailures, caplog: pytest.LogCaptureFixture, report: Callable[[WriteFailures], None]
) -> None:
    report(failures)
    report(failures)
    [line] = caplog.messages
    assert "runs" in line
