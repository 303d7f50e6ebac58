"""The proxy applies its rules to matching requests and passes all others."""

from __future__ import annotations

import http.client
import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from faults.proxy import Answer, CutAnswer, CutRequest, Delay, Drip, FaultProxy, Hang, Hold, LoseAnswer, Pass, Reset

if TYPE_CHECKING:
    from hub_process import HubProcess

WHOAMI = "/api/whoami-v2"


def ask(proxy: FaultProxy, method: str = "GET", path: str = WHOAMI, timeout: float = 20) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(proxy.endpoint).netloc, timeout=timeout)
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {proxy.token}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_without_rules_all_requests_pass(proxy: FaultProxy, proxied: HfApi, repo_id: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 2000
    url = proxied.create_repo(repo_id)
    assert url.startswith(proxy.endpoint)
    operations = [CommitOperationAdd("events.tfevents.1", content)]
    proxied.create_commit(repo_id, operations, commit_message="Add")
    path = proxied.hf_hub_download(repo_id, "events.tfevents.1", local_dir=tmp_path)
    assert Path(path).read_bytes() == content
    assert any("/lfs-objects/" in seen.path or "/v1/xorbs/" in seen.path for seen in proxy.requests)
    assert {seen.action for seen in proxy.requests} == {Pass()}


def test_a_rule_applies_for_its_turns_and_then_the_next_one(proxy: FaultProxy) -> None:
    proxy.add("GET", "whoami", Answer(503, {"Retry-After": "1"}, b"busy"), times=2)
    proxy.add("*", "whoami", Answer(200, body=b"<html>log in</html>"))
    proxy.add("POST", "whoami", Reset())
    assert [ask(proxy) for _ in range(3)] == [(503, b"busy"), (503, b"busy"), (200, b"<html>log in</html>")]
    status, body = ask(proxy)
    assert (status, json.loads(body)["name"]) == (200, "local")


def test_an_answer_with_a_location_is_a_redirect(proxy: FaultProxy) -> None:
    proxy.add("GET", "whoami", Answer(307, {"Location": "https://example.invalid/"}))
    assert ask(proxy)[0] == 307


def test_an_answer_is_delayed(proxy: FaultProxy) -> None:
    proxy.add("GET", "whoami", Delay(0.3))
    start = time.monotonic()
    assert ask(proxy)[0] == 200
    assert time.monotonic() - start >= 0.3


def test_an_answer_is_sent_byte_by_byte(proxy: FaultProxy) -> None:
    proxy.add("GET", "whoami", Drip(seconds_per_byte=0.002))
    start = time.monotonic()
    status, body = ask(proxy)
    assert (status, json.loads(body)["name"]) == (200, "local")
    assert time.monotonic() - start > 0.002 * len(body)


def test_a_reset_request_never_reaches_the_hub(proxy: FaultProxy, hub: HubProcess) -> None:
    proxy.add("GET", "/reset-here", Reset())
    with pytest.raises(ConnectionResetError):
        ask(proxy, path="/api/reset-here")
    assert not [request for request in hub.requests if request.path == "/api/reset-here"]


def test_an_answer_is_cut_short(proxy: FaultProxy) -> None:
    proxy.add("GET", "whoami", CutAnswer(after=10))
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(proxy)
    assert caught.value.partial == b'{"type":"u'


def test_a_request_is_cut_short(proxy: FaultProxy, proxied: HfApi, repo_id: str) -> None:
    proxied.create_repo(repo_id)
    proxy.add("POST", "/commit/", CutRequest(after=100))
    operations = [CommitOperationAdd("notes.txt", b"hello" * 1000)]
    with pytest.raises(Exception, match=r"reset|disconnected|closed|peer"):
        proxied.create_commit(repo_id, operations, commit_message="Add")
    assert len(proxied.list_repo_commits(repo_id)) == 1


def test_a_commit_is_made_and_its_answer_lost(proxy: FaultProxy, proxied: HfApi, repo_id: str) -> None:
    proxied.create_repo(repo_id)
    proxy.add("POST", "/commit/", LoseAnswer())
    operations = [CommitOperationAdd("notes.txt", b"hello")]
    with pytest.raises(Exception, match=r"reset|disconnected|closed|peer"):
        proxied.create_commit(repo_id, operations, commit_message="Add")
    assert [commit.title for commit in proxied.list_repo_commits(repo_id)] == ["Add", "initial commit"]


def test_a_hanging_request_ends_when_the_rules_are_cleared(proxy: FaultProxy) -> None:
    proxy.add("GET", "whoami", Hang())
    with pytest.raises(TimeoutError):
        ask(proxy, timeout=0.2)
    proxy.add("GET", "whoami", Hang())
    threading.Timer(0.2, proxy.clear).start()
    with pytest.raises(http.client.RemoteDisconnected):
        ask(proxy)
    assert ask(proxy)[0] == 200


def test_the_proxy_stops_while_a_request_hangs(hub: HubProcess) -> None:
    with FaultProxy(hub) as proxy:
        proxy.add("GET", "whoami", Hang())
        with pytest.raises(TimeoutError):
            ask(proxy, timeout=0.2)
    with pytest.raises(ConnectionRefusedError):
        ask(proxy)


def test_an_error_of_the_proxy_looks_like_one_of_the_hub(proxy: FaultProxy, proxied: HfApi, repo_id: str) -> None:
    proxy.add("POST", "/repos/create", Answer(403, {"X-Error-Message": "not you"}))
    with pytest.raises(HfHubHTTPError, match="not you"):
        proxied.create_repo(repo_id)


def test_a_held_request_is_passed_on_when_the_rules_are_cleared(
    proxy: FaultProxy, hub: HubProcess, api: HfApi, repo_id: str
) -> None:
    proxy.add("POST", "/repos/create", Hold())
    connection = http.client.HTTPConnection(urlsplit(proxy.endpoint).netloc, timeout=0.2)
    body = json.dumps({"name": repo_id.partition("/")[2], "organization": "tester"})
    connection.request("POST", "/api/repos/create", body, {"Authorization": f"Bearer {hub.token}"})
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()
    assert not api.repo_exists(repo_id)
    proxy.clear()
    deadline = time.monotonic() + 20
    while not api.repo_exists(repo_id):
        assert time.monotonic() < deadline
    assert proxy.requests[-1].with_token


def test_a_rule_can_match_the_body(proxy: FaultProxy, proxied: HfApi, repo_id: str) -> None:
    proxied.create_repo(repo_id)
    proxy.add("POST", "/commit/", Answer(400), times=float("inf"), body=b'"path": "bad.txt"')
    for name in ("good.txt", "bad.txt"):
        additions = [CommitOperationAdd(name, b"hello")]
        if name == "bad.txt":
            with pytest.raises(HfHubHTTPError):
                proxied.create_commit(repo_id, additions, commit_message="Add")
        else:
            proxied.create_commit(repo_id, additions, commit_message="Add")
