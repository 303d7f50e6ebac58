"""`HFSummaryWriter`: a `SummaryWriter` whose logs are on the Hub while the training goes on."""

from __future__ import annotations

import dataclasses
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_summary_writer.config import (
    DEFAULT_CLOSE_TIMEOUT,
    PushConfig,
    check_folder,
    check_path_in_repo,
    commits_per_hour,
    complete_arguments,
    mode_for,
)
from hf_summary_writer.events import EventWriter, default_logdir, writer_thread
from hf_summary_writer.folder.lease import rank_of
from hf_summary_writer.hub.client import client_of, endpoint_of
from hf_summary_writer.process import check_push_on_sigterm
from hf_summary_writer.push.job import Job
from hf_summary_writer.scheduler import CommitScheduler

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from huggingface_hub import HfApi
    from typing_extensions import Self

    from hf_summary_writer.errors import CommitDetails, ErrorDetails

__all__ = ["HFSummaryWriter"]


class HFSummaryWriter(EventWriter):
    """A `tensorboardX.SummaryWriter` that keeps a repo on the Hub up to date with the event files it writes.

    Use it in place of `SummaryWriter`, best as a context manager around the training loop. The logs of a run land in
    `<path_in_repo>/<name of logdir>/`, so that the runs of one repo stand side by side in TensorBoard. Logging writes
    to the disk only; pushing happens in a daemon thread. Trouble with the Hub, the network or the disk never reaches
    the training loop: what could not be sent stays in the logdir and is sent by a later push.

    Writers of one process that go to the same branch share their commits. Where somebody else pushes a folder above
    `logdir` to the same branch, as `hf-summary-writer sync PARENT REPO_ID --watch` or a `CommitScheduler` does, the
    writer leaves the pushing to that: `trigger` then resolves to `None`.

    A writer that is dropped without `close` is pushed to the end in the next interval; its scheduler then ends, too.

    All methods are thread-safe. In a forked child the writer logs to a file of the child's own, which the parent
    pushes. A pickled or copied writer is a writer with the same settings on the same logdir, with a file and a thread
    of its own. A token given as a string is not part of it: the copy reads the one that is stored on the machine.

    Args:
        repo_id: The repo, as `name` (of the token's user), `namespace/name` or an `hf://` URI such as
            `hf://datasets/user/name@branch/folder`. It is created if it does not exist. Needed, unless the environment
            names it.
        logdir: The folder of the run, also accepted as `log_dir`; `runs/<date>_<host>` by default.
        commit_every: Minutes between pushes, 5 by default; fractions are fine.
        squash_history: Whether to fold the branch's history into one commit after each push that added something.
        repo_type: `"model"` (the default), `"dataset"` or `"space"`.
        repo_revision: The branch; `main` by default. One that does not exist is created.
        repo_private: Whether a repo that does not exist is created private; by default the account's setting decides.
        path_in_repo: The folder of the repo under which runs are put; `None` or `""` is its root.
        repo_allow_patterns: Only files of the logdir that match one of these patterns are pushed; `None` means all.
        repo_ignore_patterns: Files that match one of these are not pushed.
        token: The access token; by default the one that is stored on the machine, read anew for each push.
        hf_api: An `HfApi` to make every request with, instead of a new one.
        close_timeout: At most how many seconds `close`, leaving the `with` block, or the end of the program, waits for
            the last push, all in all. Ctrl-C during the wait skips it.
        push_on_sigterm: Whether SIGTERM makes a last push, within `close_timeout`, before it ends the process with exit
            code 143. A handler that was there before is called too, and has until then to end the process in its own
            way. Only in the main thread. Without it the process just ends, and the next run sends the rest.
        push_every_rank: Whether every process of a distributed run pushes. By default each logs to a file of its own,
            and only the main process of a folder pushes it: the one of rank 0, as `torchrun`, `accelerate launch`,
            SLURM, MPI or Ray number it. Another one pushes what nobody has pushed for some intervals, since it may be
            on another disk, and at the end what the Hub still lacks of its own.
        on_commit: Called with `CommitDetails` after every commit, in the scheduler's thread.
        on_error: Called with `ErrorDetails` after every push that failed, in the scheduler's thread.
        model_card: Whether a repo that this writer creates starts with a README.md that names what it holds, in the
            first commit. A README.md that is there is never touched.
        **kwargs: Passed on to `tensorboardX.SummaryWriter`. With `write_to_disk=False` nothing is pushed.

    Arguments that are left out are read from environment variables such as `HF_SUMMARY_WRITER_REPO_ID`; the page
    "Environment variables" lists them. With `HF_HUB_OFFLINE=1` or `HF_SUMMARY_WRITER_MODE=offline` nothing is uploaded,
    and the script prints at exit the command that uploads it later; with `HF_SUMMARY_WRITER_MODE=disabled` nothing is
    uploaded or printed.

    Raises:
        TypeError: If an argument is of the wrong type, or nothing names the repo.
        ValueError: If an argument or a variable means something that the Hub cannot have, `logdir` is no folder on
            this machine, or `push_on_sigterm` is asked for in another thread than the main one.

    Attributes:
        scheduler: The `CommitScheduler` that pushes; call its `trigger()` to push now.
    """

    @complete_arguments
    def __init__(
        self,
        repo_id: str | None = None,
        logdir: str | os.PathLike[str] | None = None,
        *,
        commit_every: float | None = None,
        squash_history: bool = False,
        repo_type: str | None = None,
        repo_revision: str | None = None,
        repo_private: bool | None = None,
        path_in_repo: str | None = "tensorboard",
        repo_allow_patterns: list[str] | str | None = "*.tfevents.*",
        repo_ignore_patterns: list[str] | str | None = None,
        token: str | bool | None = None,
        hf_api: HfApi | None = None,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        push_on_sigterm: bool = False,
        push_every_rank: bool = False,
        on_commit: Callable[[CommitDetails], object] | None = None,
        on_error: Callable[[ErrorDetails], object] | None = None,
        model_card: bool = True,
        **kwargs: Any,
    ) -> None:
        """Check the arguments, open the event file and start the scheduler."""
        # All before the first file or thread exists, and under the names that these arguments have here.
        config = PushConfig.from_arguments(locals(), endpoint_of(hf_api))
        check_push_on_sigterm(config.push_on_sigterm)
        mode_for()
        commits_per_hour()
        logdir = kwargs.pop("log_dir", None) if logdir is None else logdir
        logdir = logdir or default_logdir(kwargs.get("comment", ""))
        _in_repo(config, check_folder(logdir, "logdir"))

        inherited = set(vars(self))
        super().__init__(logdir=logdir, **kwargs)
        # Not by `check_folder`, since SummaryWriter takes a leading "~" literally.
        folder = Path(os.path.realpath(self.logdir))
        arguments = _in_repo(config, folder).arguments_for(CommitScheduler)
        self.scheduler: CommitScheduler = _RunScheduler(
            self,
            enabled=self._write_to_disk,
            every_rank=config.push_every_rank,
            folder_path=folder,
            hf_api=hf_api,
            **arguments,
        )
        self._hub_arguments = {
            **config.arguments_for(HFSummaryWriter),
            # Where another process would find it, whatever its working folder is.
            "logdir": str(folder),
            "token": None if isinstance(token, str) else token,
        }
        self._endpoint: str | None = getattr(hf_api, "endpoint", None)
        self._own = frozenset(vars(self)) - inherited | {"_own"}

    @property
    def url(self) -> str | None:
        """The page of the Hub that shows this run; `None` until the Hub has said what the repo's full name is.

        For the first branch of a model repo it is the tab "Metrics", else the page of the files.
        """
        return self.scheduler.url

    @property
    def repo_id(self) -> str:
        """The repo: as given, and with its namespace once the Hub has said which."""
        return self.scheduler.repo_id

    @property
    def repo_type(self) -> str | None:
        """The repo's type, as given."""
        return self.scheduler.repo_type

    @property
    def repo_revision(self) -> str | None:
        """The repo's branch, as given."""
        return self.scheduler.revision

    def close(self) -> None:
        """Close the event files and push the rest, waiting for it at most `close_timeout` seconds.

        May be called again, and from several threads. A write after it opens a new event file, which is pushed too.

        Raises:
            KeyboardInterrupt: If Ctrl-C was pressed during the wait, which it skips.
        """
        super().close()
        self.scheduler.close()
        if self.all_writers is not None:
            # Somebody logged meanwhile, and opened a new file while the scheduler was still there.
            self._reopened()

    def __enter__(self) -> Self:
        # tensorboardX's own has no annotation, so type checkers would see `Any` in every `with` block.
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except KeyboardInterrupt:
            # Ctrl-C during the wait ends the wait; what the user's own code raised goes first.
            if error is None:
                raise

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by calling the class, as the local writer does: a subclass may take other arguments.
        return object.__new__, (type(self),), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        """Return what makes the same writer again, and what a subclass or a user added to it."""
        added = {name: value for name, value in vars(self).items() if name not in self._own}
        return {"arguments": {**self._arguments(), **self._hub_arguments}, "endpoint": self._endpoint, "added": added}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arguments = state["arguments"]
        # A client of the user's may hold a token; one of the same Hub does as well.
        api = client_of(state["endpoint"], arguments["token"]) if state["endpoint"] is not None else None
        HFSummaryWriter.__init__(self, **arguments, hf_api=api)
        self.__dict__.update(state["added"])

    def _reopened(self) -> None:
        self.scheduler.start()


