"""Bytes of events, without building a message for each: plain scalars from a template, anything else in an envelope.

The wire format is protocol buffers'; field numbers are those of TensorFlow's `event.proto` and `summary.proto`, which
tensorboardX and tensorboard share. The bytes decode to the same messages as tensorboardX's.
"""

from __future__ import annotations

import math
import re
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FILE_VERSION = 3

"""Field of an event that names the version of the file."""

SUMMARY = 5

"""Field of an event that holds a summary."""

_NOT_IN_TAGS = re.compile(r"[^-/\w.]")

_VERSION = b"brain.Event:2"

_BYTES = 2

_WALL_TIME_KEY = 1 << 3 | 1

_STEP_KEY = b"\x10"

_SUMMARY_VALUE_KEY = b"\x0a"

_TAG_KEY = b"\x0a"

_SIMPLE_VALUE_KEY = b"\x15"

_SIMPLE_VALUE_BYTES = 5

Scalar = tuple[float, bytes, float, int | None]

"""A plain scalar: wall time in seconds, `scalar_prefix` of its tag, value, step."""

_pack_time: Callable[[int, float], bytes] = struct.Struct("<Bd").pack

_pack_float: Callable[[float], bytes] = struct.Struct("<f").pack

_NO_TIME = _pack_time(_WALL_TIME_KEY, 0.0)


def varint(number: int) -> bytes:
    """Return `number` (64 bits, negative ones in two's complement) seven bits a byte, lowest first."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _sized(key: bytes, body: bytes) -> bytes:
    return key + varint(len(body)) + body


def step_field(step: int | None) -> bytes:
    """Return the event's step, which the format leaves out when it is zero."""
    if not step:
        return b""
    # Most runs have less than two million steps: three groups of seven bits.
    if 0x4000 <= step < 0x200000:
        return bytes((0x10, step & 0x7F | 0x80, step >> 7 & 0x7F | 0x80, step >> 14))
    if 0x80 <= step < 0x4000:
        return bytes((0x10, step & 0x7F | 0x80, step >> 7))
    return _STEP_KEY + varint(step)


def _time_field(wall_time: float) -> bytes:
    field = _pack_time(_WALL_TIME_KEY, wall_time)
    return b"" if field == _NO_TIME else field


def event_payload(wall_time: float, step: int | None, field: int, body: bytes) -> bytes:
    """Return an event whose `field` is the message, string or bytes `body`.

    Args:
        wall_time: Seconds since the epoch.
        step: The global step, within 64 bits.
        field: Number of the one field of an event's `what`.
        body: The serialised content of that field.
    """
    return _time_field(wall_time) + step_field(step) + _sized(bytes([field << 3 | _BYTES]), body)


def file_version(wall_time: float) -> bytes:
    """Return the event that opens every event file."""
    return event_payload(wall_time, None, FILE_VERSION, _VERSION)


def clean_tag(tag: Any) -> Any:
    """Return a tag as TensorFlow names it: without odd characters, and without slashes at its beginning."""
    # tensorboardX takes `None`, too.
    return tag if tag is None else _NOT_IN_TAGS.sub("_", tag).lstrip("/")


def scalar_prefix(tag: str | None) -> bytes:
    """Return the bytes between step and value in the event of a plain scalar named `tag`."""
    named = _sized(_TAG_KEY, tag.encode()) if tag else b""
    value_bytes = len(named) + _SIMPLE_VALUE_BYTES
    inner = _SUMMARY_VALUE_KEY + varint(value_bytes)
    return bytes([SUMMARY << 3 | _BYTES]) + varint(len(inner) + value_bytes) + inner + named + _SIMPLE_VALUE_KEY


def scalar_payloads(scalars: Iterable[Scalar]) -> list[bytes]:
    """Return the events of plain scalars; values too large for 32 bits become infinite, as protocol buffers do it."""
    # Inlined in one loop, with the step kept for the next scalar: this is the hot path of the writer thread.
    payloads = []
    last_step: int | None = None
    step_bytes = b""
    for wall_time, prefix, value, step in scalars:
        if step != last_step:
            last_step, step_bytes = step, step_field(step)
        try:
            number = _pack_float(value)
        except OverflowError:
            number = _pack_float(math.copysign(math.inf, value))
        time_bytes = _pack_time(_WALL_TIME_KEY, wall_time) if wall_time else _time_field(wall_time)
        payloads.append(time_bytes + step_bytes + prefix + number)
    return payloads
