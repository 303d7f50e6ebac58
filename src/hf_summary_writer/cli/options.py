"""The options that several commands share, made from the fields of `PushConfig`."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hf_summary_writer.checks import as_unicode, check_folder, check_path_in_repo
from hf_summary_writer.cli.terminal import say
from hf_summary_writer.config import RUNS_FOLDER, PushConfig, commits_per_hour, mode_for, option_of, with_uri
from hf_summary_writer.hub import check_client, default_endpoint
from hf_summary_writer.notices import printable
from hf_summary_writer.push import known_folders
from hf_summary_writer.reading import place_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from dataclasses import Field

    from hf_summary_writer.folder import Ledger

F = TypeVar("F", bound="Callable[..., Any]")

existing_folder: click.Path = click.Path(exists=True, file_okay=False, path_type=Path)


class _Folder(click.Path):
    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Path:
        try:
            return check_folder(value, "the name of the folder")
        except ValueError as error:
            self.fail(str(error), param, ctx)


# The absolute path, without links, of a folder that need not exist yet. Shells do not expand ~ in `--option=~/folder`.
new_folder: click.Path = _Folder(file_okay=False)


def create_folder(folder: Path) -> None:
    """Create a folder if need be.

    Raises:
        click.ClickException: If it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be created: {error.strerror}") from None


def folders_known_here(folder: Path) -> tuple[list[tuple[Path, Ledger]], set[str]]:
    """Return the folders of `known_folders`, and the kinds of the others, which are named on standard error.

    Raises:
        click.UsageError: If there are neither.
    """
    left_out: dict[str, str] = {}
    known = known_folders(folder, lambda kind, line: left_out.update({line: kind}))
    for line in left_out:
        say(line, colour="red", err=True)
    # A copy is known from another folder alone; a folder that cannot be read may have been pushed.
    if not known and {"copy"}.issuperset(left_out.values()):
        raise click.UsageError(f"{folder} was never pushed from here: sync it with REPO_ID")
    return known, set(left_out.values())


class _Seconds(click.FloatRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no length of time", param, ctx)
        return found


some_seconds: click.FloatRange = _Seconds(min=1)


def config_options(command: F) -> F:
    """Add an option for each field of `PushConfig` that has one; the command takes them as `**options`.

    An option that is not given is `None`, or no pattern.
    """
    into = click.option("--into", help="Upload the files to exactly this folder of the repo; / is its root.")
    for each in reversed(fields(PushConfig)):
        if each.name == "path_in_repo":
            command = into(command)
        if option_of(each).flags:
            command = _click_option(each)(command)
    return command


def config_option(name: str) -> Callable[[F], F]:
    """Add the option of one field."""
    return _click_option(next(each for each in fields(PushConfig) if each.name == name))


def place_options(command: F) -> F:
    """Add the options that name a place on a Hub to read; the command takes them as `**options`."""
    command = config_option("token")(command)
    command = config_option("endpoint")(command)
    command = click.option("--revision", help="The branch, tag or commit.  [default: main]")(command)
    return config_option("repo_type")(command)


def source_of(source: str, options: Mapping[str, Any], unreadable: type[click.ClickException]) -> Path | PushConfig:
    """Return the folder, or the place on the Hub, that `source` and the values of `place_options` mean.

    Raises:
        click.UsageError: If it is invalid, or it is a folder and an option has no meaning for it.
        click.ClickException: If there is no such folder; of the kind `unreadable`.
    """
    try:
        found = place_of(source, **{**options, "endpoint": options["endpoint"] or default_endpoint()})
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise unreadable(printable(str(error))) from None
    if isinstance(found, Path):
        refuse("a folder", {"--endpoint": options["endpoint"], "--token": options["token"]})
    return found


def _click_option(field: Field[Any]) -> Callable[[F], F]:
    option = option_of(field)

    def checked(_: click.Context, __: click.Parameter, value: Any) -> Any:
        if value is None or value == ():
            return value
        try:
            return option.check(option.parse(value) if isinstance(value, str) else value, option.flags)
        except (TypeError, ValueError) as error:
            raise click.BadParameter(str(error)) from None

    return click.option(
        option.flags,
        *option.aliases,
        field.name,
        type=click.Choice(option.choices) if option.choices else None,
        metavar=option.metavar or None,
        default=None,
        multiple=option.several,
        callback=checked,
        help=option.help,
    )


def check_environment() -> None:
    """Check the variables that hold for all pushes of a process.

    Raises:
        click.UsageError: If one has an invalid value.
    """
    try:
        mode_for()
        commits_per_hour()
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given on the command line."""
    return {name: value for name, value in options.items() if value is not None and value != ()}


def refuse(kind: str, options: Mapping[str, object]) -> None:
    """Refuse options that would change nothing for a source of this kind, if they were given.

    Raises:
        click.UsageError: If one was.
    """
    for flag, value in options.items():
        if value:
            raise click.UsageError(f"{flag} has no meaning for {kind}: leave it out")


def config_of(folder: Path, repo_id: str, options: dict[str, Any], known: Iterable[PushConfig] = ()) -> PushConfig:
    """Return the config to push a folder with.

    Args:
        folder: The folder, an absolute path without links.
        repo_id: The repo, or an `hf://` URI.
        options: The values of `config_options`.
        known: The configs of earlier pushes; the one with the same destination gives the defaults of the options.

    Raises:
        click.UsageError: If the Hub cannot have such a place.
    """
    try:
        arguments = with_uri({"repo_id": repo_id, **given(options)})
        arguments["path_in_repo"] = _place(folder, arguments.pop("into", None), arguments.get("path_in_repo"))
        config = PushConfig.from_arguments(arguments, default_endpoint())
        check_client(config.repo_type)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    before = next((each for each in known if each.destination == config.destination), None)
    return config if before is None else replace(before, **{name: getattr(config, name) for name in arguments})


def _place(folder: Path, into: str | None, parent: str | None) -> str:
    if into is None:
        return f"{check_path_in_repo(RUNS_FOLDER if parent is None else parent)}/{as_unicode(folder.name)}"
    if parent is not None:
        raise click.UsageError("--into names the folder in the repo itself: leave out --path-in-repo")
    if not into:  # as an unset variable of a shell gives it
        raise click.UsageError("--into is empty: write / for the root of the repo")
    return check_path_in_repo(into, "--into")
