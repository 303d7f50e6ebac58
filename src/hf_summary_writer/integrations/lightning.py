"""`HubLogger`: the TensorBoard logger of Lightning, with uploads while the training runs."""

from __future__ import annotations

import posixpath
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

# Lightning is published under two names, which are often both installed and share no classes.
if ("pytorch_lightning" in sys.modules and "lightning" not in sys.modules) or find_spec("lightning") is None:
    from lightning_fabric.loggers.logger import rank_zero_experiment
    from pytorch_lightning.loggers import TensorBoardLogger
else:
    from lightning.fabric.loggers.logger import rank_zero_experiment
    from lightning.pytorch.loggers import TensorBoardLogger

from hf_summary_writer.config import complete_arguments
from hf_summary_writer.integrations.framework_writer import TorchFrameworkWriter, check_early, logging_with

if TYPE_CHECKING:
    import os

_OF_THE_LOGGER = ("version", "log_graph", "default_hp_metric", "prefix", "sub_dir")


class HubLogger(TensorBoardLogger):  # type: ignore[misc]
    """Logs the same data as `TensorBoardLogger`, to `<path_in_repo>/<name>/<version>/<sub_dir>/` of the repo.

    Args:
        repo_id: The repo; by default the one that the environment names.
        save_dir: Folder of all experiments.
        name: The experiment.
        path_in_repo: The folder of the repo under which experiments are put.
        **kwargs: As for `TensorBoardLogger` (`version`, `log_graph`, `default_hp_metric`, `prefix`, `sub_dir`); all
            others as for `HFSummaryWriter`.
    """

    @complete_arguments
    def __init__(
        self,
        repo_id: str | None = None,
        save_dir: str | os.PathLike[str] = "runs",
        name: str = "lightning_logs",
        *,
        path_in_repo: str | None = "tensorboard",
        **kwargs: Any,
    ) -> None:
        own = {key: kwargs.pop(key) for key in _OF_THE_LOGGER if key in kwargs}
        check_early(repo_id, kwargs, save_dir=save_dir)
        super().__init__(save_dir, name, **own)
        # The parent's own name for it, by which it closes the writer.
        self._experiment: TorchFrameworkWriter | None = None
        self._path_in_repo = posixpath.join(path_in_repo or "", name or "")
        self._writer_arguments = {"repo_id": repo_id, **kwargs}

    @property
    @rank_zero_experiment  # type: ignore[untyped-decorator]
    def experiment(self) -> TorchFrameworkWriter:
        """The writer, to log other data with its methods."""
        if self._experiment is None:
            version = self.version if isinstance(self.version, str) else f"version_{self.version}"
            # The writer adds the last part, which is not the version if there is a `sub_dir`.
            above = posixpath.dirname(posixpath.normpath(posixpath.join(version, self.sub_dir or "")))
            place = posixpath.join(self._path_in_repo, above)
            self._experiment = TorchFrameworkWriter(logdir=self.log_dir, path_in_repo=place, **self._writer_arguments)
        return self._experiment

    def save(self) -> None:
        """Write the hyperparameters; called after each log."""
        with logging_with(self._experiment):
            super().save()

    def __getstate__(self) -> dict[str, Any]:
        """Return all attributes, for spawned processes; the parent leaves out its writer, which cannot be pickled."""
        return self.__dict__.copy()
