"""Where a folder is pushed and how: `PushConfig`, made from arguments, variables, command-line options or a ledger."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import re
import shlex
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import quote, unquote

from hf_summary_writer.checks import (
    BUCKET,
    DEFAULT_REVISION,
    DEFAULT_TYPE,
    PREFIX,
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
    check_switch,
    check_token,
    without_password,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping

    from typing_extensions import Self

    from hf_summary_writer.errors import CommitDetails, ErrorDetails, StallDetails

__all__ = [
    "COMMITS_PER_HOUR",
    "DEFAULT_CLOSE_TIMEOUT",
    "DEFAULT_MINUTES",
    "DEFAULT_STALL_SECONDS",
    "MODE",
    "PUSHED_FOLDER",
    "RUNS_FOLDER",
    "RUN_FILES",
    "Destination",
    "Mode",
    "Option",
    "PushConfig",
    "commits_per_hour",
    "complete_arguments",
    "known_sync_command",
    "mode_for",
    "option_of",
    "with_uri",
]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Destination:
    """A folder of a branch of a repo on a Hub, or of a bucket, whose revision is empty."""

    endpoint: str
    repo_type: str
    repo_id: str
    revision: str
    path: str

    @property
    def key(self) -> str:
        """A short name for this destination that is safe in a file name."""
        canonical = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """The repo's name without its namespace."""
        return self.repo_id.rpartition("/")[2]

    @property
    def is_default_branch(self) -> bool:
        """Whether it is the default branch, or a bucket, which has no branches."""
        return self.revision in {DEFAULT_REVISION, ""}

    @property
    def folder_url(self) -> str:
        """The page of the files; `repo_id` must have its namespace."""
        if self.repo_type == BUCKET:
            return f"{self._repo_url}/tree/{quote(self.path)}" if self.path else self._repo_url
        return f"{self._repo_url}/tree/{quote(self.revision, safe='')}/{quote(self.path)}".rstrip("/")

    @property
    def url(self) -> str:
        """The page that shows the logs; `repo_id` must have its namespace.

        The Hub shows the tab "Training metrics" for the default branch of a model repo.
        """
        shown = self.repo_type == "model" and self.is_default_branch
        return f"{self._repo_url}/tensorboard" if shown else self.folder_url

    @property
    def known_url(self) -> str | None:
        """The page that shows the logs, once `repo_id` has its namespace."""
        return self.url if "/" in self.repo_id else None

    @property
    def _repo_url(self) -> str:
        prefix = "" if self.repo_type == "model" else f"{self.repo_type}s/"
        return f"{self.endpoint}/{prefix}{self.repo_id}"

    def path_in_repo(self, relpath: str) -> str:
        """The place in the repo of the file that is `relpath` in the folder."""
        return f"{self.path}/{relpath}" if self.path else relpath


MODE = f"{PREFIX}MODE"

COMMITS_PER_HOUR = f"{PREFIX}COMMITS_PER_HOUR"

# Set by `hf-summary-writer run` for the command it runs: what lies below this folder is pushed from outside.
PUSHED_FOLDER = f"{PREFIX}PUSHED_FOLDER"

_YES, _NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


class Mode(Enum):
    """Whether folders are pushed."""

    ONLINE = "online"
    OFFLINE = "offline"
    DISABLED = "disabled"


def mode_for(folder: Path | None = None) -> Mode:
    """Return whether `folder`, an absolute path without links, is to be pushed from this process.

    Raises:
        ValueError: If the variable for it says something that means nothing.
    """
    said = os.environ.get(MODE, "").strip().lower()
    if said not in {"", *(mode.value for mode in Mode)}:
        raise ValueError(f"{MODE} is {said!r}: use {', '.join(mode.value for mode in Mode)}")
    if said == Mode.DISABLED.value or (folder is not None and _is_pushed_from_outside(folder)):
        return Mode.DISABLED
    # The client reads this variable too, when it is imported; whoever sets it wants no request to be tried.
    if said == Mode.OFFLINE.value or _is_client_offline():
        return Mode.OFFLINE
    return Mode.ONLINE


def commits_per_hour() -> float | None:
    """Return how many commits per hour all that is pushed for an account may make; `None` if nobody says, 0 for any.

    Raises:
        ValueError: If the variable for it says something that means nothing.
    """
    text = os.environ.get(COMMITS_PER_HOUR, "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{COMMITS_PER_HOUR} is {text!r}: use a whole number, 0 for no limit")
    return float(text)


def _is_client_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in _YES


