"""Checks of single values: names on the Hub, paths, intervals, tokens. Pure functions."""

from __future__ import annotations

import inspect
import math
import numbers
import os
import re
import stat
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BUCKET",
    "DEFAULT_REVISION",
    "DEFAULT_TYPE",
    "NAME_BYTES",
    "NO",
    "PREFIX",
    "PUBLIC_HUB",
    "PULL_REQUESTS",
    "REPO_TYPES",
    "SHORTEST_SECRET",
    "YES",
    "as_file_name",
    "as_patterns",
    "as_unicode",
    "can_be_downloaded",
    "check_bytes",
    "check_endpoint",
    "check_folder",
    "check_hook",
    "check_interval",
    "check_path_in_repo",
    "check_repo_id",
    "check_repo_type",
    "check_revision",
    "check_seconds",
    "check_switch",
    "check_token",
    "has_long_name",
    "is_unicode",
    "shown",
    "without_password",
]

PREFIX = "HF_SUMMARY_WRITER_"

YES, NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})

# A storage bucket: no Git repo, but addressed like one.
BUCKET = "bucket"

REPO_TYPES = ("model", "dataset", "space", BUCKET)

DEFAULT_TYPE = REPO_TYPES[0]

DEFAULT_REVISION = "main"

# Branches that the Hub makes for pull requests, and nobody else can make.
PULL_REQUESTS = "refs/pr/"

# A shorter token is one of a test, and may occur in a file or message by chance.
SHORTEST_SECRET = 16

PUBLIC_HUB = "https://huggingface.co"

# The Hub's rules for names, as documented with huggingface_hub's `validate_repo_id`; a test holds the two together.
_REPO_NAME = re.compile(r"(?:\b[\w.-]{1,96}\b/)?\b[\w.-]{1,96}\b", flags=re.ASCII)

# The characters and sequences that `git check-ref-format` refuses in a branch name, and surrogates, which are no text.
_REVISION_REFUSED = re.compile(r"[\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]|\.\.|@\{|//|\.lock(?:/|$)|(?:^|/)\.|/$|^/|\.$")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

_ENDPOINT = re.compile(r"https?://[!-~]+", flags=re.IGNORECASE)

_PASSWORD = re.compile(r"(?<=://)[^/@\s]*@")

# The longest name of a file or folder: NAME_MAX of POSIX's limits.h on all of today's.
NAME_BYTES = 255

# Folders that the Hub keeps for itself or that its client refuses to write to.
_FORBIDDEN_PARTS = frozenset({".git", ".cache"})


# Enough of a wrong value to recognize it: it may be the content of a file.
_SHOWN_CHARACTERS = 200


def shown(value: object) -> str:
    """Return a wrong value for a message."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def check_repo_id(repo_id: object, name: str = "repo_id") -> str:
    """Return `repo_id` if the Hub could have such a repo, as `name` or `namespace/name`."""
    if repo_id is None:
        raise TypeError(
            f"{name} is missing: pass one such as 'user/my-run', or set the environment variable {PREFIX}REPO_ID"
        )
    if not isinstance(repo_id, str):
        raise TypeError(f"{name} must be a str such as 'user/my-run', not {type(repo_id).__name__}")
    if _URL.match(repo_id):
        raise ValueError(f"{name} {shown(without_password(repo_id))} is an address: write {_name_in(repo_id)}")
    if not _REPO_NAME.fullmatch(repo_id) or "--" in repo_id or ".." in repo_id or repo_id.endswith(".git"):
        raise ValueError(
            f"{name} {shown(repo_id)} is not a name the Hub allows: use 'name' or 'namespace/name' of letters, digits, "
            "'-', '_' and '.', without '--' or '..', not ending in '.git', at most 96 characters each"
        )
    return repo_id


def _name_in(address: str) -> str:
    """Return the repo or bucket that the address of a page of a Hub shows, for a message."""
    _, *path = re.split(r"[?#]", address.partition("://")[2])[0].split("/")
    kind, *rest = path or [""]
    is_kind = kind in {"datasets", "spaces", "buckets"}
    parts = rest if is_kind else [kind, *rest]
    found = "/".join(parts[:2])
    if len(parts) < 2 or not _REPO_NAME.fullmatch(found):
        return "'namespace/name'"
    return repr(f"hf://{kind}/{found}" if is_kind else found)


def check_repo_type(repo_type: object, name: str = "repo_type") -> str:
    """Return the repo type that `repo_type` means; `None` means a model repo."""
    if repo_type is None:
        return DEFAULT_TYPE
    if not isinstance(repo_type, str):
        raise TypeError(f"{name} must be one of {', '.join(REPO_TYPES)} as a str, not {type(repo_type).__name__}")
    if repo_type not in REPO_TYPES:
        raise ValueError(f"{name} {shown(repo_type)} does not exist on the Hub: use one of {', '.join(REPO_TYPES)}")
    return str(repo_type)


def check_revision(revision: object, name: str = "revision") -> str:
    """Return the branch that `revision` means; `None` means `main`."""
    if revision is None:
        return DEFAULT_REVISION
    if not isinstance(revision, str):
        raise TypeError(f"{name} must be the name of a branch as a str, not {type(revision).__name__}")
    if not revision or revision.startswith("-") or revision == "@" or _REVISION_REFUSED.search(revision):
        raise ValueError(f"{name} {shown(revision)} is not a name that Git allows for a branch")
    return revision


def check_path_in_repo(path: object, name: str = "path_in_repo") -> str:
    """Return `path` without slashes at its ends; `None` and `""` mean the root of the repo."""
    if path is None:
        return ""
    if not isinstance(path, str):
        raise TypeError(f"{name} must be a str such as 'tensorboard', not {type(path).__name__}")
    stripped = path.strip("/")
    parts = stripped.split("/") if stripped else []
    if (
        not can_be_downloaded(path)
        or any(part in {"", ".", ".."} for part in parts)
        or any(part.lower() in _FORBIDDEN_PARTS for part in parts)
        # The Hub's client downloads no repo in which a name begins as a drive of Windows does.
        or any(part[1:2] == ":" for part in parts)
    ):
        raise ValueError(
            f"{name} {shown(path)} cannot be used: give a relative path with '/' between its parts, without '.', "
            "'..', '.git', '.cache', empty parts, parts such as 'c:', backslashes, control characters or bytes "
            "that are no UTF-8"
        )
    return stripped


def can_be_downloaded(name: str) -> bool:
    """Return whether the Hub's client downloads a file with these characters in its name."""
    has_control = any(ord(character) < ord(" ") or character == "\x7f" for character in name)
    return "\\" not in name and is_unicode(name) and not has_control


