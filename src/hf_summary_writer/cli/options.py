"""The options that several commands share: which files go where on the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hf_summary_writer import config as checks
from hf_summary_writer.config import UNSAID, Destination, Settings
from hf_summary_writer.hub.client import default_endpoint
from hf_summary_writer.push.push import Plan
from hf_summary_writer.scheduler import DEFAULT_CLOSE_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Target", "existing_folder", "target_options", "timing_options"]

F = TypeVar("F", bound="Callable[..., Any]")

existing_folder = click.Path(exists=True, file_okay=False, path_type=Path)

_OPTIONS = [
    click.option(
        "--path-in-repo",
        default="tensorboard",
        show_default=True,
        help="Put the folder, under its own name, below this folder of the repo.",
    ),
    click.option("--into", help="Put the files into exactly this folder of the repo; / is its root."),
    click.option("--repo-type", type=click.Choice(checks.REPO_TYPES), help="The kind of repo.  [default: model]"),
    click.option("--revision", help="The branch; it is created if it does not exist.  [default: main]"),
    click.option("--private/--public", default=None, help="What to make of a repo that does not exist yet."),
    click.option("--allow", multiple=True, help="Push only files that match. Repeatable.  [default: *.tfevents.*]"),
    click.option("--ignore", multiple=True, help="Do not push files that match. Repeatable."),
    click.option(
        "--squash-history/--no-squash-history",
        default=None,
        help="Fold the branch's history into one commit after each push.  [default: no-squash-history]",
    ),
    click.option(
        "--model-card/--no-model-card",
        default=None,
        help="Start a repo that does not exist yet with a README.md.  [default: model-card]",
    ),
]


_TIMING = [
    click.option(
        "--every",
        type=click.FloatRange(min=0, min_open=True),
        default=5.0,
        show_default=True,
        help="Minutes between pushes.",
    ),
    click.option(
        "--close-timeout",
        type=click.FloatRange(min=0),
        default=DEFAULT_CLOSE_TIMEOUT,
        show_default=True,
        help="Seconds that the last push may take.",
    ),
]


def target_options(command: F) -> F:
    """Add the options that say what goes where; the command takes them as `**options`, for `Target`."""
    return _with(_OPTIONS, command)


def timing_options(command: F) -> F:
    """Add the options of what goes on for a while: `every` (minutes) and `close_timeout` (seconds)."""
    return _with(_TIMING, command)


def _with(options: Sequence[Callable[[F], F]], command: F) -> F:
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Target:
    """What the shared options say."""

    path_in_repo: str
    into: str | None
    repo_type: str | None
    revision: str | None
    private: bool | None
    allow: tuple[str, ...]
    ignore: tuple[str, ...]
    squash_history: bool | None
    model_card: bool | None

    def plan(self, folder: Path, repo_id: str, known: Iterable[Plan] = ()) -> Plan:
        """Return where a folder goes, and how.

        Args:
            folder: The folder, an absolute path without links.
            repo_id: The repo.
            known: How it went before; of the plan with the same destination is taken what the options leave open.

        Raises:
            click.ClickException: If the Hub cannot have such a place.
        """
        try:
            path = f"{checks.check_path_in_repo(self.path_in_repo)}/{folder.name}" if self.into is None else self.into
            where = Destination(
                default_endpoint(),
                checks.check_repo_type(self.repo_type),
                checks.check_repo_id(repo_id),
                checks.check_revision(self.revision),
                checks.check_path_in_repo(path),
            )
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        before = next((plan.settings for plan in known if plan.destination == where), UNSAID)
        return Plan(where, self._settings(before))

    def _settings(self, before: Settings) -> Settings:
        return Settings(
            self.allow or before.allow,
            self.ignore or before.ignore,
            before.private if self.private is None else self.private,
            before.squash if self.squash_history is None else self.squash_history,
            before.card if self.model_card is None else self.model_card,
        )
