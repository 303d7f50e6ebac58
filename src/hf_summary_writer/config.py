"""Where a folder goes on the Hub and how: arguments, environment variables, and the command that resumes a push."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
import os
import re
import shlex
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "COMMITS_PER_HOUR",
    "DEFAULT_REVISION",
    "DEFAULT_TYPE",
    "EVENT_FILES",
    "MODE",
    "PREFIX",
    "PUSHED_FOLDER",
    "UNSAID",
    "VARIABLES",
    "Destination",
    "Mode",
    "Settings",
    "check_folder",
    "check_interval",
    "check_path_in_repo",
    "check_repo_id",
    "check_repo_type",
    "check_revision",
    "check_seconds",
    "check_token",
    "commits_per_hour",
    "fills_in",
    "mode_for",
    "sync_command",
]

REPO_TYPES = ("model", "dataset", "space")

DEFAULT_TYPE = REPO_TYPES[0]

DEFAULT_REVISION = "main"

# The Hub's rules for names, as documented with huggingface_hub's `validate_repo_id`; a test holds the two together.
_REPO_NAME = re.compile(r"(?:\b[\w.-]{1,96}\b/)?\b[\w.-]{1,96}\b", flags=re.ASCII)

# What `git check-ref-format` refuses anywhere in a branch name.
_REVISION_REFUSED = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(?:/|$)|(?:^|/)\.|/$|^/|\.$")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

# Folders that the Hub keeps for itself or that its client refuses to write to.
_FORBIDDEN_PARTS = frozenset({".git", ".cache"})


@dataclass(frozen=True, slots=True)
class Destination:
    """One place on one Hub: what a ledger is about."""

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
        """Whether it is the branch that the Hub shows first."""
        return self.revision == DEFAULT_REVISION

    @property
    def folder_url(self) -> str:
        """The page of the files; `repo_id` must have its namespace."""
        return f"{self._repo_url}/tree/{quote(self.revision, safe='')}/{quote(self.path)}".rstrip("/")

    @property
    def url(self) -> str:
        """The page that shows the logs; `repo_id` must have its namespace.

        The Hub shows TensorBoard, its tab "Metrics", for what lies in the first branch of a model repo.
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


def check_repo_id(repo_id: object) -> str:
    """Return `repo_id` if the Hub could have such a repo, as `name` or `namespace/name`."""
    if repo_id is None:
        raise TypeError(
            "repo_id is missing: pass one such as 'user/my-run', or set the environment variable "
            "HF_SUMMARY_WRITER_REPO_ID"
        )
    if not isinstance(repo_id, str):
        raise TypeError(f"repo_id must be a str such as 'user/my-run', not {type(repo_id).__name__}")
    if not _REPO_NAME.fullmatch(repo_id) or "--" in repo_id or ".." in repo_id or repo_id.endswith(".git"):
        raise ValueError(
            f"repo_id {repo_id!r} is not a name the Hub allows: use 'name' or 'namespace/name' of letters, digits, "
            "'-', '_' and '.', without '--' or '..', not ending in '.git', at most 96 characters each"
        )
    return repo_id


def check_repo_type(repo_type: object) -> str:
    """Return the repo type that `repo_type` means; `None` means a model repo."""
    if repo_type is None:
        return DEFAULT_TYPE
    if repo_type not in REPO_TYPES:
        raise ValueError(f"repo_type {repo_type!r} does not exist on the Hub: use one of {', '.join(REPO_TYPES)}")
    return str(repo_type)


def check_revision(revision: object) -> str:
    """Return the branch that `revision` means; `None` means `main`."""
    if revision is None:
        return DEFAULT_REVISION
    if not isinstance(revision, str):
        raise TypeError(f"revision must be the name of a branch as a str, not {type(revision).__name__}")
    if not revision or revision.startswith("-") or revision == "@" or _REVISION_REFUSED.search(revision):
        raise ValueError(f"revision {revision!r} is not a name that Git allows for a branch")
    return revision


