"""`hf-summary-writer status`: the upload status of the folders of a logdir, or the state of the runs of a repo."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hf_summary_writer.cli.options import folders_known_here, place_options, refuse, source_of
from hf_summary_writer.cli.run_states import show_runs
from hf_summary_writer.cli.terminal import ago, emit, log_to_stderr, now_or_later, patterns, place, say
from hf_summary_writer.folder import PUSH_LOCK, STATE_FOLDER, StateFolder, is_locked, ledgers_of
from hf_summary_writer.notices import amount, counted
from hf_summary_writer.push import (
    Phase,
    StatusFile,
    inspect_folder,
    linked_folders,
    matches_nothing,
    unfollowed,
)

if TYPE_CHECKING:
    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.folder import Ledger
    from hf_summary_writer.push import Status


@click.command(short_help="Show the upload status of a folder, or the runs of a repo.")
@click.argument("source", metavar="LOGDIR_OR_REPO")
@click.option(
    "--json", "as_json", is_flag=True, help="Write JSON, one object per line for each folder and destination, or run."
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if some data of LOGDIR is not on the Hub.")
@click.option("--forget", is_flag=True, help="Forget where LOGDIR goes and what is on the Hub; changes nothing there.")
@place_options
def status(
    source: str,
    as_json: bool,
    exit_code: bool,
    forget: bool,
    **options: Any,
) -> None:
    """Show the upload status of a folder on this machine, or which runs of a repo go on.

    LOGDIR is one run or a folder of runs. Its destination, the last commit, the data that is not on the Hub yet and the
    last error are shown. Makes no request: it reads the state files in the folder, so it works while another process
    uploads, without network, and after a crash.

    Of a repo, or an hf:// URI such as hf://buckets/user/logs/sweep-1, each run is shown as running, finished, failed or
    stopped, as its writer has told the Hub. "No end was written" means that a run has not pushed for several intervals.
    """
    log_to_stderr()
    where = source_of(source, options, click.UsageError)
    if isinstance(where, Path):
        _show_folder(where.resolve(), as_json=as_json, exit_code=exit_code, forget=forget)
    else:
        refuse("a repo", {"--exit-code": exit_code, "--forget": forget})
        show_runs(source, where, as_json=as_json)


def _show_folder(folder: Path, *, as_json: bool, exit_code: bool, forget: bool) -> None:
    if forget and (as_json or exit_code):
        raise click.UsageError("--forget takes no other option")
    known, left_out = folders_known_here(folder)
    if forget:
        _forget(known)
        sys.exit(0 if known else 2)
    found = [(ledger.known_config, inspect_folder(each, ledger.known_config)) for each, ledger in known]
    # The targets of their links, if `sync --follow-links` has pushed them.
    linked = [each for config, seen in found for each in linked_folders(seen.status.folder, config, seen.links_out)]
    found += [(config, inspect_folder(each, config)) for each, config in linked if _is_pushed(each, config)]
    elsewhere = {seen.status.folder for _, seen in found}
    complete = not left_out
    for config, (status, _, links) in found:
        not_followed = unfollowed(status.folder, links, elsewhere)
        complete = complete and status.all_arrived and not not_followed
        if as_json:
            emit({**status.as_dict(), "unfollowed_links": not_followed})
        else:
            _show(status, config, not_followed)
    sys.exit(1 if exit_code and not complete else 0)


def _is_pushed(folder: Path, config: PushConfig) -> bool:
    return any(ledger.destination == config.destination for ledger in ledgers_of(folder, lambda *_: None))


def _forget(known: list[tuple[Path, Ledger]]) -> None:
    for folder, ledger in known:
        if is_locked(folder / STATE_FOLDER / PUSH_LOCK):
            raise click.ClickException(f"{folder} is being pushed: wait, or end the process that pushes it")
        _remove(folder, ledger.path.name, StatusFile.beside(ledger.path).path.name)
        say(f"{folder} is no longer known to go to {place(ledger.destination)}; the next sync needs REPO_ID")


def _remove(folder: Path, *names: str) -> None:
    state = StateFolder(folder / STATE_FOLDER)
    try:
        for name in names:
            state.remove(name)
    except OSError as error:
        raise click.ClickException(f"the state of {folder} cannot be removed: {error.strerror}") from None


def _show(status: Status, config: PushConfig, left_out: list[str]) -> None:
    where = status.destination
    branch = f", branch {where.revision}" if where.revision else ""
    goes_to = f"{where.repo_type} {where.repo_id}{branch}, {where.path or 'root'}"
    rows: list[tuple[str, str, str | None]] = [
        ("goes to", f"{goes_to} at {where.endpoint}", None),
        ("shown at", status.url or "not known yet", None),
    ]
    commit = status.commit
    rows.append(
        (
            "last commit" if where.revision else "last push",
            f"{now_or_later(commit.time)}: {commit.url}" if commit else "none",
            None,
        )
    )
    pending = status.pending
    if matches_nothing(status.folder, config):
        rows.append(("pending", f"nothing: no file matches {patterns(config)}", "yellow"))
    elif pending.oldest is not None:
        waits = ago(time.time() - pending.oldest)
        rows.append(("pending", f"{amount(pending.files, pending.bytes)}, the oldest for {waits}", "yellow"))
    elif not pending.unlisted:
        rows.append(("pending", "nothing", "green"))
    if pending.unlisted:
        rows.append(("unknown", f"{counted(pending.unlisted, 'folder')} in it cannot be listed", "red"))
    if left_out:
        rows.append(("left out", f"links that are not followed: {', '.join(map(repr, left_out))}", "yellow"))
    failure = status.failure
    if status.phase is Phase.WAITING and failure is not None and failure.until is not None:
        rows.append(("state", f"waiting until {now_or_later(failure.until)}", "yellow"))
    else:
        rows.append(("state", status.phase.value, None))
    if status.throttled is not None:
        rows.append(
            ("pushed every", f"{status.throttled.seconds / 60:.1f} min for now: {status.throttled.why}", "yellow")
        )
    if failure is not None:
        rows.append(("last error", f"{failure.error}, since {now_or_later(failure.since)}", "red"))
    say(str(status.folder))
    for name, text, colour in rows:
        say(f"  {name:<12} {text}", colour=colour)
