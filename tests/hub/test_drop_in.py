"""Code written for another `SummaryWriter` works with ours."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import tensorboardX
from tensorboard.compat.proto import event_pb2 as their_event
from tensorboard.compat.proto import summary_pb2 as their_summary
from tensorboardX.proto import event_pb2, summary_pb2

from events import event_files, logged, scalars
from hf_summary_writer import HFSummaryWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from huggingface_hub import HfApi


@pytest.fixture
def make(api: HfApi, repo_id: str) -> Iterator[Callable[..., Any]]:
    writers = []

    def new(kind: type[HFSummaryWriter], *arguments: Any, **keywords: Any) -> HFSummaryWriter:
        writer = kind(repo_id, *arguments, commit_every=60, hf_api=api, **keywords)
        writers.append(writer)
        return writer

    yield new
    for writer in writers:
        writer.close()


@pytest.mark.parametrize("as_", [str, os.fspath, lambda path: path], ids=["str", "fspath", "Path"])
@pytest.mark.parametrize("name", [None, "logdir", "log_dir"])
def test_logdir_is_accepted_by_position_and_by_either_name(
    make: Callable[..., HFSummaryWriter], tmp_path: Path, as_: Callable[[Path], Any], name: str | None
) -> None:
    given = as_(tmp_path / "run")
    writer = make(HFSummaryWriter, given) if name is None else make(HFSummaryWriter, **{name: given})
    assert writer.logdir == writer.log_dir == writer.get_logdir() == str(tmp_path / "run")
    assert writer.scheduler.folder_path == tmp_path / "run"


def test_any_path_like_object_is_accepted_as_logdir(make: Callable[..., HFSummaryWriter], tmp_path: Path) -> None:
    class Place:
        def __fspath__(self) -> str:
            return str(tmp_path / "run")

    assert make(HFSummaryWriter, Place()).logdir == str(tmp_path / "run")


def test_subclasses_extend_methods_through_super(make: Callable[..., HFSummaryWriter], tmp_path: Path) -> None:
    class Counting(HFSummaryWriter):
        def __init__(self, *arguments: Any, prefix: str, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self.prefix = prefix
            self.calls = 0

        def add_scalar(self, tag: str, *arguments: Any, **keywords: Any) -> None:
            self.calls += 1
            super().add_scalar(self.prefix + tag, *arguments, **keywords)

        def close(self) -> None:
            super().add_text("closed", "yes")
            super().close()

    writer: Any = make(Counting, tmp_path, prefix="mine/")
    writer.add_scalar("loss", 1.0, 1)
    writer.add_scalar("loss", 2.0, global_step=2)
    writer.close()
    assert scalars(tmp_path, "mine/loss") == [(1, 1.0), (2, 2.0)]
    assert writer.calls == 2
    assert isinstance(writer, tensorboardX.SummaryWriter)


def test_a_mixin_before_the_class_sees_every_call(make: Callable[..., HFSummaryWriter], tmp_path: Path) -> None:
    class Doubling:
        def add_scalar(self, tag: str, value: float, *arguments: Any) -> None:
            super().add_scalar(tag, 2 * value, *arguments)  # type: ignore[misc]

    class Mixed(Doubling, HFSummaryWriter):
        pass

    with make(Mixed, tmp_path) as writer:
        writer.add_scalar("loss", 2.0, 1)
    assert scalars(tmp_path, "loss") == [(1, 4.0)]


@pytest.mark.parametrize("summaries", [summary_pb2, their_summary])
@pytest.mark.parametrize("events", [event_pb2, their_event])
def test_protocol_buffers_of_tensorboard_and_tensorboardx_are_accepted(
    make: Callable[..., HFSummaryWriter], tmp_path: Path, summaries: Any, events: Any
) -> None:
    summary = summaries.Summary(value=[summaries.Summary.Value(tag="loss", simple_value=0.5)])
    event = events.Event()
    event.summary.value.add(tag="loss", simple_value=0.5)
    with make(HFSummaryWriter, tmp_path) as writer:
        writer.file_writer.add_summary(summary, 1)
        writer._get_file_writer().add_summary(summary, global_step=2, walltime=9.0)
        writer.file_writer.add_event(event, 3)
        event.step = 4
        writer._get_file_writer().event_writer.add_event(event)
        writer.all_writers[str(tmp_path)].flush()
    assert scalars(tmp_path, "loss") == [(step, 0.5) for step in (1, 2, 3, 4)]


def test_file_writer_is_none_from_the_end_of_a_with_block_to_the_next_call(
    make: Callable[..., HFSummaryWriter], tmp_path: Path
) -> None:
    with make(HFSummaryWriter, tmp_path, filename_suffix=".mine") as writer:
        writer.add_scalar("loss", 1.0)
    assert writer.file_writer is None
    assert writer.all_writers is None
    writer.add_text("note", "once more")
    assert writer.file_writer is not None
    writer.close()
    assert len(event_files(tmp_path)) == 2
    assert all(path.name.endswith(".mine") for path in event_files(tmp_path))


def test_the_purge_step_is_written_once_when_the_writer_is_reopened(
    make: Callable[..., HFSummaryWriter], tmp_path: Path
) -> None:
    writer = make(HFSummaryWriter, tmp_path, purge_step=7)
    for step in range(8, 11):
        writer.add_scalar("loss", 1.0, step)
        writer.close()
    starts = [event.step for event in logged(tmp_path) if event.WhichOneof("what") == "session_log"]
    assert starts == [7]


def test_hparams_without_metrics_may_be_written_to_the_run_itself(
    make: Callable[..., HFSummaryWriter], tmp_path: Path
) -> None:
    with make(HFSummaryWriter, tmp_path / "run") as writer:
        writer.add_hparams({"lr": 0.1, "opt": "adam"}, {}, run_name=".")
        writer.add_hparams({"lr": 0.1}, {}, "beside")
    assert {path.parent.name for path in event_files(tmp_path)} == {"run", "beside"}
    plugins = [
        value.metadata.plugin_data.plugin_name for event in logged(tmp_path / "run") for value in event.summary.value
    ]
    assert plugins == ["hparams"] * 3


def test_methods_that_only_tensorboardx_has_are_supported(make: Callable[..., HFSummaryWriter], tmp_path: Path) -> None:
    network = (
        '<?xml version="1.0"?><net name="n"><layers><layer id="0" name="x" type="Parameter" version="opset1">'
        '<output><port id="0" precision="FP32"><dim>1</dim></port></output></layer></layers><edges/></net>'
    )
    (tmp_path / "net.xml").write_text(network)
    with make(HFSummaryWriter, tmp_path / "run") as writer:
        writer.add_openvino_graph(str(tmp_path / "net.xml"))
        writer.add_scalars("group", {"a": 1.0}, 1)
        writer.export_scalars_to_json(tmp_path / "all.json")
        with writer.use_metadata(global_step=5, walltime=2.0) as same:
            assert same is writer
            writer.add_scalar("loss", 1.0)
    assert "group/a" in (tmp_path / "all.json").read_text()
    assert any(event.graph_def for event in logged(tmp_path / "run"))
    assert scalars(tmp_path / "run", "loss") == [(5, 1.0)]
