"""How the Hub's responses are classified, and the wait that they ask for."""

from __future__ import annotations

import errno
import importlib
import socket
import ssl
from email.utils import formatdate
from json import JSONDecodeError

import pytest
from huggingface_hub import get_session
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

from hf_summary_writer.errors import (
    ActionNeededError,
    BranchGoneError,
    PushError,
    RateLimitError,
    RejectedError,
    RepoGoneError,
    TemporaryError,
)
from hf_summary_writer.hub.responses import (
    MAX_WAIT_SECONDS,
    Answer,
    classify_exception,
    classify_response,
    one_line,
    wait_asked_for,
)

# The client's HTTP library, which has another name in newer clients.
transport = importlib.import_module(type(get_session()).__module__.partition(".")[0])

NOW = 1_700_000_000.0
TOO_MANY_COMMITS = (
    "You have exceeded the rate limit for repository commits (128 per hour). You can retry this action in {}. "
    "If you need more, contact us."
)


def asked(text: str = "", **headers: str) -> float | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return wait_asked_for(Answer(429, named, text), NOW)


def test_the_wait_is_read_from_every_header_and_text_of_the_hub() -> None:
    assert asked(retry_after="20") == 20
    assert asked(retry_after=formatdate(NOW + 90, usegmt=True)) == 90
    assert asked(ratelimit='"api";r=0;t=55') == 55
    assert asked(TOO_MANY_COMMITS.format("43 minutes")) == 43 * 60
    assert asked(TOO_MANY_COMMITS.format("about 1 hour"), ratelimit='"api";r=900;t=10') == 3600
    assert asked(TOO_MANY_COMMITS.format("30 seconds")) == 30
    assert asked(ratelimit='"api";r=0;t=55', retry_after="5") == 55


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OfflineModeIsEnabled("offline"), ActionNeededError, "HF_HUB_OFFLINE"),
        (LocalTokenNotFoundError("none"), ActionNeededError, "there is no token"),
        (UnicodeEncodeError("ascii", "hf_s\u00e9cret", 4, 5, "ordinal not in range"), ActionNeededError, "not shown"),
        (HFValidationError("a name"), RejectedError, "a name"),
        (KeyError("siblings"), TemporaryError, "login page"),
        (JSONDecodeError("Expecting value", "<html>", 0), TemporaryError, "login page"),
        (
            RuntimeError(
                "HTTP status client error (403 Forbidden), domain: https://hub/api/models/u/r/xet-write-token"
            ),
            ActionNeededError,
            "takes no data",
        ),
        (RuntimeError("the storage is down"), TemporaryError, "the storage is down"),
        (transport.ProxyError("407 Proxy Authentication Required"), ActionNeededError, "HTTPS_PROXY"),
        (transport.ProxyError("403 Forbidden"), ActionNeededError, "HTTPS_PROXY"),
        (transport.ProxyError("503 Service Unavailable"), TemporaryError, "503"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "",
)
def test_each_exception_of_the_client_has_one_class(error: Exception, kind: type[Exception], words: str) -> None:
    found = classify_exception(error, known=True, repo="the model repo u/r", now=NOW)
    assert type(found) is kind
    assert words in str(found)
    assert "\u00e9" not in str(found)


def test_an_invalid_wait_is_ignored_and_a_long_one_is_capped() -> None:
    assert asked() is None
    for nonsense in ("nan", "inf", "soon", "", "Wed, 99 Foo 2015"):
        assert asked(retry_after=nonsense) is None
    assert asked(retry_after="-5") == 0
    assert asked(retry_after=formatdate(NOW - 90, usegmt=True)) == 0
    assert asked(retry_after="1e9") == MAX_WAIT_SECONDS
    assert asked(ratelimit='"api";r=3;t=55') is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RejectedError),
        (401, ActionNeededError),
        (407, ActionNeededError),
        (402, ActionNeededError),
        (403, ActionNeededError),
        (404, ActionNeededError),
        (408, TemporaryError),
        (409, TemporaryError),
        (412, TemporaryError),
        (413, RejectedError),
        (422, RejectedError),
        (429, RateLimitError),
        (500, TemporaryError),
        (503, TemporaryError),
        (307, ActionNeededError),
    ],
)
def test_each_status_has_one_error_class(status: int, kind: type[PushError]) -> None:
    verdict = classify_response(Answer(status), NOW, repo="the model repo user/run", known=False)
    assert type(verdict) is kind