def _is_pushed_from_outside(folder: Path) -> bool:
    pushed = os.environ.get(PUSHED_FOLDER, "")
    return bool(pushed) and folder.is_relative_to(Path(pushed).resolve())


def _yes_or_no(text: str) -> bool:
    if text.lower() in _YES:
        return True
    if text.lower() in _NO:
        return False
    raise ValueError(f"{text!r} is neither yes nor no: use 1 or 0")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


@dataclass(frozen=True, slots=True)
class Option:
    """How a field of `PushConfig` is checked, and what it is called elsewhere.

    Attributes:
        check: Returns a value, or raises `ValueError` or `TypeError` with a message that uses the name it is given.
        parse: Makes a value of the text of an environment variable or of a command-line option.
        writer: The argument of `HFSummaryWriter`, if it is not called as the field and that of `CommitScheduler`.
        variable: The environment variable, without its prefix.
        flags: The command-line option, in the notation of click.
        aliases: Other names that the command line takes, in the same notation.
        metavar: The name of its value in the command line's help.
        choices: The values among which the command line lets choose.
        several: Whether the command line takes it more than once.
        help: The command line's help.
        ledger: The key in the settings of a ledger; such a field is kept for later processes.
        none_is_unset: Whether `None` means that the argument was left out.
    """

    check: Callable[[Any, str], Any]
    parse: Callable[[str], Any] = str
    writer: str = ""
    variable: str = ""
    flags: str = ""
    aliases: tuple[str, ...] = ()
    metavar: str = ""
    choices: tuple[str, ...] = ()
    several: bool = False
    help: str = ""
    ledger: str = ""
    none_is_unset: bool = True


def _option(check: Callable[[Any, str], Any], **names: Any) -> dict[str, Option]:
    return {"option": Option(check, **names)}


def option_of(field: Field[Any]) -> Option:
    """Return the option of a field of `PushConfig`."""
    found: Option = field.metadata["option"]
    return found


# What TensorBoard reads of a run: event files, and what `add_embedding` writes for the projector.
RUN_FILES = (
    "*.tfevents.*",
    "*projector_config.pbtxt",
    "*[0-9]/*/tensors.tsv",
    "*[0-9]/*/metadata.tsv",
    "*[0-9]/*/sprite.png",
)

RUNS_FOLDER = "tensorboard"

"""The folder of a repo under which writers and commands put runs."""

DEFAULT_CLOSE_TIMEOUT = 20.0
DEFAULT_STALL_SECONDS = 600.0

DEFAULT_MINUTES = 5.0

DEFAULT_BUCKET_MINUTES = 0.25

_PUBLIC_HUB = "https://huggingface.co"

_URI = re.compile(
    r"hf://(?:(?P<kind>models|datasets|spaces|buckets(?=/[^/@]+/[^/@]+(?:/|$)))/)?"
    r"(?P<repo>(?!(?:models|datasets|spaces|buckets)(?:/|$))(?:[^/@]+/[^/@]+|[^/@]+(?=@|$)))"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(?P<path>.*))?"
)


def _uri_parts(repo_id: str) -> dict[str, str]:
    """Return what an `hf://` URI names, by the fields of `PushConfig`; nothing for a plain repo id.

    Raises:
        ValueError: If it is no URI of a repo.
    """
    if not repo_id.startswith("hf://"):
        return {}
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


