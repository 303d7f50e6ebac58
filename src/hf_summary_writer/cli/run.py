"""`hf-summary-writer run`: push a folder while a command runs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click

from hf_summary_writer.checks import PREFIX
from hf_summary_writer.cli.options import check_environment, config_of, config_options, new_folder
from hf_summary_writer.cli.progress import UploadProgress, are_bars_wanted
from hf_summary_writer.cli.signals import LOOK_SECONDS, signal_handlers, unignored
from hf_summary_writer.cli.terminal import log_to_stderr, patterns, say
from hf_summary_writer.cli.watching import FolderScheduler, tell
from hf_summary_writer.config import PUSHED_FOLDER
from hf_summary_writer.hub import client_of
from hf_summary_writer.push import matches_nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from click.shell_completion import CompletionItem

    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.errors import CommitDetails
    from hf_summary_writer.scheduler import CommitScheduler

# As the shells have it.
_NOT_FOUND, _NOT_EXECUTABLE, _BY_SIGNAL = 127, 126, 128

_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")

_FROM_KEYS = frozenset({"SIGINT", "SIGQUIT"})


@contextlib.contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], on_signal: Callable[[int], object]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command, and pass the signals of this process on to it until the end of the block.

    Args:
        command: The command and its arguments.
        environment: Its environment.
        on_signal: Called with every signal that is passed on, in the signal handler.

    Raises:
        OSError: If it cannot be started.
    """
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _: object) -> None:
        on_signal(number)
        if process is None:
            early.append(number)
        elif not (signal.Signals(number).name in _FROM_KEYS and _in_foreground()):
            process.send_signal(number)

    # An ignored signal stays ignored, and the command inherits that.
    handlers: dict[int, Any] = dict.fromkeys(unignored(_NAMES), pass_on)
    if hasattr(signal, "SIGCHLD"):
        # The parent process may ignore it, and then the system keeps no exit code of the command.
        handlers[signal.SIGCHLD] = signal.SIG_DFL
    with signal_handlers(handlers):
        process = subprocess.Popen(command, env=environment)  # noqa: S603 - the user's command
        for number in early:
            process.send_signal(number)
        yield process


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a command, and return its exit code: 128 + n if signal n ended it."""
    code = None
    while code is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(LOOK_SECONDS)
    return code if code >= 0 else _BY_SIGNAL - code


def _in_foreground() -> bool:
    """Return whether keys such as Ctrl-C reach this process, and then the command beside it as well, by themselves."""
    if not hasattr(os, "tcgetpgrp"):  # as in every console of Windows
        return True
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


class _RunCommand(click.Command):
    """A command with another command behind `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        separator = args.index("--") if "--" in args else len(args)
        own, command = args[:separator], args[separator + 1 :] if separator < len(args) else None
        ctx.meta[_COMMAND] = command
        # Shells complete an unfinished command.
        if args and not ctx.resilient_parsing and {"--help", "-h"}.isdisjoint(own):
            if command is None:
                raise click.UsageError(f"-- is missing between REPO_ID and COMMAND: {_EXAMPLE}", ctx)
            if not command or not own:
                raise click.UsageError(f"{'REPO_ID' if command else 'COMMAND'} is missing: {_EXAMPLE}", ctx)
        return super().parse_args(ctx, own)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if ctx.meta[_COMMAND] is None:
            return super().shell_complete(ctx, incomplete)
        from click.shell_completion import CompletionItem  # needed for a completion alone

        return [CompletionItem(incomplete, type="file")]

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- COMMAND [ARGUMENTS]..."]


_EXAMPLE = "hf-summary-writer run user/my-runs -- python train.py"

_COMMAND = "hf_summary_writer.command"


@click.command(cls=_RunCommand, short_help="Run a command and upload its logs.")
@click.argument("repo_id")
@click.option(
    "--logdir",
    type=new_folder,
    default="runs",
    show_default=True,
    help="The folder that COMMAND logs to: one run or a folder of runs. Created if needed.",
)
@config_options
@click.pass_context
def run(ctx: click.Context, /, repo_id: str, logdir: Path, **options: Any) -> None:
    """Run COMMAND and upload its logs to REPO_ID, while it runs and after it exits.

    \b
    hf-summary-writer run user/my-runs --logdir runs -- python train.py --epochs 10

    Signals are forwarded to COMMAND; SIGTERM also starts an upload at once. The exit code is that of COMMAND, or
    128 + n if signal n ended it. A failed upload does not change the exit code; one line on standard error names the
    missing files.

    If COMMAND uses HFSummaryWriter under --logdir, that writer only writes to disk, and REPO_ID is its default repo.
    """  # noqa: D301 - click asks for that very character
    log_to_stderr()
    command = ctx.meta[_COMMAND]
    _check_start(repo_id)
    config = config_of(logdir, repo_id, options)
    _check_command(command)
    scheduler: FolderScheduler | None = None
    # Importing the client takes long, and only a bar needs it here.
    progress = UploadProgress(client_of(config.endpoint, config.token)) if are_bars_wanted() else None

    def note(commit: CommitDetails) -> None:
        if progress is not None:
            progress.committed(commit)
        tell(commit, err=True)

    def hurry(number: int) -> None:
        # Batch systems send SIGTERM some seconds before SIGKILL.
        if number == signal.SIGTERM and scheduler is not None:
            scheduler.trigger()

    variables = {f"{PREFIX}REPO_ID": repo_id, **os.environ, PUSHED_FOLDER: str(logdir)}
    try:
        with _running(command, variables, hurry) as process:
            client = None if progress is None else progress.client
            scheduler = FolderScheduler(logdir, dataclasses.replace(config, on_commit=note), client)
            scheduler.start()
            code = _exit_code(process)
    except OSError as error:
        say(f"{command[0]} cannot be run: {error.strerror}", colour="red", err=True)
        sys.exit(_NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE)
    _push_the_rest(scheduler, config, progress)
    if matches_nothing(logdir, config):
        say(f"no file in {logdir} matches {patterns(config)}: is --logdir right?", colour="yellow", err=True)
    sys.exit(code)


def _check_start(repo_id: str) -> None:
    if repo_id.endswith(".py"):
        raise click.UsageError(f"REPO_ID is {repo_id}, a script: {_EXAMPLE}")
    if "/" not in repo_id and shutil.which(repo_id):
        raise click.UsageError(f"REPO_ID is {repo_id}, a program: {_EXAMPLE}. If it is a repo, write user/{repo_id}")
    check_environment()


def _check_command(command: Sequence[str]) -> None:
    # Before anything leaves this machine: the words may be in the wrong order.
    if shutil.which(command[0]) is None:
        is_file = os.sep in command[0] and os.path.lexists(command[0])
        reason, code = ("is not executable", _NOT_EXECUTABLE) if is_file else ("is not found", _NOT_FOUND)
        say(f"{command[0]} cannot be run: it {reason}", colour="red", err=True)
        sys.exit(code)


def _push_the_rest(scheduler: CommitScheduler, config: PushConfig, progress: UploadProgress | None) -> None:
    # From here on a signal ends the wait for the last push, and not this process before it gave the code back.
    for number in unignored(("SIGTERM", "SIGHUP")):
        signal.signal(number, signal.default_int_handler)
    try:
        with contextlib.nullcontext() if progress is None else progress.shown(scheduler.folder_path, config):
            scheduler.close()
    except KeyboardInterrupt:
        say("The last push was cut short", colour="red", err=True)
    scheduler.stop()
