"""The Hub never answers a request, answers too late, or only in part."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import close_session, constants
from huggingface_hub.utils import _auth

import events
import scripts
from faults.conftest import SECONDS, SOON, wait_for_our_threads
from faults.proxy import (
    Action,
    Answer,
    CutAnswer,
    CutRequest,
    Delay,
    Drip,
    FaultProxy,
    Hang,
    Hold,
    LoseAnswer,
    Pass,
    Reset,
    Throttle,
)
from hf_summary_writer.errors import DeadlineError, PushError, TemporaryError
from hf_summary_writer.hub import remote as hub_remote

if TYPE_CHECKING:
    from faults.conftest import Run, World
    from hub_process import HubProcess

pytestmark = [pytest.mark.faults, pytest.mark.client, pytest.mark.transport]  # the client has no deadlines

FOREVER = float("inf")
HOURS = 10_000.0  # seconds
HTML = Answer(200, {"Content-Type": "text/html"}, b"<html>Please log in to this network</html>")

# The requests of a first push, by method and path; the native client makes some of those for Xet.
ALWAYS = {"create": ("POST", "/repos/create"), "preupload": ("POST", "/preupload/"), "commit": ("POST", "/commit/")}
XET = {"token": ("GET", "/xet-write-token/"), "xorb": ("POST", r"/v\d/xorbs/"), "shard": ("POST", r"/v\d/shards")}
LFS = {"batch": ("POST", "/info/lfs/objects/batch"), "put": ("PUT", "/lfs-objects/"), "verify": ("POST", "/lfs-verify")}
REQUESTS = ALWAYS | (LFS if constants.HF_HUB_DISABLE_XET else XET)
UPLOAD = "put" if constants.HF_HUB_DISABLE_XET else "xorb"


def silence(kind: str) -> Action:
    # The native client retries slowly after a closed connection, so this request is answered at the end.
    return Delay(HOURS) if kind in XET else Hang()


def with_something_new(world: World, seconds: float, **arguments: Any) -> Run:
    """Return a run that has a file to push on request, with a deadline for every call to the Hub."""
    run = world.schedule(**arguments)
    run.settle()
    run.allow(seconds)
    (world.folder / "a.bin").write_bytes(os.urandom(50_000))
    return run


def deliver(run: Run) -> None:
    """Push until nothing is missing; a commit in doubt takes a second push."""
    run.allow(SECONDS)
    run.push()
    run.push()
    assert run.missing() == 0


@pytest.mark.faults("N9")
@pytest.mark.parametrize("how", ["silence", "drip"])
@pytest.mark.parametrize("kind", REQUESTS)
def test_a_hung_request_is_abandoned_and_later_pushes_work(world: World, kind: str, how: str) -> None:
    run = with_something_new(world, 0.7)
    world.proxy.add(*REQUESTS[kind], silence(kind) if how == "silence" else Drip(seconds_per_byte=0.3))
    began = time.monotonic()
    assert isinstance(run.fail(), DeadlineError)
    assert time.monotonic() - began < SOON
    assert run.missing() == 1
    deliver(run)
    assert world.uploaded() == world.on_disk()
    assert len(world.said(logging.WARNING)) == 1
    world.proxy.clear()
    run.scheduler.stop()
    wait_for_our_threads()
    assert len(world.commits()) == 2


@pytest.mark.parametrize("kind", REQUESTS)
def test_close_takes_at_most_its_timeout_while_the_hub_hangs(world: World, kind: str) -> None:
    run = with_something_new(world, SECONDS, close_timeout=0.5)
    world.proxy.add(*REQUESTS[kind], silence(kind), FOREVER)
    began = time.monotonic()
    run.scheduler.close()
    assert time.monotonic() - began < SOON
    assert "hf-summary-writer sync" in world.said(logging.WARNING)[-1]


def test_an_abandoned_push_fails_without_a_second_warning(world: World) -> None:
    run = with_something_new(world, SECONDS, close_timeout=0.5)
    world.proxy.add(*REQUESTS["preupload"], Hang(), FOREVER)
    run.scheduler.trigger()
    events.wait_until(lambda: any(seen.action == Hang() for seen in world.proxy.requests), SECONDS)
    run.scheduler.close()
    world.proxy.clear()
    assert isinstance(run.next_error(), TemporaryError)
    wait_for_our_threads()
    [warning] = world.said(logging.WARNING)
    assert "hf-summary-writer sync" in warning


@pytest.mark.parametrize("kind", [UPLOAD, "commit"])
def test_a_script_ends_on_time_while_the_hub_hangs(world: World, kind: str) -> None:
    world.proxy.add(*REQUESTS[kind], Delay(HOURS), FOREVER)
    body = """
    scheduler = CommitScheduler(repo_id=repo_id, folder_path=logdir, close_timeout=1)
    open(logdir + "/a.bin", "wb").write(os.urandom(50_000))
    import atexit
    atexit.register(lambda began=time.monotonic(): print(time.monotonic() - began))
    """
    done = scripts.run(body, world.proxy, world.folder, world.repo_id)
    world.watch.see(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < SOON
    assert "hf-summary-writer sync" in done.stderr


def test_the_deadline_of_a_text_commit_allows_for_a_slow_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_remote, "SLOW_LINE_BYTES_PER_SECOND", 1_000_000)
    run = world.schedule()
    run.settle()
    run.allow(2.0)
    for number in range(4):
        (world.folder / f"{number}.jsonl").write_bytes(b'{"loss": 1}\n' * 250_000)  # 3 MB, and 4 MB within the commit
    world.proxy.add("POST", "/commit/", Throttle(bytes_per_second=2_500_000), FOREVER)
    assert run.push() is not None
    assert run.missing() == 0
    assert world.uploaded() == world.on_disk()
    assert len(world.commits()) == 3


def test_uploaded_commits_of_text_are_not_repeated_after_an_error(world: World) -> None:
    run = world.schedule()
    run.settle()
    for number in range(4):
        (world.folder / f"{number}.jsonl").write_bytes(b'{"loss": 1}\n' * 250_000)
    world.proxy.add("POST", "/commit/", Pass())
    world.proxy.add("POST", "/commit/", Reset())
    assert isinstance(run.fail(), PushError)
    assert run.missing() == 2
    deliver(run)
    assert world.uploaded() == world.on_disk()
    assert len(world.commits()) == 3


@pytest.mark.parametrize("meanwhile", ["nothing", "the session is closed"])
def test_an_abandoned_attempt_commits_nothing_after_a_newer_one(world: World, meanwhile: str) -> None:
    old, new = os.urandom(1000), os.urandom(1000)
    run = world.schedule()
    run.settle()
    (world.folder / "first.txt").write_bytes(b"1")
    run.push()
    (world.folder / "a.bin").write_bytes(old)
    # Over Xet the old attempt is uploading, over LFS about to upload.
    stuck = "preupload" if constants.HF_HUB_DISABLE_XET else "xorb"
    world.hang(run, REQUESTS[stuck], Drip(seconds_per_byte=1.0) if constants.HF_HUB_DISABLE_XET else Delay(HOURS))
    (world.folder / "a.bin").write_bytes(new)
    run.push()  # the scheduler's own retry may have been earlier
    if meanwhile == "the session is closed":
        close_session()
    asked = len(world.proxy.requests)
    world.proxy.clear()
    run.scheduler.stop()
    wait_for_our_threads()
    assert world.uploaded()["a.bin"] == new
    assert len(world.commits()) == 3
    assert not [seen for seen in world.proxy.requests[asked:] if "/commit/" in seen.path]


def test_a_late_commit_is_corrected_by_the_next_push(world: World) -> None:
    old, new = os.urandom(1000), os.urandom(1000)
    run = world.schedule()
    run.settle()
    (world.folder / "first.txt").write_bytes(b"1")
    run.push()
    (world.folder / "a.bin").write_bytes(old)
    assert world.hang(run, ALWAYS["commit"], Hold()).in_doubt
    (world.folder / "a.bin").write_bytes(new)
    run.push()  # the scheduler's own retry may have been earlier
    world.proxy.clear()
    deadline = time.monotonic() + SECONDS
    while world.uploaded()["a.bin"] != old:
        assert time.monotonic() < deadline
    assert run.push() is not None
    assert world.uploaded()["a.bin"] == new
    assert run.missing() == 0
    asked = len(world.proxy.requests)
    assert run.push() is None
    assert len(world.proxy.requests) == asked


@pytest.mark.faults("N10")
@pytest.mark.parametrize(
    ("kind", "action"),
    [
        ("create", Reset()),
        ("create", HTML),
        ("preupload", Reset()),
        ("preupload", CutAnswer(after=10)),
        ("preupload", HTML),
        ("preupload", Answer(200, body=b'{"files": [{"path": "a.b')),
        ("preupload", Answer(200, body=b'{"files": []}')),
        (UPLOAD, CutRequest(after=10_000)),
        (UPLOAD, Reset()),
        ("commit", Reset()),
        ("commit", CutRequest(after=50)),
        ("commit", CutAnswer(after=10)),
        ("commit", HTML),
        ("commit", Answer(200, body=b'{"commitOid": "0123')),
        ("commit", Answer(200, body=b'{"success": true}')),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value)[:32],
)
def test_a_partial_or_foreign_response_is_no_commit_and_the_next_push_succeeds(
    world: World, kind: str, action: Action
) -> None:
    run = with_something_new(world, 2.0)
    world.proxy.add(*REQUESTS[kind], action)
    error = run.scheduler.trigger().exception(SECONDS)
    if kind == "xorb" and error is None:
        pass  # the native client retried in time
    else:
        # The push would have succeeded if the client had retried.
        assert isinstance(error, PushError)
        assert run.missing() == 1
        [warning] = world.said(logging.WARNING)
        if action is HTML:
            assert "login page" in warning
    deliver(run)
    assert world.uploaded() == world.on_disk()
    assert len(world.commits()) == 2


def test_a_commit_in_doubt_of_a_dead_process_is_settled_by_the_next_one(world: World) -> None:
    file = world.folder / "a.bin"
    file.write_bytes(b"old")
    first = world.schedule()
    first.next_commit()
    first.settle()
    file.write_bytes(b"newer")
    world.proxy.add(*REQUESTS["commit"], LoseAnswer())
    assert isinstance(first.fail(), TemporaryError)
    first.scheduler.stop()
    # The version that the first process recorded, which the Hub does not hold any more.
    file.write_bytes(b"old")
    world.schedule().scheduler.close()
    assert world.uploaded() == {"a.bin": b"old"}


@pytest.mark.faults("N11")
def test_a_commit_whose_response_is_lost_is_not_repeated(world: World) -> None:
    (world.folder / "a.bin").write_bytes(os.urandom(1000))
    (world.folder / "b.txt").write_bytes(b"1")
    world.proxy.add("POST", "/commit/", LoseAnswer())
    run = world.schedule()
    error = run.next_error()
    assert isinstance(error, PushError)
    assert error.in_doubt
    assert run.push() is None
    assert world.uploaded() == world.on_disk()
    assert len(world.commits()) == 2
    asked = len(world.proxy.requests)
    assert run.push() is None
    assert len(world.proxy.requests) == asked


needs_a_client_that_asks = pytest.mark.skipif(
    not hasattr(_auth, "_get_token_from_oidc"), reason="the client makes no requests for a token"
)


@needs_a_client_that_asks
def test_a_hung_request_for_a_token_is_abandoned(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", world.proxy.endpoint)
    run = with_something_new(world, 0.7, hf_api=None, token=world.proxy.token)
    world.proxy.add("POST", "/oauth/token", Hang())
    run.scheduler.api.token = None
    monkeypatch.setenv("HF_OIDC_RESOURCE", world.repo_id)
    monkeypatch.setenv("HF_OIDC_ID_TOKEN", "of-this-job")
    assert isinstance(run.fail(), DeadlineError)
    monkeypatch.delenv("HF_OIDC_RESOURCE")  # over plain LFS, the client requests the token once more
    run.scheduler.api.token = world.proxy.token
    deliver(run)


@needs_a_client_that_asks
def test_a_token_from_github_actions_is_used(world: World, hub: HubProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    given = f'{{"access_token": "{hub.token}", "expires_in": 0}}'
    world.proxy.add("POST", "/oauth/token", Answer(200, body=given.encode()), times=FOREVER)
    with FaultProxy(hub) as github:
        github.add("GET", "/id", Answer(200, body=b'{"value": "of-this-job"}'), times=FOREVER)
        monkeypatch.setattr(constants, "ENDPOINT", world.proxy.endpoint)
        monkeypatch.setenv("HF_OIDC_RESOURCE", world.repo_id)
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{github.endpoint}/id?of=job")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-github")
        (world.folder / "a.bin").write_bytes(b"1")
        world.schedule(hf_api=None).push()
        assert github.requests
    assert world.uploaded() == world.on_disk()
