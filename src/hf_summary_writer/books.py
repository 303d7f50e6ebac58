"""The ledger and the lock of a folder, as far as the disk allows: what goes wrong with it becomes one warning."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hf_summary_writer.folder_lock import LockUnavailableError, folder_lock
from hf_summary_writer.ledger import STATE_FOLDER, Ledger, LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hf_summary_writer.destination import Destination
    from hf_summary_writer.trouble import Once

__all__ = ["Books"]


class Books:
    """What is known to have arrived of one folder at one destination, and the right to push it.

    Not thread-safe: its owner uses it from one thread at a time.

    Args:
        folder: The folder, an absolute path without links.
        destination: Where it goes.
        once: Says what is wrong with the disk.

    Attributes:
        ledger: What has arrived.
        state_folder: Where all that is kept on disk.
    """

    def __init__(self, folder: Path, destination: Destination, once: Once) -> None:
        """Look at nothing yet."""
        self._folder = folder
        self._once = once
        self.state_folder = folder / STATE_FOLDER
        self.ledger = Ledger(self.state_folder / f"{destination.key}.jsonl", destination)

    @property
    def lock_path(self) -> Path:
        """The file whose lock means that somebody pushes this folder."""
        return self.state_folder / "push.lock"

    def refresh(self) -> None:
        """Read what other processes have pushed."""
        try:
            self.ledger.refresh()
        except LedgerError as error:
            self._once.warn("ledger", f"All of {self._folder} is looked at, since what arrived is not known: {error}")
        except OSError as error:
            self._say_state_is_lost(error)

    def note(self, write: Callable[[], None]) -> None:
        """Write to the ledger; what cannot be written is known to this process all the same."""
        try:
            write()
        except OSError as error:
            self._say_state_is_lost(error)

    @contextlib.contextmanager
    def locked(self, seconds: float, interrupted: Callable[[], bool]) -> Iterator[None]:
        """Push alone for the length of a `with` block.

        Args:
            seconds: How long to wait for another holder.
            interrupted: Asked while waiting; true ends the wait.

        Raises:
            TemporaryError: If another process or thread pushed for all that time.
        """
        with contextlib.ExitStack() as held:
            try:
                self.state_folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(folder_lock(self.lock_path, seconds, interrupted))
            except (LockUnavailableError, OSError) as error:
                # Pushes are safe without the lock, since they only ever repeat; they may then send something twice.
                self._say_state_is_lost(error)
            yield

    def _say_state_is_lost(self, error: Exception) -> None:
        # One cause, and one warning: where no lock can be, no ledger can be written, and the other way round.
        self._once.warn(
            "state",
            f"{self.state_folder} cannot be used ({error}): pushes go on, but what arrived is known to this "
            "process alone, so let no other one push this folder",
        )
