"""Pushes to a storage bucket, through the real client."""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
from huggingface_hub import CommitInfo

import remote
import scripts
from faults.proxy import Answer, FaultProxy
from hf_summary_writer import CommitScheduler, HFSummaryWriter
from hf_summary_writer.errors import PushError, RepoGoneError
from hf_summary_writer.events import file_version, frame
from hf_summary_writer.hub import bucket
from hf_summary_writer.push import job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from huggingface_hub import HfApi

    from hf_summary_writer.errors import CommitDetails
    from hub_process import HubProcess

needs_a_client_for_buckets = pytest.mark.skipif(
    tuple(map(int, huggingface_hub.__version__.split(".")[:2])) < (1, 33), reason="this client cannot push to buckets"
)

pytestmark = [pytest.mark.client, needs_a_client_for_buckets]  # the client uploads and sends batches

SECONDS = 60.0
HOUR = 60.0  # minutes
BUCKET: dict[str, Any] = {"repo_type": "bucket"}


@pytest.fixture
def schedule(api: HfApi, repo_id: str, folder: Path) -> Iterator[Callable[..., CommitScheduler]]:
    """Return a function that makes a scheduler and waits for its first push."""
    schedulers = []

    def make(**arguments: Any) -> CommitScheduler:
        settings = {"repo_id": repo_id, "folder_path": folder, "every": HOUR, "hf_api": api, **BUCKET, **arguments}
        schedulers.append(CommitScheduler(**settings))
        schedulers[-1].trigger().exception(SECONDS)
        return schedulers[-1]

    yield make
    for scheduler in schedulers:
        scheduler.stop()


