"""Which files of a folder are meant: allow and ignore patterns with the Hub's own meaning.

Patterns are those of `huggingface_hub.utils.filter_repo_objects`: case-sensitive `fnmatch` patterns against the whole
relative path, where `*` also matches `/`, and a pattern that ends in `/` means everything below that folder. All
patterns of a list are joined into one regular expression, since a folder may hold tens of thousands of files.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from hf_summary_writer.config import as_patterns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["DEFAULT_IGNORE_PATTERNS", "SECRET_PATTERNS", "PathFilter"]

# What huggingface_hub never uploads from a folder (its `DEFAULT_IGNORE_PATTERNS`; a test holds the two together).
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
_SECRETS = (".env", ".env.*", ".envrc", ".netrc", ".git-credentials", ".ssh/*", ".aws/*", ".gnupg/*")

SECRET_PATTERNS = tuple(pattern for secret in _SECRETS for pattern in (secret, f"*/{secret}"))


class PathFilter:
    """Decides by its relative path whether a file is to be pushed.

    Args:
        allow: A pattern or patterns, of which a path must match at least one; `None` allows all.
        ignore: A pattern or patterns, of which a path must match none, besides the defaults of this module.

    Raises:
        TypeError: If a pattern is not a string.
    """

    __slots__ = ("_allow", "_ignore")

    def __init__(self, allow: Iterable[str] | str | None = None, ignore: Iterable[str] | str | None = None) -> None:
        """Compile the patterns."""
        allowed, ignored = as_patterns(allow, "allow_patterns"), as_patterns(ignore, "ignore_patterns") or ()
        self._allow = None if allowed is None else _compiled(allowed)
        self._ignore = _compiled([*ignored, *DEFAULT_IGNORE_PATTERNS, *SECRET_PATTERNS])

    def __call__(self, relpath: str) -> bool:
        """Tell whether the file at `relpath` (with `/` between its parts) is meant."""
        if self._allow is not None and not self._allow(relpath):
            return False
        return not self._ignore(relpath)

    def prunes(self, reldir: str) -> bool:
        """Tell whether nothing below `reldir` can ever be meant, so that a scan need not go there."""
        parts = f"/{reldir}/"
        return "/.git/" in parts or "/.cache/huggingface/" in parts


def _normal(pattern: str) -> str:
    pattern = pattern.replace("\\", "/")
    return pattern + "*" if pattern.endswith("/") else pattern


def _compiled(patterns: Iterable[str]) -> Callable[[str], object]:
    # "(?!)" matches nothing: of no patterns, none matches.
    return re.compile("|".join(fnmatch.translate(_normal(pattern)) for pattern in patterns) or r"(?!)").match
