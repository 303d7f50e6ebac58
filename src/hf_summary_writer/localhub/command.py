"""The command line of the local Hub: `hf-summary-writer localhub` and `python -m hf_summary_writer.localhub`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOKEN_VARIABLE = "HF_SUMMARY_WRITER_LOCALHUB_TOKEN"  # noqa: S105
_USERS_VARIABLE = "HF_SUMMARY_WRITER_LOCALHUB_USERS"
_SECRET_OPTIONS = {"--token": _TOKEN_VARIABLE, "--user": _USERS_VARIABLE}


@click.command(name="localhub")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Where the repos and buckets are kept.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=0, show_default=True, help="The port to listen on; 0 takes a free one.")
@click.option(
    "--token",
    envvar=_TOKEN_VARIABLE,
    help=f"The access token of the user `local`; a new one by default. Better in {_TOKEN_VARIABLE} or --token-file.",
)
@click.option("--token-file", type=click.File(), help="Read the access token of the user `local` from this file.")
@click.option(
    "--user",
    "users",
    multiple=True,
    envvar=_USERS_VARIABLE,
    metavar="NAME:TOKEN[:read]",
    help=f"One more user, with read access only if so asked. Repeatable. Better in {_USERS_VARIABLE}.",
)
@click.option(
    "--organization",
    "organizations",
    multiple=True,
    metavar="NAME:USER[,USER]",
    help="An organization and its members. Repeatable.",
)
@click.option("--any-namespace", is_flag=True, help="Let every user use every namespace.")
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Answer to this host name as well. Repeatable; * for all.",
)
@click.option("--commits-per-hour", type=click.IntRange(min=1), help="Answer 429 above so many commits in an hour.")
@click.option("--requests-per-5min", type=click.IntRange(min=1), help="Answer 429 above so many requests in 5 minutes.")
def localhub(root: Path, users: Sequence[str], organizations: Sequence[str], token_file: Any, **options: Any) -> None:
    """Run a Hub on this machine, until Ctrl-C or SIGTERM.

    It speaks the Hub's HTTP API to the real clients, keeps its repos in ROOT, and prints one line when it is ready:
    HF_ENDPOINT=... HF_TOKEN=..., to be put before a command that should use it.

    Served are repos and their pull requests, buckets, uploads and downloads by Xet and LFS, `git clone` and
    `git fetch`, and plain pages. Not served are gated repos, likes, discussions, webhooks, search, Spaces that run,
    Jobs, inference, and `git push`.
    """
    _hide_tokens()
    try:
        from hf_summary_writer.localhub.accounts import Organization, User
        from hf_summary_writer.localhub.server import LocalHub, serve
    except ImportError as error:
        raise click.ClickException(
            f"this command needs packages that are not installed ({error.name}): "
            "pip install 'hf-summary-writer[localhub]'"
        ) from None
    if token_file is not None:
        options["token"] = token_file.read().strip()
    try:
        options["users"] = [User.parse(text) for text in users]
        options["organizations"] = [Organization.parse(text) for text in organizations]
        serve(LocalHub(root, **options))
    except (OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from None


def _hide_tokens() -> None:
    """Start this process again without the tokens in its arguments, where every user of the machine can read them."""
    kept, found = [], dict[str, list[str]]()
    pieces = iter(sys.orig_argv[1:])
    for piece in pieces:
        name, is_joined, value = piece.partition("=")
        if name in _SECRET_OPTIONS:
            found.setdefault(_SECRET_OPTIONS[name], []).append(value if is_joined else next(pieces, ""))
        else:
            kept.append(piece)
    if found:
        secrets = {name: " ".join(values) for name, values in found.items()}
        os.execve(sys.executable, [sys.executable, *kept], {**os.environ, **secrets})  # noqa: S606
