"""`hf-summary-writer sync`: upload the missing data of a folder, once or continuously."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from hf_summary_writer.checks import without_password
from hf_summary_writer.cli.options import (
    check_environment,
    config_of,
    config_options,
    existing_folder,
    folders_known_here,
    given,
)
from hf_summary_writer.cli.progress import UploadProgress
from hf_summary_writer.cli.signals import LOOK_SECONDS, signal_handlers, unignored
from hf_summary_writer.cli.terminal import emit, log_to_stderr, patterns, place, say
from hf_summary_writer.cli.watching import FolderScheduler, describe, start_together, tell
from hf_summary_writer.config import DEFAULT_MINUTES, MODE
from hf_summary_writer.folder import ledgers_of
from hf_summary_writer.hub import check_client, client_of, default_endpoint
from hf_summary_writer.notices import amount, counted, interval, size
from hf_summary_writer.push import (
    inspect_folder,
    known_folders,
    linked_folders,
    matches_nothing,
    unfollowed,
    unfollowed_error,
)
from hf_summary_writer.push import sync as send

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.errors import CommitDetails
    from hf_summary_writer.folder import Ledger
    from hf_summary_writer.push import Status
    from hf_summary_writer.scheduler import CommitScheduler


@click.command(short_help="Upload a folder, once or continuously.")
@click.argument("logdir", type=existing_folder)
@click.argument("repo_id", required=False)
@click.option(
    "--watch", is_flag=True, help="Upload new data at every interval (--every), until Ctrl-C, SIGTERM or SIGHUP."
)
@click.option("--dry-run", is_flag=True, help="Upload nothing; list the files that would be uploaded.")
@click.option("--exit-code", is_flag=True, help="With --dry-run, exit with 1 if some data is not on the Hub.")
@click.option(
    "--follow-links",
    is_flag=True,
    help="Also upload the folders that links out of LOGDIR lead to, as TensorBoard does.",
)
@click.option("--verify", is_flag=True, help="Read all files in full, whatever their size and times.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, one object per line.")
@config_options
def sync(
    logdir: Path,
    repo_id: str | None,
    watch: bool,
    dry_run: bool,
    exit_code: bool,
    follow_links: bool,
    verify: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Upload LOGDIR to REPO_ID, except for data that is on the Hub already.

    LOGDIR is one run or a folder of runs, written by any program. Without REPO_ID, LOGDIR (or every run in it) is
    uploaded to the repo it was last uploaded to, with the same options, and runs that were never uploaded are named;
    --watch includes runs that appear later. With REPO_ID, options that are not given keep their last value for that
    destination.

    Links to folders within LOGDIR are followed. Links out of LOGDIR are not, unless --follow-links says so: a folder
    from somebody else may hold links to anything on this disk.

    While --watch runs, every HFSummaryWriter below LOGDIR that uploads to the same branch only writes to disk: all runs
    of a sweep share one commit per interval.

    Exits with 0 only if everything is on the Hub, with 1 if not, and with 3 if no file matches.
    """
    log_to_stderr()
    check_environment()
    folder = logdir.resolve()
    _check_modes(options, repo_id, watch=watch, dry_run=dry_run, exit_code=exit_code, verify=verify)
    configs, complete = _configs(folder, repo_id, options, watch=watch)
    statuses: list[Status] = []
    if watch:

        def later() -> _Configs:
            return configs if repo_id is not None else _on_this_hub(known_folders(folder, lambda *_: None), options)

        statuses = _watched(configs, later, follow_links=follow_links, as_json=as_json)
        configs = later()
    if follow_links:
        configs = [*configs, *_linked(configs)]
    # After a watch, a link may have been created since the last scan.
    elsewhere = {status.folder for status in statuses} if watch else {each for each, _ in configs}
    if dry_run:
        arrived = [_listed(each, config, elsewhere, as_json=as_json) for each, config in configs]
    elif watch:
        arrived = [status.all_arrived for status in statuses]
        arrived += [not _left_out(each, inspect_folder(each, config).links_out, elsewhere) for each, config in configs]
    else:
        arrived = [_synced(each, config, elsewhere, verify=verify, as_json=as_json) for each, config in configs]
    if dry_run and not exit_code:
        sys.exit(0)
    if not (complete and all(arrived)):
        sys.exit(1)
    # Files uploaded during the watch may be deleted by now.
    anything_sent = any(status.commit is not None for status in statuses)
    nothing_matched = not anything_sent and all(matches_nothing(*each) for each in configs)
    sys.exit(_NOTHING_MATCHED if nothing_matched else 0)


# An exit code of its own: no error, but nothing was uploaded either.
_NOTHING_MATCHED = 3

# Signals within this time are one: `timeout` and batch systems send theirs to the process and to its group.
_AS_ONE_SECONDS = 1.0

