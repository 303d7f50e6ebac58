"""The names of event files: they sort by age, cannot collide, and tell which segment of which writer a file is."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PREFIX", "SegmentName", "followed", "parse_name"]

PREFIX = "events.out.tfevents."
_NAME = re.compile(
    re.escape(PREFIX) + r"(?P<created>[0-9]{10})\.(?P<host>[A-Za-z0-9.-]*)"
    r"\.(?P<pid>[0-9]+)_(?P<writer>[0-9]{4,})_(?P<segment>[0-9]{6})(?P<suffix>.*)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class SegmentName:
    """The name of an event file, taken apart.

    TensorBoard reads the files of a run in the order of their names, so names sort by age: the second of creation
    stands first, and within one second the segments of a writer sort by number.

    Attributes:
        created: Second since the epoch at which the segment was opened.
        host: Name of the machine, reduced to letters, digits, dots and hyphens.
        pid: Process that wrote it.
        writer: Number of the writer within the process.
        segment: Number of the segment within the writer, from 0.
        suffix: The user's `filename_suffix`.
    """

    created: int
    host: str
    pid: int
    writer: int
    segment: int
    suffix: str = ""

    def __str__(self) -> str:
        return f"{PREFIX}{self.created:010d}.{self.host}.{self.pid}_{self.writer:04d}_{self.segment:06d}{self.suffix}"

    def precedes(self, other: SegmentName) -> bool:
        """Tell whether `other` is a later segment of the same writer, so that this one never changes again."""
        return (
            (self.host, self.pid, self.writer, self.suffix) == (other.host, other.pid, other.writer, other.suffix)
            and self.segment < other.segment
            # Pids come round: a container's only process may have the same one in every life.
            and self.created <= other.created
        )


def parse_name(name: str) -> SegmentName | None:
    """Return the parts of the base name of an event file of ours, `None` for any other name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return SegmentName(
        created=int(match["created"]),
        host=match["host"],
        pid=int(match["pid"]),
        writer=int(match["writer"]),
        segment=int(match["segment"]),
        suffix=match["suffix"],
    )


def followed(names: Iterable[str]) -> set[str]:
    """Return those of the base `names` of one directory whose writer went on in a later segment.

    Such a file never changes again. The last segment of a writer is not among them, even when the writer is closed.
    """
    writers: dict[tuple[str, int, int, str], list[SegmentName]] = {}
    for name in map(parse_name, names):
        if name is not None:
            writers.setdefault((name.host, name.pid, name.writer, name.suffix), []).append(name)
    return {
        str(earlier)
        for segments in writers.values()
        for segments_by_age in [sorted(segments, key=lambda s: (s.created, s.segment))]
        for earlier, later in itertools.pairwise(segments_by_age)
        if earlier.precedes(later)
    }
