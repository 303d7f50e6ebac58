"""A reader for the scalars in TensorBoard event files."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Records of scalars are small; images and histograms have records of their own.
_LARGEST_RECORD = 64 * 1024
_LENGTH = struct.Struct("<Q")
_CHECKSUM_BYTES = 4
_DT_FLOAT, _DT_DOUBLE = 1, 2
# More points than a chart can show.
_MOST_POINTS = 2000


@dataclass(slots=True)
class Scalars:
    """The scalars of an event file: (step, value) pairs by tag, the last step, the Unix time of the last event."""

    points: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    last_step: int = 0
    last_time: float = 0.0

    @property
    def size(self) -> int:
        """The number of points, tags and files, as a measure of the memory."""
        return sum(map(len, self.points.values())) + len(self.points) + 1

    def add(self, event: Any) -> None:
        """Add the scalars of an event."""
        self.last_time = max(self.last_time, event.wall_time)
        for value in event.summary.value:
            number = _number(value)
            if number is not None and math.isfinite(number):
                self.last_step = max(self.last_step, event.step)
                known = self.points.setdefault(value.tag, [])
                known.append((event.step, number))
                if len(known) > 2 * _MOST_POINTS:
                    # Drop every second point of the older half; keep all recent points.
                    del known[1:_MOST_POINTS:2]

    def merge(self, other: Scalars) -> None:
        """Merge the scalars of another file of the same run."""
        for tag, points in other.points.items():
            self.points[tag] = sorted(self.points.get(tag, []) + points)
        self.last_step = max(self.last_step, other.last_step)
        self.last_time = max(self.last_time, other.last_time)


def read_scalars(pieces: Iterable[bytes]) -> Scalars:
    """Return the scalars of an event file; reading stops at the first damaged record."""
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event

    scalars = Scalars()
    for record in _records(pieces):
        try:
            scalars.add(Event.FromString(record))
        except (DecodeError, struct.error):  # noqa: PERF203 - a damaged record ends the scalars
            break
    return scalars


def _records(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield small records; skip large ones without buffering them."""
    buffer, left_out = bytearray(), 0
    for piece in pieces:
        buffer += piece
        position = 0
        while True:
            if left_out:
                step = min(left_out, len(buffer) - position)
                position, left_out = position + step, left_out - step
            header_end = position + _LENGTH.size + _CHECKSUM_BYTES
            if left_out or header_end > len(buffer):
                break
            (length,) = _LENGTH.unpack_from(buffer, position)
            if length > _LARGEST_RECORD:
                position, left_out = header_end, length + _CHECKSUM_BYTES
                continue
            end = header_end + length + _CHECKSUM_BYTES
            if end > len(buffer):
                break
            yield bytes(buffer[header_end : header_end + length])
            position = end
        del buffer[:position]


def _number(value: Any) -> float | None:
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or value.metadata.plugin_data.plugin_name != "scalars":
        return None
    tensor = value.tensor
    if tensor.float_val or tensor.double_val:
        return float((tensor.float_val or tensor.double_val)[0])
    form = {_DT_FLOAT: "<f", _DT_DOUBLE: "<d"}.get(tensor.dtype)
    if form is None or len(tensor.tensor_content) != struct.calcsize(form):
        return None
    return float(struct.unpack(form, tensor.tensor_content)[0])
