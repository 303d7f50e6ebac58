"""The Hub is unreachable, or another server answers instead."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import HfApi, constants

import remote
import scripts
from faults.canary import Stranger
from faults.conftest import HOUR, OFTEN, SECONDS, SOON
from faults.proxy import Answer, FaultProxy
from faults.tls import SelfSignedServer
from hf_summary_writer import CommitScheduler
from hf_summary_writer.errors import ActionNeededError, TemporaryError, UnreachableError
from hf_summary_writer.push.loop import LastPushesInVain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from faults.conftest import World
    from hub_process import HubProcess

pytestmark = [pytest.mark.faults, pytest.mark.client, pytest.mark.transport]  # the client makes the connections

FOREVER = float("inf")
NOWHERE = "http://127.0.0.1:9"  # the port of the discard service, which no machine runs
NO_ROUTE = "http://255.255.255.255:9"  # the system refuses to connect to it: the network is unreachable

LOGGING_WITHOUT_A_HUB = """
began = time.monotonic()
scheduler = CommitScheduler(repo_id=repo_id, folder_path=logdir, every=0.001, close_timeout=0.5)
print(time.monotonic() - began)
for number in range(3):
    open(f"{logdir}/{number}.bin", "wb").write(os.urandom(1000))
    assert scheduler.trigger().exception(30)
