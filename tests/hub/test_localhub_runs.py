"""The pages of repos and buckets show their runs, newest first, with charts."""

from __future__ import annotations

import random
import re
import struct
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import CommitOperationAdd
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from hf_summary_writer.localhub.runs import find
from hf_summary_writer.localhub.runs.eventfiles import read_scalars
from hf_summary_writer.localhub.runs.find import LoggedFile, RunFinder
from hf_summary_writer.push import RunPhase, RunState
from hub.wire import send

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from hub_process import HubProcess


def record(event: Event) -> bytes:
    data: bytes = event.SerializeToString()
    return struct.pack("<Q", len(data)) + bytes(4) + data + bytes(4)


def scalar(step: int, value: float, tag: str = "loss", time: float = 1_700_000_000.0) -> bytes:
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    return record(Event(wall_time=time + step, step=step, summary=summary))


def event_file(steps: int, **more: Any) -> bytes:
    version = record(Event(wall_time=1.0, file_version="brain.Event:2"))
    return version + b"".join(scalar(step, 1.0 / (step + 1), **more) for step in range(steps))


def test_scalars_are_read_from_pieces_of_any_size() -> None:
    content = event_file(50) + scalar(50, 5.0, "accuracy")
    whole = read_scalars([content])
    for size in (1, 7, 100):
        assert read_scalars(content[at : at + size] for at in range(0, len(content), size)) == whole
    assert (len(whole.points["loss"]), whole.points["accuracy"], whole.last_step) == (50, [(50, 5.0)], 50)


def test_large_records_are_skipped_and_damaged_ones_end_the_file() -> None:
    picture = record(Event(wall_time=1.0, summary=Summary(value=[Summary.Value(tag="x" * 300_000)])))
    assert read_scalars([scalar(1, 1.0) + picture + scalar(2, 2.0)]).points == {"loss": [(1, 1.0), (2, 2.0)]}
    assert read_scalars([scalar(1, 1.0), b"\xff" * 100, scalar(2, 2.0)]).points == {"loss": [(1, 1.0)]}
    assert read_scalars([scalar(1, float("nan"))]).points == {}
    random_bytes = random.Random(1).randbytes(10_000)
    assert read_scalars([random_bytes]).points == {}


def test_long_series_are_thinned_out() -> None:
    points = read_scalars([event_file(20_000)]).points["loss"]
    assert len(points) <= 4000
    assert (points[0][0], points[-1][0]) == (0, 19_999)


def test_runs_are_listed_newest_first_and_each_file_is_read_once() -> None:
    reads = []

    def logged(path: str, content: bytes) -> LoggedFile:
        def read() -> list[bytes]:
            reads.append(path)
            return [content]

        return LoggedFile(path, len(content), str(hash(content)), read)

    old, new = event_file(3), event_file(3, time=1_800_000_000.0)
    files = [logged("a/events.tfevents.1", old), logged("b/events.tfevents.1", new), logged("b/x.tfevents.2", old)]
    files.append(LoggedFile("c/large.tfevents.1", 10**12, "large", list))
    finder = RunFinder()
    runs = finder.find(files)
    assert [(run.name, run.files, run.left_out) for run in runs] == [("b", 2, 0), ("a", 1, 0), ("c", 1, 1)]
    assert [point[0] for point in runs[0].scalars.points["loss"]] == [0, 0, 1, 1, 2, 2]
    finder.find(files)
    assert len(reads) == 2


