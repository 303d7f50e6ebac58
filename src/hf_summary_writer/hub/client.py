"""Clients of the Hub: their account and token, and the mapping of their exceptions to `PushError`."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

from huggingface_hub import constants

from hf_summary_writer.checks import PUBLIC_HUB, check_token, without_password
from hf_summary_writer.errors import ActionNeededError
from hf_summary_writer.hub import deadline, xet
from hf_summary_writer.hub.responses import classify_exception
from hf_summary_writer.hub.secrets import redacted
from hf_summary_writer.hub.switch import ClientSwitch
from hf_summary_writer.notices import in_notebook

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from huggingface_hub import HfApi

    from hf_summary_writer.errors import PushError


T = TypeVar("T")

LIBRARY_NAME = "hf-summary-writer"

# The client imports `tqdm.auto`, which warns in a notebook without ipywidgets. No bar of ours needs them. Set here, not
# around the import: that happens in the thread of the pushes, and filters are those of all threads.
if in_notebook():
    warnings.filterwarnings("ignore", "IProgress not found", module="tqdm.auto")

# Not an `Exception`, and of a module that cannot be imported.
_PANIC = "PanicException"

_LOG_IN = "log in with `hf auth login`, set HF_TOKEN, or pass token="


def default_endpoint() -> str:
    """Return the default address of the Hub of `huggingface_hub` (`HF_ENDPOINT`)."""
    # A variable that is set to nothing, as a container may have it, leaves the client without an address.
    return str(constants.ENDPOINT) or PUBLIC_HUB


def client_of(endpoint: str, token: str | bool | None) -> HfApi:
    """Return a client of the Hub at `endpoint`."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=_with_password(endpoint), token=token, library_name=LIBRARY_NAME)


def _with_password(endpoint: str) -> str:
    """Return the address of a Hub, that of the default one with the password that it may have."""
    default = default_endpoint()
    return default if endpoint == without_password(default) else endpoint


def endpoint_for(api: HfApi | None, token: object) -> str:
    """Return the address of the Hub for a caller who may pass a client, a token, or both.

    Raises:
        TypeError: The client is not the instance of one.
        ValueError: The token is not that of the client, which makes all requests.
    """
    if api is None:
        return default_endpoint()
    if isinstance(api, type) or not isinstance(endpoint := getattr(api, "endpoint", None), str):
        raise TypeError(f"hf_api must be an HfApi such as HfApi(token=…), not a {type(api).__name__}")
    if token is not None and _stored_is_none(token) != _stored_is_none(getattr(api, "token", None)):
        raise ValueError("token is not the one of hf_api, which makes all requests: pass only hf_api=HfApi(token=…)")
    return endpoint


def _stored_is_none(token: object) -> str | bool | None:
    return None if token is True else check_token(token)


