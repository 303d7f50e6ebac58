"""For every `add_*` and every value, the decoded files equal those of tensorboardX."""

from __future__ import annotations

import importlib.util
import json
import math
import tempfile
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorboardX
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from tensorboardX.proto.graph_pb2 import GraphDef
from tensorboardX.proto.node_def_pb2 import NodeDef

from equality import Call, contents, others, perform, same, show
from events import tensorboard_scalars
from hf_summary_writer.events.writer import EventWriter

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.usefixtures("collect_tensorboardx_writers"),
    pytest.mark.filterwarnings(
        "ignore::RuntimeWarning",
        "ignore::DeprecationWarning",
        "ignore::ResourceWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
    ),
]
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)


# Larger integers and numbers in strings are accepted as in torch; tensorboardX refuses both.
numbers = st.one_of(
    st.floats(),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.sampled_from([0, -0.0, 3.5e38, -3.5e38, 3.4028235677973366e38, 1e-46, math.nan, -math.inf]),
    st.floats(width=16).map(np.float16),
    st.floats(width=32).map(np.float32),
    st.floats().map(np.float64),
    st.floats().map(np.longdouble),
    st.integers(-(2**63), 2**63 - 1).map(np.int64),
    st.integers(0, 255).map(np.uint8),
    st.booleans().map(np.bool_),
    st.floats().map(np.array),
    st.integers(-(2**31), 2**31).map(lambda n: np.array([[n]])),
    st.floats().map(lambda x: [x]),
)
not_numbers = st.sampled_from([None, "text", b"x", [1.0, 2.0], np.zeros(3), {}, object(), 1j, [], np.array("x")])
tags = st.one_of(
    st.sampled_from(["loss", "train/loss", "/leading", "//", "sp ace", "ünï", "a:b?c", "", "x" * 300]),
    st.text(max_size=20),
)
steps = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, -1, 2**63, -(2**63) - 1, 2.7, "5", "x", True, np.int64(7), np.float32(3.0), math.nan]),
)
wall_times = st.one_of(st.none(), st.sampled_from([0, 0.0, -0.0, 1, 123.5, -5.0, "x", np.float64(3.5)]))
arrays = stn.arrays(
    st.sampled_from([np.float32, np.float64, np.int32, np.uint8, np.float16]),
    stn.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)


@st.composite
def scalar_calls(draw: st.DrawFn) -> Call:
    keywords: dict[str, Any] = {}
    if draw(st.booleans()):
        keywords["walltime"] = draw(wall_times)
    if draw(st.integers(0, 4)) == 0:
        keywords["display_name"] = draw(st.text(max_size=5))
        keywords["summary_description"] = draw(st.text(max_size=5))
    return "add_scalar", (draw(tags), draw(numbers | not_numbers), draw(steps)), keywords


@relaxed
@given(st.lists(scalar_calls(), max_size=30))
@example([("add_scalar", ("a", 0.0, 0), {"walltime": 0})])
@example([("add_scalar", (None, 1.0, 1), {}), ("add_scalar", (5, 1.0, 1), {}), ("add_scalar", (["x"], 1.0), {})])
def test_scalars(calls: list[Call]) -> None:
    same(calls)


@relaxed
@given(st.lists(st.tuples(numbers, st.integers(0, 2**63 - 1)), min_size=1, max_size=30))
def test_scalars_on_the_fast_path(values: list[tuple[Any, int]]) -> None:
    # The first call of a tag takes the slow path; the later ones are under test.
    same([("add_scalar", ("loss", value, step), {}) for value, step in [(0.5, 0), *values]])


@relaxed
@given(
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=5),
    st.dictionaries(st.sampled_from(["a", "b", "c/d"]), numbers, max_size=3),
    steps,
    wall_times,
)
@example("a", {"a": 0.0}, 2**63, "x")
def test_scalars_in_one_plot(main: str, values: dict[str, Any], step: Any, walltime: Any) -> None:
    calls: list[Call] = [("add_scalars", (main, values, step, walltime), {})] * 2
    if any(outcome is not None for outcome in _raised_by_theirs(calls)):
        # tensorboardX creates the folder of a value before it checks the value, so only the errors are compared.
        with tempfile.TemporaryDirectory() as ours, EventWriter(ours) as writer:
            assert perform(writer, calls) == _raised_by_theirs(calls)
    else:
        same(calls)


