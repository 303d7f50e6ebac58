"""The log lines about failed and last pushes, and the time limit that all waits of an exit share."""

from __future__ import annotations

import dataclasses
import io
import logging
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from events import wait_until
from faults.rights import an_ordinary_user
from hf_summary_writer.config import PushConfig
from hf_summary_writer.errors import (
    ActionNeededError,
    CommitDetails,
    InterruptedPushError,
    RepoGoneError,
    TemporaryError,
    UnwrittenError,
)
from hf_summary_writer.folder import CommitRecord, Inventory, Ledger, WarnOnce
from hf_summary_writer.push import Shutdown
from hf_summary_writer.push import shutdown as shutdown_module
from hf_summary_writer.push.report import PushReport

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

    from hf_summary_writer.folder import Pending

HOUR = 3600.0


CONFIG = PushConfig(repo_id="user/run", endpoint="https://hub", close_timeout=HOUR)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl", CONFIG.destination)


@pytest.fixture
def job(tmp_path: Path, ledger: Ledger) -> Any:
    return SimpleNamespace(
        folder=tmp_path,
        began=1.0,
        config=CONFIG,
        remote=SimpleNamespace(repo_id="user/run"),
        url=None,
        sync_command=f"hf-summary-writer sync {tmp_path}",
        inventory=Inventory(tmp_path, CONFIG, ledger, WarnOnce()),
        ledger=ledger,
        refresh=lambda: None,
        report=SimpleNamespace(told_at=0.0),
        announces=True,
        owner_above=None,
        has_lost=False,
        left_behind=0,
    )


@pytest.fixture
def shutdown(job: Any) -> Shutdown:
    return Shutdown(job)


def done() -> Future[CommitInfo | None]:
    future: Future[CommitInfo | None] = Future()
    future.set_result(None)
    return future


def test_time_spent_waiting_for_other_folders_counts(shutdown: Shutdown) -> None:
    shutdown.await_last(Future(), time.monotonic(), away=False)
    assert shutdown.remaining == 0


def test_unused_time_is_left_for_the_next_wait(shutdown: Shutdown) -> None:
    deadline = time.monotonic() + HOUR
    shutdown.await_last(done(), deadline, away=False)
    assert 0 < shutdown.remaining <= deadline - time.monotonic() + 1


def test_a_skipped_wait_leaves_no_time_for_another(shutdown: Shutdown) -> None:
    shutdown.skip_wait()
    shutdown.await_last(done(), time.monotonic() + HOUR, away=False)
    assert shutdown.remaining == 0


def failed(error: Exception) -> Future[CommitInfo | None]:
    future: Future[CommitInfo | None] = Future()
    future.set_exception(error)
    return future


