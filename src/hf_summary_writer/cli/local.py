"""The commands that need no Hub but their own: `localhub` and `demo`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

__all__ = ["demo", "localhub"]


@click.command()
@click.option(
    "--root", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where the repos are kept."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=0, show_default=True, help="The port to listen on; 0 takes a free one.")
@click.option("--token", help="The access token; a new one by default.")
@click.option("--commits-per-hour", type=click.IntRange(min=1), help="Answer 429 above so many commits in an hour.")
@click.option("--requests-per-5min", type=click.IntRange(min=1), help="Answer 429 above so many requests in 5 minutes.")
def localhub(
    root: Path, host: str, port: int, token: str | None, commits_per_hour: int | None, requests_per_5min: int | None
) -> None:
    """Run a Hub on this machine, until Ctrl-C or SIGTERM.

    It speaks the Hub's HTTP API to the real client, keeps its repos in ROOT, and prints one line when it is ready:
    HF_ENDPOINT=... HF_TOKEN=..., to be put before a command that should use it.
    """
    try:
        from hf_summary_writer.localhub import serve
    except ImportError as error:
        raise _needs_extra("localhub", error) from None
    serve(root, host, port, token, commits_per_hour=commits_per_hour, requests_per_5min=requests_per_5min)


@click.command()
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep the Hub's repos and the logs in this folder."
)
@click.option("--open", "open_", is_flag=True, help="Show the downloaded run in TensorBoard at the end.")
@click.option("--seconds", type=click.FloatRange(min=1), default=8.0, show_default=True, help="How long to train.")
def demo(keep: Path | None, open_: bool, seconds: float) -> None:
    """Train a small classifier, push its logs to a Hub on this machine, and check what arrived.

    Nothing leaves this machine. Exits with 1 if the Hub does not hold exactly what was logged.
    """
    try:
        from hf_summary_writer.cli.demo import run
    except ImportError as error:
        raise _needs_extra("demo", error) from None
    sys.exit(0 if run(keep=keep, open_tensorboard=open_, seconds=seconds) else 1)


def _needs_extra(extra: str, error: ImportError) -> click.ClickException:
    return click.ClickException(
        f"this command needs packages that are not installed ({error.name}): pip install 'hf-summary-writer[{extra}]'"
    )