def _raised_by_theirs(calls: list[Call]) -> list[type[BaseException] | None]:
    with tempfile.TemporaryDirectory() as theirs, tensorboardX.SummaryWriter(theirs) as writer:
        return perform(writer, calls)


def test_exported_scalars(tmp_path: Path) -> None:
    exported = []
    for name, kind in (("theirs", tensorboardX.SummaryWriter), ("ours", EventWriter)):
        with kind(str(tmp_path / name)) as writer:
            writer.add_scalars("m", {"x": 1, "y": np.float32(2.5)}, 3, walltime=5.0)
            writer.export_scalars_to_json(tmp_path / f"{name}.json")
            assert writer.scalar_dict == {}
        exported.append(json.loads((tmp_path / f"{name}.json").read_text().replace(f"/{name}/", "/")))
    assert exported[0] == exported[1]


def test_scalars_with_steps_of_numpy_are_exported(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_scalars("m", {"x": 1}, np.int64(3), walltime=5.0)
        writer.export_scalars_to_json(tmp_path / "scalars.json")
    assert json.loads((tmp_path / "scalars.json").read_text()) == {str(tmp_path / "m" / "x"): [[5.0, 3, 1.0]]}


hparams = st.dictionaries(
    st.text(max_size=8),
    st.one_of(st.none(), st.text(max_size=8), st.booleans(), st.integers(-(2**60), 2**60), st.floats(), st.just(len)),
    max_size=4,
)


@relaxed
@given(hparams, st.dictionaries(st.sampled_from(["acc", "loss"]), numbers, max_size=2), steps)
@example({}, {"acc": 0.0}, "5")
@example({}, {"acc": 0.0}, "x")
@example({}, {}, "x")
def test_hparams(hparam_dict: dict[str, Any], metric_dict: dict[str, Any], step: Any) -> None:
    calls: list[Call] = [("add_hparams", (hparam_dict, metric_dict), {"name": "trial", "global_step": step})]
    raised = _raised_by_theirs(calls)
    if raised == [None]:
        same(calls)
    else:
        with tempfile.TemporaryDirectory() as ours, EventWriter(ours) as writer:
            assert perform(writer, calls) == raised


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        ((), {"name": "trial", "global_step": "5"}),
        (("trial", "5"), {}),
        (("trial", b"5"), {}),
        (("trial",), {"global_step": "5"}),
        (("trial", 5), {}),
        (("trial", 5, 6), {}),
        (("trial", 5), {"global_step": 6}),
        (("trial",), {"name": "other"}),
        (("trial",), {"nothing": "known"}),
    ],
    ids=str,
)
def test_hparams_by_the_arguments_of_tensorboardx(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    same([("add_hparams", ({"lr": 0.5}, {"acc": 0.5}, *arguments), keywords)])


@pytest.mark.parametrize("wrong", [[("lr", 1)], None, "x"])
def test_hparams_that_are_not_dictionaries(wrong: Any) -> None:
    same([("add_hparams", (wrong, {}), {}), ("add_hparams", ({}, wrong), {})])


@relaxed
@given(st.lists(st.tuples(arrays | numbers | not_numbers, steps, wall_times), max_size=5))
@example([(np.full(3, math.nan), 0, None), (np.array([1e30, 2e30]), 1, None), (np.zeros(0), 2, None)])
@example([(np.array([1e25, 1.0]), 0, None), (np.array([1.0, math.nan, math.inf]), 1, None)])
def test_histograms(values: list[tuple[Any, Any, Any]]) -> None:
    same([("add_histogram", ("h", v, step), {"walltime": walltime}) for v, step, walltime in values])


@relaxed
@given(
    arrays,
    st.sampled_from(["auto", "fd", 7, [0.0, 1.0, 2.0], [2.0, 1.0], "x", "tensorflow"]),
    st.none() | st.integers(0, 9),
)
def test_histograms_with_custom_bins(values: np.ndarray, bins: Any, max_bins: int | None) -> None:
    same([("add_histogram", ("h", values, 1), {"bins": bins, "max_bins": max_bins})])


def test_raw_histograms() -> None:
    counts, limits = [1, 2, 3], [0.5, 1.5, 2.5]
    same(
        [
            ("add_histogram_raw", ("h", 0.0, 2.5, 6, 8.0, 14.0, limits, counts, 3), {}),
            ("add_histogram_raw", ("h", 0.0, 2.5, 6, 8.0, 14.0, limits[1:], counts, 3), {}),
        ]
    )


layouts = st.one_of(
    st.permutations("CHW").map("".join),
    st.permutations("NCHW").map("".join),
    st.sampled_from(["HW", "WH", "CHW", "XYZ", "chw", "CCC"]),
)


@relaxed
@given(st.lists(st.tuples(arrays, layouts, steps, wall_times), max_size=4))
def test_images(images: list[tuple[Any, str, Any, Any]]) -> None:
    calls: list[Call] = []
    for given_array, layout, step, walltime in images:
        # Values outside of the range are clipped, as in torch.
        array = given_array if given_array.dtype == np.uint8 else given_array.clip(0, 1)
        calls.append(("add_image", ("i m", array, step, walltime), {"dataformats": layout}))
        calls.append(("add_images", ("i m", array, step, walltime, layout), {}))
    same(calls)


@relaxed
@given(
    st.sampled_from(["CHW", "HWC", "HW", "NCHW", "NHWC", "nchw"]),
    st.sampled_from([1, 3, 4]),
    st.sampled_from([np.float32, np.float64, np.uint8]),
    st.integers(1, 5),
    st.integers(0, 2**32),
)
def test_images_encoded_later(layout: str, channels: int, dtype: Any, number: int, seed: int) -> None:
    sizes = {"N": number, "C": channels, "H": 7, "W": 5}
    pixels = np.random.default_rng(seed).random([sizes[letter] for letter in layout.upper()])
    array = (pixels * 255).astype(dtype) if dtype is np.uint8 else pixels.astype(dtype)
    same([("add_image", ("image", array, 3), {"dataformats": layout})])


def test_lists_of_images_and_boxes() -> None:
    image = np.random.default_rng(0).random((3, 32, 32))
    boxes = np.array([[2, 3, 20, 25], [5, 5, 9, 9]])
    same(
        [
            ("add_image_with_boxes", ("b", image, boxes, 1), {"labels": ["one", "two"]}),
            ("add_image_with_boxes", ("b", image, boxes, 1), {"labels": "one"}),
            ("add_image_with_boxes", ("b", image, boxes, 1), {"rescale": 2}),
            ("add_images", ("i", [image, image], 1), {"dataformats": "NCHW"}),
            ("add_image", ("i", [[[0.5]]], 1), {}),
        ]
    )


def test_text() -> None:
    same([("add_text", ("t", "some *text*\n", 3), {"walltime": 7.0}), ("add_text", ("t", "ü", None), {})])
    same([("add_text", ("t", 5, 3), {})])


def test_curves() -> None:
    rng = np.random.default_rng(1)
    labels, predictions = rng.integers(0, 2, 100), rng.random(100)
    raw = [rng.random(20) for _ in range(6)]
    same(
        [
            ("add_pr_curve", ("pr", labels, predictions, 1), {}),
            ("add_pr_curve", ("pr", labels, predictions, 1, 200, 0.5), {}),
            ("add_pr_curve_raw", ("raw", *raw, 2, 20), {}),
        ]
    )


def test_custom_scalars() -> None:
    same(
        [
            ("add_custom_scalars", ({"c": {"t": ["Multiline", ["a", "b"]], "m": ["Margin", ["a", "b", "c"]]}},), {}),
            ("add_custom_scalars_multilinechart", (["a", "b"],), {}),
            ("add_custom_scalars_marginchart", (["a", "b", "c"],), {}),
            ("add_custom_scalars_marginchart", (["a"],), {}),
        ]
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", ["5", "-5", " 7 ", "1_000", "0", b"5", str(2**63), "1.5", "x", "", "\u0665"])
def test_steps_given_as_text(step: Any) -> None:
    rng = np.random.default_rng(3)
    pixels, vertices = rng.random((3, 8, 8)), rng.random((1, 8, 3))
    curves = [rng.random(20) for _ in range(6)]
    calls: list[Call] = [
        ("add_scalar", ("a", 1.0, step), {}),
        ("add_scalar", ("a", 2.0, step), {}),
        ("add_scalar", ("a", 3.0), {"global_step": step, "display_name": "title"}),
        ("add_histogram", ("h", rng.random(20), step), {}),
        ("add_histogram", ("h", [1.0, 2.0], step), {}),
        ("add_histogram_raw", ("raw", 0.0, 2.5, 6, 8.0, 14.0, [0.5, 1.5, 2.5], [1, 2, 3], step), {}),
        ("add_image", ("i", pixels, step), {}),
        ("add_images", ("i", pixels[None], step), {}),
        ("add_image_with_boxes", ("b", pixels, np.array([[1, 1, 4, 4]]), step), {}),
        ("add_text", ("t", "text", step), {}),
        ("add_pr_curve", ("pr", rng.integers(0, 2, 50), rng.random(50), step), {}),
        ("add_pr_curve_raw", ("pr", *curves, step, 20), {}),
        ("add_mesh", ("m", vertices), {"global_step": step}),
        ("add_embedding", (rng.random((4, 2)),), {"global_step": step, "tag": "e"}),
    ]
    if importlib.util.find_spec("soundfile") is not None:
        calls.append(("add_audio", ("s", rng.random(50) - 0.5, step), {}))
    if importlib.util.find_spec("moviepy") is not None:
        calls.append(("add_video", ("v", rng.random((1, 2, 3, 8, 8)), step), {}))
    same(calls)
    several: list[Call] = [("add_scalars", ("m", {"x": 1.0}, step), {})]
    if _raised_by_theirs(several) == [None]:
        same(several)
    else:
        with tempfile.TemporaryDirectory() as ours, EventWriter(ours) as writer:
            assert perform(writer, several) == _raised_by_theirs(several)


def test_meshes() -> None:
    rng = np.random.default_rng(2)
    vertices, colours = rng.random((1, 8, 3)), rng.integers(0, 255, (1, 8, 3))
    faces = rng.integers(0, 8, (1, 4, 3))
    same([("add_mesh", ("m", vertices, colours, faces, {"camera": 1}, 2), {}), ("add_mesh", ("m", vertices), {})])


def test_graphs() -> None:
    graph = GraphDef(node=[NodeDef(name="a", op="b")])
    same(
        [
            ("file_writer.add_graph", ((graph, graph),), {"walltime": 5.0}),
            ("file_writer.add_onnx_graph", (graph,), {}),
            ("file_writer.add_openvino_graph", (graph,), {}),
        ]
    )


def test_summaries_and_events_given_to_the_file_writer() -> None:
    summary = tensorboardX.proto.summary_pb2.Summary(
        value=[tensorboardX.proto.summary_pb2.Summary.Value(tag="a", simple_value=1)]
    )
    event = tensorboardX.proto.event_pb2.Event
    same(
        [
            ("file_writer.add_summary", (summary, 3, 5.0), {}),
            ("file_writer.add_summary", (summary,), {}),
            ("file_writer.add_event", (event(summary=summary, step=4),), {}),
            ("file_writer.add_event", (event(summary=summary, step=4), 5, 6.0), {}),
            ("file_writer.add_summary", (summary, "x"), {}),
            ("file_writer.event_writer.add_event", (event(summary=summary, step=4, wall_time=123.5),), {}),
        ]
    )


@relaxed
@given(st.integers(1, 12), st.integers(1, 4), st.sampled_from([np.float32, np.int64]), st.booleans(), st.booleans())
def test_embeddings(rows: int, columns: int, dtype: Any, labelled: bool, headed: bool) -> None:
    rng = np.random.default_rng(rows)
    points = (rng.random((rows, columns)) * 10).astype(dtype)
    metadata: Any = None
    header = None
    if labelled:
        metadata = [[n, f"l{n}"] for n in range(rows)] if headed else list(range(rows))
        header = ["number", "label"] if headed else None
    # tensorboardX leaves parts of a sprite undefined unless the images fill a square.
    images = rng.random((rows, 3, 4, 4)).astype(np.float32) if math.isqrt(rows) ** 2 == rows else None
    same(
        [
            ("add_embedding", (points, metadata, images), {"metadata_header": header, "global_step": 2, "tag": "a/b%"}),
            ("add_embedding", (points,), {}),
        ]
    )


@pytest.mark.parametrize("tag", [3, b"tag", None])
def test_tags_that_are_not_text(tag: Any) -> None:
    pixels, sound = np.zeros((3, 4, 4)), np.zeros(100, np.float32)
    calls: list[Call] = [
        ("add_image", (tag, pixels), {}),
        ("add_images", (tag, pixels[None]), {}),
        ("add_histogram", (tag, sound), {}),
        ("add_audio", (tag, sound), {}),
        ("add_video", (tag, pixels[None, None]), {}),
        ("add_scalars", (tag, {"a": 1.0}), {}),
        ("add_scalars", ("plot", {tag: 1.0}), {}),
    ]
    same(calls)


def test_matrices() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        same([("add_histogram", ("m", np.matrix([[1.0, 2.0], [3.0, 4.0]])), {})])


def test_embeddings_with_mismatched_shapes() -> None:
    points = np.zeros((3, 2))
    with tempfile.TemporaryDirectory() as theirs, tempfile.TemporaryDirectory() as ours:
        calls: list[Call] = [
            ("add_embedding", (points, [1, 2]), {}),
            ("add_embedding", (np.zeros(3),), {}),
            ("add_embedding", (points, None, np.zeros((2, 3, 4, 4))), {}),
            ("add_embedding", (points, None, np.zeros((3, 3, 4, 5))), {}),
            ("add_embedding", (points, [[1, 2]] * 3), {"metadata_header": ["a"]}),
        ]
        with tensorboardX.SummaryWriter(theirs) as writer, EventWriter(ours) as own:
            assert perform(own, calls) == perform(writer, calls)


@pytest.mark.skipif(importlib.util.find_spec("soundfile") is None, reason="needs soundfile")
@relaxed
@given(st.sampled_from([np.float32, np.float64, np.int16, np.float16]), st.integers(0, 3), st.floats(0.1, 3))
def test_audio(dtype: Any, channels: int, loudness: float) -> None:
    rng = np.random.default_rng(channels)
    shape = (50, channels) if channels else (50,)
    sound = (rng.random(shape) * loudness - loudness / 2).astype(dtype)
    same([("add_audio", ("a", sound, 1), {}), ("add_audio", ("a", sound, 1, 8000, 4.0), {})])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(importlib.util.find_spec("moviepy") is None, reason="needs moviepy")
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("channels", [1, 3])
def test_videos(dtype: Any, channels: int) -> None:
    rng = np.random.default_rng(channels)
    video = (rng.random((2, 3, channels, 8, 8)) * (255 if dtype is np.uint8 else 1)).astype(dtype)
    same([("add_video", ("v", video, 1), {}), ("add_video", ("v", video[0], 1), {})])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_figures() -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(1, 1))
    figure.gca().plot([1, 2])
    same(
        [
            ("add_figure", ("f", figure, 1), {"close": False}),
            ("add_figure", ("f", [figure, figure], 1), {"close": False, "walltime": 3.0}),
        ]
    )
    plt.close(figure)


def test_purge_steps() -> None:
    same([("add_scalar", ("a", 1.0, 8), {})], purge_step=7)
    same([("add_scalar", ("a", 1.0, 8), {})], purge_step=0)


@relaxed
@given(st.none() | st.integers(0, 99), st.none() | st.sampled_from([0, 5.0]), st.lists(scalar_calls(), max_size=5))
def test_metadata(step: int | None, walltime: float | None, calls: list[Call]) -> None:
    if step is None and walltime is None:
        same([("use_metadata().__enter__", (), {})])
        return

    def within(writer: Any) -> list[type[BaseException] | None]:
        with writer.use_metadata(global_step=step, walltime=walltime):
            return perform(writer, calls)

    with tempfile.TemporaryDirectory() as theirs, tempfile.TemporaryDirectory() as ours:
        with tensorboardX.SummaryWriter(theirs) as writer:
            expected = within(writer)
        with EventWriter(ours) as own:
            assert within(own) == expected
        found, wanted = contents(ours), contents(theirs)
        if walltime is None:
            # tensorboardX records no time here, contrary to its documentation.
            for event in [*found["."], *wanted["."]]:
                event.wall_time = 0
        assert show(found) == show(wanted)


@relaxed
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20))
def test_tensorboards_reader_reads_the_same_scalars_from_both(values: list[float]) -> None:
    calls: list[Call] = [("add_scalar", ("a", value, step), {}) for step, value in enumerate(values)]
    with tempfile.TemporaryDirectory() as theirs, tempfile.TemporaryDirectory() as ours:
        with tensorboardX.SummaryWriter(theirs) as writer, EventWriter(ours) as own:
            perform(writer, calls)
            perform(own, calls)
        assert tensorboard_scalars(ours, "a") == tensorboard_scalars(theirs, "a")


