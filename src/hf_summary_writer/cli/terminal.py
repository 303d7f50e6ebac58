"""The lines that commands write: plain in a pipe, coloured on a terminal, JSON when asked."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urlsplit

import click

from hf_summary_writer.hub import answer_of, one_line
from hf_summary_writer.notices import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hf_summary_writer.config import Destination, PushConfig

    _StreamHandler = logging.StreamHandler[TextIO]
else:
    _StreamHandler = logging.StreamHandler  # not subscriptable in Python 3.10

__all__ = [
    "ago",
    "emit",
    "failed_read",
    "log_to_stderr",
    "now_or_later",
    "patterns",
    "place",
    "say",
]


def say(text: str, *, colour: str | None = None, err: bool = False) -> None:
    """Write one line, to standard output or standard error."""
    # click leaves colours out of a pipe by itself. A variable that is there at all means no colours: no-color.org.
    with _beside_bars():
        text = printable(text)
        is_styled = colour is not None and "NO_COLOR" not in os.environ
        click.echo(click.style(text, fg=colour) if is_styled else text, err=err)


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


class _BesideBars(_StreamHandler):
    def emit(self, record: logging.LogRecord) -> None:
        with _beside_bars():
            super().emit(record)


def emit(value: dict[str, Any]) -> None:
    """Write a value as one line of JSON."""
    click.echo(json.dumps(value))


def log_to_stderr() -> None:
    """Show the library's warnings on standard error."""
    handler = _BesideBars(sys.stderr)
    handler.setFormatter(_Lines("%(message)s"))
    logger = logging.getLogger("hf_summary_writer")
    logger.addHandler(handler)
    logger.propagate = False


def patterns(config: PushConfig) -> str:
    """Return which files a config chooses, for people."""
    allowed = "any file" if config.allow_patterns is None else " or ".join(config.allow_patterns) or "nothing"
    return f"{allowed} but {' or '.join(config.ignore_patterns)}" if config.ignore_patterns else allowed


def place(where: PushConfig | Destination) -> str:
    """Return repo and Hub for people."""
    return f"{where.repo_id} on {urlsplit(where.endpoint).netloc}"


def failed_read(config: PushConfig, error: Exception) -> str:
    """Return why a repo or bucket could not be read, in one line."""
    answer = answer_of(error)
    reason = one_line(str(error)) if answer is None else f"{answer.status} {answer.message}"
    return f"{config.repo_id} could not be read from {config.endpoint}: {reason}"


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