def test_the_number_of_cached_points_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "_REMEMBERED_POINTS", 25)
    finder = RunFinder()
    reads: list[str] = []

    def file(name: str) -> LoggedFile:
        def read() -> list[bytes]:
            reads.append(name)
            return [event_file(10)]

        return LoggedFile(f"{name}/a.tfevents.1", 1, name, read)

    for name in ("first", "second", "third", "second", "third", "first"):
        finder.find([file(name)])
    assert reads == ["first", "second", "third", "first"]


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_repo_shows_its_runs(hub: HubProcess, api: HfApi, repo_id: str, kind: str) -> None:
    api.create_repo(repo_id, repo_type=kind)
    files = {
        "tensorboard/first/events.out.tfevents.1": event_file(100),
        "tensorboard/second/events.out.tfevents.1": event_file(50, tag="<b>acc</b>", time=1_800_000_000.0),
    }
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    api.create_commit(repo_id, operations, commit_message="Add", repo_type=kind)
    path = f"/{repo_id}" if kind == "model" else f"/datasets/{repo_id}"
    text = send(hub, "GET", path).body.decode()
    assert text.index("tensorboard/second") < text.index("tensorboard/first")
    assert text.count("<polyline") == 2
    assert "step 99 · last event" in text
    assert "<b>acc" not in text
    option = "" if kind == "model" else " --repo-type dataset"
    assert f"HF_ENDPOINT={hub.endpoint} hf-summary-writer view {repo_id}{option}</code>" in text
    (folder,) = re.findall(r'href="([^"]*/tree/main/tensorboard/first)"', text)
    assert send(hub, "GET", folder).body.decode().count("<polyline") == 1


def test_a_bucket_shows_its_runs_and_files(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    if not hasattr(api, "create_bucket"):
        pytest.skip("this client has no buckets")
    url = api.create_bucket(repo_id)
    logs: list[tuple[Any, str]] = [
        (event_file(100), "runs/first/events.out.tfevents.1"),
        (b"x", "runs/notes.txt"),
        (b"", "empty.tfevents.1"),
    ]
    api.batch_bucket_files(repo_id, add=logs)
    text = send(hub, "GET", url.url).body.decode()
    assert text.count("<polyline") == 1
    assert f"hf-summary-writer view hf://buckets/{repo_id}" in text
    folder = send(hub, "GET", f"/buckets/{repo_id}/tree/runs").body.decode()
    assert ("notes.txt" in folder, "first/" in folder) == (True, True)
    assert f"/buckets/{repo_id}" in send(hub, "GET", "/").body.decode()
    for link in re.findall(r'href="(/[^"]*)"', text + folder):
        if repo_id in link:
            assert send(hub, "GET", link).status == 200, link


@pytest.mark.parametrize("kind", ["model", "bucket"])
def test_runs_are_shown_with_their_states(hub: HubProcess, api: HfApi, repo_id: str, kind: str) -> None:
    if kind == "bucket" and not hasattr(api, "create_bucket"):
        pytest.skip("this client has no buckets")
    now = time.time()
    state = RunState(RunPhase.RUNNING, now - 9e5, now - 8e5, now - 8e5, 60.0, "<b>node</b>", 0, "train.py", "1")
    states = {
        "": replace(state, phase=RunPhase.FAILED).encoded(),
        ".rank-3": replace(state, rank=3).encoded(),
        ".rank-4": b'{"state": "running"}',
        ".rank-5": b"x" * 100_000,
    }
    files = {f"run/hf-summary-writer{rank}.json": content for rank, content in states.items()}
    files["run/events.out.tfevents.1"] = event_file(10)
    if kind == "bucket":
        api.create_bucket(repo_id)
        api.batch_bucket_files(repo_id, add=[(content, path) for path, content in files.items()])
    else:
        api.create_repo(repo_id)
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        api.create_commit(repo_id, operations, commit_message="Add")
    text = send(hub, "GET", f"/{repo_id}" if kind == "model" else f"/buckets/{repo_id}").body.decode()
    assert "failed, last push 9 days ago: train.py on &lt;b&gt;node&lt;/b&gt;<" in text
    assert "stopped 9 days ago, no end was written: train.py on &lt;b&gt;node&lt;/b&gt; (rank 3)<" in text
    assert text.count("train.py") == 2
    assert "1 run<" in text


def test_a_private_bucket_has_no_page_without_a_token(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    if not hasattr(api, "create_bucket"):
        pytest.skip("this client has no buckets")
    api.create_bucket(repo_id, private=True)
    assert send(hub, "GET", f"/buckets/{repo_id}", token=None).status == 404
    assert repo_id not in send(hub, "GET", "/", token=None).body.decode()
    assert send(hub, "GET", f"/buckets/{repo_id}").status == 200
