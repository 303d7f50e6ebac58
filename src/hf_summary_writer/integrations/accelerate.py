"""`HubTracker`: a tracker for `accelerate` that uploads its logs while the training runs."""

from __future__ import annotations

import os
from typing import Any

from accelerate.tracking import TensorBoardTracker, on_main_process

from hf_summary_writer.writer import HFSummaryWriter

__all__ = ["HubTracker"]


class HubTracker(TensorBoardTracker):  # type: ignore[misc]
    """Logs what the TensorBoard tracker of `accelerate` logs; like that, in the main process.

    Args:
        repo_id: The repo; `None` for the one that the environment names.
        run_name: Name of the run.
        logging_dir: Folder of all runs.
        **kwargs: As for `HFSummaryWriter`.
    """

    name = "hub"
    requires_logging_directory = False

    def __init__(
        self, repo_id: str | None, run_name: str, logging_dir: str | os.PathLike[str] = "runs", **kwargs: Any
    ) -> None:
        super().__init__(run_name, logging_dir, **kwargs)
        self.repo_id = repo_id
        # None before the trackers are initialised, and in all but the main process.
        self.writer: HFSummaryWriter | None = None

    @on_main_process  # type: ignore[untyped-decorator]
    def start(self) -> None:
        """Open the writer, once it is known which process this is."""
        self.logging_dir: str = os.path.join(self.logging_dir_param, self.run_name)
        self.writer = HFSummaryWriter(self.repo_id, self.logging_dir, **self.init_kwargs)