class Client:
    """An account at a Hub. Its calls raise `PushError` and nothing else.

    Args:
        token: The access token; `None` means the one stored on the machine, read again for each request.
        api: The user's `HfApi` for every request, instead of a new one.
        endpoint: The Hub, if that is not the one of `api`; by default, the client's.

    Attributes:
        secret: The token of the last request, so that no file that holds it is uploaded.
    """

    def __init__(self, token: str | bool | None, api: Any, endpoint: str | None = None) -> None:
        self.secret: str | None = None
        self._token = token
        self._endpoint = _with_password(endpoint) if endpoint else default_endpoint()
        self._is_users = api is not None
        if api is not None:
            self.api = api

    @functools.cached_property
    def api(self) -> HfApi:
        """The `HfApi` that makes the requests; created on first use, since importing it is slow."""
        return client_of(self._endpoint, self._token)

    @property
    def endpoint(self) -> str:
        """The Hub's address."""
        return self.api.endpoint if "api" in vars(self) else self._endpoint

    @property
    def key(self) -> Hashable:
        """The same for all clients with interchangeable requests. Holds no token."""
        return id(self.api) if self._is_users else _fingerprint(self._endpoint, self._token)

    @property
    def account_key(self) -> str:
        """A name for the account of the last request, safe in a file name. The token cannot be derived from it."""
        return _fingerprint(self.endpoint, self.secret)

    def guarded(self, call: Callable[[], T], *, repo: str, known: bool) -> T:
        """Return the result of `call`; turn every exception of the client into a `PushError`.

        Args:
            call: Makes requests.
            repo: How messages call the repo.
            known: Whether the repo took commits before, so that a 404 means that it was removed.

        Raises:
            ActionNeededError: Also if there is no token, or one that HTTP cannot carry; the client would quote that in
                full.
        """
        try:
            self._look_up_token(repo)
            self._install_hooks()
            with _progress_bars.off():
                return call()
        except BaseException as error:
            # The native client of Xet panics where it gets no thread, for one.
            if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
                raise
            failure: PushError = classify_exception(error, known=known, repo=repo, now=time.time())
        # The client's exceptions may quote headers, and their frames hold them, and with them the token.
        failure.__cause__ = failure.__context__ = failure.__traceback__ = None
        raise failure

    @property
    def known_secret(self) -> str | None:
        """The access token as far as it is known without looking it up, which imports the client."""
        given = getattr(self.api, "token", None) if self._is_users else self._token
        return self.secret or (given if isinstance(given, str) else os.environ.get("HF_TOKEN"))

    def _look_up_token(self, repo: str) -> None:
        fault = self._token_fault()
        if fault:
            raise ActionNeededError(f"{fault} for {repo}: {_LOG_IN}")

    def _token_fault(self) -> str:
        # A function of its own: a tool that shows the frames of an exception may show their variables.
        from huggingface_hub import get_token

        token = getattr(self.api, "token", None)
        token = get_token() if token is None or token is True else token
        self.secret = token or None
        if not token:
            return "there is no token"
        if not all("!" <= character <= "~" for character in token):
            return "there is only a token with characters that no token has (it is not shown here)"
        return ""

    @staticmethod
    def _install_hooks() -> None:
        from huggingface_hub import get_session

        xet.set_block_size()
        deadline.install_hooks(get_session())
        _forget_storage_tokens()
        _filter_http_logs()


class _OfRequests(logging.Filter):
    """Keeps secrets out of the log of the HTTP client: a Hub may repeat a request, and an address hold a password.

    It logs each request at the level INFO. Several for each push would come between the lines of a training, so those
    of our threads are shown only where the level is that of debugging, or set for the client's own logger.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno == logging.INFO and threading.current_thread().name.startswith(LIBRARY_NAME):
            log = logging.getLogger(record.name)
            if not (log.level or log.isEnabledFor(logging.DEBUG)):
                return False
        said = record.getMessage()
        clean = redacted(said)
        if clean != said:
            record.msg, record.args = clean, ()
        return True


_of_requests = _OfRequests()


def _filter_http_logs() -> None:
    # A logger's filter does not see the records of its child loggers.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("httpx", "httpcore")):
            logging.getLogger(name).addFilter(_of_requests)


def _fingerprint(endpoint: str, token: str | bool | None) -> str:
    return hashlib.blake2b(f"{endpoint}\0{token}".encode(), digest_size=8, person=b"hf-summ-account").hexdigest()


def _forget_storage_tokens() -> None:
    """Make the client ask for new tokens of the Xet storage.

    It caches them by the name of the repo. For a repo that was deleted and created again, storage takes an upload with
    the old token, and the Hub then refuses the commit.
    """
    from huggingface_hub.utils import _xet

    getattr(_xet, "XET_CONNECTION_INFO_CACHE", {}).clear()


def _has_bars() -> bool:
    from huggingface_hub.utils import are_progress_bars_disabled  # type: ignore[attr-defined]

    # A user who insists on them by HF_HUB_DISABLE_PROGRESS_BARS=0 has them.
    return not are_progress_bars_disabled() and constants.HF_HUB_DISABLE_PROGRESS_BARS is None


def _show_bars(on: bool) -> None:
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars  # type: ignore[attr-defined]

    (enable_progress_bars if on else disable_progress_bars)()


# Every few minutes a bar for each upload would come between the lines of a training, also where there is no terminal.
# A user's own download that begins while we upload has none either.
_progress_bars = ClientSwitch(_has_bars, _show_bars)
