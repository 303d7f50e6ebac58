"""Git clones and fetches from the local Hub, and downloads large files over LFS."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import CommitOperationAdd

from hub.wire import send

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import CommitInfo, HfApi

    from hub_process import HubProcess

GIT = shutil.which("git")
pytestmark = pytest.mark.skipif(GIT is None, reason="git is not installed")
LOG = "events.tfevents.1"


def git(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    command = [GIT or "git", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=check)


def with_password(password: str) -> tuple[str, str]:
    """Return the Git options of a credential helper that returns the password."""
    return "-c", f"credential.helper=!f() {{ echo username=anyone; echo password={password}; }}; f"


def push(api: HfApi, repo_id: str, path: str, content: bytes, **more: Any) -> str:
    operations = [CommitOperationAdd(path, content)]
    info: CommitInfo = api.create_commit(repo_id, operations, commit_message="Add", **more)
    return info.oid


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
@pytest.mark.parametrize("end", ["", ".git"])
def test_a_repo_is_cloned_and_pulled(
    hub: HubProcess, api: HfApi, repo_id: str, kind: str, end: str, tmp_path: Path
) -> None:
    api.create_repo(repo_id, repo_type=kind, space_sdk="static" if kind == "space" else None)
    push(api, repo_id, "a.txt", b"one\n", repo_type=kind)
    prefix = "" if kind == "model" else f"/{kind}s"
    git("clone", f"{hub.endpoint}{prefix}/{repo_id}{end}", tmp_path / "clone")
    assert (tmp_path / "clone/a.txt").read_bytes() == b"one\n"
    oid = push(api, repo_id, "b/c.txt", b"two\n", repo_type=kind)
    git("-C", tmp_path / "clone", "pull", "--quiet")
    assert (tmp_path / "clone/b/c.txt").read_bytes() == b"two\n"
    assert git("-C", tmp_path / "clone", "rev-parse", "HEAD").stdout.strip() == oid
    git("-C", tmp_path / "clone", "fsck", "--strict")


def test_a_long_history_is_cloned_in_full_and_shallow(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    api.create_repo(repo_id)
    for n in range(30):
        push(api, repo_id, "a.txt", b"%d\n" % n)
    api.create_branch(repo_id, branch="runs/one")
    git("clone", "--depth", "1", f"{hub.endpoint}/{repo_id}", tmp_path / "shallow")
    assert git("-C", tmp_path / "shallow", "rev-list", "--count", "HEAD").stdout.strip() == "1"
    git("clone", f"{hub.endpoint}/{repo_id}", tmp_path / "whole")
    assert git("-C", tmp_path / "whole", "rev-list", "--count", "HEAD").stdout.strip() == "31"
    assert "origin/runs/one" in git("-C", tmp_path / "whole", "branch", "-r").stdout


def test_a_private_repo_needs_the_token_as_password(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    api.create_repo(repo_id, private=True)
    assert git("clone", f"{hub.endpoint}/{repo_id}", tmp_path / "no", check=False).returncode != 0
    url = f"{hub.endpoint}/{repo_id}"
    assert git(*with_password("hf_wrong"), "clone", url, tmp_path / "no", check=False).returncode != 0
    git(*with_password(hub.token), "clone", url, tmp_path / "yes")


def test_a_git_push_is_refused_with_403(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    api.create_repo(repo_id)
    git("clone", f"{hub.endpoint}/{repo_id}", tmp_path / "clone")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    git("-C", tmp_path / "clone", *identity, "commit", "--allow-empty", "-m", "Mine")
    done = git(*with_password(hub.token), "-C", tmp_path / "clone", "push", check=False)
    assert (done.returncode != 0, "403" in done.stderr) == (True, True)


def test_large_files_are_downloaded_by_lfs(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    api.create_repo(repo_id)
    content = random.Random(1).randbytes(150_000)
    push(api, repo_id, LOG, content)
    git("clone", f"{hub.endpoint}/{repo_id}", tmp_path / "clone")
    pointer = (tmp_path / "clone" / LOG).read_text()
    oid, size = pointer.split()[3].removeprefix("sha256:"), int(pointer.split()[-1])
    asked = {"operation": "download", "transfers": ["basic"], "objects": [{"oid": oid, "size": size}]}
    (item,) = send(hub, "POST", f"/{repo_id}.git/info/lfs/objects/batch", asked, token=None).json()["objects"]
    assert send(hub, "GET", item["actions"]["download"]["href"], token=None).body == content


def test_invalid_git_requests_are_refused(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    api.create_repo(repo_id)
    for body in (b"", b"zzzz", b"0032want " + b"0" * 40 + b"\n0000", b"0005", b"0" * 100, b"fffe" + b"a" * 50):
        assert send(hub, "POST", f"/{repo_id}.git/git-upload-pack", body).status in (200, 400), body
    packed = {"Content-Encoding": "gzip"}
    assert send(hub, "POST", f"/{repo_id}.git/git-upload-pack", b"no gzip", headers=packed).status == 400
    assert send(hub, "GET", f"/{repo_id}.git/info/refs").status == 403
