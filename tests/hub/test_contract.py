"""The contract of a Hub, through the real client only, so that the tests can run against any Hub.

`HF_SUMMARY_WRITER_TEST_ENDPOINT` and `HF_SUMMARY_WRITER_TEST_TOKEN` name the Hub (the token needs write access); the
default is the local Hub. The tests create private repos, except to test visibility, and delete them at the end.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from conftest import CONTRACT_VARIABLES
from hub.content import noise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hub_process import HasEndpoint

pytestmark = [pytest.mark.client, pytest.mark.transport]  # the client makes every request

KINDS = ["model", "dataset", "space"]
LOG = "tensorboard/run/events.out.tfevents.1700000000.host.1.0"


@dataclass(frozen=True, slots=True)
class _Named:
    endpoint: str
    token: str


@pytest.fixture(scope="session")
def hub_under_test(request: pytest.FixtureRequest) -> HasEndpoint:
    """Return the Hub that the environment names, by default the local Hub."""
    endpoint, token = (os.environ.get(name) for name in CONTRACT_VARIABLES)
    if not endpoint and not token:
        local: HasEndpoint = request.getfixturevalue("shared_hub")
        return local
    if not endpoint or not token:
        raise ValueError(f"Set both {' and '.join(CONTRACT_VARIABLES)}, or neither.")
    named = _Named(endpoint.rstrip("/"), token)
    HfApi(endpoint=named.endpoint, token=token).whoami()
    return named


@pytest.fixture
def api(hub_under_test: HasEndpoint, client: Callable[..., HfApi]) -> HfApi:
    """Return a client of the Hub under test."""
    return client(hub_under_test)


@pytest.fixture
def repo_id(api: HfApi) -> Iterator[str]:
    """Return the id of a new repo, which is deleted after the test."""
    name = f"{api.whoami()['name']}/contract-{uuid.uuid4().hex[:12]}"
    yield name
    for kind in KINDS:
        delete_if_there(api, name, kind)


def delete_if_there(api: HfApi, repo_id: str, kind: str) -> None:
    try:
        api.delete_repo(repo_id, repo_type=kind)
    except HfHubHTTPError as error:
        # The error's class depends on a header of the Hub, so the status is checked.
        if error.response.status_code != 404:
            raise


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def repo(api: HfApi, repo_id: str) -> str:
    api.create_repo(repo_id, private=True)
    return repo_id


def create(api: HfApi, repo_id: str, kind: str, **more: Any) -> None:
    sdk = "static" if kind == "space" else None
    api.create_repo(repo_id, repo_type=kind, private=True, space_sdk=sdk, **more)


def commit(api: HfApi, repo_id: str, files: dict[str, bytes], **more: Any) -> CommitInfo:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    info: CommitInfo = api.create_commit(repo_id, operations, commit_message="Add logs", **more)
    return info


def read(api: HfApi, repo_id: str, path: str, folder: Path, **more: Any) -> bytes:
    got: str = api.hf_hub_download(repo_id, path, local_dir=folder, force_download=True, **more)
    return Path(got).read_bytes()


def status_of(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_files_in_every_type_of_repo_are_downloaded_byte_for_byte(
    api: HfApi, repo_id: str, kind: str, tmp_path: Path
) -> None:
    create(api, repo_id, kind)
    files = {LOG: noise(1, 200_000), "tensorboard/run/notes.txt": "día 1\n".encode(), "odd name #1 %.txt": b"x"}
    info = commit(api, repo_id, files, repo_type=kind)
    assert api.repo_info(repo_id, repo_type=kind).sha == info.oid
    got = {path: read(api, repo_id, path, tmp_path, repo_type=kind) for path in files}
    assert got == files
    folder = Path(api.snapshot_download(repo_id, repo_type=kind, local_dir=tmp_path / "all"))
    assert {path: (folder / path).read_bytes() for path in files} == files


def test_a_repo_is_created_once(api: HfApi, repo_id: str, kind: str) -> None:
    create(api, repo_id, kind)
    create(api, repo_id, kind, exist_ok=True)
    with pytest.raises(HfHubHTTPError) as caught:
        create(api, repo_id, kind)
    assert status_of(caught) == 409


def test_a_private_repo_is_hidden_until_its_settings_change(
    api: HfApi, repo: str, client: Callable[..., HfApi]
) -> None:
    stranger = client(_Named(api.endpoint, ""), token=False)
    # An anonymous caller gets 401 for existing and for missing repos.
    for name in (repo, f"{repo}-absent"):
        with pytest.raises(HfHubHTTPError) as caught:
            stranger.repo_info(name)
        assert status_of(caught) == 401
    api.update_repo_settings(repo, private=False)
    assert not stranger.repo_info(repo).private
    api.update_repo_settings(repo, private=True)
    with pytest.raises(HfHubHTTPError) as caught:
        stranger.list_repo_files(repo)
    assert status_of(caught) == 401


def test_a_deleted_repo_is_not_found(api: HfApi, repo: str) -> None:
    api.delete_repo(repo)
    assert not api.repo_exists(repo)
    with pytest.raises(RepositoryNotFoundError):
        commit(api, repo, {"a.txt": b"x"})


def test_a_file_grows_from_commit_to_commit(api: HfApi, repo: str, tmp_path: Path) -> None:
    content = b""
    for push in range(3):
        content += noise(push, 120_000)
        info = commit(api, repo, {LOG: content})
        assert read(api, repo, LOG, tmp_path, revision=info.oid) == content
    (entry,) = api.get_paths_info(repo, LOG)
    assert isinstance(entry, RepoFile)
    assert entry.size == len(content)
    assert entry.lfs is not None
    assert entry.lfs.size == len(content)


def test_an_unchanged_file_makes_no_commit(api: HfApi, repo: str) -> None:
    files = {LOG: noise(1, 1000), "notes.txt": b"hello"}
    first = commit(api, repo, files)
    assert commit(api, repo, files).oid == first.oid
    assert commit(api, repo, {**files, "notes.txt": b"changed"}).oid != first.oid


def test_a_stale_parent_commit_is_412_and_the_current_one_is_accepted(api: HfApi, repo: str) -> None:
    old = commit(api, repo, {LOG: b"one"}).oid
    new = commit(api, repo, {LOG: b"two"}, parent_commit=old).oid
    with pytest.raises(HfHubHTTPError) as caught:
        commit(api, repo, {LOG: b"three"}, parent_commit=old)
    assert status_of(caught) == 412
    assert api.repo_info(repo).sha == new


def test_branches_with_slashes_are_separate_from_main(api: HfApi, repo: str) -> None:
    main = api.repo_info(repo).sha
    api.create_branch(repo, branch="runs/one")
    api.create_branch(repo, branch="runs/one", exist_ok=True)
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_branch(repo, branch="runs/one")
    assert status_of(caught) == 409
    info = commit(api, repo, {LOG: b"x"}, revision="runs/one")
    refs = {branch.name: branch.target_commit for branch in api.list_repo_refs(repo).branches}
    assert refs == {"main": main, "runs/one": info.oid}
    assert LOG in api.list_repo_files(repo, revision="runs/one")
    assert LOG not in api.list_repo_files(repo)
    api.delete_branch(repo, branch="runs/one")
    with pytest.raises(RevisionNotFoundError):
        api.list_repo_files(repo, revision="runs/one")


def test_a_branch_can_start_at_a_commit(api: HfApi, repo: str) -> None:
    first = commit(api, repo, {"a.txt": b"1"}).oid
    commit(api, repo, {"b.txt": b"2"})
    api.create_branch(repo, branch="early", revision=first)
    assert "b.txt" not in api.list_repo_files(repo, revision="early")


def test_tags_stay_at_their_commit(api: HfApi, repo: str) -> None:
    first = commit(api, repo, {"a.txt": b"1"}).oid
    api.create_tag(repo, tag="v1")
    commit(api, repo, {"a.txt": b"2"})
    assert [(tag.name, tag.target_commit) for tag in api.list_repo_refs(repo).tags] == [("v1", first)]
    assert api.repo_info(repo, revision="v1").sha == first
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_tag(repo, tag="v1")
    assert status_of(caught) == 409
    api.delete_tag(repo, tag="v1")
    assert api.list_repo_refs(repo).tags == []


def test_commits_are_listed_newest_first_with_title_and_message(api: HfApi, repo: str) -> None:
    first = commit(api, repo, {LOG: b"1"}, commit_description="the first\nof two").oid
    second = commit(api, repo, {LOG: b"2"}).oid
    newest, older, *_ = api.list_repo_commits(repo)
    assert (newest.commit_id, older.commit_id) == (second, first)
    assert (older.title, older.message.strip()) == ("Add logs", "the first\nof two")
    assert newest.created_at >= older.created_at
    assert newest.authors == [api.whoami()["name"]]


def test_a_squash_leaves_one_commit_and_the_same_tree(api: HfApi, repo: str, tmp_path: Path) -> None:
    for n in range(3):
        commit(api, repo, {LOG: noise(n, 50_000), f"{n}.txt": b"x"})
    before = list(api.list_repo_tree(repo, recursive=True))
    api.super_squash_history(repo, branch="main", commit_message="One commit")
    assert [each.title for each in api.list_repo_commits(repo)] == ["One commit"]
    assert list(api.list_repo_tree(repo, recursive=True)) == before
    assert read(api, repo, LOG, tmp_path) == noise(2, 50_000)
    assert commit(api, repo, {"after.txt": b"y"}).oid == api.repo_info(repo).sha


def test_trees_list_folders_files_and_their_last_commit(api: HfApi, repo: str) -> None:
    first = commit(api, repo, {"a/b/c.txt": b"1", "a/d.txt": b"22"}).oid
    second = commit(api, repo, {"a/d.txt": b"333"}).oid
    top = {entry.path: entry for entry in api.list_repo_tree(repo, path_in_repo="a", expand=True)}
    folder, file = top["a/b"], top["a/d.txt"]
    assert isinstance(folder, RepoFolder)
    assert isinstance(file, RepoFile)
    assert file.size == 3
    assert folder.last_commit is not None
    assert file.last_commit is not None
    assert (folder.last_commit.oid, file.last_commit.oid) == (first, second)
    everything = [entry.path for entry in api.list_repo_tree(repo, path_in_repo="a", recursive=True)]
    assert sorted(everything) == ["a/b", "a/b/c.txt", "a/d.txt"]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, path_in_repo="absent"))


def test_paths_info_leaves_out_missing_paths(api: HfApi, repo: str) -> None:
    commit(api, repo, {"a/b.txt": b"1"})
    info = api.get_paths_info(repo, ["a", "a/b.txt", "absent.txt"])
    assert sorted(entry.path for entry in info) == ["a", "a/b.txt"]


def test_files_and_folders_are_deleted_and_replaced_in_order(api: HfApi, repo: str, tmp_path: Path) -> None:
    commit(api, repo, {"a/b.txt": b"1", "a/c.txt": b"2", "d.txt": b"3"})
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationDelete("a/", is_folder=True),
        CommitOperationAdd("a/b.txt", b"new"),
        CommitOperationDelete("d.txt"),
    ]
    api.create_commit(repo, operations, commit_message="Replace")
    files = set(api.list_repo_files(repo))
    assert "a/b.txt" in files
    assert not files & {"a/c.txt", "d.txt"}
    assert read(api, repo, "a/b.txt", tmp_path) == b"new"


def test_missing_repos_revisions_and_files_raise_different_errors(api: HfApi, repo: str) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info(f"{repo}-absent")
    with pytest.raises(RevisionNotFoundError):
        commit(api, repo, {"a.txt": b"x"}, revision="absent")
    with pytest.raises(RevisionNotFoundError):
        api.repo_info(repo, revision="absent")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(repo, "absent.txt")
    assert not api.file_exists(repo, "absent.txt")
    assert not api.revision_exists(repo, "absent")


def test_files_ignored_by_the_repos_gitignore_are_left_out(api: HfApi, repo: str) -> None:
    commit(api, repo, {".gitignore": b"*.tmp\nskipped/\n!kept.tmp\n"})
    commit(api, repo, {"a.txt": b"1", "b.tmp": b"2", "skipped/c.txt": b"3", "kept.tmp": b"4"})
    files = set(api.list_repo_files(repo))
    assert {"a.txt", "kept.tmp"} < files
    assert not files & {"b.tmp", "skipped/c.txt"}


def test_empty_files_are_stored(api: HfApi, repo: str, tmp_path: Path) -> None:
    commit(api, repo, {"empty.txt": b"", LOG: b""})
    assert read(api, repo, "empty.txt", tmp_path) == b""
    assert read(api, repo, LOG, tmp_path) == b""


def test_a_hundred_files_fit_into_one_commit(api: HfApi, repo: str) -> None:
    files = {f"run/{n}/events.tfevents.{n}": b"%d" % n for n in range(100)}
    commit(api, repo, files)
    assert set(files) < set(api.list_repo_files(repo))


def test_uploading_a_folder_honours_the_patterns(api: HfApi, repo: str, tmp_path: Path) -> None:
    for path in ("run/events.tfevents.1", "run/notes.txt", "run/sub/events.tfevents.2"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
    api.upload_folder(repo_id=repo, folder_path=tmp_path, path_in_repo="tensorboard", allow_patterns="*.tfevents.*")
    files = {path for path in api.list_repo_files(repo) if path.startswith("tensorboard")}
    assert files == {"tensorboard/run/events.tfevents.1", "tensorboard/run/sub/events.tfevents.2"}
