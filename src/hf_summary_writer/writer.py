"""`HFSummaryWriter`: a `SummaryWriter` that uploads its logs to the Hub while the training runs."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_summary_writer.checks import as_unicode, can_be_downloaded, check_folder, check_path_in_repo
from hf_summary_writer.config import (
    DEFAULT_CLOSE_TIMEOUT,
    DEFAULT_STALL_SECONDS,
    RUN_FILES,
    Mode,
    PushConfig,
    commits_per_hour,
    complete_arguments,
    has_ranks,
    is_pushed_from_outside,
    mode_for,
    rank_of,
)
from hf_summary_writer.errors import StallDetails
from hf_summary_writer.events import EventWriter, environment_text, named_logdir, stall_watch
from hf_summary_writer.hub import check_client, client_of, endpoint_for
from hf_summary_writer.notices import amount, logger
from hf_summary_writer.process import check_sigterm
from hf_summary_writer.push import Run, RunJob, RunPhase, call_hook, look_for_leftovers, warn_of_neighbours
from hf_summary_writer.scheduler import CommitScheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from huggingface_hub import HfApi
    from typing_extensions import Self

    from hf_summary_writer.errors import CommitDetails, ErrorDetails
    from hf_summary_writer.push import Job, Status

__all__ = ["HFSummaryWriter"]


class HFSummaryWriter(EventWriter):
    """A `tensorboardX.SummaryWriter` that uploads its event files to a repo on the Hub while the training runs.

    Use it in place of `SummaryWriter`, best as a context manager around the training loop. The logs of a run are
    uploaded to `<path_in_repo>/<name of logdir>/`, so that TensorBoard shows the runs of one repo side by side. Logging
    only writes to disk; a daemon thread uploads. Errors of the Hub, the network or the disk never reach the training
    loop: data that could not be uploaded stays in the logdir, and a later push uploads it.

    Writers of one process that upload to the same branch share a thread and its commits. If a `CommitScheduler` or
    `hf-summary-writer sync PARENT REPO_ID --watch` uploads a folder above `logdir` to the same branch, the writer only
    writes to disk, and `trigger` resolves to `None`. A writer that is garbage collected without `close` is uploaded in
    the next interval.

    All methods are thread-safe. A forked child logs to a file of its own, which the parent uploads. A pickled or copied
    writer has the same settings and logdir, and with its first event a file of its own; a token given as a string is
    not copied.

    Args:
        repo_id: The repo, as `name` (of the token's user), `namespace/name` or an `hf://` URI such as
            `hf://datasets/user/name@branch/folder` or, for a storage bucket, `hf://buckets/user/name/folder`. It is
            created if it does not exist. Needed, unless the environment names it.
        logdir: The folder of the run, also accepted as `log_dir`; `runs/<date>_<host>` by default.
        commit_every: Minutes between pushes, 5 by default and 0.25 for a bucket; fractions are fine.
        squash_history: Whether to squash the history of the branch into one commit after each push with a commit.
        repo_type: `"model"` (the default), `"dataset"`, `"space"` or `"bucket"`. A bucket has no branches and no
            history, so that `repo_revision` and `squash_history` are refused.
        repo_revision: The branch, created if it does not exist; `main` by default.
        repo_private: Whether a new repo is private; by default, the setting of the account.
        path_in_repo: The folder of the repo that holds the runs; `None` or `""` is its root.
        repo_allow_patterns: Upload only files of the logdir that match one of these patterns; `None` means all files.
            By default event files, and the projector files of `add_embedding`.
        repo_ignore_patterns: Do not upload files that match one of these patterns.
        token: The access token; by default, the stored one, read again for each push.
        hf_api: The `HfApi` for all requests, instead of a new one; another `token` than its own is refused.
        close_timeout: Seconds that `close`, the end of the `with` block and the exit of the interpreter wait for the
            last push, in total. Ctrl-C skips the wait, and the program goes on.
        push_on_sigterm: Whether SIGTERM makes a last push, within `close_timeout`, before the process ends with exit
            code 143. An earlier handler is called too and has that time to end the process itself. Only in the main
            thread. Without it SIGTERM ends the process at once, and the next run uploads the rest.
        push_every_rank: Whether every process of a distributed run uploads. By default each logs to a file of its own
            and only rank 0 uploads, as numbered by `torchrun`, `accelerate launch`, SLURM, MPI or Ray. Another rank
            uploads after an interval in which no other process has begun to, since it may be on another disk, and at
            exit the data of its own that the Hub lacks.
        on_commit: Called with `CommitDetails` after every commit, in the thread that uploads.
        on_error: Called with `ErrorDetails` after every failed push, in the thread that uploads.
        on_stall: Called with `StallDetails` when nothing was logged for `stall_after` seconds, once, and once more each
            time that logging goes on and stops again; also offline, and in a thread of its own. Not called in a forked
            child, after `close`, or with `write_to_disk=False`. An exception in a hook is logged
            and has no other effect.
        stall_after: Seconds without an event after which `on_stall` is called, 600 by default.
        model_card: Whether the first commit to a repo that this writer creates brings a README.md that describes its
            contents. An existing README.md is never modified.
        run_state: Whether uploads bring along a small file `hf-summary-writer.json` with the state of the run, its
            host, rank and command, from which `hf-summary-writer status REPO_ID` tells whether the run still goes on.
            Secrets among the command's arguments are masked.
        push_leftovers: Whether to upload in the background the data that earlier runs with folders beside `logdir` did
            not upload, each to the folder of its name beside that of this run. By default one warning names the data,
            with the command that uploads it.
        check: Whether to ask the Hub now whether it will accept pushes to the repo, and to raise `ActionNeededError` if
            not: for unattended training.
        log_environment: Whether to log a text `environment` with the command, the Git commit, versions, host and rank.
            Secrets among the command's arguments are masked.
        **kwargs: Passed on to `tensorboardX.SummaryWriter`. With `write_to_disk=False` nothing is uploaded.

    Arguments that are left out are read from environment variables such as `HF_SUMMARY_WRITER_REPO_ID`; the page
    "Environment variables" lists them. With `HF_HUB_OFFLINE=1` or `HF_SUMMARY_WRITER_MODE=offline` nothing is uploaded,
    and the script prints at exit the command that uploads it later; with `HF_SUMMARY_WRITER_MODE=disabled` nothing is
    uploaded or printed.

    Raises:
        TypeError: If an argument has the wrong type, or neither an argument nor the environment names the repo.
        ValueError: If an argument or a variable is invalid on the Hub, `logdir` is not a folder on this machine,
            `push_on_sigterm` is set outside of the main thread, or huggingface_hub is too old for buckets.

    Attributes:
        scheduler: The `CommitScheduler` that uploads; call its `trigger()` to upload now.
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
        repo_allow_patterns: Sequence[str] | str | None = RUN_FILES,
        repo_ignore_patterns: list[str] | str | None = None,
        token: str | bool | None = None,
        hf_api: HfApi | None = None,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        push_on_sigterm: bool = False,
        push_every_rank: bool = False,
        on_commit: Callable[[CommitDetails], object] | None = None,
        on_error: Callable[[ErrorDetails], object] | None = None,
        on_stall: Callable[[StallDetails], object] | None = None,
        stall_after: float = DEFAULT_STALL_SECONDS,
        model_card: bool = True,
        run_state: bool = True,
        push_leftovers: bool = False,
        check: bool = False,
        log_environment: bool = False,
        **kwargs: Any,
    ) -> None:
        """Check the arguments, open the event file and start the scheduler."""
        # All before the first file or thread exists, and under the names that these arguments have here.
        try:
            config = PushConfig.from_arguments(locals(), endpoint_for(hf_api, token))
        except ValueError as error:
            if isinstance(repo_id, str) and repo_id.startswith(("/", "./", "../", "~")):
                raise ValueError(
                    f"{error}. The first argument is the repo; for the folder, write logdir={repo_id!r}"
                ) from None
            raise
        check_client(config.repo_type)
        if config.push_on_sigterm:
            check_sigterm()
        mode_for()
        commits_per_hour()
        given = kwargs.pop("log_dir", None) if logdir is None else logdir
        logdir = named_logdir(given, kwargs.get("comment", ""))
        if not given and _may_be_a_folder(config.repo_id):
            logger.warning(
                "%r is taken for the repo, not for a folder: for the folder, write logdir=%r",
                config.repo_id,
                config.repo_id,
            )
        check_folder(logdir, "logdir")
        # Named as the user did: a link may lead to a folder with a meaningless name.
        path = os.path.abspath(logdir)  # noqa: PTH100 - a Path would follow it
        of_run = _in_repo(config, os.path.basename(path))  # noqa: PTH119
        _check_suffix(kwargs.get("filename_suffix"))
        if config.check:
            from hf_summary_writer.hub.check import require  # rarely needed, and slow to import

            require(config, hf_api)

        inherited = set(vars(self))
        self._on_stall, self._stall_after = config.on_stall, config.stall_after
        self._made_in = os.getpid()
        super().__init__(logdir=logdir, **kwargs)
        # Not by `check_folder`, since SummaryWriter takes a leading "~" literally.
        folder = Path(os.path.realpath(self.logdir))
        rank = rank_of(os.environ)
        self._hub_run = Run(folder, of_run, rank, self)
        is_uploaded = self._write_to_disk and mode_for(folder) is Mode.ONLINE
        warn_of_neighbours(self._hub_run, is_uploaded=is_uploaded, is_copy=self._is_copy)
        self.scheduler: CommitScheduler = _RunScheduler(
            self._hub_run,
            hf_api,
            enabled=self._write_to_disk,
            is_other_rank=rank != 0 and not config.push_every_rank,
        )
        self._hub_arguments = {
            **config.arguments_for(HFSummaryWriter),
            # Absolute, for a process with another working directory.
            "logdir": path,
            "token": None if isinstance(token, str) else token,
            "log_environment": False,  # once per run
        }
        self._endpoint: str | None = getattr(hf_api, "endpoint", None)
        # A caller may train while it handles an exception; that exception does not end the run.
        self._handled_before = id(sys.exc_info()[1])
        if not self._is_copy:
            self._reopened()
        if config.log_environment:
            self.add_text("environment", environment_text())
        self._own = frozenset(vars(self)) - inherited | {"_own"}

    @property
    def url(self) -> str | None:
        """The page of the Hub that shows this run; `None` until the full name of the repo is known.

        For the default branch of a model repo it is the *Training metrics* tab, otherwise the page of the files.
        """
        return self.scheduler.url

    @property
    def repo_id(self) -> str:
        """The repo: as given, and with its namespace once the Hub has returned it."""
        return self.scheduler.repo_id

    @property
    def repo_type(self) -> str | None:
        """The repo's type, as given."""
        return self.scheduler.repo_type

    @property
    def repo_revision(self) -> str | None:
        """The repo's branch, as given."""
        return self.scheduler.revision

    def view(self) -> None:
        """Open TensorBoard on the logdir: below the cell of a notebook, elsewhere by printing its address.

        It shows the files on this disk, uploaded or not. Needs TensorBoard.

        Raises:
            ImportError: If TensorBoard is not installed.
        """
        from hf_summary_writer.viewing import show  # rarely needed

        self.flush()
        show(self.scheduler.folder_path)

    def close(self) -> None:
        """Close the event files and push the rest, waiting for it at most `close_timeout` seconds.

        Ctrl-C skips the wait, and the program goes on. May be called again, and from several threads. A write after it
        opens a new event file, which is pushed too.
        """
        error = sys.exc_info()[1]  # in a `finally` block, for example
        self._hub_run.end(RunPhase.after(None if id(error) == self._handled_before else error))
        super().close()
        stall_watch.discard(self)
        self.scheduler.close()
        if self.all_writers is not None:
            # Another thread logged meanwhile and opened a new file while the scheduler still ran.
            self._reopened()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.logdir!r} to {self.repo_id!r}>"

    def _repr_html_(self) -> str:
        """Return the HTML for a notebook: the logdir, the repo and the upload status."""
        from html import escape  # rarely needed, and slow to import

        status = self.scheduler.status()
        pending, commit = status.pending, status.commit
        link = f'<a href="{escape(self.url)}">{escape(self.repo_id)}</a>' if self.url else escape(self.repo_id)
        uploaded = "all uploaded" if commit else "nothing to upload"
        state = uploaded if pending.nothing else f"{amount(pending.missing, pending.bytes)} to upload"
        last = time.strftime("%H:%M:%S", time.localtime(commit.time)) if commit else "none"
        error = f", last error: {escape(status.failure.error)}" if status.failure else ""
        return f"{escape(self.logdir)} → {link}: {status.phase.value}, {state}, last commit: {last}{error}"

    def __enter__(self) -> Self:
        # tensorboardX's own has no annotation, so type checkers would see `Any` in every `with` block.
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hub_run.end(RunPhase.after(error))
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return the arguments of this writer, and attributes that a subclass or a user added."""
        added = {name: value for name, value in vars(self).items() if name not in self._own}
        return {"arguments": {**self._arguments(), **self._hub_arguments}, "endpoint": self._endpoint, "added": added}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arguments = state["arguments"]
        # A client of the user's may hold a token; one of the same Hub does as well.
        api = client_of(state["endpoint"], arguments["token"]) if state["endpoint"] is not None else None
        self._is_copy = True
        HFSummaryWriter.__init__(self, **arguments, hf_api=api)
        self.__dict__.update(state["added"])

    def _reopened(self) -> None:
        self.scheduler.start()
        if self._on_stall is not None and self._write_to_disk and self._made_in == os.getpid():
            stall_watch.add(self, self._stall_after, self._stalled)

    def _stalled(self, seconds: float) -> None:
        call_hook(self._on_stall, StallDetails(self.repo_id, self.scheduler.folder_path, seconds))


class _RunScheduler(CommitScheduler):
    """Pushes the logdir of one writer."""

    def __init__(self, run: Run, hf_api: HfApi | None, *, enabled: bool, is_other_rank: bool) -> None:
        self._enabled = enabled
        self._is_other_rank = is_other_rank
        self._run = run
        self._is_left_to_others = False  # whether only other processes upload the run, who need its state
        self._set_up(run.config, run.folder, hf_api)

    def start(self) -> None:
        if self._enabled:
            self._run.go_on()
            super().start()

    def status(self) -> Status:
        self._run.flush()  # events in the queue are no part of the folder yet
        return super().status()

    def close(self) -> None:
        self._end_run(RunPhase.FINISHED)
        super().close()

    def at_exit(self) -> Callable[[bool], None]:
        self._end_run(RunPhase.at_exit())
        return super().at_exit()

    def at_sigterm(self) -> Callable[[bool], None]:
        self._run.end(RunPhase.STOPPED)
        return super().at_sigterm()

    def _end_run(self, phase: RunPhase) -> None:
        self._run.end(phase)
        if self._is_left_to_others and not self._parent:
            self._job.leave_state()

    def _stay_away(self) -> None:
        super()._stay_away()
        if self._mode is Mode.OFFLINE or is_pushed_from_outside(self.folder_path):
            self._is_left_to_others = True
            self._job.leave_state()

    def _start_thread(self) -> None:
        super()._start_thread()
        if not self._is_other_rank:
            look_for_leftovers(self._job)

    def _new_job(self) -> Job:
        return RunJob(self._run, self._remote, content_lock=self.lock, is_other_rank=self._is_other_rank)

    def _may_have_late_children(self) -> bool:
        # Other ranks of a distributed run may still log to this folder, and push it themselves.
        return self._enabled and not has_ranks(os.environ) and super()._may_have_late_children()


def _check_suffix(suffix: object) -> None:
    # The parent checks all else.
    if isinstance(suffix, str) and not can_be_downloaded(as_unicode(suffix)):
        raise ValueError(
            f"filename_suffix {suffix!r} cannot be used: it must not hold backslashes, control characters or bytes that"
            " are no UTF-8"
        )


def _may_be_a_folder(repo_id: str) -> bool:
    return repo_id.partition("/")[0] in {"runs", "logs"} or os.path.isdir(repo_id)  # noqa: PTH112


def _in_repo(config: PushConfig, name: str) -> PushConfig:
    """Return the config of a run: below the folder of all runs, under its own name."""
    run = check_path_in_repo(as_unicode(name), "the last part of logdir")
    # Without the hook that may hold the writer: the scheduler's thread would keep it alive.
    return dataclasses.replace(config, path_in_repo=f"{config.path_in_repo}/{run}".strip("/"), on_stall=None)
