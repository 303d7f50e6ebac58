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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hf_summary_writer import config as checks
from hf_summary_writer.cli.terminal import log_to_stderr, say, size
from hf_summary_writer.config import EVENT_FILES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub import HfApi

__all__ = ["Changed", "update", "view"]

# So much of the end of what is there is compared before anything is appended to it.
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


@click.command()
@click.argument("repo_id")
@click.option("--repo-type", type=click.Choice(checks.REPO_TYPES), help="The kind of repo.  [default: model]")
@click.option("--revision", help="The branch, tag or commit.  [default: main]")
@click.option("--refresh", type=click.FloatRange(min=1), default=60.0, show_default=True, help="Seconds between looks.")
@click.option("--port", type=click.IntRange(0, 65535), default=6006, show_default=True, help="TensorBoard's port.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the event files in this folder, so that the next time only what is new is fetched.",
)
def view(
    repo_id: str, repo_type: str | None, revision: str | None, refresh: float, port: int, folder: Path | None
) -> None:
    """Download the event files of REPO_ID and open TensorBoard on them, until Ctrl-C.

    For private repos, and where the Hub's own tab "Metrics" is out of reach. What changed on the Hub is fetched again
    every --refresh seconds. Needs TensorBoard: pip install tensorboard.
    """
    log_to_stderr()
    if importlib.util.find_spec("tensorboard") is None:
        raise click.ClickException("this command needs TensorBoard: pip install tensorboard")
    try:
        checks.check_repo_id(repo_id)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    from huggingface_hub import HfApi

    api = HfApi()
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hf-summary-writer-view-")))
        shown, download = folder / "shown", folder / "download"
        try:
            _fetch(api, repo_id, repo_type, revision, download, shown)
        except Exception as error:  # noqa: BLE001 - the client raises many kinds, and all end here
            raise click.ClickException(f"{repo_id} could not be read: {error}") from None
        board = stack.enter_context(_tensorboard(shown, port, refresh))
        while board.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                board.wait(refresh)
                break
            try:
                _fetch(api, repo_id, repo_type, revision, download, shown)
            except Exception as error:  # noqa: BLE001 - what is on this disk can still be looked at
                say(f"{time.strftime('%H:%M:%S')}  {repo_id} could not be read: {error}", colour="yellow", err=True)
        code = board.returncode
    sys.exit(code)


def _fetch(api: HfApi, repo_id: str, repo_type: str | None, revision: str | None, download: Path, shown: Path) -> None:
    api.snapshot_download(
        repo_id, repo_type=repo_type, revision=revision, local_dir=download, allow_patterns=list(EVENT_FILES)
    )
    changed = update(download, shown)
    if changed.files:
        say(f"{time.strftime('%H:%M:%S')}  {changed.files} files, {size(changed.bytes)} are new")


@contextlib.contextmanager
def _tensorboard(folder: Path, port: int, refresh: float) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    board = subprocess.Popen([*command, "--reload_interval", str(max(1, int(refresh)))])  # noqa: S603
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
