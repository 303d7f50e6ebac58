"""Request statistics: counts per kind of request, and a log of the last requests."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace

from hf_summary_writer.localhub.names import BUCKETS, KINDS

_KEPT_REQUESTS = 10_000


@dataclass(frozen=True, slots=True)
class Count:
    """The number of requests of one kind, and the bytes of their request and response bodies."""

    requests: int = 0
    received: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot of the counts: `cas` is Xet's bookkeeping, `download` is every way file content leaves the Hub."""

    api: Count = field(default_factory=Count)
    lfs: Count = field(default_factory=Count)
    xorb: Count = field(default_factory=Count)
    shard: Count = field(default_factory=Count)
    cas: Count = field(default_factory=Count)
    download: Count = field(default_factory=Count)

    @property
    def requests(self) -> int:
        """Return the number of requests of all kinds."""
        counts = (self.api, self.lfs, self.xorb, self.shard, self.cas, self.download)
        return sum(count.requests for count in counts)


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One completed request; `status` is 0 if the client disconnected before the response."""

    method: str
    path: str
    status: int


def kind_of(method: str, path: str) -> str | None:
    """Return the kind of a request, or None for web pages and for the route of the counts, which are not counted."""
    head, *rest = path.strip("/").split("/")
    if head in ("v1", "v2"):
        # A client that tries version 2 first, and finds it missing, counts once.
        kinds = {("v1", "xorbs"): "xorb", ("v1", "shards"): "shard"}
        return kinds.get((head, rest[0] if rest else ""), "cas") if method == "POST" else "cas"
    if head == "xorbs":
        return "download"
    if head == "lfs-objects":
        return "lfs"
    if head in ("api", "lfs-verify") or path.endswith(".git/info/lfs/objects/batch"):
        return "api"
    # The prefix of datasets, Spaces and buckets precedes namespace and name.
    action = rest[2:3] if head in (*KINDS, BUCKETS) else rest[1:2]
    return "download" if action and action[0] in ("resolve", "raw", "git-upload-pack") else None


class Recorder:
    """Counts requests; any thread may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stats = Stats()
        self.requests: deque[LoggedRequest] = deque(maxlen=_KEPT_REQUESTS)

    @property
    def stats(self) -> Stats:
        """Return the counts so far."""
        with self._lock:
            return self._stats

    def add(self, kind: str, request: LoggedRequest, received: int, sent: int) -> None:
        """Count one completed request."""
        with self._lock:
            old: Count = getattr(self._stats, kind)
            new = Count(old.requests + 1, old.received + received, old.sent + sent)
            self._stats = replace(self._stats, **{kind: new})
            self.requests.append(request)

    def reset(self) -> None:
        """Reset all counts to zero."""
        with self._lock:
            self._stats = Stats()
            self.requests.clear()
