"""`hf-summary-writer check`: check before a training whether uploads will work."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import click

from hf_summary_writer.cli.options import config_option, given
from hf_summary_writer.cli.terminal import emit, log_to_stderr, say
from hf_summary_writer.config import PushConfig
from hf_summary_writer.hub import client_of, default_endpoint
from hf_summary_writer.hub.check import check as findings_of


@click.command(short_help="Check token, rights, network and versions.")
@click.argument("repo_id", required=False)
@config_option("endpoint")
@config_option("repo_type")
@config_option("revision")
@config_option("token")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, one object per line.")
def check(repo_id: str | None, as_json: bool, **options: Any) -> None:
    """Check the requirements of uploads: versions, mode, cache, Hub, clock, limits, token, write access to REPO_ID.

    Makes at most two requests and changes nothing. Exits with 1 if a check fails.
    """
    log_to_stderr()
    if repo_id is None and (options["repo_type"] or options["revision"]):
        raise click.UsageError("--repo-type and --revision need REPO_ID")
    try:
        # A placeholder, because the check of the destination needs a name.
        arguments = {"repo_id": "none" if repo_id is None else repo_id, **given(options)}
        config = PushConfig.from_arguments(arguments, default_endpoint())
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    repo = None if repo_id is None else config.repo_id
    ok = True
    for finding in findings_of(client_of(config.endpoint, config.token), repo, config.repo_type, config.revision):
        ok = ok and finding.ok
        if as_json:
            emit(dataclasses.asdict(finding))
            continue
        state, colour = ("ok", None) if finding.ok else ("FAIL", "red")
        say(f"{state:<5} {finding.subject:<9} {finding.text}", colour=colour)
        if finding.remedy:
            say(f"{'':15} {finding.remedy}")
    sys.exit(0 if ok else 1)
