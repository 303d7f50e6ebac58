"""The meaning of the Hub's responses: temporary, up to the user, or one bad file. Pure functions, no network.

Sources: the status codes and headers that the Hub's documentation names ("Rate limits"), RFC 9110 for `Retry-After`,
draft-ietf-httpapi-ratelimit-headers for `RateLimit`, and the text of the Hub's answer to too many commits, which is the
only place that names the wait in that case.
"""

from __future__ import annotations

import errno
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hf_summary_writer.errors import (
    ActionNeededError,
    BranchGoneError,
    DeadlineError,
    PushError,
    RateLimitError,
    RejectedError,
    RepoGoneError,
    TemporaryError,
    UnreachableError,
    describe,
)
from hf_summary_writer.hub.secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from typing_extensions import Self

# The only proofs that a repo or branch is gone. Any other 404 may come from a proxy, or from a Hub without this route.
REPO_NOT_FOUND = "RepoNotFound"
REVISION_NOT_FOUND = "RevisionNotFound"

# No limit of the Hub has a window longer than an hour; longer waits are capped.
MAX_WAIT_SECONDS = 3600.0

_MAX_TEXT = 300

_REJECTED = frozenset({400, 413, 422})

_TEMPORARY = frozenset({408, 409, 412, 423, 425})

_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}

_WAIT_IN_TEXT = re.compile(r"\bin (?:about )?(\d{1,5}|an?) (second|minute|hour)s?\b", re.IGNORECASE)

_COMMITS_IN_TEXT = re.compile(r"\bcommits \((\d{1,9}) per hour\)")

# A full quota is refused like a token without rights.
_QUOTA = re.compile(r"\b(?:storage|quota|billing|payment|upgrade|credits?)\b", re.IGNORECASE)

_RATE_LIMIT = re.compile(r'"[\w-]+"\s*;\s*r\s*=\s*(\d+)\s*;\s*t\s*=\s*(\d+)')

# The Xet client's message for a refused request of an upload token. It does not repeat the Hub's message.
_REFUSED_BY_HUB = re.compile(r"HTTP status client error \((?:402|403)\b[^)]*\), domain: \S+/api/")

# The client's exceptions for a page in place of JSON, and for JSON without the fields that it reads.
_NOT_THE_HUB = frozenset({"JSONDecodeError", "KeyError"})

# The answers of a proxy to a request for a tunnel that a later request gets as well.
_REFUSED_BY_PROXY = re.compile(r"\b(?:403|407)\b")

_NETWORK_ERRNOS = frozenset(
    {errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EPIPE}
)

# Escape sequences of a terminal, so that no server can paint on it.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")

_TITLE = re.compile(r"<title\b[^>]*>([^<]{1,300})</title", re.IGNORECASE)

_MAX_PAGE = 20_000


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of the Hub.

    Attributes:
        status: The HTTP status.
        headers: The headers, names in lower case.
        text: The body, or its beginning.
        url: The URL of the request.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    url: str = ""

    @classmethod
    def of(cls, response: Any, text: str) -> Self:
        """Return the answer that a response of the client is, with as much of its text as is wanted."""
        headers = {str(name).lower(): str(value) for name, value in response.headers.items()}
        return cls(response.status_code, headers, text, str(getattr(response, "url", "")))

    @property
    def error_code(self) -> str:
        """The Hub's own name for the error, such as `RepoNotFound`."""
        return self.headers.get("x-error-code", "")

    @property
    def message(self) -> str:
        """The Hub's own words, in one short line; of a page, its title."""
        from html import unescape  # rarely needed, and slow to import

        title = _TITLE.search(self.text[:_MAX_PAGE])
        return one_line(self.headers.get("x-error-message") or (unescape(title[1]) if title else self.text))


def one_line(text: str) -> str:
    """Return `text` as one short printable line that holds no token."""
    text = redacted(_ESCAPES.sub("", text[: 4 * _MAX_TEXT]))
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _MAX_TEXT else f"{line[: _MAX_TEXT - 1]}…"


def wait_asked_for(answer: Answer, now: float) -> float | None:
    """Return the seconds that the Hub asked to wait, at most `MAX_WAIT_SECONDS`; `None` if it did not.

    Args:
        answer: The answer with status 429 or 5xx.
        now: The wall clock, in seconds since the epoch, for a `Retry-After` that names a date.
    """
    waits = [_retry_after(answer.headers.get("retry-after", ""), now)]
    left = requests_left(answer.headers.get("ratelimit", ""))
    if left is not None and left[0] == 0:
        waits.append(float(left[1]))
    match = _WAIT_IN_TEXT.search(answer.text[: 4 * _MAX_TEXT])
    if match:
        waits.append((float(match[1]) if match[1].isdigit() else 1.0) * _UNITS[match[2].lower()])
    known = [wait for wait in waits if wait is not None]
    return min(max(known), MAX_WAIT_SECONDS) if known else None


