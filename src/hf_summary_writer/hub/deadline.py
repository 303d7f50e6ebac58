"""The deadline of a call to the Hub, and the hooks of the HTTP client that hold each of its requests to it."""

from __future__ import annotations

import functools
import importlib
import math
import os
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from hf_summary_writer.errors import ActionNeededError, DeadlineError, TemporaryError, UnreachableError
from hf_summary_writer.hub.responses import Answer, classify_network_error, one_line
from hf_summary_writer.hub.secrets import keep_secret

if TYPE_CHECKING:
    from collections.abc import Iterator

_MODULE, _CLIENT = "huggingface_hub.utils._http", "_GLOBAL_CLIENT"


class _Aside:
    """Holds the client during a fork; in the child for good, or its sockets would be closed with a warning."""

    def __init__(self) -> None:
        self.client: Any = None

    def put(self) -> None:
        module = sys.modules.get(_MODULE)
        if module is not None and getattr(module, _CLIENT, None) is not None:
            self.client = getattr(module, _CLIENT)
            setattr(module, _CLIENT, None)

    def give_back(self) -> None:
        client, self.client = self.client, None
        module = sys.modules.get(_MODULE)
        # Another thread may have found none, and made a new one.
        if client is not None and getattr(module, _CLIENT, client) is None:
            setattr(module, _CLIENT, client)


_aside = _Aside()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_aside.put, after_in_parent=_aside.give_back)

_CONNECT_SECONDS = 15.0

# Status codes that the client would retry by itself, with sleeps.
_RETRIED_BY_CLIENT = frozenset({408, 429, 500, 502, 503, 504})

_MAX_BODY_READ = 64 * 1024

# Far more than the answers to one call of ours have together: a listing of a repo comes in pages.
MAX_ANSWER_BYTES = 64 * 2**20

# The hosts that have answered this process.
_reached: set[str] = set()

# Encoded as it was sent: the name of a branch may contain "/commit/".
_COMMIT_ROUTE = re.compile(
    rb"/api/(?:(?:models|datasets|spaces)/(?:[^/]+/){1,2}commit/[^/?]+|buckets/[^/]+/[^/]+/batch)(?:\?|$)"
)

# The client reads the feed of a bucket's changes in a thread of its own, and holds a whole change in memory.
_FEED_ROUTE = re.compile(rb"/api/buckets/[^/]+/[^/]+/events(?:\?|$)")
_MAX_FEED_BYTES = 16 * 2**20


class HubAnswerError(Exception):
    """Carries an answer out of the client before the client acts on it."""

    def __init__(self, answer: Answer) -> None:
        """Keep the answer."""
        super().__init__(f"{answer.status} for {answer.url}")
        self.answer = answer


class Deadline:
    """The right to talk to the Hub until a deadline, on the monotonic clock in seconds.

    Args:
        deadline: The end.
        answer_bytes: The size limit of all answers together.
        downloads: Whether a request with the token may be redirected to another host, which then does not get it.

    Attributes:
        origin: The Hub: the scheme, host and port that got the first request with the token; empty before that.
        unanswered: Whether a commit was asked for and there is no answer yet.
        is_asking: Whether a request has begun and its answer is not read to the end.
        downloads: As given.
    """

    def __init__(self, deadline: float, answer_bytes: int = MAX_ANSWER_BYTES, *, downloads: bool = False) -> None:
        """Begin."""
        self._deadline = deadline
        self._answer_bytes = answer_bytes
        self._read_bytes = 0
        self.origin: str = ""
        self.downloads: bool = downloads
        # Between an attempt that is about to commit and the thread that gives it up: the commit is prevented, or known.
        self._lock = threading.Lock()
        self.unanswered: bool = False
        self.is_asking: bool = False

    def remaining(self) -> float:
        """Return the seconds that are left.

        Raises:
            DeadlineError: If none are left or the attempt was given up.
        """
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise DeadlineError("the Hub did not answer in time")
        return remaining

    def may_ask(self, *, to_commit: bool) -> float:
        """Begin a request, which may ask for a commit, and return the seconds that are left for it.

        Raises:
            DeadlineError: If none are left or the attempt was given up.
        """
        with self._lock:
            remaining = self.remaining()
            self.unanswered = self.unanswered or to_commit
            self.is_asking = True
            return remaining

    def take_token_to(self, url: Any) -> None:
        """Check where a request takes the token: the first one goes to the Hub, and no other host gets it.

        The Hub names the addresses of further requests: pages of a listing, the check of an upload.

        Raises:
            ActionNeededError: If it is another host than the first time.
        """
        there = _origin(url)
        self.origin = self.origin or there
        if there != self.origin:
            here, there = one_line(self.origin), one_line(there)
            raise ActionNeededError(f"{here} sends requests with the token on to {there}: refused; check HF_ENDPOINT")

    def read(self, nbytes: int) -> None:
        """Count further received bytes of an answer.

        Raises:
            DeadlineError: As for `remaining`.
            TemporaryError: If the answers have too many.
        """
        self.remaining()
        self._read_bytes += nbytes
        if self._read_bytes > self._answer_bytes:
            raise TemporaryError(f"an answer of the Hub has more than {self._answer_bytes // 2**20} MB")

    def give_up(self) -> bool:
        """Stop further requests; return whether a commit is unanswered."""
        with self._lock:
            self._deadline = -math.inf
            return self.unanswered


