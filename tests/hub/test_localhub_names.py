"""Repo names: renamed repos, other spellings, all kinds of revisions, and responses to anonymous callers."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from hub.content import LOG, noise, push
from hub.wire import file_line, send, send_commit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub import HfApi

    from hub_process import HubProcess

pytestmark = pytest.mark.client


def test_a_renamed_repo_is_read_and_written_under_both_names(api: HfApi, repo: str, tmp_path: Path) -> None:
    push(api, repo, {LOG: noise(1)})
    api.move_repo(from_id=repo, to_id=f"{repo}-moved")
    info = push(api, repo, {LOG: noise(1) + noise(2)})
    assert api.repo_info(f"{repo}-moved").sha == api.repo_info(repo).sha == info.oid
    assert api.repo_info(repo).id == f"{repo}-moved"
    assert Path(api.hf_hub_download(repo, LOG, local_dir=tmp_path)).read_bytes() == noise(1) + noise(2)
    api.super_squash_history(repo)
    assert len(api.list_repo_commits(f"{repo}-moved")) == 1


def test_redirects_of_a_renamed_repo_are_307_with_a_path(hub: HubProcess, api: HfApi, repo: str) -> None:
    api.move_repo(from_id=repo, to_id=f"{repo}-moved")
    for path in ("/api/models/{}?blobs=true", "/{}/resolve/main/a.txt", "/api/models/{}/xet-write-token/main", "/{}"):
        reply = send(hub, "GET", path.format(repo))
        assert (reply.status, reply.headers["location"]) == (307, path.format(f"{repo}-moved"))


def test_a_redirect_survives_a_second_rename_and_a_restart(api: HfApi, repo: str, hub: HubProcess) -> None:
    api.move_repo(from_id=repo, to_id=f"{repo}-b")
    api.move_repo(from_id=f"{repo}-b", to_id=f"{repo}-c")
    assert api.repo_info(repo).id == api.repo_info(f"{repo}-b").id == f"{repo}-c"
    assert repo.split("/")[1] in (hub.root / "repos" / "former-names.json").read_text()


def test_a_new_repo_under_the_old_name_ends_the_redirect(api: HfApi, repo: str) -> None:
    api.move_repo(from_id=repo, to_id=f"{repo}-moved")
    api.create_repo(repo)
    assert api.repo_info(repo).id == repo
    api.delete_repo(repo)
    assert not api.repo_exists(repo)
    assert api.repo_exists(f"{repo}-moved")


def test_an_upload_continues_while_its_repo_is_renamed(hub: HubProcess, api: HfApi, repo: str) -> None:
    granted = send(hub, "GET", f"/api/models/{repo}/xet-write-token/main").json()["accessToken"]
    content = b"hello"
    api.move_repo(from_id=repo, to_id=f"{repo}-moved")
    assert send(hub, "GET", f"/v1/chunks/default/{'0' * 64}", token=granted).status == 404
    assert send_commit(hub, f"{repo}-moved", file_line("a.txt", content)).status == 200


@pytest.mark.parametrize(("is_renamed", "status"), [(True, 200), (False, 404)])
def test_a_large_file_is_uploaded_while_its_repo_is_renamed_but_not_while_it_is_deleted(
    hub: HubProcess, api: HfApi, repo: str, is_renamed: bool, status: int
) -> None:
    content = noise(5)
    objects = [{"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}]
    batch = f"/{repo}.git/info/lfs/objects/batch"
    actions = send(hub, "POST", batch, {"operation": "upload", "objects": objects}).json()["objects"][0]["actions"]

    def body() -> Iterator[bytes]:
        yield content[:100]
        if is_renamed:
            api.move_repo(from_id=repo, to_id=f"{repo}-moved")
        else:
            api.delete_repo(repo)
        yield content[100:]

    connection = http.client.HTTPConnection(urlsplit(hub.endpoint).netloc, timeout=60)
    with contextlib.closing(connection):
        url = actions["upload"]["href"].removeprefix(hub.endpoint)
        connection.request("PUT", url, body(), {"Content-Length": str(len(content))})
        assert connection.getresponse().status == status
    assert send(hub, "POST", f"/lfs-verify/models/{repo}-moved", objects[0]).status == status
    assert not (hub.root / "repos" / "models" / f"{repo}.git").exists()


def test_names_are_case_insensitive(api: HfApi, repo: str) -> None:
    shouted = repo.upper()
    assert api.repo_info(shouted).id == repo
    push(api, shouted, {"a.txt": b"x"})
    assert "a.txt" in api.list_repo_files(repo)
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_repo(shouted)
    assert caught.value.response.status_code == 409
    assert api.create_repo(shouted, exist_ok=True).repo_id == repo


def test_anonymous_callers_get_401_for_private_and_missing_repos(hub: HubProcess, api: HfApi, repo: str) -> None:
    api.update_repo_settings(repo, private=True)
    for name in (repo, f"{repo}-absent", "gpt2"):
        for path in (f"/api/models/{name}", f"/{name}/resolve/main/a.txt", f"/api/models/{name}/tree/main"):
            assert send(hub, "GET", path, token=None).status == 401, path
    for name in (f"{repo}-absent", "gpt2"):
        reply = send(hub, "GET", f"/api/models/{name}")
        assert (reply.status, reply.headers["x-error-code"]) == (404, "RepoNotFound")


def test_a_name_without_a_namespace_is_repo_not_found(api: HfApi) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info("gpt2")
    with pytest.raises(RepositoryNotFoundError):
        api.list_repo_files("gpt2")


def test_head_tags_and_short_ids_are_revisions_everywhere(hub: HubProcess, api: HfApi, repo: str) -> None:
    first = push(api, repo, {"a.txt": b"one"}).oid
    api.create_tag(repo, tag="v1")
    last = push(api, repo, {"a.txt": b"two"}).oid
    for revision, oid in (
        ("HEAD", last),
        (first[:7], first),
        ("v1", first),
        ("refs/tags/v1", first),
        (last[:39], last),
    ):
        assert api.repo_info(repo, revision=revision).sha == oid
        assert api.get_paths_info(repo, ["a.txt"], revision=revision)
        assert api.list_repo_commits(repo, revision=revision)[0].commit_id == oid
        expected = b"one" if oid == first else b"two"
        name = revision.replace("/", "%2F")
        assert send(hub, "GET", f"/{repo}/resolve/{name}/a.txt").body == expected
        assert send(hub, "GET", f"/{repo}/raw/{name}/a.txt").body == expected
    for revision in ("0" * 7, first[:6]):
        with pytest.raises(RevisionNotFoundError):
            api.repo_info(repo, revision=revision)


def test_a_parent_commit_can_be_abbreviated(api: HfApi, repo: str) -> None:
    first = push(api, repo, {"a.txt": b"one"}).oid
    last = push(api, repo, {"a.txt": b"two"}, parent_commit=first[:7]).oid
    proposal = push(api, repo, {"b.txt": b"x"}, parent_commit=first[:10], create_pr=True)
    commits = api.list_repo_commits(repo, revision=f"refs/pr/{proposal.pr_num}")
    assert [commit.commit_id for commit in commits][1] == first
    for parent in (first[:7], last[:6]):
        with pytest.raises(HfHubHTTPError, match="412"):
            push(api, repo, {"a.txt": b"three"}, parent_commit=parent)
    with pytest.raises(HfHubHTTPError, match="412"):
        push(api, repo, {"a.txt": b"three"}, parent_commit="0" * 7, create_pr=True)


def test_raw_shows_the_pointer_of_a_large_file(hub: HubProcess, api: HfApi, repo: str) -> None:
    push(api, repo, {LOG: noise(3)})
    assert send(hub, "GET", f"/{repo}/raw/main/{LOG}").body.startswith(b"version https://git-lfs.github.com/spec/v1\n")


def test_branches_can_be_empty_and_overwritten(hub: HubProcess, api: HfApi, repo: str) -> None:
    push(api, repo, {"a.txt": b"x"})
    branch = f"/api/models/{repo}/branch/runs%2Fnew"
    assert send(hub, "POST", branch, {"emptyBranch": True}).status == 201
    assert api.list_repo_files(repo, revision="runs/new") == []
    assert send(hub, "POST", branch, {}).status == 409
    assert send(hub, "POST", branch, {"overwrite": True}).status == 201
    assert "a.txt" in api.list_repo_files(repo, revision="runs/new")
    assert send(hub, "POST", branch, {"emptyBranch": True, "overwrite": True}).status == 201
    assert api.list_repo_files(repo, revision="runs/new") == []


def test_file_metadata_holds_size_and_hash(api: HfApi, repo: str) -> None:
    push(api, repo, {LOG: noise(4)})
    push(api, repo, {"a.txt": b"hello\n"})
    siblings = {each.rfilename: each for each in api.model_info(repo, files_metadata=True).siblings or []}
    small, large = siblings["a.txt"], siblings[LOG]
    assert (small.size, small.blob_id, small.lfs) == (6, "ce013625030ba8dba906f756967f9e9ca394464a", None)
    assert large.lfs is not None
    assert (large.size, large.lfs.size) == (200_000, 200_000)


def test_deleting_a_folder_as_a_file_works(api: HfApi, repo: str) -> None:
    push(api, repo, {"a/b/c.txt": b"x"})
    operations = [CommitOperationDelete("a", is_folder=False)]
    api.create_commit(repo, operations, commit_message="Delete")
    assert "a/b/c.txt" not in api.list_repo_files(repo)


def test_the_commit_list_names_the_total_count(hub: HubProcess, repo: str) -> None:
    for n in range(3):
        assert send_commit(hub, repo, file_line("a.txt", b"%d" % n)).status == 200
    reply = send(hub, "GET", f"/api/models/{repo}/commits/main?limit=2")
    assert (len(reply.json()), reply.headers["x-total-count"]) == (2, "4")


def test_a_token_for_a_pull_request_needs_no_revision(hub: HubProcess, repo: str) -> None:
    path = f"/api/models/{repo}/xet-write-token/no-such-branch"
    assert send(hub, "GET", path).status == 404
    assert send(hub, "GET", f"{path}?create_pr=1").status == 200


def test_a_large_file_is_copied_within_a_repo_and_between_repos(api: HfApi, repo: str, tmp_path: Path) -> None:
    push(api, repo, {LOG: noise(5)})
    operations = [CommitOperationCopy(LOG, "copy.tfevents.1"), CommitOperationCopy(".gitattributes", "small.txt")]
    api.create_commit(repo, operations, commit_message="Copy")
    got = Path(api.hf_hub_download(repo, "copy.tfevents.1", local_dir=tmp_path))
    assert got.read_bytes() == noise(5)
    (entry,) = api.get_paths_info(repo, "copy.tfevents.1")
    assert getattr(entry, "size", None) == 200_000


def test_an_lfs_batch_for_xet_names_the_endpoint_and_token(hub: HubProcess, repo: str) -> None:
    asked = {"operation": "upload", "transfers": ["basic", "xet"], "objects": [{"oid": "a" * 64, "size": 5}]}
    answer = send(hub, "POST", f"/{repo}.git/info/lfs/objects/batch", asked).json()
    (item,) = answer["objects"]
    upload = item["actions"]["upload"]
    assert answer["transfer"] == "xet"
    assert upload["href"] == f"{hub.endpoint}/api/models/{repo}/xet-write-token/main"
    assert upload["header"]["X-Xet-Cas-Url"] == hub.endpoint
    assert int(upload["header"]["X-Xet-Token-Expiration"]) > 0
    reply = send(hub, "GET", f"/v1/chunks/default/{'0' * 64}", token=upload["header"]["X-Xet-Access-Token"])
    assert reply.status == 404, "the storage accepts the token"
