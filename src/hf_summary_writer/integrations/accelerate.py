"""`HubTracker`: a tracker for `accelerate` whose logs are on the Hub while the training goes on."""

from __future__ import annotations

import os
from typing import Any

from accelerate.tracking import GeneralTracker, on_main_process

from hf_summary_writer.writer import HFSummaryWriter

__all__ = ["HubTracker"]


class HubTracker(GeneralTracker):  # type: ignore[misc]
    """Logs what the TensorBoard tracker of `accelerate` logs; like that, in the main process.

    Args:
        repo_id: The repo.
        run_name: Name of the run.
        logging_dir: Folder of all runs.
        **kwargs: As for `HFSummaryWriter`.
    """

    name = "hub"
    requires_logging_directory = False

    def __init__(
        self, repo_id: str, run_name: str, logging_dir: str | os.PathLike[str] = "runs", **kwargs: Any
    ) -> None:
        super().__init__()
        self.repo_id = repo_id
        self.run_name = run_name
        self.logging_dir = os.path.join(logging_dir, run_name)
        self.init_kwargs = kwargs
        self.writer: HFSummaryWriter | None = None

    @property
    def tracker(self) -> HFSummaryWriter | None:
        """The writer; `None` before the trackers are initialised, and in all but the main process."""
        return self.writer

    @on_main_process  # type: ignore[untyped-decorator]
    def start(self) -> None:
        """Open the writer, once it is known which process this is."""
        self.writer = HFSummaryWriter(self.repo_id, self.logging_dir, **self.init_kwargs)

    @on_main_process  # type: ignore[untyped-decorator]
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Log `values` as hyperparameters of the run."""
        self._opened.add_hparams(values, {})
        self._opened.flush()

    @on_main_process  # type: ignore[untyped-decorator]
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Log numbers, texts, and dictionaries of numbers; `kwargs` go to the method of the writer."""
        for name, value in values.items():
            if isinstance(value, str):
                self._opened.add_text(name, value, global_step=step, **kwargs)
            elif isinstance(value, dict):
                self._opened.add_scalars(name, value, global_step=step, **kwargs)
            else:
                self._opened.add_scalar(name, value, global_step=step, **kwargs)

    @on_main_process  # type: ignore[untyped-decorator]
    def log_images(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Log batches of images; `kwargs` go to `add_images`."""
        for name, images in values.items():
            self._opened.add_images(name, images, global_step=step, **kwargs)

    @on_main_process  # type: ignore[untyped-decorator]
    def finish(self) -> None:
        """Close the writer, and push the rest."""
        self._opened.close()

    @property
    def _opened(self) -> HFSummaryWriter:
        if self.writer is None:
            self.start()
        writer: Any = self.writer
        found: HFSummaryWriter = writer
        return found
