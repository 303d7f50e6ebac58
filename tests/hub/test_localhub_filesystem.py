"""`HfFileSystem` on a repo of the local Hub, as pandas, datasets and fsspec use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import HfFileSystem

from hub.content import LOG, noise, push

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from hub_process import HubProcess

pytestmark = pytest.mark.client


@pytest.fixture
def files(hub: HubProcess) -> Any:
    return HfFileSystem(endpoint=hub.endpoint, token=hub.token, skip_instance_cache=True)


def test_files_are_listed_found_and_read(api: HfApi, repo: str, files: Any) -> None:
    info = push(api, repo, {LOG: noise(1), "a/b.txt": b"hello", "a/c/d.txt": b"x"})
    assert sorted(files.ls(f"{repo}/a", detail=False)) == [f"{repo}/a/b.txt", f"{repo}/a/c"]
    assert sorted(files.glob(f"{repo}/**/*.txt")) == [f"{repo}/a/b.txt", f"{repo}/a/c/d.txt"]
    assert sorted(files.find(f"{repo}/a")) == [f"{repo}/a/b.txt", f"{repo}/a/c/d.txt"]
    assert (files.info(f"{repo}/{LOG}")["size"], files.isdir(f"{repo}/a"), files.exists(f"{repo}/z")) == (
        len(noise(1)),
        True,
        False,
    )
    with files.open(f"{repo}/{LOG}", "rb", block_size=10_000) as log:
        log.seek(100_000)
        assert log.read(5) == noise(1)[100_000:100_005]
    push(api, repo, {"a/b.txt": b"changed"})
    assert files.cat(f"{repo}@{info.oid}/a/b.txt") == b"hello"


def test_files_are_written_copied_and_removed(api: HfApi, repo: str, files: Any) -> None:
    with files.open(f"{repo}/new.txt", "wb") as file:
        file.write(b"written")
    files.put_file(__file__, f"{repo}/test.py")
    files.cp_file(f"{repo}/new.txt", f"{repo}/copy.txt")
    assert {"new.txt", "test.py", "copy.txt"} <= set(api.list_repo_files(repo))
    files.rm(f"{repo}/new.txt")
    assert "new.txt" not in api.list_repo_files(repo)
    with pytest.raises(FileNotFoundError):
        files.cat(f"{repo}/new.txt")
