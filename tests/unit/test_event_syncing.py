"""Concurrent flushes of several writers or threads share fsync calls and their waiting time."""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from events import event_files, run, steps
from hf_summary_writer.events.thread import WaitLimits, WriterThread, writer_thread
from hf_summary_writer.events.writer import EventWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hf_summary_writer.events.signals import FlushRequest

SECONDS = 20.0  # far more than any test needs


class Writers(list[EventWriter]):
    """Writers with synced files, and one that blocks the writer thread on demand."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._busy = stack.enter_context(EventWriter(folder / "busy"))

    def open(self, number: int) -> Writers:
        self[:] = [self._stack.enter_context(EventWriter(self._folder / str(each))) for each in range(number)]
        writer_thread.flush()
        return self

    @contextlib.contextmanager
    def nothing_written(self) -> Iterator[None]:
        """Block the writer thread until the events and flush requests of this block are all queued."""
        held, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            go_on.wait(SECONDS)

        self._busy.file_writer.add_work(hold, 0)
        assert held.wait(SECONDS)
        yield
        go_on.set()


@pytest.fixture
def writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writers]:
    with contextlib.ExitStack() as stack:
        yield Writers(tmp_path, stack)
        monkeypatch.undo()  # the disk works again when they are closed


def log_and_ask(writers: list[EventWriter], step: int = 1) -> list[FlushRequest]:
    for writer in writers:
        writer.add_scalar("a", step, step)
    return [writer.file_writer.events.request_flush() for writer in writers]


def is_of(descriptor: int, writer: EventWriter) -> bool:
    [path] = writer.event_files
    return os.path.samestat(os.fstat(descriptor), os.stat(path))  # noqa: PTH116


@pytest.mark.parametrize("end", ["flush", "close"])
def test_files_of_several_writers_are_synced_at_the_same_time(
    writers: Writers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    all_inside = threading.Barrier(8)
    writers.open(8)
    monkeypatch.setattr(os, "fsync", lambda _: all_inside.wait(SECONDS))
    with writers.nothing_written():
        requests = log_and_ask(writers)
        if end == "close":
            requests = [writer.file_writer.begin_close() for writer in writers]
    writer_thread.wait_for_all(requests)
    assert not all_inside.broken
    monkeypatch.undo()
    assert [steps(tmp_path / str(number), "a") for number in range(8)] == [[1]] * 8


def test_more_files_than_are_synced_concurrently_are_all_synced(
    writers: Writers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    some_inside = threading.Barrier(10)

    def fsync(descriptor: int) -> None:
        some_inside.wait(SECONDS)
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr("hf_summary_writer.events.syncing._AT_ONCE", 10)
    writers.open(40)
    monkeypatch.setattr(os, "fsync", fsync)
    with writers.nothing_written():
        requests = log_and_ask(writers)
    writer_thread.wait_for_all(requests)
    assert all(request.is_set for request in requests)
    assert sorted(synced) == sorted(path.stat().st_ino for path in event_files(tmp_path) if "busy" not in str(path))


def test_a_disk_that_hangs_for_one_writer_delays_no_flush_of_another(
    writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    recovered = threading.Event()
    writers.open(3)
    monkeypatch.setattr(os, "fsync", lambda descriptor: is_of(descriptor, writers[0]) and recovered.wait(SECONDS))
    with writers.nothing_written():
        hung, *others = log_and_ask(writers)
    writer_thread.wait_for_all(others)
    assert [request.is_set for request in (hung, *others)] == [False, True, True]
    recovered.set()
    assert writer_thread.wait(hung)


@pytest.mark.faults("D15")
def test_several_writers_wait_for_a_hung_disk_once(
    writers: Writers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recovered = threading.Event()
    writers.open(3)
    monkeypatch.setattr(WriterThread, "limits", WaitLimits(check=0.1, hang=0.3))
    monkeypatch.setattr(os, "fsync", lambda _: recovered.wait(SECONDS))
    with writers.nothing_written():
        requests = log_and_ask(writers)
    for request in requests:
        assert not writer_thread.wait(request)
    [record] = caplog.records
    assert "the disk has not answered" in record.getMessage()
    recovered.set()
    monkeypatch.undo()
    writer_thread.wait_for_all(requests)


@pytest.mark.faults("D17")
def test_a_failed_fsync_is_reported_for_the_writer_of_the_file(
    writers: Writers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fsync(descriptor: int) -> None:
        if is_of(descriptor, writers[1]):
            raise OSError(errno.EIO, "Input/output error")

    writers.open(3)
    monkeypatch.setattr(os, "fsync", fsync)
    with writers.nothing_written():
        requests = log_and_ask(writers)
    writer_thread.wait_for_all(requests)
    assert all(request.is_set for request in requests)
    [record] = caplog.records
    assert f"cannot sync event files in {writers[1].logdir}" in record.getMessage()


@pytest.mark.parametrize("flushed", [1, 3])
def test_a_single_writer_with_events_is_synced_without_another_thread(
    writers: Writers, monkeypatch: pytest.MonkeyPatch, flushed: int
) -> None:
    threads: set[int] = set()
    writers.open(3)
    [writing] = [each for each in threading.enumerate() if each.name == "hf-summary-writer-events"]
    monkeypatch.setattr(os, "fsync", lambda _: threads.add(threading.get_ident()))
    with writers.nothing_written():
        writers[0].add_scalar("a", 1, 1)
        requests = [writer.file_writer.events.request_flush() for writer in writers[:flushed]]
    writer_thread.wait_for_all(requests)
    assert threads == {writing.ident}


@pytest.mark.parametrize("threads", [0, 1])
def test_files_are_synced_when_no_thread_can_be_started(
    writers: Writers, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    synced: list[int] = []
    left = [threads]
    real_start: Callable[..., int] = _thread.start_new_thread

    def start(*arguments: object) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("can't start new thread")
        return real_start(*arguments)

    writers.open(8)
    with writers.nothing_written():
        requests = log_and_ask(writers)
        monkeypatch.setattr("hf_summary_writer.events.syncing._SLOW", 0)
        monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
        monkeypatch.setattr(_thread, "start_new_thread", start)
    writer_thread.wait_for_all(requests)
    assert all(request.is_set for request in requests)
    assert len(set(synced)) == 8


def test_a_caller_inside_the_threading_module_may_flush_in_a_signal_handler(
    writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_inside = threading.Barrier(3)
    writers.open(3)
    monkeypatch.setattr(WriterThread, "limits", WaitLimits(hang=5))
    monkeypatch.setattr(os, "fsync", lambda _: all_inside.wait(SECONDS))
    # A signal handler that interrupts `threading.enumerate()` or a thread's start holds this lock.
    with threading._active_limbo_lock:  # type: ignore[attr-defined]
        with writers.nothing_written():
            requests = log_and_ask(writers)
        writer_thread.wait_for_all(requests)
    assert not all_inside.broken
    assert all(request.is_set for request in requests)


def test_flushes_of_one_writer_from_several_threads_share_an_fsync(
    writers: Writers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    [writer] = writers.open(1)
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    with writers.nothing_written():
        requests = [request for step in range(20) for request in log_and_ask([writer], step)]
    writer_thread.wait_for_all(requests)
    [path] = event_files(tmp_path / "0")
    assert sizes == [path.stat().st_size]
    assert steps(tmp_path / "0", "a") == list(range(20))


def test_a_flush_waits_for_little_of_the_data_logged_after_it(
    writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    [writer] = writers.open(1)
    with writers.nothing_written():
        [first] = log_and_ask([writer], 1)
        for step in range(20):
            writer.add_text("a", "x" * 2**20, step)
        [second] = log_and_ask([writer], 2)
        monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    writer_thread.wait_for_all([first, second])
    assert sizes[0] < 4 * 2**20


def test_a_flush_does_not_wait_for_later_encoding(writers: Writers) -> None:
    go_on = threading.Event()

    def encode() -> None:
        go_on.wait(SECONDS)

    [writer] = writers.open(1)
    with writers.nothing_written():
        [first] = log_and_ask([writer], 1)
        writer.file_writer.add_work(encode, 0)
        [second] = log_and_ask([writer], 2)
    assert writer_thread.wait(first)
    assert not second.is_set
    go_on.set()
    assert writer_thread.wait(second)


def test_a_flush_does_not_wait_for_the_encoding_of_other_writers(writers: Writers) -> None:
    go_on = threading.Event()

    encoded: list[bool] = []

    def encode() -> None:
        encoded.append(go_on.wait(SECONDS))

    writers.open(3)
    with writers.nothing_written():
        for other in (writers[0], writers[2]):
            other.file_writer.add_work(encode, 0)
        [request] = log_and_ask(writers[1:2])
    assert writer_thread.wait(request)
    assert encoded == []
    go_on.set()


def test_a_flush_is_durable_although_the_disk_is_full_for_later_events(
    writers: Writers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[list[int]] = []
    real_write, room = os.write, [1]

    def write(descriptor: int, data: bytes) -> int:
        room[0] -= bool(data)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, data)

    [writer] = writers.open(1)
    with writers.nothing_written():
        [first] = log_and_ask([writer], 1)
        [second] = log_and_ask([writer], 2)
        monkeypatch.setattr(os, "fsync", lambda _: synced.append(steps(tmp_path / "0", "a")))
        monkeypatch.setattr(os, "write", write)
    assert writer_thread.wait(first)
    assert synced == [[1]]
    assert writer_thread.wait(second)
    monkeypatch.undo()
    writer.flush()
    assert steps(tmp_path / "0", "a") == [1, 2]
    assert writer.dropped_events == 0


def test_events_after_a_close_are_in_a_new_file_even_if_written_together(writers: Writers, tmp_path: Path) -> None:
    [writer] = writers.open(1)
    with writers.nothing_written():
        writer.add_scalar("a", 1, 1)
        closing = writer.file_writer.event_writer._events.close()
        writer.file_writer.reopen()
        [following] = log_and_ask([writer], 2)
    writer_thread.wait_for_all([closing, following])
    assert [steps(path.parent, "a") for path in event_files(tmp_path / "0")] == [[1, 2]] * 2


def test_many_files_are_synced_by_a_process_that_may_open_few(tmp_path: Path) -> None:
    result = run(
        """
import os, resource, sys, time
from hf_summary_writer.events.thread import writer_thread
from hf_summary_writer.events.writer import EventWriter
writers = [EventWriter(f"{sys.argv[1]}/{number}") for number in range(60)]
for step in range(2):
    for writer in writers:
        writer.add_scalar("a", step, step)
    writer_thread.flush()
    if step == 0:
        most = len(os.listdir("/dev/fd")) + 2
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        os.fsync = lambda _: time.sleep(0.01)
""",
        tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert [steps(tmp_path / str(number), "a") for number in range(60)] == [[0, 1]] * 60
