"""Behaviour that tensorboardX's users and tests rely on besides values: arguments, layouts, warnings, files."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorboardX
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
from tensorboardX.proto.event_pb2 import Event

import events
import signatures
from equality import Call, contents, perform, same, show
from events import event_files, scalars
from hf_summary_writer.events.writer import EventWriter

pytestmark = [
    pytest.mark.usefixtures("collect_tensorboardx_writers"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

NETWORK = (
    '<?xml version="1.0"?><net name="n"><layers><layer id="0" name="x" type="Parameter" version="opset1">'
    '<output><port id="0" precision="FP32"><dim>1</dim></port></output></layer>'
    '<layer id="1" name="y" type="Result" version="opset1"><input><port id="0"><dim>1</dim></port></input></layer>'
    '</layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges></net>'
)


def test_every_keyword_of_tensorboardx_is_accepted() -> None:
    # A name listed here is new in tensorboardX or has a new default there: support it, and add a test.
    assert signatures.strangers(tensorboardX.SummaryWriter) == []


def test_arguments_have_the_positions_of_tensorboardx() -> None:
    # These two distinguish arguments by type; other tests call them by position.
    assert signatures.displaced(tensorboardX.SummaryWriter) == {"add_hparams", "add_image_with_boxes"}


def test_new_keywords_and_methods_of_a_library_are_detected() -> None:
    class Newer(tensorboardX.SummaryWriter):  # type: ignore[misc]
        def add_text(self, tag: str, text_string: str, global_step: Any = 0, *, language: str = "en") -> None: ...

        def add_smell(self, tag: str) -> None: ...

    wanted = ["add_smell", "add_text(global_step=None, not 0)", "add_text(language)"]
    assert signatures.strangers(Newer) == wanted


def test_boxes_with_positional_arguments() -> None:
    image, boxes = np.random.default_rng(0).random((32, 32, 3)), np.array([[2, 3, 20, 25]])
    same(
        [
            ("add_image_with_boxes", ("b", image, boxes, 1, 4.0, "HWC"), {}),
            ("add_image_with_boxes", ("b", image, boxes, 1, 4.0, "HWC", ["one"]), {}),
            ("add_image_with_boxes", ("b", image, boxes, 1, 4.0, "HWC", ["one"], "more"), {}),
            ("add_image_with_boxes", ("b", image.transpose(2, 0, 1), boxes), {"nonsense": 1}),
        ]
    )


@pytest.mark.parametrize("kind", [np.array, list], ids=["array", "list"])
def test_rows_of_labels_may_be_an_array(tmp_path: Path, kind: Any) -> None:
    # tensorboardX adds the header to every row of an array, element by element.
    with EventWriter(tmp_path) as writer:
        writer.add_embedding(np.eye(2), kind([[1, 2], [3, 4]]), metadata_header=["a", "b"], tag="points")
    [table] = tmp_path.rglob("metadata.tsv")
    assert table.read_text() == "a\tb\n1\t2\n3\t4\n"


def test_embeddings_with_the_same_step_and_tag() -> None:
    points, images = np.arange(9.0).reshape(3, 3), np.zeros((3, 3, 5, 5))
    calls: list[Call] = [
        ("add_embedding", (points, [33.0, 44.0, 55.0], images), {"global_step": 2}),
        ("add_embedding", (points, [[33.0, "a"], [44.0, "b"], [5.0, "c"]], images, 2, "default", ["d", "s"]), {}),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(calls)


def test_images_in_floats_and_in_bytes_are_the_same(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_image("green", np.array([[[0, 255, 0]]], dtype=np.uint8).transpose(2, 0, 1))
        writer.add_image("green", np.array([[[0, 1, 0]]], dtype=np.float32).transpose(2, 0, 1))
    bytes_, floats = (event.summary for event in contents(str(tmp_path))["."])
    assert bytes_ == floats


def test_a_list_of_images_with_the_layout_of_one() -> None:
    # tensorboardX needs torch for a list.
    pictures = [np.full((3, 10, 11), n / 5) for n in range(5)]
    with tempfile.TemporaryDirectory() as theirs, tempfile.TemporaryDirectory() as ours:
        with tensorboardX.SummaryWriter(theirs) as expected, EventWriter(ours) as writer:
            expected.add_images("list", np.stack(pictures))
            writer.add_images("list", pictures, dataformats="CHW")
        assert show(contents(ours)) == show(contents(theirs))


def test_images_in_all_layouts_and_with_transparency() -> None:
    for shape, layout in (((3, 32, 32), "CHW"), ((4, 8, 8), "CHW"), ((2, 4, 8, 8), "NCHW"), ((8, 8), "HW")):
        pixels = np.linspace(0, 1, int(np.prod(shape))).reshape(shape)
        same([("add_image", ("i", pixels), {"dataformats": layout})])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(4, 3, 1, 8, 8), (3, 5, 3, 10, 10), (1, 1, 1, 2, 2)], ids=str)
def test_videos_whose_number_is_not_a_square(shape: tuple[int, ...]) -> None:
    pytest.importorskip("moviepy")
    video = np.random.default_rng(0).random(shape)
    same(
        [
            ("add_video", ("v", (video * 255).astype(np.uint8), 1, 8), {}),
            ("add_video", ("v", video.astype(np.float32).swapaxes(0, 1), 1), {"dataformats": "TNCHW"}),
        ]
    )


def test_curves_with_half_precision_booleans_and_weights() -> None:
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 2, 100), rng.random(100).astype(np.float16)
    same(
        [
            ("add_pr_curve", ("pr", labels, predictions, 1), {}),
            ("add_pr_curve", ("pr", labels.astype(bool), predictions), {"weights": rng.random(100)}),
        ]
    )


def test_openvino_graphs(tmp_path: Path) -> None:
    (tmp_path / "net.xml").write_text(NETWORK)
    same([("add_openvino_graph", (str(tmp_path / "net.xml"),), {})])


def test_a_list_of_figures_is_closed_like_one_figure(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figures = [plt.figure(figsize=(1, 1)) for _ in range(3)]
    with EventWriter(tmp_path) as writer:
        writer.add_figure("f", figures, 0, close=False)
        assert all(plt.fignum_exists(figure.number) for figure in figures)
        writer.add_figure("f", figures, 1)
        assert not any(plt.fignum_exists(figure.number) for figure in figures)


class mxnet_array:  # noqa: N801 - tensorboardX looks at the name
    def asnumpy(self) -> Any:
        return np.array([1.5])


class jax_array(np.ndarray):  # noqa: N801
    pass


class paddle_tensor(np.ndarray):  # noqa: N801
    pass


@pytest.mark.parametrize(
    "value", [mxnet_array(), *(np.array([1.5]).view(kind) for kind in (jax_array, paddle_tensor))], ids=type
)
def test_arrays_of_other_libraries(value: Any) -> None:
    calls: list[Call] = [("add_scalar", ("a", value, step), {}) for step in range(2)]
    same([*calls, ("add_histogram", ("h", value), {}), ("add_image", ("i", value), {"dataformats": "C"})])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("-inf"), np.array([float("nan")])], ids=repr)
def test_nan_and_infinity_are_warned_about_as_in_tensorboardx(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: Any
) -> None:
    said = []
    for name, kind in (("theirs", tensorboardX.SummaryWriter), ("ours", EventWriter)):
        caplog.clear()
        with caplog.at_level(logging.WARNING), kind(str(tmp_path / name)) as writer:
            writer.add_scalar("a", value, 0)
            writer.add_scalar("a", value, 1)
        said.append([(record.name, record.getMessage()) for record in caplog.records])
    assert said[0] == said[1]
    assert len(said[0]) == 2


def test_tensorboards_own_record_reader_reads_the_records(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        for step in range(50):
            writer.add_scalar("a", step, step)
    [path] = event_files(tmp_path)
    reader = PyRecordReader_New(str(path))
    reader.GetNext()
    assert Event.FromString(reader.record()).file_version == "brain.Event:2"
    for step in range(50):
        reader.GetNext()
        assert Event.FromString(reader.record()).step == step


def test_a_file_without_events_holds_the_version(tmp_path: Path) -> None:
    EventWriter(tmp_path).close()
    assert contents(str(tmp_path)) == {".": []}


def test_a_windows_path_is_an_ordinary_folder_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with EventWriter("C:\\runs\\first") as writer:
        writer.add_scalar("a", 1.0, 1)
    assert os.listdir(tmp_path) == ["C:\\runs\\first"]  # noqa: PTH208
    assert scalars(tmp_path / "C:\\runs\\first", "a") == [(1, 1.0)]


@pytest.mark.parametrize("folder", ["/", "not there"])
def test_without_write_to_disk_calls_raise_as_in_tensorboardx_and_write_nothing(tmp_path: Path, folder: str) -> None:
    calls: list[Call] = [
        ("add_scalar", ("a", 1.0), {}),
        ("add_scalar", ("a", "no number"), {}),
        ("add_scalars", ("a", {"x": 0.1, "y": 0.2}, 0), {}),
        ("add_histogram", ("h", np.arange(3)), {}),
        ("flush", (), {}),
        ("close", (), {}),
    ]
    there = set(Path("/").iterdir())
    ours = EventWriter(tmp_path / folder, write_to_disk=False)
    theirs = tensorboardX.SummaryWriter(str(tmp_path / folder), write_to_disk=False)
    assert perform(ours, calls) == perform(theirs, calls)
    # tensorboardX writes hyperparameters regardless.
    ours.add_hparams({"lr": 0.1}, {"acc": 1})
    assert list(tmp_path.iterdir()) == []
    assert set(Path("/").iterdir()) == there


def test_calls_of_many_kinds_in_one_file() -> None:
    rng = np.random.default_rng(3)
    image, boxes = np.zeros((3, 64, 64)), np.array([[10, 10, 40, 40], [40, 40, 60, 60]])
    calls: list[Call] = []
    for step in range(3):
        calls += [
            ("add_scalar", ("data/now", 0.1, step), {}),
            ("add_scalar", ("data/then", 0.2, step), {"walltime": step}),
            ("add_scalars", ("data/group", {"sin": np.sin(step), "atan": np.arctan(step)}, step), {}),
            ("add_images", ("images", np.zeros((32, 3, 8, 8)), step), {}),
            ("add_image_with_boxes", ("boxes", image, boxes, step), {}),
            ("add_text", ("text", f"step {step}", step), {}),
            ("add_text", ("text in markdown", "a|b\n-|-\nc|d", step), {}),
            ("add_histogram", ("histogram", rng.random((100, 100)), step), {}),
            ("add_pr_curve", ("curve", rng.integers(0, 2, 100), rng.random(100), step), {}),
        ]
    same(calls)


def test_undocumented_names_of_tensorboardx_are_not_needed(tmp_path: Path) -> None:
    code = """
import sys
import tensorboardX.record_writer, tensorboardX.summary
del tensorboardX.summary._clean_tag, tensorboardX.record_writer.REGISTERED_FACTORIES
from hf_summary_writer.events.writer import EventWriter
with EventWriter(sys.argv[1]) as writer:
    writer.add_scalar("/a b", 1.0, 1)
try:
    EventWriter("s3://bucket/run")
except ValueError:
    print("refused")
"""
    ended = events.run(code, tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "refused\n"), ended.stderr
    assert events.steps(tmp_path, "a_b") == [1]
