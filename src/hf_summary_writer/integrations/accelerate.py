"""`HubTracker`: a tracker for `accelerate` that uploads its logs while the training runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from accelerate.tracking import TensorBoardTracker, on_main_process

from hf_summary_writer.events import default_logdir
from hf_summary_writer.integrations.framework_writer import TorchFrameworkWriter, check_early, logging_with


class HubTracker(TensorBoardTracker):  # type: ignore[misc]
    """Logs the same data as the TensorBoard tracker of `accelerate`; like that, in the main process.

    Args:
        repo_id: The repo; by default the one that the environment names.
        run_name: Name of the run; date and host by default.
        logging_dir: Folder of all runs.
        **kwargs: As for `HFSummaryWriter`.
    """

    name = "hub"
    requires_logging_directory = False

    def __init__(
        self,
        repo_id: str | None = None,
        run_name: str | None = None,
        logging_dir: str | os.PathLike[str] = "runs",
        **kwargs: Any,
    ) -> None:
        check_early(repo_id, kwargs, logging_dir=logging_dir)
        super().__init__(run_name or Path(default_logdir("")).name, logging_dir, **kwargs)
        self.repo_id = repo_id
        # None before the trackers are initialised, and in all but the main process.
        self.writer: TorchFrameworkWriter | None = None

    @on_main_process  # type: ignore[untyped-decorator]
    def start(self) -> None:
        """Open the writer, once it is known which process this is."""
        self.logging_dir: str = os.path.join(self.logging_dir_param, self.run_name)
        self.writer = TorchFrameworkWriter(self.repo_id, self.logging_dir, **self.init_kwargs)

    @on_main_process  # type: ignore[untyped-decorator]
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Log values of a step."""
        with logging_with(self.writer):
            super().log(values, step, **kwargs)
