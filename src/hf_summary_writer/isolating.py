"""Commits files together, and where the Hub refuses them, finds those that it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from hf_summary_writer.errors import ActionNeededError, RejectedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["isolating"]

F = TypeVar("F")
R = TypeVar("R")

# So many files refused in a row, and none accepted, is no matter of single files.
_REFUSED_IN_A_ROW = 5


def isolating(
    files: list[F], commit: Callable[[list[F]], Iterable[tuple[R, list[F]]]], refuse: Callable[[F, str], None]
) -> Iterator[tuple[R, list[F]]]:
    """Yield what came of each commit, and the files in it.

    What the Hub refuses to commit is halved until the files that it refuses are alone.

    Args:
        files: What to commit.
        commit: Commits files, together or in several commits, of which it tells as this does. It raises
            `RejectedError` if the Hub refuses one of them, before which others may have been made.
        refuse: Told of a file that the Hub refuses even alone, and why.

    Raises:
        ActionNeededError: If the Hub refuses one file after the other, which is then no matter of these files.
    """
    waiting, refused, accepted = [files] if files else [], 0, False
    while waiting:
        part = waiting.pop()
        try:
            for result, done in commit(part):
                accepted = True
                part = [file for file in part if file not in done]
                yield result, done
        except RejectedError as error:
            if len(part) > 1:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
                continue
            refused += 1
            if refused >= _REFUSED_IN_A_ROW and not accepted:
                raise ActionNeededError(str(error)) from None
            refuse(part[0], str(error))
