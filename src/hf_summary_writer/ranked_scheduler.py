"""`RankedScheduler`: of the processes of a distributed run, one pushes a folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hf_summary_writer.encode import file_version
from hf_summary_writer.errors import PostponedError, TemporaryError
from hf_summary_writer.rank import Deputy, rank_of
from hf_summary_writer.scheduler import CommitScheduler
from hf_summary_writer.segment_name import parse_name
from hf_summary_writer.tfrecord import frame

if TYPE_CHECKING:
    from concurrent.futures import Future

    from huggingface_hub import CommitInfo

__all__ = ["RankedScheduler"]

_EMPTY = len(frame(file_version(1.0)))


class RankedScheduler(CommitScheduler):
    """A scheduler that, in a process that is not the main one of a run, leaves a folder to whoever pushes it.

    In such a process it pushes when it is asked to by `trigger`; when nobody else has pushed the folder for some
    intervals; and at the end, if the Hub does not have all that this very process has logged. Nothing is left behind,
    whichever process ends last and whatever disks they share.

    Args:
        every_rank: Whether to push like the main process in all of them.
        **kwargs: As for `CommitScheduler`.
    """

    def __init__(self, *, every_rank: bool, **kwargs: Any) -> None:
        """Start the thread, after looking up which process this is."""
        rank = rank_of(os.environ)
        self._deputy = None if every_rank or rank.is_main else Deputy(rank)
        self._asked = False
        super().__init__(**kwargs)

    def trigger(self) -> Future[CommitInfo | None]:
        """Ask for a push now, in whichever process."""
        # Before the push can begin, so that one that begins meanwhile covers this call, too.
        self._asked = True
        return super().trigger()

    def _push_once(self) -> CommitInfo | None:
        asked, self._asked = self._asked, False
        if self._deputy is None:
            return super()._push_once()
        if not asked and not self._is_needed(self._deputy):
            return None
        try:
            info = super()._push_once()
        except PostponedError:
            # It begins anew when its turn comes, and is still asked for then.
            self._asked = self._asked or asked
            raise
        if info is not None:
            self._deputy.pushed(info.oid)
        return info

    def _is_needed(self, deputy: Deputy) -> bool:
        self._before_push()
        self._pusher.refresh()
        commit = self._pusher.ledger.commit
        latest = None if commit is None else commit.oid
        if self._loop.seconds_left is not None:
            return deputy.is_in_charge(latest) or self._owes()
        return deputy.steps_in(latest, something_waits=self._pusher.inventory.pending().files > 0)

    def _owes(self) -> bool:
        """Tell whether something that this process has logged is not on the Hub."""
        arrivals = self._pusher.ledger.arrivals
        try:
            for candidate in self._pusher.inventory.candidates():
                name = parse_name(os.path.basename(candidate.relpath))  # noqa: PTH119 - as in all scans
                if name is not None and name.pid == os.getpid():
                    arrival = arrivals.get(candidate.relpath)
                    if candidate.signature.size > (_EMPTY if arrival is None else arrival.length):
                        return True
        except TemporaryError:
            return True  # the push itself says what is wrong with the folder
        return False
