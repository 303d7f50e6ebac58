"""Values on accelerators: snapshots taken in the call without waiting for the device, and read later in batches.

A snapshot is a copy on the device, enqueued on the caller's stream, so that it holds the value at the call whatever the
program does to the tensor afterwards. The writer thread copies many snapshots to the host at once, on a stream of its
own, and polls for the end of the copy; it holds neither the interpreter nor the other queues while the device works.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hf_summary_writer.events.tracing import keep_out_of_graphs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Copy", "Device", "Snapshot", "device_of", "take"]

_SHARED_BACKENDS = ("cuda", "xpu")
_MOST_STREAMS = 64

"""Types of torch devices with streams and events; ROCm's is "cuda", too. Others are read in the call."""


_CHUNK = 1 << 20

"""Elements that a histogram sorts at once: its temporary memory stays below 64 MiB, however large the array is."""


class Snapshot:
    """One value on a device, as it was at the call.

    Attributes:
        device: Where it is.
        data: The device's own array.
        event: What marks the end of the copy on the caller's stream.
        stream: Identifies that stream.
        is_number: Whether it is read as a `float`, and not as an array.
        reduce: Makes something smaller of `data`, on the device.
        nbytes: Size on the device.
    """

    __slots__ = ("data", "device", "event", "is_number", "nbytes", "reduce", "stream")

    def __init__(
        self,
        device: Device,
        data: Any,
        event: Any = None,
        stream: Any = None,
        *,
        is_number: bool = False,
        reduce: Callable[[Any], Any] | None = None,
        nbytes: int = 0,
    ) -> None:
        self.device: Device = device
        self.data: Any = data
        self.event: Any = event
        self.stream: Any = stream
        self.is_number: bool = is_number
        self.reduce: Callable[[Any], Any] | None = reduce
        self.nbytes: int = nbytes


class Copy(Protocol):
    """A copy of some snapshots to the host that is under way."""

    def is_ready(self) -> bool:
        """Return whether `values` would not wait; raises what went wrong on the device."""

    def values(self) -> list[Any]:
        """Return a `float` or a host array for each snapshot, in order."""


class Device(Protocol):
    """One accelerator."""

    def check_number(self, value: Any) -> None:
        """Raise what a scalar on the host would raise, by shape and type alone."""

    def snapshot(self, value: Any, *, is_number: bool = False) -> Snapshot | None:
        """Copy `value` on the device without waiting; `None` if there is no memory for it.

        Raises:
            RuntimeError: A graph is being captured, which cannot read a value.
        """

    def start_copy(self, snapshots: Sequence[Snapshot]) -> Copy:
        """Start to copy snapshots to the host, in the writer thread."""

    def stand_in(self, value: Any) -> np.ndarray:
        """Return an array of the same shape and type without memory of its own, to decide by these."""

    def histogram(self, limits: Sequence[float]) -> Callable[[Any], Any] | None:
        """Return a function that reduces an array on the device, or `None` where it must be read whole.

        It returns minimum, maximum, sum, sum of squares, and for each of the ascending `limits` how many numbers are
        below it; for the last one, below or equal.
        """


def device_of(value: Any) -> Device | None:
    """Return the device that `value` is on, or `None` if it is on the host or must be read in the call."""
    kind = type(value)
    finder = _finders.get(kind)
    if finder is None and (finder := _finder_of(kind)) is None:
        return None
    return finder(value)


_finders: dict[type, Callable[[Any], Device | None]] = {}

"""By the type of a value. Not by its base classes: what a subclass does with an operation is its to say."""


def _finder_of(kind: type) -> Callable[[Any], Device | None] | None:
    # Where a library is imported, never by importing it.
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    # A library that is being imported may lack some of its names yet.
    if torch is not None and kind in (getattr(torch, "Tensor", 0), getattr(getattr(torch, "nn", 0), "Parameter", 0)):
        keep_out_of_graphs()
        return _finders.setdefault(kind, _torch_device_of)
    if jax is not None and kind.__name__ == "ArrayImpl":
        return _finders.setdefault(kind, _jax_device_of)
    return None