class _RunScheduler(CommitScheduler):
    """Pushes the logdir of one writer, and has the writer bring its events to disk first."""

    def __init__(self, writer: HFSummaryWriter, *, enabled: bool, every_rank: bool, **kwargs: Any) -> None:
        # Weak, or the scheduler's thread would keep alive a writer that the user has dropped.
        self._writer = weakref.ref(writer)
        self._enabled = enabled
        self._rank = None if every_rank else rank_of(os.environ)
        super().__init__(**kwargs)

    def start(self) -> None:
        if self._enabled:
            super().start()

    def _new_job(self) -> Job:
        return Job(
            self.folder_path,
            self._config,
            rank=self._rank,
            is_writer=True,
            content_lock=self.lock,
            flush=self._before_push,
            on_commit=self._committed,
        )

    def _before_push(self) -> None:
        writer = self._writer()
        if writer is not None:
            writer.flush()
        else:
            writer_thread.flush()  # it was dropped without `close`

    def _pushed(self, error: BaseException | None) -> None:
        super()._pushed(error)
        is_dropped = self._writer() is None and error is None and not self._task.is_finishing
        if is_dropped and not self._job.inventory.pending().files:
            # All that the writer has logged is pushed, and nothing is left to do.
            self._task.finish(self.close_timeout)


def _in_repo(config: PushConfig, folder: Path) -> PushConfig:
    """Return the config of a run: below the folder of all runs, under its own name."""
    return dataclasses.replace(config, path_in_repo=check_path_in_repo(f"{config.path_in_repo}/{folder.name}"))
