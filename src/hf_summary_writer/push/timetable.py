"""When a folder is pushed next, and the state of its pushes. Pure; the loop does the waiting."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from hf_summary_writer.errors import (
    ActionNeededError,
    FolderBusyError,
    PostponedError,
    PushError,
    UnreachableError,
    UnwrittenError,
    describe,
)

if TYPE_CHECKING:
    from collections.abc import Callable

BASE_SECONDS = 2.0

# The jitter of a wait that the Hub asked for, as a share of it: writers told the same wait do not retry together.
_SPREAD = 0.1


def delay_after(error: Exception, failures: int, interval: float, chance: float) -> float:
    """Return the seconds to wait before the next attempt.

    Temporary errors back off exponentially with full jitter, capped by the interval: many runs that lost the Hub at the
    same moment do not retry at the same moment. Errors that need action are retried once per interval. A wait that the
    Hub asked for is respected, with a little jitter; one of no seconds does not mean without a pause.

    Args:
        error: The error of the attempt.
        failures: How many attempts failed in a row, this one included; at least 1.
        interval: Seconds between pushes.
        chance: A random number in [0, 1).
    """
    own = min(interval, BASE_SECONDS * 2.0 ** min(failures - 1, 30)) * chance
    asked = error.retry_after if isinstance(error, PushError) else None
    if asked is not None:
        return max(own, asked * (1 + _SPREAD * chance))
    if isinstance(error, ActionNeededError) or not isinstance(error, PushError):
        return interval
    return own


# While waiting in the commit queue, check this often whether others have left it.
_LOOK_AGAIN_SECONDS = 60.0
# How soon to check whether another process still pushes the folder.
_BUSY_SECONDS = 0.25


class Throttled(NamedTuple):
    """A push interval that is longer than requested.

    Attributes:
        seconds: The current interval.
        why: The reason, for people.
    """

    seconds: float
    why: str


class Phase(Enum):
    """The phase of a folder's pushes."""

    IDLE = "idle"
    PUSHING = "pushing"
    WAITING = "waiting"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class State:
    """The state of one folder's pushes.

    Attributes:
        phase: The current phase.
        seconds: How much longer it waits, for `Phase.WAITING`.
        error: Why the last push failed.
        throttled: The longer interval and its reason, if pushes are throttled.
    """

    phase: Phase
    seconds: float = 0.0
    error: Exception | None = None
    throttled: Throttled | None = None


class Result(Enum):
    """The consequence of a push that has ended."""

    DONE = "done"
    FAILED = "failed"
    AGAIN = "again"  # the same push is made once more, later
    GIVEN_UP = "given up"  # it failed, and its next attempt would come after the end


