"""`HubCallback`: the TensorBoard callback of `transformers`, with uploads while the training runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from transformers.integrations import TensorBoardCallback

from hf_summary_writer.integrations.framework_writer import TorchFrameworkWriter, check_early, logging_with

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class HubCallback(TensorBoardCallback):  # type: ignore[misc]
    """Logs the same data as `TensorBoardCallback`, in one run for all calls of `train()`.

    That callback forgets a writer it was given when a training ends, and creates one for the next. This one continues
    the same run.

    Each trial of a hyperparameter search that has a name (`hp_name`) is a run of its own.

    Args:
        repo_id: The repo; by default the one that the environment names.
        logdir: The folder of the run, or of the trials; by default, the choice of the `Trainer`.
        **kwargs: As for `HFSummaryWriter`.
    """

    def __init__(self, repo_id: str | None = None, logdir: str | os.PathLike[str] | None = None, **kwargs: Any) -> None:
        check_early(repo_id, kwargs, logdir=logdir)
        super().__init__()
        self.tb_writer: TorchFrameworkWriter | None = None
        self._repo_id = repo_id
        self._logdir = logdir
        self._writer_arguments = kwargs
        self._writer: TorchFrameworkWriter | None = None
        self._folder: str | None = None
        self._trial = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose the writer of this training."""
        self._trial = (state.trial_name or "") if state.is_hyper_param_search else ""
        self.tb_writer = None  # a trial that was pruned never came to its end
        super().on_train_begin(args, state, control, **kwargs)

    def on_log(self, *arguments: Any, **named: Any) -> None:
        """Log the values of a step."""
        with logging_with(self.tb_writer):
            super().on_log(*arguments, **named)

    def _init_summary_writer(self, args: TrainingArguments) -> None:  # noqa: ARG002 - the framework's signature
        folder = self.logging_dir if self._logdir is None else os.path.join(self._logdir, self._trial)
        if self._writer is None or self._folder != folder:
            if self._writer is not None:
                self._writer.close()
            self._writer = TorchFrameworkWriter(self._repo_id, folder, **self._writer_arguments)
            self._folder = folder
        # Closed at the end of a training, it opens a new file with the first event of the next one.
        self.tb_writer = self._writer
