"""D1: a full or broken disk never blocks training, never raises, never leaves a torn record before a whole one."""

from __future__ import annotations

import errno
import os
import queue
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tensorboardX.proto.summary_pb2 import Summary

import remote
from events import event_files, logged, payloads, run, steps, wait_until
from faults.conftest import SECONDS
from hf_summary_writer import CommitScheduler, HFSummaryWriter
from hf_summary_writer.errors import TemporaryError
from hf_summary_writer.events import files as event_file
from hf_summary_writer.events import frame
from hf_summary_writer.events.failures import WriteFailures
from hf_summary_writer.events.file_writer import FileWriter
from hf_summary_writer.events.signals import FlushRequest, Signal
from hf_summary_writer.events.thread import WaitLimits, WriterThread, writer_thread
from hf_summary_writer.events.writer import EventWriter
from hf_summary_writer.folder import NO_EVENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from huggingface_hub import HfApi

    from hf_summary_writer.errors import ErrorDetails

pytestmark = pytest.mark.faults("D1")


class Disk:
    """A wrapper of `os.write` that fails on request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.takes_a_part = True
        self.refused = 0
        real_write = os.write

        def write(descriptor: int, data: bytes | memoryview) -> int:
            if not self.full:
                return real_write(descriptor, data)
            self.refused += 1
            if self.takes_a_part and self.refused % 2 and len(data) > 1:
                return real_write(descriptor, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(event_file.os, "write", write)  # type: ignore[attr-defined]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


def test_nothing_is_lost_when_space_comes_back_in_time(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    with EventWriter(tmp_path) as writer:
        for step in range(1000):
            disk.full = 200 <= step < 800
            writer.add_scalar("a", step, step)
            if step % 100 == 0:
                writer.add_scalars("sub", {"x": step}, step)
                writer.flush()
        wait_until(lambda: steps(tmp_path, "a", growing=True) == list(range(1000)))
        writer.flush()
        assert writer.dropped_events == 0
    assert steps(tmp_path, "a") == list(range(1000))
    assert steps(tmp_path / "sub" / "x", "sub") == list(range(0, 1000, 100))
    assert len(errors(caplog)) == 1
    assert len(event_files(tmp_path)) == 2


def test_at_the_memory_limit_events_are_dropped_and_the_caller_never_waits(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    with EventWriter(tmp_path, max_pending_bytes=50_000) as writer:
        disk.full = True
        for step in range(5000):
            writer.add_scalar("a", step, step)
            writer.add_text("t", "x" * 1000, step)
        writer.flush()
        dropped = writer.dropped_events
        assert dropped > 9000
        disk.full = False
        wait_until(lambda: len(logged(tmp_path, growing=True)) == 10_000 - dropped)
        writer.add_scalar("after", 1, 1)
    assert writer.dropped_events == dropped
    assert steps(tmp_path, "after") == [1]
    found = steps(tmp_path, "a")
    assert found == sorted(found)
    assert len(errors(caplog)) == 1


def test_lost_events_are_counted_when_close_returns(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    gives_up, has_returned = threading.Event(), threading.Event()
    begin_close, lose = FileWriter.begin_close, WriteFailures.lose

    def begin_close_until_given_up(self: FileWriter) -> FlushRequest:
        request = begin_close(self)
        assert gives_up.wait(SECONDS)
        return request

    def lose_late(self: WriteFailures, events: int) -> None:
        gives_up.set()
        wait_until(lambda: has_returned.is_set() or not writer_thread._calls.empty())
        lose(self, events)

    writer = EventWriter(tmp_path)
    writer.flush()
    disk.takes_a_part, disk.full = False, True
    writer.add_scalar("a", 1, 1)
    monkeypatch.setattr(FileWriter, "begin_close", begin_close_until_given_up)
    monkeypatch.setattr(WriteFailures, "lose", lose_late)
    writer.close()
    dropped = writer.dropped_events
    has_returned.set()
    assert dropped == 1


def test_a_trigger_joined_by_close_fails_if_its_events_were_not_written(
    disk: Disk, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    goes_on = threading.Event()
    writer = HFSummaryWriter(
        repo_id, logdir=tmp_path, hf_api=api, commit_every=60, on_commit=lambda _: goes_on.wait(SECONDS)
    )
    writer.scheduler.trigger().result(SECONDS)  # or the push that the constructor begins takes the first event
    writer.add_scalar("a", 1, 1)
    first = writer.scheduler.trigger()
    wait_until(lambda: writer.scheduler.status().commit)
    disk.takes_a_part, disk.full = False, True
    writer.add_scalar("a", 2, 2)
    joined = writer.scheduler.trigger()
    closing = threading.Thread(target=writer.close)
    closing.start()
    wait_until(lambda: writer.scheduler._task.is_finishing)
    goes_on.set()
    closing.join(SECONDS)
    assert first.result(SECONDS) is not None
    assert isinstance(joined.exception(SECONDS), TemporaryError)
    assert writer.dropped_events == 1


def test_a_run_with_lost_events_is_not_reported_as_complete(
    disk: Disk, api: HfApi, repo_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    writer = HFSummaryWriter(repo_id, logdir=tmp_path / "run", hf_api=api, commit_every=60)
    writer.add_scalar("a", 1, 1)
    assert writer.scheduler.trigger().result(SECONDS) is not None
    disk.takes_a_part, disk.full = False, True
    writer.add_scalar("a", 2, 2)
    writer.close()
    assert writer.dropped_events == 1
    said = [record.getMessage() for record in caplog.records if " is at " in record.getMessage()]
    assert [line.startswith("All that the last push found of") for line in said] == [True]


def test_sub_runs_drop_events_too_when_the_main_run_uses_all_the_memory(tmp_path: Path, disk: Disk) -> None:
    with EventWriter(tmp_path / "run", max_pending_bytes=50_000) as writer:
        writer.add_scalar("a", 0, 0)
        writer.add_scalars("plot", {"old": 0}, 0)
        writer.flush()
        disk.takes_a_part, disk.full = False, True
        while writer.dropped_events == 0:
            writer.add_text("t", "x" * 10_000)

        def log() -> None:
            writer.add_scalars("plot", {"old": 1, "new": 1}, 1)
            writer.add_hparams({"lr": 1}, {"accuracy": 1})

        # In a thread: a call that blocks must fail the test, not hang it.
        logging = threading.Thread(target=log, daemon=True)
        logging.start()
        logging.join(20)
        blocked = logging.is_alive()
        disk.full = False
        logging.join(20)
        assert not blocked
        wait_until(lambda: not writer._run_queue.pending)
        writer.add_scalars("plot", {"old": 2, "new": 2}, 2)
    for name in ("old", "new"):
        assert steps(tmp_path / "run" / "plot" / name, "plot")[-1] == 2


def test_a_second_disk_failure_is_logged_again(tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    with EventWriter(tmp_path) as writer:
        for step in range(2):
            disk.full = True
            writer.add_hparams({"lr": 1}, {"accuracy": 1})
            writer.flush()
            disk.full = False
            writer.add_scalar("a", step, step)
            writer.flush()
    assert len([text for text in errors(caplog) if "cannot write" in text]) == 2


def test_hyperparameters_wait_for_disk_space_as_scalars_do(tmp_path: Path, disk: Disk) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_scalar("a", 0, 0)
        writer.flush()
        disk.full = True
        writer.add_scalar("a", 1, 1)
        writer.add_hparams({"lr": 0.1}, {"accuracy": 0.5}, name="trial")
        writer.flush()
        disk.full = False
        writer.flush()
        assert steps(tmp_path / "trial", "accuracy", growing=True) == [0]
        assert steps(tmp_path, "a", growing=True) == [0, 1]
        assert writer.dropped_events == 0
    assert len(logged(tmp_path / "trial")) == 4


def test_repeated_flushes_on_a_full_disk_use_up_no_memory_for_events(tmp_path: Path, disk: Disk) -> None:
    with EventWriter(tmp_path, max_pending_bytes=50_000) as writer:
        disk.full = True
        for step in range(100):
            writer.add_scalar("a", step, step)
            for _ in range(10):
                writer.flush()
        disk.full = False
        writer.flush()
        assert writer.dropped_events == 0
        assert steps(tmp_path, "a", growing=True) == list(range(100))


def test_closing_on_a_full_disk_returns_and_reports_lost_events(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    writer = EventWriter(tmp_path)
    writer.add_scalar("a", 1, 1)
    writer.flush()
    disk.full = True
    for step in range(100):
        writer.add_scalar("lost", 1, step)
    writer.close()
    assert writer.dropped_events == 100 - len(steps(tmp_path, "lost"))
    assert writer.dropped_events > 0
    assert "are lost" in errors(caplog)[-1]
    disk.full = False
    writer.add_scalar("a", 2, 2)
    writer.close()
    assert steps(tmp_path, "a") == [1, 2]


def test_a_constructor_on_a_full_disk_does_not_raise_and_events_are_written_later(tmp_path: Path, disk: Disk) -> None:
    disk.full = True
    with EventWriter(tmp_path / "run") as writer:
        writer.add_scalar("a", 1, 1)
        writer.flush()
        assert event_files(tmp_path) == []
        disk.full = False
        wait_until(lambda: event_files(tmp_path))
    assert steps(tmp_path / "run", "a") == [1]


def test_a_folder_that_cannot_be_created_does_not_raise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with EventWriter(tmp_path / "file" / "run") as writer:
        writer.add_scalar("a", 1)
        writer.add_scalars("m", {"x": 1})
        writer.add_hparams({"lr": 1}, {"acc": 1})
        writer.flush()
    assert writer.dropped_events == 6
    assert errors(caplog)


@pytest.mark.parametrize("call", ["fsync", "open", "ftruncate"])
def test_failing_system_calls_raise_nothing_and_lose_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk, call: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with EventWriter(tmp_path, segment_bytes=500) as writer:
        writer.add_scalar("a", 0, 0)
        writer.flush()
        with monkeypatch.context() as patch:
            patch.setattr(event_file.os, call, fail)  # type: ignore[attr-defined]
            disk.full = call == "ftruncate"
            for step in range(1, 50):
                writer.add_scalar("a", step, step)
                if step % 10 == 0:
                    writer.flush()
            writer.flush()
        disk.full = False
        wait_until(lambda: set(steps(tmp_path, "a", growing=True)) == set(range(50)))
    for path in event_files(tmp_path):
        payloads(path, growing=call == "ftruncate")


@pytest.mark.faults("D17")
def test_events_are_written_although_every_fsync_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(event_file.os, "fsync", fail)  # type: ignore[attr-defined]
    with EventWriter(tmp_path, flush_secs=0.01) as writer:
        for step in range(100):
            writer.add_scalar("a", step, step)
            if step % 10 == 0:
                writer.flush()
                assert steps(tmp_path, "a") == list(range(step + 1))
    assert steps(tmp_path, "a") == list(range(100))
    assert writer.dropped_events == 0
    [record] = caplog.records
    assert "cannot sync event files" in record.getMessage()


class ObjectStoreMount:
    """A mount that writes each event file in one go: it is read once it is closed, and never appended to again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._written: dict[int, str] = {}
        self._again: set[int] = set()
        self._open, self._write, self._close = os.open, os.write, os.close
        for name, function in {"open": self.open, "write": self.write, "close": self.close}.items():
            monkeypatch.setattr(event_file.os, name, function)  # type: ignore[attr-defined]

    def open(self, path: str, flags: int, *arguments: Any, **named: Any) -> int:
        name = Path(path).name
        writes = bool(flags & os.O_WRONLY) and ".tfevents." in name
        if not flags & os.O_WRONLY and name in self._written.values():
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        descriptor = self._open(path, flags, *arguments, **named)
        if writes:
            self._written[descriptor] = name
            if not flags & os.O_CREAT:
                self._again.add(descriptor)
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        if descriptor in self._again:
            raise OSError(errno.ESPIPE, "Illegal seek")
        return self._write(descriptor, data)

    def close(self, descriptor: int) -> None:
        self._written.pop(descriptor, None)
        self._again.discard(descriptor)
        self._close(descriptor)


