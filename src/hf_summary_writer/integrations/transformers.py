"""`HubCallback`: the TensorBoard callback of `transformers`, whose logs are on the Hub while the training goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers.integrations import TensorBoardCallback

from hf_summary_writer.writer import HFSummaryWriter

if TYPE_CHECKING:
    import os

    from transformers import TrainingArguments

__all__ = ["HubCallback"]


class HubCallback(TensorBoardCallback):  # type: ignore[misc]
    """Logs what `TensorBoardCallback` logs, for as many calls of `train()` as there are.

    That callback forgets a writer it was given when a training ends, and makes one of its own for the next. This one
    goes on in the same run.

    Args:
        repo_id: The repo.
        logdir: The folder of the run; what the `Trainer` would choose by default.
        **kwargs: As for `HFSummaryWriter`.
    """

    def __init__(self, repo_id: str, logdir: str | os.PathLike[str] | None = None, **kwargs: Any) -> None:
        super().__init__()
        self._repo_id = repo_id
        self._logdir = logdir
        self._writer_arguments = kwargs
        self._writer: HFSummaryWriter | None = None

    def _init_summary_writer(self, args: TrainingArguments) -> None:  # noqa: ARG002 - the framework's signature
        if self._writer is None:
            logdir = self._logdir or self.logging_dir
            self._writer = HFSummaryWriter(self._repo_id, logdir, **self._writer_arguments)
        # Closed at the end of a training, it opens a new file with the first event of the next one.
        self.tb_writer = self._writer
