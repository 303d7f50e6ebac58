"""`hf-summary-writer view`: show a repo's runs in TensorBoard on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hf_summary_writer.checks import check_path_in_repo
from hf_summary_writer.cli.options import config_option
from hf_summary_writer.cli.progress import bar
from hf_summary_writer.cli.terminal import log_to_stderr, say
from hf_summary_writer.cli.watching import client_for
from hf_summary_writer.config import EVENT_FILES, PushConfig
from hf_summary_writer.folder.patterns import PathFilter
from hf_summary_writer.hub.client import default_endpoint
from hf_summary_writer.hub.responses import answer_of, one_line
from hf_summary_writer.notices import amount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub import HfApi

__all__ = ["Changed", "update", "view"]

# Bytes at the end of the local file that must equal the download before new data is appended.
_COMPARED_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Changed:
    """How many files grew or are new, and by how many bytes."""

    files: int = 0
    bytes: int = 0


def update(source: Path, shown: Path) -> Changed:
    """Bring `shown` to the state of `source`; files that are gone from `source` stay."""
    files = size = 0
    shown.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if not path.is_file() or ".cache" in relative.parts:
            continue
        grown = _update_file(path, shown / relative)
        files += grown > 0
        size += grown
    return Changed(files, size)


def _update_file(source: Path, shown: Path) -> int:
    shown.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as new, shown.open("a+b") as old:
        have, size = old.tell(), source.stat().st_size
        start = max(0, have - _COMPARED_BYTES)
        new.seek(start)
        old.seek(start)
        if have > size or new.read(have - start) != old.read():
            old.truncate(0)
            new.seek(0)
            have = 0
        shutil.copyfileobj(new, old)
    return size - have


_END_SECONDS = 10.0

# As the client's own download of a whole repo.
_DOWNLOADS = 8


@click.command()
@click.argument("repo_id")
@config_option("repo_type")
@click.option("--revision", help="The branch, tag or commit.  [default: main]")
@config_option("endpoint")
@config_option("token")
@click.option(
    "--refresh", type=click.FloatRange(min=1), default=60.0, show_default=True, help="Refresh interval in seconds."
)
@click.option("--port", type=click.IntRange(0, 65535), default=6006, show_default=True, help="TensorBoard's port.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the event files in this folder; the next call downloads only new data.",
)
def view(
    repo_id: str,
    repo_type: str | None,
    revision: str | None,
    endpoint: str | None,
    token: str | None,
    refresh: float,
    port: int,
    folder: Path | None,
) -> None:
    """Download the event files of REPO_ID and open TensorBoard on them, until Ctrl-C.

    Use it for private repos, and when the Hub's Training metrics tab is not available. New data is downloaded every
    --refresh seconds. Needs TensorBoard: pip install 'hf-summary-writer[view]'.
    """
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    log_to_stderr()
    if importlib.util.find_spec("tensorboard") is None:
        raise click.ClickException("this command needs TensorBoard: pip install 'hf-summary-writer[view]'")
    try:
        config = PushConfig.from_arguments(
            {"repo_id": repo_id, "repo_type": repo_type, "token": token}, endpoint or default_endpoint()
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    revision = revision or config.revision
    api = client_for(config)
    known: dict[str, str] = {}
    disable_progress_bars()  # the client's own, one for each file
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hf-summary-writer-view-")))
        shown, download = folder / "shown", folder / "download"
        try:
            name = _full_name(api, config.repo_id)
            _fetch(api, name, config.repo_type, revision, download, shown, known)
        except Exception as error:  # noqa: BLE001 - the client raises many kinds, and all end here
            raise click.ClickException(_failure(config, error)) from None
        board = stack.enter_context(_tensorboard(shown, port, refresh))
        while board.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                board.wait(refresh)
                break
            try:
                _fetch(api, name, config.repo_type, revision, download, shown, known)
            except Exception as error:  # noqa: BLE001 - what is on this disk can still be looked at
                say(f"{time.strftime('%H:%M:%S')}  {_failure(config, error)}", colour="yellow", err=True)
        code = board.returncode
    sys.exit(code)


def _full_name(api: HfApi, repo_id: str) -> str:
    return repo_id if "/" in repo_id else f"{api.whoami()['name']}/{repo_id}"


def _failure(config: PushConfig, error: Exception) -> str:
    answer = answer_of(error)
    reason = one_line(str(error)) if answer is None else f"{answer.status} {answer.message}"
    return f"{config.repo_id} could not be read from {config.endpoint}: {reason}"


def _fetch(
    api: HfApi,
    repo_id: str,
    repo_type: str | None,
    revision: str | None,
    download: Path,
    shown: Path,
    known: dict[str, str] | None = None,
) -> None:
    """Download the event files that are not `known`, by path and id, and add them to it."""
    known = {} if known is None else known
    commit = api.repo_info(repo_id, repo_type=repo_type, revision=revision).sha
    changed = {
        path: (blob, length)
        for path, blob, length in _event_files(api, repo_id, repo_type, commit)
        if known.get(path) != blob
    }
    if not changed and not known:
        say(f"{repo_id} has no file that matches {' or '.join(EVENT_FILES)} yet", colour="yellow", err=True)

    def fetch(path: str) -> str:
        api.hf_hub_download(repo_id, path, repo_type=repo_type, revision=commit, local_dir=download)
        return path

    done = 0
    with (
        bar(sum(length for _, length in changed.values()), len(changed), repo_id) as shown_bar,
        ThreadPoolExecutor(_DOWNLOADS) as pool,
    ):
        downloads = {pool.submit(fetch, path): path for path in changed}
        for download_ended in as_completed(downloads):
            path = downloads[download_ended]
            error = download_ended.exception()
            if error is None:
                known[path], length = changed[path]
                done += length
            else:
                say(f"{path} could not be downloaded: {one_line(str(error))}", colour="yellow", err=True)
            if shown_bar is not None:
                shown_bar.advance(to_bytes=done, files_done=1)
    grown = update(download, shown)
    if grown.files:
        say(f"{time.strftime('%H:%M:%S')}  new: {amount(grown.files, grown.bytes)}")


def _event_files(api: HfApi, repo_id: str, repo_type: str | None, commit: str | None) -> Iterator[tuple[str, str, int]]:
    """Yield path, id and size of the event files of a commit; name those whose path is not safe on this disk."""
    from huggingface_hub.hf_api import RepoFile

    is_event_file = PathFilter(EVENT_FILES)
    for each in api.list_repo_tree(repo_id, recursive=True, revision=commit, repo_type=repo_type):
        if not isinstance(each, RepoFile) or not is_event_file(each.path):
            continue
        if _is_safe(each.path):
            yield each.path, each.blob_id, each.size
        else:
            say(f"{each.path!a} is left out: it is no path of a file below a folder", colour="yellow", err=True)


def _is_safe(path: str) -> bool:
    # Not left to the client: older ones write `../x` outside of the folder.
    try:
        return check_path_in_repo(path) == path and ":" not in path.partition("/")[0]
    except ValueError:
        return False


@contextlib.contextmanager
def _tensorboard(folder: Path, port: int, refresh: float) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    board = subprocess.Popen([*command, "--reload_interval", str(max(1, int(refresh))), "--reload_multifile", "true"])  # noqa: S603
    # From a service manager, or `kill`: TensorBoard must not stay behind.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield board
    except KeyboardInterrupt:
        board.terminate()
        sys.exit(0)
    finally:
        signal.signal(signal.SIGTERM, before)
        if board.poll() is None:
            board.terminate()
            try:
                board.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                board.kill()
                board.wait()