@pytest.mark.faults("D17")
def test_on_a_mount_that_writes_files_in_one_go_each_trigger_uploads_all_that_was_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: HfApi, repo_id: str
) -> None:
    ObjectStoreMount(monkeypatch)
    with HFSummaryWriter(repo_id, tmp_path / "run", hf_api=api, commit_every=60) as writer:
        for step in range(3):
            writer.add_scalar("a", step, step)
            assert writer.scheduler.trigger().result(SECONDS) is not None
            found = remote.under(tmp_path, "tensorboard")
            with_events = {path: content for path, content in found.items() if len(content) > NO_EVENT_BYTES}
            assert remote.files(api, repo_id) == with_events
            assert steps(tmp_path / "run", "a") == list(range(step + 1))
        writer.add_scalar("a", 3, 3)
    assert remote.files(api, repo_id) == remote.under(tmp_path, "tensorboard")
    assert steps(tmp_path / "run", "a") == list(range(4))


@pytest.mark.faults("D17")
def test_a_file_that_is_listed_and_cannot_be_opened_fails_the_push(
    folder: Path, monkeypatch: pytest.MonkeyPatch, api: HfApi, repo_id: str
) -> None:
    path = folder / "events.out.tfevents.1"
    ObjectStoreMount(monkeypatch)
    with CommitScheduler(repo_id=repo_id, folder_path=folder, hf_api=api, every=60) as scheduler:
        scheduler.trigger().result(SECONDS)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, frame(b"start") + frame(b"event"))
        with pytest.raises(TemporaryError, match="could not be read"):
            scheduler.trigger().result(SECONDS)
        os.close(descriptor)
    assert remote.files(api, repo_id) == remote.under(folder, "")


