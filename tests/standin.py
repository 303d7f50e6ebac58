"""A simulated accelerator: a test runs the work that is enqueued on its streams, in the order of each stream."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_summary_writer.events.device import Snapshot, find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pytest

__all__ = ["DeviceArray", "StandIn"]


class StandIn:
    """One accelerator with any number of streams.

    Attributes:
        stream: The current stream.
        error: The error that every operation raises, if set.
    """

    def __init__(self) -> None:
        self.stream = 0
        self.error: Exception | None = None
        self.runs_at_once = False
        self.has_memory = True
        self.is_capturing = False
        self.copies = 0
        self._streams: dict[int, deque[Callable[[], None]]] = {}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> StandIn:
        monkeypatch.setitem(find._finders, DeviceArray, lambda array: array.device)
        return self

    def array(self, values: Any) -> DeviceArray:
        return DeviceArray(self, np.array(values))

    def enqueue(self, work: Callable[[], None]) -> None:
        if self.runs_at_once:
            work()
        else:
            self._streams.setdefault(self.stream, deque()).append(work)

    def run(self, stream: int, most: int) -> None:
        queue = self._streams.get(stream, deque())
        for _ in range(min(most, len(queue))):
            queue.popleft()()

    def run_all(self) -> None:
        """Run all enqueued work, and run later work synchronously."""
        self.runs_at_once = True
        for stream in self._streams:
            self.run(stream, 1 << 30)

    # The interface that the writer calls.

    def can_copy(self, _: DeviceArray) -> bool:
        return True

    def number(self, value: DeviceArray) -> Snapshot | None:
        assert value.values.size == 1, "scalar should be 0D"
        taken = self.snapshot(value)
        if taken is not None:
            taken.is_number, taken.nbytes = True, 0
        return taken

    def snapshot(self, value: DeviceArray) -> Snapshot | None:
        if self.is_capturing:
            raise RuntimeError("capturing")
        if not self.has_memory:
            return None
        copy: list[np.ndarray] = []
        self.enqueue(lambda: copy.append(value.values.copy()))
        return Snapshot(self, copy, self.stream, nbytes=value.nbytes)

    def start_copy(self, snapshots: Sequence[Snapshot]) -> StandInCopy:
        if self.error is not None:
            raise self.error
        self.copies += 1
        return StandInCopy(self, snapshots)

    def stand_in(self, value: DeviceArray) -> np.ndarray:
        return np.broadcast_to(np.zeros((), value.values.dtype), value.values.shape)

    def histogram(self, _: Sequence[float]) -> None:
        return None


class StandInCopy:
    def __init__(self, device: StandIn, snapshots: Sequence[Snapshot]) -> None:
        self._device = device
        self._snapshots = snapshots

    def is_ready(self) -> bool:
        if self._device.error is not None:
            raise self._device.error
        return all(snapshot.data for snapshot in self._snapshots)

    def values(self) -> list[Any]:
        if self._device.error is not None:
            raise self._device.error
        return [
            float(snapshot.data[0].reshape(())) if snapshot.is_number else snapshot.data[0]
            for snapshot in self._snapshots
        ]


class DeviceArray:
    """An array on the device, changed by work on its streams."""

    # tensorboardX recognizes arrays by the name of their type, and reads those of JAX by `numpy.array`.
    __module__ = "jax.standin"

    def __init__(self, device: StandIn, values: np.ndarray) -> None:
        self.device = device
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("an array on a device is not read element by element")

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def fill(self, number: float) -> None:
        """Change the array in place, on the current stream."""

        def change() -> None:
            self.values[...] = number

        self.device.enqueue(change)

    def __array__(self, *arguments: Any, **named: Any) -> np.ndarray:
        # A synchronous read waits for the device.
        self.device.run_all()
        return np.array(self.values)
