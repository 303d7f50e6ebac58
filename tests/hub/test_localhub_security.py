"""Hostile requests to the local Hub block no one, reveal nothing private, and get a client error."""

from __future__ import annotations

import json
import random
import re
import socket
import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import CommitOperationAdd, constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_summary_writer.localhub import LocalHub, User
from hf_summary_writer.localhub.cards import check_card
from hf_summary_writer.localhub.connections import connection_limit
from hf_summary_writer.localhub.globs import Glob
from hf_summary_writer.localhub.xet import hashing
from hub.wire import file_line, send, send_commit
from hub_process import HubProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from huggingface_hub import HfApi

LOG = "events.tfevents.1"
needs_xet = pytest.mark.skipif(constants.HF_HUB_DISABLE_XET, reason="Xet is switched off")


HOSTILE_JSON = [b"[" * 2_000_000, b'{"a":' + b"9" * 3_000_000 + b"}", b'{"content":"\\ud800"}']


@pytest.mark.parametrize("body", HOSTILE_JSON, ids=["nested", "digits", "surrogate"])
@pytest.mark.parametrize(
    ("path", "without_token"),
    [("/api/validate-yaml", 400), ("/api/repos/create", 401), ("/api/models/{}/preupload/main", 401)],
)
def test_hostile_json_is_refused_with_and_without_a_token(
    hub: HubProcess, repo: str, path: str, without_token: int, body: bytes
) -> None:
    assert send(hub, "POST", path.format(repo), body, token=None).status == without_token
    assert send(hub, "POST", path.format(repo), body).status == 400


YAML = {
    "aliases": "a: &a [x,x,x,x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n or ''},*a{n or ''}]\n" for n in range(60)),
    "nesting": "[" * 60_000 + "\n",
    "length": "a: [1,2,3]\n" * 90_000,
}


@pytest.mark.parametrize("case", YAML)
def test_hostile_metadata_is_checked_in_bounded_time_and_memory(case: str) -> None:
    warnings, errors = check_card(f"---\n{YAML[case]}---\n")
    assert not warnings
    assert all(len(each) < 1000 for each in errors)


def test_lfs_objects_with_too_many_parts_are_refused(hub: HubProcess, repo: str) -> None:
    for size in (10**14, 10**18, 10**400, True, -1):
        asked = {"operation": "upload", "objects": [{"oid": "a" * 64, "size": size}]}
        assert send(hub, "POST", f"/{repo}.git/info/lfs/objects/batch", asked).status == 422
    many = [{"oid": "a" * 64, "size": 4 * 10**11}] * 1000
    reply = send(
        hub,
        "POST",
        f"/{repo}.git/info/lfs/objects/batch",
        {"operation": "upload", "transfers": ["multipart"], "objects": many},
    )
    assert reply.status == 422


def test_numbers_with_thousands_of_digits_do_not_crash_the_hub(hub: HubProcess, repo: str) -> None:
    big = "9" * 5000
    assert send(hub, "GET", f"/api/models/{repo}/commits/main?limit={big}").status == 400
    assert send(hub, "GET", f"/api/models/{repo}/commits/main?limit=%D9%A3").status == 400
    assert send(hub, "GET", f"/xorbs/{'a' * 64}?part=0-1&grant={big}-x").status == 403
    assert send(hub, "GET", f"/lfs-objects/models/{repo}/{'a' * 64}/{big}?grant=1-x").status == 400
    reply = send(hub, "GET", f"/{repo}/resolve/main/.gitattributes", headers={"Range": f"bytes={big}-"})
    assert reply.status == 200


