"""Signal handlers that a command has for a while."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# The longest time to wait in one piece: a signal that comes just before a wait, or to another thread, does not end it.
LOOK_SECONDS: float = 0.2


@contextlib.contextmanager
def signal_handlers(handlers: Mapping[int, Any]) -> Iterator[None]:
    """Set the handlers of some signals in the block, and the earlier ones after it."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_on_signals() -> contextlib.AbstractContextManager[None]:
    """Let SIGTERM and SIGHUP end the process by `SystemExit` in the block, so that temporary files are removed."""
    return signal_handlers(dict.fromkeys(unignored(("SIGTERM", "SIGHUP")), _exit))


def _exit(number: int, _: object) -> None:
    sys.exit(128 + number)


def unignored(names: Iterable[str]) -> list[int]:
    """Return the signals of these names that the system has and that are not ignored, as with `nohup`."""
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