def take(value: Any, *, is_number: bool = False) -> Snapshot | None:
    """Return a snapshot of `value` if it is on a device that can be read later.

    Raises:
        AssertionError: With `is_number`, `value` has more than one element.
        RuntimeError: A graph is being captured.
    """
    device = device_of(value)
    if device is None:
        return None
    if is_number:
        device.check_number(value)
    return device.snapshot(value, is_number=is_number)


_torch_devices: dict[Any, TorchDevice | None] = {}


def _torch_device_of(value: Any) -> TorchDevice | None:
    if value.is_cpu:
        return None
    where = value.device
    try:
        device = _torch_devices[where]
    except KeyError:
        torch = sys.modules["torch"]
        has_streams = where.type in _SHARED_BACKENDS and hasattr(torch, where.type)
        device = _torch_devices[where] = TorchDevice(torch, getattr(torch, where.type), where) if has_streams else None
    return device if device is not None and device.can_copy(value) else None


class TorchDevice:
    """One accelerator of torch.

    Args:
        torch: The package.
        backend: `torch.cuda` or a module with the same streams and events.
        where: The `torch.device`.
        pin: Whether host memory can be pinned, which asynchronous copies need.
    """

    def __init__(self, torch: Any, backend: Any, where: Any, *, pin: bool = True) -> None:
        self._torch = torch
        self._backend = backend
        self._where = where
        self._pin = pin
        # Tensors inside of `torch.func` transforms look like others, but end with the transform.
        functorch = getattr(torch._C, "_functorch", None)  # noqa: SLF001 - there is no public name
        self._is_transformed: Callable[[Any], bool] = getattr(functorch, "is_functorch_wrapped_tensor", lambda _: False)
        # Backends without graphs have no such function.
        self._is_capturing: Callable[[], bool] = getattr(backend, "is_current_stream_capturing", bool)
        # Private, since the public function makes a new object at each call, for a seventh of the time of a snapshot.
        self._stream_key = getattr(torch._C, f"_{where.type}_getCurrentStream", None)  # noqa: SLF001
        self._streams: dict[Any, Any] = {}
        # Recycled, since creating an event costs more than recording one.
        self._events: deque[Any] = deque(maxlen=4096)
        self._side_stream: Any = None
        self._limits: dict[tuple[tuple[float, ...], Any], tuple[Any, Any]] = {}

    def can_copy(self, value: Any) -> bool:
        """Return whether a clone is all that there is to a tensor: not a sparse or transformed one."""
        torch = self._torch
        return (
            value.layout is torch.strided
            and not value.is_quantized
            and not value.is_complex()
            and not value.is_neg()
            and not self._is_transformed(value)
        )

    def check_number(self, value: Any) -> None:
        assert value.numel() == 1, "scalar should be 0D"  # noqa: S101 - what tensorboardX raises

    def snapshot(self, value: Any, *, is_number: bool = False) -> Snapshot | None:
        stream = self._current_stream()
        if self._captures():
            raise RuntimeError(
                "a value cannot be logged while a graph is being captured on its stream: log the output of a replay"
            )
        try:
            data = (value.detach() if value.requires_grad else value).clone()
        except self._torch.OutOfMemoryError:
            return None
        try:
            event = self._events.pop()
        except IndexError:
            event = self._backend.Event()
        event.record(stream)
        if is_number and data.ndim:
            data = data.reshape(())
        return Snapshot(self, data, event, stream, is_number=is_number, nbytes=data.nbytes)

    def _current_stream(self) -> Any:
        if self._stream_key is None:
            return self._backend.current_stream(self._where)
        key = self._stream_key(self._where.index)
        stream = self._streams.get(key)
        if stream is None:
            if len(self._streams) >= _MOST_STREAMS:
                self._streams.clear()
            stream = self._streams[key] = self._backend.current_stream(self._where)
        return stream

    def _captures(self) -> bool:
        if self._backend.current_device() == self._where.index:
            return self._is_capturing()
        with self._backend.device(self._where):
            return self._is_capturing()

    def stand_in(self, value: Any) -> np.ndarray:
        return np.broadcast_to(_as_numpy(self._torch, self._torch.zeros((), dtype=value.dtype)), tuple(value.shape))

    def histogram(self, limits: Sequence[float]) -> Callable[[Any], Any] | None:
        return functools.partial(self._histogram, limits)

    def _histogram(self, limits: Sequence[float], values: Any) -> Any:
        torch = self._torch
        # The type that compares exactly: numbers of up to 32 bits with limits that are rounded to 32 bits.
        kind = torch.float32 if values.is_floating_point() and values.dtype != torch.float64 else torch.float64
        below, up_to = self._limits_on_device(tuple(limits), kind)
        counts: Any = 0
        total, squares, least, most = 0, 0, [], []
        for chunk in values.reshape(-1).split(_CHUNK):
            ordered = chunk.to(kind).sort().values
            counts = counts + torch.cat(
                [torch.searchsorted(ordered, below), torch.searchsorted(ordered, up_to, right=True)]
            )
            exact = ordered.double()
            least.append(exact.min())
            most.append(exact.max())
            total = total + exact.sum()
            squares = squares + exact.square().sum()
        statistics = torch.stack([torch.stack(least).min(), torch.stack(most).max(), total, squares])
        return torch.cat([statistics, counts.double()])

    def _limits_on_device(self, limits: tuple[float, ...], kind: Any) -> tuple[Any, Any]:
        """Return all limits but the last, which a value is below of or not, and the last, which is within its bin."""
        found = self._limits.get((limits, kind))
        if found is None:
            exact = np.array(limits)
            rounded = exact if kind is self._torch.float64 else exact.astype(np.float32)
            up = np.where(rounded < exact, np.nextafter(rounded, rounded.dtype.type(np.inf)), rounded)[:-1]
            down = np.where(rounded > exact, np.nextafter(rounded, rounded.dtype.type(-np.inf)), rounded)[-1:]
            found = self._limits[limits, kind] = (self._to_device(up), self._to_device(down))
        return found

    def _to_device(self, array: np.ndarray) -> Any:
        tensor = self._torch.from_numpy(array)
        # A copy from memory that is not pinned would wait for the stream.
        return (tensor.pin_memory() if self._pin else tensor).to(self._where, non_blocking=True)

    def start_copy(self, snapshots: Sequence[Snapshot]) -> Copy:
        _allow_captures_elsewhere()
        backend = self._backend
        # The device first: a stream of another one would leave a context on the thread's default device.
        with backend.device(self._where):
            if self._side_stream is None:
                self._side_stream = backend.Stream(self._where)
            with backend.stream(self._side_stream):
                # The last event of a stream covers those before it.
                for event in {snapshot.stream: snapshot.event for snapshot in snapshots}.values():
                    self._side_stream.wait_event(event)
                return _TorchCopy(self, snapshots)

    def recycle(self, snapshots: Sequence[Snapshot]) -> None:
        self._events.extend(snapshot.event for snapshot in snapshots)


