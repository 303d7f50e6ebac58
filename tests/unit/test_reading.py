"""Logged scalars are read back as TensorBoard shows them."""

from __future__ import annotations

import errno
import io
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.compat.proto.event_pb2 import Event as TensorBoardEvent
from tensorboard.plugins.scalar import summary_v2
from tensorboard.util.tensor_util import make_tensor_proto
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

import events
from hf_summary_writer import read
from hf_summary_writer.events import EventWriter, frame
from hf_summary_writer.events.scalars import ScalarReader
from hf_summary_writer.events.tfrecord import payloads
from hf_summary_writer.reading import place_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def write(folder: Path, content: Iterable[bytes], name: str = "events.out.tfevents.1.host") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"".join(content))
    return folder / name


def plain(tag: str, step: int, value: float, wall_time: float = 1.0) -> bytes:
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    return frame(Event(wall_time=wall_time, step=step, summary=summary).SerializeToString())


def log(folder: Path, values: dict[str, list[float]], **options: Any) -> None:
    with EventWriter(folder, **options) as writer:
        for tag, numbers in values.items():
            for step, number in enumerate(numbers):
                writer.add_scalar(tag, number, step)


STEPS = [*range(20), 127, 128, 16383, 16384, 2**21 - 1, 2**21, 2**28 - 1, 2**28, 2**35, 2**62]


@pytest.mark.parametrize("writer_class", [EventWriter, SummaryWriter])
def test_scalars_are_read_as_tensorboard_shows_them(tmp_path: Path, writer_class: type[SummaryWriter]) -> None:
    with writer_class(str(tmp_path)) as writer:
        for step in STEPS:
            writer.add_scalar("loss", step / 7, step)
            writer.add_scalar("names/in groups", -step / 7, step, walltime=step + 0.5)
            writer.add_scalar("described", step, step, summary_description="of its own")
        writer.add_scalar("without a step", 3.0)
        writer.add_text("text", "no scalar", 1)
        writer.add_histogram("weights", np.arange(10), 1)
    found = read(tmp_path)["."]
    assert len(found) == 4
    for tag, scalars in found.items():
        assert list(zip(scalars.steps, scalars.values, strict=True)) == events.tensorboard_scalars(tmp_path, tag)
    assert found["names/in_groups"].wall_times.tolist() == [step + 0.5 for step in STEPS]
    assert found["loss"].values.dtype == np.float64
    assert found["loss"].steps.dtype == np.int64


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "longer/tag", "é"]),
            st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2**22),
            st.floats(width=32, allow_nan=False),
            st.floats(allow_nan=False),
        )
    )
)
def test_every_step_and_value_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, logged: list[tuple[str, int, float, float]]
) -> None:
    path = write(tmp_path_factory.mktemp("run"), [plain(*each) for each in logged])
    reader = ScalarReader(lambda _: True)
    assert reader.read(path) == 0
    found = [
        (tag, *numbers)
        for tag, scalars in reader.scalars().items()
        for numbers in zip(*(column.tolist() for column in scalars), strict=True)
    ]
    assert found == sorted(logged, key=lambda each: each[:2])


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.int64])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_scalars_of_tensorflow_2_are_read(tmp_path: Path, kind: type, as_bytes: bool) -> None:
    records = []
    for step in range(3):
        event = TensorBoardEvent(wall_time=1.0, step=step, summary=summary_v2.scalar_pb("loss", 0.0))
        tensor = make_tensor_proto(np.array(step, kind))
        if as_bytes:
            tensor = type(tensor)(dtype=tensor.dtype, tensor_content=np.array(step, kind).tobytes())
        event.summary.value[0].tensor.CopyFrom(tensor)
        if step:
            event.summary.value[0].ClearField("metadata")  # the first event of a tag has it
        records.append(frame(event.SerializeToString()))
    write(tmp_path, records)
    assert read(tmp_path)["."]["loss"].values.tolist() == [0.0, 1.0, 2.0]


def test_tensors_that_are_not_scalars_are_left_out(tmp_path: Path) -> None:
    event = TensorBoardEvent(step=1, summary=summary_v2.scalar_pb("loss", 0.0))
    event.summary.value[0].tensor.CopyFrom(make_tensor_proto(np.zeros(2, np.float32)))
    event.summary.value.add(tag="text", tensor=make_tensor_proto(np.float32(1.0)))
    write(tmp_path, [frame(event.SerializeToString())])
    assert read(tmp_path) == {}


def test_subfolders_are_separate_runs(tmp_path: Path) -> None:
    log(tmp_path, {"loss": [1.0]})
    log(tmp_path / "first", {"loss": [2.0]})
    with EventWriter(tmp_path / "first") as writer:
        writer.add_scalars("both", {"a": 1.0, "b": 2.0}, 0)
    assert list(read(tmp_path)) == [".", "first", "first/both/a", "first/both/b"]
    assert list(read(tmp_path, runs="first/*")) == ["first/both/a", "first/both/b"]
    assert list(read(str(tmp_path / "first"), "loss")) == ["."]


