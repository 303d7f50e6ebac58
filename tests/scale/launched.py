"""Programs of a test that run beside it: what they say is read as it comes, and they end with the test."""

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
    """A program in a session of its own, as a batch system starts it; killed with its children at the end of a `with`.

    Args:
        command: What to run.
        environment: All of its variables.
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
        """What it has said so far, line by line."""
        with self._changed:
            return list(self._lines)

    def wait_for(self, condition: Callable[[list[str]], object], seconds: float) -> None:
        """Return as soon as `condition` holds of all that was said, and fail if it does not come to that."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not condition(self._lines):
                alive = self.process.poll() is None
                assert alive and time.monotonic() < deadline, "\n".join(["It never said so:", *self._lines[-40:]])
                self._changed.wait(0.2)

    def end(self, seconds: float) -> int:
        """Wait for its end and return its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError("\n".join(["It did not end:", *self.said[-40:]])) from None
