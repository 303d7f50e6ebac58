"""Copied and pickled writers work in other processes, and never contain the token."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import HfApi

import events
import remote
import scripts
from aftermath import assert_sound
from hf_summary_writer import CommitScheduler, HFSummaryWriter
from hf_summary_writer.events import EventWriter
from hf_summary_writer.push import Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hub_process import HubProcess

CANARY = "hf_canary0123456789"


class Tagged(HFSummaryWriter):
    """A user's subclass with an attribute."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rank = 0


@pytest.mark.faults("P9")
@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda writer: pickle.loads(pickle.dumps(writer))])
def test_a_copy_is_a_working_writer_in_the_same_folder(
    api: HfApi, repo_id: str, logdir: Path, copied: Callable[[Tagged], Tagged], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The copy uses the stored token.
    monkeypatch.setenv("HF_TOKEN", str(api.token))
    settings: dict[str, Any] = {"commit_every": 60, "path_in_repo": "x", "segment_bytes": 10_000, "purge_step": 1}
    with Tagged(repo_id, logdir=logdir, hf_api=api, **settings) as writer:
        writer.rank = 3
        writer.add_scalar("original", 1, 1)
        with copied(writer) as other:
            other.add_scalar("copy", 2, 2)
            assert (other.rank, other.logdir, other.repo_id) == (3, str(logdir), repo_id)
            assert other.scheduler.path_in_repo == "x/run-1"
            assert other.purge_step is None
        writer.scheduler.trigger().result(60)
    assert events.steps(logdir, "original") == [1]
    assert events.steps(logdir, "copy") == [2]
    assert remote.files(api, repo_id) == remote.under(logdir, "x/run-1")
    assert_sound(logdir)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda writer: pickle.loads(pickle.dumps(writer))])
def test_a_copy_that_never_logs_leaves_no_file_and_pushes_nothing(
    repo_id: str,
    logdir: Path,
    caplog: pytest.LogCaptureFixture,
    copied: Callable[[HFSummaryWriter], HFSummaryWriter],
) -> None:
    caplog.set_level(logging.INFO)
    api = HfApi(endpoint="http://127.0.0.1:9", token=CANARY)
    with HFSummaryWriter(repo_id, logdir=logdir, hf_api=api, close_timeout=0, log_environment=True) as writer:
        before = events.event_files(logdir)
        for _ in range(3):
            with copied(writer) as other:
                assert other.scheduler.status().phase is Phase.STOPPED
                assert other.event_files == []
        assert events.event_files(logdir) == before
        assert "another open writer" not in caplog.text


def test_a_copy_of_a_local_writer_opens_its_file_with_its_first_event(logdir: Path) -> None:
    with EventWriter(logdir) as writer, copy.deepcopy(writer) as other:
        assert len(events.event_files(logdir)) == 1
        other.add_scalar("copy", 1.0, 1)
        assert len(other.event_files) == 1
    assert events.steps(logdir, "copy") == [1]


def test_a_copy_in_another_working_folder_logs_to_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_SUMMARY_WRITER_MODE", "disabled")
    monkeypatch.chdir(tmp_path)
    with HFSummaryWriter("user/run", logdir="run") as writer:
        pickled = pickle.dumps(writer)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pickle.loads(pickled) as other:
        other.add_scalar("copy", 1.0, 1)
    assert events.steps(tmp_path / "run", "copy") == [1]


@pytest.mark.faults
def test_pickle_repr_and_state_files_hold_no_token(repo_id: str, logdir: Path) -> None:
    quiet: dict[str, Any] = {"logdir": logdir, "repo_allow_patterns": "none"}
    api = HfApi(endpoint="http://127.0.0.1:9", token=CANARY)
    for more in ({"token": CANARY}, {"hf_api": api}):
        with HFSummaryWriter(repo_id, **quiet, **more) as writer:
            pickled = pickle.dumps(writer)
            shown = repr(writer) + repr(writer.scheduler) + repr(vars(writer)) + repr(vars(writer.scheduler))
        assert CANARY.encode() not in pickled
        assert CANARY not in shown
        with pickle.loads(pickled) as other:
            assert other.scheduler.api.token is None
            assert other.scheduler.api.endpoint == writer.scheduler.api.endpoint
    assert not [path for path in logdir.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


@pytest.mark.faults
def test_pickling_a_scheduler_raises_an_explanation(logdir: Path) -> None:
    scheduler = CommitScheduler(repo_id="user/run", folder_path=logdir, token=CANARY)
    scheduler.stop()
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="make one where it is needed") as caught:
            attempt(scheduler)
        assert CANARY not in str(caught.value)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.faults
def test_a_writer_can_be_passed_to_a_new_process(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, tmp_path: Path, method: str
) -> None:
    # A file, since the children import it; importing it and our package starts no thread.
    (tmp_path / "worker.py").write_text(
        "import threading\n"
        "from hf_summary_writer import HFSummaryWriter\n"
        "assert threading.active_count() == 1\n"
        "def work(writer, number):\n"
        "    for step in range(50):\n"
        "        writer.add_scalar(f'worker{number}', step, step)\n"
    )
    ended = scripts.run(
        f"""
        import multiprocessing
        sys.path.insert(0, {str(tmp_path)!r})
        from worker import work
        writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60, token=os.environ["HF_TOKEN"])
        writer.add_scalar("parent", 0, 0)  # a file without an event is uploaded only together with another file
        context = multiprocessing.get_context({method!r})
        workers = [context.Process(target=work, args=(writer, number)) for number in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        """,
        hub, logdir, repo_id,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    for number in range(2):
        assert events.steps(logdir, f"worker{number}") == list(range(50))
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
    assert_sound(logdir)
