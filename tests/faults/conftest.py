"""Fixtures for a failing network, schedulers with recorded results, and a check for the token in all output."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import constants

import remote
from faults.mounts import a_disk_of
from faults.proxy import FaultProxy
from hf_summary_writer import CommitScheduler
from hf_summary_writer.errors import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from huggingface_hub import CommitInfo, HfApi

    from faults.proxy import Action
    from hf_summary_writer.errors import CommitDetails, ErrorDetails
    from hub_process import HubProcess

SECONDS = 20.0  # far more than any test needs
SOON = 10.0  # seconds in which even a busy machine does work that does not wait
HOUR = 60.0  # minutes; a scheduler with this interval pushes only on request
OFTEN = 0.1 / 60  # minutes


@pytest.fixture
def proxy(hub: HubProcess) -> Iterator[FaultProxy]:
    with FaultProxy(hub) as running:
        yield running
    assert not [thread for thread in threading.enumerate() if thread.name == "fault-proxy"]


@pytest.fixture
def proxied(proxy: FaultProxy, client: Callable[..., HfApi]) -> HfApi:
    """Return a client that reaches the Hub through the proxy."""
    return client(proxy)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Return the folder of a separate file system of 64 pages."""
    with a_disk_of("256k", tmp_path / "tiny") as folder:
        yield folder


def fill_up(ballast: Path) -> None:
    """Write to a file until its disk is full."""
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


@pytest.fixture(autouse=True)
def xet_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the client's setting for Xet after a test."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", constants.HF_HUB_DISABLE_XET)


@dataclass(slots=True)
class Run:
    """A scheduler and the calls of its hooks."""

    scheduler: CommitScheduler
    commits: queue.SimpleQueue[CommitDetails]
    errors: queue.SimpleQueue[ErrorDetails]

    def push(self) -> CommitInfo | None:
        """Push now and return the commit, or raise."""
        return self.scheduler.trigger().result(SECONDS)

    def fail(self) -> BaseException:
        """Push now and return its error."""
        error = self.scheduler.trigger().exception(SECONDS)
        assert error is not None, "the push did not fail"
        return error

    def next_error(self) -> BaseException:
        return self.errors.get(timeout=SECONDS).error

    def next_commit(self) -> CommitDetails:
        return self.commits.get(timeout=SECONDS)

    def settle(self) -> None:
        """Wait until the latest push is over, with its log lines and files."""
        while (future := self.scheduler.last_future) is None:
            time.sleep(0.001)
        future.exception(SECONDS)

    def missing(self) -> int:
        """Return the number of files that are not recorded as uploaded."""
        return self.scheduler._job.inventory.pending().files

    def allow(self, seconds: float) -> None:
        """Set the deadline of every call to the Hub."""
        self.scheduler._remote.call_seconds = seconds


@dataclass(slots=True)
class Watch:
    """Collect all readable output, to search it for the token after the test."""

    token: str
    texts: list[str] = field(default_factory=list)

    def see(self, *texts: str) -> None:
        self.texts.extend(texts)

    def see_error(self, error: BaseException) -> None:
        """Collect an exception as shown by tools that print the variables of its frames."""
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        self.see(str(error), repr(error), "".join(shown.format()))

    def see_files(self, folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                self.see(str(path), path.read_bytes().decode("latin-1"))

    @property
    def leaks(self) -> list[str]:
        return [text for text in self.texts if self.token in text]


@pytest.fixture(autouse=True)
def watch(
    hub: HubProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[Watch]:
    """Fail a test that leaves the token in a log, on the terminal, in a file or in an exception."""
    watch = Watch(hub.token)
    for name in (None, "hf_summary_writer", "huggingface_hub", "httpx", "httpx2"):
        # Through `caplog`, which restores the levels after those that the test sets.
        caplog.set_level(logging.DEBUG, logger=name)
    yield watch
    watch.see(caplog.text, *capfd.readouterr())
    watch.see_files(tmp_path)
    assert watch.leaks == []


@dataclass(slots=True)
class World:
    """A folder, the Hub behind a proxy, the folder's schedulers and their log.

    Attributes:
        hub: The Hub.
        proxy: The proxy in front of the Hub, which injects faults.
        api: A client that reaches the Hub through the proxy.
        repo_id: A repo that does not exist yet.
        folder: The folder, empty.
        watch: Collects output that could contain the token.
        where: Arguments of a scheduler that select a bucket instead of the repo.
    """

    hub: HubProcess
    proxy: FaultProxy
    api: HfApi
    repo_id: str
    folder: Path
    watch: Watch
    _log: pytest.LogCaptureFixture
    where: dict[str, str] = field(default_factory=dict)
    _runs: list[Run] = field(default_factory=list)

    def schedule(self, **arguments: Any) -> Run:
        """Start a scheduler behind the proxy."""
        commits: queue.SimpleQueue[CommitDetails] = queue.SimpleQueue()
        errors: queue.SimpleQueue[ErrorDetails] = queue.SimpleQueue()

        def failed(details: ErrorDetails) -> None:
            self.watch.see(repr(details))
            self.watch.see_error(details.error)
            errors.put(details)

        settings = {
            "repo_id": self.repo_id,
            "folder_path": self.folder,
            "every": HOUR,
            "hf_api": self.api,
            **self.where,
            **arguments,
        }
        scheduler = CommitScheduler(on_commit=commits.put, on_error=failed, **settings)
        self._runs.append(Run(scheduler, commits, errors))
        self.watch.see(repr(scheduler))
        return self._runs[-1]

    def hang(self, run: Run, request: tuple[str, str], action: Action) -> DeadlineError:
        """Fail a push at the deadline of a request with a fault; the deadline grows until that request is reached."""
        run.scheduler._remote.call_seconds = 0.5
        while True:
            self.proxy.add(*request, action)
            seen = len(self.proxy.requests)
            run.scheduler._remote.call_seconds *= 2
            error = run.fail()
            assert isinstance(error, DeadlineError)
            if any(each.action is action for each in self.proxy.requests[seen:]):
                run.allow(SECONDS)
                return error
            self.proxy.clear()

    def said(self, level: int) -> list[str]:
        """Return the messages of the library and the client, from a log level on."""
        return [
            record.getMessage()
            for record in self._log.records
            if record.levelno >= level and record.name.startswith(("hf_summary_writer", "huggingface_hub"))
        ]

    def uploaded(self) -> dict[str, bytes]:
        """Return the files in the repo."""
        return remote.files(self.api, self.repo_id, **self.where)

    def on_disk(self) -> dict[str, bytes]:
        """Return the files in the folder, by their paths in the repo."""
        return remote.under(self.folder, "", "*")

    def commits(self) -> list[str]:
        """Return the titles of the commits, the newest first."""
        return remote.commits(self.api, self.repo_id)

    def end(self) -> None:
        for run in self._runs:
            run.scheduler.stop()
        self.proxy.clear()
        # While the proxy still works: the native client takes long to give up an unreachable Hub.
        wait_for_our_threads()


@pytest.fixture
def world(
    hub: HubProcess,
    proxy: FaultProxy,
    proxied: HfApi,
    repo_id: str,
    folder: Path,
    watch: Watch,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[World]:
    world = World(hub, proxy, proxied, repo_id, folder, watch, caplog)
    yield world
    world.end()


def wait_for_our_threads() -> None:
    """Wait until all our threads have ended, abandoned ones included."""
    deadline = time.monotonic() + SECONDS
    while left := [thread.name for thread in threading.enumerate() if thread.name.startswith("hf-summary-writer")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
