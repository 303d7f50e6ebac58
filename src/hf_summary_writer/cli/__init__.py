"""The command line: `hf-summary-writer`. Each command is a module of its own."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from hf_summary_writer.cli.check import check
from hf_summary_writer.cli.get import get
from hf_summary_writer.cli.local import demo, localhub
from hf_summary_writer.cli.run import run
from hf_summary_writer.cli.status import status
from hf_summary_writer.cli.sync import sync
from hf_summary_writer.cli.terminal import say
from hf_summary_writer.cli.view import view

__all__ = ["main"]


# As the shells have it for a command that SIGINT ended.
_INTERRUPTED = 130

_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in {"strict", "surrogateescape"}:
            # Names and tags may have characters that the encoding of the output lacks.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("Interrupted", err=True)
            ctx.exit(_INTERRUPTED)


@click.group(cls=_Group, context_settings=_SETTINGS)
@click.version_option(None, "-V", "--version", package_name="hf-summary-writer")
def main() -> None:
    """Upload TensorBoard logs to the Hugging Face Hub while the training runs.

    \b
    Upload a run:                     hf-summary-writer sync runs/first user/my-runs
    Keep a folder in sync:            hf-summary-writer sync runs user/my-runs --watch
    Wrap a training command:          hf-summary-writer run user/my-runs -- python train.py
    Check the upload status:          hf-summary-writer status runs
    See which runs of a repo go on:   hf-summary-writer status user/my-runs
    Open a repo in TensorBoard:       hf-summary-writer view user/my-runs
    Print the values of a tag:        hf-summary-writer get user/my-runs loss
    Check token, rights and network:  hf-summary-writer check user/my-runs

    Log in once with `hf auth login`, or set HF_TOKEN. HF_ENDPOINT selects another Hub.
    """  # noqa: D301 - click asks for that very character


for _command in (sync, run, status, view, get, check, localhub, demo):
    _command.context_settings.update(_SETTINGS)  # also where a program calls it without `main`
    main.add_command(_command)
