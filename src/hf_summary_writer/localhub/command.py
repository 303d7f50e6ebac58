"""The command line of the local Hub: `hf-summary-writer localhub` and `python -m hf_summary_writer.localhub`."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOKEN_VARIABLE = "HF_SUMMARY_WRITER_LOCALHUB_TOKEN"  # noqa: S105
_USERS_VARIABLE = "HF_SUMMARY_WRITER_LOCALHUB_USERS"
_SECRET_OPTIONS = {"--token": _TOKEN_VARIABLE, "--user": _USERS_VARIABLE}


class _Root(click.Path):
    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":  # as an unset variable of a shell gives it; to Python it is the working folder
            self.fail("the name of the folder is empty: use . for the working folder", param, ctx)
        # Shells do not expand ~ in `--root=~/folder`.
        return super().convert(os.path.expanduser(value), param, ctx)  # noqa: PTH111 - may be bytes


@click.command(name="localhub", short_help="Run a Hub on this machine.")
@click.option(
    "--root",
    type=_Root(file_okay=False, path_type=Path),
    required=True,
    help="Folder for repos and buckets.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 picks a free one. By default the port of the last start in ROOT.",
)
@click.option(
    "--token",
    envvar=_TOKEN_VARIABLE,
    help="Access token of the user `local`. By default a random one is generated and kept in ROOT. "
    f"Prefer {_TOKEN_VARIABLE} or --token-file.",
)
@click.option("--token-file", type=click.File(), help="File with the access token of the user `local`.")
@click.option(
    "--user",
    "users",
    multiple=True,
    envvar=_USERS_VARIABLE,
    metavar="NAME:TOKEN[:read]",
    help=f"Add a user, with `:read` a read-only token. Repeatable. Prefer {_USERS_VARIABLE}.",
)
@click.option(
    "--organization",
    "organizations",
    multiple=True,
    metavar="NAME:USER[,USER]",
    help="Add an organization with its members. Repeatable.",
)
@click.option("--any-namespace", is_flag=True, help="Allow every user to write to every namespace.")
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Allow requests for this host name, e.g. of a reverse proxy. Repeatable; * allows all.",
)
@click.option("--commits-per-hour", type=click.IntRange(min=1), help="Respond with 429 to more commits per hour.")
@click.option(
    "--requests-per-5min", type=click.IntRange(min=1), help="Respond with 429 to more requests per 5 minutes."
)
def localhub(
    root: Path,
    port: int | None,
    token: str | None,
    token_file: Any,
    users: Sequence[str],
    organizations: Sequence[str],
    **options: Any,
) -> None:
    """Run a Hub on this machine, until Ctrl-C or SIGTERM.

    The server implements the Hub's HTTP API and stores its data in ROOT. When it is ready, it prints one line:
    HF_ENDPOINT=... HF_TOKEN=...; put these variables before a command to use the server. The next start with the same
    ROOT uses the same port and token.

    Supported: repos, pull requests, buckets, uploads and downloads over Xet and LFS, `git clone`, `git fetch`, and web
    pages. Not supported: `git push`, gated repos, likes, discussions, webhooks, search, running Spaces, Jobs and
    inference.
    """
    _hide_tokens()
    try:
        from hf_summary_writer.localhub.access import Access
        from hf_summary_writer.localhub.accounts import Organization, User, new_token
        from hf_summary_writer.localhub.server import LocalHub, serve
    except ImportError as error:
        raise click.ClickException(
            f"this command needs packages that are not installed ({error.name}): "
            "pip install 'hf-summary-writer[localhub]'"
        ) from None
    if token_file is not None:
        token = token_file.read().strip()
    kept = Access.read(root)
    generated = kept.token or new_token()
    try:
        options["users"] = [User.parse(text) for text in users]
        options["organizations"] = [Organization.parse(text) for text in organizations]

        def serve_at(port: int) -> None:
            serve(LocalHub(root, port, token or generated, **options), generated)

        try:
            serve_at(kept.port if port is None else port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port is not None:
                raise
            click.echo(f"Port {kept.port} of the last start is taken; another one is used.", err=True)
            serve_at(0)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(_reason(error, options["host"], port)) from None


def _reason(error: OSError, host: str, port: int | None) -> str:
    if error.errno in (socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_FAIL, errno.EADDRNOTAVAIL):
        return f"{host} is not an address of this machine: choose another --host."
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is in use: stop the program that uses it, or choose another --port."
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _hide_tokens() -> None:
    """Restart this process with the tokens in its environment, since every user can read its arguments."""
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
