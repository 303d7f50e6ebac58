"""Calls of `torch.utils.tensorboard.SummaryWriter` work with our writer, and the decoded files are equal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

import signatures
from equality import Call, contents, others, perform, show
from events import event_files, events, tensorboard_scalars
from hf_summary_writer.events.writer import EventWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

torch = pytest.importorskip("torch")
pytest.importorskip("tensorboard")

COUNTS = {
    "true_positive_counts": [30, 20, 5, 0],
    "false_positive_counts": [40, 10, 1, 0],
    "true_negative_counts": [0, 30, 39, 40],
    "false_negative_counts": [0, 10, 25, 30],
    "precision": [0.4, 0.66, 0.83, 0.0],
    "recall": [1.0, 0.66, 0.16, 0.0],
}
CORNERS = np.array([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]])
COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]])
FACES = np.array([[[0, 1, 2], [0, 1, 3]]])
LAYOUT = {"losses": {"both": ["Multiline", ["train", "test"]], "spread": ["Margin", ["mid", "low", "high"]]}}


def both(tmp_path: Path, calls: list[Call]) -> tuple[EventWriter, EventWriter]:
    """Make the calls on torch's writer and on ours, and return both closed writers."""
    from torch.utils.tensorboard import SummaryWriter

    writers = SummaryWriter(str(tmp_path / "theirs")), EventWriter(tmp_path / "ours")
    raised = []
    for writer in writers:
        with writer:
            raised.append(perform(writer, calls))
    assert raised[1] == raised[0]
    return writers


def same(tmp_path: Path, calls: list[Call]) -> None:
    both(tmp_path, calls)
    found, wanted = contents(str(tmp_path / "ours")), contents(str(tmp_path / "theirs"))
    assert any(wanted.values()), "nothing was compared"
    assert show(found) == show(wanted)


