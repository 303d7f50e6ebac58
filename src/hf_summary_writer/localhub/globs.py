"""The patterns of `.gitignore` and `.gitattributes`, matched without exponential backtracking.

Dulwich translates a pattern to one regular expression, which takes exponential time for a hostile `*a*a*a*a`. Here each
part of a path is matched on its own with the translation of `fnmatch`, which does not backtrack over a star.
"""

from __future__ import annotations

import fnmatch
import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Glob:
    """A pattern as in `.gitignore`, without its `!`.

    Args:
        text: the pattern. One with a slash, other than at its end, counts from the root; one that ends with a slash
            matches folders alone.
    """

    def __init__(self, text: str) -> None:
        self.folders_only: bool = text.endswith("/")
        text = text.rstrip("/")
        parts = text.lstrip("/").split("/")
        if "/" not in text:
            parts = ["**", *parts]
        # `**` at the end matches everything below the folder, but not the folder itself.
        self._parts = [*parts, "*"] if parts[-1] == "**" else parts

    def matches(self, path: Sequence[str]) -> bool:
        """Return whether a path, given by its parts, matches; its parent folders are not considered."""
        if len(self._parts) == len(("**", "name")) and self._parts[0] == "**":
            return self._fits(1, path[-1])
        # The positions in the pattern that are possible after the parts of the path so far.
        places = self._skip({0})
        for name in path:
            following = {at for at in places if at < len(self._parts) and self._parts[at] == "**"}
            following |= {at + 1 for at in places - following if at < len(self._parts) and self._fits(at, name)}
            places = self._skip(following)
        return len(self._parts) in places

    def _skip(self, places: set[int]) -> set[int]:
        # `**` also matches no part.
        for at, part in enumerate(self._parts):
            if part == "**" and at in places:
                places.add(at + 1)
        return places

    def _fits(self, at: int, name: str) -> bool:
        return _compiled(self._parts[at]).match(name) is not None


@lru_cache(maxsize=4096)
def _compiled(part: str) -> re.Pattern[str]:
    # `fnmatch` has no backslash escapes; a set with one character is equivalent.
    return re.compile(fnmatch.translate(re.sub(r"\\(.)", r"[\1]", part).replace("[^", "[!")))
