"""The local Hub refuses the same requests as the real Hub, with a 4xx and without writing anything."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from hub.gitcheck import assert_sound, git
from hub.wire import file_line, line, send, send_commit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub import HfApi

    from hub_process import HubProcess

ABSENT = "0" * 64


@pytest.fixture
def repo(hub: HubProcess, api: HfApi, repo_id: str) -> Iterator[str]:
    """Create a repo, and check its integrity after the test."""
    api.create_repo(repo_id)
    yield repo_id
    assert_sound(hub.root / "repos" / "models" / f"{repo_id}.git")


def state(hub: HubProcess, repo_id: str) -> str:
    repository = hub.root / "repos" / "models" / f"{repo_id}.git"
    return git(repository, "for-each-ref") + git(repository, "count-objects", "-v")


def lfs_line(path: str = "a.bin", oid: str = ABSENT, size: int = 5) -> bytes:
    return line("lfsFile", path=path, algo="sha256", oid=oid, size=size)


BROKEN_COMMITS = {
    "a line that is no JSON": [b"{\n"],
    "a line that is no object": [b"[1]\n"],
    "a file that is cut short": [file_line("a.txt")[:-20]],
    "a file without content": [line("file", path="a.txt", encoding="base64")],
    "content that is no base64": [line("file", path="a.txt", content="%%%", encoding="base64")],
    "a second header": [line("header", summary="again")],
    "an unknown operation": [line("rename", path="a.txt")],
    "a large file that never arrived": [lfs_line()],
    "a large file without a size": [line("lfsFile", path="a.bin", algo="sha256", oid=ABSENT)],
    "a large file with another hash": [line("lfsFile", path="a.bin", algo="md5", oid="0" * 32, size=1)],
    "a pointer to a large file that never arrived": [
        file_line("a.bin", f"version https://git-lfs.github.com/spec/v1\noid sha256:{ABSENT}\nsize 5\n".encode())
    ],
    "a good file before a bad one": [file_line("good.txt"), file_line("../bad.txt")],
    "metadata that is no YAML": [file_line("README.md", b"---\nlicense: [\n---\n")],
    "metadata of the wrong kind": [file_line("README.md", b"---\ntags: one\n---\n")],
    "a file under a file": [file_line(".gitattributes/a.txt")],
    "a file in place of a folder": [file_line("a/b.txt"), file_line("a")],
}


@pytest.mark.parametrize("case", BROKEN_COMMITS)
def test_a_broken_commit_is_refused_and_nothing_is_committed(hub: HubProcess, repo: str, case: str) -> None:
    before = git(hub.root / "repos" / "models" / f"{repo}.git", "for-each-ref")
    assert send_commit(hub, repo, *BROKEN_COMMITS[case]).status == 400
    assert git(hub.root / "repos" / "models" / f"{repo}.git", "for-each-ref") == before


@pytest.mark.parametrize(
    "path",
    ["../a", "a/../b", "/a", "a//b", "a/", "", ".", "a/./b", ".git/config", "a/.GIT/b", "nul\0", "\ud800", "x" * 256],
)
def test_an_invalid_path_is_refused_and_nothing_is_written(hub: HubProcess, repo: str, path: str) -> None:
    before = state(hub, repo)
    assert send_commit(hub, repo, file_line(path)).status == 400
    asked = {"files": [{"path": path, "size": 1, "sample": ""}]}
    assert send(hub, "POST", f"/api/models/{repo}/preupload/main", asked).status == 400
    assert state(hub, repo) == before


def test_a_commit_without_a_header_or_a_title_is_refused(hub: HubProcess, repo: str) -> None:
    path = f"/api/models/{repo}/commit/main"
    assert send(hub, "POST", path, file_line("a.txt")).status == 400
    assert send(hub, "POST", path, b"").status == 400
    assert send_commit(hub, repo, file_line("a.txt"), summary=" ").status == 400


def test_a_small_file_over_ten_megabytes_is_refused(hub: HubProcess, repo: str) -> None:
    before = state(hub, repo)
    assert send_commit(hub, repo, file_line("a.txt", b"x" * 10_000_001)).status == 413
    assert send_commit(hub, repo, file_line("a.txt", b"x" * 12_000_000)).status == 413
    assert state(hub, repo) == before


def test_deleting_a_missing_file_is_entry_not_found(hub: HubProcess, repo: str) -> None:
    for key, path in [("deletedFile", "a.txt"), ("deletedFolder", "a/"), ("deletedFolder", ".gitattributes")]:
        reply = send_commit(hub, repo, line(key, path=path))
        assert (reply.status, reply.headers["x-error-code"]) == (404, "EntryNotFound")


def upload(hub: HubProcess, repo: str, content: bytes, *, oid: str | None = None, size: int | None = None) -> int:
    oid = oid or hashlib.sha256(content).hexdigest()
    asked = {"operation": "upload", "objects": [{"oid": oid, "size": len(content) if size is None else size}]}
    reply = send(hub, "POST", f"/{repo}.git/info/lfs/objects/batch", asked)
    action = reply.json()["objects"][0]["actions"]["upload"]
    return send(hub, "PUT", action["href"], content, token=None).status


def test_an_lfs_upload_must_have_the_announced_hash_and_size(hub: HubProcess, repo: str) -> None:
    content = b"some content"
    assert upload(hub, repo, content, oid=ABSENT) == 400
    assert upload(hub, repo, content, size=len(content) + 1) == 400
    assert upload(hub, repo, content, size=len(content) - 1) == 413
    oid = hashlib.sha256(content).hexdigest()
    assert send_commit(hub, repo, lfs_line(oid=oid, size=len(content))).status == 400
    assert upload(hub, repo, content) == 200
    assert send_commit(hub, repo, lfs_line(oid=oid, size=len(content) + 1)).status == 400
    assert send_commit(hub, repo, lfs_line(oid=oid, size=len(content))).status == 200


def test_a_large_file_of_one_repo_cannot_be_committed_to_another(hub: HubProcess, api: HfApi, repo: str) -> None:
    content = f"of {repo}".encode()
    assert upload(hub, repo, content) == 200
    other = api.create_repo(f"{repo}-other").repo_id
    oid = hashlib.sha256(content).hexdigest()
    assert send_commit(hub, other, lfs_line(oid=oid, size=len(content))).status == 400


def test_an_upload_url_is_valid_for_one_object_and_cannot_be_forged(hub: HubProcess, repo: str) -> None:
    content, other = b"content", b"another"
    asked = {"operation": "upload", "objects": [{"oid": hashlib.sha256(content).hexdigest(), "size": 7}]}
    reply = send(hub, "POST", f"/{repo}.git/info/lfs/objects/batch", asked)
    href = reply.json()["objects"][0]["actions"]["upload"]["href"]
    forged = href.replace(hashlib.sha256(content).hexdigest(), hashlib.sha256(other).hexdigest())
    assert send(hub, "PUT", forged, other, token=None).status == 403
    assert send(hub, "PUT", href.split("?")[0], content, token=None).status == 403


def test_a_preupload_request_names_at_most_1000_files(hub: HubProcess, repo: str) -> None:
    def ask(number: int) -> int:
        files = [{"path": f"{n}.txt", "size": 1, "sample": ""} for n in range(number)]
        return send(hub, "POST", f"/api/models/{repo}/preupload/main", {"files": files}).status

    assert (ask(1000), ask(1001)) == (200, 400)


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"\xff", b'{"files": 1}', b'{"files": [1]}', b'{"files": [{"path": 1}]}']
)
def test_an_invalid_body_is_400(hub: HubProcess, repo: str, body: bytes) -> None:
    assert send(hub, "POST", f"/api/models/{repo}/preupload/main", body).status == 400


def test_a_body_over_the_limit_is_413(hub: HubProcess, repo: str) -> None:
    body = json.dumps({"files": [], "padding": "x" * 5_000_000}).encode()
    assert send(hub, "POST", f"/api/models/{repo}/preupload/main", body).status == 413


@pytest.mark.parametrize("name", ["a--b", "a..b", "-a", "a.", ".a", "a.git", "a b", "ü", "x" * 97, ""])
def test_invalid_repo_names_are_refused(hub: HubProcess, name: str) -> None:
    reply = send(hub, "POST", "/api/repos/create", {"name": name, "organization": "tester"})
    assert reply.status == 400
    assert "error" in reply.json()


def test_a_space_needs_an_sdk(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    namespace, name = repo_id.split("/")
    asked = {"name": name, "organization": namespace, "type": "space"}
    assert send(hub, "POST", "/api/repos/create", asked).status == 400
    api.create_repo(repo_id, repo_type="space", space_sdk="static")
    assert api.space_info(repo_id).sdk == "static"


def test_errors_have_their_code_and_message_in_headers(hub: HubProcess, repo: str) -> None:
    for path, code in [
        ("/api/models/tester/absent", "RepoNotFound"),
        (f"/api/models/{repo}/revision/absent", "RevisionNotFound"),
        (f"/api/models/{repo}/tree/main/absent", "EntryNotFound"),
        (f"/{repo}/resolve/main/absent.txt", "EntryNotFound"),
    ]:
        reply = send(hub, "GET", path)
        assert (reply.status, reply.headers["x-error-code"]) == (404, code)
        assert reply.headers["x-error-message"] == reply.json()["error"]
        assert reply.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/repos/create"),
        ("DELETE", "/api/repos/delete"),
        ("POST", "/api/models/{}/preupload/main"),
        ("POST", "/api/models/{}/commit/main"),
        ("POST", "/api/models/{}/branch/b"),
        ("POST", "/api/models/{}/super-squash/main"),
        ("PUT", "/api/models/{}/settings"),
        ("GET", "/api/models/{}/xet-write-token/main"),
        ("GET", "/api/whoami-v2"),
    ],
)
def test_write_requests_without_a_token_or_with_a_wrong_one_are_401(
    hub: HubProcess, repo: str, method: str, path: str
) -> None:
    body: object = None if method == "GET" else {}
    assert send(hub, method, path.format(repo), body, token=None).status == 401
    reply = send(hub, method, path.format(repo), body, token="hf_wrong")
    assert (reply.status, reply.json()["error"]) == (401, "Invalid credentials in Authorization header")


def test_a_public_repo_is_read_without_a_token_but_not_with_a_wrong_one(hub: HubProcess, repo: str) -> None:
    assert send(hub, "GET", f"/api/models/{repo}", token=None).status == 200
    assert send(hub, "GET", f"/api/models/{repo}", token="hf_wrong").status == 401


def test_malformed_urls_get_a_client_error(hub: HubProcess, repo: str) -> None:
    for path in [
        f"/api/models/{repo}/revision/%ff",
        f"/api/models/{repo}/revision/..%2f..%2fx",
        f"/api/models/{repo}/tree/main/%00",
        f"/{repo}/resolve/main/..%2f..%2fsecret",
        f"/{repo}/resolve/main/%2e%2e/%2e%2e/secret",
        "/api/models/..%2f..%2f/x",
        "/api/models/%2e%2e/x",
        "/v1/xorbs/default/zz",
        "/xorbs/zz",
        f"/api/models/{repo}/commits/main?p=x",
        "/%",
    ]:
        assert 400 <= send(hub, "GET", path).status < 500, path
