"""`HFSummaryWriter` with the local Hub: TensorBoard reads the logged data from a download."""

from __future__ import annotations

import gc
import logging
import os
import tempfile
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorboardX
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import events
import remote
from events import steps, wait_until
from hf_summary_writer import CommitScheduler, HFSummaryWriter
from hf_summary_writer.errors import ActionNeededError
from hf_summary_writer.folder import lease
from hf_summary_writer.push import Phase, RunPhase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from huggingface_hub import HfApi

    from hf_summary_writer import ErrorDetails
    from hub_process import HubProcess

pytestmark = [pytest.mark.client, pytest.mark.transport]  # the client uploads and commits

SECONDS = 60.0
HOUR = 60.0  # minutes
SECOND = 1 / 60


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    return tmp_path / "run-1"


@pytest.fixture
def write(api: HfApi, repo_id: str, logdir: Path) -> Iterator[Callable[..., HFSummaryWriter]]:
    writers = []

    def make(**arguments: Any) -> HFSummaryWriter:
        settings = {"repo_id": repo_id, "logdir": logdir, "commit_every": HOUR, "hf_api": api, **arguments}
        writer = HFSummaryWriter(**settings)
        writers.append(writer)
        return writer

    yield make
    for writer in writers:
        writer.close()


def scalars(api: HfApi, repo_id: str, folder: str, **where: Any) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars of a run by tag, as TensorBoard reads them from a download."""
    with tempfile.TemporaryDirectory() as download:
        api.snapshot_download(repo_id, local_dir=download, **where)
        events = EventAccumulator(f"{download}/{folder}", size_guidance={"scalars": 0})
        events.Reload()
        return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_the_writer_is_a_summary_writer(write: Callable[..., HFSummaryWriter], logdir: Path, repo_id: str) -> None:
    writer = write(repo_type="model", repo_revision="main")
    assert isinstance(writer, tensorboardX.SummaryWriter)
    assert writer.logdir == str(logdir)
    assert (writer.repo_id, writer.repo_type, writer.repo_revision) == (repo_id, "model", "main")
    assert writer.scheduler.repo_id == repo_id


def test_a_trigger_covers_every_scalar_logged_before_it(
    write: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str
) -> None:
    writer = write()
    for round_ in range(1, 4):
        for step in range((round_ - 1) * 1000, round_ * 1000):
            writer.add_scalar("loss", step / 8, step)
        info = writer.scheduler.trigger().result(SECONDS)
        assert info is not None
        logged = [(step, step / 8) for step in range(round_ * 1000)]
        assert scalars(api, repo_id, "tensorboard/run-1", revision=info.oid) == {"loss": logged}
    assert writer.scheduler.trigger().result(SECONDS) is None


def test_the_status_counts_events_that_were_logged_just_before(write: Callable[..., HFSummaryWriter]) -> None:
    writer = write(commit_every=60)
    assert writer.scheduler.status().all_arrived
    assert "nothing to upload" in writer._repr_html_()
    for step in range(3):
        writer.add_scalar("loss", 1.0, step)
        assert writer.scheduler.status().pending.files == 1
        assert "1 file" in writer._repr_html_()
        writer.scheduler.trigger().result(SECONDS)
        assert writer.scheduler.status().all_arrived
        assert "all uploaded" in writer._repr_html_()


def test_after_a_with_block_every_file_is_uploaded_byte_for_byte(
    write: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, logdir: Path
) -> None:
    with write() as writer:
        writer.add_scalar("loss", 1.0, 0)
        writer.add_scalars("both", {"a": 1.0, "b": 2.0}, 0)
        writer.add_hparams({"lr": 0.1}, {"accuracy": 0.5})
        writer.add_histogram("weights", np.arange(100.0), 0)
        writer.add_image("image", np.zeros((3, 8, 8)), 0)
        writer.add_text("text", "words", 0)
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
    assert len(remote.files(api, repo_id)) == 4


def test_closing_a_writer_does_not_sync_the_files_of_another(
    write: Callable[..., HFSummaryWriter], logdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write(logdir=logdir.parent / "run-2")
    other.scheduler.trigger().result(60)
    synced = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    with write() as writer:
        writer.add_scalar("loss", 1.0, 1)
        other.add_scalar("loss", 1.0, 1)
    assert {path.parent.name for path in synced if "tfevents" in path.name} == {"run-1"}


@pytest.mark.parametrize("path_in_repo", [None, "", "/"])
def test_without_a_path_in_repo_runs_are_at_the_root(
    write: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, logdir: Path, path_in_repo: str | None
) -> None:
    writer = write(path_in_repo=path_in_repo)
    writer.add_scalar("loss", 1.0, 0)
    writer.close()
    assert remote.files(api, repo_id) == remote.under(logdir, "run-1")


def test_two_runs_are_uploaded_to_separate_folders(
    write: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    for name in ("run-1", "run-2"):
        with write(logdir=tmp_path / name) as writer:
            writer.add_scalar("loss", 1.0, 0)
    for name in ("run-1", "run-2"):
        assert scalars(api, repo_id, f"tensorboard/{name}") == {"loss": [(0, 1.0)]}


def test_writers_on_one_logdir_do_not_wait_for_each_others_lock(
    write: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, logdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = [write() for _ in range(3)]
    for writer in writers:
        writer.scheduler.trigger().result(SECONDS)
    monkeypatch.setattr(lease, "_LOOK_SECONDS", 2 * SECONDS)
    with writers[0].scheduler.lock:  # hold the first push until all are due
        writers[0].add_scalar("loss", 0.0, 0)
        writers[0].scheduler.trigger()
        wait_until(lambda: writers[0].scheduler.status().phase is Phase.PUSHING)
        for writer in writers:
            writer.add_scalar("loss", 1.0, 1)
        futures = [writer.scheduler.trigger() for writer in writers]
    for future in futures:
        future.result(SECONDS)
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")


def test_two_logdirs_with_one_path_in_the_repo_are_warned_about_once(
    write: Callable[..., HFSummaryWriter], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = [tmp_path / name / "logs" for name in ("1", "1", "2", "3")]
    for folder in folders:
        write(logdir=folder).close()
    write(logdir=folders[-1], path_in_repo="tensorboard/3").close()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        (
            f"{folders[0]} and {folders[2]} have the same place in the repo, tensorboard/logs, where their curves mix: "
            "give each run a logdir of another name, or another path_in_repo"
        )
    ]


def test_a_run_in_the_folder_of_another_run_is_warned_about_once_for_that_run(
    write: Callable[..., HFSummaryWriter], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    closed = write(logdir=tmp_path)
    closed.close()
    outer = write(logdir=tmp_path / "cv")
    for fold in ("cv/fold-0", "cv/fold-1", "beside"):
        write(logdir=tmp_path / fold)
    write(logdir=tmp_path / "cv" / "elsewhere", repo_revision="dev")
    ignoring = write(logdir=tmp_path / "other", repo_ignore_patterns="fold-*")
    write(logdir=tmp_path / "other" / "fold-2")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        (
            f"{tmp_path}/cv/fold-0 is in the folder of the run {outer.logdir}, which uploads it as well, to "
            "tensorboard/cv/fold-0: give it a logdir outside of that folder, or leave it out there with "
            "repo_ignore_patterns"
        )
    ]
    assert closed.logdir
    assert ignoring.logdir


@pytest.mark.parametrize(("mode", "arguments"), [("disabled", {}), ("online", {"write_to_disk": False})])
def test_a_writer_that_uploads_nothing_warns_of_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mode: str,
    arguments: dict[str, Any],
) -> None:
    monkeypatch.setenv("HF_SUMMARY_WRITER_MODE", mode)
    for name in ("1", "2"):
        HFSummaryWriter("runs/exp1", tmp_path / name / "logs", **arguments).close()
    assert caplog.messages == []


def test_a_resumed_run_writes_a_new_file(
    write: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, logdir: Path
) -> None:
    for step in range(3):
        with write() as writer:
            writer.add_scalar("loss", step, step)
    assert len(list(logdir.glob("*.tfevents.*"))) == 3
    assert scalars(api, repo_id, "tensorboard/run-1") == {"loss": [(0, 0.0), (1, 1.0), (2, 2.0)]}
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")


def test_squashing_leaves_one_commit(
    write: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, logdir: Path
) -> None:
    with write(squash_history=True) as writer:
        for step in range(3):
            writer.add_scalar("loss", step, step)
            writer.scheduler.trigger().result(SECONDS)
    assert len(remote.commits(api, repo_id)) == 1
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")


def test_a_private_dataset_on_a_new_branch(write: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str) -> None:
    with write(repo_type="dataset", repo_revision="experiments", repo_private=True) as writer:
        writer.add_scalar("loss", 1.0, 0)
    where = {"repo_type": "dataset", "revision": "experiments"}
    assert scalars(api, repo_id, "tensorboard/run-1", **where) == {"loss": [(0, 1.0)]}
    assert api.dataset_info(repo_id).private


def test_no_request_is_made_before_an_event_is_logged(write: Callable[..., HFSummaryWriter], hub: HubProcess) -> None:
    before = hub.requests
    writer = write()
    assert writer.scheduler.trigger().result(SECONDS) is None
    assert hub.requests == before


def test_a_run_without_an_event_makes_no_request_and_leaves_nothing_pending(
    write: Callable[..., HFSummaryWriter], hub: HubProcess, logdir: Path
) -> None:
    before = hub.requests
    writer = write()
    assert writer.scheduler.trigger().result(60) is None
    writer.close()
    assert len(list(logdir.glob("*.tfevents.*"))) == 1
    assert writer.scheduler.status().pending.nothing
    assert hub.requests == before


def test_a_dropped_writer_is_pushed_completely_and_leaves_no_thread(api: HfApi, repo_id: str, logdir: Path) -> None:
    before = set(threading.enumerate())
    writer = HFSummaryWriter(repo_id, logdir, commit_every=0.3 / 60, hf_api=api)
    for step in range(1000):
        writer.add_scalar("loss", step, step)
    del writer
    gc.collect()
    wait_until(lambda: set(threading.enumerate()) <= before)
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
    assert steps(logdir, "loss") == list(range(1000))


def test_a_dropped_writer_under_a_parent_scheduler_leaves_nothing_behind(
    api: HfApi, repo_id: str, logdir: Path
) -> None:
    options: dict[str, Any] = {"repo_id": repo_id, "path_in_repo": "tensorboard", "hf_api": api}
    with CommitScheduler(folder_path=logdir.parent, every=HOUR, **options) as parent:
        parent.trigger().result(SECONDS)
        writer = HFSummaryWriter(logdir=logdir, commit_every=0.3 / 60, **options)
        writer.add_scalar("loss", 1.0, 1)
        scheduler = weakref.ref(writer.scheduler)
        del writer
        wait_until(lambda: bool(gc.collect() or True) and scheduler() is None)
    held = remote.files(api, repo_id)
    assert {path for path in held if path.endswith("_000000")} == set(remote.under(logdir, "tensorboard/run-1"))


def test_close_timeout_may_be_any_number_of_seconds(
    write: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str
) -> None:
    with write(close_timeout=1e300) as writer:
        writer.add_scalar("loss", 1.0, 1)
    assert scalars(api, repo_id, "tensorboard/run-1")["loss"] == [(1, 1.0)]


def test_without_write_to_disk_nothing_is_pushed(
    write: Callable[..., HFSummaryWriter], hub: HubProcess, logdir: Path
) -> None:
    before = hub.requests
    with write(write_to_disk=False) as writer:
        writer.add_scalar("loss", 1.0, 0)
        assert writer.scheduler.trigger().result(SECONDS) is None
    assert hub.requests == before
    assert not logdir.exists()


def test_a_writer_that_another_thread_reopens_during_its_close_goes_on(
    write: Callable[..., HFSummaryWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = write()
    close = writer.scheduler.close

    def late() -> None:
        writer.add_scalar("late", 1.0, 1)
        close()

    monkeypatch.setattr(writer.scheduler, "close", late)
    writer.close()
    assert writer.scheduler.status().phase is not Phase.STOPPED
    monkeypatch.undo()
    writer.close()
    assert writer.scheduler.status().phase is Phase.STOPPED


def test_a_trigger_after_close_pushes_later_changes(
    write: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, logdir: Path
) -> None:
    writer = write()
    writer.add_scalar("loss", 1.0, 1)
    writer.close()
    (file,) = logdir.glob("*.tfevents.*")
    file.rename(logdir / f"{file.name}.renamed")
    assert writer.scheduler.trigger().result(SECONDS) is not None
    assert f"tensorboard/run-1/{file.name}.renamed" in remote.files(api, repo_id)
    assert writer.scheduler.trigger().result(SECONDS) is None
    assert remote.states(api, repo_id)["tensorboard/run-1/hf-summary-writer.json"].phase is RunPhase.FINISHED
    wait_until(lambda: writer.scheduler.status().phase is Phase.STOPPED)
    file.write_bytes((logdir / f"{file.name}.renamed").read_bytes())
    writer.scheduler.stop()
    assert writer.scheduler.trigger().result(SECONDS) is None


@pytest.mark.faults("P10")
def test_closing_again_does_nothing_and_a_write_after_close_is_pushed(
    write: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str, logdir: Path
) -> None:
    writer = write()
    writer.add_scalar("loss", 0.0, 0)
    threads = [threading.Thread(target=writer.close) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    writer.close()
    assert scalars(api, repo_id, "tensorboard/run-1") == {"loss": [(0, 0.0)]}
    writer.add_scalar("loss", 1.0, 1)
    writer.close()
    assert scalars(api, repo_id, "tensorboard/run-1") == {"loss": [(0, 0.0), (1, 1.0)]}
    assert len(list(logdir.glob("*.tfevents.*"))) == 2


@pytest.mark.faults("P5")
def test_the_users_exception_is_not_masked_by_a_failing_last_push(
    write: Callable[..., HFSummaryWriter], caplog: pytest.LogCaptureFixture
) -> None:
    import huggingface_hub

    nowhere = huggingface_hub.HfApi(endpoint="http://127.0.0.1:9", token="hf_none")
    failures: list[ErrorDetails] = []

    def train() -> None:
        with write(hf_api=nowhere, close_timeout=1, on_error=failures.append) as writer:
            writer.add_scalar("loss", 1.0, 0)
            raise KeyError("mine")

    with caplog.at_level(logging.WARNING, "hf_summary_writer"), pytest.raises(KeyError, match="mine"):
        train()
    assert "hf-summary-writer sync" in caplog.text
    assert "could not be pushed to" in caplog.text
    assert failures


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"repo_id": "a/b/c"}, ValueError),
        ({"repo_id": None}, TypeError),
        ({"repo_id": 0}, TypeError),
        ({"logdir": False}, TypeError),
        ({"commit_every": 0}, ValueError),
        ({"commit_every": "5"}, TypeError),
        ({"repo_type": "models"}, ValueError),
        ({"repo_revision": "a b"}, ValueError),
        ({"path_in_repo": "a/../b"}, ValueError),
        ({"repo_allow_patterns": [1]}, TypeError),
        ({"token": "hf_sécret"}, ValueError),
        ({"close_timeout": -1}, ValueError),
        ({"logdir": "s3://bucket/run"}, ValueError),
        ({"logdir": os.fsdecode(b"run\xff")}, ValueError),
        ({"logdir": None, "comment": "_lr\\1e-3"}, ValueError),
        ({"logdir": None, "comment": "_lr=0.001" * 30}, ValueError),
        ({"flush_secs": "120"}, TypeError),
        ({"filename_suffix": "-a\\b"}, ValueError),
        ({"filename_suffix": "-a\nb"}, ValueError),
        ({"hf_api": "hf_sécret"}, TypeError),
        ({"purge_step": 1.5}, TypeError),
    ],
    ids=str,
)
def test_invalid_arguments_raise_before_a_file_or_a_thread_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], kind: type[Exception]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = threading.active_count()
    with pytest.raises(kind) as caught:
        HFSummaryWriter(**{"repo_id": "user/run", "logdir": tmp_path / "new", **wrong})
    assert "sécret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        (("user/run",), {"every": 1}, r"every \(did you mean commit_every\?\)"),
        (
            ("user/run", "logs", 5),
            {},
            r"HFSummaryWriter.__init__\(\) takes from 1 to 3 positional arguments but 4 were",
        ),
        (("./runs/first",), {}, r"not a name the Hub allows.*for the folder, write logdir='./runs/first'"),
        (
            ("user/run", "logs"),
            {"repo_allow_patterns": 5},
            "repo_allow_patterns must be a str or a list of str, not int",
        ),
        (("user/run", "logs/a\\b"), {}, r"the last part of logdir 'a\\\\b' cannot be used"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named_with_those_that_were_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], named: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError), match=message):
        HFSummaryWriter(*arguments, **named)
    assert list(tmp_path.iterdir()) == []


def test_a_logdir_that_cannot_be_created_is_logged_and_does_not_raise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with HFSummaryWriter("user/run", logdir=tmp_path / "loop" / "run", token=False, close_timeout=0) as writer:
        writer.add_scalar("loss", 1.0)
    assert "cannot write event files" in caplog.text


@pytest.mark.faults("D19")
def test_a_run_stays_in_its_folder_when_a_link_to_it_changes(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "latest"
    link.symlink_to("one")
    with HFSummaryWriter(repo_id, logdir=link, hf_api=api, segment_bytes=500) as writer:
        writer.add_scalar("loss", 0.0, 0)
        writer.flush()
        link.unlink()
        link.symlink_to("two")
        for step in range(1, 30):
            writer.add_scalar("loss", step, step)
        writer.add_scalars("both", {"a": 1}, 1)
        writer.add_hparams({"lr": 0.1}, {"accuracy": 0.5}, name="trial")
        writer.add_embedding(np.eye(2), global_step=1)
    assert list((tmp_path / "two").iterdir()) == []
    assert events.steps(tmp_path / "one", "loss") == list(range(30))
    # The path in the repo has the link's name, and the projector's files are uploaded too.
    assert remote.files(api, repo_id) == {
        path: content
        for pattern in ("*.tfevents.*", "projector_config.pbtxt", "*.tsv")
        for path, content in remote.under(tmp_path / "one", "tensorboard/latest", pattern).items()
    }
    assert {path.name for path in (tmp_path / "one").iterdir()} >= {"both", "trial", "00001"}


def test_a_logdir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="logdir"):
        HFSummaryWriter("user/run", logdir=tmp_path / "file")


def test_one_of_two_writers_on_a_logdir_pushes_and_the_other_takes_over(
    write: Callable[..., HFSummaryWriter], api: HfApi, repo_id: str
) -> None:
    def steps_on_the_hub() -> list[int]:
        return [step for step, _ in scalars(api, repo_id, "tensorboard/run-1").get("loss", [])]

    first = write(commit_every=SECOND)
    first.add_scalar("loss", 1.0, 1)
    wait_until(lambda: first.scheduler.status().commit is not None)
    second = write(commit_every=SECOND)
    second.add_scalar("loss", 2.0, 2)
    wait_until(lambda: steps_on_the_hub() == [1, 2])
    assert [each.name for each in threading.enumerate()].count("hf-summary-writer-push") == 1
    assert first.scheduler._job.lease.held
    assert not second.scheduler._job.lease.held, "the first writer's scheduler holds the lease"
    first.close()
    second.add_scalar("loss", 3.0, 3)
    wait_until(lambda: steps_on_the_hub() == [1, 2, 3])
    assert second.scheduler._job.lease.held


def test_closing_names_the_link_although_another_writer_on_the_logdir_uploaded_the_events(
    write: Callable[..., HFSummaryWriter], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hf_summary_writer")
    first, second = write(), write()
    second.add_scalar("loss", 1.0, 1)
    second.flush()
    first.scheduler.trigger().result(SECONDS)
    assert "All of" not in caplog.text
    second.close()
    second.close()
    assert caplog.text.count(f"All of {second.logdir} is at {second.url}") == 1
    second.add_scalar("loss", 1.0, 2)
    second.close()
    assert caplog.text.count(f"All of {second.logdir} is at {second.url}") == 2


def test_a_run_is_uploaded_to_a_pull_request_without_a_request_for_a_branch(
    api: HfApi, hub: HubProcess, repo_id: str, tmp_path: Path
) -> None:
    api.create_repo(repo_id)
    pull = api.create_pull_request(repo_id, title="Logs")
    before = len(hub.requests)
    with HFSummaryWriter(repo_id, tmp_path / "run", hf_api=api, repo_revision=pull.git_reference) as writer:
        writer.add_scalar("loss", 1.0, 1)
    assert any("tfevents" in path for path in api.list_repo_files(repo_id, revision=pull.git_reference))
    assert not any("/branch/" in seen.path for seen in hub.requests[before:])


def test_a_missing_pull_request_is_reported_and_not_made(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    api.create_repo(repo_id)
    with HFSummaryWriter(repo_id, tmp_path / "run", hf_api=api, repo_revision="refs/pr/7") as writer:
        writer.add_scalar("loss", 1.0, 1)
        with pytest.raises(ActionNeededError, match=r"the branch or pull request of .* was not found .*refs/pr/7"):
            writer.scheduler.trigger().result(SECONDS)
