"""The encoders of images, audio, video, histograms and embeddings, and whether they can run later.

A value is encoded in the background if it is certain that its encoding succeeds, so that mistakes raise in the call.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import math
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_summary_writer.events.device import device_of
from hf_summary_writer.events.encoding import clean_tag
from hf_summary_writer.events.files import sync_file
from hf_summary_writer.events.summaries import is_torch, unwrapped
from hf_summary_writer.events.upstream import (
    TB_MAX_SPRITE_SIZE,
    HistogramProto,
    Summary,
    append_pbtxt,
    make_histogram,
    make_mat,
    make_np,
    make_sprite,
    make_tsv,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hf_summary_writer.events.device import Device, Snapshot
    from hf_summary_writer.events.memory import MemoryLimit

_BYTES_PER_SAMPLE = 2

_LOUDEST = np.iinfo(np.int16).max

_NUMBERS = "fiu"

_PIXELS = "fiub"

_LAYOUTS = {2: "HW", 3: "CHW", 4: "CHNW", 5: "CHNTW"}

"""The letters that a `dataformats` of that length has to have, sorted."""

_IMAGE_CHANNELS = (1, 3, 4)

_COLOURS = (1, 3)

_IN_RANGE = 1e19

"""Safely inside of the outermost of tensorboardX's default bins."""


def outline(values: Any) -> np.ndarray | None:
    """Return an array of the shape and type of `values`, and of its numbers unless these are on a device.

    `None` for values that only their encoding can check, such as lists.
    """
    if type(values) is np.ndarray:
        return values
    if (device := device_of(values)) is not None:
        return device.stand_in(values)
    if is_torch(values):
        array: np.ndarray = unwrapped(values)
        return array
    return np.asarray(values) if "jax" in str(type(values)) else None


def copy_of(values: Any, memory: MemoryLimit) -> np.ndarray | Snapshot:
    """Return a copy of values that have an outline, on their device if they are on one.

    Past the limit on device memory the caller waits for the copy to the host.
    """
    if type(values) is np.ndarray:
        return values.copy()
    if (device := device_of(values)) is not None:
        return _on_device(device, values, memory) or np.asarray(unwrapped(values))
    return np.array(unwrapped(values))


def _on_device(device: Device, values: Any, memory: MemoryLimit) -> Snapshot | None:
    nbytes: int = values.nbytes
    if not memory.acquire_on_device(nbytes):
        return None
    taken: Snapshot | None = None
    try:
        taken = device.snapshot(values)
    finally:
        if taken is None:
            memory.give_back_on_device(nbytes)
    return taken


def is_curve(labels: np.ndarray, predictions: np.ndarray) -> bool:
    return (
        labels.shape == predictions.shape
        and labels.size > 0
        and labels.dtype.kind in _PIXELS
        and predictions.dtype.kind == "f"
    )


def are_meshes(*arrays: np.ndarray) -> bool:
    return all(array.ndim == 3 and array.dtype.kind in _NUMBERS for array in arrays)


def histogram(tag: str, limits: Sequence[float], values: np.ndarray) -> Summary:
    """Return the summary of `tensorboardX.summary.histogram`, without a copy of `values`."""
    make_np(values)  # for its warning
    doubles = values.astype(float, copy=False)
    return Summary(value=[Summary.Value(tag=clean_tag(tag), histo=make_histogram(doubles, limits))])


def histogram_from_statistics(tag: str, limits: Sequence[float], size: int, statistics: np.ndarray) -> Summary:
    """Return tensorboardX's summary of `size` numbers, from the statistics of `Device.histogram`.

    Raises:
        ValueError: No value is within the limits.
    """
    least, most, total, squares = statistics[:4].tolist()
    counts = np.diff(statistics[4:])
    full = np.flatnonzero(counts)
    if full.size == 0:
        raise ValueError("no value of the histogram is within its bins")
    # The bins with values, and an empty one before them: an event holds only the right limit of each.
    first, last = int(full[0]), int(full[-1])
    buckets = [0.0, *counts[first : last + 1].tolist()]
    histogram = HistogramProto(
        min=least,
        max=most,
        num=size,
        sum=total,
        sum_squares=squares,
        bucket_limit=list(limits[first : last + 2]),
        bucket=buckets,
    )
    return Summary(value=[Summary.Value(tag=clean_tag(tag), histo=histogram)])


def clipped(pixels: Any) -> Any:
    """Return pixels within 0 and 1 where these are not bytes, as torch does; tensorboardX lets them overflow."""
    if isinstance(pixels, np.ndarray) and pixels.dtype.kind in _NUMBERS and pixels.dtype != np.uint8:
        return pixels.clip(0, 1)
    return pixels


def as_frames(sound: Any) -> Any:
    """Convert mono audio from torch's layout `(1, L)` to tensorboardX's `(L,)`; return other audio unchanged."""
    shape = tuple(getattr(sound, "shape", ()))
    is_row = len(shape) > 1 and shape[0] == 1 and math.prod(shape) == max(shape) > 2
    return sound.reshape(-1) if is_row else sound


