"""Images, audio, video, histograms, embeddings, and the calls that only torch has; encoded in the background."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import logging
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorboardX
from tensorboardX.embedding import TB_MAX_SPRITE_SIZE, append_pbtxt, make_mat, make_sprite, make_tsv
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import audio, histogram, image, video

from hf_summary_writer.events.files import sync_file
from hf_summary_writer.events.summaries import is_torch, tensor_summary, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["HeavyValues", "TorchCalls"]

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


_logger = logging.getLogger(__name__)

_NUMBERS = "fiu"

_PIXELS = "fiub"

_LAYOUTS = {2: "HW", 3: "CHW", 4: "CNHW", 5: "CHNTW"}

"""The letters that a `dataformats` of that length has to have, sorted."""

_IMAGE_CHANNELS = (1, 3, 4)

_COLOURS = (1, 3)

_IN_RANGE = 1e19

"""Safely inside of the outermost of tensorboardX's default bins."""


class HeavyValues(TorchCalls):
    """The part of a `SummaryWriter` that logs images, sound, histograms and embeddings."""

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """Add an image.

        Args:
            tag: Name of the series.
            img_tensor: Pixels as floats from 0 to 1 or as `uint8`; may be changed after the call.
            global_step: Step to record.
            walltime: Seconds since the epoch; now by default.
            dataformats: What each dimension means.
        """
        if not self._defer_image(tag, img_tensor, global_step, walltime, dataformats):
            super().add_image(tag, unwrapped(img_tensor), global_step, walltime, dataformats)

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:
        """Add several images as one; arguments as for `add_image`."""
        if not self._defer_image(tag, img_tensor, global_step, walltime, dataformats):
            super().add_images(tag, unwrapped(img_tensor), global_step, walltime, dataformats)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: Any = None,
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """Add a histogram.

        Args:
            tag: Name of the series.
            values: Numbers of any shape; may be changed after the call.
            global_step: Step to record.
            bins: How bins are made, `"tensorflow"` or what `numpy.histogram` takes.
            walltime: Seconds since the epoch; now by default.
            max_bins: Most bins to record.
        """
        plain = _is_tag(tag) and isinstance(bins, str) and bins == "tensorflow" and max_bins is None
        numbers = self._snapshot(values, _has_a_bin) if plain else None
        if numbers is None:
            super().add_histogram(tag, unwrapped(values), global_step, bins, walltime, max_bins)
        else:
            make = functools.partial(histogram, tag, numbers, self.default_bins)
            self._defer(make, numbers, global_step, walltime)

    def add_audio(
        self,
        tag: str,
        snd_tensor: Any,
        global_step: Any = None,
        sample_rate: int = 44100,
        walltime: float | None = None,
    ) -> None:
        """Add sound.

        Args:
            tag: Name of the series.
            snd_tensor: Amplitudes from -1 to 1, one frame a row; may be changed after the call.
            global_step: Step to record.
            sample_rate: Frames a second.
            walltime: Seconds since the epoch; now by default.
        """
        plain = _is_tag(tag) and type(sample_rate) is int and sample_rate > 0 and _is_installed("soundfile")
        amplitudes = self._snapshot(snd_tensor, _is_sound) if plain else None
        if amplitudes is None:
            super().add_audio(tag, unwrapped(snd_tensor), global_step, sample_rate, walltime)
        else:
            make = functools.partial(audio, tag, amplitudes, sample_rate=sample_rate)
            self._defer(make, amplitudes, global_step, walltime)

    def add_video(
        self,
        tag: str,
        vid_tensor: Any,
        global_step: Any = None,
        fps: float = 4,
        walltime: float | None = None,
        dataformats: str = "NTCHW",
    ) -> None:
        """Add a film.

        Args:
            tag: Name of the series.
            vid_tensor: Pixels as floats from 0 to 1 or as `uint8`; may be changed after the call.
            global_step: Step to record.
            fps: Frames a second.
            walltime: Seconds since the epoch; now by default.
            dataformats: What each dimension means.
        """
        plain = _is_tag(tag) and type(fps) in (int, float) and fps > 0
        frames = self._snapshot(vid_tensor, functools.partial(_is_film, dataformats=dataformats)) if plain else None
        if frames is None:
            super().add_video(tag, unwrapped(vid_tensor), global_step, fps, walltime, dataformats)
        else:
            make = functools.partial(video, tag, frames, fps, dataformats=dataformats)
            self._defer(make, frames, global_step, walltime)

    def add_embedding(
        self,
        mat: Any,
        metadata: Sequence[Any] | None = None,
        label_img: Any = None,
        global_step: int | None = None,
        tag: str = "default",
        metadata_header: Sequence[Any] | None = None,
    ) -> None:
        """Add points for the projector, as files beside the event files.

        Args:
            mat: One point a row; may be changed after the call.
            metadata: A label, or a row of labels, for each point.
            label_img: An image for each point.
            global_step: Step to record.
            tag: Name of the embedding.
            metadata_header: Names of the columns of `metadata`.
        """
        # In order with the others, a list as well: the last one that is added is the last in the projector's list.
        points = self._snapshot(np.asarray(mat) if isinstance(mat, list) else mat, _is_matrix)
        labels = _labels(metadata, metadata_header, points)
        images = None
        if label_img is not None and points is not None:
            images = self._snapshot(label_img, functools.partial(_fits_sprite, count=len(points)))
        if (
            points is None
            or (labels is None) != (metadata is None)
            or (images is None) != (label_img is None)
            or not isinstance(tag, str)
        ):
            self._without_disk_trouble(
                functools.partial(
                    super().add_embedding, unwrapped(mat), metadata, label_img, global_step, tag, metadata_header
                )
            )
            return
        step = 0 if global_step is None else global_step
        writer = self._get_file_writer()
        logdir = writer.folder
        subdir = f"{str(step).zfill(5)}/{self._encode(tag)}"
        folder = os.path.join(logdir, subdir)
        if os.path.isdir(folder):  # noqa: PTH112
            _logger.warning("embedding folder %s exists: was global_step given to add_embedding()?", folder)

        def write() -> None:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
            if labels is not None:
                make_tsv(labels, folder, metadata_header=metadata_header)
            if images is not None:
                make_sprite(images, folder)
            make_mat(points, folder)
            append_pbtxt(labels, images, logdir, subdir, step, tag)
            for name in os.listdir(folder):  # noqa: PTH208
                sync_file(os.path.join(folder, name))
            sync_file(os.path.join(logdir, "projector_config.pbtxt"))

        nbytes = points.nbytes + (0 if images is None else images.nbytes) + 64 * len(labels or ())
        writer.add_work(write, nbytes)

    @property
    def _has_comet(self) -> bool:
        return self._comet_config.get("disabled") is not True

    def _snapshot(self, values: Any, is_certain: Callable[[np.ndarray], bool]) -> np.ndarray | None:
        """Return a copy of `values` that is certain to be encoded, `None` if the caller must see what becomes of it."""
        # Comet wants what was encoded, and whoever writes nothing to disk only wants mistakes to be found.
        if self._has_comet or not self._write_to_disk:
            return None
        if type(values) is np.ndarray:
            array = values
        elif is_torch(values):
            array = unwrapped(values)
        elif "jax" in str(type(values)):
            array = np.asarray(values)
        else:
            return None
        return array.copy() if is_certain(array) else None

    def _defer_image(self, tag: str, tensor: Any, global_step: Any, walltime: float | None, dataformats: str) -> bool:
        """Put off one image or a batch of them; return False if the caller must see what becomes of it."""
        is_image = functools.partial(_is_image, dataformats=dataformats)
        pixels = self._snapshot(tensor, is_image) if _is_tag(tag) else None
        if pixels is None:
            return False
        self._defer(functools.partial(image, tag, pixels, dataformats=dataformats), pixels, global_step, walltime)
        return True

    def _defer(
        self, make_summary: Callable[[], Any], values: np.ndarray, global_step: Any, walltime: float | None
    ) -> None:
        def make() -> Any:
            # Pixels that are NaN become anything; tensorboardX warns of them by a line in the log.
            with np.errstate(invalid="ignore"):
                return make_summary()

        self._get_file_writer().add_deferred(make, values.nbytes, global_step, walltime)

    @staticmethod
    def _without_disk_trouble(work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            _logger.error("an embedding could not be written: %s", error)  # noqa: TRY400 - one line


@functools.cache
def _is_installed(package: str) -> bool:
    with contextlib.suppress(ImportError, ValueError):
        return importlib.util.find_spec(package) is not None
    return False


def _is_tag(tag: Any) -> bool:
    return tag is None or isinstance(tag, str)


def _sizes(array: np.ndarray, dataformats: Any) -> dict[str, int]:
    """Return the size of each dimension by its letter, nothing if the letters do not fit the array."""
    if not isinstance(dataformats, str) or array.size == 0:
        return {}
    letters = dataformats.upper()
    if "".join(sorted(letters)) != _LAYOUTS.get(array.ndim):
        return {}
    return dict(zip(letters, array.shape, strict=True))


def _is_image(array: np.ndarray, dataformats: Any) -> bool:
    sizes = _sizes(array, dataformats)
    return (
        bool(sizes)
        and "T" not in sizes
        and sizes.get("C", 1) in _IMAGE_CHANNELS
        and array.dtype.kind in _PIXELS
        and _is_installed("PIL")
    )


def _is_film(array: np.ndarray, dataformats: Any) -> bool:
    sizes = _sizes(array, dataformats)
    return "T" in sizes and sizes["C"] in _COLOURS and array.dtype.kind in _NUMBERS


def _has_a_bin(array: np.ndarray) -> bool:
    # tensorboardX refuses a histogram without any value in its bins; one that is in them is enough.
    return array.dtype.kind in _NUMBERS and array.size > 0 and abs(float(array.flat[0])) < _IN_RANGE


def _is_sound(array: np.ndarray) -> bool:
    return (
        array.dtype in (np.float32, np.float64)
        and array.size > 0
        and (array.ndim == 1 or (array.ndim == 2 and array.shape[1] in (1, 2)))
    )


def _is_matrix(array: np.ndarray) -> bool:
    return array.ndim == 2 and array.dtype.kind in _PIXELS


def _fits_sprite(array: np.ndarray, count: int) -> bool:
    if array.ndim != 4 or array.dtype.kind not in _PIXELS or array.size == 0:
        return False
    number, channels, height, width = array.shape
    per_row = math.ceil(math.sqrt(number))
    return (
        number == count
        and height == width
        and channels in _COLOURS
        and per_row * width <= TB_MAX_SPRITE_SIZE
        and _is_installed("PIL")
    )


def _labels(
    metadata: Sequence[Any] | None, header: Sequence[Any] | None, points: np.ndarray | None
) -> list[Any] | None:
    """Return a copy of `metadata` as strings if it fits the points and the header."""
    if points is None or metadata is None or len(metadata) != len(points):
        return None
    if not header:
        return [str(label) for label in metadata]
    # By its length: an array of rows has no truth of its own.
    if len(metadata) == 0 or len(header) != len(metadata[0]):
        return None
    return [[str(label) for label in row] for row in metadata]
