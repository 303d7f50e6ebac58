"""The Hub's optional rate limits: API requests per five minutes and commits per hour."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hf_summary_writer.localhub.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WINDOW_SECONDS = 300
_HOUR_SECONDS = 3600
_MINUTE_SECONDS = 60
_NEARLY_AN_HOUR_MINUTES = 45
# The documented limit of a free account; without `requests_per_5min` it is reported, but not enforced.
_SHOWN_QUOTA = 1000


class Limits:
    """Counts against the limits; any thread may use it."""

    def __init__(
        self,
        commits_per_hour: int | None,
        requests_per_5min: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._commits_per_hour = commits_per_hour
        self._requests_per_5min = requests_per_5min
        self._commits: deque[float] = deque(maxlen=commits_per_hour or 1)
        self._window_start = self._clock()
        self._in_window = 0
        self._lock = threading.Lock()

    def count_request(self) -> None:
        """Count one request of the API, or refuse it."""
        with self._lock:
            now = self._clock()
            if now - self._window_start >= WINDOW_SECONDS:
                self._window_start, self._in_window = now, 0
            self._in_window += 1
            if self._requests_per_5min is not None and self._in_window > self._requests_per_5min:
                headers = self._headers(remaining=0)
                raise HubError(
                    429,
                    f"We had to rate limit you: you sent more than {self._requests_per_5min} requests in 5 minutes.",
                    headers=headers,
                )

    def headers(self) -> dict[str, str]:
        """Return the rate limit headers of a response."""
        with self._lock:
            # Without a limit the headers must never report that no request is left.
            least = 1 if self._requests_per_5min is None else 0
            return self._headers(max(least, self._quota - self._in_window))

    @property
    def _quota(self) -> int:
        return _SHOWN_QUOTA if self._requests_per_5min is None else self._requests_per_5min

    def _headers(self, remaining: int) -> dict[str, str]:
        left = math.ceil(max(0.0, self._window_start + WINDOW_SECONDS - self._clock()))
        return {
            "RateLimit": f'"api";r={remaining};t={left}',
            "RateLimit-Policy": f'"fixed window";"api";q={self._quota};w={WINDOW_SECONDS}',
        }

    @contextmanager
    def commit(self) -> Iterator[None]:
        """Count a commit, unless it fails, or refuse it: the wait is only in the text, as on the real Hub."""
        if self._commits_per_hour is None:
            yield
            return
        with self._lock:
            headers = self._headers(max(1, self._quota - self._in_window))
            now = self._clock()
            while self._commits and now - self._commits[0] >= _HOUR_SECONDS:
                self._commits.popleft()
            if len(self._commits) >= self._commits_per_hour:
                wait = _HOUR_SECONDS - (now - self._commits[0]) if self._commits else _HOUR_SECONDS
                raise HubError(
                    429,
                    "You have exceeded the rate limit for repository commits "
                    f"({self._commits_per_hour} per hour). You can retry this action in {_in_words(wait)}. "
                    "Put more files into one commit to stay below the limit.",
                    headers=headers,
                )
            # Before the commit itself, so that concurrent commits cannot exceed the limit.
            self._commits.append(now)
        try:
            yield
        except BaseException:
            with self._lock:
                self._commits.remove(now)
            raise


def _in_words(seconds: float) -> str:
    minutes = math.ceil(seconds / _MINUTE_SECONDS)
    if minutes > _NEARLY_AN_HOUR_MINUTES:
        return "about 1 hour"
    return f"{minutes} minute{'s' if minutes > 1 else ''}"
