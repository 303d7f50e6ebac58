"""`HubLoggerCallback`: the TensorBoardX logger of Ray Tune, whose logs are on the Hub while the trials run."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from ray.tune.logger import TBXLoggerCallback

from hf_summary_writer.config import complete_arguments
from hf_summary_writer.integrations.framework_writer import FrameworkWriter, check_early, logging_with

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


class HubLoggerCallback(TBXLoggerCallback):  # type: ignore[misc]
    """Logs the same data as `TBXLoggerCallback`. Trials are uploaded to `<path_in_repo>/<experiment>/<trial>/`.

    It runs in the process that drives the trials. The end of a trial pushes its remaining data and waits for that up to
    `close_timeout`.

    Args:
        repo_id: The repo; by default the one that the environment names.
        path_in_repo: The folder of the repo under which experiments are put.
        **kwargs: As for `HFSummaryWriter`.
    """

    @complete_arguments
    def __init__(self, repo_id: str | None = None, *, path_in_repo: str | None = "tensorboard", **kwargs: Any) -> None:
        check_early(repo_id, kwargs)
        super().__init__()
        self._repo_id = repo_id
        self._path_in_repo = path_in_repo or ""
        self._writer_arguments = kwargs
        self._summary_writer_cls = self._writer_of

    def log_trial_start(self, trial: Trial) -> None:
        """Open the writer of a trial."""
        self._experiment = trial.storage.experiment_dir_name
        super().log_trial_start(trial)

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Log a result of a trial."""
        writer = self._trial_writer.get(trial)
        with logging_with(writer):
            super().log_trial_result(iteration, trial, result)

    def _writer_of(self, logdir: str, **kwargs: Any) -> FrameworkWriter:
        place = posixpath.join(self._path_in_repo, self._experiment)
        return FrameworkWriter(self._repo_id, logdir, path_in_repo=place, **{**kwargs, **self._writer_arguments})