def test_a_folder_deleted_during_logging_is_recreated(tmp_path: Path) -> None:
    logdir = tmp_path / "run"
    with EventWriter(logdir) as writer:
        writer.add_scalar("a", 1, 1)
        writer.flush()
        for path in event_files(logdir):
            path.unlink()
        logdir.rmdir()

        def later() -> bool:
            writer.add_scalar("a", 2, 2)
            writer.flush()
            return bool(event_files(logdir))

        wait_until(later)
    assert set(steps(logdir, "a")) == {2}


def test_a_limit_on_the_file_size_drops_events_without_a_crash(tmp_path: Path) -> None:
    result = run(
        """
import resource, signal, sys
from hf_summary_writer.events.writer import EventWriter
from hf_summary_writer.folder import NO_EVENT_BYTES
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
writer = EventWriter(sys.argv[1], max_pending_bytes=200_000)
for step in range(5000):
    writer.add_scalar("a", step, step)
writer.flush()
print(writer.dropped_events)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for step in range(5000, 5010):
    writer.add_scalar("a", step, step)
writer.close()
print(writer.dropped_events)
""",
        tmp_path,
    )
    assert result.returncode == 0
    assert result.stderr.count("cannot write event files") == 1
    dropped = int(result.stdout.split()[-1])
    found = steps(tmp_path, "a")
    assert len(found) == 5010 - dropped
    assert found == sorted(found)
    assert dropped > 0