print(max(0, time.monotonic() - began))
scheduler.close()
"""


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_an_offline_run_makes_no_request_and_is_uploaded_later(
    hub: HubProcess, api: HfApi, repo_id: str, folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    before = hub.requests
    done = scripts.run(LOGGING_WITHOUT_A_HUB.replace(".exception(30)", ".result(30) is None"), hub, folder, repo_id)
    monkeypatch.delenv(variable)
    assert done.returncode == 0, done.stderr
    assert hub.requests == before
    lines = [line for line in done.stderr.splitlines() if line.startswith(("WARNING", "ERROR"))]
    assert len(lines) == 1
    assert "hf-summary-writer sync" in lines[0]
    with CommitScheduler(repo_id=repo_id, folder_path=folder, every=HOUR, hf_api=api):
        pass
    assert remote.files(api, repo_id) == remote.under(folder, "", "*.bin")


def test_an_offline_run_names_only_the_data_that_another_process_did_not_upload(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_SUMMARY_WRITER_MODE", "offline")
    offline = world.schedule()
    monkeypatch.setenv("HF_SUMMARY_WRITER_MODE", "online")
    (world.folder / "a.bin").write_bytes(os.urandom(5000))
    with world.schedule().scheduler:
        pass
    offline.scheduler.close()
    assert world.said(logging.WARNING) == []
    (world.folder / "b.bin").write_bytes(os.urandom(1000))
    offline.scheduler.close()
    [warning] = world.said(logging.WARNING)
    assert "1 file, 1.0 kB missing" in warning


@pytest.mark.faults("N8")
@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"HF_ENDPOINT": NOWHERE}, "cannot be reached"),
        ({"HF_ENDPOINT": "http://hub.invalid"}, "cannot be reached"),
        ({"HF_ENDPOINT": NO_ROUTE}, "cannot be reached"),
        ({"HTTP_PROXY": NOWHERE, "http_proxy": NOWHERE, "NO_PROXY": "", "no_proxy": ""}, "cannot be reached"),
    ],
    ids=["refused", "no such host", "no route", "proxy down"],
)
def test_a_run_without_a_network_starts_at_once_and_is_uploaded_later(
    world: World,
    hub: HubProcess,
    api: HfApi,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    reason: str,
) -> None:
    monkeypatch.setattr(scripts, "environment", lambda hub, folder: {**_environment(hub, folder), **environment})
    done = scripts.run(LOGGING_WITHOUT_A_HUB, hub, folder, world.repo_id)
    world.watch.see(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr
    constructed, logged = (float(line) for line in done.stdout.split())
    assert constructed < SOON
    assert logged < 20
    lines = [line for line in done.stderr.splitlines() if line.startswith(("WARNING", "ERROR"))]
    assert [line for line in lines if "could not be pushed" in line and reason in line] == lines[:1]
    assert len(lines) == 2, lines
    assert "hf-summary-writer sync" in lines[1]
    with CommitScheduler(repo_id=world.repo_id, folder_path=folder, every=HOUR, hf_api=api):
        pass
    assert len(remote.files(api, world.repo_id)) == 3
    assert remote.files(api, world.repo_id) == remote.under(folder, "", "*")


@pytest.mark.faults("N8")
def test_runs_that_never_reached_a_hub_end_after_one_retry(world: World, client: Callable[..., HfApi]) -> None:
    failures: list[BaseException] = []
    api = HfApi(endpoint=NOWHERE, token=world.hub.token)
    for number in range(3):
        (world.folder / f"{number}.bin").write_bytes(os.urandom(1000))
        scheduler = CommitScheduler(
            repo_id=world.repo_id,
            folder_path=world.folder,
            hf_api=api,
            close_timeout=HOUR * 60,
            on_error=lambda details: failures.append(details.error),
        )
        scheduler.close()
    # One at the start and one at the end.
    assert len(failures) <= 6
    with CommitScheduler(repo_id=world.repo_id, folder_path=world.folder, hf_api=client(world.hub)):
        pass
    assert len(remote.files(client(world.hub), world.repo_id)) == 3


def test_a_failed_last_push_is_remembered_for_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    in_vain = LastPushesInVain()
    in_vain.note("https://one", "one cannot be reached", 8.0)
    in_vain.note("https://refused", "refused", 0.0)
    now += 79
    assert str(in_vain.recent("https://one")) == "one cannot be reached"
    assert in_vain.recent("https://refused") is None
    assert in_vain.recent("https://other") is None
    now += 2
    assert in_vain.recent("https://one") is None


_environment = scripts.environment


@pytest.mark.parametrize("known", [False, True], ids=["from the start", "in mid-run"])
def test_files_written_during_an_outage_are_uploaded_after_it(
    world: World, client: Callable[..., HfApi], known: bool
) -> None:
    with FaultProxy(world.hub) as first:
        api = client(first)
        port = int(first.endpoint.rpartition(":")[2])
        if known:
            (world.folder / "early.bin").write_bytes(os.urandom(1000))
            world.schedule(hf_api=api).scheduler.close()
    run = world.schedule(hf_api=api, every=OFTEN)
    run.settle()
    for number in range(3):
        (world.folder / f"{number}.bin").write_bytes(os.urandom(1000))
        began = time.monotonic()
        assert isinstance(run.next_error(), TemporaryError)
        assert time.monotonic() - began < SOON, "the client retried"
    with FaultProxy(world.hub, port):
        run.next_commit()
        run.settle()
        run.scheduler.close()
        assert remote.files(api, world.repo_id) == world.on_disk()
    assert len(world.said(logging.WARNING)) == 1


@pytest.mark.faults("N12")
def test_a_redirect_to_an_invalid_address_is_named(world: World) -> None:
    world.proxy.add("POST", "/preupload/", Answer(307, {"Location": "http://portal:abc/login"}), FOREVER)
    (world.folder / "a.bin").write_bytes(os.urandom(1000))
    run = world.schedule()
    run.settle()
    assert isinstance(run.fail(), ActionNeededError)
    [warning] = world.said(logging.WARNING)
    assert "redirects to http://portal:abc/login, which is not followed" in warning


@pytest.mark.faults("N12")
@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("request_", ["/repos/create", "/preupload/", "/commit/", "/info/lfs/objects/batch"])
def test_a_redirect_to_another_host_is_refused_and_named(world: World, status: int, request_: str) -> None:
    with Stranger() as elsewhere:
        world.proxy.add("POST", request_, Answer(status, {"Location": f"{elsewhere.endpoint}/login"}), FOREVER)
        (world.folder / "a.bin").write_bytes(os.urandom(1000))
        run = world.schedule()
        run.settle()
        if not [seen for seen in world.proxy.requests if request_ in seen.path]:
            assert "lfs" in request_  # over Xet there are no LFS requests
            return
        assert isinstance(run.fail(), ActionNeededError)
        [warning] = world.said(logging.WARNING)
        assert f"redirects to {elsewhere.endpoint}" in warning
        assert "HF_ENDPOINT" in warning
        assert elsewhere.received == []
    world.proxy.clear()
    assert run.push() is not None
    assert world.uploaded() == world.on_disk()


def error_of_upload_to(world: World, storage: str, *actions: str) -> BaseException:
    """Return the error of a push over plain LFS whose file the Hub wants on another host, by these actions."""
    content = os.urandom(1000)
    item = {
        "oid": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "actions": {action: {"href": f"{storage}/{action}"} for action in actions},
    }
    body = json.dumps({"transfer": "basic", "objects": [item]}).encode()
    batch = Answer(200, {"Content-Type": "application/vnd.git-lfs+json"}, body)
    world.proxy.add("POST", "/info/lfs/objects/batch", batch, FOREVER)
    (world.folder / "a.bin").write_bytes(content)
    run = world.schedule()
    run.settle()
    return run.fail()


@pytest.mark.faults("N12")
def test_the_verify_request_of_an_upload_sends_the_token_to_no_other_host(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with Stranger() as elsewhere:
        error = error_of_upload_to(world, elsewhere.endpoint, "upload", "verify")
        assert isinstance(error, ActionNeededError)
        assert f"with the token on to {elsewhere.endpoint}" in str(error)
        # Storage may be on any host and gets no token.
        assert {request.split()[0] for request in elsewhere.received} == {b"PUT"}
        assert not [request for request in elsewhere.received if world.hub.token.encode() in request]


def test_storage_without_a_connection_is_no_hub_that_was_never_reached(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    error = error_of_upload_to(world, NOWHERE, "upload")
    assert isinstance(error, UnreachableError)
    assert error.was_reached  # so a last push tries again


@pytest.mark.skipif(constants.HF_HUB_DISABLE_XET, reason="no Xet token is requested")
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_of_the_xet_token_request_sends_our_token_to_no_other_host(world: World, status: int) -> None:
    with Stranger() as elsewhere:
        world.proxy.add("GET", "/xet-write-token/", Answer(status, {"Location": f"{elsewhere.endpoint}/token"}))
        (world.folder / "a.bin").write_bytes(os.urandom(1000))
        run = world.schedule()
        run.allow(2.0)
        run.settle()
        came = list(elsewhere.received)
    # The native client requests the token itself and follows; a redirect of older clients' requests is refused.
    refused = any("redirects to" in line for line in world.said(logging.WARNING))
    assert refused is not bool(came)
    assert [request for request in came if world.proxy.token.encode() in request] == []
    if came:
        assert came[0].startswith(b"GET /token ")
        assert b"authorization" not in came[0].lower()
    run.allow(SECONDS)
    run.scheduler.close()
    assert world.uploaded() == world.on_disk()


def test_a_redirect_to_a_renamed_repo_on_the_same_host_is_followed(world: World) -> None:
    run = world.schedule()
    run.settle()
    (world.folder / "a.bin").write_bytes(os.urandom(1000))
    run.push()
    renamed = f"{world.repo_id}-renamed"
    world.api.move_repo(world.repo_id, renamed)
    for action in ("preupload", "commit"):
        there = Answer(307, {"Location": f"/api/models/{renamed}/{action}/main"})
        world.proxy.add("POST", f"/{world.repo_id}/{action}/", there, FOREVER)
    (world.folder / "b.txt").write_bytes(b"1")
    assert run.push() is not None
    assert remote.files(world.api, renamed) == world.on_disk()


@pytest.mark.parametrize("known", [False, True], ids=["from the start", "in mid-run"])
def test_a_server_with_an_untrusted_certificate_gets_no_data(world: World, known: bool) -> None:
    (world.folder / "a.bin").write_bytes(os.urandom(1000))
    with SelfSignedServer() as stranger:
        run = world.schedule(hf_api=HfApi(endpoint=stranger.endpoint, token=world.proxy.token))
        if known:
            run.settle()
            run.scheduler._job.ledger.record_repo("tester/known")
        assert isinstance(run.next_error(), ActionNeededError)
        assert isinstance(run.fail(), ActionNeededError)
        assert stranger.callers >= 2
        assert stranger.received == b""
    [warning] = world.said(logging.WARNING)
    assert "not trusted" in warning
    assert "check SSL_CERT_FILE" in warning
