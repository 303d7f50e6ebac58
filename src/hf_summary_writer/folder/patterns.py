"""Allow and ignore patterns with the Hub's own meaning, and the files that hold credentials.

Patterns are those of `huggingface_hub.utils.filter_repo_objects`: case-sensitive `fnmatch` patterns against the whole
relative path, where `*` also matches `/`, and a pattern that ends in `/` means everything below that folder. All
patterns of a list are joined into one regular expression, since a folder may hold tens of thousands of files.
"""

from __future__ import annotations

import fnmatch
import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hf_summary_writer.checks import as_patterns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# Files that huggingface_hub never uploads from a folder (its `DEFAULT_IGNORE_PATTERNS`; a test compares the two).
DEFAULT_IGNORE_PATTERNS = (
    ".git",
    ".git/*",
    "*/.git",
    "**/.git/**",
    ".cache/huggingface",
    ".cache/huggingface/*",
    "*/.cache/huggingface",
    "**/.cache/huggingface/**",
)

# Files that by convention hold credentials: a watched folder may be somebody's working or home folder.
_SECRETS = (
    # Environments, and the credentials of HTTP clients.
    *(".env", ".env.*", ".envrc", ".netrc", "_netrc", ".git-credentials", ".htpasswd"),
    # Package registries.
    *(".npmrc", ".yarnrc", ".yarnrc.yml", ".pypirc", ".condarc", ".gem/credentials", ".cargo/credentials*"),
    # Keys.
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.pem", "*.ppk", "*.p12", "*.pfx"),
    *(".ssh/*", ".gnupg/*", ".vault-token", ".pgpass", ".my.cnf"),
    # Clouds and clusters.
    *(".aws/*", ".azure/*", ".boto", ".s3cfg", ".config/gcloud/*", "gcloud/*.db", ".databrickscfg"),
    *("application_default_credentials.json", ".docker/config.json", ".dockercfg", ".kube/*", ".terraformrc"),
    # Services that experiments use.
    *(".huggingface/*", "huggingface/token", "huggingface/stored_tokens", ".kaggle/*", "kaggle.json"),
    *(".config/gh/*", ".config/wandb/*", "wandb/settings", ".streamlit/secrets.toml"),
)

SECRET_PATTERNS = tuple(pattern for secret in _SECRETS for pattern in (secret, f"*/{secret}"))

# A name as every writer gives its files.
_AN_EVENT_FILE = "events.out.tfevents.1.host"


class PathFilter:
    """Decides by its relative path whether a file is pushed.

    Files with credentials never are; their patterns ignore case.

    Args:
        allow: A pattern or patterns, of which a path must match at least one; `None` allows all.
        ignore: A pattern or patterns, of which a path must match none, besides the defaults of this module.
        private: Paths of files and folders that are never pushed.

    Raises:
        TypeError: If a pattern is not a string.
    """

    __slots__ = ("_allow", "_ignore", "_is_secret", "_private")

    def __init__(
        self,
        allow: Iterable[str] | str | None = None,
        ignore: Iterable[str] | str | None = None,
        private: frozenset[str] = frozenset(),
    ) -> None:
        allowed, ignored = as_patterns(allow, "allow_patterns"), as_patterns(ignore, "ignore_patterns") or ()
        self._allow = None if allowed is None else _compiled(allowed)
        self._ignore = _compiled([*ignored, *DEFAULT_IGNORE_PATTERNS])
        self._is_secret = _compiled(SECRET_PATTERNS, re.IGNORECASE)
        self._private = private

    def __call__(self, relpath: str) -> bool:
        """Return whether the file at `relpath` (with `/` between its parts) is pushed."""
        if self._allow is not None and not self._allow(relpath):
            return False
        return not (self._ignore(relpath) or self._is_secret(relpath) or relpath in self._private)

    def takes_events_in(self, reldir: str) -> bool:
        """Return whether event files directly in the folder `reldir` are pushed."""
        return self(PurePosixPath(reldir, _AN_EVENT_FILE).as_posix())

    def is_private(self, relpath: str) -> bool:
        """Return whether the file is never pushed, also under another name: it may hold credentials, or is Git's."""
        return self.prunes(relpath) or bool(self._is_secret(relpath))

    def ignores(self, reldir: str) -> bool:
        """Return whether the patterns to ignore name a folder as such, as `data/` does."""
        return bool(self._ignore(f"{reldir}/"))

    def prunes(self, reldir: str) -> bool:
        """Return whether no file below `reldir` can ever be pushed, so that a scan need not go there."""
        parts = f"/{reldir}/"
        return (
            "/.git/" in parts
            or "/.cache/huggingface/" in parts
            or any(parts.startswith(f"/{place}/") for place in self._private)
        )


def _normal(pattern: str) -> str:
    pattern = pattern.replace("\\", "/")
    return pattern + "*" if pattern.endswith("/") else pattern


def private_places(folder: Path, environment: Mapping[str, str]) -> frozenset[str]:
    """Return the paths in `folder` of the client's own home (`HF_HOME`) and of its tokens, as far as they lie in it."""
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = _real(environment.get("HF_HOME") or f"{cache}/huggingface")
    tokens = {environment.get("HF_TOKEN_PATH"), environment.get("HF_STORED_TOKENS_PATH")} - {None, ""}
    places = {home, home / "token", home / "stored_tokens", *(_real(token) for token in tokens if token)}
    # A user who pushes the home itself, or a folder in it, means that folder.
    return frozenset(place.relative_to(folder).as_posix() for place in places if folder in place.parents)


def _real(path: str) -> Path:
    # Unlike the methods of a Path these raise nothing, even for an invalid path.
    return Path(os.path.realpath(os.path.expanduser(os.path.expandvars(path))))  # noqa: PTH111


def _compiled(patterns: Iterable[str], flags: int = 0) -> Callable[[str], object]:
    # "(?!)" matches nothing: of no patterns, none matches.
    return re.compile("|".join(fnmatch.translate(_normal(pattern)) for pattern in patterns) or r"(?!)", flags).match
