"""The states of the runs in a repo or bucket, for `hf-summary-writer status`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from hf_summary_writer.cli.terminal import ago, emit, place, say
from hf_summary_writer.hub import client_of, failed_read, failure_of, list_files, small_files, with_full_name
from hf_summary_writer.notices import printable
from hf_summary_writer.push import MAX_STATE_BYTES, RunPhase, RunState, is_state_file
from hf_summary_writer.reading import no_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hf_summary_writer.config import PushConfig

_COLOURS = {RunPhase.FAILED: "red", RunPhase.STOPPED: "yellow", RunPhase.FINISHED: "green"}


class _ShownRun(NamedTuple):
    """A run at the Hub.

    Attributes:
        path: Its folder in the repo.
        state: The content of its state file; `None` if there is none.
        error: The reason why that file cannot be read, or empty.
    """

    path: str
    state: RunState | None
    error: str = ""


def show_runs(source: str, config: PushConfig, *, as_json: bool) -> None:
    """Print each run of a repo or bucket and its state.

    Args:
        source: The name of the place on the command line.
        config: Names the place.
        as_json: Whether to print JSON.

    Raises:
        click.ClickException: If it cannot be read, or holds no run.
    """
    api = client_of(config.endpoint, config.token)
    try:
        config = with_full_name(config, api)
        paths = list_files(api, config)
        states, others = _sorted(paths)
        contents = small_files(api, config, states, MAX_STATE_BYTES)
        runs = [*(_read(path, content) for path, content in contents), *(_ShownRun(path, None) for path in others)]
    except Exception as error:  # noqa: BLE001 - the client raises many kinds, and all end here
        raise click.ClickException(printable(no_folder(source, config) + failed_read(config, error))) from None
    if not runs:
        raise click.ClickException(f"{place(config)} holds no run")
    now = time.time()
    runs.sort(key=lambda run: run.path)
    if as_json:
        for run in runs:
            emit(_as_dict(config, run, now))
        return
    say(place(config))
    width = min(40, max(len(run.path or "/") for run in runs))
    for run in runs:
        text, colour = _described(run, now)
        say(f"  {run.path or '/':<{width}}  {text}", colour=colour)


def _sorted(paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the files with states, and the folders with event files that belong to no run with a state."""
    states, folders = [], set()
    for path in paths:
        folder, _, name = path.rpartition("/")
        if is_state_file(path):
            states.append(path)
        elif "tfevents" in name:
            folders.add(folder)
    with_state = {path.rpartition("/")[0] for path in states}
    return states, [folder for folder in folders if with_state.isdisjoint(_with_parents(folder))]


def _with_parents(folder: str) -> Iterator[str]:
    yield folder
    while folder:
        folder = folder.rpartition("/")[0]
        yield folder


def _read(path: str, content: bytes | Exception) -> _ShownRun:
    folder = path.rpartition("/")[0]
    try:
        if isinstance(content, Exception):
            raise content
        return _ShownRun(folder, RunState.parse(content))
    except Exception as error:  # noqa: BLE001 - the client raises many kinds
        return _ShownRun(folder, None, f"{path} cannot be read: {failure_of(error)}")


def _described(run: _ShownRun, now: float) -> tuple[str, str | None]:
    state = run.state
    if state is None:
        return (run.error, "red") if run.error else ("no state was written", None)
    rank = f" (rank {state.rank})" if state.rank else ""
    who = f"; {state.command} on {state.host}{rank}"
    since = f"{ago(now - state.last_push)} ago"
    if state.is_overdue(now):
        return f"stopped {since}, no end was written{who}", "red"
    if state.phase is RunPhase.RUNNING:
        event = f"last event {ago(now - state.last_event)} ago"
        return f"running for {ago(now - state.started)}, last push {since}, {event}{who}", None
    return f"{state.phase.value} {since}, after {ago(state.last_push - state.started)}{who}", _COLOURS[state.phase]


def _as_dict(config: PushConfig, run: _ShownRun, now: float) -> dict[str, Any]:
    state = run.state
    return {
        "repo_id": config.repo_id,
        "run": run.path,
        **({"state": None} if state is None else state.as_dict()),
        "overdue": state is not None and state.is_overdue(now),
        "error": run.error or None,
    }
