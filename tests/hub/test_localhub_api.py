"""Details of the local Hub's API: pagination, upload modes, rate limits, large uploads, downloads."""

from __future__ import annotations

import base64
import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError

from hf_summary_writer.localhub import LocalHub
from hf_summary_writer.localhub.errors import RepoNotFoundError
from hf_summary_writer.localhub.gitrepo import GitRepo
from hf_summary_writer.localhub.names import RepoId
from hf_summary_writer.localhub.routes import buckets as bucket_routes
from hf_summary_writer.localhub.routes import repos as repo_routes
from hf_summary_writer.localhub.routes import settings as settings_routes
from hub.gitcheck import git
from hub.wire import file_line, line, send, send_commit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

pytestmark = pytest.mark.client  # requests and parsing of responses depend on the client


def plan(hub: HubProcess, repo_id: str, path: str, size: int = 10, sample: bytes = b"", **more: Any) -> dict[str, Any]:
    """Request the upload mode of one file."""
    file = {"path": path, "size": size, "sample": base64.b64encode(sample).decode()}
    reply = send(hub, "POST", f"/api/models/{repo_id}/preupload/main", {"files": [file], **more})
    answer: dict[str, Any] = reply.json()["files"][0]
    return answer


@pytest.mark.parametrize(
    ("path", "size", "sample", "mode"),
    [
        ("a/events.out.tfevents.1.host", 10, b"text", "lfs"),
        ("model.safetensors", 10, b"text", "lfs"),
        ("saved_model/x/y.txt", 10, b"text", "lfs"),
        ("weights.tar.gz", 10, b"text", "lfs"),
        ("notes.txt", 10, "día".encode(), "regular"),
        ("notes.txt", 10_000_000, b"text", "regular"),
        ("notes.txt", 10_000_001, b"text", "lfs"),
        ("unknown", 10, b"\0\1\2", "lfs"),
        ("unknown", 10, b"\xff\xfe\xfd", "lfs"),
        ("cut-in-a-character.txt", 513, ("x" * 511 + "é").encode()[:512], "regular"),
        ("config.json", 10, b"{}", "regular"),
    ],
)
def test_name_size_and_content_decide_the_upload_mode(
    hub: HubProcess, repo: str, path: str, size: int, sample: bytes, mode: str
) -> None:
    assert plan(hub, repo, path, size, sample)["uploadMode"] == mode


def test_gitattributes_of_the_repo_decide_the_upload_mode(hub: HubProcess, repo: str) -> None:
    rules = b"*.csv filter=lfs diff=lfs merge=lfs -text\n*.bin -filter\n"
    assert send_commit(hub, repo, file_line(".gitattributes", rules)).status == 200
    assert plan(hub, repo, "a/b.csv", sample=b"text")["uploadMode"] == "lfs"
    assert plan(hub, repo, "a.bin", sample=b"text")["uploadMode"] == "regular"


def test_ignore_rules_in_a_request_replace_those_of_the_repo(hub: HubProcess, repo: str) -> None:
    assert send_commit(hub, repo, file_line(".gitignore", b"# comment\n*.tmp\n")).status == 200
    assert plan(hub, repo, "a.tmp")["shouldIgnore"]
    assert not plan(hub, repo, "a.log")["shouldIgnore"]
    assert not plan(hub, repo, "a.tmp", gitIgnore="*.log")["shouldIgnore"]
    assert plan(hub, repo, "x/a.log", gitIgnore="/x/\n")["shouldIgnore"]


def test_the_preupload_response_holds_the_ids_of_existing_files(hub: HubProcess, api: HfApi, repo: str) -> None:
    operations = [CommitOperationAdd("a.txt", b"hello\n"), CommitOperationAdd("b.bin", b"\0\1")]
    api.create_commit(repo, operations, commit_message="Add")
    assert plan(hub, repo, "a.txt")["oid"] == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert plan(hub, repo, "b.bin")["oid"] == hashlib.sha256(b"\0\1").hexdigest()
    assert "oid" not in plan(hub, repo, "c.txt")