WORDS = [
    *(
        "api",
        "models",
        "datasets",
        "buckets",
        "local",
        "a",
        "tree",
        "main",
        "resolve",
        "commit",
        "v1",
        "shards",
        "xorbs",
    ),
    *("refs", "discussions", "1", "9" * 40, "events", "batch", "info", "x.git", "..", "%2f", "%00", "%ff", "", "é"),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_route_crashes_on_random_requests(hub: HubProcess, data: st.DataObject) -> None:
    words = st.sampled_from(WORDS)
    path = "/" + "/".join(data.draw(st.lists(words, max_size=8)))
    query = data.draw(st.sampled_from(["", "?limit=x", "?cursor=-1", "?p=1e9", "?since=x", "?service=git-upload-pack"]))
    method = data.draw(st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE"]))
    json_values: Any = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda each: st.lists(each, max_size=3)
    )
    names = st.sampled_from(["name", "type", "files", "paths", "objects", "operation", "tag", "target", "message"])
    body = data.draw(st.binary(max_size=40) | st.dictionaries(names, json_values, max_size=4))
    reply = send(hub, method, path.encode("ascii", "ignore").decode() + query, body or b"")
    assert reply.status < 500, (method, path, body)


def test_a_refusal_is_received_although_the_body_was_not_read(hub: HubProcess, repo: str) -> None:
    lines = [file_line("a.txt", b"x" * 4_000_000)]
    body = b'{"key":"header","value":{"summary":"s"}}\n' + lines[0]
    assert send(hub, "POST", f"/api/models/{repo}/commit/main", body, token="hf_wrong").status == 401
    assert send_commit(hub, f"{repo}-absent", *lines).status == 404


def test_a_path_is_at_most_200_folders_deep_and_can_be_listed(hub: HubProcess, repo: str) -> None:
    for depth, status in ((200, 200), (201, 400), (2000, 400)):
        assert send_commit(hub, repo, file_line("/".join("a" * depth))).status == status
    for view in ("", "/tree/main?recursive=1", "/tree/main?recursive=1&expand=1"):
        assert send(hub, "GET", f"/api/models/{repo}{view}").status == 200


def test_hostile_patterns_are_matched_in_bounded_time() -> None:
    assert not Glob("*a" * 30 + "b").matches(["x" * 10, "a" * 250])
    assert not Glob("**/" * 20 + "b").matches(["a"] * 200)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*.log", ["a.log", "x/y/a.log"], ["a.log2", "log"]),
        ("/a.log", ["a.log"], ["x/a.log"]),
        ("a/*.log", ["a/b.log"], ["a/b/c.log", "x/a/b.log"]),
        ("a/**/b", ["a/b", "a/x/y/b"], ["a/bb", "x/a/b"]),
        ("**/b", ["b", "x/y/b"], ["bb"]),
        ("a/**", ["a/x", "a/x/y"], ["a", "b/a"]),
        ("saved_model/**/*", ["saved_model/a", "saved_model/a/b"], ["x/saved_model/a"]),
        ("[!a]?.txt", ["bc.txt"], ["ac.txt", "b.txt"]),
        (r"\#a", ["#a"], ["a"]),
    ],
)  # fmt: skip
def test_patterns_match_as_in_git(pattern: str, matching: list[str], other: list[str]) -> None:
    assert [path for path in matching if not Glob(pattern).matches(path.split("/"))] == []
    assert [path for path in other if Glob(pattern).matches(path.split("/"))] == []


def test_a_request_with_a_foreign_host_name_is_refused(hub: HubProcess, repo: str) -> None:
    path = f"/{repo}/resolve/main/.gitattributes"
    for host, status in {
        "attacker.example:80": 421,
        "[": 421,
        "localhost:1": 200,
        "[::1]:1": 200,
        "10.0.0.1": 200,
    }.items():
        assert send(hub, "GET", path, headers={"Host": host}).status == status, host


def test_a_request_with_two_lengths_ends_its_connection(hub: HubProcess) -> None:
    rest = "a\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    hidden = "GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with half_a_request(hub) as connection:
        connection.sendall(f"{rest}{hidden}".encode())
        answers = b"".join(iter(lambda: connection.recv(65536), b""))
    assert re.findall(rb"HTTP/1.1 \d+", answers) == [b"HTTP/1.1 400"]


def test_dns_is_queried_only_for_a_foreign_host_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def full_name() -> str:
        asked.append(threading.current_thread().name)
        return "Node17.cluster.example"

    monkeypatch.setattr(socket, "getfqdn", full_name)
    with LocalHub(tmp_path) as hub:
        assert [send(hub, "GET", "/", headers={"Host": host}).status for host in ("localhost", "[::1]")] == [200, 200]
        assert not asked
        for host, status in {"node17.cluster.example:80": 200, "node17.evil.example": 421}.items():
            assert send(hub, "GET", "/", headers={"Host": host}).status == status
        assert len(asked) == 1
        assert "localhub" not in asked[0], "not in the server's thread"


def test_the_files_of_the_hub_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    with HubProcess(tmp_path / "made" / "hub") as hub:
        send(hub, "POST", "/api/repos/create", {"name": "a", "private": True})
        assert send_commit(hub, "local/a", file_line("a.txt")).status == 200
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [hub.root, *hub.root.rglob("*")]}
    assert {path for path, mode in modes.items() if mode & 0o077 and path.name != "hub.lock"} == set()


def half_a_request(hub: HubProcess) -> socket.socket:
    host, _, port = hub.endpoint.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(b"GET / HTTP/1.1\r\nX: ")
    return connection