def test_a_writer_pushes_to_a_bucket_and_uploads_the_rest_at_close(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    done: list[CommitDetails] = []
    uri = f"hf://buckets/{repo_id}/logs"
    with HFSummaryWriter(uri, logdir=tmp_path / "run", commit_every=HOUR, hf_api=api, on_commit=done.append) as writer:
        writer.add_scalar("loss", 1.0, 1)
        receipt = writer.scheduler.trigger().result(SECONDS)
        assert isinstance(receipt, CommitInfo)
        assert receipt.oid is None
        assert receipt.commit_url == f"{api.endpoint}/buckets/{repo_id}"
        assert pickle.loads(pickle.dumps(receipt)).commit_url == receipt.commit_url
        assert writer.url == f"{api.endpoint}/buckets/{repo_id}/tree/logs/run"
        writer.add_scalar("loss", 0.5, 2)
    assert remote.files(api, repo_id, **BUCKET) == remote.under(tmp_path / "run", "logs/run")
    assert [(details.oid, details.files) for details in done] == [(None, 1), (None, 1)]
    assert writer.scheduler.status().all_arrived


def test_a_bucket_without_a_namespace_belongs_to_the_user(api: HfApi, folder: Path) -> None:
    (folder / "a.txt").write_text("1")
    name = "bucket-of-the-user"
    with CommitScheduler(repo_id=name, folder_path=folder, hf_api=api, private=True, **BUCKET) as scheduler:
        scheduler.trigger().result(SECONDS)
    full = f"{api.whoami()['name']}/{name}"
    assert scheduler.repo_id == full
    assert api.bucket_info(full).private
    assert remote.files(api, full, **BUCKET) == {"a.txt": b"1"}


def test_the_default_interval_is_15_seconds(api: HfApi, repo_id: str, folder: Path) -> None:
    with CommitScheduler(repo_id=repo_id, folder_path=folder, hf_api=api, **BUCKET) as scheduler:
        assert scheduler.every == 0.25
    with CommitScheduler(repo_id=repo_id, folder_path=folder, hf_api=api) as scheduler:
        assert scheduler.every == 5


def test_a_push_of_a_grown_file_makes_two_api_requests(
    schedule: Callable[..., CommitScheduler], hub: HubProcess, folder: Path
) -> None:
    scheduler = schedule()
    (folder / "a.bin").write_bytes(b"1" * 1000)
    assert scheduler.trigger().result(SECONDS) is not None
    with (folder / "a.bin").open("ab") as file:
        file.write(b"2" * 1000)
    before = len(hub.requests)
    assert scheduler.trigger().result(SECONDS) is not None
    asked = [seen.path for seen in hub.requests[before:] if "/api/" in seen.path]
    assert [path.rpartition("/")[2] for path in asked] == ["xet-write-token", "batch"]
    sent = len(hub.requests)
    assert scheduler.trigger().result(SECONDS) is None
    assert len(hub.requests) == sent


def test_a_later_scheduler_on_the_folder_uploads_only_new_files(
    schedule: Callable[..., CommitScheduler], hub: HubProcess, api: HfApi, repo_id: str, folder: Path
) -> None:
    (folder / "a.txt").write_bytes(b"1")
    schedule().close()
    before = hub.requests
    scheduler = schedule()
    assert hub.requests == before
    (folder / "b.txt").write_bytes(b"2")
    receipt = scheduler.trigger().result(SECONDS)
    assert isinstance(receipt, bucket_receipt())
    assert (receipt.files, receipt.bytes) == (1, 1)
    assert remote.files(api, repo_id, **BUCKET) == {"a.txt": b"1", "b.txt": b"2"}


def bucket_receipt() -> type[Any]:
    from hf_summary_writer.hub.receipt import BucketReceipt

    return BucketReceipt


def test_empty_files_and_files_in_folders_are_pushed(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path
) -> None:
    (folder / "sub").mkdir()
    (folder / "empty.txt").write_bytes(b"")
    (folder / "sub" / "ä b.bin").write_bytes(bytes(range(256)) * 100)
    schedule(path_in_repo="logs")
    assert remote.files(api, repo_id, **BUCKET) == remote.under(folder, "logs", "*")


def test_writers_of_one_process_share_a_batch(api: HfApi, repo_id: str, tmp_path: Path, hub: HubProcess) -> None:
    done: list[CommitDetails] = []
    writers = [
        HFSummaryWriter(
            repo_id, logdir=tmp_path / f"run-{n}", commit_every=HOUR, hf_api=api, on_commit=done.append, **BUCKET
        )
        for n in range(8)
    ]
    for writer in writers:
        writer.add_scalar("loss", 1.0, 1)
    futures = [writer.scheduler.trigger() for writer in writers]
    for future in futures:
        future.result(SECONDS)
    before = len(hub.requests)
    for writer in writers:
        writer.add_scalar("loss", 2.0, 2)
    futures = [writer.scheduler.trigger() for writer in writers]
    receipts = {id(future.result(SECONDS)) for future in futures}
    assert len(receipts) < 8
    assert len([seen for seen in hub.requests[before:] if "/api/" in seen.path]) < 2 * 8
    for writer in writers:
        writer.close()
    expected: dict[str, bytes] = {}
    for n in range(8):
        expected |= remote.under(tmp_path / f"run-{n}", f"tensorboard/run-{n}")
    assert remote.files(api, repo_id, **BUCKET) == expected


def test_a_file_that_the_bucket_refuses_does_not_hold_back_others(
    schedule: Callable[..., CommitScheduler],
    api: HfApi,
    repo_id: str,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scheduler = schedule()
    deep = folder.joinpath(*["x" * 200] * 6)  # the Hub takes paths of up to 1,024 bytes
    deep.mkdir(parents=True)
    (deep / "a.txt").write_bytes(b"1")
    (folder / "b.txt").write_bytes(b"2")
    receipt = scheduler.trigger().result(SECONDS)
    assert isinstance(receipt, bucket_receipt())
    assert receipt.files == 1
    assert remote.files(api, repo_id, **BUCKET) == {"b.txt": b"2"}
    status = scheduler.status()
    assert (status.pending.files, status.pending.refused, status.all_arrived) == (0, 1, False)
    assert [record for record in caplog.records if "1024 bytes" in record.getMessage()]


def test_a_longer_file_from_elsewhere_is_kept_under_another_name(
    schedule: Callable[..., CommitScheduler],
    api: HfApi,
    repo_id: str,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    api.create_bucket(repo_id)
    api.batch_bucket_files(repo_id, add=[(b"longer", "a.txt"), (b"1", "b.txt")])
    (folder / "a.txt").write_bytes(b"short")
    (folder / "b.txt").write_bytes(b"22")
    caplog.set_level(logging.WARNING)
    scheduler = schedule()
    there = remote.files(api, repo_id, **BUCKET)
    [kept] = there.keys() - {"a.txt", "b.txt"}
    assert kept.startswith("a.txt.replaced-")
    assert there == {"a.txt": b"short", "b.txt": b"22", kept: b"longer"}
    assert len([record for record in caplog.records if "it is kept there as" in record.getMessage()]) == 1
    (folder / "a.txt").write_bytes(b"x")  # our own file may become shorter
    scheduler.trigger().result(SECONDS)
    assert remote.files(api, repo_id, **BUCKET) == {"a.txt": b"x", "b.txt": b"22", kept: b"longer"}


def test_a_deleted_bucket_is_not_recreated_and_gets_all_files_once_it_exists(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path
) -> None:
    (folder / "a.txt").write_bytes(b"1")
    scheduler = schedule()
    api.delete_bucket(repo_id)
    with (folder / "a.txt").open("ab") as file:  # to push a file of the ledger, a token is requested first
        file.write(b"2")
    assert isinstance(scheduler.trigger().exception(SECONDS), RepoGoneError)
    api.create_bucket(repo_id)
    (folder / "b.txt").write_bytes(b"2")
    scheduler.trigger().result(SECONDS)
    assert remote.files(api, repo_id, **BUCKET) == {"a.txt": b"12", "b.txt": b"2"}


def test_a_file_removed_from_the_bucket_is_uploaded_again_at_close(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path
) -> None:
    (folder / "a.txt").write_bytes(b"1")
    scheduler = schedule()
    api.batch_bucket_files(repo_id, delete=["a.txt"])
    (folder / "b.txt").write_bytes(b"2")
    scheduler.close()
    assert remote.files(api, repo_id, **BUCKET) == {"a.txt": b"1", "b.txt": b"2"}


@pytest.mark.faults("N20")
@pytest.mark.parametrize(
    "odd", [{"path": None}, {"path": 5, "size": 9}, {"path": "a.txt", "size": 9, "xetHash": "/../"}]
)
def test_a_listing_with_invalid_values_does_not_prevent_an_upload(
    client: Callable[..., HfApi], hub: HubProcess, repo_id: str, folder: Path, odd: dict[str, object]
) -> None:
    (folder / "a.txt").write_bytes(b"1")
    listing = json.dumps([{"type": "file", "size": "x", "xetHash": 4, **odd}]).encode()
    with FaultProxy(hub) as proxy:
        proxy.add("POST", "/paths-info", Answer(200, {"Content-Type": "application/json"}, listing), float("inf"))
        api = client(proxy)
        with CommitScheduler(repo_id=repo_id, folder_path=folder, every=HOUR, hf_api=api, **BUCKET) as scheduler:
            error = scheduler.trigger().exception(SECONDS)
            assert error is None or isinstance(error, PushError)
        assert remote.files(api, repo_id, **BUCKET) == {"a.txt": b"1"}


@pytest.mark.faults("N16")
@pytest.mark.parametrize("later", [False, True], ids=["at the end", "by a later process"])
def test_a_file_replaced_by_one_of_the_same_size_is_uploaded_again(
    schedule: Callable[..., CommitScheduler],
    api: HfApi,
    repo_id: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    later: bool,
) -> None:
    monkeypatch.setattr(job, "_SECONDS_UNTIL_COMPARED", 0.0)
    (folder / "a.txt").write_bytes(b"1")
    (folder / "events.out.tfevents.1.host").write_bytes(frame(file_version(1.0)) + frame(b"1" * 500))
    uploaded = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    scheduler = schedule()
    if later:
        scheduler.stop()
    api.batch_bucket_files(repo_id, add=[(bytes(len(content)), name) for name, content in uploaded.items()])
    if later:
        scheduler = schedule()
    else:
        (folder / "b.txt").write_bytes(b"2")
        uploaded["b.txt"] = b"2"
    scheduler.close()
    assert remote.files(api, repo_id, **BUCKET) == uploaded


def test_without_the_clients_private_class_files_are_compared_by_size(
    schedule: Callable[..., CommitScheduler], api: HfApi, repo_id: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import _buckets

    class Changed(_buckets._BucketAddFile):
        def __init__(self, *, source: Any, destination: str) -> None:
            super().__init__(source, destination)

    monkeypatch.setattr(_buckets, "_BucketAddFile", Changed)
    (folder / "a.txt").write_bytes(b"1")
    schedule().close()
    assert remote.files(api, repo_id, **BUCKET) == {"a.txt": b"1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"repo_revision": "dev"}, "no branches"), ({"squash_history": True}, "no history")],
)
def test_arguments_that_a_bucket_does_not_support_are_refused_at_once(
    repo_id: str, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    for repo in ({"repo_id": repo_id, **BUCKET}, {"repo_id": f"hf://buckets/{repo_id}"}):
        with pytest.raises(ValueError, match=message):
            HFSummaryWriter(logdir=tmp_path / "run", **repo, **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["1.4.1", "1.32.0", "1.5.0rc1"])
def test_a_client_that_hides_partial_failures_is_refused_at_once(
    repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(huggingface_hub, "__version__", version)
    with pytest.raises(ValueError, match=r"huggingface_hub 1\.33 or later"):
        HFSummaryWriter(repo_id, logdir=tmp_path / "run", **BUCKET)
    with pytest.raises(ValueError, match=r"huggingface_hub 1\.33 or later"):
        CommitScheduler(repo_id=repo_id, folder_path=tmp_path / "run", **BUCKET)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(huggingface_hub, "__version__", "10.0.dev0")
    bucket.check_client("bucket")


PROCESS = """
with HFSummaryWriter(repo_id, logdir=logdir, commit_every=0.02, close_timeout=60) as writer:
    for step in range(40):
        writer.add_scalar("loss", step, step)
        time.sleep(0.05)
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("processes", [4, pytest.param(30, marks=pytest.mark.slow)])
def test_processes_push_to_one_bucket_concurrently(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, processes: int
) -> None:
    names = [f"run-{number}" for number in range(processes)]
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(scripts.start(PROCESS, hub, tmp_path / name, f"hf://buckets/{repo_id}"))
            for name in names
        ]
        for process in started:
            _, err = process.communicate(timeout=240)
            assert process.returncode == 0, err
            assert "WARNING" not in err
    expected: dict[str, bytes] = {}
    for name in names:
        expected |= remote.under(tmp_path / name, f"tensorboard/{name}")
    assert remote.files(api, repo_id, **BUCKET) == expected
