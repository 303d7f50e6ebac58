"""`HubLogger`: the TensorBoard logger of PyTorch-Ignite, with uploads while the training runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ignite.handlers.tensorboard_logger import TensorboardLogger

from hf_summary_writer.writer import HFSummaryWriter

if TYPE_CHECKING:
    import os


class HubLogger(TensorboardLogger):  # type: ignore[misc]
    """Attaches all handlers that `TensorboardLogger` attaches.

    Args:
        repo_id: The repo; by default the one that the environment names.
        logdir: The folder of the run.
        **kwargs: As for `HFSummaryWriter`.
    """

    def __init__(self, repo_id: str | None = None, logdir: str | os.PathLike[str] | None = None, **kwargs: Any) -> None:
        # Not the parent's, which only creates a writer of its own.
        self.writer: HFSummaryWriter = HFSummaryWriter(repo_id, logdir, **kwargs)