def check_path_in_repo(path: object) -> str:
    """Return `path` without slashes at its ends; `None` and `""` mean the root of the repo."""
    if path is None:
        return ""
    if not isinstance(path, str):
        raise TypeError(f"path_in_repo must be a str such as 'tensorboard', not {type(path).__name__}")
    stripped = path.strip("/")
    parts = stripped.split("/") if stripped else []
    if (
        "\\" in path
        or not _is_unicode(path)
        or any(ord(character) < ord(" ") or character == "\x7f" for character in path)
        or any(part in {"", ".", ".."} for part in parts)
        or any(part.lower() in _FORBIDDEN_PARTS for part in parts)
    ):
        raise ValueError(
            f"path_in_repo {path!r} cannot be used: give a relative path with '/' between its parts, without '.', "
            "'..', '.git', '.cache', empty parts, backslashes, control characters or bytes that are no UTF-8"
        )
    return stripped


def _is_unicode(text: str) -> bool:
    # Bytes of a file name that are no UTF-8 become surrogates, which no request can carry.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_interval(name: str, minutes: object) -> float:
    """Return `minutes` as a float if a timer can wait for that long."""
    if isinstance(minutes, bool) or not isinstance(minutes, (int, float)):
        raise TypeError(f"{name} must be a number of minutes, not {type(minutes).__name__}")
    if not minutes > 0 or not math.isfinite(minutes):
        raise ValueError(f"{name} must be a positive number of minutes (fractions are fine), not {minutes!r}")
    return float(minutes)


def check_token(token: object) -> str | bool | None:
    """Return `token` without white space around it; never repeat it in a message."""
    if token is None or isinstance(token, bool):
        return token
    if not isinstance(token, str):
        raise TypeError(f"token must be a str, not {type(token).__name__}")
    stripped = token.strip()
    if not stripped:
        raise ValueError("token is empty: leave it out to use the token that `hf auth login` has stored")
    if not stripped.isascii() or not stripped.isprintable() or " " in stripped:
        raise ValueError("token holds characters that no access token has: copy it again (it is not shown here)")
    return stripped


def check_seconds(name: str, seconds: object) -> float:
    """Return `seconds` as a float if somebody can wait for that long; 0 means not at all."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(seconds).__name__}")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{name} must be 0 or a positive number of seconds, not {seconds!r}")
    return float(seconds)


def check_folder(folder: object, name: str = "folder_path") -> Path:
    """Return the absolute path, without links, of a folder on this machine, which need not exist yet."""
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"{name} must be a str or a path, not {type(folder).__name__}")
    path = os.fspath(folder)
    if not isinstance(path, str):
        raise TypeError(f"{name} must be a str or a path of str, not of {type(path).__name__}")
    if _URL.match(path):
        raise ValueError(f"{name} must be a folder on this machine, not the address {path!r}: log to a local folder")
    if "\0" in path:
        raise ValueError(f"{name} {path!r} holds a NUL character")
    # These functions, unlike those of a Path, do not raise for what the disk refuses: that is trouble for later.
    resolved = Path(os.path.realpath(os.path.expanduser(path)))  # noqa: PTH111
    if os.path.exists(resolved) and not os.path.isdir(resolved):  # noqa: PTH110, PTH112
        raise ValueError(f"{name} must be a folder, but {str(resolved)!r} is a file")
    return resolved


@dataclass(frozen=True, slots=True)
class Settings:
    """How a folder is pushed besides where to: what a later process needs to go on in the same way."""

    allow: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    private: bool | None = None
    squash: bool = False
    card: bool = True


P = ParamSpec("P")

PREFIX = "HF_SUMMARY_WRITER_"

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


def _switch(value: str) -> bool:
    if value.lower() in _YES:
        return True
    if value.lower() in _NO:
        return False
    raise ValueError(f"{value!r} is neither yes nor no: use 1 or 0")


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a number") from None


def _minutes(value: str) -> float:
    return check_interval("it", _number(value))


def _seconds(value: str) -> float:
    return check_seconds("it", _number(value))


# What fills in what: the end of the variable's name, and what makes a value of its text or raises a ValueError.
VARIABLES: dict[str, Callable[[str], object]] = {
    "REPO_ID": check_repo_id,
    "REPO_TYPE": check_repo_type,
    "REVISION": check_revision,
    "PRIVATE": _switch,
    "PATH_IN_REPO": check_path_in_repo,
    "COMMIT_EVERY": _minutes,
    "SQUASH_HISTORY": _switch,
    "CLOSE_TIMEOUT": _seconds,
    "MODEL_CARD": _switch,
}


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
    if said == Mode.OFFLINE.value or os.environ.get("HF_HUB_OFFLINE", "").lower() in _YES:
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


def fills_in(**arguments: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Let environment variables give a constructor the arguments that its caller left out.

    Args:
        **arguments: By the name of an argument, the end of its variable's name: one of `VARIABLES`.
    """

    def decorate(init: Callable[P, None]) -> Callable[P, None]:
        signature = inspect.signature(init)

        @functools.wraps(init)
        def filled(*args: P.args, **kwargs: P.kwargs) -> None:
            given = signature.bind_partial(*args, **kwargs).arguments
            init(*args, **{**_found(arguments, given), **kwargs})  # type: ignore[arg-type]

        return filled

    return decorate


