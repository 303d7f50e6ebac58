"""Links out of a folder, which no push of it follows: their names, and the folders that they lead to."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hf_summary_writer.checks import check_path_in_repo
from hf_summary_writer.errors import ActionNeededError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from hf_summary_writer.config import PushConfig


def linked_folders(folder: Path, config: PushConfig, links: Iterable[str]) -> Iterator[tuple[Path, PushConfig]]:
    """Yield the folders that links out of a folder lead to, and the configs that push each in place of its link.

    Args:
        folder: The folder, an absolute path without links.
        config: The destination, and the patterns of the files.
        links: The links.
    """
    for link in sorted(links):
        target = _target(folder, link)
        if target is None or not os.path.isdir(target) or target in folder.parents:  # noqa: PTH112 - raises nothing
            continue
        try:
            path = check_path_in_repo(config.destination.path_in_repo(link))
        except ValueError:  # no repo can have a folder of that name
            continue
        yield target, dataclasses.replace(config, path_in_repo=path)


def unfollowed(folder: Path, links: Iterable[str], elsewhere: Collection[Path]) -> list[str]:
    """Return the links that lead to none of the folders that are pushed as well."""
    return sorted(link for link in links if _target(folder, link) not in elsewhere)


def unfollowed_error(links: Iterable[str]) -> ActionNeededError:
    """Return an error that names links that are not followed."""
    return ActionNeededError(
        f"links out of it are not followed: {', '.join(map(repr, links))}; upload what they lead to by itself, or with"
        " 'sync --follow-links', or ignore them"
    )


def _target(folder: Path, link: str) -> Path | None:
    try:
        return Path(os.path.realpath(folder / link))
    except OSError:  # it is replaced at this moment
        return None