def test_commits_are_paginated(hub: HubProcess, api: HfApi, repo: str) -> None:
    for n in range(60):
        assert send_commit(hub, repo, file_line("a.txt", b"%d" % n), summary=f"Commit {n}").status == 200
    assert [commit.title for commit in api.list_repo_commits(repo)] == [
        *(f"Commit {n}" for n in reversed(range(60))),
        "initial commit",
    ]
    first = send(hub, "GET", f"/api/models/{repo}/commits/main")
    assert len(first.json()) == 50
    assert first.headers["link"] == f'<{hub.endpoint}/api/models/{repo}/commits/main?p=1>; rel="next"'
    assert len(send(hub, "GET", f"/api/models/{repo}/commits/main?p=1").json()) == 11
    assert send(hub, "GET", f"/api/models/{repo}/commits/main?p=2").json() == []


def test_each_entry_has_the_last_commit_that_changed_it(hub: HubProcess, api: HfApi, repo: str) -> None:
    again = file_line("a/b/again.txt", b"same")
    for number, lines in enumerate(
        (
            [file_line("kept.txt"), again, file_line("a/kept.txt"), file_line("name")],
            [line("deletedFile", path="a/b/again.txt"), file_line("a/b/other.txt")],
            [again],
            [line("deletedFile", path="name"), file_line("name/below.txt")],
            [file_line("a/b/other.txt", b"changed")],
            [file_line("last.txt")],
        )
    ):
        assert send_commit(hub, repo, *lines, summary=f"Commit {number}").status == 200
    repository = hub.root / "repos" / "models" / f"{repo}.git"
    entries = list(api.list_repo_tree(repo, recursive=True, expand=True))
    assert len(entries) == 10
    for entry in entries:
        assert entry.last_commit is not None
        assert entry.last_commit["oid"] == git(repository, "log", "-1", "--format=%H", "main", "--", entry.path).strip()


def test_large_trees_are_paginated(hub: HubProcess, api: HfApi, repo: str) -> None:
    lines = [file_line(f"many/{n:04}.txt", b"%d" % n) for n in range(1100)]
    assert send_commit(hub, repo, *lines).status == 200
    first = send(hub, "GET", f"/api/models/{repo}/tree/main/many")
    assert (len(first.json()), 'rel="next"' in first.headers["link"]) == (1000, True)
    assert [entry.path for entry in api.list_repo_tree(repo, path_in_repo="many")] == [
        f"many/{n:04}.txt" for n in range(1100)
    ]
    expanded = list(api.list_repo_tree(repo, path_in_repo="many", expand=True))
    assert len(expanded) == 1100


def test_all_pages_of_a_tree_show_the_same_commit(hub: HubProcess, repo: str) -> None:
    assert send_commit(hub, repo, *(file_line(f"many/{n}.txt") for n in range(4))).status == 200
    first = send(hub, "GET", f"/api/models/{repo}/tree/main/many?limit=2")
    assert send_commit(hub, repo, line("deletedFile", path="many/0.txt")).status == 200
    second = send(hub, "GET", first.headers["link"].partition(">")[0].removeprefix("<"))
    assert [entry["path"] for entry in first.json() + second.json()] == [f"many/{n}.txt" for n in range(4)]
    assert send(hub, "GET", f"/api/models/{repo}/tree/main?cursor=2").status == 400


@pytest.mark.parametrize("recursive", [True, False])
def test_pages_of_a_tree_of_any_size_show_each_entry_once(hub: HubProcess, repo: str, recursive: bool) -> None:
    paths = ["a", "a.b/c", "a.b/d/e", "a.b/d/f", "a.b/g", "b c/+&=%/\n", "z"]
    assert send_commit(hub, repo, *(file_line(path) for path in paths)).status == 200
    tree = f"/api/models/{repo}/tree/main?recursive={recursive}"
    whole = send(hub, "GET", tree).json()
    for limit in (1, 2, 3):
        seen, url = [], f"{tree}&limit={limit}"
        while url:
            reply = send(hub, "GET", url)
            seen += reply.json()
            url = reply.headers.get("link", "").partition(">")[0].removeprefix("<")
        assert seen == whole


