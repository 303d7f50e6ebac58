"""What the commands write: plain lines in a pipe, colours and a progress bar on a terminal, JSON when asked."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hf_summary_writer.config import Destination, PushConfig

__all__ = [
    "ago",
    "amount",
    "emit",
    "files",
    "log_to_stderr",
    "now_or_later",
    "patterns",
    "place",
    "printable",
    "progress",
    "say",
    "size",
]


def say(text: str, *, colour: str | None = None, err: bool = False) -> None:
    """Write one line, to standard output or standard error."""
    # click leaves colours out of a pipe by itself. A variable that is there at all means no colours: no-color.org.
    click.secho(printable(text), err=err, fg=None if "NO_COLOR" in os.environ else colour)


def printable(text: str) -> str:
    """Return `text` without characters that a terminal obeys instead of showing them."""
    # Names of files, state files and the Hub's words may come from anybody.
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


class _Lines(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that `logging` gives it
        return printable(super().formatMessage(record))


def emit(value: dict[str, Any]) -> None:
    """Write a value as one line of JSON."""
    click.echo(json.dumps(value))


def log_to_stderr() -> None:
    """Let what the library warns of appear, and keep the client's own progress bars from between our lines."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(message)s"))
    logger = logging.getLogger("hf_summary_writer")
    logger.addHandler(handler)
    logger.propagate = False


@contextlib.contextmanager
def progress(length: int, label: str, *, wanted: bool) -> Iterator[Callable[[int], object]]:
    """Yield what a block calls with the steps it has made; a bar shows them if somebody can see it."""
    silenced = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "").upper() in {"1", "ON", "YES", "TRUE"}
    if wanted and length and sys.stderr.isatty() and not silenced:
        with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
            yield bar.update
    else:
        yield lambda _: None


def patterns(config: PushConfig) -> str:
    """Return which files a config chooses, for people."""
    allowed = "any file" if config.allow_patterns is None else " or ".join(config.allow_patterns) or "nothing"
    return f"{allowed} but {' or '.join(config.ignore_patterns)}" if config.ignore_patterns else allowed


def place(where: PushConfig | Destination) -> str:
    """Return repo and Hub for people."""
    return f"{where.repo_id} on {urlsplit(where.endpoint).netloc}"


def files(count: int) -> str:
    """Return a number of files for people."""
    return f"{count} file{'' if count == 1 else 's'}"


def amount(count: int, length: int) -> str:
    """Return a number of files and of their bytes for people."""
    return f"{files(count)}, {size(length)}"


def size(count: int) -> str:
    """Return a number of bytes for people."""
    if count < 1000:
        return f"{count} byte{'' if count == 1 else 's'}"
    for unit, length in (("GB", 10**9), ("MB", 10**6)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count / 1000:.1f} kB"


def ago(seconds: float) -> str:
    """Return a length of time for people, in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def now_or_later(moment: float) -> str:
    """Return a moment (seconds since the epoch) as local time, and how far away it is."""
    distance = moment - time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    return f"{shown} (in {ago(distance)})" if distance > 0 else f"{shown} ({ago(-distance)} ago)"
