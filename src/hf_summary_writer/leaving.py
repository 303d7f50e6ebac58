"""The end of a run: waiting for the last push, in bounded time, and saying what is still missing after it."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

from hf_summary_writer.futures import wait

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from huggingface_hub import CommitInfo

    from hf_summary_writer.destination import Destination
    from hf_summary_writer.inventory import Inventory, Pending

__all__ = ["Leaving"]

logger = logging.getLogger("hf_summary_writer")

# After this long, whoever waits for the end of a program is told what for.
_SECONDS_BEFORE_EXPLAINING = 1.0


class Leaving:
    """Waits for the last push of one folder. `close` and both passes of an exit share one patience.

    May be used from any thread.

    Args:
        folder: The folder.
        destination: Returns where it goes, its repo with a namespace once the Hub has said which.
        command: What sends what is missing, ready to paste into a shell.
        inventory: What is missing.
        seconds: How long all the waits of one leaving may take together.

    Attributes:
        patience: What is left of that.
        commits: How many commits were made; whoever makes one counts it here.
    """

    def __init__(
        self, folder: Path, destination: Callable[[], Destination], command: str, inventory: Inventory, seconds: float
    ) -> None:
        """Wait for nothing yet."""
        self._folder = folder
        self._destination = destination
        self._command = command
        self._inventory = inventory
        self._seconds = self.patience = seconds
        self._said_missing: Pending | None = None
        self._said_all = False
        self.commits = 0

    def begin_anew(self) -> None:
        """Have all the patience again: the run goes on."""
        self.patience = self._seconds

    def hurry(self) -> None:
        """Wait no more."""
        self.patience = 0.0

    def await_last(self, future: Future[CommitInfo | None], deadline: float, *, away: bool) -> None:
        """Wait for the last push, and say in one line what became of it.

        Args:
            future: The last push.
            deadline: Until when to wait, on the monotonic clock.
            away: Whether nothing is pushed from this process, since it is offline.

        Raises:
            KeyboardInterrupt: If Ctrl-C was pressed during the wait, which it skips.
        """
        began = time.monotonic()
        try:
            if not wait(future, min(_SECONDS_BEFORE_EXPLAINING, deadline - began)) and time.monotonic() < deadline:
                self._explain_the_wait(deadline - time.monotonic())
                wait(future, deadline - time.monotonic())
        except KeyboardInterrupt:
            self.hurry()
            raise
        finally:
            self.patience = max(0.0, self.patience - (time.monotonic() - began))
            if away or not future.done() or future.exception() is not None:
                self._say_what_is_missing(self._inventory.pending())
            else:
                self._say_what_arrived(self._inventory.pending())

    def _explain_the_wait(self, seconds: float) -> None:
        pending = self._inventory.pending()
        logger.log(
            # No trouble, so no warning; but who may sit there and wait should know what for.
            logging.WARNING if _is_watched() else logging.INFO,
            "Pushing %d files (%.1f MB) of %s to %s, for at most %.0f s; Ctrl-C skips the wait",
            pending.files,
            pending.bytes / 1e6,
            self._folder,
            self._destination().repo_id,
            seconds,
        )

    def _say_what_arrived(self, pending: Pending) -> None:
        if pending.refused or (pending.files and self._inventory.left_behind):
            self._say_what_is_missing(pending)
        elif self.commits and not self._said_all:
            # Somebody else may go on writing; what came after the last push, this process does not owe.
            self._said_all = pending.nothing
            what = "All of" if self._said_all else "All that the last push found of"
            logger.info("%s %s is at %s", what, self._folder, self._destination().known_url)

    def _say_what_is_missing(self, pending: Pending) -> None:
        if pending.missing and pending != self._said_missing:
            self._said_missing = pending
            logger.warning(
                "%d files (%.1f MB) of %s are not in %s yet%s. To send them: %s",
                pending.missing,
                pending.bytes / 1e6,
                self._folder,
                self._destination().repo_id,
                f", {pending.refused} of which it did not take" if pending.refused else "",
                self._command,
            )


def _is_watched() -> bool:
    """Tell whether somebody may be sitting at a terminal, who would wonder why the program does not end."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False
