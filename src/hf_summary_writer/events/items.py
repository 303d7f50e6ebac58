"""The items of an event queue: events encoded or not, values on devices, and requests to flush."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_summary_writer.events.device import Snapshot
from hf_summary_writer.events.encoding import Scalar
from hf_summary_writer.events.signals import FlushRequest
from hf_summary_writer.events.upstream import make_np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_OVERHEAD_BYTES = 256

_NUMBER_BYTES = 768

"""Memory on the host of a number on a device: torch's view of its place, and the snapshot."""


@dataclass(slots=True, eq=False)
class Deferred:
    """An event that the writer thread encodes.

    Attributes:
        encode: Returns the event's bytes, or `None` if it wrote files of its own instead.
        values: Arguments of `encode`.
        nbytes: Memory that all of this holds until then.
    """

    encode: Callable[..., bytes | None]
    values: Sequence[Any]
    nbytes: int


@dataclass(slots=True, eq=False)
class OnDevice:
    """The same, with values of which some are still on an accelerator.

    Attributes:
        encode: As in `Deferred`.
        values: Arguments of `encode`, or their snapshots.
        nbytes: Memory that all of this holds on the host, once the values are there.
    """

    encode: Callable[..., bytes | None]
    values: Sequence[Any]
    nbytes: int

    @property
    def snapshots(self) -> list[Snapshot]:
        return [value for value in self.values if type(value) is Snapshot]

    @property
    def device_bytes(self) -> int:
        return sum(snapshot.nbytes for snapshot in self.snapshots)

    def finish(self) -> Deferred | None:
        """Return the event after the copy to the host; `None` if a value could not be read."""
        if any(snapshot.value is None for snapshot in self.snapshots):
            return None
        on_host = [value.value if type(value) is Snapshot else value for value in self.values]
        return Deferred(self.encode, on_host, self.nbytes)


@dataclass(slots=True, eq=False)
class ScalarOnDevice:
    """A plain scalar whose value is still on an accelerator.

    It is no `OnDevice`, whose tuples and lists would cost a loop that logs many half a microsecond each.

    Attributes:
        wall_time: Seconds since the epoch.
        prefix: As in `Scalar`.
        number: The value.
        step: The global step.
        on_read: Receives the value once it is on the host.
    """

    wall_time: float
    prefix: bytes
    number: Snapshot
    step: int | None
    on_read: Callable[[float], None] | None = None
    nbytes: ClassVar[int] = _NUMBER_BYTES
    device_bytes: ClassVar[int] = 0

    @property
    def snapshots(self) -> tuple[Snapshot]:
        return (self.number,)

    def finish(self) -> Scalar | None:
        """Return the scalar after the copy to the host; `None` if its number could not be read."""
        number = self.number.value
        if number is None:
            return None
        if self.on_read is not None:
            self.on_read(number)
        # The difference is zero for finite numbers; tensorboardX warns of all others.
        if number - number:
            make_np(number)
        return self.wall_time, self.prefix, number, self.step


ON_DEVICE = (OnDevice, ScalarOnDevice)

Item = Scalar | bytes | Deferred | OnDevice | ScalarOnDevice | FlushRequest


def memory_of(item: Item) -> int:
    """Return the bytes that are acquired for an item, besides those of a plain scalar for each."""
    kind = type(item)
    if kind is bytes:
        return len(item) + _OVERHEAD_BYTES  # type: ignore[arg-type]
    return 0 if kind is tuple or kind is FlushRequest else item.nbytes  # type: ignore[union-attr]
