"""Messages for users who have not configured logging, and how messages write numbers."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_summary_writer.checks import NO, PREFIX

__all__ = [
    "QUIET",
    "amount",
    "announce",
    "counted",
    "in_notebook",
    "interval",
    "logger",
    "printable",
    "shown_path",
    "size",
]

QUIET = f"{PREFIX}QUIET"

_named = logging.getLogger("hf_summary_writer")


class _LastResort(logging.Handler):
    """Writes records that no other handler takes to standard error, as `logging.lastResort` does; names the library."""

    def emit(self, record: logging.LogRecord) -> None:
        if not _is_configured():
            self.write(record)

    def write(self, record: logging.LogRecord) -> None:
        if sys.stderr is not None:
            # `handleError` of other handlers raises itself where standard error is closed.
            with contextlib.suppress(Exception):
                sys.stderr.write(f"{self.format(record)}\n")
                sys.stderr.flush()


_last_resort = _LastResort(logging.WARNING)
_last_resort.setFormatter(logging.Formatter("hf-summary-writer: %(message)s"))
_named.addHandler(_last_resort)


# The frames of the logger below; Python 3.10 counts those of `logging`, too.
_FRAMES = 1 if sys.version_info >= (3, 11) else 2


if TYPE_CHECKING:
    _LoggerAdapter = logging.LoggerAdapter[logging.Logger]
else:  # it is generic in stubs alone until Python 3.11
    _LoggerAdapter = logging.LoggerAdapter


class _ContainedLogger(_LoggerAdapter):
    """Logs for this package. Exceptions of the user's handlers and filters reach neither a training nor a push."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a message; write a warning that a handler did not take to standard error."""
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + _FRAMES
        try:
            super().log(level, msg, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - such as that of a connection to a log server
            if level >= logging.WARNING:
                text = f"{msg} (logging raised %s)"
                record = _named.makeRecord(_named.name, level, __file__, 0, text, (*args, type(error).__name__), None)
                _last_resort.write(record)


logger: _ContainedLogger = _ContainedLogger(_named, None)

# The texts, with the cells of a notebook below which they stand.
_announced: set[tuple[str, int | None]] = set()


def announce(message: str, *arguments: object) -> None:
    """Log a message at the level INFO; if logging is not configured, write it to standard error, once.

    In a notebook it is written once per run of a cell, which clears what stood below the cell before.
    """
    if _is_configured() and not _is_configured_by_notebook():
        logger.log(logging.INFO, message, *arguments, stacklevel=2)
        return
    record = _named.makeRecord(_named.name, logging.INFO, __file__, 0, message, arguments, None)
    text = record.getMessage()
    said = (text, _cell_run())
    if said not in _announced and os.environ.get(QUIET, "").strip().lower() in {"", *NO}:
        _announced.add(said)
        _last_resort.write(record)


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    return "ipykernel" in sys.modules


def _cell_run() -> int | None:
    """Return the number of runs of cells in this notebook; `None` elsewhere."""
    ipython = sys.modules.get("IPython") if in_notebook() else None
    shell = getattr(ipython, "get_ipython", lambda: None)()
    return getattr(shell, "execution_count", None)


def _is_configured_by_notebook() -> bool:
    """Return whether a notebook logs warnings alone, and its user has chosen no level for this library.

    Colab and Kaggle give the root logger a handler before the first cell runs, and leave its level at WARNING.
    """
    level, effective = _named.level, _named.getEffectiveLevel()
    return in_notebook() and level == logging.NOTSET and effective == logging.WARNING


def _is_configured() -> bool:
    current: logging.Logger | None = _named
    while current is not None:
        if any(handler is not _last_resort for handler in current.handlers):
            return True
        current = current.parent if current.propagate else None
    return False


def shown_path(folder: Path) -> str:
    """Return the path of a folder as short as it can be typed here."""
    try:
        return str(folder.relative_to(Path.cwd()))
    except (OSError, ValueError):  # it is elsewhere, or the working folder is gone
        return str(folder)


def counted(count: int, noun: str) -> str:
    """Return a number of files, say, for people."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def amount(count: int, length: int) -> str:
    """Return a number of files and of their bytes for people."""
    return f"{counted(count, 'file')}, {size(length)}"


def size(count: int) -> str:
    """Return a number of bytes for people."""
    if count < 1000:
        return counted(count, "byte")
    for unit, length in (("GB", 10**9), ("MB", 10**6)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count / 1000:.1f} kB"


def interval(minutes: float) -> str:
    """Return a length of time for people."""
    return f"{minutes:g} min" if minutes >= 1 else f"{minutes * 60:.3g} s"


def printable(text: str) -> str:
    """Return `text` without characters that a terminal obeys instead of showing them."""
    # File names, state files and the Hub's messages are untrusted.
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