class _Current(threading.local):
    attempt: Deadline | None = None


# The attempt whose deadline the requests of this thread are held to.
current: _Current = _Current()


def install_hooks(client: Any) -> None:
    """Add the hooks to an `httpx` client, unless they are there; call it before each attempt.

    The client is recreated after a fork and after connection errors, and then has no hooks.
    """
    hooks = client.event_hooks
    if _before_request not in hooks["request"]:
        # First, so that no hook of others can delay or answer for us.
        client.event_hooks = {
            "request": [_before_request, *hooks["request"]],
            "response": [_after_response, *hooks["response"]],
        }


def _before_request(request: Any) -> None:
    attempt = current.attempt
    if attempt is not None:
        if "authorization" in request.headers:
            keep_secret(request.headers["authorization"].rpartition(" ")[2])
            if not _is_for_identity(request):
                attempt.take_token_to(request.url)
        to_commit = _is_commit(request)
        remaining = attempt.may_ask(to_commit=to_commit)
        # A small compressed answer may be huge once it is decompressed.
        request.headers["accept-encoding"] = "identity"
        request.extensions = {
            **request.extensions,
            "timeout": {
                "connect": min(_CONNECT_SECONDS, remaining),
                "read": remaining,
                "write": remaining,
                "pool": remaining,
            },
            "trace": functools.partial(_watch, attempt, request.url, to_commit),
        }
    elif _FEED_ROUTE.search(request.url.raw_path):
        request.headers["accept-encoding"] = "identity"


def _watch(attempt: Deadline, url: Any, to_commit: bool, event: str, details: dict[str, Any]) -> None:
    """Wrap network errors in an exception unknown to the client, which would log and retry them."""
    error = details.get("exception")
    # A Hub that refuses a body before it has all of it answers first, and then the rest cannot be written.
    if isinstance(error, Exception) and type(error).__name__ != "WriteError":
        if to_commit and event.startswith("connection."):
            attempt.unanswered = False
        failure = classify_network_error(error, url.host)
        if isinstance(failure, UnreachableError):
            # Storage is on another host, and failed for an attempt that the Hub itself has answered.
            failure.was_reached = (attempt.origin or _origin(url)) in _reached
        raise failure from None


def _after_response(response: Any) -> None:
    attempt = current.attempt
    if attempt is None:
        if _FEED_ROUTE.search(response.request.url.raw_path):
            # When it ends, the client begins where it was.
            _bound(response, Deadline(math.inf, _MAX_FEED_BYTES))
        return
    _reached.add(_origin(response.request.url))
    status = response.status_code
    _bound(response, attempt)
    if _is_commit(response.request) and 300 <= status < 500:
        attempt.unanswered = False
    if status in _RETRIED_BY_CLIENT:
        beginning = next(response.iter_bytes(_MAX_BODY_READ), b"")
        raise HubAnswerError(Answer.of(response, beginning.decode("utf-8", "replace")))
    if status == 409 and str(response.url).endswith("/api/repos/create"):
        # The client repeats this one without a pause if it says that something else is under way.
        text = response.read().decode("utf-8", "replace")
        if "conflicting operation" in text:
            raise HubAnswerError(Answer.of(response, text))
    if response.has_redirect_location and not attempt.downloads and _leads_astray(response):
        raise HubAnswerError(Answer.of(response, ""))


def _bound(response: Any, attempt: Deadline) -> None:
    """Bound the body of an answer, which is read as it comes over the network, by those of an attempt."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise TemporaryError("an answer is compressed, though that was not asked for; a proxy may be in between")
    response.stream = _bounded_stream(type(response).__module__.partition(".")[0])(response.stream, attempt)


def _is_for_identity(request: Any) -> bool:
    """Return whether the client asks GitHub who it is, with a token of GitHub's, to get one of the Hub for that."""
    where = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL", "")
    # The client replaces the query.
    return bool(where) and str(request.url).partition("?")[0] == where.partition("?")[0]


def _is_commit(request: Any) -> bool:
    return request.method == "POST" and _COMMIT_ROUTE.search(request.url.raw_path) is not None


def _leads_astray(response: Any) -> bool:
    """Return whether a request that carries the token is sent to another host; storage may redirect as it likes."""
    if "authorization" not in response.request.headers:
        return False
    try:
        return _origin(response.url) != _origin(response.url.join(response.headers["location"]))
    except Exception:  # noqa: BLE001 - no valid address, an error of `httpx` or `httpx2`
        return True


def _origin(url: Any) -> str:
    """Return the scheme, host and port of an address, without a user's name and password."""
    return f"{url.scheme}://{url.netloc.decode()}"


@functools.cache
def _bounded_stream(library: str) -> type:
    """Return the class of an answer's body that ends with its attempt; `httpx` is called `httpx2` by newer clients."""
    base: type = importlib.import_module(library).SyncByteStream

    class BoundedStream(base):  # type: ignore[misc]
        def __init__(self, body: Any, attempt: Deadline) -> None:
            self._body = body
            self._attempt = attempt

        def __iter__(self) -> Iterator[bytes]:
            for piece in self._body:
                self._attempt.read(len(piece))
                yield piece

        def __getattr__(self, name: str) -> Any:
            return getattr(self._body, name)  # `httpx2` keeps the time of the answer in it

        def close(self) -> None:
            self._attempt.is_asking = False
            self._body.close()

    return BoundedStream
