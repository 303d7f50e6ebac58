"""`HubOutputFormat`: the TensorBoard output of Stable-Baselines3, on the Hub while the training goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stable_baselines3.common.logger import TensorBoardOutputFormat

from hf_summary_writer.writer import HFSummaryWriter

if TYPE_CHECKING:
    import os

__all__ = ["HubOutputFormat"]


class HubOutputFormat(TensorBoardOutputFormat):  # type: ignore[misc]
    """Writes what `TensorBoardOutputFormat` writes; one of the outputs of a `Logger`.

    Args:
        repo_id: The repo; `None` for the one that the environment names.
        folder: The folder of the run.
        **kwargs: As for `HFSummaryWriter`.
    """

    def __init__(self, repo_id: str | None, folder: str | os.PathLike[str], **kwargs: Any) -> None:
        # Not the parent's: all that it does is to make a writer of its own.
        self.writer: HFSummaryWriter = HFSummaryWriter(repo_id, folder, **kwargs)
        self._is_closed = False