def test_events_are_written_when_a_real_disk_has_space_again(tiny_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    ballast = tiny_disk / "ballast"
    logdir = tiny_disk / "run"
    with EventWriter(logdir) as writer:
        ballast.write_bytes(bytes(150_000))
        for step in range(6000):
            writer.add_scalar("a", step, step)
        writer.flush()
        assert len(errors(caplog)) == 1
        [path] = event_files(logdir)
        payloads(path)
        ballast.unlink()
        # The pending events still do not all fit, but more of them do.
        before = path.stat().st_size
        wait_until(lambda: path.stat().st_size > before)
    found = steps(logdir, "a")
    assert found == list(range(len(found)))
    assert len(found) + writer.dropped_events == 6000


def test_a_flush_on_a_hung_disk_gives_up_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(WriterThread, "limits", WaitLimits(check=0.1, hang=0.3))
    recovered = threading.Event()
    with EventWriter(tmp_path) as writer, monkeypatch.context() as patch:
        patch.setattr(event_file.os, "fsync", lambda _: recovered.wait(60))  # type: ignore[attr-defined]
        writer.add_scalar("a", 1, 1)
        writer.flush()
        assert not recovered.is_set()
        recovered.set()
    assert "the disk has not answered" in caplog.text
    assert steps(tmp_path, "a") == [1]


@pytest.mark.faults("D15")
def test_only_one_call_waits_for_a_hung_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(WriterThread, "limits", WaitLimits(hang=0.3))
    recovered = threading.Event()
    waits: list[float] = []
    real_wait = Signal.wait

    def counted(self: Signal, seconds: float) -> bool:
        waits.append(seconds)
        return real_wait(self, min(seconds, 0.1))

    monkeypatch.setattr(Signal, "wait", counted)
    with EventWriter(tmp_path, max_pending_bytes=20_000) as writer, monkeypatch.context() as patch:
        writer.add_scalars("many", {str(n): n for n in range(20)}, 0)
        writer.flush()
        patch.setattr(event_file.os, "fsync", lambda _: recovered.wait(60))  # type: ignore[attr-defined]
        writer.add_scalars("many", {str(n): n for n in range(20)}, 1)
        writer.flush()
        assert len(caplog.records) == 1
        waits.clear()
        for step in range(1000):
            writer.add_scalar("a", step, step)
        writer.flush()
        assert waits == []
        recovered.set()
    assert 0 < writer.dropped_events < 1000
    assert steps(tmp_path / "many" / "7", "many") == [0, 1]


@pytest.mark.faults("D15")
def test_hyperparameters_and_scalars_over_the_limit_wait_briefly_for_a_hung_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(WriterThread, "limits", WaitLimits(hang=0.3))
    hangs, recovered = threading.Event(), threading.Event()
    with EventWriter(tmp_path, max_pending_bytes=20_000) as writer, monkeypatch.context() as patch:

        def fsync(_: int) -> None:
            hangs.set()
            recovered.wait(60)

        patch.setattr(event_file.os, "fsync", fsync)  # type: ignore[attr-defined]
        flushing = threading.Thread(target=writer.flush)
        flushing.start()
        assert hangs.wait(20)
        writer.add_hparams({"lr": 0.1}, {"accuracy": 0.5}, name="trial")
        assert not caplog.records, "hyperparameters waited for the disk"
        for step in range(1000):
            writer.add_scalar("a", step, step)
        assert not recovered.is_set()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        recovered.set()
        flushing.join(20)
        wait_until(lambda: not writer_thread.is_stuck)
    assert 0 < writer.dropped_events < 1000
    assert steps(tmp_path / "trial", "accuracy") == [0]


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="the system does not tell who is at work")
def test_slow_encoding_is_not_mistaken_for_a_hung_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WriterThread, "limits", WaitLimits(check=0.1, hang=1.0))

    def encode() -> Any:
        end = time.thread_time() + 1.5
        while time.thread_time() < end:
            pass
        return Summary()

    with EventWriter(tmp_path) as writer:
        writer.file_writer.add_deferred(encode, 10)
        writer.add_scalar("after", 1, 1)
        writer.flush()
        assert steps(tmp_path, "after", growing=True) == [1]


