"""Values that take long to encode: the caller pays for a look and a copy, the rest happens in the background.

What tensorboardX would refuse must be refused in the call, with its exceptions. So only values that are certain to be
encoded are put off; everything else takes tensorboardX's own way, there and then.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from tensorboardX.embedding import TB_MAX_SPRITE_SIZE, append_pbtxt, make_mat, make_sprite, make_tsv
from tensorboardX.summary import audio, histogram, image, video

from hf_summary_writer.event_file import sync_file
from hf_summary_writer.torch_calls import TorchCalls
from hf_summary_writer.values import is_torch, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["HeavyValues"]

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
