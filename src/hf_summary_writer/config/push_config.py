"""`PushConfig`: where one folder is pushed, and how."""

from __future__ import annotations

import inspect
import re
import shlex
from dataclasses import MISSING, Field, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from hf_summary_writer.checks import (
    BUCKET,
    DEFAULT_TYPE,
    PREFIX,
    PUBLIC_HUB,
    REPO_TYPES,
    as_patterns,
    check_endpoint,
    check_hook,
    check_interval,
    check_path_in_repo,
    check_repo_id,
    check_repo_type,
    check_revision,
    check_seconds,
    check_some_seconds,
    check_token,
    without_password,
)
from hf_summary_writer.config.destination import Destination
from hf_summary_writer.config.environment import is_client_offline
from hf_summary_writer.config.option import number, option, option_of, switch

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping
    from pathlib import Path

    from typing_extensions import Self

    from hf_summary_writer.errors import CommitDetails, ErrorDetails, StallDetails

T = TypeVar("T")


# The files of a run that TensorBoard reads: event files, and the projector files of `add_embedding`.
RUN_FILES = (
    "*.tfevents.*",
    "*projector_config.pbtxt",
    "*[0-9]/*/tensors.tsv",
    "*[0-9]/*/metadata.tsv",
    "*[0-9]/*/sprite.png",
)

# The folder of a repo under which writers and commands put runs.
RUNS_FOLDER = "tensorboard"

DEFAULT_CLOSE_TIMEOUT = 20.0
DEFAULT_STALL_SECONDS = 600.0

DEFAULT_MINUTES = 5.0

DEFAULT_BUCKET_MINUTES = 0.25

_URI = re.compile(
    r"hf://(?:(?P<kind>models|datasets|spaces|buckets(?=/[^/@]+/[^/@]+(?:/|$)))/)?"
    r"(?P<repo>(?!(?:models|datasets|spaces|buckets)(?:/|$))(?:[^/@]+/[^/@]+|[^/@]+(?=@|$)))"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(?P<path>.*))?"
)


