"""One process of a distributed run pushes its folder, and all data is uploaded whichever process ends last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import remote
from events import wait_until
from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.errors import PostponedError
from hf_summary_writer.events import EventWriter
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
    """Return a function that makes a writer with the environment of a given rank."""
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


def test_the_main_process_pushes_the_events_of_all_ranks(
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


def test_a_rank_that_logs_nothing_pushes_nothing(process: Callable[..., HFSummaryWriter], hub: HubProcess) -> None:
    main, other = process(0), process(1)
    main.add_scalar("loss", 1.0, 1)
    main.scheduler.trigger().result(SECONDS)
    before = hub.requests
    other.close()
    assert hub.requests == before


def test_a_rank_that_ends_after_the_main_process_pushes_its_remaining_events(
    process: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, logdir: Path
) -> None:
    main, other = process(0), process(1)
    main.add_scalar("loss", 1.0, 1)
    main.close()
    other.add_scalar("late", 1.0, 1)
    other.close()
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run")


def test_a_rank_on_another_disk_pushes_while_it_runs(
    process: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    commits: list[object] = []
    other = process(8, 0, logdir=tmp_path / "elsewhere" / "run", commit_every=OFTEN, on_commit=commits.append)
    other.add_scalar("loss", 1.0, 1)
    wait_until(lambda: len(commits) == 1)
    other.add_scalar("loss", 2.0, 2)
    wait_until(lambda: len(commits) == 2)
    assert remote.files(api, repo_id) == remote.under(tmp_path / "elsewhere" / "run", "tensorboard/run")


def test_a_trigger_on_another_rank_pushes(
    process: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, logdir: Path
) -> None:
    other = process(1)
    other.add_scalar("loss", 1.0, 1)
    info = other.scheduler.trigger().result(SECONDS)
    assert info is not None
    assert remote.files(api, repo_id, revision=info.oid) == remote.under(logdir, "tensorboard/run")


def test_a_trigger_on_another_rank_pushes_after_waiting_for_its_turn(
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


@pytest.mark.parametrize("every_rank", [True, False])
def test_another_rank_pushes_at_once_only_with_push_every_rank(
    process: Callable[..., HFSummaryWriter], logdir: Path, every_rank: bool
) -> None:
    with EventWriter(logdir) as earlier:
        earlier.add_scalar("loss", 1.0, 1)
    commits: list[object] = []
    other = process(1, push_every_rank=every_rank, on_commit=commits.append)
    wait_until(lambda: other.scheduler.last_future is not None and other.scheduler.last_future.done())
    assert len(commits) == every_rank
