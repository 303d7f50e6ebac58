"""Calls to the Hub with a deadline, in a thread that is left behind when the client does not return."""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import os
import queue
import re
import sys
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from hf_summary_writer.errors import ActionNeededError, DeadlineError, PushError, TemporaryError, UnreachableError
from hf_summary_writer.hub.responses import Answer, classify_network_error, one_line
from hf_summary_writer.hub.secrets import keep_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Deadline", "HubAnswerError", "HubThread", "in_time", "install_hooks"]

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

T = TypeVar("T")

_CONNECT_SECONDS = 15.0

# Status codes that the client would retry by itself, with sleeps.
_RETRIED_BY_CLIENT = frozenset({408, 429, 500, 502, 503, 504})

_MAX_BODY_READ = 64 * 1024

# Far more than the answers to one call of ours have together: a listing of a repo comes in pages.
_MAX_ANSWER_BYTES = 64 * 2**20

_MOST_LEFT_BEHIND = 4

# Eight downloads run at a time, and the next check of a view makes eight again.
_MOST_READS_LEFT_BEHIND = 16

_reads_left_behind: list[threading.Thread] = []

# The hosts that have answered this process.
_reached: set[tuple[str, str]] = set()

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
        unanswered: Whether a commit was asked for and there is no answer yet.
        is_asking: Whether a request has begun and its answer is not read to the end.
        downloads: As given.
    """

    __slots__ = (
        "_answer_bytes",
        "_deadline",
        "_given_up",
        "_host",
        "_lock",
        "_read_bytes",
        "downloads",
        "is_asking",
        "unanswered",
    )

    def __init__(self, deadline: float, answer_bytes: int = _MAX_ANSWER_BYTES, *, downloads: bool = False) -> None:
        """Begin."""
        self._deadline = deadline
        self._answer_bytes = answer_bytes
        self._read_bytes = 0
        self._host: tuple[str, str] | None = None
        self._given_up = False
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
        if self._given_up or remaining <= 0:
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
        host = _host(str(url))
        self._host = self._host or host
        if host != self._host:
            there, here = (one_line("://".join(each)) for each in (host, self._host))
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
            self._given_up = True
            return self.unanswered


class _Current(threading.local):
    attempt: Deadline | None = None


_current = _Current()


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
    attempt = _current.attempt
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
            failure.was_reached = _host(str(url)) in _reached
        raise failure from None


def _after_response(response: Any) -> None:
    attempt = _current.attempt
    if attempt is None:
        if _FEED_ROUTE.search(response.request.url.raw_path):
            # When it ends, the client begins where it was.
            _bound(response, Deadline(math.inf, _MAX_FEED_BYTES))
        return
    _reached.add(_host(str(response.request.url)))
    status = response.status_code
    _bound(response, attempt)
    if _is_commit(response.request) and 300 <= status < 500:
        attempt.unanswered = False
    if status in _RETRIED_BY_CLIENT:
        raise HubAnswerError(Answer.of(response, _beginning(response)))
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
    there = urljoin(str(response.url), response.headers["location"])
    return "authorization" in response.request.headers and _host(str(response.url)) != _host(there)


def _host(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2]


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
            return getattr(self._body, name)

        def close(self) -> None:
            self._attempt.is_asking = False
            self._body.close()

    return BoundedStream


def _beginning(response: Any) -> str:
    body = b""
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _MAX_BODY_READ:
            break
    return body.decode("utf-8", "replace")


class HubThread:
    """Runs calls one at a time in a daemon thread of its own, and leaves the thread behind if a call takes too long.

    Not thread-safe: its owner calls it from one thread at a time. The thread must be started before the interpreter
    begins to exit, since some versions of Python start none after that.

    Args:
        left: The threads that were left behind, which several may share.
        most_left: While so many of them hang, no call is made: each keeps its connections.
    """

    def __init__(self, left: list[threading.Thread] | None = None, most_left: int = _MOST_LEFT_BEHIND) -> None:
        """Start nothing yet."""
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] | None = None
        self._thread: threading.Thread | None = None
        self._left = [] if left is None else left
        self._most_left = most_left

    @property
    def left_behind(self) -> int:
        """The number of threads that still hang in a call past its deadline."""
        self._left[:] = [thread for thread in self._left if thread.is_alive()]
        return len(self._left)

    def start(self) -> queue.SimpleQueue[Callable[[], None] | None]:
        """Start the thread if there is none, and return its queue of jobs.

        Raises:
            RuntimeError: If no thread can be started any more.
        """
        if self._jobs is None:
            jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
            thread = threading.Thread(target=_work, args=(jobs,), name="hf-summary-writer-hub", daemon=True)
            thread.start()
            self._jobs, self._thread = jobs, thread
        return self._jobs

    def stop(self) -> None:
        """End the thread when it has nothing more to do."""
        jobs, self._jobs = self._jobs, None
        if jobs is not None:
            jobs.put(None)

    def after_fork_in_child(self) -> None:
        """Forget the threads, which the child does not have."""
        self._jobs = self._thread = None
        self._left = []

    def call(
        self,
        function: Callable[[], T],
        seconds: float,
        answer_bytes: int = _MAX_ANSWER_BYTES,
        *,
        downloads: bool = False,
    ) -> T:
        """Run `function` in the thread; return its result or raise its exception.

        Args:
            function: Makes requests.
            seconds: How long they may take together.
            answer_bytes: As for `Deadline`.
            downloads: As for `Deadline`.

        Raises:
            DeadlineError: If it took longer, or too many earlier calls still hang. It then makes no further request;
                one that is under way may still have its effect, and if that is a commit the error is `in_doubt`.
        """
        if self.left_behind >= self._most_left:
            raise DeadlineError(f"{self.left_behind} calls to the Hub hang: no other is made until one of them returns")
        jobs = self.start()
        attempt = Deadline(time.monotonic() + seconds, answer_bytes, downloads=downloads)
        future: Future[T] = Future()
        jobs.put(functools.partial(_run, function, attempt, future))
        try:
            return future.result(seconds)
        except FutureTimeoutError:
            if future.done():
                return future.result()  # of the last moment, or a timeout of the function's own
            late = DeadlineError(f"the Hub did not answer within {seconds:.0f} s")
            late.is_outside_requests = not attempt.is_asking
            late.in_doubt = attempt.give_up()
        finally:
            if not future.done():  # late, or interrupted
                attempt.give_up()
                self._leave_behind()
        raise late

    def _leave_behind(self) -> None:
        if self._thread is not None:
            self._left.append(self._thread)
        self.stop()
        # The next call may come during the exit of the interpreter, when no thread can be started any more.
        with contextlib.suppress(RuntimeError):
            self.start()


def _work(jobs: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # or its objects would stay alive until the next job


def _run(function: Callable[[], T], attempt: Deadline, future: Future[T]) -> None:
    """Run a function within an attempt, and settle the future of its result."""
    _current.attempt = attempt
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001 - the caller that waits for the result gets it
        if isinstance(error, PushError):
            error.in_doubt = error.in_doubt or attempt.unanswered
        future.set_exception(error)
    finally:
        _current.attempt = None


def in_time(
    call: Callable[[], T], seconds: float, answer_bytes: int = _MAX_ANSWER_BYTES, *, downloads: bool = False
) -> T:
    """Return the result of a call for reading, from any thread, whose requests are bounded as those of a push.

    Headers may come byte by byte, and the timeout of the client is that of each byte, so it gets a thread as well.

    Args:
        call: As for `HubThread.call`.
        seconds: Likewise.
        answer_bytes: Likewise.
        downloads: Likewise.

    Raises:
        DeadlineError: As for `HubThread.call`.
    """

    def hooked() -> T:
        from huggingface_hub import get_session

        install_hooks(get_session())
        return call()

    thread = HubThread(_reads_left_behind, _MOST_READS_LEFT_BEHIND)
    try:
        return thread.call(hooked, seconds, answer_bytes, downloads=downloads)
    finally:
        thread.stop()