class _TorchCopy:
    """All snapshots as bytes in one buffer, so that they cost one transfer whatever their types are."""

    def __init__(self, device: TorchDevice, snapshots: Sequence[Snapshot]) -> None:
        torch, backend = device._torch, device._backend  # noqa: SLF001 - two halves of one thing
        self._torch = torch
        self._device = device
        self._snapshots = snapshots
        data = [snapshot.reduce(snapshot.data) if snapshot.reduce else snapshot.data for snapshot in snapshots]
        groups: dict[tuple[Any, bool], list[int]] = {}
        for index, (snapshot, array) in enumerate(zip(snapshots, data, strict=True)):
            groups.setdefault((array.dtype, snapshot.is_number), []).append(index)
        # The widest first, so that each group is aligned.
        self._groups = sorted(groups.items(), key=lambda group: -group[0][0].itemsize)
        self._shapes: list[Any] = [
            () if each.is_number else array.shape for each, array in zip(snapshots, data, strict=True)
        ]
        # Numbers have no dimension. One call for all of them: between two calls the caller may take the interpreter.
        parts = [
            torch.stack([data[index] for index in members]).view(torch.uint8)
            if are_numbers
            else torch.cat([data[index].reshape(-1) for index in members]).view(torch.uint8)
            for (_, are_numbers), members in self._groups
        ]
        # Kept until the copy has ended: the memory belongs to the stream that they were made on.
        self._packed = torch.cat(parts) if len(parts) > 1 else parts[0]
        pin = device._pin  # noqa: SLF001
        self._host = torch.empty(self._packed.shape, dtype=torch.uint8, pin_memory=pin)
        self._host.copy_(self._packed, non_blocking=True)
        self._done = backend.Event()
        self._done.record(device._side_stream)  # noqa: SLF001

    def is_ready(self) -> bool:
        return bool(self._done.query())

    def values(self) -> list[Any]:
        self._done.synchronize()
        self._device.recycle(self._snapshots)
        values: list[Any] = [None] * len(self._snapshots)
        begin = 0
        for (dtype, are_numbers), members in self._groups:
            sizes = [1] * len(members) if are_numbers else [self._shapes[index].numel() for index in members]
            end = begin + sum(sizes) * dtype.itemsize
            group = self._host[begin:end].view(dtype)
            begin = end
            if are_numbers:
                for index, number in zip(members, group.to(self._torch.float64).tolist(), strict=True):
                    values[index] = number
                continue
            for index, array in zip(members, group.split(sizes), strict=True):
                values[index] = array.reshape(self._shapes[index])
        return values


