"""Read event files back: raw records, events decoded by tensorboardX, and scalars read by TensorBoard."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX.proto.event_pb2 import Event

from hf_summary_writer.events.tfrecord import boundaries

if TYPE_CHECKING:
    from collections.abc import Callable


def event_files(logdir: Path | str) -> list[Path]:
    """Return the event files below `logdir`, in TensorBoard's order within each folder."""
    return sorted(Path(logdir).rglob("*.tfevents.*"))


def payloads(path: Path, *, growing: bool = False) -> list[bytes]:
    """Return the payload of every record of `path`, which must be whole to its last byte unless it is `growing`."""
    content = path.read_bytes()
    ends = [0, *boundaries(io.BytesIO(content))]
    assert growing or ends[-1] == len(content), f"{path} has a torn tail"
    return [content[start + 12 : end - 4] for start, end in itertools.pairwise(ends)]


def events(path: Path, *, growing: bool = False) -> list[Event]:
    """Return the events of one file."""
    return [Event.FromString(payload) for payload in payloads(path, growing=growing)]


def logged(logdir: Path | str, *, growing: bool = False) -> list[Event]:
    """Return the events of all files in `logdir` itself, without the `file_version` that opens each."""
    found: list[Event] = []
    for path in sorted(Path(logdir).glob("*.tfevents.*")):
        events_of_file = events(path, growing=growing)
        # A file that has just been created may still lack its `file_version`.
        assert growing or events_of_file
        assert all(event.file_version == "brain.Event:2" for event in events_of_file[:1])
        found += events_of_file[1:]
    return found


def scalars(logdir: Path | str, tag: str, *, growing: bool = False) -> list[tuple[int, float]]:
    """Return steps and values of one tag in the order of the files."""
    found = [(event.step, value) for event in logged(logdir, growing=growing) for value in event.summary.value]
    return [(step, value.simple_value) for step, value in found if value.tag == tag]


def steps(logdir: Path | str, tag: str, *, growing: bool = False) -> list[int]:
    """Return the steps of one tag in the order of the files."""
    return [step for step, _ in scalars(logdir, tag, growing=growing)]


def tensorboard_scalars(logdir: Path | str, tag: str) -> list[tuple[int, float]]:
    """Return a tag's steps and values as read by TensorBoard's Python reader."""
    accumulator = EventAccumulator(str(logdir), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Return as soon as `condition` holds."""
    deadline = time.monotonic() + seconds
    pause = 0.01
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not hold within {seconds} s"
        time.sleep(pause)
        # Asking a Hub takes CPU time from the processes that the test waits for.
        pause = min(2 * pause, 0.2)


# tensorboardX imports torch if it is installed, which takes seconds.
_WITHOUT_TORCH = "import sys; sys.modules['torch'] = None\n"


def run(
    code: str, *arguments: object, cwd: Path | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own to its end."""
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=timeout,
    )


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start `code` in a process of its own, with a pipe for its output."""
    return subprocess.Popen(
        [sys.executable, "-c", _WITHOUT_TORCH + code, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
