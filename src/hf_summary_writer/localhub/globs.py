"""The patterns of `.gitignore` and `.gitattributes`, matched in a time that grows with their length alone.

Git's library translates a pattern to one regular expression, and a hostile `*a*a*a*a` takes that for ever. Here each
part of a path is matched for itself, by the standard library's translation, which never goes back over a star.
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
        self.folders_only = text.endswith("/")
        text = text.rstrip("/")
        parts = text.lstrip("/").split("/")
        if "/" not in text:
            parts = ["**", *parts]
        # Two stars at the end match all that is below, and not the folder itself.
        self._parts = [*parts, "*"] if parts[-1] == "**" else parts

    def matches(self, path: Sequence[str]) -> bool:
        """Return whether the path with these parts matches; not whether one of its folders does."""
        if len(self._parts) == len(("**", "name")) and self._parts[0] == "**":
            return self._fits(1, path[-1])
        # Which parts of the pattern may come next, given the parts of the path so far.
        places = self._skip({0})
        for name in path:
            following = {at for at in places if at < len(self._parts) and self._parts[at] == "**"}
            following |= {at + 1 for at in places - following if at < len(self._parts) and self._fits(at, name)}
            places = self._skip(following)
        return len(self._parts) in places

    def _skip(self, places: set[int]) -> set[int]:
        # Two stars match no part as well.
        for at, part in enumerate(self._parts):
            if part == "**" and at in places:
                places.add(at + 1)
        return places

    def _fits(self, at: int, name: str) -> bool:
        return _compiled(self._parts[at]).match(name) is not None


@lru_cache(maxsize=4096)
def _compiled(part: str) -> re.Pattern[str]:
    # A set with one character in it is how `fnmatch` spells what Git quotes with a backslash.
    return re.compile(fnmatch.translate(re.sub(r"\\(.)", r"[\1]", part).replace("[^", "[!")))
