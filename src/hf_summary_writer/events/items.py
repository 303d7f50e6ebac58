"""The items of an event queue: events encoded or not, values on devices, and requests to flush."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from hf_summary_writer.events.encoding import Scalar
from hf_summary_writer.events.signals import FlushRequest
from hf_summary_writer.events.upstream import make_np

if TYPE_CHECKING:
    from collections.abc import Callable

    from hf_summary_writer.events.device import Snapshot

__all__ = ["ON_DEVICE", "Deferred", "Item", "OnDevice", "ScalarOnDevice", "leading_scalars", "memory_of"]

_OVERHEAD_BYTES = 256

_NUMBER_BYTES = 768

"""Memory on the host of a number on a device: torch's view of its place, and the snapshot."""


@dataclass(frozen=True, slots=True, eq=False)
class Deferred:
    """An event that the writer thread encodes.

    Attributes:
        encode: Returns the event's bytes, or `None` if it wrote files of its own instead.
        nbytes: Memory that it holds until then.
    """

    encode: Callable[[], bytes | None]
    nbytes: int


@dataclass(slots=True, eq=False)
class OnDevice:
    """An event whose values are still on an accelerator.

    Attributes:
        snapshots: The values.
        make: Returns the event to encode, given the values on the host.
        nbytes: Memory that it and its values hold on the host, once they are there.
    """

    snapshots: tuple[Snapshot, ...]
    make: Callable[..., Deferred]
    nbytes: int

    @property
    def device_bytes(self) -> int:
        return sum(snapshot.nbytes for snapshot in self.snapshots)

    def finish(self) -> Deferred | None:
        """Return the event once its values have been read; `None` if one of them could not be."""
        values = [snapshot.value for snapshot in self.snapshots]
        return None if any(value is None for value in values) else self.make(*values)


@dataclass(slots=True, eq=False)
class ScalarOnDevice:
    """A plain scalar whose value is still on an accelerator.

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

    def finish(self) -> Scalar | None:
        """Return the scalar once its number has been read; `None` if it could not be."""
        number = self.number.value
        if number is None:
            return None
        if self.on_read is not None:
            self.on_read(number)
        # The difference is zero for finite numbers; tensorboardX warns of all others.
        if number - number:
            make_np(number)
        return self.wall_time, self.prefix, number, self.step


ON_DEVICE = frozenset({OnDevice, ScalarOnDevice})

Item = Scalar | bytes | Deferred | OnDevice | ScalarOnDevice | FlushRequest


def memory_of(item: Item) -> int:
    """Return the bytes that are acquired for an item, besides those of a plain scalar for each."""
    kind = type(item)
    if kind is bytes:
        return len(item) + _OVERHEAD_BYTES  # type: ignore[arg-type]
    if kind is ScalarOnDevice:
        return _NUMBER_BYTES
    return item.nbytes if kind is Deferred or kind is OnDevice else 0  # type: ignore[union-attr]


def leading_scalars(items: list[Item]) -> list[Scalar]:
    kinds = list(map(type, items))
    scalars = items
    if kinds.count(tuple) < len(kinds):
        scalars = items[: next(n for n, kind in enumerate(kinds) if kind is not tuple)]
    return cast("list[Scalar]", scalars)
