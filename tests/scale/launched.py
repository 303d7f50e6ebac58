"""Background programs of a test: their output is read continuously, and they end with the test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

__all__ = ["Launched"]


class Launched:
    """A program in a new session, as a batch system starts it; killed with its children at the end of a `with` block.

    Args:
        command: The command line.
        environment: All environment variables.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command, self._environment = command, environment
        self._changed = threading.Condition()
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command,
            env=dict(self._environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="launched")
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()

    @property
    def said(self) -> list[str]:
        """The lines of its output so far."""
        with self._changed:
            return list(self._lines)

    def wait_for(self, condition: Callable[[list[str]], object], seconds: float) -> None:
        """Wait until `condition` holds for the lines of output; fail after `seconds` or when the program ends."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not condition(self._lines):
                over = self.process.poll() is not None or time.monotonic() > deadline
                assert not over, "\n".join(["the condition did not hold:", *self._lines[-40:]])
                self._changed.wait(0.05)

    def end(self, seconds: float) -> int:
        """Wait for the program's end and return its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError("\n".join(["the program did not end:", *self.said[-40:]])) from None
