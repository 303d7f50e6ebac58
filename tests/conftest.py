"""Fixtures for all tests: a separate client home, and a check for leaked threads and processes."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
import time
import uuid
from multiprocessing import forkserver, resource_tracker
from typing import TYPE_CHECKING

CONTRACT_VARIABLES = ("HF_SUMMARY_WRITER_TEST_ENDPOINT", "HF_SUMMARY_WRITER_TEST_TOKEN")

# huggingface_hub reads these at import, so they are set before any test module is imported.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf-home-")
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "0"
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ.pop(name, None)
# Of our own variables, keep those that name the Hub for tests/hub/test_contract.py.
for name in [name for name in os.environ if name.startswith("HF_SUMMARY_WRITER_")]:
    if name not in CONTRACT_VARIABLES:
        del os.environ[name]

# A shell may ignore these signals in background jobs, and child processes would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import psutil
import pytest
from huggingface_hub import HfApi, constants
from hypothesis import settings

import hf_summary_writer.notices  # noqa: F401 - it adds a handler to our logger
from hub_process import HasEndpoint, HubProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path


# A busy machine makes any example slow.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

_SETTLE_SECONDS = 5.0


def _ours(thread: threading.Thread) -> bool:
    return thread.name.startswith("hf-summary-writer")


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)} - _helpers()


def _helpers() -> set[int | None]:
    """Return multiprocessing's helper processes, which stay alive; tensorboardX starts them on Python 3.14."""
    return {
        getattr(forkserver, "_forkserver")._forkserver_pid,  # noqa: B009
        getattr(resource_tracker, "_resource_tracker")._pid,  # noqa: B009
    }


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Fail a test that leaves a thread of ours, a child process or a handler of our logger behind."""
    threads_before = set(threading.enumerate())
    children_before = _children()
    logger = logging.getLogger("hf_summary_writer")
    handlers_before = list(logger.handlers)
    yield
    assert logger.handlers == handlers_before
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        threads = [t.name for t in set(threading.enumerate()) - threads_before if _ours(t)]
        children = _children() - children_before
        if not threads and not children:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: threads {threads}, child processes {children}")
        time.sleep(0.02)


def pytest_report_header() -> str:
    """Name the Hub under test in the contract tests."""
    return f"contract against: {os.environ.get(CONTRACT_VARIABLES[0]) or 'the local Hub'}"


_session_token = ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose output, log or error message contains the token of the session's Hub."""
    report = yield
    shown = [name for name, text in report.sections if _session_token in text]
    if _session_token and shown and report.passed:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} shows the token in: {', '.join(shown)} (at {call.when})"
    return report


@pytest.fixture(autouse=True)
def no_file_holds_the_token(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test whose files contain the token of the session's Hub."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder is not None and _session_token:
        assert [path for path in _files_of(folder) if _session_token.encode() in _content(path)] == []


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # a temporary file of a push that still runs
        return b""


def _files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


@pytest.fixture(scope="session")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """Run one Hub for the whole session, in its own process so that forks and busy tests do not disturb it."""
    global _session_token  # noqa: PLW0603 - hooks of pytest get no fixtures
    with HubProcess(tmp_path_factory.mktemp("hub")) as running:
        _session_token = running.token
        yield running


@pytest.fixture
def hub(shared_hub: HubProcess) -> HubProcess:
    """Return the session's Hub, whose log of requests begins with the test."""
    shared_hub.reset_stats()
    return shared_hub


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Callable[..., HfApi]:
    """Return a function that makes a client of any Hub: `client(hub)`, or `client(hub, token=...)`."""

    def make(hub: HasEndpoint, token: str | bool | None = None) -> HfApi:
        # huggingface_hub 1.0 parses the response to a commit with the default endpoint instead of the client's.
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        return HfApi(endpoint=hub.endpoint, token=hub.token if token is None else token)

    return make


@pytest.fixture
def api(hub: HubProcess, client: Callable[..., HfApi]) -> HfApi:
    """Return a client of the session's Hub, with its token."""
    return client(hub)


@pytest.fixture
def repo_id() -> str:
    """Return the id of a repo that no other test uses and that does not exist yet."""
    return f"tester/run-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder."""
    path = tmp_path / "run"
    path.mkdir()
    return path
