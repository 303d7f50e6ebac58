"""The commands that need no Hub but their own: `localhub` and `demo`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from hf_summary_writer.cli.options import new_folder, some_seconds
from hf_summary_writer.localhub.command import localhub

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["demo", "localhub"]


@click.command(short_help="Upload a short training to a Hub on this machine.")
@click.option("--keep", type=new_folder, help="Keep the Hub's repos and the logs in this folder.")
@click.option("--open", "open_", is_flag=True, help="Show the downloaded run in TensorBoard at the end.")
@click.option("--live", is_flag=True, help="Upload to a bucket, and show the training live in TensorBoard.")
@click.option("--seconds", type=some_seconds, help="Training time in seconds.  [default: 8, and 60 with --live]")
def demo(keep: Path | None, open_: bool, live: bool, seconds: float | None) -> None:
    """Train a small classifier, upload its logs to a Hub on this machine, and compare.

    With --live, a browser shows the curves grow: the training uploads to a storage bucket every two seconds, and
    hf-summary-writer view follows that. No data leaves this machine. Exits with 1 if the Hub does not hold exactly the
    logged data.
    """
    if live and open_:
        raise click.UsageError("--live opens TensorBoard by itself: leave out --open")
    try:
        from hf_summary_writer.cli.demo import run
    except ImportError as error:
        raise click.ClickException(
            f"this command needs packages that are not installed ({error.name}): pip install 'hf-summary-writer[demo]'"
        ) from None
    seconds = seconds or (60.0 if live else 8.0)
    sys.exit(0 if run(keep=keep, open_tensorboard=open_, live=live, seconds=seconds) else 1)