# The options of the destination; without REPO_ID it comes from the state files of a folder.
_PLACE = ("repo_type", "revision", "path_in_repo", "into")

_ONLY_WATCHING = ("every", "close_timeout")


def _check_modes(
    options: dict[str, Any], repo_id: str | None, *, watch: bool, dry_run: bool, exit_code: bool, verify: bool
) -> None:
    """Refuse options that would change nothing."""
    if watch and dry_run:
        raise click.UsageError("--dry-run lists once what would be sent: leave out --watch")
    if exit_code and not dry_run:
        raise click.UsageError("--exit-code needs --dry-run: without it the exit code always tells")
    if verify and (watch or dry_run):
        raise click.UsageError("--verify compares what one sync uploads: leave out --watch and --dry-run")
    for name in given(options):
        flag = f"--{name.replace('_', '-')}"
        if repo_id is None and name in _PLACE:
            raise click.UsageError(f"{flag} needs REPO_ID: without it LOGDIR goes where it went before")
        if not watch and name in _ONLY_WATCHING:
            raise click.UsageError(f"{flag} needs --watch")


_Configs: TypeAlias = "list[tuple[Path, PushConfig]]"
_Key: TypeAlias = "tuple[Path, str]"


def _key(folder: Path, config: PushConfig) -> _Key:
    return folder, config.destination.key


def _configs(folder: Path, repo_id: str | None, options: dict[str, Any], *, watch: bool) -> tuple[_Configs, bool]:
    """Return the folders to push with their configs, and whether those are all folders to push."""
    if repo_id is not None:
        before = [ledger.known_config for ledger in ledgers_of(folder)]
        return [(folder, config_of(folder, repo_id, options, before))], True
    known, left_out = folders_known_here(folder)
    configs = _on_this_hub(known, options)
    if watch:
        left_out.discard("unknown")  # a watch finds out where runs go that are about to begin
    return configs, not left_out and {each for each, _ in known} == {each for each, _ in configs}


def _on_this_hub(known: list[tuple[Path, Ledger]], options: dict[str, Any]) -> _Configs:
    """Return the known folders that are pushed to the user's Hub, with their configs; name the others, once."""
    # A folder may be untrusted: the user's token is not sent to the Hub that its state files name.
    endpoint = options["endpoint"] or without_password(default_endpoint())
    configs = []
    for folder, ledger in known:
        config = ledger.known_config
        if config.endpoint != endpoint:
            _name_other_hub(folder, config, endpoint)
            continue
        try:
            check_client(config.repo_type)
            configs.append((folder, dataclasses.replace(config, **given(options))))
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    return configs


@functools.cache
def _name_other_hub(folder: Path, config: PushConfig, endpoint: str) -> None:
    command = config.sync_command(folder, endpoint)
    say(f"{folder} goes to {config.endpoint}, not to {endpoint}. To push it there: {command}", err=True)


def _linked(configs: _Configs) -> _Configs:
    """Return the folders that links out of these lead to, each in place of its link."""
    return [linked for each in configs for linked in linked_folders(*each, inspect_folder(*each, quiet=True).links_out)]


def _left_out(folder: Path, links_out: Collection[str], elsewhere: Collection[Path]) -> list[str]:
    """Return the links out of a folder that are not followed, and name them on standard error."""
    links = unfollowed(folder, links_out, elsewhere)
    if links:
        say(f"{folder} is not uploaded in full: {unfollowed_error(links)}", colour="yellow", err=True)
    return links


def _listed(folder: Path, config: PushConfig, elsewhere: Collection[Path], *, as_json: bool) -> bool:
    status, found, links_out = inspect_folder(folder, config)
    left_out = _left_out(folder, links_out, elsewhere)
    total = status.pending.bytes
    if as_json:
        emit(
            {
                "folder": str(folder),
                "repo_id": config.repo_id,
                "files": [dataclasses.asdict(file) for file in found],
                "bytes": total,
                "unfollowed_links": left_out,
            }
        )
    else:
        for file in found:
            say(f"{size(file.bytes):>12}  {file.path!a} to {file.path_in_repo!a}")
        say(f"{amount(len(found), total)} of {folder} would be sent to {place(config)}")
        if matches_nothing(folder, config):
            say(_no_match(folder, config), colour="yellow", err=True)
    return status.all_arrived and not left_out


