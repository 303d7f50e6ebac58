"""Where the time of one `add_scalar` goes: the same method, built up line by line.

    python benchmarks/anatomy.py

Each row adds one thing to the row above; the last is the real method. Times are the best of many rounds, in
nanoseconds, so that a busy machine shows as little as possible.
"""

from __future__ import annotations

import sys

sys.path.pop(0)  # beside this file lies one named as Python's own module `logging`

import tempfile
import timeit
from collections import deque
from time import time
from typing import Any

from hf_summary_writer.events.writer import EventWriter

CALLS, ROUNDS = 5_000, 60


class Anatomy:
    def __init__(self) -> None:
        self.queue: deque[Any] = deque()
        self.prefixes = {"loss": b"prefix"}

    def empty(
        self, tag: str, value: float, step: Any = None, walltime: Any = None, name: str = "", text: str = ""
    ) -> None:
        pass

    def timed(
        self, tag: str, value: float, step: Any = None, walltime: Any = None, name: str = "", text: str = ""
    ) -> None:
        time()

    def queued(
        self, tag: str, value: float, step: Any = None, walltime: Any = None, name: str = "", text: str = ""
    ) -> None:
        self.queue.append((time(), tag, value, step))

    def tagged(
        self, tag: str, value: float, step: Any = None, walltime: Any = None, name: str = "", text: str = ""
    ) -> None:
        self.queue.append((time(), self.prefixes.get(tag), value, step))

    def checked(
        self, tag: str, value: float, step: Any = None, walltime: Any = None, name: str = "", text: str = ""
    ) -> None:
        prefix = self.prefixes.get(tag)
        if prefix is None or walltime is not None or name or text or type(step) is not int or step >> 63:
            return
        if type(value) is not float or value - value:
            return
        self.queue.append((time(), prefix, value, step))


def best(call: Any, after: Any) -> float:
    """Return the nanoseconds of one call."""
    times = []
    for _ in range(ROUNDS):
        times.append(timeit.timeit(lambda: call("loss", 0.5, 1000), number=CALLS))
        after()
    overhead = min(timeit.repeat(lambda: None, number=CALLS, repeat=ROUNDS))
    return (min(times) - overhead) / CALLS * 1e9


def main() -> None:
    anatomy = Anatomy()
    rows = [
        ("a method of this signature that does nothing", anatomy.empty),
        ("and asks for the time", anatomy.timed),
        ("and appends a tuple to a queue", anatomy.queued),
        ("and looks up the encoded tag", anatomy.tagged),
        ("and checks that tag, value and step are plain", anatomy.checked),
    ]
    print("| | ns |\n| --- | ---: |")
    for name, method in rows:
        print(f"| {name} | {best(method, anatomy.queue.clear):.0f} |")
    with tempfile.TemporaryDirectory() as logdir, EventWriter(logdir) as writer:
        writer.add_scalar("loss", 0.5, 0)
        real = best(writer.add_scalar, writer.flush)
        print(f"| `EventWriter.add_scalar`: and checks room, closing and forks | {real:.0f} |")


if __name__ == "__main__":
    main()
