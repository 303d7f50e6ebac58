"""`EventWriter`: tensorboardX's `SummaryWriter` with a cheap `add_scalar` and event files that stay whole."""

from __future__ import annotations

import functools
import json
import os
from time import time
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import tensorboardX

from hf_summary_writer.checks import as_file_name, has_long_name, is_unicode
from hf_summary_writer.events import hooks, media
from hf_summary_writer.events.device import Snapshot, device_of
from hf_summary_writer.events.encoding import clean_tag, scalar_prefix
from hf_summary_writer.events.file_writer import plain_step, plain_time
from hf_summary_writer.events.items import ScalarOnDevice
from hf_summary_writer.events.run_files import RunFiles
from hf_summary_writer.events.summaries import (
    check_tensor,
    hparams_summaries,
    plain_hparams,
    scalar_of,
    tensor_summary,
    torch_scalar,
    trial_of,
    unwrapped,
)
from hf_summary_writer.events.upstream import HAS_ENCODERS, audio, image, mesh, pr_curve, scalar, video
from hf_summary_writer.notices import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

_MOST_TAGS = 10_000

"""Tags remembered in their encoded form; more than that are forgotten all at once."""

_SUMMARY_BYTES = 16 * 1024

"""Memory of a summary of few numbers, rounded up."""

_STEPS = 1 << 63

_SAMPLE_RATES = 1 << 31

_FEWEST_FRAMES, _MOST_FRAMES = 0.01, 1000

"""Frames per second that a GIF can hold for certain, whose times are hundredths of a second in 16 bits."""

# The class itself: a program may put a subclass in its place.
_Upstream: Any = tensorboardX.SummaryWriter


