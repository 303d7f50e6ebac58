"""The calls of a training run through the real client, over Xet or plain LFS depending on the environment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import HfHubHTTPError

from hub.content import noise
from hub.gitcheck import assert_sound, git

if TYPE_CHECKING:
    from collections.abc import Callable

    from hub_process import HubProcess

pytestmark = [pytest.mark.client, pytest.mark.transport]  # the client makes every request, over either transport

KINDS = ["model", "dataset"]
LOG = "tensorboard/run/events.out.tfevents.1"


def _commit(api: HfApi, repo_id: str, files: dict[str, bytes], **more: Any) -> CommitInfo:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    info: CommitInfo = api.create_commit(repo_id, operations, commit_message="Add logs", **more)
    return info


def _download(api: HfApi, repo_id: str, path: str, folder: Path, **more: Any) -> bytes:
    got = hf_hub_download(repo_id, path, endpoint=api.endpoint, token=api.token, local_dir=folder, **more)
    return Path(got).read_bytes()


def _repository(hub: HubProcess, repo_id: str, kind: str = "model") -> Path:
    return hub.root / "repos" / f"{kind}s" / f"{repo_id}.git"


@pytest.mark.parametrize("kind", KINDS)
def test_committed_files_are_downloaded_byte_for_byte(
    hub: HubProcess, api: HfApi, repo_id: str, kind: str, tmp_path: Path
) -> None:
    api.create_repo(repo_id, repo_type=kind)
    files = {LOG: noise(1, 300_000), "tensorboard/run/events.out.tfevents.2": b"small", "notes.txt": "día\n".encode()}
    info = _commit(api, repo_id, files, repo_type=kind)
    assert info.commit_url.startswith(hub.endpoint)
    assert api.repo_info(repo_id, repo_type=kind).sha == info.oid
    folder = snapshot_download(
        repo_id, repo_type=kind, endpoint=api.endpoint, token=api.token, local_dir=tmp_path / "snapshot"
    )
    assert {path: (Path(folder) / path).read_bytes() for path in files} == files
    assert_sound(_repository(hub, repo_id, kind))


def test_git_stores_a_pointer_for_a_large_file_and_small_files_directly(
    hub: HubProcess, api: HfApi, repo_id: str
) -> None:
    api.create_repo(repo_id)
    _commit(api, repo_id, {LOG: noise(2, 100_000), "notes.txt": b"hello\n"})
    repository = _repository(hub, repo_id)
    assert git(repository, "show", "main:notes.txt") == "hello\n"
    pointer = git(repository, "show", f"main:{LOG}").splitlines()
    assert pointer[0] == "version https://git-lfs.github.com/spec/v1"
    assert pointer[2] == "size 100000"


def test_each_commit_of_a_growing_file_can_be_downloaded(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    api.create_repo(repo_id)
    content = b""
    for push in range(4):
        content += noise(push, 150_000)
        info = _commit(api, repo_id, {LOG: content})
        assert _download(api, repo_id, LOG, tmp_path / str(push), revision=info.oid) == content
    files = api.list_repo_tree(repo_id, recursive=True, path_in_repo="tensorboard")
    assert [(file.path, file.size) for file in files if hasattr(file, "size")] == [(LOG, 600_000)]
    assert_sound(_repository(hub, repo_id))


def test_over_xet_an_appended_file_sends_little_more_than_its_new_data(
    hub: HubProcess, api: HfApi, repo_id: str
) -> None:
    if constants.HF_HUB_DISABLE_XET:
        pytest.skip("plain LFS sends whole files")
    api.create_repo(repo_id)
    content = noise(3, 2_000_000)
    _commit(api, repo_id, {LOG: content})
    before = hub.stats.xorb.received
    _commit(api, repo_id, {LOG: content + noise(4, 50_000)})
    assert 0 < hub.stats.xorb.received - before < 300_000


def test_a_squash_leaves_one_commit_with_the_same_files(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    api.create_repo(repo_id)
    for n in range(3):
        _commit(api, repo_id, {LOG: noise(n, 5000)})
    tree = git(_repository(hub, repo_id), "rev-parse", "main^{tree}")
    api.super_squash_history(repo_id, branch="main", commit_message="One")
    assert [commit.title for commit in api.list_repo_commits(repo_id)] == ["One"]
    assert git(_repository(hub, repo_id), "rev-parse", "main^{tree}") == tree
    assert _download(api, repo_id, LOG, tmp_path) == noise(2, 5000)


def test_a_wrong_token_is_401(hub: HubProcess, client: Callable[..., HfApi], repo_id: str) -> None:
    stranger = client(hub, token="hf_wrong")
    with pytest.raises(HfHubHTTPError) as caught:
        stranger.create_repo(repo_id)
    assert caught.value.response.status_code == 401


def test_a_name_without_a_namespace_belongs_to_the_user(api: HfApi, repo_id: str) -> None:
    name = repo_id.partition("/")[2]
    assert api.create_repo(name).repo_id == f"local/{name}"


def test_files_and_folders_can_be_deleted(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    api.create_repo(repo_id)
    _commit(api, repo_id, {"a/b/c.txt": b"1", "a/b/d.txt": b"2", "a/e.txt": b"3", "f.txt": b"4"})
    operations = [CommitOperationDelete("a/b/", is_folder=True), CommitOperationDelete("f.txt")]
    api.create_commit(repo_id, operations, commit_message="Remove")
    assert api.list_repo_files(repo_id) == [".gitattributes", "a/e.txt"]
    assert_sound(_repository(hub, repo_id))


def test_concurrent_commits_are_all_in_the_history(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    api.create_repo(repo_id)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: _commit(api, repo_id, {f"run-{n}/log.txt": b"%d" % n}), range(24)))
    assert {f"run-{n}/log.txt" for n in range(24)} < set(api.list_repo_files(repo_id))
    assert len(api.list_repo_commits(repo_id)) == 25
    assert_sound(_repository(hub, repo_id))