def _synced(folder: Path, config: PushConfig, elsewhere: Collection[Path], *, verify: bool, as_json: bool) -> bool:
    commits: list[CommitDetails] = []
    progress = UploadProgress(client_of(config.endpoint, config.token))

    def note(commit: CommitDetails) -> None:
        commits.append(commit)
        progress.committed(commit)
        if not as_json:
            tell(commit)

    with contextlib.nullcontext() if as_json else progress.shown(folder, config):
        hooked = dataclasses.replace(config, on_commit=note)
        synced = send(folder, hooked, progress.client, verify=verify, elsewhere=elsewhere)
    arrived = synced.error is None and not synced.missing
    empty = arrived and matches_nothing(folder, config)
    config = dataclasses.replace(config, repo_id=synced.repo_id)
    if as_json:
        emit(
            {
                "folder": str(folder),
                "repo_id": config.repo_id,
                "commits": [describe(commit) for commit in commits],
                "missing": synced.missing,
                "error": _no_match(folder, config) if empty else None if synced.error is None else str(synced.error),
            }
        )
    elif synced.error is not None:
        say(f"{folder} could not be pushed to {place(config)}: {synced.error}", colour="red", err=True)
    elif synced.missing:
        say(f"not on the Hub yet: {counted(synced.missing, 'file')} of {folder}", colour="red", err=True)
    elif empty:
        say(_no_match(folder, config), colour="yellow", err=True)
    else:
        say(f"{folder} is in {place(config)}", colour="green")
    return arrived


def _no_match(folder: Path, config: PushConfig) -> str:
    return f"no file in {folder} matches {patterns(config)}: nothing was sent; choose others with --allow"


def _watched(
    configs: _Configs,
    later: Callable[[], _Configs],
    *,
    follow_links: bool,
    as_json: bool,
) -> list[Status]:
    """Push until a signal or Ctrl-C; call `later` in every interval for the configs, since runs come and go."""
    # Offline mode is for training scripts; this command is an explicit request to upload.
    os.environ.pop(MODE, None)
    minutes = configs[0][1].minutes if configs else DEFAULT_MINUTES
    by_config: dict[_Key, FolderScheduler] = {}
    by_link: set[_Key] = set()
    with _until_told_to_stop() as wait:
        while True:
            linked = _linked(configs) if follow_links else []
            targets = {_key(*each) for each in linked}
            for key in by_link - targets:
                _stop(by_config.pop(key), as_json=as_json)
            by_link = targets - {_key(*each) for each in configs}
            new = {_key(*each): each for each in [*configs, *linked] if _key(*each) not in by_config}
            # The links that are not followed are named at the end.
            added = {
                key: _announced(*each, minutes, names_links=not follow_links, as_json=as_json)
                for key, each in new.items()
            }
            by_config |= added
            start_together([*added.values()])
            if wait(minutes * 60):
                break
            configs = later()
        statuses = _finished(list(by_config.values()))
    for status in statuses:
        if as_json:
            emit({"status": status.as_dict()})
        elif status.all_arrived and status.commit is not None:
            say(f"{status.folder} is in {place(status.destination)}", colour="green")
    return statuses


def _announced(
    folder: Path, config: PushConfig, minutes: float, *, names_links: bool, as_json: bool
) -> FolderScheduler:
    """Return a scheduler that is not started, and say where it pushes."""
    if not as_json:
        say(f"{folder} goes to {place(config)} every {interval(minutes)}, until Ctrl-C")
        if matches_nothing(folder, config):
            say(f"no file in {folder} matches {patterns(config)} yet", colour="yellow", err=True)
    config = dataclasses.replace(config, on_commit=functools.partial(tell, as_json=as_json))
    return FolderScheduler(folder, config, names_links=names_links)


def _stop(scheduler: FolderScheduler, *, as_json: bool) -> None:
    """Stop the scheduler of a folder to which no link leads any more."""
    scheduler.stop()
    if not as_json:
        say(f"{scheduler.folder_path} is not uploaded to {scheduler.path_in_repo} any more: the link is gone")


def _finished(schedulers: list[CommitScheduler]) -> list[Status]:
    """Make the last pushes, stop the schedulers and return their status."""
    # All begin before any is waited for.
    waits = [scheduler.at_exit() for scheduler in schedulers]
    try:
        for wait in waits:
            wait(False)
    except KeyboardInterrupt:  # skips the wait, all of it
        for wait in waits:
            wait(True)
    statuses = [scheduler.status() for scheduler in schedulers]
    for scheduler in schedulers:
        scheduler.stop()
    return statuses


@contextlib.contextmanager
def _until_told_to_stop() -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits for so many seconds and returns whether SIGINT, SIGTERM or SIGHUP came.

    A later one raises KeyboardInterrupt.
    """
    began = math.inf

    def note(*_: object) -> None:
        nonlocal began
        now = time.monotonic()
        began = min(began, now)
        if now - began > _AS_ONE_SECONDS:
            raise KeyboardInterrupt

    def wait(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while began == math.inf and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))
        return began != math.inf

    with signal_handlers(dict.fromkeys((signal.SIGINT, signal.SIGTERM, *unignored(["SIGHUP"])), note)):
        yield wait