def mono_audio(tag: str, sound: Any, sample_rate: int) -> Summary:
    """Return the summary of mono audio as torch writes it, without `soundfile`."""
    import wave

    amplitudes = np.asarray(unwrapped(sound)).squeeze()
    assert amplitudes.ndim == 1, "input tensor should be 1 dimensional."  # noqa: S101 - as torch
    if amplitudes.dtype != np.int16:
        amplitudes = amplitudes.clip(-1, 1) * _LOUDEST
    samples = amplitudes.astype("<i2")
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


def write_embedding(
    points: Any,
    images: Any = None,
    *,
    labels: list[Any] | None,
    logdir: str,
    subdir: str,
    step: int,
    tag: str,
    header: Sequence[Any] | None,
) -> None:
    """Write the files of the projector, and fsync them; after an error nothing of them is left."""
    points, images = unwrapped(points), unwrapped(images)
    folder = os.path.join(logdir, subdir)
    is_new = not os.path.isdir(folder)  # noqa: PTH112
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    try:
        if labels is not None:
            make_tsv(labels, folder, metadata_header=header)
        if images is not None:
            make_sprite(images, folder)
        make_mat(points, folder)
        for name in os.listdir(folder):  # noqa: PTH208
            sync_file(os.path.join(folder, name))
        _list_embedding(labels, images, logdir, _quoted(subdir), step, _quoted(tag))
    except BaseException:
        # A part of it would take the room that events need, on a full disk.
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _list_embedding(labels: list[Any] | None, images: Any, logdir: str, subdir: str, step: int, tag: str) -> None:
    """Add an embedding to the projector's list, of which one torn entry would hide all others."""
    path = os.path.join(logdir, "projector_config.pbtxt")
    size = os.path.getsize(path) if os.path.exists(path) else 0  # noqa: PTH110, PTH202
    try:
        append_pbtxt(labels, images, logdir, subdir, step, tag)
        sync_file(path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.truncate(path, size)
        raise


def _quoted(text: str) -> str:
    """Return `text` as it stands between the quotes of a text-format protocol buffer."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@functools.cache
def is_usable(package: str) -> bool:
    """Return whether a package can be imported; without its native library it may raise any exception."""
    try:
        importlib.import_module(package)
    except Exception:  # noqa: BLE001
        return False
    return True


def _sizes(array: np.ndarray, dataformats: Any) -> dict[str, int]:
    """Return the size of each dimension by its letter, nothing if the letters do not fit the array."""
    if not isinstance(dataformats, str) or array.size == 0:
        return {}
    letters = dataformats.upper()
    if "".join(sorted(letters)) != _LAYOUTS.get(array.ndim):
        return {}
    return dict(zip(letters, array.shape, strict=True))


def is_image(array: np.ndarray, dataformats: Any) -> bool:
    sizes = _sizes(array, dataformats)
    return (
        bool(sizes)
        and "T" not in sizes
        and sizes.get("C", 1) in _IMAGE_CHANNELS
        and array.dtype.kind in _PIXELS
        and is_usable("PIL.Image")
    )


def is_video(array: np.ndarray, dataformats: Any) -> bool:
    sizes = _sizes(array, dataformats)
    return "T" in sizes and sizes["C"] in _COLOURS and array.dtype.kind in _NUMBERS


def has_a_bin(array: np.ndarray) -> bool:
    # tensorboardX refuses a histogram without any value in its bins; one that is in them is enough.
    return array.dtype.kind in _NUMBERS and array.size > 0 and abs(float(array.flat[0])) < _IN_RANGE


def is_audio(array: np.ndarray) -> bool:
    return (
        array.dtype in (np.float32, np.float64)
        and array.size > 0
        and (array.ndim == 1 or (array.ndim == 2 and array.shape[1] in (1, 2)))
    )


def is_embedding(points: np.ndarray, images: np.ndarray | None = None, *, labels: list[Any] | None) -> bool:
    return (
        points.ndim == 2
        and points.dtype.kind in _PIXELS
        and (labels is None or len(labels) == len(points))
        and (images is None or _fits_sprite(images, len(points)))
    )


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
        and is_usable("PIL.Image")
    )


def label_strings(metadata: Sequence[Any], header: Sequence[Any] | None) -> list[Any] | None:
    """Return a copy of `metadata` as strings; `None` if the header does not fit it."""
    if not header:
        return [str(label) for label in metadata]
    # By its length: an array of rows has no truth of its own.
    if len(metadata) == 0 or len(header) != len(metadata[0]):
        return None
    return [[str(label) for label in row] for row in metadata]


def label_bytes(labels: list[Any] | None) -> int:
    """Return the memory of labels, which are strings or rows of strings."""
    if not labels:
        return 0
    rows = labels if isinstance(labels[0], list) else [labels]
    return sum(sys.getsizeof(row) + sum(map(sys.getsizeof, row)) for row in rows)
