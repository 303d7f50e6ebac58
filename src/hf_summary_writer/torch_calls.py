"""What `torch.utils.tensorboard.SummaryWriter` has and tensorboardX's has not, with the meaning that torch gives it."""

from __future__ import annotations

import importlib.util
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorboardX
from tensorboardX.proto.summary_pb2 import Summary

from hf_summary_writer.values import tensor_summary, unwrapped

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

__all__ = ["TorchCalls"]

_BYTES_PER_SAMPLE = 2
_LOUDEST = np.iinfo(np.int16).max


class TorchCalls(tensorboardX.SummaryWriter):  # type: ignore[misc]
    """A `SummaryWriter` of tensorboardX that also takes the calls that only torch's takes."""

    @property
    def log_dir(self) -> str:
        """The folder of the run, as torch names it."""
        return self.get_logdir()

    @property
    def max_queue(self) -> int:
        """As given to the constructor."""
        given: int = self._max_queue
        return given

    @property
    def flush_secs(self) -> float:
        """As given to the constructor."""
        given: float = self._flush_secs
        return given

    @property
    def filename_suffix(self) -> str:
        """As given to the constructor."""
        given: str = self._filename_suffix
        return given

    def get_logdir(self) -> str:
        """Return the folder of the run."""
        logdir: str = self.logdir
        return logdir

    def add_tensor(self, tag: str, tensor: Any, global_step: Any = None, walltime: float | None = None) -> None:
        """Add a tensor with all its values.

        Args:
            tag: Name of the series.
            tensor: A tensor or array of any shape.
            global_step: Step to record.
            walltime: Seconds since the epoch; now by default.

        Raises:
            ValueError: It has a data type that torch does not write, or 2 GiB or more.
        """
        self._get_file_writer().add_summary(tensor_summary(tag, tensor), global_step, walltime)

    def add_image_with_boxes(
        self,
        tag: str,
        img_tensor: Any,
        box_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        *positional: Any,
        rescale: float = 1,
        dataformats: str = "CHW",
        labels: Sequence[str] | str | None = None,
    ) -> None:
        """Add an image with boxes drawn on it.

        From the sixth on, arguments by position are tensorboardX's `dataformats` and `labels`, or torch's `rescale`,
        `dataformats` and `labels`; the type of the sixth tells which.

        Args:
            tag: Name of the series.
            img_tensor: Pixels as floats from 0 to 1 or as `uint8`.
            box_tensor: One box a row: left, top, right, bottom.
            global_step: Step to record.
            walltime: Seconds since the epoch; now by default.
            *positional: As above.
            rescale: By how much the image is enlarged.
            dataformats: What each dimension means.
            labels: A text for each box.

        Raises:
            TypeError: There are more arguments than either library takes.
        """
        names = ["rescale", "dataformats", "labels"]
        if positional and isinstance(positional[0], str):
            del names[0]
        if len(positional) > len(names):
            raise TypeError("add_image_with_boxes takes dataformats and labels, or rescale, dataformats and labels")
        named = {"rescale": rescale, "dataformats": dataformats, "labels": labels}
        named.update(zip(names, positional, strict=False))
        super().add_image_with_boxes(tag, img_tensor, box_tensor, global_step, walltime, **named)

    def add_onnx_graph(
        self,
        onnx_model_file: str | os.PathLike[str] | None = None,
        *,
        prototxt: str | os.PathLike[str] | None = None,
    ) -> None:
        """Add the graph of a model; needs the package `onnx`.

        Args:
            onnx_model_file: The model's file.
            prototxt: What torch calls `onnx_model_file`.

        Raises:
            TypeError: There is not exactly one file.
        """
        if (onnx_model_file is None) == (prototxt is None):
            raise TypeError("add_onnx_graph takes one file, as onnx_model_file or as prototxt")
        super().add_onnx_graph(prototxt if onnx_model_file is None else onnx_model_file)

    def add_audio(
        self,
        tag: str,
        snd_tensor: Any,
        global_step: Any = None,
        sample_rate: int = 44100,
        walltime: float | None = None,
    ) -> None:
        """Add sound: with `soundfile` as tensorboardX does it, without it one channel as torch does it.

        Args:
            tag: Name of the series.
            snd_tensor: Amplitudes from -1 to 1; what is louder is clipped.
            global_step: Step to record.
            sample_rate: Frames a second.
            walltime: Seconds since the epoch; now by default.
        """
        if importlib.util.find_spec("soundfile") is not None:
            super().add_audio(tag, snd_tensor, global_step, sample_rate, walltime)
        else:
            self._get_file_writer().add_summary(_one_channel(tag, snd_tensor, sample_rate), global_step, walltime)


def _one_channel(tag: str, sound: Any, sample_rate: int) -> Summary:
    amplitudes = np.asarray(unwrapped(sound)).squeeze()
    import wave

    assert amplitudes.ndim == 1, "input tensor should be 1 dimensional."  # noqa: S101 - what torch raises
    samples = (amplitudes.clip(-1, 1) * _LOUDEST).astype("<i2")
    with io.BytesIO() as file:
        with wave.open(file, "wb") as recording:
            recording.setnchannels(1)
            recording.setsampwidth(_BYTES_PER_SAMPLE)
            recording.setframerate(sample_rate)
            recording.writeframes(samples.tobytes())
        encoded = file.getvalue()
    audio = Summary.Audio(
        sample_rate=sample_rate,
        num_channels=1,
        length_frames=len(samples),
        encoded_audio_string=encoded,
        content_type="audio/wav",
    )
    return Summary(value=[Summary.Value(tag=tag, audio=audio)])