def with_uri(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return `arguments`, with an `hf://` URI for a repo id replaced by the fields that it names.

    Raises:
        ValueError: If it is no URI of a repo, or an argument that is not `None` contradicts it.
    """
    uri = arguments.get("repo_id")
    parts = _uri_parts(uri) if isinstance(uri, str) else {}
    for each, name in named_in(arguments):
        value = arguments[name]
        said_twice = each.name in parts and each.name != "repo_id" and value is not None
        if said_twice and option_of(each).check(value, name) != parts[each.name]:
            raise ValueError(f"{name} is {value!r}, but the URI {uri} says {parts[each.name]!r}: leave one of them out")
    return {**arguments, **parts}


def _uri_parts(repo_id: str) -> dict[str, str]:
    """Return the parts of an `hf://` URI by the fields of `PushConfig`; none for a plain repo id.

    Raises:
        ValueError: If it is no URI of a repo.
    """
    if not repo_id.startswith("hf://"):
        return {}
    kind = repo_id.removeprefix("hf://").partition("/")[0]
    if kind in REPO_TYPES:
        # Read as the name of a user, it would lead to another repo.
        raise ValueError(f"{repo_id!r} is no URI of a repo or bucket: write hf://{kind}s/ instead of hf://{kind}/")
    found = _URI.fullmatch(repo_id)
    if found is None:
        raise ValueError(
            f"{repo_id!r} is no URI of a repo or bucket: use one such as 'hf://datasets/user/name@branch/folder' or "
            "'hf://buckets/user/name/folder'"
        )
    parts = {"repo_id": check_repo_id(found["repo"]), "repo_type": (found["kind"] or "models")[:-1]}
    if found["revision"] is not None:
        parts["revision"] = check_revision(unquote(found["revision"]))
    if found["path"]:
        parts["path_in_repo"] = check_path_in_repo(found["path"])
    return parts


def _check_repo(repo_id: object, name: str) -> str:
    return repo_id if isinstance(repo_id, str) and _uri_parts(repo_id) else check_repo_id(repo_id, name)


def _checked_if_given(check: Callable[[object, str], T]) -> Callable[[object, str], T | None]:
    return lambda value, name: None if value is None else check(value, name)


# On the command line no pattern means the default ones. These mean all files, and none.
_ALL, _NONE = ("*",), ("",)


@dataclass(frozen=True, slots=True, kw_only=True)
class PushConfig:
    """Where one folder is pushed, and how: values that were checked when it was made.

    A new option is a field here, an argument in the signatures and a line in the docs. The environment, the commands,
    the command that resumes a push, ledgers and pickles follow from the field.
    """

    repo_id: str = option(_check_repo, variable="REPO_ID")
    endpoint: str = option(
        check_endpoint,
        flags="--endpoint",
        metavar="URL",
        help="The address of the Hub.  [default: HF_ENDPOINT, or https://huggingface.co]",
    )
    repo_type: str | None = option(
        _checked_if_given(check_repo_type),
        default=None,
        variable="REPO_TYPE",
        flags="--repo-type",
        choices=REPO_TYPES,
        help="The kind of repo, or bucket.  [default: model]",
    )
    revision: str | None = option(
        _checked_if_given(check_revision),
        default=None,
        writer="repo_revision",
        variable="REVISION",
        flags="--revision",
        metavar="BRANCH",
        help="The branch; created if needed.  [default: main]",
    )
    path_in_repo: str = option(
        check_path_in_repo,
        default="",
        variable="PATH_IN_REPO",
        flags="--path-in-repo",
        metavar="FOLDER",
        help=f"Upload LOGDIR, under its own name, to this folder of the repo.  [default: {RUNS_FOLDER}]",
        none_is_unset=False,
    )
    private: bool | None = switch(
        default=None,
        writer="repo_private",
        variable="PRIVATE",
        flags="--private/--public",
        aliases=(" /--no-private",),
        help="Visibility of a new repo.  [default: public, or your organization's setting]",
        ledger="private",
    )
    every: float | None = option(
        _checked_if_given(check_interval),
        default=None,
        parse=number,
        writer="commit_every",
        variable="COMMIT_EVERY",
        flags="--every",
        metavar="MINUTES",
        help=f"Minutes between pushes.  [default: {DEFAULT_MINUTES:g}; {DEFAULT_BUCKET_MINUTES:g} for a bucket]",
    )
    allow_patterns: tuple[str, ...] | None = option(
        as_patterns,
        default=RUN_FILES,
        writer="repo_allow_patterns",
        flags="--allow",
        aliases=("--include",),
        metavar="PATTERN",
        several=True,
        help=f"Upload only files that match. Repeatable.  [default: {RUN_FILES[0]} and embeddings]",
        ledger="allow",
        none_is_unset=False,
    )
    ignore_patterns: tuple[str, ...] | None = option(
        lambda patterns, name: as_patterns(patterns, name) or None,
        default=None,
        writer="repo_ignore_patterns",
        flags="--ignore",
        aliases=("--exclude",),
        metavar="PATTERN",
        several=True,
        help="Do not upload files that match. Repeatable.",
        ledger="ignore",
    )
    squash_history: bool = switch(
        default=False,
        variable="SQUASH_HISTORY",
        flags="--squash-history/--no-squash-history",
        help="Squash the commit history of the branch after each push.  [default: no-squash-history]",
        ledger="squash",
    )
    model_card: bool = switch(
        default=True,
        variable="MODEL_CARD",
        flags="--model-card/--no-model-card",
        help="Start a new repo with a README.md.  [default: model-card]",
        ledger="card",
    )
    run_state: bool = switch(default=True, variable="RUN_STATE")
    push_leftovers: bool = switch(default=False, variable="PUSH_LEFTOVERS")
    check: bool = switch(default=False)
    close_timeout: float = option(
        check_seconds,
        default=DEFAULT_CLOSE_TIMEOUT,
        parse=number,
        variable="CLOSE_TIMEOUT",
        flags="--close-timeout",
        metavar="SECONDS",
        help=f"Maximum seconds for the last push.  [default: {DEFAULT_CLOSE_TIMEOUT:g}]",
    )
    log_environment: bool = switch(default=False)
    token: str | bool | None = option(
        check_token,
        default=None,
        is_shown=False,
        flags="--token",
        metavar="TOKEN",
        help="The access token. HF_TOKEN keeps it out of the process list.  [default: the stored one]",
    )
    push_on_sigterm: bool = switch(default=False)
    push_every_rank: bool = switch(default=False)
    on_commit: Callable[[CommitDetails], object] | None = option(check_hook, default=None)
    on_error: Callable[[ErrorDetails], object] | None = option(check_hook, default=None)
    on_stall: Callable[[StallDetails], object] | None = option(check_hook, default=None)
    stall_after: float = option(check_some_seconds, default=DEFAULT_STALL_SECONDS)

    def __post_init__(self) -> None:
        if self.repo_type == BUCKET and self.revision is not None:
            raise ValueError(
                f"a bucket has no branches: leave out the revision {self.revision!r}, or unset {PREFIX}REVISION"
            )
        if self.repo_type == BUCKET and self.squash_history:
            raise ValueError(
                f"a bucket has no history to squash: leave out squash_history, or unset {PREFIX}SQUASH_HISTORY"
            )

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any], endpoint: str) -> Self:
        """Check arguments and return them as a config.

        Args:
            arguments: By their names in a constructor or by those of the fields; others are passed over.
            endpoint: The address of the Hub, unless it is among the arguments; a password in it is left out.

        Raises:
            TypeError: If an argument is of the wrong type, or there is no repo.
            ValueError: If an argument is something that the Hub cannot have.
        """
        arguments = with_uri(arguments)
        values: dict[str, Any] = {"repo_id": check_repo_id(arguments.get("repo_id"))}
        if "endpoint" not in arguments:
            values["endpoint"] = check_endpoint(without_password(endpoint), "the endpoint (HF_ENDPOINT)")
        for each, name in named_in(arguments):
            value, option = arguments[name], option_of(each)
            if value is None and option.none_is_unset and each.default is not MISSING:
                value = each.default
            values[each.name] = option.check(value, name)
        return cls(**values)

    @classmethod
    def from_ledger(cls, destination: Destination, settings: Mapping[str, Any]) -> Self:
        """Return the config that a ledger holds: the destination and the settings of its pushes.

        Raises:
            TypeError: If a setting is of the wrong type.
        """
        if not isinstance(settings, dict):
            raise TypeError(f"settings must be an object, not {type(settings).__name__}")
        known = {each.name: settings[key] for each, key in _kept() if key in settings}
        place = {**asdict(destination), "path_in_repo": destination.path, "revision": destination.revision or None}
        return cls.from_arguments({**place, **known}, destination.endpoint)

    @property
    def destination(self) -> Destination:
        """The place on the Hub."""
        return Destination(
            self.endpoint,
            check_repo_type(self.repo_type),
            self.repo_id,
            "" if self.repo_type == BUCKET else check_revision(self.revision),
            self.path_in_repo,
        )

    @property
    def minutes(self) -> float:
        """The minutes between pushes."""
        if self.every is not None:
            return self.every
        return DEFAULT_BUCKET_MINUTES if self.repo_type == BUCKET else DEFAULT_MINUTES

    @property
    def settings(self) -> dict[str, Any]:
        """The values that a ledger keeps, as JSON has them."""
        values = {key: getattr(self, each.name) for each, key in _kept()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def arguments_for(self, constructor: Callable[..., object]) -> dict[str, Any]:
        """Return the arguments by which `constructor` makes this config again."""
        names = inspect.signature(constructor).parameters
        return {name: getattr(self, each.name) for each, name in named_in(names)}

    def sync_command(self, folder: Path, assumed_endpoint: str) -> str:
        """Return the command that uploads the rest of `folder` with this config, ready to paste into a shell.

        Args:
            folder: The folder, an absolute path.
            assumed_endpoint: The default Hub of this process.
        """
        where = self.destination
        words = ["hf-summary-writer", "sync", str(folder), where.repo_id, "--into", where.path or "/"]
        # Whether the shell that it is pasted into has the variables of this process is not known.
        online = "HF_HUB_OFFLINE=0 " if is_client_offline() else ""
        if not where.endpoint == without_password(assumed_endpoint) == PUBLIC_HUB:
            words += ["--endpoint", where.endpoint]
        if where.repo_type != DEFAULT_TYPE:
            words += ["--repo-type", where.repo_type]
        if not where.is_default_branch:
            words += ["--revision", where.revision]
        for each, _ in _kept():
            value = getattr(self, each.name)
            if value != each.default:
                words += _words(option_of(each).flags, value)
        return online + shlex.join(words)


def known_sync_command(folder: Path, endpoint: str) -> str:
    """Return the command that uploads the runs in `folder`, each to its place at the Hub `endpoint`."""
    hub = [] if endpoint == PUBLIC_HUB else ["--endpoint", endpoint]
    return shlex.join(["hf-summary-writer", "sync", str(folder), *hub])


def _words(flags: str, value: bool | tuple[str, ...] | None) -> list[str]:
    flag, _, opposite = flags.partition("/")
    if isinstance(value, bool):
        return [flag if value else opposite]
    patterns = _ALL if value is None else value or _NONE
    return [word for pattern in patterns for word in (flag, pattern)]


def _kept() -> Iterator[tuple[Field[Any], str]]:
    return ((each, key) for each in fields(PushConfig) if (key := option_of(each).ledger))


def named_in(names: Container[str]) -> Iterator[tuple[Field[Any], str]]:
    """Yield each field that has one of the names, and that name."""
    for each in fields(PushConfig):
        for name in (each.name, option_of(each).writer):
            if name in names:
                yield each, name
                break