class Timetable:
    """The times of one folder's pushes.

    Args:
        interval: Seconds between pushes.
        now: The time; the first push is due at once.
        chance: Source of randomness for the back-off.
    """

    def __init__(self, interval: float, now: float, chance: Callable[[], float]) -> None:
        self.interval = interval
        self._chance = chance
        self._due = now
        self._not_before = 0.0
        self._postponed: PostponedError | None = None
        self._postponed_at = self._postponed_until = 0.0
        self._busy_since: float | None = None
        self._last_done: float | None = None
        self._failures = 0
        self.error: Exception | None = None
        self.finish_by: float | None = None

    def begin_anew(self, now: float) -> None:
        """Make a push due at once, and forget the time of the last one."""
        self._due, self.finish_by = now, None

    def ready_at(self, *, requested: bool) -> float:
        """Return when the next push may begin.

        A request skips our own back-off, but neither a wait that the Hub asked for, nor the wait in the commit queue,
        nor the back-off of the last push.
        """
        if requested:
            own = self._not_before if self.hub_asked_to_wait or self.finish_by is not None else 0.0
        else:
            own = max(self._due, self._not_before)
        return max(own, self._postponed_until)

    def bring_forward(self, now: float, share: float) -> bool:
        """Make a push due now that is due soon; return whether it is.

        In this way folders that share a repo share commits as well.

        Args:
            now: The time.
            share: The part of the interval within which it has to be due.
        """
        has_to_wait = max(self._not_before, self._postponed_until) > now
        if has_to_wait or self._due > now + self.interval * share:
            return False
        self._due = min(self._due, now)
        return True

    def finish(self, now: float, seconds: float) -> bool:
        """Begin the last push, to end within `seconds`; return False if a wait that the Hub asked for is longer."""
        self.finish_by = now + seconds
        self._postponed, self._postponed_until = None, 0.0
        if not self.hub_asked_to_wait:
            self._not_before = 0.0
            return True
        return self._not_before < self.finish_by

    def is_hopeless(self, ready: float) -> bool:
        """Return whether a push that may begin at `ready` comes after the end."""
        return self.finish_by is not None and ready >= self.finish_by

    def waits_for_folder(self, now: float, error: BaseException | None) -> bool:
        """Return whether a push that ended now with `error` only waits for the one of another process."""
        if not isinstance(error, FolderBusyError) or self.is_hopeless(now + _BUSY_SECONDS):
            return False
        since = now if self._busy_since is None else self._busy_since
        return self.finish_by is not None or now - since < max(self.interval, 1.0)

    def settle(self, now: float, error: BaseException | None) -> Result:
        """Schedule the next push after one that ended now, with `error` if it failed."""
        self._postponed, self._postponed_until = None, 0.0
        if self.waits_for_folder(now, error):
            self._busy_since = now if self._busy_since is None else self._busy_since
            # Each check scans the folder. A last push has little time to wait.
            waited = 0.0 if self.finish_by is not None else now - self._busy_since
            self._postponed_until = now + max(_BUSY_SECONDS, waited / 8)
            return Result.AGAIN
        if isinstance(error, FolderBusyError) and self.finish_by is not None:
            self.error = error
            return Result.GIVEN_UP
        self._busy_since = None
        if error is None:
            self._failures, self.error, self._not_before = 0, None, 0.0
            self._due, self._last_done = now + self.interval, now
            return Result.DONE
        if isinstance(error, PostponedError):
            if self.finish_by is None:  # else it has become the last push, which need not wait for its turn
                self._postponed, self._postponed_at = error, now
                self._postponed_until = now + min(error.seconds, max(_LOOK_AGAIN_SECONDS, error.seconds / 8))
            return Result.AGAIN
        self._failures += 1
        self.error = error if isinstance(error, Exception) else RuntimeError(describe(error))
        self._not_before = self._due = now + delay_after(self.error, self._failures, self.interval, self._chance())
        if self.finish_by is None:
            return Result.FAILED
        # Without a network, the end of a run would wait all of its time for the Hub. A writer that has closed has given
        # up on the disk.
        is_vain = isinstance(error, UnwrittenError) or (isinstance(error, UnreachableError) and not error.was_reached)
        return Result.GIVEN_UP if is_vain or self.is_hopeless(self._not_before) else Result.AGAIN

    def seconds_to_wait(self, now: float) -> float:
        """Return the remaining wait in seconds, other than for the interval."""
        turn = 0.0 if self._postponed is None else self._postponed_at + self._postponed.seconds
        return max(0.0, self._not_before - now, turn - now)

    @property
    def hub_asked_to_wait(self) -> bool:
        """Whether the last push failed with a wait that the Hub asked for."""
        return isinstance(self.error, PushError) and bool(self.error.retry_after)

    @property
    def throttled(self) -> Throttled | None:
        """The current interval if the commit queue makes it longer; `None` otherwise."""
        if self._postponed is None:
            return None
        since = self._last_done if self._last_done is not None else self._postponed_at
        apart = self._postponed_at - since + self._postponed.seconds
        return Throttled(max(self.interval, apart), str(self._postponed))