def with_uri(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return `arguments`, with an `hf://` URI for a repo id replaced by the fields that it names.

    Raises:
        ValueError: If it is no URI of a repo, or an argument that is not `None` contradicts it.
    """
    uri = arguments.get("repo_id")
    parts = _uri_parts(uri) if isinstance(uri, str) else {}
    for each, name in _named_in(arguments):
        value = arguments[name]
        said_twice = each.name in parts and each.name != "repo_id" and value is not None
        if said_twice and option_of(each).check(value, name) != parts[each.name]:
            raise ValueError(f"{name} is {value!r}, but the URI {uri} says {parts[each.name]!r}: leave one of them out")
    return {**arguments, **parts}


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

    repo_id: str = field(metadata=_option(_check_repo, variable="REPO_ID"))
    endpoint: str = field(
        metadata=_option(
            check_endpoint,
            flags="--endpoint",
            metavar="URL",
            help="The address of the Hub.  [default: HF_ENDPOINT, or https://huggingface.co]",
        )
    )
    repo_type: str | None = field(
        default=None,
        metadata=_option(
            _checked_if_given(check_repo_type),
            variable="REPO_TYPE",
            flags="--repo-type",
            choices=REPO_TYPES,
            help="The kind of repo, or bucket.  [default: model]",
        ),
    )
    revision: str | None = field(
        default=None,
        metadata=_option(
            _checked_if_given(check_revision),
            writer="repo_revision",
            variable="REVISION",
            flags="--revision",
            metavar="BRANCH",
            help="The branch; created if needed.  [default: main]",
        ),
    )
    path_in_repo: str = field(
        default="",
        metadata=_option(
            check_path_in_repo,
            variable="PATH_IN_REPO",
            flags="--path-in-repo",
            metavar="FOLDER",
            help=f"Upload LOGDIR, under its own name, to this folder of the repo.  [default: {RUNS_FOLDER}]",
            none_is_unset=False,
        ),
    )
    private: bool | None = field(
        default=None,
        metadata=_option(
            check_switch,
            parse=_yes_or_no,
            writer="repo_private",
            variable="PRIVATE",
            flags="--private/--public",
            aliases=(" /--no-private",),
            help="Visibility of a new repo.  [default: public, or your organization's setting]",
            ledger="private",
        ),
    )
    every: float | None = field(
        default=None,
        metadata=_option(
            _checked_if_given(check_interval),
            parse=_number,
            writer="commit_every",
            variable="COMMIT_EVERY",
            flags="--every",
            metavar="MINUTES",
            help=f"Minutes between pushes.  [default: {DEFAULT_MINUTES:g}; {DEFAULT_BUCKET_MINUTES:g} for a bucket]",
        ),
    )
    allow_patterns: tuple[str, ...] | None = field(
        default=RUN_FILES,
        metadata=_option(
            as_patterns,
            writer="repo_allow_patterns",
            flags="--allow",
            aliases=("--include",),
            metavar="PATTERN",
            several=True,
            help=f"Upload only files that match. Repeatable.  [default: {RUN_FILES[0]} and embeddings]",
            ledger="allow",
            none_is_unset=False,
        ),
    )
    ignore_patterns: tuple[str, ...] | None = field(
        default=None,
        metadata=_option(
            lambda patterns, name: as_patterns(patterns, name) or None,
            writer="repo_ignore_patterns",
            flags="--ignore",
            aliases=("--exclude",),
            metavar="PATTERN",
            several=True,
            help="Do not upload files that match. Repeatable.",
            ledger="ignore",
        ),
    )
    squash_history: bool = field(
        default=False,
        metadata=_option(
            check_switch,
            parse=_yes_or_no,
            variable="SQUASH_HISTORY",
            flags="--squash-history/--no-squash-history",
            help="Squash the commit history of the branch after each push.  [default: no-squash-history]",
            ledger="squash",
        ),
    )
    model_card: bool = field(
        default=True,
        metadata=_option(
            check_switch,
            parse=_yes_or_no,
            variable="MODEL_CARD",
            flags="--model-card/--no-model-card",
            help="Start a new repo with a README.md.  [default: model-card]",
            ledger="card",
        ),
    )
    run_state: bool = field(default=True, metadata=_option(check_switch, parse=_yes_or_no, variable="RUN_STATE"))
    push_leftovers: bool = field(
        default=False, metadata=_option(check_switch, parse=_yes_or_no, variable="PUSH_LEFTOVERS")
    )
    check: bool = field(default=False, metadata=_option(check_switch))
    close_timeout: float = field(
        default=DEFAULT_CLOSE_TIMEOUT,
        metadata=_option(
            check_seconds,
            parse=_number,
            variable="CLOSE_TIMEOUT",
            flags="--close-timeout",
            metavar="SECONDS",
            help=f"Maximum seconds for the last push.  [default: {DEFAULT_CLOSE_TIMEOUT:g}]",
        ),
    )
    log_environment: bool = field(default=False, metadata=_option(check_switch))
    token: str | bool | None = field(
        default=None,
        repr=False,
        metadata=_option(
            check_token,
            flags="--token",
            metavar="TOKEN",
            help="The access token. HF_TOKEN keeps it out of the process list.  [default: the stored one]",
        ),
    )
    push_on_sigterm: bool = field(default=False, metadata=_option(check_switch))
    push_every_rank: bool = field(default=False, metadata=_option(check_switch))
    on_commit: Callable[[CommitDetails], object] | None = field(default=None, metadata=_option(check_hook))
    on_error: Callable[[ErrorDetails], object] | None = field(default=None, metadata=_option(check_hook))
    on_stall: Callable[[StallDetails], object] | None = field(default=None, metadata=_option(check_hook))
    stall_after: float = field(default=DEFAULT_STALL_SECONDS, metadata=_option(check_some_seconds))

    def __post_init__(self) -> None:
        if self.repo_type == BUCKET and self.revision is not None:
            raise ValueError(f"a bucket has no branches: leave out the revision {self.revision!r}")
        if self.repo_type == BUCKET and self.squash_history:
            raise ValueError("a bucket has no history to squash: leave out squash_history")

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
        values: dict[str, Any] = {
            "repo_id": check_repo_id(arguments.get("repo_id")),
            "endpoint": without_password(endpoint).rstrip("/"),
        }
        for each, name in _named_in(arguments):
            value, option = arguments[name], option_of(each)
            if value is None and option.none_is_unset and each.default is not MISSING:
                value = each.default
            values[each.name] = option.check(value, name)
        return cls(**values)

    @classmethod
    def from_ledger(cls, destination: Destination, settings: Mapping[str, Any]) -> Self:
        """Return what a ledger says of its destination and of how the folder is pushed there.

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
        return {name: getattr(self, each.name) for each, name in _named_in(names)}

    def sync_command(self, folder: Path, assumed_endpoint: str) -> str:
        """Return the command that uploads the rest of `folder` with this config, ready to paste into a shell.

        Args:
            folder: The folder, an absolute path.
            assumed_endpoint: The Hub that this process talks to unless told otherwise.
        """
        where = self.destination
        words = ["hf-summary-writer", "sync", str(folder), where.repo_id, "--into", where.path or "/"]
        # Whether the shell that it is pasted into has the variables of this process is not known.
        online = "HF_HUB_OFFLINE=0 " if _is_client_offline() else ""
        if not where.endpoint == without_password(assumed_endpoint) == _PUBLIC_HUB:
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
    hub = [] if endpoint == _PUBLIC_HUB else ["--endpoint", endpoint]
    return shlex.join(["hf-summary-writer", "sync", str(folder), *hub])


def _words(flags: str, value: bool | tuple[str, ...] | None) -> list[str]:
    flag, _, opposite = flags.partition("/")
    if isinstance(value, bool):
        return [flag if value else opposite]
    patterns = _ALL if value is None else value or _NONE
    return [word for pattern in patterns for word in (flag, pattern)]


def _kept() -> Iterator[tuple[Field[Any], str]]:
    return ((each, key) for each in fields(PushConfig) if (key := option_of(each).ledger))


def _named_in(names: Container[str]) -> Iterator[tuple[Field[Any], str]]:
    """Yield each field that has one of the names, and that name."""
    for each in fields(PushConfig):
        for name in (each.name, option_of(each).writer):
            if name in names:
                yield each, name
                break


def complete_arguments(init: Callable[P, None]) -> Callable[P, None]:
    """Let an `hf://` URI and the environment give a constructor the arguments that its caller left out.

    What a URI names and `init` has no argument for becomes one of its `**kwargs`, which go to `HFSummaryWriter`.
    """
    signature = inspect.signature(init)
    names = signature.parameters
    rest = next((name for name, each in names.items() if each.kind is each.VAR_KEYWORD), None)

    @functools.wraps(init)
    def completed(*args: P.args, **kwargs: P.kwargs) -> None:
        bound = signature.bind_partial(*args, **kwargs)
        others = dict(bound.arguments.pop(rest, {})) if rest else {}
        for name, value in _completed(names, {**bound.arguments, **others}).items():
            (bound.arguments if name in names else others)[name] = value
        if rest:
            bound.arguments[rest] = others
        init(*bound.args, **bound.kwargs)

    return completed


def _completed(names: Container[str], given: Mapping[str, Any]) -> dict[str, Any]:
    said = {
        name: given[name]
        for each, name in _named_in(given)
        if given[name] is not None or not option_of(each).none_is_unset
    }
    repo_id = said.get("repo_id") or _from_environment("repo_id", option_of(fields(PushConfig)[0]))
    known = with_uri({**said, "repo_id": repo_id})
    found = {}
    for each in fields(PushConfig):
        name = next((name for name in (each.name, option_of(each).writer) if name in names), None)
        if each.name in known:
            found[name or option_of(each).writer or each.name] = known[each.name]
        elif name is not None and name not in said:
            value = _from_environment(name, option_of(each))
            if value is not None:
                found[name] = value
    return found


def _from_environment(name: str, option: Option) -> Any:
    text = os.environ.get(PREFIX + option.variable, "").strip() if option.variable else ""
    if not text:
        return None
    try:
        return option.check(option.parse(text), name)
    except ValueError as error:
        raise ValueError(f"the environment variable {PREFIX}{option.variable} cannot be used: {error}") from None