def test_urls_in_responses_have_the_host_of_the_request(tmp_path: Path) -> None:
    elsewhere = {"Host": "hub.example:8080"}
    asked = {"name": "a"}
    with LocalHub(tmp_path, allowed_hosts=["hub.example"]) as hub:
        for status in (200, 409):
            reply = send(hub, "POST", "/api/repos/create", asked, headers=elsewhere)
            assert (reply.status, reply.json()["url"]) == (status, "http://hub.example:8080/local/a")
        reply = send(hub, "GET", "/api/models/local/a/xet-write-token/main", headers=elsewhere)
        assert reply.json()["casUrl"] == "http://hub.example:8080"


def test_visible_repos_are_listed_by_type_and_author(
    api: HfApi, client: Callable[..., HfApi], hub: HubProcess, repo_id: str
) -> None:
    api.create_repo(repo_id, private=True, repo_type="dataset")
    assert repo_id in [each.id for each in api.list_datasets(author="tester")]
    assert repo_id not in [each.id for each in api.list_datasets(author="someone")]
    assert repo_id not in [each.id for each in api.list_models()]
    assert repo_id not in [each.id for each in client(hub, token=False).list_datasets()]


def test_repos_are_listed_in_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: Callable[..., HfApi]
) -> None:
    monkeypatch.setattr(repo_routes, "_MOST_LISTED", 2)
    with LocalHub(tmp_path) as hub:
        names = [client(hub).create_repo(f"repo-{n}").repo_id for n in range(5)]
        assert [each.id for each in client(hub).list_models()] == names


