"""A writer that logs nothing for a while is reported once, by a thread that keeps no writer alive."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import queue
import threading
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.events.stalls import StallWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hf_summary_writer import StallDetails

SECONDS = 60.0


class Logging:
    """A writer that only counts its events."""

    def __init__(self) -> None:
        self.logged_events: int | None = 0
        self.told: list[float] = []

    def tell(self, seconds: float) -> None:
        self.told.append(seconds)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> StallWatch:
    """Return a watch without a thread, whose clock starts at 0."""
    monkeypatch.setattr("hf_summary_writer.events.stalls.time.monotonic", lambda: 0.0)
    monkeypatch.setattr(StallWatch, "_run", lambda _: None)
    return StallWatch()


@pytest.fixture(autouse=True)
def nothing_is_uploaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_SUMMARY_WRITER_MODE", "disabled")


def test_a_stall_is_reported_once_and_again_after_logging_resumed(watch: StallWatch) -> None:
    writer = Logging()
    watch.add(writer, 10.0, writer.tell)
    for now in range(9, 40, 3):
        watch.look(now)
    assert writer.told == [12]
    writer.logged_events = 1
    for now in range(40, 60, 3):
        watch.look(now)
    assert writer.told == [12, 12]


def test_a_writer_that_logs_is_left_alone(watch: StallWatch) -> None:
    writer = Logging()
    watch.add(writer, 10.0, writer.tell)
    for now in range(100):
        writer.logged_events = now
        watch.look(now)
    assert writer.told == []


def test_checks_follow_the_shortest_timeout_and_end_with_the_last_writer(watch: StallWatch) -> None:
    short, long = Logging(), Logging()
    watch.add(short, 10.0, short.tell)
    watch.add(long, 1000.0, long.tell)
    assert watch.look(1) == 1.0
    watch.discard(short)
    assert watch.look(2) == 5.0
    long.logged_events = None  # closed
    assert watch.look(3000) is None
    assert long.told == []


def stall(folder: Path, hook: Callable[[StallDetails], object], **options: Any) -> HFSummaryWriter:
    return HFSummaryWriter("user/runs", folder, on_stall=hook, stall_after=0.05, **options)


def test_the_hook_of_a_writer_is_called_in_the_watch_thread(tmp_path: Path) -> None:
    calls: queue.Queue[tuple[StallDetails, str]] = queue.Queue()
    with stall(tmp_path / "run", lambda details: calls.put((details, threading.current_thread().name))) as writer:
        details, thread = calls.get(timeout=SECONDS)
        assert (details.repo_id, details.folder) == ("user/runs", tmp_path / "run")
        assert details.seconds >= 0.05
        assert thread == "hf-summary-writer-stalls"
        writer.add_scalar("loss", 1.0, 1)
        calls.get(timeout=SECONDS)


def test_a_hook_that_raises_is_logged_and_called_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls: queue.Queue[StallDetails] = queue.Queue()

    def hook(details: StallDetails) -> None:
        calls.put(details)
        raise SystemExit(details)

    with stall(tmp_path / "run", hook) as writer:
        for step in range(2):
            calls.get(timeout=SECONDS)
            writer.add_scalar("loss", 1.0, step)
    assert set(caplog.messages) == {"A hook of hf_summary_writer failed; nothing else is affected"}


def test_a_flush_does_not_count_as_logging(tmp_path: Path) -> None:
    with stall(tmp_path / "run", print) as writer:
        writer.add_scalar("loss", 1.0, 1)
        writer.add_scalars("both", {"a": 1.0, "b": 2.0}, 1)
        before = writer.logged_events
        writer.flush()
        assert writer.logged_events == before == 3


def test_a_closed_writer_is_watched_again_when_it_logs(tmp_path: Path) -> None:
    calls: queue.Queue[StallDetails] = queue.Queue()
    writer = stall(tmp_path / "run", calls.put)
    calls.get(timeout=SECONDS)
    writer.close()
    assert writer.logged_events is None
    writer.add_scalar("loss", 1.0, 1)
    calls.get(timeout=SECONDS)
    writer.close()


def test_the_watch_ends_with_the_last_open_writer(tmp_path: Path) -> None:
    with HFSummaryWriter("user/runs", tmp_path / "run", on_stall=print) as writer:
        writer.add_scalar("loss", 1.0, 1)
        writer.flush()
        [watch] = [thread for thread in threading.enumerate() if thread.name == "hf-summary-writer-stalls"]
    watch.join(2.0)  # a look every 5 seconds would be too late
    assert not watch.is_alive()


def test_neither_a_copy_that_has_logged_nothing_nor_a_writer_without_a_file_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[object] = []
    monkeypatch.setattr(StallWatch, "add", lambda _, writer, *__: watched.append(writer))
    with stall(tmp_path / "run", print) as writer, stall(tmp_path / "other", print, write_to_disk=False):
        pickle.loads(pickle.dumps(writer)).close()
        assert watched == [writer]


def test_the_watch_does_not_keep_a_writer_alive(tmp_path: Path) -> None:
    writer = HFSummaryWriter("user/runs", tmp_path / "run", on_stall=print)
    dropped = weakref.ref(writer)
    del writer
    gc.collect()
    assert dropped() is None


def test_a_writer_is_watched_once_a_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    calls: queue.Queue[float] = queue.Queue()
    watch, writer = StallWatch(), Logging()
    monkeypatch.setattr(writer, "told", SimpleNamespace(append=calls.put))
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        watch.add(writer, 0.01, writer.tell)
    watch.add(writer, 0.01, writer.tell)
    calls.get(timeout=SECONDS)
    watch.discard(writer)


def test_a_shorter_timeout_is_not_noticed_late(tmp_path: Path) -> None:
    calls: queue.Queue[StallDetails] = queue.Queue()
    with HFSummaryWriter("user/runs", tmp_path / "long", on_stall=print) as long:
        long.add_scalar("loss", 1.0, 1)
        long.flush()
        with stall(tmp_path / "short", calls.put):
            calls.get(timeout=4.0)  # the writer with the long timeout is checked every 5 seconds


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_watches_its_own_writers_alone(tmp_path: Path) -> None:
    of_parent: list[StallDetails] = []
    with HFSummaryWriter("user/runs", tmp_path / "run", on_stall=of_parent.append, stall_after=0.1) as writer:
        writer.add_scalar("loss", 1.0, 1)
        child = os.fork()
        if not child:
            with contextlib.suppress(queue.Empty):
                calls: queue.Queue[StallDetails] = queue.Queue()
                of_parent.clear()
                own = HFSummaryWriter("user/runs", tmp_path / "child", on_stall=calls.put, stall_after=0.2)
                calls.get(timeout=10.0)
                own.close()
                os._exit(len(of_parent))
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_never_calls_the_hook_of_its_parent(tmp_path: Path) -> None:
    with HFSummaryWriter("user/runs", tmp_path / "run", on_stall=print) as writer:
        child = os.fork()
        if not child:
            writer.add_scalar("loss", 1.0, 1)
            writer.close()
            writer.add_scalar("loss", 1.0, 2)
            writer.flush()
            os._exit(any(thread.name == "hf-summary-writer-stalls" for thread in threading.enumerate()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), "60"])
def test_an_invalid_timeout_is_refused(tmp_path: Path, seconds: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="stall_after"):
        HFSummaryWriter("user/runs", tmp_path / "run", stall_after=seconds)
    assert not (tmp_path / "run").exists()
