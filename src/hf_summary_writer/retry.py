"""How long to wait after a failed push. Pure; the scheduler does the waiting."""

from __future__ import annotations

from hf_summary_writer.errors import ActionNeededError, PushError

__all__ = ["delay_after"]

BASE_SECONDS = 2.0
# Several writers told to wait by the same answer come back spread over this share of the wait.
_SPREAD = 0.1


def delay_after(error: Exception, failures: int, interval: float, chance: float) -> float:
    """Return the seconds to wait before the next attempt.

    Temporary errors back off exponentially with full jitter, capped by the interval: many runs that lost the Hub at the
    same moment do not come back at the same moment. What only the user can change is looked at once per interval. A
    wait that the Hub asked for is kept, a little spread, and one of no seconds does not mean without a pause.

    Args:
        error: What the attempt failed with.
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
