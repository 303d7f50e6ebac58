"""Running a command as if it had been started directly: its signals, its terminal and its exit code are its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Child"]

# As the shells have it.
_NOT_FOUND, _NOT_EXECUTABLE, _BY_SIGNAL = 127, 126, 128
_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_FROM_KEYS = frozenset({"SIGINT", "SIGQUIT"})


class Child:
    """A command that is run once, from the main thread.

    Args:
        command: The command and its arguments.
        environment: Its environment.
        on_signal: Told of every signal that is passed on, in the signal handler.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], on_signal: Callable[[int], object]
    ) -> None:
        """Start nothing yet."""
        self._command = command
        self._environment = environment
        self._on_signal = on_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def run(self) -> int:
        """Run it to its end, pass signals on to it, and return its exit code: 128 + n if signal n ended it.

        Raises:
            OSError: If it cannot be started; `exit_code_of` tells what a shell would answer.
        """
        with self._signals_passed_on():
            self._process = subprocess.Popen(self._command, env=self._environment)  # noqa: S603 - what it is for
            for number in self._early:
                self._process.send_signal(number)
            code = self._process.wait()
        return code if code >= 0 else _BY_SIGNAL - code

    @staticmethod
    def exit_code_of(error: OSError) -> int:
        """Return the exit code for a command that could not be started."""
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE

    @contextlib.contextmanager
    def _signals_passed_on(self) -> Iterator[None]:
        before = {}
        for name in _NAMES:
            number = getattr(signal, name, None)
            # One that is ignored, as `nohup` has it, stays ignored, and the command inherits that.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, self._pass_on)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _pass_on(self, number: int, _: object) -> None:
        self._on_signal(number)
        if self._process is None:
            self._early.append(number)
        elif not (signal.Signals(number).name in _FROM_KEYS and _in_foreground()):
            self._process.send_signal(number)


def _in_foreground() -> bool:
    """Tell whether keys such as Ctrl-C reach this process, and then the command beside it as well, by themselves."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
