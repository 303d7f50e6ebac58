"""`HubOutputFormat`: the TensorBoard output of Stable-Baselines3, on the Hub while the training goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stable_baselines3.common.logger import TensorBoardOutputFormat

from hf_summary_writer.integrations.framework_writer import TorchFrameworkWriter, logging_with

if TYPE_CHECKING:
    import os


class HubOutputFormat(TensorBoardOutputFormat):  # type: ignore[misc]
    """An output of a `Logger` that writes the same data as `TensorBoardOutputFormat`.

    Args:
        repo_id: The repo; by default the one that the environment names.
        folder: The folder of the run; `runs/<date>_<host>` by default.
        **kwargs: As for `HFSummaryWriter`.
    """

    def __init__(self, repo_id: str | None = None, folder: str | os.PathLike[str] | None = None, **kwargs: Any) -> None:
        # Not the parent's, which only creates a writer of its own.
        self.writer: TorchFrameworkWriter = TorchFrameworkWriter(repo_id, folder, **kwargs)
        self._is_closed = False

    def write(self, *arguments: Any, **named: Any) -> None:
        """Write the values of a step."""
        with logging_with(self.writer):
            super().write(*arguments, **named)