def test_unfinished_requests_are_closed_to_serve_others(tmp_path: Path) -> None:
    command = ["sh", "-c", 'ulimit -n 128; exec "$@"', "sh"]
    with HubProcess(tmp_path, launcher=command) as hub:
        connections = [half_a_request(hub) for _ in range(200)]
        try:
            assert send(hub, "GET", "/api/whoami-v2").status == 200
            # The first connections are closed to make room, the last one when the time for its headers is over.
            assert connections[0].recv(1) == b""
            assert connections[-1].recv(1) == b""
        except ConnectionResetError:
            pass
        finally:
            for connection in connections:
                connection.close()
    assert connection_limit() > 0


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub(tmp_path / "hub", users=[User("ann", "hf_ann"), User("ben", "hf_ben")]) as hub:
        yield hub


def cas(hub: LocalHub, user: str | None, repo: str, path: str, kind: str = "read") -> int:
    granted = send(hub, "GET", f"/api/models/{repo}/xet-{kind}-token/main", token=user).json()["accessToken"]
    return send(hub, "GET", path, token=granted).status


@needs_xet
def test_chunks_of_a_private_repo_are_served_to_its_readers_only(
    shared: LocalHub, client: Callable[..., HfApi], tmp_path: Path
) -> None:
    ann, ben = client(shared, "hf_ann"), client(shared, "hf_ben")
    ann.create_repo("ann/private", private=True)
    ann.create_repo("ann/public")
    ben.create_repo("ben/own")
    content = random.Random(1).randbytes(400_000)
    ann.create_commit("ann/private", [CommitOperationAdd(LOG, content)], commit_message="Add")
    (chunk,) = [path.name for path in (tmp_path / "hub/xet/chunks").rglob("*") if path.is_file()][:1]
    (file,) = [path.name for path in (tmp_path / "hub/xet/files").rglob("*") if path.is_file() and not path.suffix]
    for path in (f"/v1/chunks/default/{chunk}", f"/v1/reconstructions/{file}"):
        assert cas(shared, "hf_ann", "ann/private", path) == 200
        assert cas(shared, "hf_ben", "ben/own", path) == 404
        assert cas(shared, "hf_ben", "ann/public", path) == 404
        assert cas(shared, None, "ann/public", path) == 404
    ann.update_repo_settings("ann/private", private=False)
    for path in (f"/v1/chunks/default/{chunk}", f"/v1/reconstructions/{file}"):
        assert cas(shared, None, "ann/public", path) == 200


@needs_xet
def test_a_file_that_shares_chunks_with_a_private_one_does_not_reveal_the_rest(
    shared: LocalHub, client: Callable[..., HfApi], tmp_path: Path
) -> None:
    ann = client(shared, "hf_ann")
    ann.create_repo("ann/private", private=True)
    ann.create_repo("ann/public")
    known, secret = random.Random(2).randbytes(600_000), random.Random(3).randbytes(600_000)
    ann.create_commit("ann/private", [CommitOperationAdd(LOG, known + secret)], commit_message="Add")
    # The client deduplicates against its earlier upload.
    ann.create_commit("ann/public", [CommitOperationAdd(LOG, known)], commit_message="Add")
    assert send(shared, "GET", f"/ann/public/resolve/main/{LOG}", token=None).body == known
    xet_hash = send(shared, "HEAD", f"/ann/public/resolve/main/{LOG}", token=None).headers["x-xet-hash"]
    token = send(shared, "GET", "/api/models/ann/public/xet-read-token/main", token=None).json()["accessToken"]
    recipe = send(shared, "GET", f"/v1/reconstructions/{xet_hash}", token=token).json()
    refused = 0
    for xorb, parts in recipe["fetch_info"].items():
        size = (tmp_path / "hub/xet/xorbs" / xorb[:2] / xorb[2:4] / xorb).stat().st_size
        for part in parts:
            first, last = part["url_range"]["start"], part["url_range"]["end"]
            for end in (last, last + 1):
                got = send(shared, "GET", part["url"], token=None, headers={"Range": f"bytes={first}-{end}"})
                refused += got.status == 403
                assert got.status == (206 if end in (last, size) else 403)
    assert refused, "the public file shares a xorb with the private one"
    hidden = hashing.to_hex(hashing.chunk_hash(secret[-1000:]))
    assert send(shared, "GET", f"/v1/chunks/default/{hidden}", token=token).status == 404


def test_stats_and_requests_are_shown_to_the_owner_only(shared: LocalHub) -> None:
    for path in ("/localhub/stats", "/localhub/requests"):
        assert send(shared, "GET", path, token="hf_ann").status == 403
        assert send(shared, "GET", path).status == 200


def test_stats_and_requests_need_a_token(hub: HubProcess) -> None:
    for path in ("/localhub/stats", "/localhub/requests", "/api/settings/repositories"):
        assert send(hub, "GET", path, token=None).status == 401
    assert json.loads(send(hub, "GET", "/localhub/stats").body)
