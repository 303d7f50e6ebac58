"""`CommitScheduler` with the local Hub, through the real client."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import socket
import threading
import time
import traceback
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

import remote
from events import wait_until
from hf_summary_writer import CommitScheduler
from hf_summary_writer.errors import TemporaryError
from hf_summary_writer.folder import STATE_FOLDER, is_locked
from hf_summary_writer.folder.snapshot import FileSnapshot
from hf_summary_writer.push import Phase
from hf_summary_writer.push.batches import BatchLimits
from hf_summary_writer.push.push import Pusher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hf_summary_writer.errors import CommitDetails, ErrorDetails
    from hub_process import HubProcess

pytestmark = [pytest.mark.client, pytest.mark.transport]  # the client uploads and commits

SECONDS = 60.0
HOUR = 60.0  # minutes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def schedule(api: HfApi, repo_id: str, folder: Path) -> Iterator[Callable[..., CommitScheduler]]:
    """Return a function that makes a scheduler and waits for its first push."""
    schedulers = []

    def make(kind: type[CommitScheduler] = CommitScheduler, **arguments: Any) -> CommitScheduler:
        settings = {"repo_id": repo_id, "folder_path": folder, "every": HOUR, "hf_api": api, **arguments}
        scheduler = kind(**settings)
        schedulers.append(scheduler)
        scheduler.trigger().exception(SECONDS)
        return scheduler

    yield make
    for scheduler in schedulers:
        scheduler.stop()


def test_the_constructor_and_an_idle_run_make_no_request(
    schedule: Callable[..., CommitScheduler], hub: HubProcess, folder: Path
) -> None:
    before = hub.requests
    scheduler = schedule()
    assert scheduler.trigger().result(SECONDS) is None
    assert folder.is_dir()
    scheduler.close()
    assert hub.requests == before


def test_files_written_before_a_trigger_are_in_its_commit(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path
) -> None:
    scheduler = schedule(path_in_repo="logs")
    (folder / "sub").mkdir()
    (folder / "a.jsonl").write_bytes(b"1\n")
    (folder / "sub" / "b.bin").write_bytes(bytes(range(256)) * 100)
    info = scheduler.trigger().result(SECONDS)
    assert info is not None
    assert remote.files(api, repo_id, revision=info.oid) == remote.under(folder, "logs", "*")
    assert scheduler.last_future is not None
    with (folder / "a.jsonl").open("ab") as file:
        file.write(b"2\n")
    later = scheduler.trigger().result(SECONDS)
    assert later is not None
    assert later.oid != info.oid
    assert remote.files(api, repo_id)["logs/a.jsonl"] == b"1\n2\n"


def test_an_unchanged_folder_makes_no_request(
    schedule: Callable[..., CommitScheduler], hub: HubProcess, folder: Path
) -> None:
    scheduler = schedule()
    (folder / "a.txt").write_bytes(b"1")
    assert scheduler.trigger().result(SECONDS) is not None
    before = hub.requests
    assert scheduler.trigger().result(SECONDS) is None
    assert hub.requests == before


def test_a_later_scheduler_on_the_folder_uploads_only_new_files(
    schedule: Callable[..., CommitScheduler], hub: HubProcess, api: HfApi, repo_id: str, folder: Path
) -> None:
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"1")
    schedule().close()
    before = hub.requests
    scheduler = schedule()
    assert hub.requests == before
    (folder / "b.txt").write_bytes(b"2")
    scheduler.close()
    assert remote.files(api, repo_id) == {"a.txt": b"1", "b.txt": b"2"}
    assert len(remote.commits(api, repo_id)) == 3  # the Hub's initial commit and one of each scheduler


@pytest.mark.faults
def test_a_folder_under_another_path_has_the_same_lock_and_ledger(
    schedule: Callable[..., CommitScheduler],
    hub: HubProcess,
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"1")
    first = schedule()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    before = hub.requests
    for name in (tmp_path / "link", "run", f"{folder}/", "link/../run/."):
        again = schedule(folder_path=name)
        assert again._job.lease.path == first._job.lease.path
        assert again._job.ledger.path == first._job.ledger.path
        again.close()
    assert hub.requests == before


def test_a_lost_ledger_causes_no_commit(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path
) -> None:
    scheduler = schedule()
    (folder / "a.txt").write_bytes(b"1")
    (folder / "a.tfevents.bin").write_bytes(b"")
    scheduler.close()
    for ledger in (folder / ".cache").rglob("*.jsonl"):
        ledger.unlink()
    before = remote.commits(api, repo_id)
    again = schedule()
    assert again.trigger().result(SECONDS) is None
    assert remote.commits(api, repo_id) == before


def test_patterns_choose_the_files_and_the_state_folder_is_never_pushed(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path
) -> None:
    folder.mkdir()
    for name in ("a.txt", "b.txt", "c.log", ".env"):
        (folder / name).write_bytes(b"1")
    scheduler = schedule(allow_patterns=["*.txt", ".env"], ignore_patterns="b*")
    scheduler.close()
    assert set(remote.files(api, repo_id)) == {"a.txt"}
    assert (folder / ".cache").is_dir()


def test_squashing_leaves_one_commit_and_the_same_files(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path
) -> None:
    scheduler = schedule(squash_history=True)
    for number in range(3):
        (folder / f"{number}.txt").write_bytes(b"1")
        assert scheduler.trigger().result(SECONDS) is not None
    assert len(remote.commits(api, repo_id)) == 1
    assert remote.files(api, repo_id) == remote.under(folder, "", "*")


@pytest.mark.parametrize("repo_type", ["dataset", "space"])
def test_datasets_spaces_and_new_branches_are_created(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path, repo_type: str
) -> None:
    scheduler = schedule(repo_type=repo_type, revision="runs/first", private=True)
    (folder / "a.txt").write_bytes(b"1")
    assert scheduler.trigger().result(SECONDS) is not None
    assert remote.files(api, repo_id, repo_type=repo_type, revision="runs/first")["a.txt"] == b"1"
    assert "a.txt" not in api.list_repo_files(repo_id, repo_type=repo_type)
    assert api.repo_info(repo_id, repo_type=repo_type).private
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi(endpoint=api.endpoint, token=False).repo_info(repo_id, repo_type=repo_type)


def test_an_existing_repo_keeps_its_files_and_visibility(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path
) -> None:
    api.create_repo(repo_id, private=False)
    api.upload_file(path_or_fileobj=b"theirs", path_in_repo="other.txt", repo_id=repo_id)
    scheduler = schedule(private=True)
    (folder / "a.txt").write_bytes(b"1")
    scheduler.close()
    assert remote.files(api, repo_id) == {"a.txt": b"1", "other.txt": b"theirs"}
    assert not api.repo_info(repo_id).private


def test_a_repo_without_a_namespace_belongs_to_the_user(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path
) -> None:
    name = repo_id.partition("/")[2]
    scheduler = schedule(repo_id=name)
    assert scheduler.repo_id == name
    (folder / "a.txt").write_bytes(b"1")
    scheduler.trigger().result(SECONDS)
    full = f"{api.whoami()['name']}/{name}"
    assert scheduler.repo_id == full
    assert remote.files(api, full) == {"a.txt": b"1"}
    assert schedule(repo_id=name).repo_id == full


def test_leaving_a_with_block_pushes_the_rest_and_ends_the_thread(api: HfApi, repo_id: str, folder: Path) -> None:
    with CommitScheduler(repo_id=repo_id, folder_path=folder, every=HOUR, hf_api=api) as scheduler:
        (folder / "a.txt").write_bytes(b"1")
    assert remote.files(api, repo_id) == {"a.txt": b"1"}
    (folder / "b.txt").write_bytes(b"2")
    scheduler.start()
    assert scheduler.trigger().result(SECONDS) is None
    assert remote.files(api, repo_id) == {"a.txt": b"1"}


@pytest.mark.parametrize("end", [CommitScheduler.close, CommitScheduler.stop])
def test_a_scheduler_that_has_ended_holds_no_lease_and_no_handler(
    schedule: Callable[..., CommitScheduler], folder: Path, end: Callable[[CommitScheduler], None]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    scheduler = schedule(push_on_sigterm=True)
    (folder / "a.txt").write_bytes(b"1")
    assert scheduler.trigger().result(SECONDS) is not None
    [lock] = (folder / STATE_FOLDER).glob("*.lease.lock")
    assert is_locked(lock)
    assert signal.getsignal(signal.SIGTERM) != before
    end(scheduler)
    assert signal.getsignal(signal.SIGTERM) == before
    wait_until(lambda: not is_locked(lock))


def test_a_trigger_after_close_raises_nothing_although_no_thread_can_be_started(
    schedule: Callable[..., CommitScheduler], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    scheduler = schedule()
    scheduler.close()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert scheduler.trigger().result(SECONDS) is None


def test_more_files_than_fit_a_commit_are_split_into_several(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path
) -> None:
    folder.mkdir()
    for number in range(230):
        (folder / f"{number:03}.txt").write_bytes(b"%d" % number)
    told: list[CommitDetails] = []
    schedule(on_commit=told.append).close()
    assert remote.files(api, repo_id) == remote.under(folder, "", "*")
    assert [details.files for details in told] == [100, 100, 30]
    assert told[0].repo_id == repo_id


def test_more_text_than_fits_a_commit_is_split_into_several(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path
) -> None:
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.jsonl").write_bytes(b'{"loss": %d}\n' % number * 250_000)  # 3 MB
        (folder / f"{number}.bin").write_bytes(os.urandom(3_000_000))
    told: list[CommitDetails] = []
    schedule(on_commit=told.append).close()
    assert remote.files(api, repo_id) == remote.under(folder, "", "*")
    # The first commit holds all binary files, each commit two text files.
    assert [details.files for details in told] == [8, 2, 2]
    assert sum(details.bytes for details in told) == sum(map(len, remote.under(folder, "", "*").values()))


def test_a_push_can_be_overridden(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path
) -> None:
    class OneFile(CommitScheduler):
        def push_to_hub(self) -> Any:
            with self.lock:
                names = sorted(path.name for path in self.folder_path.glob("*.txt"))
            return self.api.upload_file(
                path_or_fileobj="\n".join(names).encode(), path_in_repo="names", repo_id=self.repo_id
            )

    folder.mkdir()
    (folder / "a.txt").write_bytes(b"1")
    scheduler = schedule(OneFile)
    assert remote.files(api, repo_id) == {"names": b"a.txt"}
    scheduler.stop()


@pytest.mark.parametrize("name", ["push_to_hub", "_push_to_hub"])
def test_the_push_method_can_be_patched_on_the_class(
    schedule: Callable[..., CommitScheduler], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = object()
    monkeypatch.setattr(CommitScheduler, name, lambda _: commit)
    scheduler = schedule()
    assert scheduler.trigger().result(SECONDS) is commit


@pytest.mark.parametrize("name", ["push_to_hub", "_push_to_hub"])
def test_an_override_may_call_the_overridden_method(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path, name: str
) -> None:
    calls: list[CommitScheduler] = []

    def push(self: CommitScheduler) -> Any:
        (self.folder_path / "count").write_text(str(len(calls)))
        calls.append(self)
        return getattr(super(kind, self), name)()

    kind = type("Counting", (CommitScheduler,), {name: push})
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"1")
    scheduler = schedule(kind, squash_history=True)
    commit = scheduler.trigger().result(SECONDS)
    assert commit is not None
    scheduler.stop()
    assert calls
    assert set(calls) == {scheduler}
    assert remote.files(api, repo_id)["a.txt"] == b"1"
    assert remote.files(api, repo_id)["count"] == (folder / "count").read_bytes()
    assert len(remote.commits(api, repo_id)) == 1


def test_a_scheduler_has_the_attributes_that_subclasses_of_the_clients_use(
    schedule: Callable[..., CommitScheduler], folder: Path
) -> None:
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"1")
    scheduler = schedule(token=None)
    assert scheduler.token is None
    assert scheduler.last_future is not None
    assert scheduler.last_future.result(SECONDS) is not None
    thread = scheduler._scheduler_thread
    assert thread is not None
    assert thread.is_alive()
    scheduler.trigger().result(SECONDS)
    assert scheduler.last_uploaded == {folder / "a.txt": (folder / "a.txt").stat().st_mtime}
    scheduler.last_uploaded[folder / "own"] = 1.0
    assert scheduler.last_uploaded[folder / "own"] == 1.0
    scheduler.stop()


@pytest.mark.faults("C5")
def test_an_override_that_raises_or_hangs_is_contained(
    schedule: Callable[..., CommitScheduler], caplog: pytest.LogCaptureFixture
) -> None:
    slow = threading.Event()

    class Broken(CommitScheduler):
        trouble: BaseException | None = KeyError("bug")
        is_slow = False

        def push_to_hub(self) -> Any:
            if self.trouble is not None:
                raise self.trouble
            if self.is_slow:
                slow.wait(SECONDS)
            return None

    with caplog.at_level(logging.WARNING, "hf_summary_writer"):
        scheduler = schedule(Broken, close_timeout=0.5)
        # A failed push is retried after a random delay, so a retry may run before the push of a trigger.
        assert isinstance(scheduler.trigger().exception(SECONDS), KeyError)
        Broken.trouble = SystemExit(3)
        assert isinstance(scheduler.trigger().exception(SECONDS), SystemExit)
        Broken.trouble = None
        for _ in range(2):
            assert scheduler.trigger().result(SECONDS) is None
        # A push that exceeds `close_timeout` does not block `close`.
        Broken.is_slow = True
        began = time.monotonic()
        held_up = scheduler.trigger()
        scheduler.close()
        assert time.monotonic() - began < SECONDS / 2
        assert not held_up.done()
        slow.set()
        assert held_up.result(SECONDS) is None
    assert "bug" in caplog.text


def test_hooks_are_called_and_their_errors_are_contained(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> None:
        raise KeyError("hook")

    folder.mkdir()
    (folder / "a.txt").write_bytes(b"1")
    with caplog.at_level(logging.ERROR, "hf_summary_writer"):
        schedule(on_commit=broken).close()
    assert "hook" in caplog.text
    assert remote.files(api, repo_id) == {"a.txt": b"1"}
    failed: list[ErrorDetails] = []
    (folder / "b.txt").write_bytes(b"1")
    schedule(repo_id="somebody/else", hf_api=HfApi(endpoint=api.endpoint, token="wrong"), on_error=failed.append)
    assert failed[0].failures == 1


def test_a_hook_may_close_its_scheduler(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def close(_: object) -> None:
        (folder / "b.txt").write_bytes(b"2")
        scheduler.close()
        closed.set()

    closed = threading.Event()
    scheduler = schedule(on_commit=close, close_timeout=1e6)
    (folder / "a.txt").write_bytes(b"1")
    scheduler.trigger()
    assert closed.wait(SECONDS)
    scheduler.close()
    assert remote.files(api, repo_id) == {"a.txt": b"1", "b.txt": b"2"}
    assert caplog.messages == []


def test_a_failed_push_keeps_no_file_content_in_memory(schedule: Callable[..., CommitScheduler], folder: Path) -> None:
    def note(details: ErrorDetails) -> None:
        told.append("".join(traceback.format_exception(details.error)))
        held.append(bodies())

    def bodies() -> int:
        gc.collect()
        # By type(): reading `__class__` of some objects raises a warning.
        return sum(
            each.in_memory for each in gc.get_objects() if type(each) is FileSnapshot and each.relpath == "a.bin"
        )

    told: list[str] = []
    held: list[int] = []
    folder.mkdir()
    (folder / "a.bin").write_bytes(os.urandom(1_000_000))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # reserve a port on which nothing listens
        api = HfApi(endpoint=f"http://127.0.0.1:{closed.getsockname()[1]}", token="hf_nobody")
        scheduler = schedule(hf_api=api, on_error=note)
        scheduler.stop()
    assert scheduler.last_future is not None
    error = scheduler.last_future.exception(SECONDS)
    assert isinstance(error, TemporaryError)
    assert "cannot be reached" in str(error)
    assert bodies() == 0
    # The hook saw the content and the whole traceback.
    assert held[0] == 1_000_000
    assert "in _publish_together" in told[0]


def test_the_future_of_a_failed_override_has_its_error_without_frames(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(CommitScheduler):
        def push_to_hub(self) -> Any:
            try:
                raise KeyError("the key")
            except KeyError as error:
                raise ValueError("the override") from error

    api.create_repo(repo_id)
    with caplog.at_level(logging.WARNING, "hf_summary_writer"):
        scheduler = schedule(Broken)
    assert scheduler.last_future is not None
    error = scheduler.last_future.exception(SECONDS)
    assert isinstance(error, ValueError)
    assert (str(error), repr(error.__cause__)) == ("the override", "KeyError('the key')")
    assert error.__traceback__ is None
    assert error.__cause__ is not None
    assert error.__cause__.__traceback__ is None
    assert 'raise KeyError("the key")' in caplog.text


def test_files_are_not_read_while_the_user_holds_the_lock(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path
) -> None:
    scheduler = schedule()
    with scheduler.lock:
        (folder / "a.json").write_bytes(b"{half")
        future = scheduler.trigger()
        wait_until(lambda: scheduler.status().phase is Phase.PUSHING, SECONDS)
        assert not wait([future], 0.5).done
        (folder / "a.json").write_bytes(b"{whole}")
    info = future.result(SECONDS)
    assert info is not None
    assert remote.files(api, repo_id, revision=info.oid) == {"a.json": b"{whole}"}


def test_the_last_push_uploads_event_files_without_events(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path
) -> None:
    import tensorboardX

    tensorboardX.SummaryWriter(str(folder)).close()
    scheduler = schedule()
    assert scheduler.trigger().result(SECONDS) is None
    scheduler.close()
    assert remote.files(api, repo_id) == remote.under(folder, "")


def test_without_a_token_one_warning_explains_how_to_log_in(
    schedule: Callable[..., CommitScheduler], api: HfApi, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "hf_summary_writer"):
        scheduler = schedule(hf_api=HfApi(endpoint=api.endpoint))
        scheduler.trigger().exception(SECONDS)
        scheduler.stop()
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "hf auth login" in warnings[0].getMessage()


@pytest.mark.parametrize(
    "wrong",
    [
        {"repo_id": "a--b"},
        {"every": 0},
        {"every": -1},
        {"folder_path": "s3://bucket"},
        {"folder_path": ""},
        {"path_in_repo": "../x"},
        {"repo_type": "bin"},
        {"revision": "a b"},
        {"close_timeout": -1},
    ],
    ids=str,
)
def test_invalid_arguments_raise_before_anything_is_created(tmp_path: Path, wrong: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"repo_id": "user/run", "folder_path": tmp_path / "new", **wrong}
    before = threading.active_count()
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CommitScheduler(**settings)
    assert not (tmp_path / "new").exists()
    assert threading.active_count() == before


def test_a_push_lists_the_folder_once(
    schedule: Callable[..., CommitScheduler], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = schedule()
    (folder / "a.bin").write_bytes(b"1")
    listed: list[str] = []
    scandir = os.scandir

    def noting(path: Any = ".") -> Any:
        listed.append(str(path).rstrip("/"))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", noting)
    assert scheduler.trigger().result(SECONDS)
    assert listed.count(str(folder.resolve())) == 1


def test_a_deleted_folder_is_not_recreated(schedule: Callable[..., CommitScheduler], folder: Path) -> None:
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"1")
    scheduler = schedule()
    shutil.rmtree(folder)
    assert scheduler.trigger().result(SECONDS) is None
    scheduler.close()
    assert not folder.exists()


@pytest.mark.skipif(not hasattr(psutil.Process, "num_fds"), reason="the system does not count descriptors")
def test_private_copies_are_deleted_after_their_commit(
    schedule: Callable[..., CommitScheduler], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pusher, "limits", BatchLimits(bytes=10_000, bytes_in_memory=0))
    folder.mkdir()
    for number in range(60):
        (folder / f"{number}.bin").write_bytes(bytes([number]) * 1000)
    process = psutil.Process()
    descriptors: list[int] = []
    schedule(on_commit=lambda _: descriptors.append(process.num_fds()))
    assert len(descriptors) == 6
    assert max(descriptors) - min(descriptors) < 20  # ten copies, and the connections of the client


@pytest.mark.faults("M4")
@pytest.mark.parametrize("call", ["trigger", "close", "exit"])
def test_a_thread_that_the_system_refused_is_started_later(
    schedule: Callable[..., CommitScheduler],
    api: HfApi,
    repo_id: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        scheduler = schedule()
        (folder / "a.bin").write_bytes(b"1")
        scheduler.trigger()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    if call == "trigger":
        assert scheduler.trigger().result(SECONDS) is not None
    elif call == "close":
        scheduler.close()
    else:
        scheduler.at_exit()(False)
    assert remote.files(api, repo_id) == {"a.bin": b"1"}


def test_the_scheduler_that_creates_a_repo_sets_its_visibility(
    schedule: Callable[..., CommitScheduler], folder: Path, api: HfApi, repo_id: str
) -> None:
    before = schedule()
    folder.mkdir(exist_ok=True)
    (folder / "a.bin").write_bytes(b"1")
    before.stop()
    schedule(private=True)
    assert api.repo_info(repo_id).private
