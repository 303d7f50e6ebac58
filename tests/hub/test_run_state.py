"""The state file of a run: its content, its updates, and that it never causes a commit."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import constants

import remote
from events import wait_until
from hf_summary_writer import CommitScheduler, HFSummaryWriter
from hf_summary_writer.config import PushConfig
from hf_summary_writer.errors import TemporaryError
from hf_summary_writer.events import tfrecord
from hf_summary_writer.folder import STATE_FOLDER, new_lock
from hf_summary_writer.push import RunPhase, RunState, sync
from hub.test_bucket import needs_a_client_for_buckets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

pytestmark = pytest.mark.client  # the client uploads and commits

SECONDS = 60.0
HOUR = 60.0  # minutes
PLACE = "tensorboard/run-1/hf-summary-writer.json"


@pytest.fixture(params=["dataset", pytest.param("bucket", marks=needs_a_client_for_buckets)])
def where(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"repo_type": request.param}


@pytest.fixture
def settings(api: HfApi, repo_id: str, tmp_path: Path, where: dict[str, Any]) -> dict[str, Any]:
    return {"repo_id": repo_id, "logdir": tmp_path / "run-1", "commit_every": HOUR, "hf_api": api, **where}


def pushed(writer: HFSummaryWriter, step: int) -> object:
    writer.add_scalar("loss", 1.0, step)
    return writer.scheduler.trigger().result(SECONDS)


def test_the_state_is_running_until_the_last_push_sets_it_to_finished(
    api: HfApi, repo_id: str, settings: dict[str, Any], where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/user/train.py", "--lr", "0.1", "--token", "abc"])
    with HFSummaryWriter(**settings) as writer:
        pushed(writer, 1)
        (first,) = remote.states(api, repo_id, **where).values()
        writer.add_scalar("loss", 0.5, 2)
    states = remote.states(api, repo_id, **where)
    assert list(states) == [PLACE]
    last = states[PLACE]
    assert (first.phase, last.phase) == (RunPhase.RUNNING, RunPhase.FINISHED)
    assert first.started == last.started <= first.last_event <= last.last_event <= last.last_push + 1
    assert (last.command, last.rank, last.interval) == ("train.py --lr 0.1 --token '***'", 0, HOUR * 60)
    assert not list(settings["logdir"].glob("*.json"))


@pytest.mark.parametrize(
    ("raised", "phase"),
    [
        (ValueError("diverged"), RunPhase.FAILED),
        (KeyboardInterrupt(), RunPhase.STOPPED),
        (SystemExit(143), RunPhase.STOPPED),
        (SystemExit(2), RunPhase.FAILED),
        (SystemExit(), RunPhase.FINISHED),
        (StopIteration(), RunPhase.FINISHED),
    ],
    ids=repr,
)
@pytest.mark.parametrize("closed_by", ["with", "finally"])
def test_the_state_names_how_an_exception_ended_the_run(
    api: HfApi, repo_id: str, tmp_path: Path, raised: BaseException, phase: RunPhase, closed_by: str
) -> None:
    def train() -> None:
        writer = HFSummaryWriter(repo_id, logdir=tmp_path / "run-1", commit_every=HOUR, hf_api=api)
        if closed_by == "with":
            with writer:
                writer.add_scalar("loss", 1.0, 1)
                raise raised
        try:
            writer.add_scalar("loss", 1.0, 1)
            raise raised
        finally:
            writer.close()

    with pytest.raises(type(raised)):
        train()
    assert remote.states(api, repo_id)[PLACE].phase is phase


def test_a_run_inside_an_exception_handler_is_not_failed(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    try:
        raise MemoryError("a smaller batch is tried")
    except MemoryError:
        writer = HFSummaryWriter(repo_id, logdir=tmp_path / "run-1", commit_every=HOUR, hf_api=api)
        writer.add_scalar("loss", 1.0, 1)
        writer.close()
    assert remote.states(api, repo_id)[PLACE].phase is RunPhase.FINISHED


def test_a_dropped_writer_is_finished(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    writer = HFSummaryWriter(repo_id, logdir=tmp_path / "run-1", commit_every=0.005, hf_api=api)
    pushed(writer, 1)
    writer.add_scalar("loss", 1.0, 2)
    del writer
    gc.collect()
    wait_until(lambda: remote.states(api, repo_id)[PLACE].phase is RunPhase.FINISHED)


def test_a_with_block_that_ends_normally_in_an_exception_handler_is_finished(
    api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    writer = HFSummaryWriter(repo_id, logdir=tmp_path / "run-1", commit_every=HOUR, hf_api=api)
    try:
        raise MemoryError("a smaller batch is tried")
    except MemoryError:
        with writer:
            writer.add_scalar("loss", 1.0, 1)
    assert remote.states(api, repo_id)[PLACE].phase is RunPhase.FINISHED


def test_a_write_after_close_sets_the_state_to_running_again(
    api: HfApi, repo_id: str, settings: dict[str, Any]
) -> None:
    where = {"repo_type": settings["repo_type"]}
    writer = HFSummaryWriter(**settings)
    writer.add_scalar("loss", 1.0, 1)
    writer.close()
    assert remote.states(api, repo_id, **where)[PLACE].phase is RunPhase.FINISHED
    pushed(writer, 2)
    assert remote.states(api, repo_id, **where)[PLACE].phase is RunPhase.RUNNING
    writer.close()


def test_a_writer_that_was_left_open_does_not_keep_the_state_at_running(
    api: HfApi, repo_id: str, settings: dict[str, Any], where: dict[str, Any]
) -> None:
    left_open = HFSummaryWriter(**settings)
    pushed(left_open, 1)
    with HFSummaryWriter(**settings) as writer:
        pushed(writer, 2)
        assert remote.states(api, repo_id, **where)[PLACE].phase is RunPhase.RUNNING
        writer.add_scalar("loss", 0.5, 3)
    assert remote.states(api, repo_id, **where)[PLACE].phase is RunPhase.FINISHED
    pushed(left_open, 4)
    assert remote.states(api, repo_id, **where)[PLACE].phase is RunPhase.RUNNING
    with contextlib.suppress(ValueError), left_open:
        left_open.add_scalar("loss", 0.5, 5)
        raise ValueError("diverged")
    assert remote.states(api, repo_id, **where)[PLACE].phase is RunPhase.FAILED


def test_a_writer_that_goes_on_logging_keeps_the_state_at_running(
    api: HfApi, repo_id: str, settings: dict[str, Any], where: dict[str, Any]
) -> None:
    training = HFSummaryWriter(**settings)
    pushed(training, 1)
    with HFSummaryWriter(**{**settings, "commit_every": 2 * HOUR}) as evaluation:
        training.add_scalar("loss", 0.5, 2)
        evaluation.add_scalar("accuracy", 0.5, 2)
    state = remote.states(api, repo_id, **where)[PLACE]
    assert (state.phase, state.interval) == (RunPhase.RUNNING, HOUR * 60)
    training.add_scalar("loss", 0.5, 3)
    training.close()
    assert remote.states(api, repo_id, **where)[PLACE].phase is RunPhase.FINISHED


def test_a_second_process_warns_about_two_logdirs_with_one_name(
    settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "hf_summary_writer")

    def said(logdir: Path) -> list[str]:
        caplog.clear()
        # As in another process, which has no record of the first logdir.
        monkeypatch.setattr("hf_summary_writer.push.neighbours._stored", {})
        with HFSummaryWriter(**{**settings, "logdir": logdir}) as writer:
            pushed(writer, 1)
            pushed(writer, 2)
        return [message for message in caplog.messages if "already holds a run" in message]

    assert said(tmp_path / "a" / "run-1") == []
    assert said(tmp_path / "a" / "run-1") == []  # the same run is resumed
    (line,) = said(tmp_path / "b" / "run-1")
    assert line.startswith(f"'tensorboard/run-1' in {settings['repo_id']} already holds a run: if this one does not")
    assert said(tmp_path / "c" / "run-2") == []


def test_a_push_without_changes_makes_no_commit_for_the_state(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    with HFSummaryWriter(repo_id, logdir=tmp_path / "run-1", commit_every=HOUR, hf_api=api) as writer:
        pushed(writer, 1)
        assert writer.scheduler.trigger().result(SECONDS) is None
        before = remote.commits(api, repo_id)
    assert remote.commits(api, repo_id) == before
    assert remote.states(api, repo_id)[PLACE].phase is RunPhase.RUNNING


def test_files_that_are_already_in_the_repo_make_no_commit_for_the_state(
    api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"repo_id": repo_id, "logdir": tmp_path / "run-1", "commit_every": HOUR, "hf_api": api}
    with HFSummaryWriter(**settings) as writer:
        pushed(writer, 1)
    before = remote.commits(api, repo_id)
    for path in tmp_path.rglob("*.jsonl"):
        path.unlink()
    with HFSummaryWriter(**settings) as writer:
        assert writer.scheduler.trigger().result(SECONDS) is None
    assert remote.commits(api, repo_id) == before


def test_the_state_can_be_turned_off_and_schedulers_write_none(
    api: HfApi, repo_id: str, settings: dict[str, Any], where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with HFSummaryWriter(**settings, run_state=False) as writer:
        pushed(writer, 1)
    monkeypatch.setenv("HF_SUMMARY_WRITER_RUN_STATE", "0")
    with HFSummaryWriter(**settings) as writer:
        pushed(writer, 2)
    monkeypatch.delenv("HF_SUMMARY_WRITER_RUN_STATE")
    folder = settings["logdir"]
    (folder / "other.txt").write_text("1")
    with CommitScheduler(repo_id=repo_id, folder_path=folder, hf_api=api, **where) as scheduler:
        scheduler.trigger().result(SECONDS)
    assert remote.states(api, repo_id, **where) == {}
    assert "other.txt" in remote.files(api, repo_id, **where)


def test_each_rank_that_pushes_has_its_own_state_file(
    api: HfApi, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in ("0", "3"):
        monkeypatch.setenv("RANK", rank)
        folder = tmp_path / rank / "run-1"
        with HFSummaryWriter(repo_id, logdir=folder, commit_every=HOUR, hf_api=api, push_every_rank=True) as writer:
            pushed(writer, 1)
    found = remote.states(api, repo_id)
    assert {path.rpartition("/")[2]: state.rank for path, state in found.items()} == {
        "hf-summary-writer.json": 0,
        "hf-summary-writer.rank-3.json": 3,
    }


def test_a_process_without_the_lease_writes_no_state(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"repo_id": repo_id, "logdir": tmp_path / "run-1", "hf_api": api}
    with HFSummaryWriter(**settings, commit_every=HOUR) as first:
        pushed(first, 1)
    states = remote.states(api, repo_id)
    (ledger,) = (tmp_path / "run-1" / STATE_FOLDER).glob("*.jsonl")
    lock = new_lock(ledger.with_suffix(".lease.lock"))  # held as by another process
    with lock, HFSummaryWriter(**settings, commit_every=2 * HOUR) as second:
        pushed(second, 2)
        assert remote.states(api, repo_id) == states


def test_a_file_of_the_same_name_in_the_logdir_is_uploaded_instead(
    api: HfApi, repo_id: str, settings: dict[str, Any], where: dict[str, Any]
) -> None:
    settings["logdir"].mkdir()
    mine = RunState(RunPhase.STOPPED, 1, 2, 3, 4, "mine", 0, "mine", "1").encoded()
    (settings["logdir"] / "hf-summary-writer.json").write_bytes(mine)
    with HFSummaryWriter(**settings, repo_allow_patterns=None) as writer:
        pushed(writer, 1)
        pushed(writer, 2)
    assert remote.states(api, repo_id, **where)[PLACE].host == "mine"


def test_the_token_is_masked_in_the_state(
    api: HfApi, repo_id: str, settings: dict[str, Any], where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(api.token, str)
    monkeypatch.setattr(sys, "argv", ["train.py", f"x{api.token}y"])
    with HFSummaryWriter(**settings) as writer:
        pushed(writer, 1)
    assert remote.states(api, repo_id, **where)[PLACE].command == "train.py x***y"


def test_logs_are_uploaded_to_a_repo_that_ignores_the_state_file(
    api: HfApi, repo_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api.create_repo(repo_id)
    api.upload_file(path_or_fileobj=b"*.json\n", path_in_repo=".gitignore", repo_id=repo_id)
    with caplog.at_level(logging.WARNING), HFSummaryWriter(repo_id, logdir=tmp_path / "run-1", hf_api=api) as writer:
        pushed(writer, 1)
        pushed(writer, 2)
    assert writer.scheduler.status().all_arrived
    assert remote.states(api, repo_id) == {}
    assert not caplog.records


@pytest.mark.parametrize("arguments", [[], [object()], ["a\udcffb", "\x1b[31m"], ["x" * 100_000], None], ids=range(5))
def test_logs_are_uploaded_for_any_arguments_of_the_script(
    api: HfApi, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any
) -> None:
    monkeypatch.setattr(sys, "argv", arguments and [tmp_path / "train.py", *arguments])
    with HFSummaryWriter(repo_id, logdir=tmp_path / "run-1", hf_api=api) as writer:
        pushed(writer, 1)
    assert remote.files(api, repo_id) == remote.under(tmp_path / "run-1", "tensorboard/run-1")
    assert all(state.command.isprintable() for state in remote.states(api, repo_id).values())


@pytest.mark.parametrize("where", [pytest.param("bucket", marks=needs_a_client_for_buckets)], indirect=True)
def test_the_final_state_is_uploaded_to_a_bucket_without_other_changes(
    api: HfApi, repo_id: str, settings: dict[str, Any], where: dict[str, Any], hub: HubProcess
) -> None:
    with HFSummaryWriter(**settings) as writer:
        pushed(writer, 1)
        before = remote.files(api, repo_id, **where)
    assert remote.states(api, repo_id, **where)[PLACE].phase is RunPhase.FINISHED
    assert remote.files(api, repo_id, **where) == before
    requests = hub.requests
    writer.close()
    assert hub.requests == requests


@pytest.fixture
def owner(api: HfApi, repo_id: str, tmp_path: Path, where: dict[str, Any]) -> CommitScheduler:
    """Return a scheduler that holds the lease of the parent folder of all runs."""
    scheduler = CommitScheduler(
        repo_id=repo_id, folder_path=tmp_path, path_in_repo="tensorboard", every=HOUR, hf_api=api, **where
    )
    assert scheduler.trigger().result(SECONDS) is None
    return scheduler


def test_the_scheduler_of_the_parent_folder_uploads_the_state(
    api: HfApi, repo_id: str, settings: dict[str, Any], where: dict[str, Any], owner: CommitScheduler
) -> None:
    with HFSummaryWriter(**settings) as writer:
        writer.add_scalars("loss", {"train": 1.0}, 1)
        assert pushed(writer, 1) is None
        assert owner.trigger().result(SECONDS) is not None
        (running,) = remote.states(api, repo_id, **where).values()
        writer.add_scalar("loss", 0.5, 2)
    owner.close()
    states = remote.states(api, repo_id, **where)
    assert list(states) == [PLACE]
    finished = states[PLACE]
    assert (running.phase, finished.phase) == (RunPhase.RUNNING, RunPhase.FINISHED)
    assert running.started == finished.started <= running.last_event <= finished.last_event
    assert not list(settings["logdir"].glob("*.json"))


@pytest.mark.parametrize("where", [pytest.param("bucket", marks=needs_a_client_for_buckets)], indirect=True)
def test_the_parent_scheduler_uploads_the_final_state_without_other_changes(
    api: HfApi, repo_id: str, settings: dict[str, Any], where: dict[str, Any], owner: CommitScheduler
) -> None:
    with HFSummaryWriter(**settings) as writer:
        pushed(writer, 1)
        assert owner.trigger().result(SECONDS) is not None
        assert remote.states(api, repo_id, **where)[PLACE].phase is RunPhase.RUNNING
    owner.close()
    assert remote.states(api, repo_id, **where)[PLACE].phase is RunPhase.FINISHED


@pytest.mark.parametrize("where", [pytest.param("bucket", marks=needs_a_client_for_buckets)], indirect=True)
def test_the_parent_scheduler_retries_a_failed_upload_of_the_final_state(
    api: HfApi, repo_id: str, settings: dict[str, Any], where: dict[str, Any], owner: CommitScheduler, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise TemporaryError("the Hub is busy")

    def push_another_run(name: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "events.out.tfevents.1.host").write_bytes(tfrecord.frame(b"event"))
        assert owner.trigger().result(SECONDS) is not None

    with HFSummaryWriter(**settings) as writer:
        pushed(writer, 1)
        assert owner.trigger().result(SECONDS) is not None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner._remote, "publish_small", fail)
        push_another_run("run-2")
    assert remote.states(api, repo_id, **where)[PLACE].phase is RunPhase.RUNNING
    push_another_run("run-3")
    assert remote.states(api, repo_id, **where)[PLACE].phase is RunPhase.FINISHED
    owner.close()


def test_the_parent_scheduler_uploads_no_state_for_a_run_without_one(
    api: HfApi, repo_id: str, settings: dict[str, Any], where: dict[str, Any], owner: CommitScheduler
) -> None:
    with HFSummaryWriter(**settings, run_state=False) as writer:
        assert pushed(writer, 1) is None
    owner.close()
    assert remote.states(api, repo_id, **where) == {}
    assert len(remote.files(api, repo_id, **where)) == 1


@pytest.fixture
def synced(api: HfApi, repo_id: str, tmp_path: Path) -> Callable[[], RunState | None]:
    """Return a function that uploads the run as `sync` does, and returns its state on the Hub."""

    def upload() -> RunState | None:
        path = "tensorboard/run-1"
        config = PushConfig(repo_id=repo_id, endpoint=api.endpoint, repo_type="dataset", path_in_repo=path)
        done = sync(tmp_path / "run-1", config, api)
        assert (done.missing, done.error) == (0, None)
        return remote.states(api, repo_id, repo_type="dataset").get(PLACE)

    return upload


@pytest.mark.parametrize("where", ["dataset"], indirect=True)
def test_sync_of_an_offline_run_uploads_its_final_state(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, synced: Callable[[], RunState | None]
) -> None:
    monkeypatch.setenv("HF_SUMMARY_WRITER_MODE", "offline")

    def train() -> None:
        with HFSummaryWriter(**settings) as writer:
            writer.add_scalar("loss", 1.0, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    state = synced()
    assert state is not None
    assert state.phase is RunPhase.FAILED
    assert state.started <= state.last_event <= state.last_push + 1


LEFT = RunState(RunPhase.RUNNING, 1000.0, 1000.0, 1000.0, 300.0, "node", 0, "train.py", "1")


@pytest.fixture
def left(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, float], None]:
    """Return a function that makes a run with a state file and an event file of a given time."""
    monkeypatch.setenv("HF_SUMMARY_WRITER_MODE", "offline")

    def leave(content: bytes, event: float) -> None:
        with HFSummaryWriter(**settings, run_state=False) as writer:
            writer.add_scalar("loss", 1.0, 1)
        for file in settings["logdir"].glob("*tfevents*"):
            os.utime(file, (event, event))
        (settings["logdir"] / STATE_FOLDER / "run.json").write_bytes(content)

    return leave


@pytest.mark.parametrize("where", ["dataset"], indirect=True)
def test_sync_of_a_killed_run_uploads_an_overdue_state(
    left: Callable[[bytes, float], None], synced: Callable[[], RunState | None]
) -> None:
    left(LEFT.encoded(), 2000.0)
    state = synced()
    assert state is not None
    assert (state.phase, state.last_event, state.last_push) == (RunPhase.RUNNING, 2000.0, 2000.0)
    assert state.is_overdue(time.time())


@pytest.mark.parametrize("where", ["dataset"], indirect=True)
def test_a_final_state_older_than_the_events_is_not_uploaded(
    left: Callable[[bytes, float], None], synced: Callable[[], RunState | None]
) -> None:
    left(dataclasses.replace(LEFT, phase=RunPhase.FINISHED).encoded(), 2000.0)
    assert synced() is None


@pytest.mark.parametrize("where", ["dataset"], indirect=True)
@pytest.mark.parametrize("content", [b"", b"[]", b"x" * 2**20, LEFT.encoded().replace(b"node", b"\x1b[31m")])
def test_an_invalid_state_file_is_not_uploaded(
    left: Callable[[bytes, float], None], synced: Callable[[], RunState | None], content: bytes
) -> None:
    left(content, 2000.0)
    assert synced() is None


@pytest.mark.parametrize("where", ["dataset"], indirect=True)
def test_the_uploading_processs_token_is_masked_in_the_state(
    api: HfApi, tmp_path: Path, left: Callable[[bytes, float], None], synced: Callable[[], RunState | None]
) -> None:
    left(dataclasses.replace(LEFT, command=f"train.py x{api.token}y").encoded(), 2000.0)
    state = synced()
    (tmp_path / "run-1" / STATE_FOLDER / "run.json").unlink()  # conftest.py checks for the token in files
    assert state is not None
    assert state.command == "train.py x***y"


def test_the_state_makes_no_extra_request(
    api: HfApi, repo_id: str, tmp_path: Path, hub: HubProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with HFSummaryWriter(repo_id, logdir=tmp_path / "run-1", commit_every=HOUR, hf_api=api) as writer:
        pushed(writer, 1)
        before = len(hub.requests)
        pushed(writer, 2)
        paths = [request.path for request in hub.requests[before:]]
        assert sum("/preupload/" in path for path in paths) == 1


def test_a_state_that_the_repo_stores_in_lfs_is_uploaded_separately(
    api: HfApi, repo_id: str, tmp_path: Path, hub: HubProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    api.create_repo(repo_id)
    attributes = b"*.json filter=lfs diff=lfs merge=lfs -text\n"
    api.upload_file(path_or_fileobj=attributes, path_in_repo=".gitattributes", repo_id=repo_id)
    with HFSummaryWriter(repo_id, logdir=tmp_path / "run-1", commit_every=HOUR, hf_api=api) as writer:
        pushed(writer, 1)
        before = len(hub.requests)
        pushed(writer, 2)
        paths = [request.path for request in hub.requests[before:]]
        assert sum("/preupload/" in path for path in paths) == 2
    assert remote.states(api, repo_id)[PLACE].phase is RunPhase.RUNNING
