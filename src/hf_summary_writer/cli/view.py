"""`hf-summary-writer view`: show a repo's runs in TensorBoard on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hf_summary_writer.cli.options import create_folder, given, new_folder, place_options, some_seconds
from hf_summary_writer.cli.progress import download_progress
from hf_summary_writer.cli.signals import signal_handlers, unignored
from hf_summary_writer.cli.terminal import log_to_stderr, say
from hf_summary_writer.config import RUN_FILES, PushConfig
from hf_summary_writer.folder import PathFilter
from hf_summary_writer.hub import (
    REPO_SECONDS,
    Mirror,
    check_client,
    client_of,
    default_endpoint,
    failed_read,
    refresh_seconds,
    with_full_name,
)
from hf_summary_writer.notices import amount
from hf_summary_writer.viewing import follow, tensorboard_options

if TYPE_CHECKING:
    from collections.abc import Iterator

_END_SECONDS = 10.0


@click.command(short_help="Open a repo or bucket in TensorBoard.")
@click.argument("repo_id")
@place_options
@click.option(
    "--refresh",
    type=some_seconds,
    default=None,
    help=f"Refresh interval in seconds.  [default: {REPO_SECONDS:g}; a bucket is followed live]",
)
@click.option("--port", type=click.IntRange(0, 65535), default=6006, show_default=True, help="TensorBoard's port.")
@click.option(
    "--folder",
    type=new_folder,
    help="Keep the event files in this folder; the next call downloads only new data.",
)
def view(
    repo_id: str,
    refresh: float | None,
    port: int,
    folder: Path | None,
    **options: Any,
) -> None:
    """Download the event files of REPO_ID and open TensorBoard on them, until Ctrl-C.

    REPO_ID is a repo, or a bucket such as hf://buckets/user/logs. Use it for private repos, for buckets, and when the
    Hub's Training metrics tab is not available. A bucket is followed live: new data is shown seconds after it was
    uploaded. Only new data is downloaded. Needs TensorBoard: pip install 'hf-summary-writer[view]'.
    """
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    log_to_stderr()
    if importlib.util.find_spec("tensorboard") is None:
        raise click.ClickException("this command needs TensorBoard: pip install 'hf-summary-writer[view]'")
    try:
        config = PushConfig.from_arguments({"repo_id": repo_id, **given(options)}, default_endpoint())
        check_client(config.repo_type)
    except ValueError as error:
        raise click.UsageError(f"{error}{_folder_hint(repo_id)}") from None
    seconds = refresh or refresh_seconds(config)
    api = client_of(config.endpoint, config.token)
    disable_progress_bars()  # the client's own, one for each file
    with contextlib.ExitStack() as stack:
        # As Ctrl-C does, they end TensorBoard and remove the temporary copy.
        interrupts = dict.fromkeys(unignored(("SIGTERM", "SIGHUP")), signal.default_int_handler)
        stack.enter_context(signal_handlers(interrupts))
        if folder is None:
            folder = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="hf-summary-writer-view-", ignore_cleanup_errors=True)
                )
            )
        else:
            create_folder(folder)
        try:
            config = with_full_name(config, api)
            mirror = Mirror(api, config, folder, PathFilter(RUN_FILES), _warn)
            fetch(mirror, config)
        except Exception as error:  # noqa: BLE001 - the client raises many kinds, and all end here
            raise click.ClickException(f"{failed_read(config, error)}{_folder_hint(repo_id)}") from None
        if not mirror.paths:
            _warn(f"{config.repo_id} has no file that matches {RUN_FILES[0]} yet: waiting for the first")
        board = stack.enter_context(_tensorboard(folder, port))

        def ended(seconds: float) -> bool:
            with contextlib.suppress(subprocess.TimeoutExpired):
                board.wait(seconds)
            return board.poll() is not None

        def failed(error: Exception) -> None:
            _warn(f"{time.strftime('%H:%M:%S')}  {failed_read(config, error)}")

        follow(mirror, seconds, lambda: fetch(mirror, config), failed, ended)
        code = board.returncode
    sys.exit(code)


def _folder_hint(repo_id: str) -> str:
    if not repo_id or not Path(repo_id).is_dir():
        return ""
    return f"; for the folder of this name: tensorboard --logdir {shlex.quote(repo_id)}"


def fetch(mirror: Mirror, config: PushConfig) -> None:
    """Update a mirror, with a progress bar, and print the numbers of new files and bytes."""
    with download_progress(config.repo_id) as progress:
        changed = mirror.refresh(progress)
    for path, reason in changed.failed.items():
        _warn(f"{path} could not be downloaded: {reason}")
    if changed.files:
        say(f"{time.strftime('%H:%M:%S')}  new: {amount(changed.files, changed.bytes)}")


def _warn(text: str) -> None:
    say(text, colour="yellow", err=True)


@contextlib.contextmanager
def _tensorboard(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tensorboard.main", "--port", str(_free(port))]
    board = subprocess.Popen([*command, *tensorboard_options(folder)])  # noqa: S603
    try:
        yield board
    except KeyboardInterrupt:
        board.terminate()
        sys.exit(0)
    finally:
        if board.poll() is None:
            board.terminate()
            try:
                board.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                board.kill()
                board.wait()


def _free(port: int) -> int:
    """Return a port that is free, the given one if it is."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("localhost", port))
        except OSError:
            _warn(f"port {port} is in use: TensorBoard takes another one")
            return 0
    return port
