"""Warnings of runs of this process that are uploaded to one place, or within each other."""

from __future__ import annotations

import dataclasses
import weakref
from typing import TYPE_CHECKING

from hf_summary_writer.folder import PathFilter
from hf_summary_writer.notices import announce, logger, shown_path

if TYPE_CHECKING:
    from pathlib import Path

    from hf_summary_writer.config import Destination
    from hf_summary_writer.push.runs import Run

# The run that was opened last, for each folder.
_latest: weakref.WeakValueDictionary[Path, Run] = weakref.WeakValueDictionary()

# The first folder of this process that is stored at a place in a repo; `None` once another one was found to be, too.
_stored: dict[Destination, Path | None] = {}

# Runs that upload another run as well, and were named.
_outer: weakref.WeakSet[Run] = weakref.WeakSet()


def warn_of_neighbours(run: Run, *, is_uploaded: bool, is_copy: bool) -> None:
    """Warn of the runs of this process that the run of a new writer gets in the way of.

    Args:
        run: The run.
        is_uploaded: Whether it is uploaded from this process.
        is_copy: Whether the writer is a copy of another one, so that the two share the run on purpose.
    """
    if is_uploaded:
        _warn_of_mixed(run)
        _warn_of_nested(run)
    other = _latest.get(run.folder)
    if other is not None and other.is_open and not is_copy:
        announce("%s has another open writer: close it before a cell of a notebook runs again", shown_path(run.folder))
    _latest[run.folder] = run


def _warn_of_mixed(run: Run) -> None:
    destination = run.config.destination
    other = _stored.setdefault(destination, run.folder)
    if other not in {run.folder, None}:
        _stored[destination] = None
        logger.warning(
            "%s and %s have the same place in the repo, %s, where their curves mix: give each run a logdir of another"
            " name, or another path_in_repo",
            other,
            run.folder,
            destination.path,
        )


def _warn_of_nested(run: Run) -> None:
    destination = run.config.destination
    for above in run.folder.parents:
        outer = _latest.get(above)
        if outer is None or not outer.is_open or outer in _outer:
            continue
        theirs = outer.config.destination
        name = run.folder.relative_to(above).as_posix()
        chosen = PathFilter(outer.config.allow_patterns, outer.config.ignore_patterns)
        if chosen.takes_events_in(name) and dataclasses.replace(theirs, path=destination.path) == destination:
            _outer.add(outer)
            logger.warning(
                "%s is in the folder of the run %s, which uploads it as well, to %s: give it a logdir outside of that"
                " folder, or leave it out there with repo_ignore_patterns",
                run.folder,
                above,
                theirs.path_in_repo(name),
            )
