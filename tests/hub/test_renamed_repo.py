"""A run continues, under either name, when its repo is renamed on the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hf_summary_writer import CommitScheduler

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

pytestmark = pytest.mark.client
LONG = 60
NEVER = 10_000


def schedule(api: HfApi, repo_id: str, folder: Path, **more: Any) -> CommitScheduler:
    return CommitScheduler(repo_id=repo_id, folder_path=folder, every=NEVER, hf_api=api, allow_patterns="*", **more)


def files(api: HfApi, repo_id: str) -> set[str]:
    return {path for path in api.list_repo_files(repo_id) if path.endswith((".txt", ".bin"))}


@pytest.fixture(params=[False, True], ids=["plain", "squash"])
def squash(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_run_continues_through_a_rename(api: HfApi, repo_id: str, tmp_path: Path, squash: bool) -> None:
    moved = f"{repo_id}-moved"
    with schedule(api, repo_id, tmp_path, squash_history=squash) as scheduler:
        for n in range(2):
            (tmp_path / f"{n}.txt").write_bytes(b"%d" % n)
            (tmp_path / f"{n}.bin").write_bytes(bytes(50_000) + b"%d" % n)
            assert scheduler.trigger().result(LONG) is not None
            if n == 0:
                api.move_repo(from_id=repo_id, to_id=moved)
    assert files(api, moved) == {"0.txt", "0.bin", "1.txt", "1.bin"}
    assert api.repo_info(repo_id).id == moved, "no new repo was created under the old name"


@pytest.mark.parametrize("named", ["old", "new"])
def test_a_restart_continues_under_either_name(api: HfApi, repo_id: str, tmp_path: Path, named: str) -> None:
    moved = f"{repo_id}-moved"
    (tmp_path / "0.bin").write_bytes(bytes(50_000))
    with schedule(api, repo_id, tmp_path) as scheduler:
        assert scheduler.trigger().result(LONG) is not None
    api.move_repo(from_id=repo_id, to_id=moved)
    (tmp_path / "1.bin").write_bytes(bytes(60_000))
    with schedule(api, repo_id if named == "old" else moved, tmp_path) as scheduler:
        assert scheduler.trigger().result(LONG) is not None
        assert scheduler.trigger().result(LONG) is None, "nothing is sent twice"
    assert files(api, moved) == {"0.bin", "1.bin"}
    assert api.repo_info(repo_id).id == moved