RNG = np.random.default_rng(0)
CHANGES: list[tuple[str, np.ndarray]] = [
    ("add_scalar", np.array(1.5)),
    ("add_histogram", RNG.random(1000)),
    ("add_image", RNG.random((3, 8, 8))),
    ("add_images", RNG.random((2, 3, 8, 8))),
    ("add_audio", RNG.random(100)),
    ("add_embedding", RNG.random((4, 2))),
    ("add_mesh", RNG.random((1, 5, 3))),
    ("add_pr_curve", np.array([0.0, 1.0, 1.0, 0.0])),
]


@pytest.mark.parametrize(("method", "value"), CHANGES, ids=[change[0] for change in CHANGES])
def test_values_are_taken_at_the_call(method: str, value: np.ndarray, tmp_path: Path) -> None:
    if method == "add_audio":
        pytest.importorskip("soundfile")
    value = value.copy()
    arguments: tuple[Any, ...] = ("tag", value, 1)
    if method == "add_embedding":
        arguments = (value,)
    elif method == "add_mesh":
        arguments = ("tag", value)
    elif method == "add_pr_curve":
        arguments = ("tag", value, np.array([0.1, 0.9, 0.4, 0.6]), 1)
    with tensorboardX.SummaryWriter(str(tmp_path / "theirs")) as writer:
        getattr(writer, method)(*arguments)
    with EventWriter(tmp_path / "ours") as own:
        getattr(own, method)(*arguments)
        value.fill(0)
    assert show(contents(str(tmp_path / "ours"))) == show(contents(str(tmp_path / "theirs")))
    assert others(str(tmp_path / "ours")) == others(str(tmp_path / "theirs"))