def test_files_of_a_run_are_merged_by_step(tmp_path: Path) -> None:
    write(tmp_path, [plain("loss", step, 1.0) for step in (1, 2, 3)], "events.out.tfevents.1.host")
    write(tmp_path, [plain("loss", step, 2.0) for step in (2, 3, 4)], "events.out.tfevents.2.host")
    found = read(tmp_path)["."]["loss"]
    assert list(zip(found.steps, found.values, strict=True)) == [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (4, 2)]


def test_purged_steps_are_left_out_as_in_tensorboard(tmp_path: Path) -> None:
    log(tmp_path, {"loss": [1.0] * 10, "other": [1.0] * 10})
    log(tmp_path, {"loss": [2.0] * 2}, purge_step=4)
    found = read(tmp_path)["."]
    assert found["other"].steps.tolist() == [0, 1, 2, 3]
    shown = events.tensorboard_scalars(tmp_path, "loss")
    assert sorted(shown) == list(zip(found["loss"].steps, found["loss"].values, strict=True))


def test_links_to_runs_are_followed_and_cycles_end(tmp_path: Path) -> None:
    log(tmp_path / "elsewhere", {"loss": [1.0]})
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "logs")
    assert list(read(tmp_path / "logs")) == ["linked"]


@pytest.mark.faults("D6")
def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    write(tmp_path / "run", [plain("loss", 1, 1.0)])
    os.mkfifo(tmp_path / "run" / "events.out.tfevents.2.host")
    (tmp_path / "run" / "events.out.tfevents.3.host").symlink_to("/dev/zero")
    assert list(read(tmp_path)["run"]) == ["loss"]


def test_damaged_data_is_skipped_and_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = [plain("loss", step, 1.0) for step in range(100)]
    for number in (3, 50, 51):
        records[number] = records[number][:-9] + b"\xff" * 5 + records[number][-4:]
    path = write(tmp_path, [*records[:90], frame(b"\xff\xff no event"), *records[90:], records[0][:-3]])
    assert read(tmp_path)["."]["loss"].steps.tolist() == [n for n in range(100) if n not in {3, 50, 51}]
    (line,) = caplog.messages
    assert line == f"{path} is damaged in 3 places; the data there was skipped"


def test_a_record_that_is_still_being_written_is_not_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = plain("loss", 1, 1.0)
    for cut in range(len(record)):
        path = write(tmp_path, [plain("loss", 0, 1.0), record[:cut]])
        assert read(tmp_path)["."]["loss"].steps.tolist() == [0], cut
    assert caplog.messages == []
    assert path.exists()


@given(st.binary(max_size=300), st.integers(0, 3))
def test_whole_records_are_found_around_any_bytes(noise: bytes, before: int) -> None:
    records = [b"", b"x" * 40, b"y" * 300]
    content = b"".join([*map(frame, records[:before]), noise, *map(frame, records[before:])])
    found = [each for each in payloads(io.BytesIO(content)) if each is not None]
    assert found == records


@pytest.mark.parametrize("length", [0, 255, 256, (1 << 20) - 20, 1 << 20, 3 << 20])
def test_records_of_any_length_are_read(length: int) -> None:
    records = [b"a", bytes(length), b"b" * 700_000, b"c"]
    assert list(payloads(io.BytesIO(b"".join(map(frame, records))))) == records


def test_very_long_records_are_skipped() -> None:
    records = [b"a", bytes((16 << 20) + 1), b"c"]
    assert list(payloads(io.BytesIO(b"".join(map(frame, records))))) == [b"a", b"c"]


def test_only_selected_values_are_kept_in_memory(tmp_path: Path) -> None:
    path = write(tmp_path, [plain("wanted" if n % 5 == 0 else "loss", n, 1.0) for n in range(100)])
    reader = ScalarReader("wanted".__eq__)
    assert reader.read(path) == 0
    assert [len(columns.steps) for columns in reader._columns.values()] == [20]
    assert set(reader.tags) == {"wanted", "loss"}


def test_the_error_for_an_unknown_tag_names_the_most_similar_ones(tmp_path: Path) -> None:
    log(tmp_path, {"train/loss": [1.0], "train/acc": [1.0], "lr": [1.0]})
    with pytest.raises(LookupError, match=r"has no tag 'train/los': there are 'train/loss', 'train/acc' and 1 more"):
        read(tmp_path, ["lr", "train/los"])
    with pytest.raises(LookupError, match=r"has no tag 'zzz\*': there are 'lr', 'train/acc', 'train/loss'$"):
        read(tmp_path, "zzz*")


def test_the_error_for_an_unknown_run_names_the_existing_ones(tmp_path: Path) -> None:
    log(tmp_path / "first", {"loss": [1.0]})
    with pytest.raises(LookupError, match="has no run 'frist': there are 'first'"):
        read(tmp_path, runs="frist")


