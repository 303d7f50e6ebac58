"""Event files and the `SummaryWriter` that writes them. Knows the disk alone: no folder, push or Hub.

`writer.EventWriter` has the `add_*` methods, and `run_files.RunFiles`, its base, the files. A call becomes bytes in a
file in these steps. In the calling thread:

- `add_scalar` appends a tuple to the `queue.EventQueue` of the run.
- All other methods make a summary, or copy their values (`media`, `device`) and leave the encoding to the thread. They
  pass it on through `file_writer.FileWriter`, where trackers see it.
- The caller waits while the `memory` of pending events is full.

In the one `thread.WriterThread` of the process, for each queue in turn:

- `EventQueue.work` takes `items` from the queue, reads those that are on a device, encodes (`encoding`), frames
  (`tfrecord`) and appends them to its `files.EventFile`. `failures` logs what the disk refuses.
- A `FlushRequest` (`signals`) that is reached has the file synced (`syncing`) and is set then. `EventWriter.flush`
  waits for those of its queues.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hf_summary_writer.events.encoding import file_version
from hf_summary_writer.events.environment import command_line, environment_text
from hf_summary_writer.events.files import followed, parse_name
from hf_summary_writer.events.signals import Signal
from hf_summary_writer.events.stalls import stall_watch
from hf_summary_writer.events.tfrecord import boundaries, extend_crc, frame, is_torn, next_record
from hf_summary_writer.events.thread import writer_thread

if TYPE_CHECKING:
    from hf_summary_writer.events.run_files import arguments_of, default_logdir, named_logdir, with_similar
    from hf_summary_writer.events.scalars import ScalarReader, Scalars
    from hf_summary_writer.events.writer import EventWriter
else:
    # Only where they are used: these modules import NumPy and tensorboardX, which commands do without.
    _HOMES = {
        "EventWriter": "writer",
        "ScalarReader": "scalars",
        "Scalars": "scalars",
        "arguments_of": "run_files",
        "default_logdir": "run_files",
        "named_logdir": "run_files",
        "with_similar": "run_files",
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