@pytest.mark.torch
@pytest.mark.parametrize("method", ["add_scalar", "add_histogram", "add_image", "add_embedding"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64"])
def test_torch_tensors_are_written_as_by_tensorboardx(method: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    shape = {"add_scalar": (), "add_histogram": (20,), "add_image": (3, 5, 5), "add_embedding": (4, 2)}[method]
    numbers = torch.arange(math.prod(shape)).reshape(shape) / 7
    tensor = (numbers % 1 if method == "add_image" else numbers).to(getattr(torch, dtype))
    for value in (tensor, tensor.clone().requires_grad_(dtype != "int64")):
        same([(method, (value,) if method == "add_embedding" else ("tag", value, 1), {})])


@pytest.mark.torch
def test_a_torch_tensor_changed_afterwards_does_not_change_the_log(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.ones(3, 4, 4)
    with EventWriter(tmp_path) as writer:
        writer.add_histogram("h", tensor, 1)
        tensor.zero_()
    [event] = contents(str(tmp_path))["."]
    assert event.summary.value[0].histo.min == 1.0


@pytest.mark.torch
def test_arguments_that_only_torch_has_are_written_as_by_torch(tmp_path: Path) -> None:
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    calls: list[Call] = [
        ("add_scalar", ("a_b", 0.1, 1), {"new_style": True}),
        ("add_scalar", ("a", 0.1, 2), {"new_style": True, "double_precision": True}),
        ("add_scalar", ("a", 0.1, 3), {"double_precision": True}),
        ("add_hparams", ({"lr": 0.1, "opt": "sgd"}, {"acc": 0.5}), {"run_name": "r"}),
        (
            "add_hparams",
            ({"lr": 0.1, "opt": "sgd"}, {"acc": 0.5}),
            {"run_name": "d", "hparam_domain_discrete": {"opt": ["sgd", "adam"], "lr": [0.1, 0.2]}},
        ),
        ("add_hparams", ({"lr": 0.1}, {}), {"hparam_domain_discrete": {"lr": ["x"]}}),
        ("add_hparams", ({"lr": 0.1}, {}), {"hparam_domain_discrete": {"other": [1.0]}}),
    ]
    with tensorboard.SummaryWriter(str(tmp_path / "theirs")) as writer:
        raised = perform(writer, calls)
    with EventWriter(tmp_path / "ours") as own:
        assert perform(own, calls) == raised
    assert show(contents(str(tmp_path / "ours"))) == show(contents(str(tmp_path / "theirs")))
