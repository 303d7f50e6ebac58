"""The `hf` command works with the local Hub."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from huggingface_hub import HfApi

    from hub_process import HubProcess

    Hf = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.client, pytest.mark.transport]  # the command is a part of the client


@pytest.fixture
def hf(hub: HubProcess, tmp_path: Path) -> Hf:
    """Return a function that runs `hf` and by default checks its exit code."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(tmp_path / "hf-home"),
        "NO_COLOR": "1",
    }
    command = Path(sysconfig.get_path("scripts")) / "hf"

    def run(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [command, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def repos(hf: Hf) -> str:
    """Return the name of the command group for repos, which is `repo` in the first versions."""
    return "repos" if hf("repos", "--help", check=False).returncode == 0 else "repo"


def test_a_folder_is_uploaded_and_downloaded(hf: Hf, repos: str, repo_id: str, tmp_path: Path) -> None:
    logs = tmp_path / "logs" / "run"
    logs.mkdir(parents=True)
    contents = {"events.out.tfevents.1": os.urandom(200_000), "notes.txt": b"hello\n"}
    for name, content in contents.items():
        (logs / name).write_bytes(content)
    assert "local" in hf("auth", "whoami").stdout
    hf(repos, "create", repo_id, "--repo-type", "dataset", "--private")
    hf("upload", repo_id, tmp_path / "logs", "tensorboard", "--repo-type", "dataset")
    hf("download", repo_id, "--repo-type", "dataset", "--local-dir", tmp_path / "down")
    down = tmp_path / "down" / "tensorboard" / "run"
    assert {name: (down / name).read_bytes() for name in contents} == contents
    one = tmp_path / "one"
    hf("download", repo_id, "tensorboard/run/notes.txt", "--repo-type", "dataset", "--local-dir", one)
    assert [path.name for path in one.rglob("*.txt")] == ["notes.txt"]


def test_branches_and_tags_are_created_and_deleted(hf: Hf, repos: str, repo_id: str, api: HfApi) -> None:
    hf(repos, "create", repo_id)
    hf(repos, "branch", "create", repo_id, "runs/one")
    hf(repos, "branch", "create", repo_id, "runs/one", "--exist-ok")
    assert hf(repos, "branch", "create", repo_id, "runs/one", check=False).returncode != 0
    hf(repos, "tag", "create", repo_id, "v1")
    assert "v1" in hf(repos, "tag", "list", repo_id).stdout
    refs = api.list_repo_refs(repo_id)
    assert ([each.name for each in refs.branches], [each.name for each in refs.tags]) == (["main", "runs/one"], ["v1"])
    hf(repos, "branch", "delete", repo_id, "runs/one")
    hf(repos, "tag", "delete", repo_id, "v1", "--yes")
    refs = api.list_repo_refs(repo_id)
    assert ([each.name for each in refs.branches], refs.tags) == (["main"], [])


def test_a_repo_is_made_private_and_renamed(hf: Hf, repos: str, repo_id: str, api: HfApi) -> None:
    hf(repos, "create", repo_id)
    hf(repos, "settings", repo_id, "--private")
    assert api.repo_info(repo_id).private
    hf(repos, "move", repo_id, f"{repo_id}-moved")
    assert api.repo_info(repo_id).id == f"{repo_id}-moved"


def test_downloading_a_missing_repo_fails_with_not_found(hf: Hf, repo_id: str) -> None:
    done = hf("download", repo_id, check=False)
    assert done.returncode != 0
    assert "not found" in (done.stdout + done.stderr).lower()


def test_a_bucket_is_created_synced_listed_and_deleted(hf: Hf, repo_id: str, tmp_path: Path) -> None:
    if hf("buckets", "--help", check=False).returncode:
        pytest.skip("this client has no buckets")
    (tmp_path / "up").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "up" / name).write_text(name)
    hf("buckets", "create", repo_id)
    hf("sync", tmp_path / "up", f"hf://buckets/{repo_id}/logs")
    assert "a.txt" in hf("buckets", "list", f"{repo_id}/logs", "--recursive").stdout
    hf("sync", f"hf://buckets/{repo_id}/logs", tmp_path / "down")
    assert (tmp_path / "down" / "b.txt").read_text() == "b.txt"
    hf("buckets", "delete", repo_id, "--yes")
    assert hf("buckets", "info", repo_id, check=False).returncode != 0