def _found(arguments: dict[str, str], given: dict[str, Any]) -> dict[str, object]:
    found = {}
    for name, ending in arguments.items():
        text = os.environ.get(PREFIX + ending, "").strip()
        if text and name not in given:
            try:
                found[name] = VARIABLES[ending](text)
            except ValueError as error:
                raise ValueError(f"the environment variable {PREFIX}{ending} cannot be used: {error}") from None
    return found


def _is_pushed_from_outside(folder: Path) -> bool:
    pushed = os.environ.get(PUSHED_FOLDER, "")
    return bool(pushed) and folder.is_relative_to(Path(pushed).resolve())


EVENT_FILES = ("*.tfevents.*",)

UNSAID = Settings(allow=EVENT_FILES)

"""How `hf-summary-writer` pushes a folder unless its options say otherwise."""

_PUBLIC_HUB = "https://huggingface.co"

# On the command line no pattern means the usual ones. These mean all files, and none.
_ALL, _NONE = ("*",), ("",)


def sync_command(destination: Destination, folder: Path, settings: Settings, assumed_endpoint: str) -> str:
    """Return the command that sends what is missing of `folder` as its scheduler would, ready to paste into a shell.

    Args:
        destination: Where it goes.
        folder: The folder, an absolute path.
        settings: Which files of it, and how. What the command does by itself is left out of it.
        assumed_endpoint: The Hub that this process talks to unless told otherwise.
    """
    words = ["hf-summary-writer", "sync", str(folder), destination.repo_id, "--into", destination.path or "/"]
    if destination.repo_type != DEFAULT_TYPE:
        words += ["--repo-type", destination.repo_type]
    if destination.revision != DEFAULT_REVISION:
        words += ["--revision", destination.revision]
    command = shlex.join([*words, *_options(settings)])
    # Whether the shell that it is pasted into has the variables of this process is not known.
    if destination.endpoint == assumed_endpoint == _PUBLIC_HUB:
        return command
    return f"HF_ENDPOINT={shlex.quote(destination.endpoint)} {command}"


def _options(settings: Settings) -> list[str]:
    words = []
    if settings.private is not None:
        words.append("--private" if settings.private else "--public")
    if settings.allow != UNSAID.allow:
        for pattern in _ALL if settings.allow is None else settings.allow or _NONE:
            words += ["--allow", pattern]
    for pattern in settings.ignore or ():
        words += ["--ignore", pattern]
    if settings.squash:
        words.append("--squash-history")
    if not settings.card:
        words.append("--no-model-card")
    return words
