"""A value on an accelerator, the interface of an accelerator, and the copies to the host that are under way."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


class Snapshot:
    """One value on a device, as it was at the call.

    Attributes:
        device: Accelerator that holds it.
        data: The device's own array, or the block that holds the number.
        stream: Stream that the copy was enqueued on.
        index: Position of the number in its block.
        is_number: Whether it is read as a `float`, and not as an array.
        nbytes: Size on the device; 0 for a number.
        reduce: Function that reduces `data` on the device before the copy to the host, if any.
        value: The `float` or host array, once it has been read.
    """

    __slots__ = ("data", "device", "index", "is_number", "nbytes", "reduce", "stream", "value")

    def __init__(
        self,
        device: Device,
        data: Any,
        stream: Any = None,
        index: int | None = None,
        *,
        is_number: bool = False,
        nbytes: int = 0,
    ) -> None:
        self.device: Device = device
        self.data: Any = data
        self.stream: Any = stream
        self.index: int | None = index
        self.is_number: bool = is_number
        self.nbytes: int = nbytes
        self.reduce: Callable[[Any], Any] | None = None
        self.value: Any = None


class Copy(Protocol):
    """A copy of some snapshots to the host that is under way."""

    def is_ready(self) -> bool:
        """Return whether `values` would not wait; raise an error of the device."""

    def values(self) -> list[Any]:
        """Return a `float` or a host array for each snapshot, in order."""


class Device(Protocol):
    """One accelerator."""

    def can_copy(self, value: Any) -> bool:
        """Return whether a copy of the stored numbers of `value` is a full copy of it."""

    def number(self, value: Any) -> Snapshot | None:
        """Copy the one number in `value`, as `snapshot` does.

        Raises:
            AssertionError: `value` has more than one element.
            RuntimeError: As for `snapshot`.
        """

    def snapshot(self, value: Any) -> Snapshot | None:
        """Copy `value` on the device without waiting; `None` if it cannot be copied and must be read in the call.

        Raises:
            RuntimeError: A graph is being captured, which cannot read a value.
        """

    def start_copy(self, snapshots: Sequence[Snapshot]) -> Copy:
        """Start to copy snapshots to the host, in the writer thread."""

    def stand_in(self, value: Any) -> np.ndarray:
        """Return an array of the same shape and type without memory of its own, for checks of these."""

    def histogram(self, limits: Sequence[float]) -> Callable[[Any], Any] | None:
        """Return a function that reduces an array on the device, or `None` where it must be read whole.

        It returns minimum, maximum, sum, sum of squares, and for each of the ascending `limits` how many numbers are
        below it; for the last one, below or equal.
        """


class HostCopies:
    """The copies of some snapshots, one for each device.

    Args:
        snapshots: The snapshots.
        report: Receives each error of a device. Its snapshots get no value then.

    Attributes:
        began: Time (monotonic) since which the devices are at work.
    """

    def __init__(self, snapshots: Iterable[Snapshot], report: Callable[[Exception], None]) -> None:
        self.began: float = time.monotonic()
        self._report = report
        self._copies: list[tuple[list[Snapshot], Copy]] = []
        by_device: defaultdict[Device, list[Snapshot]] = defaultdict(list)
        for snapshot in snapshots:
            by_device[snapshot.device].append(snapshot)
        for device, group in by_device.items():
            with self._errors_reported():
                self._copies.append((group, device.start_copy(group)))

    def are_ready(self) -> bool:
        """Return whether `read` would not wait."""
        return all(_is_ready(copy) for _, copy in self._copies)

    def read(self) -> None:
        """Set the value of each snapshot."""
        for group, copy in self._copies:
            with self._errors_reported():
                for snapshot, value in zip(group, copy.values(), strict=True):
                    snapshot.value = value

    @contextlib.contextmanager
    def _errors_reported(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - any error of a device
            self._report(error)


def _is_ready(copy: Copy) -> bool:
    try:
        return copy.is_ready()
    except Exception:  # noqa: BLE001 - `values` raises it again
        return True


_ZERO = bytes(16)

"""One number of the widest type."""


def without_memory(dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of that type and shape whose elements share the memory of one number."""
    # As `numpy.broadcast_to`, which takes a considerable part of the call.
    return np.ndarray(shape, dtype, _ZERO, strides=(0,) * len(shape))