class EventWriter(RunFiles):
    """A `SummaryWriter` that writes to the disk alone, at next to no cost to the training loop.

    A call takes its values, puts them into a queue and returns; one thread of the process writes them to disk, within
    half a second or so. `flush` returns when all events logged before, by any thread, are written and fsynced. No
    failure of the disk raises from a constructor, an `add_*`, `flush` or `close`: it is logged once, and events are
    kept in memory up to `max_pending_bytes`, then dropped and counted. All methods may be called from any thread; in a
    forked child the writer goes on in a file of the child's own.

    The arguments are those of `RunFiles`, which holds the files. While comet is on, or another tracker hooks into
    tensorboardX's classes, values are encoded in the calling thread.
    """

    # Whether tags become names of TensorFlow's graph, as in tensorboardX and not in torch; for subclasses.
    _cleans_tags = True

    # Numbers.

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        display_name: str = "",
        summary_description: str = "",
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """Add one number.

        The fifth and sixth argument by position are tensorboardX's, or torch's `new_style` and `double_precision`.
        """
        # The hot path of a training loop: no lock, no protocol buffer, no avoidable call.
        events = self._queue
        prefix = self._prefixes.get(tag)
        if (
            events is None
            or prefix is None
            or walltime is not None
            or display_name
            or summary_description
            or new_style
            or events.has_metadata
            or (global_step is not None and (type(global_step) is not int or not 0 <= global_step < _STEPS))
        ):
            self._add_any_scalar(
                tag, scalar_value, global_step, walltime, display_name, summary_description, new_style, double_precision
            )
            return
        # The difference is zero for finite numbers; scalar_of warns of all others.
        if type(scalar_value) is not float or scalar_value - scalar_value:
            scalar_value = scalar_of(scalar_value)
            if type(scalar_value) is not float:
                events.put(ScalarOnDevice(time(), prefix, scalar_value, global_step))
                return
        now = time()
        if len(events.items) >= self._memory.items and not events.wait_for_room():
            return
        events.items.append((now, prefix, scalar_value, global_step))
        if now >= events.register_at:
            events.register(now)
            self._look_for_hooks()

    def _add_any_scalar(
        self,
        tag: str,
        value: Any,
        step: Any,
        walltime: float | None,
        display_name: str,
        description: str,
        new_style: bool,
        double_precision: bool,
    ) -> None:
        writer = self._get_file_writer()
        if isinstance(display_name, bool):
            new_style, double_precision = display_name, bool(description)
            display_name = description = ""
        is_hooked = self._look_for_hooks()
        number = self._scalar_of(value)
        if new_style:
            make = functools.partial(torch_scalar, self._name_of(tag), double_precision=double_precision)
            self._add_number(make, number, step, walltime)
        elif is_hooked:
            _Upstream.add_scalar(self._keeping(tag), tag, number, step, walltime, display_name, description)
            return
        elif display_name or description or not self._write_to_disk:
            self._add_number(lambda number: scalar(tag, number, display_name, description), number, step, walltime)
        else:
            writer.add_scalar(self._prefix(tag), number, step, walltime)
        if self._has_comet:
            self._get_comet_logger().log_metric(tag, display_name, value, step)

    def _scalar_of(self, value: Any) -> float | Snapshot:
        return scalar_of(value, may_be_read_later=self._encodes_later)

    def _add_number(
        self, make: Callable[[float], Any], number: float | Snapshot, step: Any, walltime: float | None
    ) -> None:
        writer = self._get_file_writer()
        if isinstance(number, Snapshot):
            writer.add_deferred(make, _SUMMARY_BYTES, step, walltime, (number,))
        else:
            writer.add_summary(make(number), step, walltime)

    def _name_of(self, tag: str) -> str:
        name: str = clean_tag(tag) if self._cleans_tags else tag
        return name

    def _keeping(self, tag: Any) -> Any:
        """Return this writer, or one in its place for a method of tensorboardX that would clean a tag to be kept."""
        return self if self._cleans_tags or not isinstance(tag, str) else _Renaming(self, tag)

    def _prefix(self, tag: str) -> bytes:
        prefix = self._prefixes.get(tag)
        if prefix is None:
            prefix = scalar_prefix(self._name_of(tag))
            if len(self._prefixes) >= _MOST_TAGS:
                self._prefixes.clear()
            self._prefixes[tag] = prefix
        return prefix

    def add_scalars(
        self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: Any = None, walltime: float | None = None
    ) -> None:
        """Add several numbers to one plot, each in a run of its own in a folder `<logdir>/<main_tag>/<tag>`.

        They are also kept in memory for `export_scalars_to_json`, as tensorboardX does it. If one of them, a name or
        the step is refused, nothing is written.

        Raises:
            ValueError: A name leads out of the logdir or can be no folder.
        """
        for name in (main_tag, *tag_scalar_dict):
            _check_folder_name(name)
        wall_time = time() if walltime is None else walltime
        root = self._get_file_writer().get_logdir()
        if self._look_for_hooks():
            self._add_hooked_scalars(main_tag, tag_scalar_dict, global_step, wall_time)
            return
        if tag_scalar_dict and walltime is not None:
            plain_time(walltime)  # refused before the step, as in tensorboardX
        step = plain_step(global_step) if tag_scalar_dict else None
        numbers = {tag: self._scalar_of(value) for tag, value in tag_scalar_dict.items()}
        for tag, number in numbers.items():
            folder = os.path.join(root, _inside(main_tag), _inside(tag))
            row = [wall_time, step, None if isinstance(number, Snapshot) else number]
            if self._write_to_disk:
                on_read = functools.partial(row.__setitem__, 2)
                self._sub_writer(folder).add_scalar(self._prefix(main_tag), number, step, wall_time, on_read)
            self.scalar_dict.setdefault(folder, []).append(row)
        if self._has_comet:
            self._get_comet_logger().log_metrics(tag_scalar_dict, main_tag, step=global_step)

    def _add_hooked_scalars(self, main_tag: Any, values: Mapping[str, Any], step: Any, walltime: float) -> None:
        main_tag = _inside(main_tag)
        numbers = {_inside(tag): self._scalar_of(value) for tag, value in values.items()}
        if self._write_to_disk:
            for tag in numbers:
                # tensorboardX would open a file writer of its own for a folder that has none.
                self._sub_writer(os.path.join(self.get_logdir(), main_tag, tag))
        super().add_scalars(main_tag, numbers, step, walltime)

    def export_scalars_to_json(self, path: str | os.PathLike[str]) -> None:
        """Write all values of `add_scalars` so far to a JSON file, after waiting for values on a device."""
        self.flush()
        super().export_scalars_to_json(path)

    @overload
    def add_hparams(
        self,
        hparam_dict: dict[str, Any],
        metric_dict: dict[str, Any],
        name: str | None = None,
        global_step: Any = None,
        *,
        hparam_domain_discrete: Mapping[str, Sequence[Any]] | None = None,
        run_name: str | None = None,
    ) -> None: ...

    @overload
    def add_hparams(
        self,
        hparam_dict: dict[str, Any],
        metric_dict: dict[str, Any],
        hparam_domain_discrete: Mapping[str, Sequence[Any]] | None = None,
        run_name: str | None = None,
        global_step: Any = None,
    ) -> None: ...

    def add_hparams(
        self, hparam_dict: dict[str, Any], metric_dict: dict[str, Any], *positional: Any, **named: Any
    ) -> None:
        """Add hyperparameters and the metrics they led to, as a run of its own below `logdir`.

        From the third on, arguments by position are tensorboardX's `name` and `global_step`, or torch's
        `hparam_domain_discrete`, `run_name` and `global_step`; their types tell which. `name`, which torch calls
        `run_name`, is the folder of that run; `"."` is the run's own folder.

        Raises:
            TypeError: `hparam_dict` or `metric_dict` is no dictionary, or the other arguments fit neither library.
            ValueError: The name leads out of the logdir or can be no folder, or the step is none. Nothing has been
                written then.
        """
        trial = trial_of(positional, named)
        if not all(isinstance(given, dict) for given in (hparam_dict, metric_dict)):
            raise TypeError("hparam_dict and metric_dict should be dictionary.")
        summaries = hparams_summaries(hparam_dict, metric_dict, trial.hparam_domain_discrete or {})
        is_hooked = self._look_for_hooks()
        metrics = {key: self._scalar_of(value) for key, value in metric_dict.items()}
        step = plain_step(trial.global_step) if metrics else None
        folder = self._folder_of_trial(trial.name or trial.run_name or str(time()))
        own = self._get_file_writer()
        if not summaries or hooks.is_hooked("add_hparams"):
            self._add_hooked_hparams(plain_hparams(hparam_dict), metrics, folder, step)
            return
        if self._write_to_disk:
            in_place = folder == os.path.normpath(self.logdir)
            writer = own if in_place else self._trial_writer(folder)
            try:
                for summary in summaries:
                    writer.add_summary(summary)
                for key, number in metrics.items():
                    if is_hooked:
                        writer.add_summary(scalar(key, number), step)
                    else:
                        writer.add_scalar(self._prefix(key), number, step)
            finally:
                # Without a wait: hyperparameters wait for a full or slow disk as all events do.
                if not in_place:
                    writer.end()
        if self._has_comet:
            self._get_comet_logger().log_parameters(hparam_dict, step=trial.global_step)

    def _add_hooked_hparams(self, values: dict[str, Any], metrics: dict[str, Any], folder: str, step: Any) -> None:
        try:
            # tensorboardX writes the trial by itself.
            super().add_hparams(values, metrics, os.path.relpath(folder, self.logdir), step)
        except OSError as error:
            logger.error("hyperparameters could not be written: %s", error)  # noqa: TRY400 - the error says enough

    def _folder_of_trial(self, name: str) -> str:
        base = os.path.normpath(os.path.join(self._started_in, self.logdir))
        folder = os.path.normpath(os.path.join(base, as_file_name(name)))
        inside = os.path.relpath(folder, base)
        _check_folder_name(inside)
        return os.path.normpath(os.path.join(self.logdir, inside))

    # Media, encoded in the background.

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """Add an image; `img_tensor` may be changed after the call."""
        self._add_pixels(_Upstream.add_image, tag, img_tensor, global_step, walltime, dataformats)

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:
        """Add several images as one; `img_tensor` may be changed after the call.

        It may also be a list of images, with the `dataformats` of one.
        """
        if isinstance(img_tensor, list) and dataformats.upper() in {"CHW", "HWC"}:
            # Not by tensorboardX, which needs torch for it and does not clip.
            img_tensor, dataformats = np.stack(list(map(unwrapped, img_tensor))), f"N{dataformats}"
        self._add_pixels(_Upstream.add_images, tag, img_tensor, global_step, walltime, dataformats)

    def _add_pixels(
        self, add: Any, tag: str, tensor: Any, global_step: Any, walltime: float | None, dataformats: str
    ) -> None:
        copies = self._copies(tag, [tensor], functools.partial(media.is_image, dataformats=dataformats))
        if copies is None:
            add(self._keeping(tag), tag, media.clipped(unwrapped(tensor)), global_step, walltime, dataformats)
        else:

            def make(pixels: np.ndarray) -> Any:
                return image(tag, media.clipped(pixels), dataformats=dataformats)

            self._defer(make, global_step, walltime, copies, tag=tag)

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
        pixels, boxes = media.clipped(unwrapped(img_tensor)), unwrapped(box_tensor)
        super().add_image_with_boxes(tag, pixels, boxes, global_step, walltime, **named)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: Any = None,
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """Add a histogram; `values` may be changed after the call."""
        plain = isinstance(bins, str) and bins == "tensorflow" and max_bins is None
        copies = self._copies(tag, [values], media.has_a_bin) if plain else None
        if copies is None:
            numbers = unwrapped(values)
            _Upstream.add_histogram(self._keeping(tag), tag, numbers, global_step, bins, walltime, max_bins)
            return
        limits = self.default_bins
        make = functools.partial(media.histogram, tag, limits)
        [copy] = copies
        if isinstance(copy, Snapshot) and (reduce := copy.device.histogram(limits)) is not None:
            copy.reduce = reduce
            make = functools.partial(media.histogram_from_statistics, tag, limits, values.numel())
        self._defer(make, global_step, walltime, copies, tag=tag)

    def add_audio(
        self,
        tag: str,
        snd_tensor: Any,
        global_step: Any = None,
        sample_rate: int = 44100,
        walltime: float | None = None,
    ) -> None:
        """Add audio, with `soundfile` as tensorboardX and without it as torch, which takes one channel.

        `snd_tensor` may be changed after the call.
        """
        snd_tensor = media.as_frames(snd_tensor)
        if not media.is_usable("soundfile"):
            summary = media.mono_audio(tag, snd_tensor, sample_rate)
            self._get_file_writer().add_summary(summary, global_step, walltime)
            return
        plain = type(sample_rate) is int and 0 < sample_rate < _SAMPLE_RATES
        copies = self._copies(tag, [snd_tensor], media.is_audio) if plain else None
        if copies is None:
            super().add_audio(tag, unwrapped(snd_tensor), global_step, sample_rate, walltime)
        else:
            self._defer(functools.partial(audio, tag, sample_rate=sample_rate), global_step, walltime, copies)

    def add_video(
        self,
        tag: str,
        vid_tensor: Any,
        global_step: Any = None,
        fps: float = 4,
        walltime: float | None = None,
        dataformats: str = "NTCHW",
    ) -> None:
        """Add a video; `vid_tensor` may be changed after the call."""
        plain = type(fps) in (int, float) and _FEWEST_FRAMES <= fps <= _MOST_FRAMES
        is_video = functools.partial(media.is_video, dataformats=dataformats)
        copies = self._copies(tag, [vid_tensor], is_video) if plain else None
        if copies is None:
            pixels = media.clipped(unwrapped(vid_tensor))
            _Upstream.add_video(self._keeping(tag), tag, pixels, global_step, fps, walltime, dataformats)
        else:

            def make(pixels: np.ndarray) -> Any:
                return video(tag, media.clipped(pixels), fps, dataformats)

            self._defer(make, global_step, walltime, copies, tag=tag)

    def add_embedding(
        self,
        mat: Any,
        metadata: Sequence[Any] | None = None,
        label_img: Any = None,
        global_step: int | None = None,
        tag: str = "default",
        metadata_header: Sequence[Any] | None = None,
    ) -> None:
        """Add points for the projector, as files beside the event files; `mat` may be changed after the call."""
        if not (self._write_to_disk or self._has_comet or self._look_for_hooks()):
            return  # tensorboardX would write it all the same
        step = 0 if global_step is None else global_step
        subdir = f"{str(step).zfill(5)}/{self._encode(tag)}"
        _check_folder_name(subdir)
        # A list as well, in order with the others: the last one that is added is the last in the projector's list.
        points = np.asarray(mat) if isinstance(mat, list) else mat
        labels = None if metadata is None else media.label_strings(metadata, metadata_header)
        copies = None
        if (labels is None) == (metadata is None):
            given = [points] if label_img is None else [points, label_img]
            copies = self._copies(tag, given, functools.partial(media.is_embedding, labels=labels))
        if copies is None:
            try:
                super().add_embedding(unwrapped(mat), metadata, label_img, global_step, tag, metadata_header)
            except OSError as error:
                logger.error("an embedding could not be written: %s", error)  # noqa: TRY400 - likewise
            return
        folder = os.path.join(self._real_logdir, subdir)
        if os.path.isdir(folder):  # noqa: PTH112
            logger.warning("embedding folder %s exists: was global_step given to add_embedding()?", folder)
        write = functools.partial(
            media.write_embedding,
            logdir=self._real_logdir,
            subdir=subdir,
            step=step,
            tag=tag,
            header=metadata_header,
            labels=labels,
        )
        nbytes = sum(copy.nbytes for copy in copies) + media.label_bytes(labels)
        self._get_file_writer().add_work(write, nbytes, copies)

    def add_pr_curve(
        self,
        tag: str,
        labels: Any,
        predictions: Any,
        global_step: Any = None,
        num_thresholds: int = 127,
        weights: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Add a precision-recall curve; `labels` and `predictions` may be changed after the call."""
        plain = weights is None and type(num_thresholds) is int and num_thresholds > 0
        copies = self._copies(tag, [labels, predictions], media.is_curve) if plain else None
        if copies is None:
            super().add_pr_curve(
                tag, unwrapped(labels), unwrapped(predictions), global_step, num_thresholds, weights, walltime
            )
        else:
            self._defer(functools.partial(pr_curve, tag, num_thresholds=num_thresholds), global_step, walltime, copies)

    def add_mesh(
        self,
        tag: str,
        vertices: Any,
        colors: Any = None,
        faces: Any = None,
        config_dict: Mapping[str, Any] | None = None,
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Add meshes or point clouds; the arrays may be changed after the call."""
        config = json.loads(json.dumps(config_dict, sort_keys=True))
        given = {"vertices": vertices, "colors": colors, "faces": faces}
        present = {name: value for name, value in given.items() if value is not None}
        copies = self._copies(tag, present.values(), media.are_meshes)
        if copies is None:
            colors, faces = unwrapped(colors), unwrapped(faces)
            super().add_mesh(tag, unwrapped(vertices), colors, faces, config_dict, global_step, walltime)
            return

        def make(*arrays: np.ndarray) -> Any:
            on_host = dict(zip(present, arrays, strict=True))
            return mesh(tag, *map(on_host.get, given), config)

        self._defer(make, global_step, walltime, copies)

    def _may_defer(self, tag: Any) -> bool:
        self._look_for_hooks()
        return HAS_ENCODERS and self._encodes_later and (tag is None or (isinstance(tag, str) and is_unicode(tag)))

    def _copies(
        self, tag: Any, values: Collection[Any], are_certain: Callable[..., bool]
    ) -> list[np.ndarray | Snapshot] | None:
        """Return copies of values if they can be encoded later, which is certain to succeed then."""
        if not self._may_defer(tag):
            return None
        outlines = []
        for value in values:
            if (outline := media.outline(value)) is None:
                return None
            outlines.append(outline)
        if not are_certain(*outlines):
            return None
        return [media.copy_of(value, self._memory) for value in values]

    def _defer(
        self,
        make_summary: Callable[..., Any],
        global_step: Any,
        walltime: float | None,
        copies: Sequence[np.ndarray | Snapshot],
        tag: str | None = None,
    ) -> None:
        """Add the summary that `make_summary` returns in the writer thread, with `tag` if tags are to be kept."""
        name = None if self._cleans_tags else tag

        def make(*arrays: Any) -> Any:
            # Pixels that are NaN become anything; tensorboardX warns of them by a line in the log.
            with np.errstate(invalid="ignore"):
                summary = make_summary(*map(unwrapped, arrays))
            if name is not None:
                summary.value[0].tag = name
            return summary

        nbytes = 0
        for copy in copies:
            nbytes += _SUMMARY_BYTES if type(copy) is Snapshot and copy.reduce else copy.nbytes
        self._get_file_writer().add_deferred(make, nbytes, global_step, walltime, copies)

    # Members that only torch's writer has.

    def add_tensor(self, tag: str, tensor: Any, global_step: Any = None, walltime: float | None = None) -> None:
        """Add a tensor of any shape with all its values.

        Raises:
            ValueError: It has a data type that torch does not write, or 2 GiB or more.
        """
        make = functools.partial(tensor_summary, tag)
        writer = self._get_file_writer()
        if device_of(tensor) is not None and self._may_defer(tag):
            check_tensor(tag, tensor)
            taken = media.copy_of(tensor, self._memory)
            writer.add_deferred(make, tensor.nbytes, global_step, walltime, (taken,))
        else:
            writer.add_summary(make(tensor), global_step, walltime)

    def add_onnx_graph(
        self,
        onnx_model_file: str | os.PathLike[str] | None = None,
        *,
        prototxt: str | os.PathLike[str] | None = None,
    ) -> None:
        """Add the graph of a model from its file, which torch calls `prototxt`; needs the package `onnx`.

        Raises:
            TypeError: There is not exactly one file.
        """
        if (onnx_model_file is None) == (prototxt is None):
            raise TypeError("add_onnx_graph takes one file, as onnx_model_file or as prototxt")
        super().add_onnx_graph(prototxt if onnx_model_file is None else onnx_model_file)


class _Renaming:
    """A writer for one call of a method of tensorboardX, whose summary gets the tag that was given."""

    def __init__(self, writer: EventWriter, tag: str) -> None:
        self._writer = writer
        self._tag = tag

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def _get_file_writer(self) -> _Renaming:
        return self

    def add_summary(self, summary: Any, global_step: Any = None, walltime: float | None = None) -> None:
        for value in summary.value:
            value.tag = self._tag
        self._writer._get_file_writer().add_summary(summary, global_step, walltime)  # noqa: SLF001 - its half


def _check_folder_name(name: Any) -> None:
    # Other types are left to `os.path.join`.
    if not isinstance(name, str):
        return
    path = as_file_name(name)
    if "\0" in name or os.pardir in path.split("/") or has_long_name(path):
        raise ValueError(f"a folder below the logdir cannot have this name: {name!r}")


def _inside(name: Any) -> Any:
    # A leading slash would lead out of the run. Other types are left to `os.path.join`.
    return as_file_name(name).lstrip("/") if isinstance(name, str) else name