def _as_numpy(torch: Any, tensor: Any) -> np.ndarray:
    """Return a tensor of the host as an array, in single precision where NumPy lacks its type."""
    try:
        return np.asarray(tensor.numpy())
    except TypeError:
        return np.asarray(tensor.to(torch.float32).numpy())


_capture_mode = threading.local()

_RELAXED = 2

"""`CU_STREAM_CAPTURE_MODE_RELAXED` of the CUDA driver API."""


def _allow_captures_elsewhere() -> None:
    """Let this thread use the device while another one captures a graph.

    Graphs are captured in the mode "global" by default: memory that any thread allocates, or an event that it queries,
    makes the capture fail, unless that thread has opted out (CUDA driver API, cuThreadExchangeStreamCaptureMode).
    """
    if getattr(_capture_mode, "is_relaxed", False):
        return
    _capture_mode.is_relaxed = True
    exchange = _exchange_capture_mode()
    if exchange is not None:
        exchange(ctypes.byref(ctypes.c_int(_RELAXED)))


@functools.cache
def _exchange_capture_mode() -> Any:
    for library, function in (
        ("libcuda.so.1", "cuThreadExchangeStreamCaptureMode"),
        ("libamdhip64.so", "hipThreadExchangeStreamCaptureMode"),
    ):
        with contextlib.suppress(OSError, AttributeError):
            return getattr(ctypes.CDLL(library), function)
    return None


def _jax_device_of(value: Any) -> JaxDevice | None:
    if all(device.platform == "cpu" for device in value.devices()) or not value.is_fully_addressable:
        return None
    return _JAX


class JaxDevice:
    """The accelerators of JAX, whose arrays never change but may be donated to a computation."""

    def check_number(self, value: Any) -> None:
        assert value.size == 1, "scalar should be 0D"  # noqa: S101 - what tensorboardX raises

    def snapshot(self, value: Any, *, is_number: bool = False) -> Snapshot | None:
        data = value.copy()
        data.copy_to_host_async()
        return Snapshot(self, data, is_number=is_number, nbytes=data.nbytes)

    def start_copy(self, snapshots: Sequence[Snapshot]) -> Copy:
        return _JaxCopy(snapshots)

    def stand_in(self, value: Any) -> np.ndarray:
        return np.broadcast_to(np.zeros((), value.dtype), value.shape)

    def histogram(self, limits: Sequence[float]) -> Callable[[Any], Any] | None:  # noqa: ARG002
        return None


class _JaxCopy:
    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self._snapshots = snapshots

    def is_ready(self) -> bool:
        return all(snapshot.data.is_ready() for snapshot in self._snapshots)

    def values(self) -> list[Any]:
        arrays = [np.asarray(snapshot.data) for snapshot in self._snapshots]
        return [
            float(array.reshape(())) if snapshot.is_number else array
            for snapshot, array in zip(self._snapshots, arrays, strict=True)
        ]


_JAX = JaxDevice()