def test_a_folder_that_cannot_be_listed_at_the_end_is_named_once(
    shutdown: Shutdown, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden").chmod(0)
    with an_ordinary_user():
        for _ in range(2):
            shutdown.await_last(
                failed(TemporaryError("the folder cannot be listed")), time.monotonic() + 60, away=False
            )
        shutdown.name_late_data()
    (tmp_path / "hidden").chmod(0o700)
    [warning] = [record.getMessage() for record in caplog.records if "Not all of" in record.getMessage()]
    assert "could not be counted. To send the rest: hf-summary-writer sync" in warning


def event_file(folder: Path, number: int = 1) -> None:
    (folder / f"events.out.tfevents.{number}.host").write_bytes(b"events")


def at_the_end(shutdown: Shutdown, future: Future[CommitInfo | None], *, away: bool = False) -> None:
    shutdown.await_last(future, time.monotonic() + HOUR, away=away)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_the_run_that_goes_on_has_the_whole_time_again(shutdown: Shutdown) -> None:
    shutdown.skip_wait()
    shutdown.begin_anew()
    assert shutdown.remaining == HOUR


@pytest.mark.parametrize(
    ("future", "away"), [(failed(TemporaryError("no route")), False), (done(), True), (failed(KeyError()), True)]
)
def test_missing_data_is_named_once_with_its_command(
    shutdown: Shutdown,
    job: Any,
    tmp_path: Path,
    said: pytest.LogCaptureFixture,
    future: Future[CommitInfo | None],
    away: bool,
) -> None:
    event_file(tmp_path)
    before = time.monotonic()
    for _ in range(2):
        at_the_end(shutdown, future, away=away)
    [line] = said.messages
    assert line.startswith(f"Not all of {tmp_path} is in user/run yet: 1 file, 6 bytes missing. To send the rest: hf-")
    assert job.report.told_at >= before
    event_file(tmp_path, 2)
    at_the_end(shutdown, future, away=away)
    assert "2 files, 12 bytes missing" in said.messages[-1]


def test_a_wait_that_ends_at_its_limit_names_the_missing_data(
    shutdown: Shutdown, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    event_file(tmp_path)
    shutdown.await_last(Future(), time.monotonic() + 0.01, away=False)
    assert [line.partition(":")[0] for line in said.messages] == [f"Not all of {tmp_path} is in user/run yet"]


def test_uploaded_data_is_named_once_and_only_after_a_commit(
    shutdown: Shutdown, job: Any, ledger: Ledger, said: pytest.LogCaptureFixture
) -> None:
    at_the_end(shutdown, done())
    ledger.commit, job.announces = CommitRecord(None, "https://hub", time.time()), False
    at_the_end(shutdown, done())
    assert said.messages == []
    job.announces = True
    for _ in range(2):
        at_the_end(shutdown, done())
    assert [line.partition(" /")[0] for line in said.messages] == ["All of"]


class Interrupted(Future[Any]):
    """A future during whose first wait the user presses Ctrl-C."""

    is_interrupted = False

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.is_interrupted:
            self.is_interrupted = True
            raise KeyboardInterrupt
        return super().exception(timeout)


def test_ctrl_c_skips_this_wait_and_the_next_ones_and_names_the_missing_data(
    shutdown: Shutdown, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    event_file(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        at_the_end(shutdown, Interrupted())
    assert shutdown.remaining == 0
    assert "1 file, 6 bytes missing" in said.text


@pytest.mark.parametrize("has_lost", [True, False])
def test_data_that_the_last_push_did_not_find_is_not_named_as_uploaded(
    shutdown: Shutdown, job: Any, ledger: Ledger, tmp_path: Path, said: pytest.LogCaptureFixture, has_lost: bool
) -> None:
    if has_lost:
        job.has_lost = True
    else:
        event_file(tmp_path)
    ledger.commit = CommitRecord(None, "https://hub", time.time())
    at_the_end(shutdown, done())
    assert said.messages[0].startswith("All that the last push found of ")


def resolve_once_explained(future: Future[CommitInfo | None], said: pytest.LogCaptureFixture) -> None:
    try:
        wait_until(lambda: said.records)
    finally:
        future.set_result(None)


def test_a_long_wait_is_explained_to_a_user_who_watches(
    shutdown: Shutdown, tmp_path: Path, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_file(tmp_path)
    monkeypatch.setattr(shutdown_module, "_SECONDS_BEFORE_EXPLAINING", 0.01)
    closed = io.StringIO()
    closed.close()
    for modules, stderr, level in (
        ({}, sys.stderr, "INFO"),
        ({}, None, "INFO"),
        ({}, closed, "INFO"),
        ({"ipykernel": None}, sys.stderr, "WARNING"),
    ):
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setattr(sys, "modules", {**sys.modules, **modules})
        future: Future[CommitInfo | None] = Future()
        said.clear()
        threading.Thread(target=resolve_once_explained, args=(future, said)).start()
        at_the_end(shutdown, future)
        assert future.done()
        first = said.records[0]
        assert first.getMessage().startswith(f"Pushing 1 file, 6 bytes of {tmp_path} to user/run, for at most ")
        assert first.levelname == level


def test_late_data_is_named_once_after_the_ledger_is_read_again(
    shutdown: Shutdown, job: Any, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    calls: list[None] = []
    job.refresh = lambda: calls.append(None)
    shutdown.name_late_data()
    assert (len(calls), said.messages) == (1, [])
    event_file(tmp_path)
    for _ in range(2):
        shutdown.name_late_data()
    assert len(calls) == 2
    assert len(said.messages) == 1


def test_late_data_that_an_owner_above_uploads_is_not_named(
    shutdown: Shutdown, job: Any, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    event_file(tmp_path)
    job.owner_above = tmp_path.parent
    shutdown.name_late_data()
    assert said.messages == []


def test_on_a_hung_disk_the_wait_is_bounded_and_counted_by_one_thread(
    shutdown: Shutdown, tmp_path: Path, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending, released, counts = Inventory.pending, threading.Event(), 0

    def hang(inventory: Inventory, *_: object) -> Pending:
        nonlocal counts
        counts += 1
        released.wait(60)
        return pending(inventory)

    monkeypatch.setattr(Inventory, "pending", hang)
    monkeypatch.setattr(shutdown_module, "_SECONDS_TO_COUNT", 0.01)
    for _ in range(2):
        shutdown.await_last(done(), time.monotonic(), away=True)
    released.set()
    assert counts == 1
    assert [line.partition(":")[0] for line in said.messages] == [f"Not all of {tmp_path} is in user/run"]


def test_missing_data_is_counted_although_no_thread_can_be_started(
    shutdown: Shutdown, tmp_path: Path, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    event_file(tmp_path)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    at_the_end(shutdown, done(), away=True)
    assert "1 file, 6 bytes missing" in said.text


def commit(files: int, nbytes: int) -> CommitDetails:
    return CommitDetails("user/run", Path(), "1", "https://hub/commit/1", files, nbytes, 0.1)


def test_each_kind_of_failure_is_logged_once_until_a_push_succeeds(job: Any, said: pytest.LogCaptureFixture) -> None:
    job.announces, failures = False, []
    job.config = dataclasses.replace(CONFIG, on_error=lambda details: failures.append(details.failures))
    log = PushReport(job)
    log.committed(commit(9, 9))
    log.ended(None)
    said.clear()
    errors = [TemporaryError("a"), ActionNeededError("b"), TemporaryError("c"), KeyError("d"), RepoGoneError("e")]
    for error in errors:
        log.ended(error)
    assert failures == [1, 2, 3, 4, 5]
    assert [record.levelname for record in said.records] == ["WARNING", "WARNING", "WARNING", "ERROR"]
    assert [record.exc_info is not None for record in said.records] == [False, False, True, False]
    log.committed(commit(1, 5))
    log.committed(commit(2, 5))
    said.clear()
    log.ended(None)
    log.ended(None)
    [line] = said.messages
    assert line.endswith("and 5 failed attempts: 3 files, 10 bytes")
    log.ended(TemporaryError("a"))
    assert failures[-1] == 1
    log.ended(None)
    assert said.messages[-1].endswith("and 1 failed attempts: 0 files, 0 bytes")


@pytest.mark.parametrize(
    ("error", "left_behind"),
    [(InterruptedPushError("x"), False), (UnwrittenError("x"), False), (TemporaryError("x"), True)],
)
def test_a_failure_that_another_line_names_is_not_logged(
    job: Any, said: pytest.LogCaptureFixture, error: Exception, left_behind: bool
) -> None:
    log = PushReport(job)
    log.told_at = job.began + left_behind
    log.ended(error)
    assert said.messages == []