def as_unicode(name: str) -> str:
    """Return the name of a file or folder as text.

    Where the locale is ASCII, as in a cron job or a bare container, Python gives names in UTF-8 with surrogates.
    """
    try:
        return os.fsencode(name).decode()
    except UnicodeError:
        return name


def as_file_name(text: str) -> str:
    """Return text as the name of a file or folder that can be made: `as_unicode` the other way round.

    Raises:
        UnicodeEncodeError: If it holds surrogates that stand for no bytes.
    """
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return os.fsdecode(text.encode())
    return text


def has_long_name(path: str) -> bool:
    """Return whether a part of a path is longer than the name of a file or folder can be."""
    return any(len(os.fsencode(part)) > NAME_BYTES for part in Path(path).parts)


def is_unicode(text: str) -> bool:
    # Bytes of a file name that are no UTF-8 become surrogates, which no request and no event can carry.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(value: object, name: str, unit: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number of {unit}, not {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def check_interval(minutes: object, name: str = "every") -> float:
    """Return `minutes` as a float, at most as many as a timer can wait for."""
    found = _number(minutes, name, "minutes")
    if not found > 0 or not math.isfinite(found):
        raise ValueError(f"{name} must be a positive number of minutes (fractions are fine), not {minutes!r}")
    return min(found, threading.TIMEOUT_MAX / 60)


def check_token(token: object, name: str = "token") -> str | bool | None:
    """Return `token` without white space around it; never repeat it in a message."""
    if token is None or isinstance(token, bool):
        return token
    if not isinstance(token, str):
        raise TypeError(f"{name} must be a str, not {type(token).__name__}")
    stripped = token.strip()
    if not stripped:
        raise ValueError(f"{name} is empty: leave it out to use the token that `hf auth login` has stored")
    if not stripped.isascii() or not stripped.isprintable() or " " in stripped:
        raise ValueError(f"{name} holds characters that no access token has: copy it again (it is not shown here)")
    return stripped


def check_seconds(seconds: object, name: str = "close_timeout", *, may_be_endless: bool = False) -> float:
    """Return `seconds` as a float, at most as many as a thread can wait for; 0 means not at all."""
    found = _number(seconds, name, "seconds")
    if not found >= 0 or (found == math.inf and not may_be_endless):
        raise ValueError(f"{name} must be 0 or a positive number of seconds, not {seconds!r}")
    return min(found, threading.TIMEOUT_MAX)


def check_some_seconds(seconds: object, name: str) -> float:
    """Return `seconds` as a float if it is a length of time."""
    if not (found := check_seconds(seconds, name)):
        raise ValueError(f"{name} must be a positive number of seconds, not {seconds!r}")
    return found