def test_a_folder_without_event_files_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LookupError, match="has no event files"):
        read(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for missing in (tmp_path / "gone", str(tmp_path / "gone"), "./gone", "../gone"):
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            read(missing)


def test_a_tag_with_brackets_is_found_by_its_name(tmp_path: Path) -> None:
    write(tmp_path, [plain("layer[0]", 1, 1.0), plain("layer0", 1, 1.0)])
    assert list(read(tmp_path, "layer[0]")["."]) == ["layer0", "layer[0]"]
    assert list(read(tmp_path, "layer?0]")["."]) == ["layer[0]"]


def test_more_tags_than_the_cache_holds_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_summary_writer.events.scalars._MOST_PREFIXES", 3)
    write(tmp_path, [plain(f"tag{n % 10}", n, float(n)) for n in range(100)])
    found = read(tmp_path)["."]
    assert [found[f"tag{n}"].steps.tolist() for n in range(10)] == [list(range(n, 100, 10)) for n in range(10)]


def test_an_empty_path_is_not_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path, {"loss": [1.0]})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"is empty: use \. for the working folder"):
        read("")
    assert list(read(".")) == ["."]
    for wrong in (None, 3, b"."):
        with pytest.raises(TypeError, match="source must be a str or a path, not"):
            read(wrong)  # type: ignore[arg-type]


def test_a_folder_deleted_while_it_is_read_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path / "kept", {"loss": [1.0]})
    walk = os.walk

    def walk_and_delete(root: Path, **options: Any) -> Iterator[Any]:
        for found in walk(root, **options):
            if found[0] == str(root):
                yield str(root / "deleted"), [], ["events.out.tfevents.1.host"]
            yield found

    monkeypatch.setattr(os, "walk", walk_and_delete)
    assert list(read(tmp_path)) == ["kept"]


def test_a_file_deleted_while_the_folder_is_read_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path / "kept", {"loss": [1.0]})
    log(tmp_path / "deleted", {"loss": [1.0]})

    def delete_and_read(reader: ScalarReader, path: Path) -> int:
        shutil.rmtree(tmp_path / "deleted", ignore_errors=True)
        return read_file(reader, path)

    read_file = ScalarReader.read
    monkeypatch.setattr(ScalarReader, "read", delete_and_read)
    assert list(read(tmp_path)) == ["kept"]


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log(tmp_path / "kept", {"loss": [1.0]})
    log(tmp_path / "locked", {"loss": [1.0]})
    scandir = os.scandir

    def refuse(folder: str) -> Any:
        if str(folder).endswith("locked"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list(read(tmp_path)) == ["kept"]
    assert "locked cannot be listed: Permission denied; runs in it are left out" in caplog.text


def test_a_name_with_a_trailing_slash_is_a_folder() -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder 'nowhere/'"):
        read("nowhere/")


def test_an_event_file_in_the_place_of_its_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path, {"loss": [1.0]})
    monkeypatch.chdir(tmp_path)
    [path] = events.event_files(tmp_path)
    Path("notes").touch()  # as text, it may be the name of a repo
    for source in (path, str(path), path.name, Path("notes")):
        with pytest.raises(NotADirectoryError, match="is a file: give the folder of the run"):
            read(source)


def test_names_are_matched_with_their_case(tmp_path: Path) -> None:
    log(tmp_path / "Run", {"Loss": [1.0]})
    assert list(read(tmp_path, "L*", runs="R*")) == ["Run"]
    for tags, runs in (("l*", "R*"), ("L*", "r*")):
        with pytest.raises(LookupError, match="there are"):
            read(tmp_path, tags, runs=runs)


def test_the_error_for_an_unknown_tag_names_ten_of_many(tmp_path: Path) -> None:
    log(tmp_path, {f"{n:02}": [1.0] for n in range(12)})
    with pytest.raises(LookupError, match=r"there are '00', '01', .*, '09' and 2 more$"):
        read(tmp_path, "unknown")


@pytest.mark.parametrize(
    ("source", "arguments", "is_folder"),
    [
        ("run", {}, True),
        ("run", {"repo_type": "model"}, False),
        ("run", {"revision": "main"}, False),
        ("hf://run", {}, False),
        ("user/run", {}, False),
        ("user/notes", {}, False),  # the name of a file that is no event file
    ],
)
def test_a_name_is_a_folder_if_there_is_one_and_no_option_of_a_repo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, arguments: dict[str, str], is_folder: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "notes").touch()
    options: dict[str, Any] = {"repo_type": None, "revision": None, "token": None, "endpoint": "https://hub"}
    assert isinstance(place_of(source, **{**options, **arguments}), Path) is is_folder


@pytest.mark.parametrize("source", ["a/b/c", Path("user/run"), "~/run", "/nowhere/run", "run/"])
def test_a_path_that_no_repo_can_have_is_no_repo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read(source)
