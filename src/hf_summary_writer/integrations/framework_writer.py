"""Writers for frameworks that call `flush` after each log, or that would make PyTorch's writer."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from hf_summary_writer.checks import check_folder
from hf_summary_writer.config import PushConfig
from hf_summary_writer.events import arguments_of, with_similar
from hf_summary_writer.hub import endpoint_for
from hf_summary_writer.writer import HFSummaryWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def check_early(repo_id: str | None, arguments: Mapping[str, Any], **folders: object) -> None:
    """Check the arguments of a writer that a framework makes when the training begins, hours later perhaps.

    Args:
        repo_id: The repo; `None` for that of the environment.
        arguments: The other arguments of the writer.
        **folders: The folder of the run, or one above it, under its name in the caller.

    Raises:
        TypeError: If an argument is unknown or of the wrong type.
        ValueError: If an argument is something that the Hub cannot have, or a folder is not on this machine.
    """
    if unknown := arguments.keys() - arguments_of(FrameworkWriter):
        raise TypeError(f"unknown keyword arguments: {with_similar(FrameworkWriter, unknown)}")
    for name, folder in folders.items():
        if folder is not None and folder != "":
            check_folder(folder, name)
    # The environment may name the repo until then.
    named = {**arguments, "repo_id": "unnamed" if repo_id is None else repo_id}
    PushConfig.from_arguments(named, endpoint_for(arguments.get("hf_api"), arguments.get("token")))


class FrameworkWriter(HFSummaryWriter):
    """A writer whose `flush` does not wait for the disk while a framework logs.

    Even so, events are written within half a second and are durable after `flush_secs`. An fsync for each step would
    take most of the time of a short step.

    Attributes:
        logging_thread: The thread in which a framework logs now, if any.
    """

    logging_thread: int | None = None

    def flush(self) -> None:
        """Wait until all logged data is on disk; return at once while the framework logs."""
        if self.logging_thread != threading.get_ident():
            super().flush()


@contextlib.contextmanager
def logging_with(writer: FrameworkWriter | None) -> Iterator[None]:
    """Let `flush` of a writer return at once in this thread; of no effect where there is no writer yet."""
    if writer is None:
        yield
        return
    writer.logging_thread = threading.get_ident()
    try:
        yield
    finally:
        writer.logging_thread = None


class TorchFrameworkWriter(FrameworkWriter):
    """The same in the place of PyTorch's writer, which writes tags as they are."""

    _cleans_tags = False
