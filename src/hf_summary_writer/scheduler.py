"""`CommitScheduler`: pushes a folder to a repo on the Hub in the background."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from typing import TYPE_CHECKING

from hf_summary_writer.checks import check_folder
from hf_summary_writer.config import (
    DEFAULT_CLOSE_TIMEOUT,
    Mode,
    PushConfig,
    complete_arguments,
    mode_for,
    rank_of,
    unknown_variables,
)
from hf_summary_writer.folder import prepare_for_forks
from hf_summary_writer.hub import Client, endpoint_for, remote_of
from hf_summary_writer.notices import announce, logger
from hf_summary_writer.process import check_sigterm, exit_is_over, fork_count, tell_after_fork, tell_at_exit
from hf_summary_writer.process import watch as sigterm
from hf_summary_writer.push import (
    Job,
    OverriddenPusher,
    PushLoop,
    PushTask,
    Shutdown,
    Status,
    loop_to,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path
    from types import TracebackType

    from huggingface_hub import CommitInfo, HfApi
    from typing_extensions import Never, Self

    from hf_summary_writer.errors import CommitDetails, ErrorDetails
    from hf_summary_writer.hub import Remote

__all__ = ["CommitScheduler"]


class CommitScheduler:
    """Uploads a folder to a repo on the Hub every few minutes, from a daemon thread.

    It works on any folder, whichever program writes to it. The folder is only read, except for a small state folder
    `.cache` in it. An `HFSummaryWriter` below the folder that uploads to the same branch leaves that to this scheduler.
    Schedulers of one process that upload to the same branch share a thread and its commits.

    The constructor makes no request; the repo is created by the first push that has something to upload. Errors of the
    Hub, the network or the disk are logged and retried, and never raised here.

    All methods are thread-safe. In a forked child `trigger` resolves to `None`; the parent uploads the
    files that the child writes to the folder.

    Args:
        repo_id: The repo, as `name` (of the token's user), `namespace/name` or an `hf://` URI such as
            `hf://datasets/user/name@branch/folder` or, for a storage bucket, `hf://buckets/user/name/folder`. Needed,
            unless the environment names it.
        folder_path: The folder, created if it does not exist.
        every: Minutes between pushes, 5 by default and 0.25 for a bucket; fractions are fine. The first push is made
            at once.
        path_in_repo: The folder of the repo to upload to; its root by default.
        repo_type: `"model"` (the default), `"dataset"`, `"space"` or `"bucket"`. A bucket has no branches and no
            history, so that `revision` and `squash_history` are refused.
        revision: The branch, created if it does not exist; `main` by default.
        private: Whether a new repo is private; by default, the setting of the account.
        token: The access token; by default, the stored one, read again for each push.
        allow_patterns: Upload only files that match one of these patterns; all files by default.
        ignore_patterns: Files that match one of these are not pushed; `.git`, `.cache/huggingface` and files such as
            `.env` never are.
        squash_history: Whether to squash the history of the branch into one commit after each push with a commit.
        hf_api: The `HfApi` for all requests, instead of a new one; another `token` than its own is refused.
        close_timeout: Seconds that `close`, the end of a `with` block and the exit of the interpreter wait for the last
            push, in total. Ctrl-C skips the wait, and the program goes on.
        push_on_sigterm: Whether SIGTERM makes a last push, within `close_timeout`, before the process ends with exit
            code 143. An earlier handler is called too and has that time to end the process itself. Only in the main
            thread. Without it SIGTERM ends the process at once, and the next one uploads the rest.
        on_commit: Called with `CommitDetails` after every commit, in the thread that uploads.
        on_error: Called with `ErrorDetails` after every failed push, in the thread that uploads. Exceptions of
            hooks are logged and have no other effect.
        model_card: Whether the first commit to a repo that this scheduler creates brings a README.md that describes its
            contents. An existing README.md is never modified.
        check: Whether to ask the Hub now whether it will accept pushes to the repo, and to raise `ActionNeededError` if
            not: for unattended training.

    Arguments that are left out are read from environment variables such as `HF_SUMMARY_WRITER_REPO_ID`; the page
    "Environment variables" lists them. With `HF_HUB_OFFLINE=1` or `HF_SUMMARY_WRITER_MODE=offline` nothing is uploaded,
    and the script prints at exit the command that uploads it later; with `HF_SUMMARY_WRITER_MODE=disabled` nothing is
    uploaded or printed.

    Raises:
        TypeError: If an argument has the wrong type, or neither an argument nor the environment names the repo.
        ValueError: If an argument or a variable is invalid on the Hub, `folder_path` is not a folder,
            `push_on_sigterm` is set outside of the main thread, or huggingface_hub is too old for buckets.

    Attributes:
        lock: Hold it while rewriting files in place, so that no half-written file is pushed.
        last_future: The future of the push that began last.
    """

    _names_links = True

    @complete_arguments
    def __init__(
        self,
        *,
        repo_id: str | None = None,
        folder_path: str | os.PathLike[str],
        every: float | None = None,
        path_in_repo: str | None = None,
        repo_type: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        allow_patterns: list[str] | str | None = None,
        ignore_patterns: list[str] | str | None = None,
        squash_history: bool = False,
        hf_api: HfApi | None = None,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        push_on_sigterm: bool = False,
        on_commit: Callable[[CommitDetails], object] | None = None,
        on_error: Callable[[ErrorDetails], object] | None = None,
        model_card: bool = True,
        check: bool = False,
    ) -> None:
        """Check the arguments, create the folder and start the thread."""
        config = PushConfig.from_arguments(locals(), endpoint_for(hf_api, token))
        if config.check:
            from hf_summary_writer.hub.check import require  # rarely needed, and slow to import

            require(config, hf_api)
        self._set_up(config, check_folder(folder_path), hf_api)
        self.start()

    def _set_up(self, config: PushConfig, folder: Path, hf_api: HfApi | None) -> None:
        """Prepare to push `folder`, an absolute path without links, with no default of the environment."""
        self._config = config
        self.every: float = config.minutes
        self.path_in_repo: str = config.path_in_repo
        self.repo_type: str | None = config.repo_type
        self.revision: str | None = config.revision
        self.private: bool | None = config.private
        self.allow_patterns: tuple[str, ...] | None = config.allow_patterns
        self.ignore_patterns: tuple[str, ...] | None = config.ignore_patterns
        self.squash_history: bool = config.squash_history
        self.close_timeout: float = config.close_timeout
        self.push_on_sigterm: bool = config.push_on_sigterm
        if self.push_on_sigterm:
            check_sigterm()
        self.folder_path: Path = folder
        self._mode = mode_for(self.folder_path)
        if self._mode is not Mode.DISABLED:
            _warn_of_unknown_variables()
        self.lock: threading.RLock = threading.RLock()
        self._parent = 0  # the parent's process id, in a forked child
        self._forks = fork_count()
        self._loop = self._loop_to(remote_of(config, Client(config.token, hf_api, config.endpoint)))
        self._remote = self._loop.pusher.remote
        self._job = self._new_job()
        self._said_offline = self._is_closed = self._lacks_thread = False
        # Commits of our own `push_to_hub` that an override called: their history is squashed already.
        self._own_commits: list[CommitInfo] = []
        self._last_uploaded: dict[Path, float] = {}
        self._shutdown = Shutdown(self._job)
        self._task = PushTask(self._loop, self._job, self)
        tell_after_fork(self)
        tell_at_exit(self)

    @property
    def api(self) -> HfApi:
        """The client that makes every request."""
        return self._remote.api

    @property
    def repo_id(self) -> str:
        """The repo: as given, and with its namespace once the Hub has returned it."""
        return self._remote.repo_id

    @property
    def url(self) -> str | None:
        """The page of the Hub that shows the files; `None` until the full name of the repo is known.

        It is the *Training metrics* tab for event files on the default branch of a model repo, otherwise `folder_url`.
        """
        return self._job.url

    @property
    def folder_url(self) -> str | None:
        """The page of the Hub that lists the files; `None` until the full name of the repo is known."""
        return self._job.full_destination.folder_url

    def status(self) -> Status:
        """Return the upload status of the folder, without a request.

        The command `hf-summary-writer status` shows the same. Checks every file of the folder.
        """
        state = self._task.state
        job = self._job
        return Status(
            self.folder_path,
            job.full_destination,
            self.url,
            job.ledger.commit,
            job.inventory.pending(),
            state.phase,
            *job.status_file.report(state),
        )

    @property
    def last_future(self) -> Future[CommitInfo | None] | None:
        """The future of the push that began last."""
        return self._task.last_future

    def trigger(self) -> Future[CommitInfo | None]:
        """Ask for a push without waiting for it.

        That push includes everything written to the folder before the call, except for files that the Hub refuses:
        a warning and `status` name those. Calls while a push waits share that push and its future.

        Returns:
            A future of the `CommitInfo` of a commit that holds all of it, of `None` if there was nothing new, or of the
            exception of the failed push, without its traceback, which `on_error` and the log receive. It fails at once
            during a wait that the Hub asked for, and resolves to `None` once the scheduler is stopped. After `close`
            the call makes one more last push, within `close_timeout`. Of a bucket, the `CommitInfo` has the bucket's
            page as `commit_url`, `None` as `oid`, and the numbers `files` and `bytes`.
        """
        if self._is_closed and not exit_is_over():
            with contextlib.suppress(RuntimeError):  # there is no thread to be had
                return self._task.finish(self.close_timeout, again=True)
        self._start_if_refused()
        return self._task.trigger()

    def push_to_hub(self) -> CommitInfo | None:
        """Push the new data and return the last commit, or `None` if there was nothing new.

        The scheduler's thread calls it in a subclass that overrides it to push in another way. In any other thread it
        asks for a push as `trigger` does and waits for it.

        Raises:
            PushError: If something could not be delivered.
        """
        if self._loop.is_current_thread():
            commit = self._loop.pusher.push_one(self._job)
            if commit is not None:
                self._own_commits.append(commit)
            return commit
        return self.trigger().result()

    # Private attributes of huggingface_hub's class that its subclasses use.

    def _push_to_hub(self) -> CommitInfo | None:
        return self.push_to_hub()

    @property
    def _scheduler_thread(self) -> threading.Thread | None:
        return self._loop.thread

    @property
    def token(self) -> str | bool | None:
        """The access token, as given."""
        return self._config.token

    @property
    def last_uploaded(self) -> dict[Path, float]:
        """The uploaded files, and when each was changed last before (seconds since the epoch)."""
        for relpath, entry in list(self._job.ledger.entries.items()):
            whole, rest = divmod(entry.signature.mtime_ns, 10**9)
            self._last_uploaded[self.folder_path / relpath] = whole + 1e-9 * rest  # as `os.stat` has it
        return self._last_uploaded

    def stop(self) -> None:
        """End the thread after a push that is running, without a last push; a stopped scheduler stays stopped."""
        self._task.stop()
        sigterm.remove(self)

    def close(self) -> None:
        """Make a last push, wait for it at most `close_timeout` seconds, and end the thread.

        Ctrl-C skips the wait, and the program goes on.
        """
        self._start_if_refused()
        self._is_closed = self._is_closed or self._task.alive
        try:
            seconds = self._shutdown.remaining
            with contextlib.suppress(KeyboardInterrupt):
                self._await_last(self._task.finish(seconds), time.monotonic() + seconds)
        finally:
            sigterm.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        finally:
            self.stop()

    def __reduce__(self) -> Never:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied: make one where it is needed")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {str(self.folder_path)!r} to {self.repo_id!r}>"

    def at_exit(self) -> Callable[[bool], None]:
        """Begin the last push; the thread stays, since other threads may still write."""
        self._start_if_refused()
        if self._mode is Mode.ONLINE and not (self._task.alive or self._task.forked):
            return self._after_the_end
        deadline = time.monotonic() + self._shutdown.remaining
        future = self._task.finish(self._shutdown.remaining, end=False)

        def await_last(skip: bool) -> None:
            if skip:
                self._shutdown.skip_wait()
            try:
                self._await_last(future, deadline if self._shutdown.remaining else 0.0)
            finally:
                self._task.go_on()

        return await_last

    def at_sigterm(self) -> Callable[[bool], None]:
        """Begin the last push, with all logged data."""
        self._job.flush()
        return self.at_exit()

    def after_fork_in_child(self) -> None:
        """Leave the pushing to the parent."""
        self.lock = self._job.content_lock = threading.RLock()
        self._parent = os.getppid()

    def start(self) -> None:
        """Start the thread, also again after `close`; does nothing while it runs, after `stop`, or when offline."""
        if exit_is_over() and self._mode is not Mode.DISABLED:
            self._shutdown.name_late_data(refreshes=False)
            return
        self._shutdown.begin_anew()
        self._is_closed = False
        with contextlib.suppress(OSError):  # the first push reports the error
            self.folder_path.mkdir(parents=True, exist_ok=True)
        if self._mode is not Mode.ONLINE:
            self._stay_away()
            return
        if self.url is not None:
            self._job.report.announce()
        try:
            self._start_thread()
        except RuntimeError as error:  # the interpreter is exiting, or the system has no thread to give
            self._lacks_thread = True
            logger.warning(
                "%s cannot be uploaded from this process: %s. To upload it: %s",
                self.folder_path,
                error,
                self._job.sync_command,
            )

    def _start_thread(self) -> None:
        with contextlib.suppress(ImportError, OSError):  # a disk that fails; the first push reports it
            prepare_for_forks()
        self._task.start()
        self._lacks_thread = False
        if self.push_on_sigterm and self._task.alive:
            # Started again in another thread than the main one, or without a descriptor left, it goes on without.
            with contextlib.suppress(ValueError, OSError):
                sigterm.add(self)

    def _start_if_refused(self) -> None:
        """Start the thread that the system did not give at first: other processes may have ended meanwhile."""
        if self._lacks_thread and not exit_is_over():
            with contextlib.suppress(RuntimeError):
                self._start_thread()

    def _new_job(self) -> Job:
        return Job(
            self.folder_path,
            self._config,
            self._remote,
            content_lock=self.lock,
            announces=True,
            names_links=self._names_links,
        )

    def _loop_to(self, remote: Remote) -> PushLoop:
        if all(getattr(type(self), name) is method for name, method in _OWN_PUSH.items()):
            return loop_to(remote)
        return PushLoop(OverriddenPusher(remote, self._push_overridden))

    def _push_overridden(self) -> CommitInfo | None:
        self._job.flush()
        self._remote.check_token()
        self._remote.ensure()
        self._own_commits.clear()
        commit = self._push_to_hub()
        if commit is not None and commit not in self._own_commits and self.squash_history:
            self._loop.pusher.squash([self._job])
        return commit

    def _stay_away(self) -> None:
        if self._mode is Mode.OFFLINE and not self._said_offline:
            self._said_offline = True
            announce(
                "Offline mode: %s is not uploaded. To upload it later: %s", self.folder_path, self._job.sync_command
            )
            self._job.remember()

    def _await_last(self, future: Future[CommitInfo | None], deadline: float) -> None:
        if self._task.forked:
            # The parent, while it lives, pushes the missing data and names it at its own exit.
            if os.getppid() != self._parent:
                self._shutdown.name_late_data()
            return
        if self._loop.is_current_thread():
            return  # a hook called `close`: the last push begins when the hook has returned
        away = self._mode is Mode.OFFLINE or (exit_is_over() and not self._task.alive)
        self._shutdown.await_last(future, deadline, away=away)

    def _after_the_end(self, _skip: bool) -> None:
        """Name the data written after the last push, whose own result has been logged."""
        if self._may_have_late_children():
            self._shutdown.name_late_data()

    def _may_have_late_children(self) -> bool:
        """Return whether forked children may have logged after this process ended its uploads by `close`."""
        return fork_count() > self._forks


@functools.cache
def _warn_of_unknown_variables() -> None:
    """Warn once, in one process of a run: without HF_SUMMARY_WRITER_PRIVATE, spelled wrong, a repo is public."""
    if rank_of(os.environ) == 0:
        for name, similar in unknown_variables(os.environ).items():
            logger.warning("The environment variable %s has no effect: did you mean %s?", name, similar)


# The methods as defined here: a patch may replace them in the class itself.
_OWN_PUSH = {name: vars(CommitScheduler)[name] for name in ("push_to_hub", "_push_to_hub")}
