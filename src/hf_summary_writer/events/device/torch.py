"""Tensors of PyTorch on an accelerator with streams and events: CUDA, ROCm, XPU."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_summary_writer.events.device.snapshot import Snapshot, without_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hf_summary_writer.events.device.snapshot import Copy

_MOST_STREAMS = 64

_BLOCK_NUMBERS = 256

_MOST_SPARE_BLOCKS = 64

_DEFAULT_STREAM = 0

"""The id of CUDA's default stream, which exists as long as the process and of which no graph can be captured."""

_CHUNK = 1 << 20

"""Elements that a histogram sorts at once: its temporary memory stays below 64 MiB, however large the array is."""


class _Block:
    """Device memory for some numbers; callers take places, and the writer thread counts those that it has read.

    Attributes:
        stream: Stream that the numbers were logged on.
        numbers: The memory as one tensor.
        free: Index and view of each unused place.
    """

    __slots__ = ("_places", "_unread", "free", "numbers", "stream")

    def __init__(self, stream: _Stream, numbers: Any) -> None:
        self.stream = stream
        self.numbers = numbers
        self._places: list[tuple[int, Any]] = list(enumerate(numbers.unbind()))
        self.clear()

    def clear(self) -> None:
        self._unread = len(self._places)
        self.free = self._places[::-1]

    def count_read(self, numbers: int) -> None:
        self._unread -= numbers
        if not self._unread:
            self.stream.spare.append(self)


class _Stream:
    """A stream that values are logged on.

    Attributes:
        stream: The stream itself.
        event: Marks the end of all copies so far, except on the default stream: there the writer thread records it.
        is_default: Whether it is the default stream of CUDA.
        block: The block that is being filled.
        spare: Blocks that have been read and can be filled again.
    """

    __slots__ = ("block", "event", "is_default", "spare", "stream")

    def __init__(self, stream: Any, event: Any, *, is_default: bool) -> None:
        self.stream = stream
        self.event = event
        self.is_default = is_default
        self.block: _Block | None = None
        self.spare: deque[_Block] = deque(maxlen=_MOST_SPARE_BLOCKS)


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
        self._index = where.index
        self._pin = pin
        self._strided = torch.strided
        # Private functions where there are some: the public ones make an object or look whether CUDA is initialized.
        internal = torch._C  # noqa: SLF001
        # Tensors inside of `torch.func` transforms look like others, but end with the transform.
        functorch = getattr(internal, "_functorch", None)
        self._is_transformed: Callable[[Any], bool] = getattr(functorch, "is_functorch_wrapped_tensor", lambda _: False)
        self._stream_key: Callable[[int], Any] | None = getattr(internal, f"_{where.type}_getCurrentStream", None)
        self._is_default: Callable[[Any], bool] = _is_default_of_cuda if where.type == "cuda" else lambda _: False
        # Backends without graphs have no such function.
        self._is_capturing: Callable[[], bool] = getattr(backend, "is_current_stream_capturing", bool)
        self._streams: dict[Any, _Stream] = {}
        self._side_stream: Any = None
        self._limits: dict[tuple[tuple[float, ...], Any], tuple[Any, Any]] = {}

    def can_copy(self, value: Any) -> bool:
        return (
            value.layout is self._strided
            and not value.is_quantized
            and not value.is_complex()
            and not value.is_neg()
            and not self._is_transformed(value)
        )

    def number(self, value: Any) -> Snapshot | None:
        # Of the tensors that cannot be read later, `copy_` takes only these without an error.
        if value.is_complex():
            return None
        stream = self._current_stream()
        try:
            if value.requires_grad:
                value = value.detach()
            if value.ndim:
                assert value.numel() == 1, "scalar should be 0D"  # noqa: S101 - as tensorboardX
                value = value.reshape(())
            block = stream.block
            try:
                # One operation: other threads take places, too.
                index, place = block.free.pop()  # type: ignore[union-attr]
            except (AttributeError, IndexError):
                block = self._next_block(stream)
                if block is None:
                    return None
                index, place = block.free.pop()
            place.copy_(value)
        except RuntimeError:
            # No memory, another layout, or a transform of `torch.func`. Reading the value in the call works, or raises
            # a clear error.
            return None
        if not stream.is_default:
            stream.event.record(stream.stream)
        return Snapshot(self, block, stream, index, is_number=True)

    def snapshot(self, value: Any) -> Snapshot | None:
        stream = self._current_stream()
        try:
            data = (value.detach() if value.requires_grad else value).clone()
        except self._torch.OutOfMemoryError:
            return None
        if not stream.is_default:
            stream.event.record(stream.stream)
        return Snapshot(self, data, stream, nbytes=data.nbytes)

    def _current_stream(self) -> _Stream:
        """Return the stream that is current for the device.

        Raises:
            RuntimeError: A graph is being captured on it.
        """
        key = self._backend.current_stream(self._where) if self._stream_key is None else self._stream_key(self._index)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._new_stream(key)
        if not stream.is_default and self._captures():
            raise RuntimeError(
                "a value cannot be logged while a graph is being captured on its stream: log the output of a replay"
            )
        return stream

    def _next_block(self, stream: _Stream) -> _Block | None:
        try:
            block = stream.spare.popleft()
        except IndexError:
            torch = self._torch
            # The block outlives the mode that the caller is in.
            with torch.inference_mode(False):
                numbers = torch.empty(_BLOCK_NUMBERS, dtype=torch.float64, device=self._where)
                if type(numbers) is not torch.Tensor or self._is_transformed(numbers):
                    return None
                block = _Block(stream, numbers)
        else:
            block.clear()
        stream.block = block
        return block

    def _new_stream(self, key: Any) -> _Stream:
        if len(self._streams) >= _MOST_STREAMS:
            self._streams.clear()
        stream = self._backend.current_stream(self._where)
        found = _Stream(stream, self._backend.Event(), is_default=self._is_default(key))
        return self._streams.setdefault(key, found)

    def _captures(self) -> bool:
        if self._backend.current_device() == self._index:
            return self._is_capturing()
        with self._backend.device(self._where):
            return self._is_capturing()

    def stand_in(self, value: Any) -> np.ndarray:
        return without_memory(_dtype_of(self._torch, value.dtype), tuple(value.shape))

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
        """Return all limits but the last, which are outside of their bins, and the last, which is inside of its bin."""
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
                return _TorchCopy(self, snapshots)


