"""Summaries of tensors, hyperparameters and audio, without a framework."""

from __future__ import annotations

import io
import wave
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.util.tensor_util import make_ndarray
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from events import logged, steps
from hf_summary_writer.events import media
from hf_summary_writer.events.writer import EventWriter

if TYPE_CHECKING:
    from pathlib import Path


# TensorBoard causes this warning with NumPy 2.5.
@pytest.mark.filterwarnings("ignore:Setting the dtype on a NumPy array:DeprecationWarning")
@pytest.mark.parametrize(
    "kind",
    ["float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool", "complex64", "complex128"],
)
def test_tensorboard_reads_back_a_tensor_of_each_type(tmp_path: Path, kind: str) -> None:
    tensor = (np.arange(6).reshape(2, 3) / (1 if "int" in kind else 4)).astype(kind)
    with EventWriter(tmp_path) as writer:
        writer.add_tensor("tensor", tensor, 3)
        writer.add_tensor("scalar", tensor[0, 1])
    [event, scalar] = logged(tmp_path)
    value = event.summary.value[0]
    assert (event.step, value.tag, value.metadata.plugin_data.plugin_name) == (3, "tensor", "tensor")
    read = make_ndarray(TensorProto.FromString(value.tensor.SerializeToString()))
    assert read.dtype == tensor.dtype
    assert np.array_equal(read, tensor)
    assert list(scalar.summary.value[0].tensor.tensor_shape.dim) == []


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (np.array(["text"]), "unsupported tensor dtype"),
        (np.zeros(2, "datetime64[s]"), "unsupported tensor dtype"),
        (np.broadcast_to(np.float32(0), (2**15, 2**14)), "2 GiB or more"),
    ],
    ids=["text", "times", "2 GiB"],
)
def test_a_tensor_that_no_event_can_hold_raises_in_the_call(tmp_path: Path, tensor: Any, message: str) -> None:
    with EventWriter(tmp_path) as writer, pytest.raises(ValueError, match=message):
        writer.add_tensor("tensor", tensor)
    assert logged(tmp_path) == []


def test_domains_of_hyperparameters_are_written_as_by_torch(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_hparams({"lr": 0.1, "kind": "a"}, {"loss": 1.0}, {"kind": ["a", "b"]}, "trial", 7)
    experiment, _, _, metric = logged(tmp_path / "trial")
    content = HParamsPluginData.FromString(experiment.summary.value[0].metadata.plugin_data.content)
    domains = {info.name: list(info.domain_discrete) for info in content.experiment.hparam_infos}
    assert domains == {"lr": [], "kind": ["a", "b"]}
    assert metric.step == 7


def test_numpy_hyperparameters_are_written_like_python_ones(tmp_path: Path) -> None:
    of_numpy: dict[str, Any] = {"lr": np.float32(0.5), "batch": np.int64(32), "bias": np.True_, "kind": np.str_("a")}
    with EventWriter(tmp_path) as writer:
        writer.add_hparams(of_numpy, {}, {"batch": [np.int64(32), 64]}, "numpy")
        writer.add_hparams({key: value.item() for key, value in of_numpy.items()}, {}, {"batch": [32, 64]}, "python")
    found = [[event.summary for event in logged(tmp_path / name)] for name in ("numpy", "python")]
    assert found[0] == found[1]
    start = HParamsPluginData.FromString(found[0][1].value[0].metadata.plugin_data.content).session_start_info
    assert {key: value.WhichOneof("kind") for key, value in start.hparams.items()} == {
        "lr": "number_value",
        "batch": "number_value",
        "bias": "bool_value",
        "kind": "string_value",
    }


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (({"lr": ["0.1"]},), "values of the type"),
        (({"other": [1.0]},), "values of the type"),
        (({}, "trial", 1, "more"), "by position"),
        (("trial", 1, "more", 2), "by position"),
    ],
)
def test_invalid_hyperparameter_arguments_raise_before_anything_is_written(
    tmp_path: Path, more: tuple[Any, ...], message: str
) -> None:
    with EventWriter(tmp_path) as writer:
        with pytest.raises(TypeError, match=message):
            writer.add_hparams({"lr": 0.1}, {"loss": 1.0}, *more)
        with pytest.raises(TypeError, match="dictionary"):
            writer.add_hparams({"lr": 0.1}, {"loss": 1.0}, hparam_domain_discrete=["lr"])
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_16_bit_audio_samples_are_unchanged_without_soundfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "is_usable", lambda _: False)
    samples = np.array([0, 1, -1, 32767, -32768], np.int16)
    with EventWriter(tmp_path) as writer:
        writer.add_audio("sound", samples, 1, sample_rate=8000)
    [event] = logged(tmp_path)
    with wave.open(io.BytesIO(event.summary.value[0].audio.encoded_audio_string)) as recording:
        assert recording.getframerate() == 8000
        assert np.frombuffer(recording.readframes(5), "<i2").tolist() == samples.tolist()


def test_the_inner_event_writer_may_be_flushed_closed_and_reopened(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        inner = writer.file_writer.event_writer
        for step, finish in enumerate([inner.flush, inner.close, inner.reopen]):
            inner.add_event(Event(step=step, wall_time=1.0))
            finish()
        assert inner.get_logdir() == str(tmp_path)
        with pytest.raises(TypeError, match="protocol buffer Event"):
            inner.add_event("no event")
    assert [event.step for event in logged(tmp_path)] == [0, 1, 2]
    assert steps(tmp_path, "none") == []