def test_a_repo_or_bucket_that_is_deleted_during_a_listing_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deleted_first(describe: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def delete_and_describe(hub: Any, repo: RepoId, *more: Any) -> Any:
            if repo.name == "first":
                hub.store(RepoId(kind, "", "")).delete(repo)
            return describe(hub, repo, *more)

        return delete_and_describe

    monkeypatch.setattr(settings_routes, "describe", deleted_first(repo_routes.describe, "models"))
    monkeypatch.setattr(bucket_routes, "_describe", deleted_first(bucket_routes._describe, "buckets"))
    with LocalHub(tmp_path) as hub:
        for name in ("first", "second"):
            assert send(hub, "POST", "/api/repos/create", {"name": name}).status == 200
            assert send(hub, "POST", f"/api/buckets/local/{name}", {}).status == 200
        for path in ("/api/models", "/api/buckets/local"):
            assert [each["id"] for each in send(hub, "GET", path).json()] == ["local/second"]


def test_a_repo_that_is_deleted_while_it_is_read_is_not_found(tmp_path: Path) -> None:
    path = tmp_path / "repo.git"
    path.mkdir()
    GitRepo.create(path, "local")

    def resolve_after_deletion() -> str:
        with GitRepo.open(path) as git:
            path.rename(tmp_path / "trash")
            return git.resolve("main")

    with pytest.raises(RepoNotFoundError):
        resolve_after_deletion()


def test_the_client_validates_a_readme_before_committing_it(api: HfApi, repo: str) -> None:
    good = CommitOperationAdd("README.md", b"---\nlicense: mit\ntags: [a]\n---\n# Title\n")
    api.create_commit(repo, [good], commit_message="Add")
    bad = CommitOperationAdd("README.md", b"---\nlicense: mit\ntags: a\n---\n# Title\n")
    with pytest.raises(ValueError, match='"tags" must be an array'):
        api.create_commit(repo, [bad], commit_message="Add")
    bare = CommitOperationAdd("README.md", b"# Title\n")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.create_commit(repo, [bare], commit_message="Add")


@pytest.mark.parametrize(("metadata", "status"), [("license: mit", 200), ("tags: a", 400)])
def test_a_readme_is_validated_without_a_token(hub: HubProcess, metadata: str, status: int) -> None:
    # Newer clients validate their card this way; older ones always ask huggingface.co.
    body = {"repoType": "model", "content": f"---\n{metadata}\n---\n"}
    assert send(hub, "POST", "/api/validate-yaml", body, token=None).status == status


def test_a_file_is_served_with_etag_commit_and_ranges(hub: HubProcess, api: HfApi, repo: str) -> None:
    info = api.create_commit(repo, [CommitOperationAdd("a.txt", b"0123456789")], commit_message="Add")
    path = f"/{repo}/resolve/main/a.txt"
    head, whole = send(hub, "HEAD", path), send(hub, "GET", path)
    assert (head.status, head.body, whole.body) == (200, b"", b"0123456789")
    assert head.headers["x-repo-commit"] == info.oid
    assert head.headers["content-length"] == "10"
    assert head.headers["etag"] == whole.headers["etag"] == f'"{plan(hub, repo, "a.txt")["oid"]}"'
    assert send(hub, "GET", path, headers={"Range": "bytes=2-4"}).body == b"234"
    assert send(hub, "GET", path, headers={"If-None-Match": head.headers["etag"]}).status == 304
    absent = send(hub, "HEAD", f"/{repo}/resolve/main/b.txt")
    assert (absent.status, absent.headers["x-repo-commit"]) == (404, info.oid)


@pytest.fixture
def small_parts(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub(tmp_path, multipart_bytes=100_000, any_namespace=True) as hub:
        yield hub


def test_large_lfs_files_are_uploaded_in_parts(
    small_parts: LocalHub, client: Callable[..., HfApi], tmp_path: Path
) -> None:
    api, content = client(small_parts), random.Random(1).randbytes(250_001)
    source = tmp_path / "source"
    source.write_bytes(content)
    repo_id = api.create_repo("tester/parts").repo_id
    with source.open("rb") as file:
        # The client uploads a file object over plain LFS, even with Xet enabled.
        operations = [CommitOperationAdd("a.tfevents.1", file)]
        api.create_commit(repo_id, operations, commit_message="Add")
    assert [each.status for each in small_parts.requests if "/lfs-objects/" in each.path] == [200] * 4
    assert send(small_parts, "GET", f"/{repo_id}/resolve/main/a.tfevents.1").body == content
    assert not list((tmp_path / "unfinished").iterdir())


def lfs_action(hub: LocalHub, repo_id: str, content: bytes, *transfers: str) -> dict[str, Any]:
    """Request the upload of a large file with these transfers, and return the response's action."""
    objects = [{"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}]
    asked = {"operation": "upload", "objects": objects, "transfers": list(transfers)}
    answer = send(hub, "POST", f"/{repo_id}.git/info/lfs/objects/batch", asked).json()
    action: dict[str, Any] = answer["objects"][0]["actions"]["upload"]
    return action


def put_lfs(hub: LocalHub, url: str, body: bytes) -> tuple[int, str]:
    reply = send(hub, "PUT", url, body, token=None)
    return reply.status, reply.headers.get("etag", "")


def complete_lfs(hub: LocalHub, action: dict[str, Any], *etags: str) -> int:
    parts = [{"partNumber": number, "etag": etag} for number, etag in enumerate(etags, 1)]
    return send(hub, "POST", action["href"], {"oid": "", "parts": parts}, token=None).status


def test_invalid_parts_of_a_multipart_upload_are_refused(small_parts: LocalHub, client: Callable[..., HfApi]) -> None:
    repo_id = client(small_parts).create_repo("tester/parts").repo_id
    content = random.Random(2).randbytes(150_000)
    action = lfs_action(small_parts, repo_id, content, "basic", "multipart")
    assert action["header"]["chunk_size"] == "100000"
    first, second = action["header"]["1"], action["header"]["2"]
    put, complete = partial(put_lfs, small_parts), partial(complete_lfs, small_parts, action)
    assert put(first, content[:99_999])[0] == 400
    assert put(second, content[:100_000])[0] == 400
    assert complete("x", "y") == 400
    one, two = put(first, content[:100_000])[1], put(second, bytes(50_000))[1]
    assert complete(one) == 400
    assert complete(one, two) == 400, "the parts do not make the object"
    two = put(second, content[100_000:])[1]
    assert complete(one, "wrong") == 400
    assert complete(one, two) == 200
    assert complete(one, two) == 200, "a repeated request is accepted"


def test_a_client_without_multipart_uploads_a_large_file_in_one_request(
    small_parts: LocalHub, client: Callable[..., HfApi]
) -> None:
    repo_id = client(small_parts).create_repo("tester/whole").repo_id
    content = random.Random(3).randbytes(150_000)
    for transfers in ((), ("basic",)):
        action = lfs_action(small_parts, repo_id, content, *transfers)
        assert "header" not in action
    assert put_lfs(small_parts, action["href"], content)[0] == 200


def test_two_repos_receive_the_same_large_file_in_parts_at_the_same_time(
    small_parts: LocalHub, client: Callable[..., HfApi]
) -> None:
    content = random.Random(4).randbytes(150_000)
    uploads = []
    for name in ("one", "two"):
        repo_id = client(small_parts).create_repo(f"tester/{name}").repo_id
        action = lfs_action(small_parts, repo_id, content, "multipart")
        parts = ((action["header"]["1"], content[:100_000]), (action["header"]["2"], content[100_000:]))
        uploads.append((action, [put_lfs(small_parts, url, part)[1] for url, part in parts]))
    assert [complete_lfs(small_parts, action, *etags) for action, etags in uploads] == [200, 200]


def test_a_commit_over_the_limit_is_429_with_the_wait_in_the_message_only(tmp_path: Path) -> None:
    with LocalHub(tmp_path, commits_per_hour=2, any_namespace=True) as hub:
        send(hub, "POST", "/api/repos/create", {"name": "a", "organization": "tester"})
        send(hub, "POST", "/api/repos/create", {"name": "b", "organization": "tester"})
        assert send_commit(hub, "tester/a", file_line("../x")).status == 400, "a refused commit does not count"
        assert [send_commit(hub, f"tester/{name}", file_line("x")).status for name in "aba"] == [200, 200, 429]
        reply = send_commit(hub, "tester/b", file_line("x"))
        assert reply.json()["error"].startswith(
            "You have exceeded the rate limit for repository commits (2 per hour). "
            "You can retry this action in about 1 hour. "
        )
        assert "retry-after" not in reply.headers
        assert int(reply.headers["ratelimit"].split(";")[1].removeprefix("r=")) > 0


def test_concurrent_commits_stay_within_the_limit(tmp_path: Path) -> None:
    names = [f"repo-{n}" for n in range(8)]
    with LocalHub(tmp_path, commits_per_hour=3) as hub, ThreadPoolExecutor(len(names)) as threads:
        for name in names:
            assert send(hub, "POST", "/api/repos/create", {"name": name}).status == 200
        absent = [line("deletedFile", path="absent")]
        assert send_commit(hub, "local/repo-0", *absent).status == 404, "a failed commit does not count"
        replies = threads.map(lambda name: send_commit(hub, f"local/{name}", file_line("x")), names)
        assert sorted(reply.status for reply in replies) == [200] * 3 + [429] * 5


def test_a_request_over_the_limit_is_429_until_the_window_ends(tmp_path: Path) -> None:
    with LocalHub(tmp_path, requests_per_5min=3) as hub:
        replies = [send(hub, "GET", "/api/whoami-v2") for _ in range(4)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429]
        told = [reply.headers["ratelimit"].removeprefix('"api";r=').split(";t=") for reply in replies]
        assert [int(remaining) for remaining, _ in told] == [2, 1, 0, 0]
        assert all(0 < int(left) <= 300 for _, left in told)
        assert replies[-1].headers["ratelimit-policy"] == '"fixed window";"api";q=3;w=300'
        assert send(hub, "GET", "/localhub/stats").status == 200, "requests for statistics are not limited"


def test_a_request_over_the_limit_raises_in_the_client(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    with LocalHub(tmp_path, requests_per_5min=1) as hub:
        api = client(hub)
        api.whoami()
        with pytest.raises(HfHubHTTPError) as caught:
            api.whoami()
        assert caught.value.response.status_code == 429


def test_a_folder_disappears_with_its_last_file(api: HfApi, repo: str) -> None:
    api.upload_file(path_or_fileobj=b"1", path_in_repo="a/b/c.txt", repo_id=repo)
    api.delete_file("a/b/c.txt", repo)
    assert [each.path for each in api.list_repo_tree(repo, recursive=True)] == [".gitattributes"]


def test_a_range_of_the_last_zero_bytes_is_416(hub: HubProcess, repo: str) -> None:
    reply = send(hub, "GET", f"/{repo}/resolve/main/.gitattributes", headers={"Range": "bytes=-0"})
    assert reply.status == 416
