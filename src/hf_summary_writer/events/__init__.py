"""Event files and the `SummaryWriter` that writes them. Knows the disk alone: no folder, push or Hub."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_summary_writer.events.encoding import file_version
    from hf_summary_writer.events.environment import command_line, environment_text
    from hf_summary_writer.events.files import followed, parse_name
    from hf_summary_writer.events.scalars import ScalarReader, Scalars
    from hf_summary_writer.events.signals import Signal
    from hf_summary_writer.events.stalls import stall_watch
    from hf_summary_writer.events.tfrecord import boundaries, extend_crc, frame, is_torn, next_record
    from hf_summary_writer.events.thread import writer_thread
    from hf_summary_writer.events.writer import (
        EventWriter,
        arguments_of,
        default_logdir,
        named_logdir,
        with_similar,
    )
else:
    # Only where it is used: the writer imports tensorboardX, which commands that read files do without.
    _HOMES = {
        "EventWriter": "writer",
        "ScalarReader": "scalars",
        "Scalars": "scalars",
        "Signal": "signals",
        "arguments_of": "writer",
        "boundaries": "tfrecord",
        "command_line": "environment",
        "default_logdir": "writer",
        "environment_text": "environment",
        "extend_crc": "tfrecord",
        "file_version": "encoding",
        "followed": "files",
        "frame": "tfrecord",
        "is_torn": "tfrecord",
        "named_logdir": "writer",
        "next_record": "tfrecord",
        "parse_name": "files",
        "stall_watch": "stalls",
        "with_similar": "writer",
        "writer_thread": "thread",
    }

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value


__all__ = [
    "EventWriter",
    "ScalarReader",
    "Scalars",
    "Signal",
    "arguments_of",
    "boundaries",
    "command_line",
    "default_logdir",
    "environment_text",
    "extend_crc",
    "file_version",
    "followed",
    "frame",
    "is_torn",
    "named_logdir",
    "next_record",
    "parse_name",
    "stall_watch",
    "with_similar",
    "writer_thread",
]