def rand(*shape: int) -> Any:
    return torch.rand(shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("style", [{}, {"new_style": True}, {"new_style": True, "double_precision": True}], ids=str)
@pytest.mark.parametrize(
    "value",
    [
        *[0.5, 3, np.float16(1.1), np.int64(10**11), np.array([2.5])],
        pytest.param(lambda: torch.tensor(1.5, requires_grad=True), id="with a gradient"),
        pytest.param(lambda: torch.rand(1), id="one-dimensional"),
        pytest.param(lambda: torch.tensor(1.5, dtype=torch.bfloat16), id="bfloat16"),
        pytest.param(lambda: torch.tensor([[4]]), id="two-dimensional"),
        pytest.param(lambda: torch.nn.Parameter(torch.ones(1)), id="parameter"),
    ],
    ids=str,
)
def test_scalars_of_every_kind(tmp_path: Path, value: Any, style: dict[str, bool]) -> None:
    torch.manual_seed(3)
    number = value() if callable(value) else value
    same(tmp_path, [("add_scalar", ("loss", number, step), {"walltime": 5.0, **style}) for step in (None, 0, 7)])


def test_new_style_may_be_given_by_position(tmp_path: Path) -> None:
    flags = [(True,), (True, True), (False,), (False, True), (False, False)]
    same(tmp_path, [("add_scalar", ("loss", 0.1, step, 5.0, *flag), {}) for step, flag in enumerate(flags)])


def test_a_tensor_of_several_numbers_is_refused_as_in_torch(tmp_path: Path) -> None:
    calls: list[Call] = [("add_scalar", ("loss", torch.ones(3), 0), {"new_style": style}) for style in (True, False)]
    same(tmp_path, [*calls, ("add_scalar", ("loss", 1.0, 1), {})])


@pytest.mark.parametrize("values", [lambda: rand(50), lambda: torch.arange(100), lambda: rand(50).bfloat16()])
@pytest.mark.parametrize("how", [{}, {"bins": "auto"}, {"bins": "doane", "max_bins": 5}, {"max_bins": 3}], ids=str)
def test_histograms(tmp_path: Path, values: Callable[[], Any], how: dict[str, Any]) -> None:
    same(tmp_path, [("add_histogram", ("weights", values(), 3), how)])


def test_raw_histograms_from_lists_and_tensors(tmp_path: Path) -> None:
    numbers = rand(40).double().numpy()
    counts, limits = np.histogram(numbers, bins=4)
    moments = {
        "min": numbers.min(),
        "max": numbers.max(),
        "num": 40,
        "sum": numbers.sum(),
        "sum_squares": numbers @ numbers,
    }
    same(
        tmp_path,
        [
            (
                "add_histogram_raw",
                ("h",),
                {**moments, "bucket_limits": limits[1:].tolist(), "bucket_counts": counts.tolist()},
            ),
            (
                "add_histogram_raw",
                ("h",),
                {**moments, "bucket_limits": torch.tensor(limits[1:]), "bucket_counts": torch.tensor(counts)},
            ),
            ("add_histogram_raw", ("h",), {**moments, "bucket_limits": [1.0], "bucket_counts": [1, 2]}),
        ],
    )


@pytest.mark.parametrize(
    ("shape", "layout"), [((3, 8, 6), "CHW"), ((8, 6, 3), "HWC"), ((8, 6), "HW"), ((1, 8, 6), "CHW")]
)
def test_images(tmp_path: Path, shape: tuple[int, ...], layout: str) -> None:
    bytes_ = (rand(*shape) * 255).to(torch.uint8)
    same(tmp_path, [("add_image", ("i", pixels, 1), {"dataformats": layout}) for pixels in (rand(*shape), bytes_)])


@pytest.mark.parametrize(("shape", "layout"), [((4, 3, 8, 6), "NCHW"), ((4, 8, 6, 3), "NHWC"), ((5, 1, 4, 4), "NCHW")])
def test_batches_of_images(tmp_path: Path, shape: tuple[int, ...], layout: str) -> None:
    same(tmp_path, [("add_images", ("i", rand(*shape), 1), {"dataformats": layout})])


def test_images_with_boxes_rescaled_and_labelled(tmp_path: Path) -> None:
    boxes = np.array([[1, 1, 10, 10], [5, 5, 30, 30]])
    keywords: list[dict[str, Any]] = [{}, {"rescale": 2}, {"labels": ["a", "b"]}, {"labels": "a"}, {"rescale": 0.5}]
    same(tmp_path, [("add_image_with_boxes", ("i", rand(3, 32, 32), boxes, 1), each) for each in keywords])


def test_boxes_with_positional_arguments(tmp_path: Path) -> None:
    image, boxes = rand(32, 32, 3), np.array([[1, 1, 10, 10]])
    same(
        tmp_path,
        [
            ("add_image_with_boxes", ("i", image.permute(2, 0, 1), boxes, 1, 4.0, 2), {}),
            ("add_image_with_boxes", ("i", image, boxes, 1, 4.0, 2), {"dataformats": "HWC", "labels": ["a"]}),
            ("add_image_with_boxes", ("i", image, boxes, 1, 4.0, 0.5, "HWC", ["a"]), {}),
            ("add_image_with_boxes", ("i", image, boxes, 1, 4.0, 0.5, "HWC", ["a"], "more"), {}),
        ],
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_embeddings_with_tensors_for_labels(tmp_path: Path, dtype: str) -> None:
    points, labels = rand(4, 3), torch.tensor([33.0, 44.0, 55.0, 66.0])
    images = torch.zeros(4, 3, 5, 5, dtype=getattr(torch, dtype))
    rows = list(zip(labels, ["test", "test", "train", "train"], strict=True))
    both(
        tmp_path,
        [
            ("add_embedding", (points,), {"metadata": labels, "label_img": images, "global_step": 2, "tag": "plain"}),
            ("add_embedding", (points, rows, images, 2, "rows", ["digit", "set"]), {}),
        ],
    )
    found, wanted = others(str(tmp_path / "ours")), others(str(tmp_path / "theirs"))
    assert {name for name in found if "metadata.tsv" in name or "tensors.tsv" in name}
    # The projector reads both formats of the list of embeddings.
    drop = "projector_config.pbtxt"
    assert {name: text for name, text in found.items() if name != drop} == {
        name: text for name, text in wanted.items() if name != drop
    }


def graphs(logdir: Path) -> list[bytes]:
    return [event.graph_def for event in contents(str(logdir))["."] if event.graph_def]


class Block(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.BatchNorm2d(3))

    def forward(self, x: Any, scale: float = 1.0) -> Any:
        return torch.relu(x + scale * self.body(x))


@pytest.mark.parametrize(
    ("make", "example"),
    [
        (lambda: torch.nn.Sequential(Block(), torch.nn.Flatten(), torch.nn.Linear(48, 2)), lambda: rand(2, 3, 4, 4)),
        (lambda: torch.nn.Linear(3, 5), lambda: (torch.zeros(1, 3),)),
        (lambda: torch.nn.Bilinear(2, 3, 4), lambda: (torch.zeros(1, 2), torch.zeros(1, 3))),
    ],
    ids=["convolutions", "tuple", "two inputs"],
)
@pytest.mark.parametrize("verbose", [False, True])
def test_graphs_of_networks(tmp_path: Path, make: Callable[[], Any], example: Callable[[], Any], verbose: bool) -> None:
    model, inputs = make(), example()
    both(tmp_path, [("add_graph", (model, inputs, verbose), {}), ("add_graph", (model,), {"input_to_model": inputs})])
    found, wanted = (graphs(tmp_path / name) for name in ("ours", "theirs"))
    assert found == wanted
    assert len(found) == 2


SHAPES = pytest.mark.parametrize("shape", [(), (3,), (2, 2), (0,)], ids=str)


@SHAPES
@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "int8", "int16", "int32", "int64", "bool", "complex64", "complex128"]
)
def test_tensors(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    tensor = (rand(*shape) * 100).to(getattr(torch, dtype))
    same(tmp_path, [("add_tensor", ("t", tensor), {"global_step": 4, "walltime": 6.0})])


@SHAPES
@pytest.mark.parametrize("dtype", ["float16", "uint8", "float32", "int64", "bool", "complex64"])
def test_tensorboard_reads_back_the_tensors(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    # TensorBoard's reader does not find uint8 and half precision in torch's fields, so ours are in the reader's.
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.util.tensor_util import make_ndarray

    tensor = (rand(*shape) * 100).to(getattr(torch, dtype))
    with EventWriter(tmp_path) as writer:
        writer.add_tensor("t", tensor, 1)
    [event] = contents(str(tmp_path))["."]
    [value] = Summary.FromString(event.summary.SerializeToString()).value
    np.testing.assert_array_equal(make_ndarray(value.tensor), tensor.numpy())


def test_bfloat16_tensors_are_stored_as_upper_halves_of_float32(tmp_path: Path) -> None:
    tensor = rand(5).bfloat16()
    with EventWriter(tmp_path) as writer:
        writer.add_tensor("t", tensor, 1)
    [event] = contents(str(tmp_path))["."]
    halves = np.array(event.summary.value[0].tensor.half_val, dtype=np.uint32) << 16
    np.testing.assert_array_equal(halves.view(np.float32), tensor.float().numpy())


def test_a_tensor_type_that_torch_refuses_is_refused(tmp_path: Path) -> None:
    same(tmp_path, [("add_tensor", ("t", torch.ones(2, dtype=torch.uint16)), {}), ("add_scalar", ("a", 1.0, 1), {})])


def test_arrays_are_accepted_where_torch_accepts_only_tensors(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_tensor("t", np.arange(4, dtype=np.int64), 1)
    [event] = contents(str(tmp_path))["."]
    assert list(event.summary.value[0].tensor.int64_val) == [0, 1, 2, 3]


def test_texts_curves_and_layouts(tmp_path: Path) -> None:
    labels, predictions = torch.arange(20) % 2, rand(20)
    same(
        tmp_path,
        [
            ("add_text", ("note", "a|b\n-|-\n1|2", 3), {"walltime": 4.0}),
            ("add_pr_curve", ("curve", labels, predictions, 1), {"num_thresholds": 9, "weights": None}),
            ("add_pr_curve_raw", ("raw",), {**COUNTS, "global_step": 2, "num_thresholds": 4}),
            ("add_custom_scalars", (LAYOUT,), {}),
            ("add_custom_scalars_multilinechart", (["a", "b"],), {"category": "c", "title": "t"}),
            ("add_custom_scalars_marginchart", (["a", "b", "c"],), {"category": "c", "title": "t"}),
            ("add_custom_scalars_marginchart", (["a", "b"],), {}),
        ],
    )


def test_meshes_have_torchs_numbers_under_tensorboardx_names(tmp_path: Path) -> None:
    both(tmp_path, [("add_mesh", ("mesh",), {"vertices": CORNERS, "colors": COLOURS, "faces": FACES})])
    ours, theirs = (
        [list(value.tensor.float_val) for event in contents(str(tmp_path / name))["."] for value in event.summary.value]
        for name in ("ours", "theirs")
    )
    assert ours == theirs


def test_audio_without_the_package_soundfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    from hf_summary_writer.events.media import is_usable

    is_usable.cache_clear()
    monkeypatch.setitem(sys.modules, "soundfile", None)
    loud = torch.sin(torch.arange(400.0) / 9) * 1.5
    same(tmp_path, [("add_audio", ("sound", wave, 1), {"sample_rate": 8000}) for wave in (loud / 2, loud, loud[None])])
    is_usable.cache_clear()


def test_one_figure_and_a_list_of_figures(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figures = [plt.figure(figsize=(1, 1)) for _ in range(2)]
    same(
        tmp_path,
        [("add_figure", ("f", figures[0], 1), {"close": False}), ("add_figure", ("f", figures, 2), {"close": False})],
    )
    with EventWriter(tmp_path / "closing") as writer:
        writer.add_figure("f", figures[0], 1)
        assert not plt.fignum_exists(figures[0].number)
    plt.close("all")


@pytest.mark.parametrize("strict", [True, False])
def test_graphs_of_modules(tmp_path: Path, strict: bool) -> None:
    class Dictionary(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return {"out": x + 1}

    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(4, 2)))
    calls: list[Call] = [
        ("add_graph", (model, torch.zeros(1, 3)), {"use_strict_trace": strict}),
        ("add_graph", (model, torch.zeros(1, 9)), {}),
        ("add_graph", (Dictionary(), torch.zeros(1)), {"use_strict_trace": strict}),
    ]
    both(tmp_path, calls)
    found, wanted = (graphs(tmp_path / name) for name in ("ours", "theirs"))
    assert found == wanted
    assert len(found) == (1 if strict else 2)


def test_graphs_of_onnx_files(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", ends[:1], ends[1:])), tmp_path / "model.onnx")
    same(tmp_path, [("add_onnx_graph", (), {"prototxt": str(tmp_path / "model.onnx")})])
    with EventWriter(tmp_path / "x") as writer:
        writer.add_onnx_graph(str(tmp_path / "model.onnx"))
        with pytest.raises(TypeError):
            writer.add_onnx_graph()
    assert show(contents(str(tmp_path / "x"))) == show(contents(str(tmp_path / "ours")))


def hparams(logdir: Path) -> list[Any]:
    """Return the data of the hparams plugin and the scalars below `logdir`."""
    found = []
    for path in event_files(logdir):
        for event in events(path):
            for value in event.summary.value:
                plugin = value.metadata.plugin_data
                parsed = HParamsPluginData.FromString(plugin.content) if plugin.plugin_name == "hparams" else None
                found.append((path.parent.name, value.tag, parsed, value.simple_value))
    return found


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        (({"lr": 0.1, "opt": "sgd"}, {"acc": 0.5}), {"run_name": "r"}),
        (({"lr": 0.1, "opt": "sgd"}, {}), {"run_name": "r", "global_step": 3}),
        (({"lr": 0.1}, {"acc": 0.5}), {"run_name": "r", "hparam_domain_discrete": {"lr": [0.1, 0.2]}}),
        (({"lr": 0.1}, {"acc": 0.5}, {"lr": [0.1, 0.2]}, "r", 3), {}),
        (({"lr": 0.1}, {"acc": 0.5}, None, "r", 3), {}),
        (({"lr": 0.1}, {"acc": 0.5}, None, "r"), {}),
        (({"lr": 0.1, "none": None}, {"acc": 1}), {"run_name": "."}),
    ],
    ids=str,
)
def test_hparams_by_name_and_by_position(tmp_path: Path, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    both(tmp_path, [("add_hparams", arguments, keywords)])
    found, wanted = (
        # With the run name "." the folder has the logdir's name.
        [(folder.replace(name, "."), *rest) for folder, *rest in hparams(tmp_path / name)]
        for name in ("ours", "theirs")
    )
    assert found == wanted


def test_a_hyperparameter_may_be_a_tensor(tmp_path: Path) -> None:
    both(tmp_path, [("add_hparams", ({"lr": torch.tensor([0.5])}, {"acc": 0.5}), {"run_name": "r"})])
    assert hparams(tmp_path / "ours") == hparams(tmp_path / "theirs")


def test_attributes_have_torchs_names_and_meaning(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"max_queue": 3, "flush_secs": 7, "filename_suffix": ".x"}
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path), **arguments) as theirs, EventWriter(tmp_path, **arguments) as ours:
        for name in ("log_dir", "max_queue", "flush_secs", "filename_suffix", "purge_step", "default_bins"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert ours.get_logdir() == theirs.get_logdir() == str(tmp_path)
        assert ours.file_writer.get_logdir() == theirs.file_writer.get_logdir()
        assert list(ours.all_writers) == list(theirs.all_writers)
    assert ours.file_writer is None is theirs.file_writer
    assert ours.all_writers is None is theirs.all_writers


def test_every_public_name_of_torchs_writer_exists(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with EventWriter(tmp_path) as writer:
        assert not [name for name in dir(SummaryWriter) if not name.startswith("_") and not hasattr(writer, name)]
        writer.add_scalar("a", 1.0, 1)
        names = set(dir(writer.file_writer))
    with SummaryWriter(str(tmp_path / "theirs")) as theirs:
        assert {name for name in dir(theirs.file_writer) if not name.startswith("_")} <= names


def test_every_keyword_of_torchs_writer_is_accepted() -> None:
    from torch.utils.tensorboard import SummaryWriter

    # A name listed here is new in torch or has a new default there: support it, and add a test.
    assert signatures.strangers(SummaryWriter) == []


def test_arguments_at_other_positions_in_torch_are_recognized_by_type() -> None:
    from torch.utils.tensorboard import SummaryWriter

    # The first argument of these two has another name in torch. The others are tested above.
    renamed = {"__init__", "add_onnx_graph"}
    assert signatures.displaced(SummaryWriter) == {*renamed, "add_scalar", "add_hparams", "add_image_with_boxes"}


def test_add_scalars_has_tensorboardx_folders_and_torchs_values(tmp_path: Path) -> None:
    # The libraries use different folders; our writer is a subclass of tensorboardX's.
    calls: list[Call] = [("add_scalars", ("group/main", {"a": step, "b": step * 2}, step), {}) for step in range(3)]
    both(tmp_path, calls)
    for tag in "ab":
        theirs = tensorboard_scalars(tmp_path / "theirs" / f"group_main_{tag}", "group/main")
        assert tensorboard_scalars(tmp_path / "ours" / "group/main" / tag, "group/main") == theirs


def test_hooks_of_torchs_writer_are_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.writer import FileWriter

    # As MLflow's autologging does.
    calls: list[Any] = []
    monkeypatch.setattr(SummaryWriter, "add_scalar", lambda *call: calls.append(call))
    monkeypatch.setattr(FileWriter, "add_event", lambda *call: calls.append(call))
    with EventWriter(tmp_path) as writer:
        writer.add_scalar("loss", 1.0, 1)
    assert calls == []
    assert tensorboard_scalars(tmp_path, "loss") == [(1, 1.0)]
