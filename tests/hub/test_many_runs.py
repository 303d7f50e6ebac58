"""Many runs in one repo share commits and one budget, and leave uploads to a scheduler on their parent folder."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

import remote
from events import wait_until
from hf_summary_writer import CommitScheduler, HFSummaryWriter
from hf_summary_writer.push import Phase
from hub_process import HubProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from huggingface_hub import HfApi

SECONDS = 30.0
RUNS = 12


@pytest.fixture
def open_writer(api: HfApi, repo_id: str, tmp_path: Path) -> Iterator[Callable[..., HFSummaryWriter]]:
    """Return a function that opens the writer of a run, by its number, in a separate folder."""
    with contextlib.ExitStack() as stack:

        def open_writer(number: int, **options: Any) -> HFSummaryWriter:
            folder = tmp_path / "runs" / f"run-{number}"
            # All share one client of the test's Hub, as they share the environment's client by default.
            writer = HFSummaryWriter(repo_id, folder, hf_api=api, **{"commit_every": 60, **options})
            stack.callback(writer.close)
            return writer

        yield open_writer


def commits(api: HfApi, repo_id: str) -> list[str]:
    """Return the titles of the commits with logs, oldest first."""
    return [title for title in reversed(remote.commits(api, repo_id)) if title.startswith("Logs of")]


def local(tmp_path: Path) -> dict[str, bytes]:
    return remote.under(tmp_path / "runs", "tensorboard")


def test_writers_of_one_process_share_their_commits(
    open_writer: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    writers = [open_writer(number) for number in range(RUNS)]
    for number, writer in enumerate(writers):
        writer.add_scalar("loss", number, 0)
    futures = [writer.scheduler.trigger() for writer in writers]
    oids = {info.oid for future in futures if (info := future.result(SECONDS))}
    for writer in writers:
        writer.flush()
    assert remote.files(api, repo_id) == local(tmp_path)
    assert len(oids) == len(commits(api, repo_id)) <= 4


def test_scheduled_pushes_share_commits_although_the_runs_started_apart(
    open_writer: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    writers = []
    for number in range(RUNS):
        writers.append(open_writer(number, commit_every=0.05))
        writers[-1].add_scalar("loss", number, 0)
        writers[-1].scheduler.trigger().result(SECONDS)
    before = len(commits(api, repo_id))

    def round_of_pushes(step: int) -> None:
        for writer in writers:
            writer.add_scalar("loss", 1.0, step)
            writer.flush()
        wait_until(lambda: not any(writer.scheduler.status().pending.files for writer in writers), SECONDS)

    for step in range(1, 4):
        round_of_pushes(step)
    assert remote.files(api, repo_id) == local(tmp_path)
    # Without sharing, each round would make one commit per run.
    assert len(commits(api, repo_id)) - before <= 3 * RUNS / 2


def test_runs_that_end_one_after_another_make_few_commits(
    open_writer: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    minutes = 0.5
    writers = [open_writer(number, commit_every=minutes) for number in range(RUNS)]
    wait_until(lambda: all(w.scheduler.last_future and w.scheduler.last_future.done() for w in writers), SECONDS)
    # A run that was pushed within the last tenth of its interval does not join a push.
    later = time.monotonic() + minutes * 60 / 10
    wait_until(lambda: time.monotonic() > later, SECONDS)
    for number, writer in enumerate(writers):
        writer.add_scalar("loss", number, 0)
        writer.flush()
    for writer in writers:
        writer.close()
    assert remote.files(api, repo_id) == local(tmp_path)
    assert len(commits(api, repo_id)) <= 3


def test_a_refused_run_and_a_failing_hook_hold_back_no_other_run(
    open_writer: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a hook that fails")

    logging.getLogger("hf_summary_writer").setLevel(logging.CRITICAL)
    try:
        bad = open_writer(0, path_in_repo="x" * 300)  # a name that Git servers refuse
        others = [open_writer(number, on_commit=fail if number == 1 else None) for number in range(1, 5)]
        for writer in (bad, *others):
            writer.add_scalar("loss", 1.0, 0)
        refused, *futures = [writer.scheduler.trigger() for writer in (bad, *others)]
        assert all(future.result(SECONDS) for future in futures)
        refused.exception(SECONDS)
    finally:
        logging.getLogger("hf_summary_writer").setLevel(logging.NOTSET)
    found = remote.files(api, repo_id)
    assert {path: content for path, content in local(tmp_path).items() if "run-0" not in path}.items() <= found.items()


def test_runs_that_share_a_commit_share_the_squash(
    open_writer: Callable[..., HFSummaryWriter], hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    writers = [open_writer(number, squash_history=True) for number in range(RUNS)]
    hub.reset_stats()
    for writer in writers:
        writer.add_scalar("loss", 1.0, 0)
    made = {info.oid for future in [w.scheduler.trigger() for w in writers] if (info := future.result(SECONDS))}
    squashes = [request for request in hub.requests if "/super-squash/" in request.path]
    assert 1 <= len(squashes) <= len(made)
    assert len(remote.commits(api, repo_id)) <= 2
    assert remote.files(api, repo_id) == local(tmp_path)


@pytest.fixture
def strict_hub(tmp_path: Path) -> Iterator[HubProcess]:
    with HubProcess(tmp_path / "strict-hub", "--commits-per-hour", "8") as running:
        yield running


@pytest.fixture
def strict_api(strict_hub: HubProcess, client: Callable[..., HfApi], monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setenv("HF_SUMMARY_WRITER_COMMITS_PER_HOUR", "8")
    return client(strict_hub)


def test_over_the_budget_a_push_is_throttled_but_the_last_push_is_not(
    strict_hub: HubProcess, strict_api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "run-0"
    with HFSummaryWriter(repo_id, folder, hf_api=strict_api, commit_every=60) as writer:
        writer.add_scalar("loss", 1.0, 0)
        assert writer.scheduler.trigger().result(SECONDS)
        writer.add_scalar("loss", 1.0, 1)
        waits = writer.scheduler.trigger()
        wait_until(lambda: writer.scheduler.status().phase is Phase.WAITING, SECONDS)
        status = writer.scheduler.status()
        assert status.throttled is not None
        assert status.throttled.seconds == pytest.approx(720, abs=60) or status.throttled.seconds == 3600
        assert "8 commits per hour" in status.throttled.why
        assert status.as_dict()["throttled_because"] == status.throttled.why
        assert status.failure is None
        assert not waits.done()
    assert waits.result(SECONDS)
    assert remote.files(strict_api, repo_id) == local(tmp_path)
    assert 429 not in {request.status for request in strict_hub.requests}


def test_a_rate_limit_learned_from_a_refusal_is_kept_by_all_runs(
    strict_hub: HubProcess, client: Callable[..., HfApi], repo_id: str, tmp_path: Path
) -> None:
    api = client(strict_hub)
    logging.getLogger("hf_summary_writer").setLevel(logging.CRITICAL)
    try:
        with HFSummaryWriter(repo_id, tmp_path / "runs" / "a", hf_api=api, commit_every=60, close_timeout=1) as one:
            error = None
            for step in range(20):
                one.add_scalar("loss", 1.0, step)
                future = one.scheduler.trigger()
                error = future.exception(SECONDS)
                if error is not None:
                    break
            assert "rate" in str(error)
            refused = [request for request in strict_hub.requests if request.status == 429]
            assert len(refused) == 1
            # Another run of this account makes no request that would be refused.
            other = HFSummaryWriter(f"{repo_id}-2", tmp_path / "runs" / "b", hf_api=api, close_timeout=1)
            other.add_scalar("loss", 1.0, 0)
            other.scheduler.trigger()
            wait_until(lambda: other.scheduler.status().throttled is not None, SECONDS)
            other.close()
        assert [request for request in strict_hub.requests if request.status == 429] == refused
    finally:
        logging.getLogger("hf_summary_writer").setLevel(logging.NOTSET)


def test_a_scheduler_on_a_parent_folder_pushes_for_its_writers(
    open_writer: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    parent = tmp_path / "runs"
    (parent / "first").mkdir(parents=True)
    (parent / "first" / "notes.txt").write_text("here before")
    with CommitScheduler(
        repo_id=repo_id, folder_path=parent, path_in_repo="tensorboard", every=60, hf_api=api, ignore_patterns="*.txt"
    ) as parent_scheduler:
        parent_scheduler.trigger().result(SECONDS)
        writers = [open_writer(number) for number in range(RUNS)]
        for number, writer in enumerate(writers):
            writer.add_scalar("loss", number, 0)
        assert [writer.scheduler.trigger().result(SECONDS) for writer in writers] == [None] * RUNS
        assert parent_scheduler.trigger().result(SECONDS)
        for writer in writers:
            writer.close()
    assert remote.files(api, repo_id) == local(tmp_path)
    assert [title.partition(":")[0] for title in commits(api, repo_id)] in (
        ["Logs of runs"],
        ["Logs of runs", "Logs of runs"],
    )


@pytest.mark.parametrize("lost", ["the folder", "the lock"])
def test_a_scheduler_on_a_recreated_parent_folder_pushes_for_its_writers(
    open_writer: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, tmp_path: Path, lost: str
) -> None:
    parent = tmp_path / "runs"
    with CommitScheduler(
        repo_id=repo_id, folder_path=parent, path_in_repo="tensorboard", every=60, hf_api=api
    ) as parent_scheduler:
        (parent / "old.txt").write_text("old")
        parent_scheduler.trigger().result(SECONDS)
        if lost == "the folder":
            shutil.rmtree(parent)
            parent_scheduler.trigger().result(SECONDS)
            parent.mkdir()
            (parent / "new.txt").write_text("new")
        else:
            [lock] = parent.rglob("*.lease.lock")
            lock.unlink()
        parent_scheduler.trigger().result(SECONDS)
        writer = open_writer(0)
        writer.add_scalar("loss", 1.0, 0)
        assert writer.scheduler.trigger().result(SECONDS) is None
        assert parent_scheduler.trigger().result(SECONDS)
        writer.close()
    assert local(tmp_path).items() <= remote.files(api, repo_id).items()
    [title] = {title.partition(":")[0] for title in commits(api, repo_id)}
    assert title == "Logs of runs"


def test_writers_push_unless_a_parent_scheduler_has_the_same_destination(
    open_writer: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    parent = tmp_path / "runs"
    parent.mkdir()
    (parent / "a.txt").write_text("text")
    others = [
        CommitScheduler(repo_id=f"{repo_id}-other", folder_path=parent, every=60, hf_api=api),
        CommitScheduler(repo_id=repo_id, folder_path=parent, every=60, hf_api=api, allow_patterns="*.txt"),
        CommitScheduler(repo_id=repo_id, folder_path=parent, every=60, hf_api=api, revision="side"),
    ]
    try:
        for other in others:
            assert other.trigger().exception(SECONDS) is None
        writer = open_writer(0)
        writer.add_scalar("loss", 1.0, 0)
        assert writer.scheduler.trigger().result(SECONDS)
    finally:
        for other in others:
            other.stop()
    with CommitScheduler(repo_id=repo_id, folder_path=parent, path_in_repo="tensorboard", every=60, hf_api=api) as last:
        last.trigger().result(SECONDS)
        writer.add_scalar("loss", 1.0, 1)
        assert writer.scheduler.trigger().result(SECONDS) is None
    writer.add_scalar("loss", 1.0, 2)
    assert writer.scheduler.trigger().result(SECONDS)
    writer.flush()
    assert local(tmp_path).items() <= remote.files(api, repo_id).items()


def test_a_commit_limit_that_is_not_a_number_is_refused(
    open_writer: Callable[..., HFSummaryWriter], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_SUMMARY_WRITER_COMMITS_PER_HOUR", "many")
    with pytest.raises(ValueError, match="COMMITS_PER_HOUR"):
        open_writer(0)
    assert list(tmp_path.iterdir()) == []
