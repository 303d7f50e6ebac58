"""The lines that commands write: plain in a pipe, coloured on a terminal, JSON when asked."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urlsplit

import click

from hf_summary_writer.config import RUN_FILES
from hf_summary_writer.notices import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hf_summary_writer.config import Destination, PushConfig

_LINES_AT_ONCE = 1000


def _write(text: str, *, err: bool = False) -> OSError | None:
    """Write text to standard output or standard error; return the error if that is not possible.

    Where the reader has ended, as `head` does, or the disk is full, the text is dropped: an upload goes on, and `run`
    returns the exit code of its command.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:
        return None
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        with contextlib.suppress(OSError):
            _empty_buffer(stream)
        return error
    return None


def _empty_buffer(stream: TextIO) -> None:
    """Drop the text that is in the buffer of a stream; it would fail again at exit."""
    number = stream.fileno()
    with open(os.devnull, "wb") as nowhere, open(os.dup(number), "wb") as kept:
        os.dup2(nowhere.fileno(), number)
        try:
            stream.flush()
        finally:
            os.dup2(kept.fileno(), number)


def write_lines(lines: Iterable[str]) -> None:
    """Write lines that end with a line break to standard output, as long as there is a reader.

    Raises:
        click.ClickException: If they cannot be written for another reason.
    """
    remaining = iter(lines)
    while some := "".join(itertools.islice(remaining, _LINES_AT_ONCE)):
        error = _write(some)
        if error is not None and not isinstance(error, BrokenPipeError):
            raise click.ClickException(f"standard output could not be written: {error.strerror}")
        if error is not None:
            return


def say(text: str, *, colour: str | None = None, err: bool = False) -> None:
    """Write one line, to standard output or standard error."""
    stream = sys.stderr if err else sys.stdout
    # No colours: https://no-color.org
    is_styled = colour and stream is not None and stream.isatty() and not os.environ.get("NO_COLOR")
    text = printable(text)
    with _beside_bars():
        _write(f"{click.style(text, fg=colour) if is_styled else text}\n", err=err)


@contextlib.contextmanager
def _beside_bars() -> Iterator[None]:
    """Take progress bars off the terminal for a moment."""
    if "tqdm" not in sys.modules:
        yield
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        yield


class _Lines(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that `logging` gives it
        return printable(super().formatMessage(record))


class _BesideBars(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            with _beside_bars():
                _write(f"{self.format(record)}\n", err=True)
        except Exception:  # noqa: BLE001 - as handlers of the standard library do
            self.handleError(record)


def emit(value: dict[str, Any]) -> None:
    """Write a value as one line of JSON."""
    _write(f"{json.dumps(value)}\n")


def log_to_stderr() -> None:
    """Show the library's warnings on standard error."""
    handler = _BesideBars()
    handler.setFormatter(_Lines("%(message)s"))
    logger = logging.getLogger("hf_summary_writer")
    logger.addHandler(handler)
    logger.propagate = False


def patterns(config: PushConfig) -> str:
    """Return which files a config chooses, for people."""
    if config.allow_patterns == RUN_FILES:
        allowed = f"{RUN_FILES[0]} or embeddings"
    else:
        allowed = "any file" if config.allow_patterns is None else " or ".join(config.allow_patterns) or "nothing"
    return f"{allowed} but {' or '.join(config.ignore_patterns)}" if config.ignore_patterns else allowed


def place(where: PushConfig | Destination) -> str:
    """Return repo and Hub for people."""
    return f"{where.repo_id} on {urlsplit(where.endpoint).netloc}"


def ago(seconds: float) -> str:
    """Return a length of time for people, in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def now_or_later(moment: float) -> str:
    """Return a time (seconds since the epoch) as local time, with its distance from now."""
    distance = moment - time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    return f"{shown} (in {ago(distance)})" if distance > 0 else f"{shown} ({ago(-distance)} ago)"