def test_a_slow_disk_makes_the_caller_wait_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delay: Callable[[float], None] = __import__("time").sleep
    real_write = os.write

    def slow(descriptor: int, data: bytes) -> int:
        delay(0.002)
        return real_write(descriptor, data)

    monkeypatch.setattr(event_file.os, "write", slow)  # type: ignore[attr-defined]
    with EventWriter(tmp_path, max_pending_bytes=10_000) as writer:
        for step in range(3000):
            writer.add_scalar("a", step, step)
    assert steps(tmp_path, "a") == list(range(3000))
    assert writer.dropped_events == 0


def test_a_trigger_fails_while_the_disk_is_full(tmp_path: Path, disk: Disk, api: HfApi, repo_id: str) -> None:
    failures: queue.SimpleQueue[ErrorDetails] = queue.SimpleQueue()
    with HFSummaryWriter(repo_id, tmp_path / "run", hf_api=api, on_error=failures.put) as writer:
        writer.add_scalar("a", 0, 0)
        assert writer.scheduler.trigger().result(SECONDS) is not None
        disk.takes_a_part, disk.full = False, True
        writer.add_scalar("a", 1, 1)
        error = writer.scheduler.trigger().exception(SECONDS)
        assert isinstance(error, TemporaryError)
        assert str(failures.get(timeout=SECONDS).error) == str(error)
        disk.full = False
        assert writer.scheduler.trigger().result(SECONDS) is not None
    assert remote.files(api, repo_id) == remote.under(tmp_path, "tensorboard")
