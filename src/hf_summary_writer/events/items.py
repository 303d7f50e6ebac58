"""The items of an event queue: events encoded or not, values on devices, and requests to flush."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_summary_writer.events.encoding import Scalar
from hf_summary_writer.events.signals import FlushRequest
from hf_summary_writer.events.upstream import make_np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hf_summary_writer.events.device import Snapshot

__all__ = ["Deferred", "Item", "OnDevice", "memory_of", "scalar_on_device"]

_OVERHEAD_BYTES = 256

_NUMBER_BYTES = 768

"""Memory on the host of a number on a device: torch's view of its place, and the snapshot."""


@dataclass(frozen=True, slots=True, eq=False)
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
    """An event whose values are still on an accelerator.

    Attributes:
        snapshots: The values.
        make: Returns the event, once the values have been read.
        nbytes: Memory that it and its values hold on the host, once they are there.
    """

    snapshots: tuple[Snapshot, ...]
    make: Callable[[], Scalar | Deferred]
    nbytes: int

    @property
    def device_bytes(self) -> int:
        return sum(snapshot.nbytes for snapshot in self.snapshots)

    def finish(self) -> Scalar | Deferred | None:
        """Return the event after the copy to the host; `None` if a value could not be read."""
        return None if any(snapshot.value is None for snapshot in self.snapshots) else self.make()


def scalar_on_device(
    wall_time: float,
    prefix: bytes,
    number: Snapshot,
    step: int | None,
    on_read: Callable[[float], None] | None = None,
) -> OnDevice:
    """Return the item of a plain scalar whose value is on an accelerator; `on_read` receives it once it is read."""
    return OnDevice((number,), functools.partial(_scalar, wall_time, prefix, number, step, on_read), _NUMBER_BYTES)


def _scalar(
    wall_time: float, prefix: bytes, snapshot: Snapshot, step: int | None, on_read: Callable[[float], None] | None
) -> Scalar:
    number = snapshot.value
    if on_read is not None:
        on_read(number)
    # The difference is zero for finite numbers; tensorboardX warns of all others.
    if number - number:
        make_np(number)
    return wall_time, prefix, number, step


Item = Scalar | bytes | Deferred | OnDevice | FlushRequest


def memory_of(item: Item) -> int:
    """Return the bytes that are acquired for an item, besides those of a plain scalar for each."""
    kind = type(item)
    if kind is bytes:
        return len(item) + _OVERHEAD_BYTES  # type: ignore[arg-type]
    return item.nbytes if kind is Deferred or kind is OnDevice else 0  # type: ignore[union-attr]