def _is_default_of_cuda(key: tuple[int, int, int]) -> bool:
    return key[0] == _DEFAULT_STREAM


class _TorchCopy:
    """All snapshots as bytes in one buffer, so that snapshots of different types cost one transfer."""

    def __init__(self, device: TorchDevice, snapshots: Sequence[Snapshot]) -> None:
        torch, backend, side_stream = device._torch, device._backend, device._side_stream  # noqa: SLF001 - its half
        self._snapshots = snapshots
        places: dict[_Block, list[int]] = {}
        arrays: list[Snapshot] = []
        for snapshot in snapshots:
            if snapshot.index is None:
                arrays.append(snapshot)
            else:
                places.setdefault(snapshot.data, []).append(snapshot.index)
        for stream in {snapshot.stream for snapshot in snapshots}:
            if stream.is_default:
                # After all copies of the snapshots, which are in the queue already.
                stream.event.record(stream.stream)
            side_stream.wait_event(stream.event)
        self._blocks = [(block, min(indices), len(indices)) for block, indices in places.items()]
        sources = [block.numbers[min(indices) : max(indices) + 1] for block, indices in places.items()]
        sources += [snapshot.reduce(snapshot.data) if snapshot.reduce else snapshot.data for snapshot in arrays]
        self._outlines = [(source.shape, source.dtype) for source in sources]
        # The widest type first, so that each is aligned.
        self._order = sorted(range(len(sources)), key=lambda n: -sources[n].dtype.itemsize)
        parts = [sources[n].reshape(-1).view(torch.uint8) for n in self._order]
        # Kept until the copy has ended: the memory belongs to the stream that they were made on.
        self._packed = torch.cat(parts) if len(parts) > 1 else parts[0]
        self._host = torch.empty(self._packed.shape, dtype=torch.uint8, pin_memory=device._pin)  # noqa: SLF001
        self._host.copy_(self._packed, non_blocking=True)
        self._done = backend.Event()
        self._done.record(side_stream)
        self._values: list[Any] | None = None

    def is_ready(self) -> bool:
        return bool(self._done.query())

    def values(self) -> list[Any]:
        # Once, even if a signal interrupts this: a block that counted its numbers twice would be reused too early.
        if self._values is None:
            self._done.synchronize()
            self._values = self._read()
            for block, _, count in self._blocks:
                block.count_read(count)
        return self._values

    def _read(self) -> list[Any]:
        read: list[Any] = [None] * len(self._order)
        begin = 0
        for n in self._order:
            shape, dtype = self._outlines[n]
            end = begin + shape.numel() * dtype.itemsize
            read[n] = self._host[begin:end].view(dtype).reshape(shape)
            begin = end
        # Filled up, so that a number has the index that it has in its block.
        numbers = {
            block: [0.0] * first + found.tolist() for (block, first, _), found in zip(self._blocks, read, strict=False)
        }
        arrays = iter(read[len(self._blocks) :])
        return [
            next(arrays) if snapshot.index is None else numbers[snapshot.data][snapshot.index]
            for snapshot in self._snapshots
        ]


@functools.cache
def _dtype_of(torch: Any, dtype: Any) -> np.dtype[Any]:
    """Return NumPy's type for one of torch's, single precision where NumPy lacks it."""
    tensor = torch.zeros((), dtype=dtype)
    try:
        found: np.dtype[Any] = tensor.numpy().dtype
    except TypeError:
        return np.dtype(np.float32)
    return found


_capture_mode = threading.local()

_RELAXED = 2

"""`CU_STREAM_CAPTURE_MODE_RELAXED` of the CUDA driver API."""


def _allow_captures_elsewhere() -> None:
    """Allow this thread to use the device while another one captures a graph.

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
