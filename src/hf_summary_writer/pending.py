"""What waits in the queue of a stream: events, encoded or not, and requests; what they hold, and their records."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from hf_summary_writer.encode import Scalar
from hf_summary_writer.tfrecord import frame
from hf_summary_writer.ticket import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable

    from hf_summary_writer.backlog import Backlog

__all__ = ["Deferred", "Item", "encoded", "held", "leading_scalars"]

_logger = logging.getLogger(__name__)

_OVERHEAD_BYTES = 256
_SLICE_BYTES = 1 << 20
"""Of ready events, how much is written at once."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """An event whose encoding is left to the drain.

    Attributes:
        encode: Returns the event's bytes, or `None` if it wrote what it had to write itself.
        nbytes: What it holds in memory until then.
    """

    encode: Callable[[], bytes | None]
    nbytes: int


Item = Scalar | bytes | Deferred | Ticket


def held(item: Item) -> int:
    """Return the bytes of memory that count for an item; plain scalars are counted by their number."""
    if type(item) is bytes:
        return len(item) + _OVERHEAD_BYTES
    return item.nbytes if isinstance(item, Deferred) else 0


def leading_scalars(items: list[Item]) -> list[Scalar]:
    """Return the plain scalars before the first item that is something else."""
    kinds = list(map(type, items))
    scalars = items
    if kinds.count(tuple) < len(kinds):
        scalars = items[: next(n for n, kind in enumerate(kinds) if kind is not tuple)]
    return cast("list[Scalar]", scalars)


def encoded(items: list[Item], backlog: Backlog, directory: str) -> list[bytes]:
    """Return one record for each item up to the next request, or as many as are enough for once.

    Args:
        items: What is encoded on the way is replaced in it, so that another try does not encode it again.
        backlog: Told of what memory that sets free, and of what cannot be encoded.
        directory: Where the records will lie, for messages.
    """
    payloads: list[bytes] = []
    nbytes = 0
    for item in items:
        if isinstance(item, Deferred):
            payload = _encoded(item, backlog, directory)
            items[len(payloads)] = payload
            payloads.append(payload)
            break  # what took long goes to disk before the next one
        if type(item) is not bytes or nbytes > _SLICE_BYTES:
            break
        payloads.append(item)
        nbytes += len(item)
    # An item without an event has an empty record.
    return [frame(payload) if payload else b"" for payload in payloads]


def _encoded(item: Deferred, backlog: Backlog, directory: str) -> bytes:
    try:
        payload = item.encode() or b""
    except Exception:
        _logger.exception("an event of %s could not be encoded and is dropped", directory)
        backlog.lose(1)
        payload = b""
    backlog.give_back(item.nbytes - held(payload))
    return payload