def requests_left(header: str) -> tuple[int, int] | None:
    """Return the requests that a header `RateLimit` allows, and for how many seconds; `None` if it does not say."""
    match = _RATE_LIMIT.search(header)
    return (int(match[1]), int(match[2])) if match else None


def _retry_after(value: str, now: float) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        from email.utils import parsedate_to_datetime  # rarely needed, and slow to import

        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (TypeError, ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def classify_response(answer: Answer, now: float, *, repo: str, known: bool) -> PushError:
    """Map an error response of the Hub to an exception of this package.

    Args:
        answer: The answer, with a status that is no success.
        now: The wall clock in seconds since the epoch.
        repo: How messages call the repo.
        known: Whether the repo and its branch took commits before, so that their absence means that somebody removed
            them.
    """
    said = f"{answer.status} {answer.message}".rstrip()
    if answer.status == 429:
        commits = _COMMITS_IN_TEXT.search(answer.text[: 4 * _MAX_TEXT])
        return RateLimitError(
            f"the Hub limits the rate: {said}",
            retry_after=wait_asked_for(answer, now),
            commits_per_hour=float(commits[1]) if commits else None,
        )
    if answer.status in _REJECTED:
        return RejectedError(f"the Hub refused the content: {said}")
    if answer.status in _TEMPORARY or answer.status >= 500:
        return TemporaryError(f"the Hub answered {said}", retry_after=wait_asked_for(answer, now))
    if answer.status == 401:
        return ActionNeededError(
            f"the Hub does not accept the token, or there is none ({said}): log in with `hf auth login`, set HF_TOKEN, "
            "or pass token="
        )
    if answer.status in (402, 403) and _QUOTA.search(answer.message):
        return ActionNeededError(f"the Hub takes no more data for {repo}: {said}")
    if answer.status in (402, 403):
        return ActionNeededError(f"the token may not write to {repo} ({said}): use one with write access to it")
    if answer.status == 407:
        return _refused_by_proxy(said)
    if answer.status == 404:
        return _not_found(answer, said, repo=repo, known=known)
    if 300 <= answer.status < 400:
        return _redirected(answer)
    return ActionNeededError(f"the Hub answered {said}")


def _redirected(answer: Answer) -> PushError:
    return ActionNeededError(
        f"{one_line(answer.url)} redirects to {one_line(answer.headers.get('location', 'nowhere'))}, which is not "
        "followed for API calls: check HF_ENDPOINT and the network's login page"
    )


def _not_found(answer: Answer, said: str, *, repo: str, known: bool) -> PushError:
    if answer.error_code not in (REPO_NOT_FOUND, REVISION_NOT_FOUND):
        return ActionNeededError(
            f"{one_line(answer.url)} was not found ({said}), and the answer does not say that {repo} is gone: check "
            "HF_ENDPOINT and the proxy in between"
        )
    if not known and answer.error_code == REVISION_NOT_FOUND:
        return ActionNeededError(f"the branch or pull request of {repo} was not found ({said}): check its name")
    if not known:
        return ActionNeededError(f"{repo} was not found ({said}): check its name and what the token may see")
    if answer.error_code == REVISION_NOT_FOUND:
        return BranchGoneError(
            f"the branch of {repo} that this goes to does not exist any more ({said}); it is made again, and "
            "everything is sent to it"
        )
    return RepoGoneError(
        f"{repo} does not exist any more, or the token cannot see it ({said}); it is not created again: give "
        "another repo_id, or restore it, and what is missing will be sent"
    )


def classify_network_error(error: Exception, host: str) -> PushError:
    """Map an exception of the HTTP transport to an exception of this package."""
    causes = list(_causes(error))
    kind, said = type(error).__name__, one_line(str(causes[-1]) or type(causes[-1]).__name__)
    if _untrusted(causes):
        return _no_trust(said)
    if kind in {"ReadTimeout", "WriteTimeout", "PoolTimeout"}:
        return DeadlineError(f"{host} did not answer in time")
    message = f"{host} cannot be reached ({kind}: {said})"
    return UnreachableError(message) if kind in {"ConnectError", "ConnectTimeout"} else TemporaryError(message)


def classify_exception(error: BaseException, *, known: bool, repo: str, now: float) -> PushError:
    """Map an exception of the client to an exception of this package."""
    # The client wraps the error of an upload in a RuntimeError without details.
    causes = list(_causes(error))
    for cause in causes:
        answer = answer_of(cause)
        if answer is not None:
            return classify_response(answer, now, repo=repo, known=known)
        if isinstance(cause, PushError):
            return cause
    names = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    # The client raises an error of its HTTP library again under the same name.
    said = one_line(" <- ".join(dict.fromkeys(f"{type(cause).__name__}: {cause}" for cause in causes)))
    if "OfflineModeIsEnabled" in names:
        # A program may have changed the variables since: the client does not read them again.
        return ActionNeededError(
            "huggingface_hub was imported with HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE set: unset both, and start the"
            " program or the notebook's kernel again"
        )
    if _untrusted(causes):
        return _no_trust(said)
    if "LocalTokenNotFoundError" in names:
        return ActionNeededError(
            f"there is no token ({said}): log in with `hf auth login`, set HF_TOKEN, or pass token="
        )
    if "HFValidationError" in names:
        return RejectedError(said)
    found = _classify_name(names, said)
    if found is None:
        found = _classify_rest(causes, names, said, repo)
        found.is_outside_requests = True
    return found


def _classify_name(names: Collection[str], said: str) -> PushError | None:
    """Map an exception that says all by its name; `None` if it does not."""
    if "UnicodeEncodeError" in names:  # all else in a request is ASCII
        return ActionNeededError("the token has characters that no token has (it is not shown here): copy it again")
    if not _NOT_THE_HUB.isdisjoint(names):
        return TemporaryError(f"what answered is not the Hub ({said}); a login page may be in between")
    if "InvalidURL" in names:
        # The exception quotes a part of it. In front of an unescaped "#" or "/" in a password, that is taken for the
        # port.
        return ActionNeededError(
            "the address of the Hub (HF_ENDPOINT) or of a proxy (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) is invalid; it is"
            " not shown here, since it may hold a password"
        )
    return None


def _classify_rest(causes: list[BaseException], names: set[str], said: str, repo: str) -> PushError:
    if "ProxyError" in names and _REFUSED_BY_PROXY.search(said):
        return _refused_by_proxy(said)
    if _REFUSED_BY_HUB.search(said):
        return ActionNeededError(
            f"the Hub takes no data for {repo} ({said}): the token may not write to it, or the storage quota is used up"
        )
    if any(map(_is_local, causes)):
        return _local_failure(said)
    return TemporaryError(said)


def _local_failure(said: str) -> PushError:
    return TemporaryError(
        f"this machine failed, not the Hub ({said}): check HF_HOME, TMPDIR, the space there, and SSL_CERT_FILE"
    )


def _is_local(error: BaseException) -> bool:
    """Return whether an exception is about a file or a resource of this machine."""
    if not isinstance(error, OSError) or isinstance(error, (ConnectionError, TimeoutError)):
        return False
    # Others derive from it for errors of a network: `socket.gaierror`, `ssl.SSLError`, those of HTTP clients.
    return type(error).__module__ == "builtins" and error.errno not in _NETWORK_ERRNOS


def _untrusted(causes: list[BaseException]) -> bool:
    import ssl  # slow, and by now imported by the client

    return any(isinstance(cause, ssl.SSLError) or "CERTIFICATE_VERIFY" in str(cause) for cause in causes)


def _no_trust(said: str) -> PushError:
    return ActionNeededError(f"the connection to the Hub is not trusted ({said}): check SSL_CERT_FILE and the clock")


def failure_of(error: Exception) -> str:
    """Return why a repo or bucket could not be read, in one line."""
    answer = answer_of(error)
    if answer is not None and 300 <= answer.status < 400:
        return str(_redirected(answer))
    if answer is not None:
        return f"{answer.status} {answer.message}".rstrip()
    said = one_line(describe(error))
    name = type(error).__name__
    found = _classify_name([name], f"{name}: {said}")
    # The error of a file that has a name says enough.
    if isinstance(error, OSError) and error.errno is not None and error.filename is None and _is_local(error):
        found = _local_failure(f"{name}: {said}")
    return said if found is None else str(found)


def _refused_by_proxy(said: str) -> PushError:
    return ActionNeededError(f"the proxy refuses the connection ({said}): check HTTP_PROXY, HTTPS_PROXY and NO_PROXY")


def answer_of(error: BaseException) -> Answer | None:
    """Return the answer that an exception carries, if it carries one."""
    answer = getattr(error, "answer", None)
    if isinstance(answer, Answer):
        return answer
    response: Any = getattr(error, "response", None)
    if not isinstance(getattr(response, "status_code", None), int):
        return None
    try:
        text = response.text
    except Exception:  # noqa: BLE001 - a body that was streamed and closed; the status is enough
        text = ""
    return Answer.of(response, text)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
