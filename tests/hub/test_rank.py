"""Of the processes of a distributed run one pushes a folder, and nothing is left behind, whichever ends last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import remote
from events import wait_until
from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.errors import PostponedError
from hf_summary_writer.push.budget import CommitQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

SECONDS = 60.0
OFTEN = 0.3 / 60  # minutes


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def process(
    api: HfApi, repo_id: str, logdir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., HFSummaryWriter]]:
    """Return a function that makes the writer of one process of a run, as that process would."""
    writers = []

    def make(rank: int, local: int | None = None, **arguments: Any) -> HFSummaryWriter:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank if local is None else local))
        settings = {"logdir": logdir, "commit_every": 60, "hf_api": api, **arguments}
        writers.append(HFSummaryWriter(repo_id, **settings))
        return writers[-1]

    yield make
    for writer in writers:
        writer.close()


def test_the_main_process_pushes_what_all_have_logged(
    process: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, logdir: Path
) -> None:
    commits: list[object] = []
    ranks = [process(0), *(process(rank, on_commit=commits.append) for rank in (1, 2))]
    for rank, writer in enumerate(ranks):
        writer.add_scalar(f"loss/{rank}", rank, 1)
        writer.flush()
    ranks[0].scheduler.trigger().result(SECONDS)
    for writer in reversed(ranks):
        writer.close()
    assert len(list(logdir.glob("*.tfevents.*"))) == 3
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run")
    assert commits == []


def test_a_process_that_logs_nothing_pushes_nothing(process: Callable[..., HFSummaryWriter], hub: HubProcess) -> None:
    main, other = process(0), process(1)
    main.add_scalar("loss", 1.0, 1)
    main.scheduler.trigger().result(SECONDS)
    before = hub.requests
    other.close()
    assert hub.requests == before


def test_a_process_that_ends_after_the_main_one_sends_its_own_rest(
    process: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, logdir: Path
) -> None:
    main, other = process(0), process(1)
    main.add_scalar("loss", 1.0, 1)
    main.close()
    other.add_scalar("late", 1.0, 1)
    other.close()
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run")


def test_a_process_on_another_disk_is_pushed_while_it_runs(
    process: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    commits: list[object] = []
    other = process(8, 0, logdir=tmp_path / "elsewhere" / "run", commit_every=OFTEN, on_commit=commits.append)
    other.add_scalar("loss", 1.0, 1)
    wait_until(lambda: len(commits) == 1)
    other.add_scalar("loss", 2.0, 2)
    wait_until(lambda: len(commits) == 2)
    assert remote.files(api, repo_id) == remote.under(tmp_path / "elsewhere" / "run", "tensorboard/run")


def test_whoever_asks_for_a_push_gets_one(
    process: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, logdir: Path
) -> None:
    other = process(1)
    other.add_scalar("loss", 1.0, 1)
    info = other.scheduler.trigger().result(SECONDS)
    assert info is not None
    assert remote.files(api, repo_id, revision=info.oid) == remote.under(logdir, "tensorboard/run")


def test_who_asked_for_a_push_gets_it_when_its_turn_has_come(
    process: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = CommitQueue.wait_turn, 0

    def wait_turn(self: CommitQueue, *, final: bool) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise PostponedError("others have their turn first", 0.1)
        real(self, final=final)

    monkeypatch.setattr(CommitQueue, "wait_turn", wait_turn)
    other = process(1)
    other.add_scalar("mine", 1.0, 1)
    assert other.scheduler.trigger().result(SECONDS) is not None
    assert asked > 1
    assert len(remote.files(api, repo_id)) == 1


def test_every_process_pushes_where_that_is_wanted(process: Callable[..., HFSummaryWriter]) -> None:
    commits: list[object] = []
    other = process(1, push_every_rank=True, commit_every=OFTEN, on_commit=commits.append)
    other.add_scalar("loss", 1.0, 1)
    wait_until(lambda: len(commits) == 1)
