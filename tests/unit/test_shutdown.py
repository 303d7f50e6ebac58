"""The time limit that all the waits for last pushes share when a process exits."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

import pytest

from hf_summary_writer.config import PushConfig
from hf_summary_writer.folder import Inventory, Ledger, WarnOnce
from hf_summary_writer.push import Shutdown

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import CommitInfo

HOUR = 3600.0


@pytest.fixture
def shutdown(tmp_path: Path) -> Shutdown:
    config = PushConfig(repo_id="user/run", endpoint="https://hub")
    ledger = Ledger(tmp_path / "ledger.jsonl", config.destination)
    inventory = Inventory(tmp_path, config, ledger, WarnOnce())
    return Shutdown(tmp_path, lambda: "user/run", lambda: None, "hf-summary-writer sync", inventory, ledger, HOUR)


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
