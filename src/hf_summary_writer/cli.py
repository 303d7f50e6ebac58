"""The command line: `hf-summary-writer`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hf_summary_writer import destination as checks
from hf_summary_writer.destination import Destination
from hf_summary_writer.hub import default_endpoint
from hf_summary_writer.ledger import Settings
from hf_summary_writer.sync import Plan, known_plans
from hf_summary_writer.sync import sync as send

if TYPE_CHECKING:
    from hf_summary_writer.details import CommitDetails

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hf-summary-writer")
def main() -> None:
    """Keep a Hugging Face Hub repo up to date with TensorBoard logs."""


@main.command()
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


@main.command()
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
        from hf_summary_writer.demo import run
    except ImportError as error:
        raise _needs_extra("demo", error) from None
    sys.exit(0 if run(keep=keep, open_tensorboard=open_, seconds=seconds) else 1)


@main.command()
@click.argument("logdir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("repo_id", required=False)
@click.option(
    "--path-in-repo", default="tensorboard", show_default=True, help="Put the run below this folder of the repo."
)
@click.option("--into", help="Put the files into exactly this folder of the repo, whatever LOGDIR is called.")
@click.option("--repo-type", type=click.Choice(["model", "dataset", "space"]), help="The kind of repo.")
@click.option("--revision", help="The branch; it is created if it does not exist.")
@click.option("--private/--public", default=None, help="What to make of a repo that does not exist yet.")
@click.option("--allow", multiple=True, help="Push only files that match. Repeatable.  [default: *.tfevents.*]")
@click.option("--ignore", multiple=True, help="Do not push files that match. Repeatable.")
@click.option("--squash-history", is_flag=True, help="Fold the branch's history into one commit afterwards.")
def sync(
    logdir: Path,
    repo_id: str | None,
    path_in_repo: str,
    into: str | None,
    repo_type: str | None,
    revision: str | None,
    private: bool | None,
    allow: tuple[str, ...],
    ignore: tuple[str, ...],
    squash_history: bool,
) -> None:
    """Send what is missing of LOGDIR to REPO_ID, once.

    Without REPO_ID it goes where it went before, with the options it had then. Exits with 0 only if all has arrived.
    """
    # Before the client is imported: its progress bars would come between our lines.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    folder = logdir.resolve()
    if repo_id is None:
        plans = known_plans(folder)
        if not plans:
            raise click.UsageError(f"{folder} was never pushed from here, so REPO_ID is needed")
    else:
        try:
            path = f"{checks.check_path_in_repo(path_in_repo)}/{folder.name}" if into is None else into
            where = Destination(
                default_endpoint(),
                checks.check_repo_type(repo_type),
                checks.check_repo_id(repo_id),
                checks.check_revision(revision),
                checks.check_path_in_repo(path),
            )
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        plans = [Plan(where, Settings(allow or ("*.tfevents.*",), ignore or None, private, squash_history))]
    arrived = [_synced(folder, plan) for plan in plans]
    sys.exit(0 if all(arrived) else 1)


def _synced(folder: Path, plan: Plan) -> bool:
    from huggingface_hub import HfApi

    def say(commit: CommitDetails) -> None:
        click.echo(f"{commit.files} files, {commit.bytes:,} bytes, {commit.seconds:.1f} s: {commit.url}")

    synced = send(folder, plan, HfApi(endpoint=plan.destination.endpoint), say)
    if synced.error is not None:
        click.echo(f"{folder} could not be pushed to {plan.destination.repo_id}: {synced.error}", err=True)
    elif synced.missing:
        click.echo(f"{synced.missing} files of {folder} did not arrive", err=True)
    else:
        click.echo(f"{folder} is in {plan.destination.repo_id}")
    return synced.error is None and not synced.missing


def _needs_extra(extra: str, error: ImportError) -> click.ClickException:
    return click.ClickException(
        f"this command needs packages that are not installed ({error.name}): pip install 'hf-summary-writer[{extra}]'"
    )
