"""The push of a writer's logdir, which several writers, ranks and an owner of a folder above may push as well."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hf_summary_writer.events import parse_name
from hf_summary_writer.folder import NO_EVENT_BYTES, Lease, owner_above
from hf_summary_writer.notices import logger
from hf_summary_writer.push.job import Job
from hf_summary_writer.push.run_state import RunPhase

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from hf_summary_writer.hub import Remote
    from hf_summary_writer.push.runs import Run


class RunJob(Job):
    """The logdir of a writer, whose events are written to the disk before each push.

    Its pushes are left to the owner of a folder above, and scheduled ones to the owner of the folder.

    Args:
        run: The run.
        remote: As for `Job`.
        content_lock: As for `Job`.
        is_other_rank: Whether this process is one of those of a distributed run that leave scheduled pushes to rank 0.
    """

    def __init__(
        self, run: Run, remote: Remote, *, content_lock: AbstractContextManager[object], is_other_rank: bool
    ) -> None:
        super().__init__(
            run.folder,
            run.config,
            remote,
            content_lock=content_lock,
            announces=not is_other_rank,  # one process of a distributed run speaks for all
            runs=run,
            lease=Lease(run.folder, run.config, waits=is_other_rank, covers_below=False),
        )
        self.run = run
        self._is_other_rank = is_other_rank
        self._has_writer = True
        self._dropped = 0

    @property
    def url(self) -> str | None:
        return self.full_destination.url  # also before the first event file is uploaded

    @property
    def is_abandoned(self) -> bool:
        return not self._has_writer and (self.owner_above is not None or not self.inventory.pending().files)

    def flush(self) -> bool:
        writer = self.run.flush()
        if writer is None:
            self.run.end(RunPhase.FINISHED)
            self._has_writer = False
            return True
        is_behind, dropped = writer.is_behind, writer.dropped_events
        before, self._dropped = self._dropped, dropped
        self.has_lost: bool = is_behind or dropped > 0
        return not is_behind and dropped == before

    def _may_look(self) -> bool:
        above = owner_above(self.folder, self.destination, self.remote.repo_id)
        if above is None:
            self.owner_above = None
            return self.asked or self.final or self.lease.may_claim()
        if above != self.owner_above:
            logger.info("%s only writes to disk, because another process uploads %s", self.folder, above)
        self.owner_above = above
        self._was_left_to_others = True
        self.leave_state()
        return False

    def _may_push(self) -> bool:
        if self.asked:
            return True
        if not self.final:
            return self.lease.claim(self.remote.repo_id)
        return not self._is_other_rank or self.lease.held or self._owes()

    def _owes(self) -> bool:
        """Return whether something that this very process has logged is not on the Hub."""
        for file in self.inventory.changed():
            name = parse_name(file.relpath)
            if name is not None and name.pid == os.getpid():
                known = self.ledger.entries.get(file.relpath)
                if file.signature.size > (NO_EVENT_BYTES if known is None else known.length):
                    return True
        return False