def check_bytes(size: object, name: str) -> float:
    """Return `size` as a float if it is a positive number of bytes; it may be infinite."""
    found = _number(size, name, "bytes")
    if not found > 0:
        raise ValueError(f"{name} must be a positive number of bytes, not {size!r}")
    return found


def check_endpoint(endpoint: object, name: str = "endpoint") -> str:
    """Return the address of a Hub without a slash at its end."""
    if not isinstance(endpoint, str):
        raise TypeError(f"{name} must be a str such as 'https://huggingface.co', not {type(endpoint).__name__}")
    if not _ENDPOINT.fullmatch(endpoint) or not _has_host(endpoint):
        raise ValueError(f"{name} {shown(without_password(endpoint))} is no address such as 'https://huggingface.co'")
    if _PASSWORD.search(endpoint):
        raise ValueError(f"{name} holds a password, which others may see: set HF_ENDPOINT instead")
    return endpoint.rstrip("/")


def _has_host(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number or too large, or half an IPv6 address
        return False


def without_password(text: str) -> str:
    """Return `text` without the user names and passwords of the addresses in it."""
    return _PASSWORD.sub("", text)


def check_switch(value: object, name: str) -> bool | None:
    """Return `value` if it is `True`, `False` or `None`, as a `bool` if it is one of NumPy."""
    if value is None or isinstance(value, bool):
        return value
    if type(value).__module__ == "numpy" and type(value).__name__ in {"bool", "bool_"}:
        return bool(value)
    raise TypeError(f"{name} must be True or False, not {type(value).__name__}")


def check_hook(hook: object, name: str) -> Callable[[Any], object] | None:
    """Return `hook` if it is `None` or can be called with one argument."""
    if hook is None:
        return None
    if not callable(hook):
        raise TypeError(f"{name} must be a function, not {type(hook).__name__}")
    if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__):
        raise TypeError(f"{name} must be a plain function: no event loop would run a coroutine function")
    try:
        # Not that of a wrapped function, which is not the one that is called.
        signature = inspect.signature(hook, follow_wrapped=False)
    except Exception:  # noqa: BLE001 - functions of C may have none, and Python 3.14 evaluates annotations for it
        return hook
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(f"{name} must be a function of one argument: {error}") from None
    return hook


def as_patterns(patterns: object, name: str = "patterns") -> tuple[str, ...] | None:
    """Return one or several patterns as a tuple; `None` stays `None`.

    Raises:
        TypeError: If one of them is not a string; the message calls them `name`.
    """
    if patterns is None:
        return None
    if isinstance(patterns, str):
        return (patterns,)
    # The items of bytes are numbers, and an array of NumPy without dimensions has no items.
    if not isinstance(patterns, Iterable) or isinstance(patterns, bytes) or getattr(patterns, "shape", None) == ():
        raise TypeError(f"{name} must be a str or a list of str, not {type(patterns).__name__}")
    found = []
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{name} must be a str or a list of str, but holds a {type(pattern).__name__}")
        found.append(pattern)
    return tuple(found)


def is_no_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether something other than a folder is certainly there; a disk error is not taken as proof."""
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116 - a str as well
    except OSError:
        return False


def check_folder(folder: object, name: str = "folder_path") -> Path:
    """Return the absolute path, without links, of a folder on this machine, which need not exist yet."""
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"{name} must be a str or a path, not {type(folder).__name__}")
    path = os.fspath(folder)
    if not isinstance(path, str):
        raise TypeError(f"{name} must be a str or a path of str, not of {type(path).__name__}")
    try:
        path = as_file_name(path)
    except UnicodeEncodeError:
        raise ValueError(f"{name} {shown(path)} holds characters that no file name has") from None
    if not path:  # as an unset variable of a shell gives it; to Python it is the working folder
        raise ValueError(f"{name} is empty: use . for the working folder")
    if _URL.match(path):
        raise ValueError(
            f"{name} must be a folder on this machine, not the address {shown(path)}: log to a local folder"
        )
    if "\0" in path:
        raise ValueError(f"{name} {shown(path)} holds a NUL character")
    if has_long_name(path):
        raise ValueError(f"{name} {shown(path)} holds a name longer than {NAME_BYTES} bytes")
    # Unlike the method of Path, this function does not raise for disk errors, which the first push reports.
    try:
        resolved = Path(os.path.realpath(os.path.expanduser(path)))  # noqa: PTH111
    except OSError:
        raise ValueError(
            f"{name} {path!r} is relative, and the working folder does not exist any more: give an absolute path"
        ) from None
    if is_no_folder(resolved):
        raise ValueError(f"{name} must be a folder, but {str(resolved)!r} is a file")
    return resolved
