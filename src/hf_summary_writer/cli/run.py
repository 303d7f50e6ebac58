"""`hf-summary-writer run`: push a folder around a command that writes to it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from hf_summary_writer import environment
from hf_summary_writer.cli.child import Child
from hf_summary_writer.cli.options import Target, target_options, timing_options
from hf_summary_writer.cli.terminal import log_to_stderr, say
from hf_summary_writer.cli.watching import scheduler_of

__all__ = ["run"]


@click.command()
@click.argument("repo_id")
@click.option(
    "--logdir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="The folder that COMMAND logs to, one run or many; made if it is not there.",
)
@timing_options
@target_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    repo_id: str, logdir: Path, every: float, close_timeout: float, command: tuple[str, ...], **options: Any
) -> None:
    """Run COMMAND and push what it logs to REPO_ID, while it runs and after it ends, however it ends.

    \b
    hf-summary-writer run user/my-runs --logdir runs -- python train.py --epochs 10

    Signals are passed on to COMMAND; SIGTERM also starts a push at once. The exit code is that of COMMAND, or 128 + n
    if signal n ended it; what could not be pushed changes nothing in it, and is named in one line on standard error.

    COMMAND may use HFSummaryWriter: under --logdir it only writes to the disk, since this command pushes, and REPO_ID
    is its default repo.
    """  # noqa: D301 - click asks for that very character
    log_to_stderr()
    folder = logdir.resolve()
    plan = Target(**options).plan(folder, repo_id)
    try:
        scheduler = scheduler_of(folder, plan, every, close_timeout, as_json=False, err=True)
    except ValueError as error:
        raise click.ClickException(str(error)) from None

    def hurry(number: int) -> None:
        # What ends jobs on a cluster comes some seconds before the end of everything.
        if number == signal.SIGTERM:
            scheduler.trigger()

    variables = {f"{environment.PREFIX}REPO_ID": repo_id, **os.environ, environment.PUSHED_FOLDER: str(folder)}
    try:
        code = Child(command, variables, hurry).run()
    except OSError as error:
        say(f"{command[0]} cannot be run: {error.strerror}", colour="red", err=True)
        code = Child.exit_code_of(error)
    try:
        # From here on a signal ends the wait for the last push, and not this process before it gave the code back.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        scheduler.close()
    except KeyboardInterrupt:
        say("The last push was cut short", colour="red", err=True)
    scheduler.stop()
    sys.exit(code)
