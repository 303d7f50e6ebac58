"""The scalars of a run, read back from its event files."""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from hf_summary_writer.events.encoding import scalar_prefix
from hf_summary_writer.events.tfrecord import payloads
from hf_summary_writer.events.upstream import Event, SessionLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

_WALL_TIME_KEY = 0x09
_STEP_KEY = 0x10
# The wall time, a step of one to four bytes, and the value: an event that is shorter has no tag.
_SHORTEST = 9 + 5 + 4
_unpack_time = struct.Struct("<d").unpack_from
_unpack_value = struct.Struct("<f").unpack_from
_MOST_PREFIXES = 10_000
_PLUGIN = "scalars"
# TensorFlow's types of numbers (`tensorflow/core/framework/types.proto`): NumPy's name, and the field of a tensor.
_NUMBERS = {
    1: ("<f4", "float_val"),
    2: ("<f8", "double_val"),
    3: ("<i4", "int_val"),
    9: ("<i8", "int64_val"),
}


class Scalars(NamedTuple):
    """The values of one tag, in the order of their steps; `pandas.DataFrame(scalars._asdict())` makes a table of them.

    Attributes:
        steps: The steps, as 64-bit integers.
        values: The values, as 64-bit floats.
        wall_times: When each was logged, in seconds since the epoch.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    wall_times: NDArray[np.float64]


class _Columns:
    __slots__ = ("steps", "values", "wall_times")

    def __init__(self) -> None:
        self.steps = array("q")
        self.values = array("d")
        self.wall_times = array("d")

    def keep_before(self, step: int) -> None:
        wanted = [number for number, each in enumerate(self.steps) if each < step]
        for name in self.__slots__:
            column = getattr(self, name)
            setattr(self, name, array(column.typecode, (column[number] for number in wanted)))

    def scalars(self) -> Scalars:
        steps = np.frombuffer(self.steps, np.int64)
        values = np.frombuffer(self.values, np.float64)
        wall_times = np.frombuffer(self.wall_times, np.float64)
        if (steps[1:] < steps[:-1]).any():
            order = np.argsort(steps, kind="stable")
            steps, values, wall_times = steps[order], values[order], wall_times[order]
        return Scalars(steps, values, wall_times)


class ScalarReader:
    """Reads the scalars of one run from its event files, in the order in which they are given.

    As in TensorBoard, a restart with `purge_step` drops the earlier values from that step on, of all tags.

    Args:
        is_wanted: Returns whether the values of a tag are kept.

    Attributes:
        tags: The tags of all scalars that were read.
    """

    def __init__(self, is_wanted: Callable[[str], bool]) -> None:
        self._is_wanted = is_wanted
        self.tags: dict[str, bool] = {}
        self._columns: dict[str, _Columns] = {}
        # By the bytes between step and value in the event of a plain scalar; `None` for tags that are not wanted.
        self._by_prefix: dict[bytes, _Columns | None] = {}
        # Tags of tensors that were declared to be scalars. Only the first event of a tag has to say so.
        self._declared: set[str] = set()

    def scalars(self) -> dict[str, Scalars]:
        """Return the values of each wanted tag, the tags in alphabetical order."""
        return {tag: columns.scalars() for tag, columns in sorted(self._columns.items()) if columns.steps}

    def read(self, path: Path) -> int:
        """Read one file; return in how many places it is damaged.

        Raises:
            OSError: The file cannot be read.
        """
        damaged = 0
        by_prefix, unpack_time, unpack_value = self._by_prefix, _unpack_time, _unpack_value
        with path.open("rb") as file:
            for payload in payloads(file):
                if payload is None:
                    damaged += 1
                    continue
                # One dictionary look-up for each plain scalar. If the bytes from the tag to the key of the value are
                # those of a scalar, then the rest of the event is its wall time, its step and its value.
                step, at = _step(payload)
                prefix = payload[at:-4]
                if prefix not in by_prefix:
                    damaged += not self._decode(payload)
                elif (columns := by_prefix[prefix]) is not None:
                    columns.steps.append(step)
                    columns.values.append(unpack_value(payload, len(payload) - 4)[0])
                    columns.wall_times.append(unpack_time(payload, 1)[0])
        return damaged

    def _decode(self, payload: bytes) -> bool:
        """Keep the scalars of any event; return false if it is none."""
        try:
            event = Event.FromString(payload)
        except DecodeError:
            return False
        if event.session_log.status == SessionLog.START:
            for columns in self._columns.values():
                columns.keep_before(event.step)
        for value in event.summary.value:
            number = self._number(value)
            if number is not None:
                self._add(value.tag, event.step, number, event.wall_time)
        if len(event.summary.value) == 1:
            self._learn(payload, event.summary.value[0].tag)
        return True

    def _number(self, value: Any) -> float | None:
        kind = value.WhichOneof("value")
        if kind == "simple_value":
            return float(value.simple_value)
        if value.metadata.plugin_data.plugin_name == _PLUGIN:
            self._declared.add(value.tag)
        return _only_number(value.tensor) if kind == "tensor" and value.tag in self._declared else None

    def _add(self, tag: str, step: int, value: float, wall_time: float) -> None:
        if tag not in self.tags:
            self.tags[tag] = self._is_wanted(tag)
        if self.tags[tag]:
            columns = self._columns.setdefault(tag, _Columns())
            columns.steps.append(step)
            columns.values.append(value)
            columns.wall_times.append(wall_time)

    def _learn(self, payload: bytes, tag: str) -> None:
        prefix = scalar_prefix(tag)
        if payload[:-4].endswith(prefix) and tag in self.tags:
            if len(self._by_prefix) >= _MOST_PREFIXES:
                self._by_prefix.clear()
            self._by_prefix[prefix] = self._columns.get(tag)


def _step(payload: bytes) -> tuple[int, int]:
    """Return the step of an event that begins with its wall time, and where the next field begins.

    For any other event, or a step above 28 bits, that is the end.
    """
    size = len(payload)
    if size <= _SHORTEST or payload[0] != _WALL_TIME_KEY:
        return 0, size
    if payload[9] != _STEP_KEY:
        return 0, 9
    # Seven bits a byte, lowest first; the eighth says that another byte follows.
    step, at = payload[10], 11
    while step >> 7 * (at - 10):
        if at == 14:
            return 0, size
        step = step & (1 << 7 * (at - 10)) - 1 | payload[at] << 7 * (at - 10)
        at += 1
    return step, at


def _only_number(tensor: Any) -> float | None:
    """Return the number of a tensor that holds one; `None` for any other."""
    kind, field = _NUMBERS.get(tensor.dtype, ("", ""))
    if not kind:
        return None
    numbers = getattr(tensor, field)
    if not numbers and len(tensor.tensor_content) == np.dtype(kind).itemsize:
        numbers = np.frombuffer(tensor.tensor_content, kind)
    return float(numbers[0]) if len(numbers) == 1 else None