def test_a_known_repo_or_branch_that_is_not_found_is_gone() -> None:
    missing_repo = Answer(404, {"x-error-code": "RepoNotFound"})
    assert isinstance(classify_response(missing_repo, NOW, repo="r", known=True), RepoGoneError)
    missing_branch = Answer(404, {"x-error-code": "RevisionNotFound"})
    assert isinstance(classify_response(missing_branch, NOW, repo="r", known=True), BranchGoneError)
    assert type(classify_response(missing_branch, NOW, repo="r", known=False)) is ActionNeededError


@pytest.mark.parametrize("headers", [{}, {"x-error-code": "EntryNotFound"}])
def test_a_404_without_the_code_of_a_missing_repo_proves_nothing(headers: dict[str, str]) -> None:
    assert type(classify_response(Answer(404, headers), NOW, repo="r", known=True)) is ActionNeededError


def test_network_errors_are_temporary_and_a_bad_certificate_is_not() -> None:
    def judged(error: Exception) -> PushError:
        return classify_exception(error, known=False, repo="r", now=NOW)

    assert isinstance(judged(ConnectionError("refused")), TemporaryError)
    assert isinstance(judged(RuntimeError("from the native client")), TemporaryError)
    wrapped = ConnectionError("failed")
    wrapped.__cause__ = ssl.SSLCertVerificationError("self-signed")
    assert isinstance(judged(wrapped), ActionNeededError)
    kept = RejectedError("as it is")
    assert judged(kept) is kept


def test_a_reraised_error_is_quoted_once() -> None:
    error = ConnectionError("refused")
    error.__cause__ = ConnectionError("refused")
    said = str(classify_exception(error, known=False, repo="r", now=NOW))
    assert said.count("refused") == 1


def test_a_server_message_becomes_one_short_line_without_tokens_or_escapes() -> None:
    said = one_line("\x1b[31mred\x1b[0m\nline\ttwo \x07 Bearer hf_secretsecret hf_abcdefgh" + "x" * 10_000_000)
    assert said.startswith("red line two <token> <token>")
    assert len(said) <= 300
    assert said.isprintable()


def test_the_title_of_an_error_page_is_quoted() -> None:
    page = "<!doctype html><html><head><title>\n Sign in &amp; accept the terms</title></head>" + "<p>" * 1000
    assert Answer(503, text=page).message == "Sign in & accept the terms"
    assert Answer(503, {"x-error-message": "busy"}, page).message == "busy"


def test_local_errors_are_attributed_to_this_machine() -> None:
    def said(error: Exception) -> str:
        return str(classify_exception(error, known=True, repo="r", now=NOW))

    assert "this machine" in said(OSError("I/O error: Not a directory (os error 20)"))
    assert "this machine" in said(PermissionError(errno.EACCES, "no"))
    assert "this machine" not in said(OSError(errno.ENETUNREACH, "no route"))
    assert "this machine" not in said(ConnectionResetError())
    assert "this machine" not in said(socket.gaierror("no such host"))


@pytest.mark.parametrize(
    "text",
    [
        "HTTP Request: PUT https://storage/a?X-Amz-Date=2026&X-Amz-Signature={} 200",
        "[(b'Location', b'https://storage/a?sig={}'), (b'X-Xet-Access-Token', b'{}')]",
    ],
)
def test_signatures_that_storage_accepts_are_not_shown(text: str) -> None:
    shown = one_line(text.replace("{}", "5b" * 20))
    assert shown == text.replace("{}", "<signature>")
