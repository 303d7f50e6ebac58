"""`CommitScheduler`: pushes a folder to a repo on the Hub in the background."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from hf_summary_writer.config import (
    DEFAULT_CLOSE_TIMEOUT,
    Mode,
    PushConfig,
    check_folder,
    complete_arguments,
    mode_for,
)
from hf_summary_writer.errors import ActionNeededError, CommitDetails, ErrorDetails, PostponedError, TemporaryError
from hf_summary_writer.events import file_version, frame, parse_name
from hf_summary_writer.folder.lease import Deputy, WatchMark, rank_of
from hf_summary_writer.hub.client import Hub, default_endpoint, endpoint_of
from hf_summary_writer.hub.deadline import Caller
from hf_summary_writer.process import check_push_on_sigterm, tell_after_fork, tell_at_exit
from hf_summary_writer.process import watch as sigterm
from hf_summary_writer.push.loop import PushLoop, seat_at
from hf_summary_writer.push.push import Pusher
from hf_summary_writer.push.report import Leaving, Trouble
from hf_summary_writer.push.status import Status, TroubleFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from types import TracebackType

    from huggingface_hub import CommitInfo, HfApi
    from typing_extensions import Never, Self

    from hf_summary_writer.config import Destination

__all__ = ["CommitScheduler", "RankedScheduler"]

T = TypeVar("T")

logger = logging.getLogger("hf_summary_writer")


class CommitScheduler:
    """Pushes what is new in a folder to a repo on the Hub, every few minutes, from a daemon thread.

    It works on any folder, whoever writes to it. The folder is only read, but for a small state folder `.cache` in it.
    Every `HFSummaryWriter` below the folder that goes to the same branch leaves the pushing to this scheduler.
    Schedulers of one process that push to the same branch share their commits.

    The constructor makes no request; the repo is created with the first push that has something to send. Trouble with
    the Hub, the network or the disk becomes a line in the log and a later attempt, never an exception here.

    All methods are thread-safe. A forked child has no scheduler: its `trigger` resolves to `None`, and what it writes
    to the folder is pushed by its parent.

    Args:
        repo_id: The repo, as `name` (of the token's user), `namespace/name` or an `hf://` URI such as
            `hf://datasets/user/name@branch/folder`. Needed, unless the environment names it.
        folder_path: The folder; it is created if it is not there.
        every: Minutes between pushes, 5 by default; fractions are fine. The first push is made at once.
        path_in_repo: The folder of the repo to push to; its root by default.
        repo_type: `"model"` (the default), `"dataset"` or `"space"`.
        revision: The branch; `main` by default. One that does not exist is created.
        private: Whether a repo that does not exist is created private; by default the account's setting decides.
        token: The access token; by default the one that is stored on the machine, read anew for each push.
        allow_patterns: Only files that match one of these patterns are pushed; all by default.
        ignore_patterns: Files that match one of these are not pushed; `.git`, `.cache/huggingface` and files such as
            `.env` never are.
        squash_history: Whether to fold the branch's history into one commit after each push that added something.
        hf_api: An `HfApi` to make every request with, instead of a new one.
        close_timeout: At most how many seconds leaving a `with` block, or the end of the program, waits for the last
            push, all in all. Ctrl-C during the wait skips it.
        push_on_sigterm: Whether SIGTERM makes a last push, within `close_timeout`, before it ends the process with exit
            code 143. A handler that was there before is called too, and has until then to end the process in its own
            way. Only in the main thread. Without it the process just ends, and the next one sends the rest.
        on_commit: Called with `CommitDetails` after every commit, in the scheduler's thread.
        on_error: Called with `ErrorDetails` after every push that failed, in the scheduler's thread. What a hook
            raises is logged and goes no further.
        model_card: Whether a repo that this scheduler creates starts with a README.md that names what it holds, in the
            first commit. A README.md that is there is never touched.

    Arguments that are left out are read from environment variables such as `HF_SUMMARY_WRITER_REPO_ID`; the page
    "Environment variables" lists them. With `HF_HUB_OFFLINE=1` or `HF_SUMMARY_WRITER_MODE=offline` nothing is uploaded,
    and the script prints at exit the command that uploads it later; with `HF_SUMMARY_WRITER_MODE=disabled` nothing is
    uploaded or printed.

    Raises:
        TypeError: If an argument is of the wrong type, or nothing names the repo.
        ValueError: If an argument or a variable means something that the Hub cannot have, `folder_path` is no folder,
            or `push_on_sigterm` is asked for in another thread than the main one.

    Attributes:
        lock: Hold it while rewriting files in place, so that no half-written file is pushed.
        last_future: The future of the push that began last.
    """

    # Whether writers below the folder leave the pushing to this.
    _marks_folder = True

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
    ) -> None:
        """Check the arguments, create the folder and start the thread."""
        config = self._config = PushConfig.from_arguments(locals(), endpoint_of(hf_api))
        self.every = config.minutes
        self.path_in_repo = config.path_in_repo
        self.repo_type = config.repo_type
        self.revision = config.revision
        self.private = config.private
        self.allow_patterns = config.allow_patterns
        self.ignore_patterns = config.ignore_patterns
        self.squash_history = config.squash_history
        self.close_timeout = config.close_timeout
        self.push_on_sigterm = check_push_on_sigterm(config.push_on_sigterm)
        self.folder_path = check_folder(folder_path)
        self._mode = mode_for(self.folder_path)
        where = config.destination
        self._hub = Hub(where.repo_id, where.repo_type, where.revision, config.private, config.token, hf_api)
        self.lock = threading.RLock()
        self._caller = Caller("hf-summary-writer-hub")
        self._seat = seat_at(self._hub, self._invite)
        self._pusher = Pusher(
            self.folder_path,
            config,
            self._hub,
            self._caller,
            self.lock,
            self._committed,
            self._seat,
        )
        self._on_commit = functools.partial(_call_hook, config.on_commit)
        self._on_error = functools.partial(_call_hook, config.on_error)
        self._said_offline = False
        self._trouble = Trouble(self.folder_path)
        self._leaving = Leaving(
            self.folder_path,
            lambda: self._destination,
            self._command,
            self._pusher.inventory,
            self.close_timeout,
        )
        self._mark = WatchMark(self.folder_path, config) if self._marks_folder else None
        self._trouble_file = TroubleFile.beside(self._pusher.ledger.path)
        self._loop = PushLoop(
            self._push_and_end,
            self.every * 60,
            at_start=self._caller.start,
            at_end=self._at_end,
            name="hf-summary-writer-push",
            settled=self._trouble_file.note,
        )
        tell_after_fork(self)
        tell_at_exit(self)
        self.start()

    @property
    def api(self) -> HfApi:
        """The client that makes every request."""
        return self._hub.api

    @property
    def repo_id(self) -> str:
        """The repo: as given, and with its namespace once the Hub has said which."""
        return self._hub.repo_id

    @property
    def url(self) -> str | None:
        """The page of the Hub that shows the logs; `None` until the Hub has said what the repo's full name is.

        For the first branch of a model repo it is the tab "Metrics", else the page of the files.
        """
        return self._destination.known_url

    @property
    def folder_url(self) -> str | None:
        """The page of the Hub that lists the files; `None` until the Hub has said what the repo's full name is."""
        return self._destination.folder_url if self.url else None

    def status(self) -> Status:
        """Return how far the folder has come, without a request.

        It is what the command `hf-summary-writer status` shows. Looks at every file of the folder.
        """
        state = self._loop.state
        ledger = self._pusher.ledger
        return Status(
            self.folder_path,
            self._destination,
            self.url,
            ledger.commit,
            self._pusher.inventory.pending(),
            state.phase,
            *self._trouble_file.word(state),
        )

    @property
    def last_future(self) -> Future[CommitInfo | None] | None:
        """The future of the push that began last."""
        return self._loop.last_future

    def trigger(self) -> Future[CommitInfo | None]:
        """Ask for a push now, without waiting for it.

        What was written to the folder before the call is in that push. Calls that come while a push waits its turn
        share one push and one future.

        Returns:
            A future of the commit that holds all of it, of `None` if there was nothing new, or of the exception of the
            failed attempt, whose traceback only `on_error` and the log are given. It fails at once while the Hub has
            asked to be left alone, and resolves to `None` once the scheduler is stopped.
        """
        return self._loop.trigger()

    def push_to_hub(self) -> CommitInfo | None:
        """Push what is new and return the last commit, or `None` if there was nothing.

        Called by the scheduler's thread; override it to push in another way, and call `trigger` to have it called.

        Raises:
            PushError: If something could not be delivered.
        """
        if self._loop.forked:
            return None
        lock_seconds = self.close_timeout if self._loop.seconds_left is not None else max(self.every * 60, 1.0)
        return self._pusher.push(
            last=self._loop.seconds_left is not None, interrupted=self._loop.interrupted, lock_seconds=lock_seconds
        )

    def stop(self) -> None:
        """End the thread after a push that is running, without a last push; a stopped scheduler stays stopped."""
        self._loop.stop()
        sigterm.remove(self)

    def close(self) -> None:
        """Make a last push, wait for it at most `close_timeout` seconds, and end the thread.

        Raises:
            KeyboardInterrupt: If Ctrl-C was pressed during the wait, which it skips.
        """
        try:
            patience = self._leaving.patience
            self._await_last(self._loop.finish(patience), time.monotonic() + patience)
        finally:
            sigterm.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except KeyboardInterrupt:
            if error is None:
                raise
        finally:
            self.stop()

    def __reduce__(self) -> Never:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied: make one where it is needed")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {str(self.folder_path)!r} to {self.repo_id!r}>"

    def at_exit(self) -> Callable[[bool], None]:
        """Begin the last push; the thread stays, since other threads may still write."""
        deadline = time.monotonic() + self._leaving.patience
        future = self._loop.finish(self._leaving.patience, end=False)

        def await_last(hurry: bool) -> None:
            if hurry:
                self._leaving.hurry()
            try:
                self._await_last(future, deadline if self._leaving.patience else 0.0)
            finally:
                self._loop.go_on()

        return await_last

    def at_sigterm(self) -> Callable[[bool], None]:
        """Begin the last push, with all that was logged."""
        self._before_push()
        return self.at_exit()

    def after_fork_in_child(self) -> None:
        """Leave the pushing to the parent."""
        self.lock = threading.RLock()
        self._caller.after_fork_in_child()
        self._loop.after_fork_in_child()

    def start(self) -> None:
        """Start the thread, also again after `close`; does nothing while it runs, after `stop`, or when offline."""
        self._leaving.begin_anew()
        with contextlib.suppress(OSError):  # the first push says what is wrong with it
            self.folder_path.mkdir(parents=True, exist_ok=True)
        if self._mode is not Mode.ONLINE:
            self._stay_away()
            return
        try:
            self._loop.start()
            if self.push_on_sigterm and self._loop.alive:
                # Started again in another thread than the main one, it goes on without.
                with contextlib.suppress(ValueError):
                    sigterm.add(self)
        except RuntimeError as error:  # the interpreter is exiting, or the system has no thread to give
            logger.warning("%s is not pushed from here: %s. To push it: %s", self.folder_path, error, self._command)

    def _push_and_end(self) -> CommitInfo | None:
        try:
            return self._push_once()
        finally:
            self._seat.end()

    def _push_once(self) -> CommitInfo | None:
        began = time.monotonic()
        try:
            self._before_push()
            if self._mark is not None:
                self._mark.hold(self.repo_id)
            info = self._pushed()
        except PostponedError as postponed:
            logger.debug("%s waits for its turn, %.0f s: %s", self.folder_path, postponed.seconds, postponed)
            raise
        except BaseException as error:
            failures = self._trouble.failed(error, self.repo_id, left_behind=began < self._leaving.told_at)
            self._on_error(ErrorDetails(self.repo_id, self.folder_path, error, failures))
            raise
        self._trouble.passed(self.repo_id)
        return info

    def _pushed(self) -> CommitInfo | None:
        try:
            self._hub.check_token()
        except ActionNeededError:
            # Before anything is read; but a later process has to know where the folder was to go, and how.
            self._pusher.remember()
            raise
        if type(self).push_to_hub is CommitScheduler.push_to_hub:
            return self.push_to_hub()
        self._pusher.delivery.ensure_repo()
        info = self.push_to_hub()
        if info is not None and self.squash_history:
            self._pusher.squash()
        return info

    def _committed(self, details: CommitDetails) -> None:
        self._leaving.commits += 1
        if self._leaving.commits == 1:
            logger.info("%s can be seen at %s", self.folder_path, self.url)
        self._trouble.delivered(details)
        self._on_commit(details)

    def _stay_away(self) -> None:
        if self._mode is Mode.OFFLINE and not self._said_offline:
            self._said_offline = True
            logger.info(
                "%s stays on this disk, since this process is offline. To push it: %s", self.folder_path, self._command
            )
            self._pusher.remember()

    def _invite(self, share: float) -> bool:
        return self._loop.invite(share)

    def _at_end(self) -> None:
        self._caller.stop()
        if self._mark is not None:
            self._mark.drop()

    def _before_push(self) -> None:
        """Bring to disk what this push has to cover."""

    def _await_last(self, future: Future[CommitInfo | None], deadline: float) -> None:
        if self._loop.forked:
            return  # what is missing is the parent's to push, and to name
        self._leaving.await_last(future, deadline, away=self._mode is Mode.OFFLINE)

    @property
    def _destination(self) -> Destination:
        return dataclasses.replace(self._pusher.destination, repo_id=self.repo_id)

    @property
    def _command(self) -> str:
        return self._config.sync_command(self.folder_path, default_endpoint())


def _call_hook(hook: Callable[[T], object] | None, details: T) -> None:
    if hook is not None:
        try:
            hook(details)
        except Exception:
            logger.exception("A hook of hf_summary_writer failed; nothing else is affected")


_EMPTY = len(frame(file_version(1.0)))


class RankedScheduler(CommitScheduler):
    """A scheduler that, in a process that is not the main one of a run, leaves a folder to whoever pushes it.

    In such a process it pushes when it is asked to by `trigger`; when nobody else has pushed the folder for some
    intervals; and at the end, if the Hub does not have all that this very process has logged. Nothing is left behind,
    whichever process ends last and whatever disks they share.

    Args:
        every_rank: Whether to push like the main process in all of them.
        **kwargs: As for `CommitScheduler`.
    """

    def __init__(self, *, every_rank: bool, **kwargs: Any) -> None:
        """Start the thread, after looking up which process this is."""
        rank = rank_of(os.environ)
        self._deputy = None if every_rank or rank.is_main else Deputy(rank)
        self._asked = False
        super().__init__(**kwargs)

    def trigger(self) -> Future[CommitInfo | None]:
        """Ask for a push now, in whichever process."""
        # Before the push can begin, so that one that begins meanwhile covers this call, too.
        self._asked = True
        return super().trigger()

    def _push_once(self) -> CommitInfo | None:
        asked, self._asked = self._asked, False
        if self._deputy is None:
            return super()._push_once()
        if not asked and not self._is_needed(self._deputy):
            return None
        try:
            info = super()._push_once()
        except PostponedError:
            # It begins anew when its turn comes, and is still asked for then.
            self._asked = self._asked or asked
            raise
        if info is not None:
            self._deputy.pushed(info.oid)
        return info

    def _is_needed(self, deputy: Deputy) -> bool:
        self._before_push()
        self._pusher.refresh()
        commit = self._pusher.ledger.commit
        latest = None if commit is None else commit.oid
        if self._loop.seconds_left is not None:
            return deputy.is_in_charge(latest) or self._owes()
        return deputy.steps_in(latest, something_waits=self._pusher.inventory.pending().files > 0)

    def _owes(self) -> bool:
        """Tell whether something that this process has logged is not on the Hub."""
        entries = self._pusher.ledger.entries
        try:
            for candidate in self._pusher.inventory.changed():
                name = parse_name(os.path.basename(candidate.relpath))  # noqa: PTH119 - as in all scans
                if name is not None and name.pid == os.getpid():
                    entry = entries.get(candidate.relpath)
                    if candidate.signature.size > (_EMPTY if entry is None else entry.length):
                        return True
        except TemporaryError:
            return True  # the push itself says what is wrong with the folder
        return False
