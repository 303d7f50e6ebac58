"""Rate limits and temporary errors of the Hub."""

from __future__ import annotations

import logging
import os
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest

import remote
from faults.conftest import HOUR, OFTEN, SOON
from faults.proxy import Answer, Pass
from hf_summary_writer.errors import RateLimitError, TemporaryError
from hub_process import HubProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from huggingface_hub import HfApi

    from faults.conftest import World

pytestmark = [pytest.mark.faults, pytest.mark.client]  # the client would wait and retry

FOREVER = float("inf")


@pytest.fixture(autouse=True)
def each_finds_out_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the shared budget, so that each push gets its wait from the Hub."""
    monkeypatch.setenv("HF_SUMMARY_WRITER_COMMITS_PER_HOUR", "0")


TOO_MANY_COMMITS = (
    b"You have exceeded the rate limit for repository commits (128 per hour). You can retry this action in "
)


def in_seconds(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.faults("N5")
@pytest.mark.parametrize(
    ("headers", "body", "least", "most"),
    [
        ({"Retry-After": "900"}, b"", 900, 990),
        ({"Retry-After": in_seconds(3000)}, b"", 600, 3300),
        ({"RateLimit": '"api";r=0;t=240'}, b"", 240, 264),
        ({"RateLimit": '"api";r=850;t=240'}, TOO_MANY_COMMITS + b"43 minutes.", 2580, 2838),
        ({"RateLimit": '"api";r=850;t=240'}, TOO_MANY_COMMITS + b"about 1 hour.", 3600, 3960),
        ({"Retry-After": "1e30"}, b"", 3600, 3960),
    ],
    ids=["seconds", "date", "header", "minutes in the text", "an hour in the text", "huge"],
)
@pytest.mark.parametrize("request_", ["/repos/create", "/preupload/", "/commit/"])
def test_a_wait_requested_by_the_hub_holds_for_triggers_and_close_does_not_wait(
    world: World, headers: dict[str, str], body: bytes, least: float, most: float, request_: str
) -> None:
    world.proxy.add("POST", request_, Answer(429, headers, body), FOREVER)
    (world.folder / "a.bin").write_bytes(b"1")
    run = world.schedule(every=OFTEN)
    assert isinstance(run.next_error(), RateLimitError)
    run.settle()
    asked = len(world.proxy.requests)
    for _ in range(3):
        future = run.scheduler.trigger()
        error = future.exception(0)
        assert isinstance(error, RateLimitError)
        assert error.retry_after is not None
        assert least - 10 < error.retry_after <= most
        assert " s left)" in str(error)
    began = time.monotonic()
    run.scheduler.close()
    assert time.monotonic() - began < SOON
    assert len(world.proxy.requests) == asked
    assert len([line for line in world.said(logging.WARNING) if "limits the rate" in line]) == 1
    assert "hf-summary-writer sync" in world.said(logging.WARNING)[-1]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Retry-After": in_seconds(-900)},
        {"Retry-After": "-5"},
        {"Retry-After": "0"},
        {"Retry-After": "nan"},
        {"Retry-After": "soon"},
        {"RateLimit": "what?"},
    ],
    ids=["absent", "past date", "negative", "zero", "nan", "word", "nonsense"],
)
def test_an_invalid_wait_is_replaced_by_our_back_off(world: World, headers: dict[str, str]) -> None:
    world.proxy.add("POST", "/preupload/", Answer(429, headers), FOREVER)
    (world.folder / "a.bin").write_bytes(b"1")
    run = world.schedule()
    assert isinstance(run.next_error(), RateLimitError)
    run.settle()
    assert run.scheduler._task.state.seconds <= HOUR * 60
    # A trigger skips our own back-off.
    assert isinstance(run.fail(), RateLimitError)
    world.proxy.clear()
    run.push()  # the scheduler's own retry may have been earlier
    assert world.uploaded() == {"a.bin": b"1"}


def test_the_commit_limit_is_kept_and_delayed_files_are_uploaded_later(
    world: World, tmp_path_factory: pytest.TempPathFactory, client: Callable[..., HfApi]
) -> None:
    root = tmp_path_factory.mktemp("limited")
    with HubProcess(root, "--commits-per-hour", "1", "--token", "hf_" + "t" * 30) as limited:
        api = client(limited)
        run = world.schedule(hf_api=api, every=OFTEN)
        (world.folder / "a.bin").write_bytes(os.urandom(1000))
        run.next_commit()
        (world.folder / "b.bin").write_bytes(os.urandom(1000))
        error = run.next_error()
        assert isinstance(error, RateLimitError)
        assert error.retry_after == 3600
        run.settle()
        asked = len(limited.requests)
        assert isinstance(run.scheduler.trigger().exception(0), RateLimitError)
        run.scheduler.close()
        assert len(limited.requests) == asked
        assert set(remote.files(api, world.repo_id)) == {"a.bin"}
    with HubProcess(root, "--port", limited.endpoint.rpartition(":")[2], "--token", "hf_" + "t" * 30):
        world.schedule(hf_api=api).scheduler.close()
        assert remote.files(api, world.repo_id) == world.on_disk()


@pytest.mark.faults("N6")
@pytest.mark.parametrize(
    ("answer", "close_timeout"),
    # A requested wait over the timeout ends the last push at once; otherwise it is retried until the timeout.
    [(Answer(429, {"Retry-After": "99"}), 30.0), (Answer(503, {"Retry-After": "99"}), 30.0), (Answer(503), 2.0)],
    ids=["429", "503 with a wait", "503"],
)
def test_the_last_push_ends_on_time_and_the_next_process_uploads_the_rest(
    world: World, answer: Answer, close_timeout: float
) -> None:
    run = world.schedule(close_timeout=close_timeout)
    run.settle()
    (world.folder / "a.bin").write_bytes(os.urandom(1000))
    world.proxy.add("POST", "/commit/", answer, FOREVER)
    began = time.monotonic()
    run.scheduler.close()
    assert time.monotonic() - began < SOON
    assert "hf-summary-writer sync" in world.said(logging.WARNING)[-1]
    world.proxy.clear()
    world.schedule().scheduler.close()
    assert world.uploaded() == world.on_disk()


def test_the_last_push_keeps_a_requested_wait_within_its_timeout(world: World) -> None:
    run = world.schedule()
    run.settle()
    (world.folder / "a.bin").write_bytes(os.urandom(1000))
    world.proxy.add("POST", "/commit/", Answer(429, {"Retry-After": "1"}))
    run.scheduler.close()
    assert world.uploaded() == world.on_disk()


@pytest.mark.faults("N7")
@pytest.mark.parametrize("request_", ["/repos/create", "/preupload/", "/commit/"])
def test_ten_server_errors_are_retried_with_back_off_and_logged_twice(world: World, request_: str) -> None:
    for number in range(10):
        world.proxy.add("POST", request_, Answer((500, 502, 503, 504)[number % 4], body=b"<html>ill</html>"))
    (world.folder / "a.bin").write_bytes(os.urandom(1000))
    (world.folder / "b.txt").write_bytes(b"1")
    began = time.monotonic()
    run = world.schedule(every=OFTEN)
    run.next_commit()
    assert time.monotonic() - began < 10 * OFTEN * 60 + 2 * SOON  # the interval caps the waits
    run.settle()
    assert all(isinstance(run.next_error(), TemporaryError) for _ in range(10))
    assert run.errors.empty()
    assert world.uploaded() == world.on_disk()
    assert len(world.commits()) == 2
    commits = [seen.action for seen in world.proxy.requests if "/commit/" in seen.path]
    assert commits.count(Pass()) == 1
    [warning] = world.said(logging.WARNING)
    assert "the Hub answered 500" in warning
    [over] = [line for line in world.said(logging.INFO) if "again, after" in line]
    assert "10 failed attempts: 2 files" in over


def test_alternating_errors_are_logged_once_each(world: World) -> None:
    for _ in range(4):
        world.proxy.add("POST", "/repos/create", Answer(500))
        world.proxy.add("POST", "/repos/create", Answer(429))
    (world.folder / "a.bin").write_bytes(b"1")
    run = world.schedule(every=OFTEN)
    run.next_commit()
    assert len(world.said(logging.WARNING)) == 2
