"""TensorBoard on a logdir, and on a repo or bucket of the Hub, from a notebook or a script."""

from __future__ import annotations

import atexit
import logging
import os
import shlex
import shutil
import sys
import tempfile
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from hf_summary_writer.checks import check_folder, check_some_seconds
from hf_summary_writer.config import RUN_FILES, PushConfig
from hf_summary_writer.folder import PathFilter
from hf_summary_writer.hub import (
    Mirror,
    as_os_errors,
    check_client,
    client_of,
    endpoint_for,
    failure_of,
    refresh_seconds,
    with_full_name,
)
from hf_summary_writer.notices import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from huggingface_hub import HfApi

__all__ = ["View", "follow", "show", "tensorboard_options", "view"]


def tensorboard_options(folder: Path) -> list[str]:
    """Return the options of a TensorBoard that shows a folder which grows, several files of it at a time."""
    return ["--logdir", str(folder), "--reload_interval", "1", "--reload_multifile", "true"]


def show(folder: Path) -> None:
    """Open TensorBoard on a folder: below the cell of a notebook, elsewhere by printing its address.

    Raises:
        ImportError: If TensorBoard is not installed.
    """
    start = _starter()
    program = Path(sys.executable).with_name("tensorboard")
    if program.exists():  # the PATH of a notebook's kernel may lack the folder of its own programs
        os.environ.setdefault("TENSORBOARD_BINARY", str(program))
    # The magic %tensorboard does the same; it goes on with a TensorBoard that shows this folder already.
    start(shlex.join(tensorboard_options(folder)))


def _starter() -> Callable[[str], object]:
    """Return the function that opens TensorBoard.

    Raises:
        ImportError: If TensorBoard is not installed.
    """
    try:
        from tensorboard.notebook import start
    except ImportError:
        raise ImportError("this needs TensorBoard: pip install 'hf-summary-writer[view]'") from None
    return start  # type: ignore[no-any-return]


def follow(
    mirror: Mirror,
    refresh: float,
    look: Callable[[], object],
    failed: Callable[[Exception], object],
    ended: Callable[[float], bool],
) -> None:
    """Keep a mirror up to date, in the calling thread, until it is no longer needed.

    Args:
        mirror: The mirror.
        refresh: Seconds between refreshes where the Hub does not report changes.
        look: Refreshes the mirror.
        failed: Called with the error of a failed refresh; the next one tries again.
        ended: As for `Mirror.wait`.
    """
    while not ended(0):
        try:
            mirror.wait(refresh, ended)
            if not ended(0):
                look()
        except Exception as error:  # noqa: BLE001, PERF203 - the client raises many kinds, and the copy stays viewable
            failed(error)
            ended(refresh)


class View:
    """A copy of the event files of a repo or bucket, kept up to date until `close` or the end of the process.

    Attributes:
        folder: The folder of the copy.
    """

    def __init__(self, mirror: Mirror, folder: Path, name: str, refresh: float) -> None:
        self.folder: Path = folder
        self._mirror = mirror
        self._name = name
        self._closed = threading.Event()
        self._has_failed = False
        self._look()
        threading.Thread(
            target=follow,
            args=(mirror, refresh, self._look, self._warn, self._closed.wait),
            name="hf-summary-writer-view",
            daemon=True,
        ).start()

    def close(self) -> None:
        """Follow the repo or bucket no more; the copy and TensorBoard stay."""
        self._closed.set()

    @property
    def is_closed(self) -> bool:
        """Whether the repo or bucket is followed no more."""
        return self._closed.is_set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._name!r} in {str(self.folder)!r}>"

    def _look(self) -> None:
        changed = self._mirror.refresh()
        if changed.failed:
            self._tell(changed.failure)
        else:
            self._has_failed = False

    def _warn(self, error: Exception) -> None:
        self._tell(failure_of(error))

    def _tell(self, reason: str) -> None:
        level = logging.DEBUG if self._has_failed else logging.WARNING
        logger.log(level, "%s could not be read: %s", self._name, reason)
        self._has_failed = True


def view(
    repo_id: str,
    *,
    repo_type: str | None = None,
    revision: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    refresh: float | None = None,
    token: str | bool | None = None,
    hf_api: HfApi | None = None,
) -> View:
    """Open TensorBoard on the runs of a repo or bucket, and keep it up to date: `hf-summary-writer view` for notebooks.

    A bucket is followed live; of files that have grown, only the new bytes are downloaded. The same call again, as in a
    cell of a notebook that is run again, shows the same copy until that is closed.

    Args:
        repo_id: The repo, as `name` (of the token's user), `namespace/name` or an `hf://` URI such as
            `hf://buckets/user/name/folder`.
        repo_type: `"model"` (the default), `"dataset"`, `"space"` or `"bucket"`.
        revision: The branch, tag or commit; `main` by default.
        folder: The folder for the copy of the event files; by default, a temporary one.
        refresh: Seconds between refreshes; 60 by default, and 5 for a bucket whose changes the client cannot follow.
        token: The access token; by default, the stored one.
        hf_api: The `HfApi` for all requests, instead of a new one; another `token` than its own is refused.

    Returns:
        The copy; call its `close()` to follow the repo no more.

    Raises:
        ImportError: If TensorBoard is not installed.
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is invalid on the Hub, or `refresh` is not positive.
        OSError: If the repo or bucket cannot be read; `huggingface_hub.errors.HfHubHTTPError` is one.
    """
    _starter()  # before anything is downloaded
    arguments = {"repo_id": repo_id, "repo_type": repo_type, "revision": revision, "token": token}
    config = PushConfig.from_arguments(arguments, endpoint_for(hf_api, token))
    check_client(config.repo_type)
    seconds = refresh_seconds(config) if refresh is None else check_some_seconds(refresh, "refresh")
    place = None if folder is None else check_folder(folder, "folder")
    wanted = (config, hf_api, place, seconds)
    found = _views.get(wanted)
    if found is None or found.is_closed:
        with as_os_errors(config):
            found = _views[wanted] = _new_view(*wanted)
    show(found.folder)
    return found


# By the arguments of the call, for a notebook cell that is run again. The thread of a view keeps it alive.
_views: weakref.WeakValueDictionary[tuple[PushConfig, HfApi | None, Path | None, float], View]
_views = weakref.WeakValueDictionary()


def _new_view(config: PushConfig, hf_api: HfApi | None, folder: Path | None, seconds: float) -> View:
    api = hf_api or client_of(config.endpoint, config.token)
    config = with_full_name(config, api)
    if folder is None:
        folder = check_folder(tempfile.mkdtemp(prefix="hf-summary-writer-view-"), "folder")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return View(Mirror(api, config, folder, PathFilter(RUN_FILES), logger.warning), folder, config.repo_id, seconds)
