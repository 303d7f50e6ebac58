"""The only module that calls `huggingface_hub`: the branch of a repo, and uploads and commits to it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import threading
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from huggingface_hub import constants

from hf_summary_writer.errors import ActionNeededError
from hf_summary_writer.hub import deadline
from hf_summary_writer.hub.responses import judge_exception, redacted
from hf_summary_writer.hub.uploads import Uploaded, exists, is_identical, is_left_out, together
from hf_summary_writer.process import tell_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi

    from hf_summary_writer.errors import PushError

__all__ = [
    "BYTES_AT_ONCE",
    "Hub",
    "Quiet",
    "Switch",
    "client_home",
    "client_of",
    "default_endpoint",
    "endpoint_of",
    "over_xet",
]


class Switch(Protocol):
    """Something of the whole process that is on or off."""

    def is_on(self) -> bool:
        """Tell whether it is on."""

    def turn(self, on: bool) -> None:
        """Turn it on or off."""


class Quiet:
    """Turns a switch off while anybody is inside a `with` block of it, and then as it was. Thread-safe.

    Args:
        switch: The switch.
    """

    def __init__(self, switch: Switch) -> None:
        """Turn nothing yet."""
        self._switch = switch
        self._lock = threading.Lock()
        self._inside = 0
        self._turned = False
        tell_after_fork(self)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Be inside."""
        with self._lock:
            self._inside += 1
            if self._inside == 1 and self._switch.is_on():
                self._switch.turn(False)
                self._turned = True
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._turn_back()

    def after_fork_in_child(self) -> None:
        """Forget who was inside: they are not in the child."""
        self._lock = threading.Lock()
        self._inside = 0
        self._turn_back()

    def _turn_back(self) -> None:
        if self._turned:
            self._turned = False
            self._switch.turn(True)


T = TypeVar("T")

LIBRARY_NAME = "hf-summary-writer"

_LOG_IN = "log in with `hf auth login`, set HF_TOKEN, or pass token="

# The Xet client holds what it uploads in memory, several times over: 16 MB take up to 100 MB, 1 GB takes 800 MB.
BYTES_AT_ONCE = 16 * 2**20

# And files that it reads, without waiting for what becomes of them, in blocks of 8 MB unless told otherwise. Where the
# Hub holds almost all of a file, each of the few new chunks (of 64 kB or so) keeps the block that it is a part of.
_XET_BLOCK = ("HF_XET_DATA_INGESTION_BLOCK_SIZE", "256kb")

# A token that may not create repos, or not this one, may still push to one that exists.
_MAY_EXIST = frozenset({401, 402, 403})


def default_endpoint() -> str:
    """Return the address of the Hub that `huggingface_hub` talks to unless told otherwise (`HF_ENDPOINT`)."""
    return str(constants.ENDPOINT)


def endpoint_of(api: HfApi | None) -> str:
    """Return the address of the Hub that `api` talks to, or the default one."""
    return str(getattr(api, "endpoint", None) or default_endpoint())


def client_home() -> Path:
    """Return the folder in which `huggingface_hub` keeps what is the user's on this machine (`HF_HOME`)."""
    return Path(constants.HF_HOME)


def client_of(endpoint: str, token: str | bool | None) -> HfApi:
    """Return a client of the Hub at `endpoint`."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, token=token, library_name=LIBRARY_NAME)


class Hub:
    """One branch of one repo.

    Not thread-safe: its owner uses it from one thread at a time. Every method raises `PushError` and nothing else.

    Args:
        repo_id: `name` or `namespace/name`; the full id once the repo is known to exist.
        repo_type: `model`, `dataset` or `space`.
        revision: The branch.
        private: Whether a repo that does not exist is created private; `None` leaves it to the account's default.
        token: The access token; `None` means the one that is stored on the machine, read anew each time.
        api: The client to use for every request instead of a new one.
    """

    def __init__(
        self, repo_id: str, repo_type: str, revision: str, private: bool | None, token: str | bool | None, api: Any
    ) -> None:
        """Keep the arguments; connect to nothing."""
        self.repo_id = repo_id
        self._repo_type = repo_type
        self._revision = revision
        self._private = private
        self._token = token
        self._given_repo_id = repo_id
        self._is_users = api is not None
        if api is not None:
            self.api = api
        self.known = False
        self.created = False

    @cached_property
    def api(self) -> HfApi:
        """The client."""
        return client_of(default_endpoint(), self._token)

    @property
    def branch_key(self) -> Hashable:
        """What two of these have in common that may make their commits together; asks nobody, and holds no token."""
        return (
            id(self.api) if self._is_users else _fingerprint(default_endpoint(), self._token),
            self._repo_type,
            self._given_repo_id,
            self._revision,
        )

    @property
    def account_key(self) -> str:
        """A name for the account that pushes now, safe in a file name; nothing of the token can be read off it."""
        return _fingerprint(self.endpoint, self._token_now())

    @property
    def endpoint(self) -> str:
        """The Hub's address."""
        return endpoint_of(vars(self).get("api"))

    def check_token(self) -> None:
        """Make sure, without a request, that there is a token that can be sent.

        Raises:
            ActionNeededError: If there is none, or one that HTTP cannot carry; the client would quote that in full.
        """
        trouble = self._trouble_with_token()
        if trouble:
            raise ActionNeededError(f"{trouble} for {self._name}: {_LOG_IN}")

    def find_repo(self) -> None:
        """Make sure that the repo exists, and create nothing."""
        self._guarded(lambda: self.api.repo_info(self.repo_id, repo_type=self._repo_type))

    def ensure_repo(self) -> str:
        """Create the repo and the branch where they do not exist yet; return the repo's full id.

        `created` then says whether it was this call that made the repo.
        """

        def create() -> str:
            self.repo_id = self._create_repo()
            if self._revision != "main":
                self._create_branch()
            return self.repo_id

        return self._guarded(create)

    def ensure_branch(self) -> None:
        """Create the branch where it does not exist any more."""
        self._guarded(self._create_branch)

    def upload(self, files: Sequence[tuple[str, bytes | Path]], readme: bytes | None = None) -> Uploaded:
        """Upload `files`, pairs of path in the repo and content that no longer changes, for a commit to come.

        `readme` is what the branch's README.md is to say if there is none.
        """

        def upload() -> Uploaded:
            from huggingface_hub import CommitOperationAdd

            additions = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=body) for path, body in files]
            extra = None if readme is None else CommitOperationAdd("README.md", readme)
            return self._upload(additions, extra)

        return self._guarded(upload)

    def commit(self, additions: Sequence[CommitOperationAdd], message: str) -> CommitInfo:
        """Commit together what was uploaded, by whomever."""

        def commit() -> CommitInfo:
            return self.api.create_commit(
                repo_id=self.repo_id,
                repo_type=self._repo_type,
                revision=self._revision,
                operations=list(additions),
                commit_message=message,
            )

        return self._guarded(commit)

    def send_ahead(self, path: str, part: bytes) -> None:
        """Upload a part of the file that a later commit puts at `path`, so that little of it is left to upload then.

        For uploads over Xet: plain LFS knows whole files only, and needs no memory for them.
        """

        def send() -> None:
            from huggingface_hub import CommitOperationAdd

            addition = CommitOperationAdd(path_in_repo=path, path_or_fileobj=part)
            self.api.preupload_lfs_files(self.repo_id, [addition], repo_type=self._repo_type, revision=self._revision)

        self._guarded(send)

    def squash(self, message: str) -> None:
        """Fold the branch's history into one commit."""
        self._guarded(
            lambda: self.api.super_squash_history(
                self.repo_id, repo_type=self._repo_type, branch=self._revision, commit_message=message
            )
        )

    def secret(self) -> str | None:
        """Return the token that the next request sends, so that no file that holds it is uploaded."""
        return self._token_now() or None

    def _token_now(self) -> Any:
        """Return the token that the next request sends; nothing, or `False`, if it sends none."""
        from huggingface_hub import get_token

        token = getattr(self.api, "token", None)
        return get_token() if token is None or token is True else token

    def _trouble_with_token(self) -> str:
        # Apart from where it is raised: who shows the frames of an exception may show what they hold.
        token = self._token_now()
        if not token:
            return "there is no token"
        if not all("!" <= character <= "~" for character in token):
            return "there is only a token with characters that no token has (it is not shown here)"
        return ""

    def _create_branch(self) -> None:
        self.api.create_branch(self.repo_id, branch=self._revision, repo_type=self._repo_type, exist_ok=True)

    def _create_repo(self) -> str:
        from huggingface_hub import RepoUrl
        from huggingface_hub.errors import HfHubHTTPError

        options: dict[str, Any] = {"repo_type": self._repo_type, "private": self._private}
        if self._repo_type == "space":
            options["space_sdk"] = "static"
        try:
            url = self.api.create_repo(self.repo_id, **options)
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status == 409:  # it exists; which one it is stands in the answer, which spares a request
                return str(RepoUrl(error.response.json()["url"], endpoint=self.api.endpoint).repo_id)
            if status not in _MAY_EXIST:
                raise
            try:
                return str(self.api.repo_info(self.repo_id, repo_type=self._repo_type).id)
            except HfHubHTTPError:
                raise error from None
        self.created = True
        return str(url.repo_id)

    def _upload(self, additions: list[CommitOperationAdd], card: CommitOperationAdd | None) -> Uploaded:
        _forget_storage_tokens()
        for some in together([*additions, card] if card else additions, BYTES_AT_ONCE if over_xet() else 0):
            self.api.preupload_lfs_files(
                repo_id=self.repo_id, repo_type=self._repo_type, revision=self._revision, additions=some
            )
        left_out = [addition for addition in additions if is_left_out(addition)]
        wanted = [addition for addition in additions if addition not in left_out and not is_identical(addition)]
        if not wanted or (card and (is_left_out(card) or exists(card))):
            card = None
        return Uploaded(
            (*wanted, card) if card else tuple(wanted), card, frozenset(each.path_in_repo for each in left_out)
        )

    def _guarded(self, call: Callable[[], T]) -> T:
        try:
            self.check_token()
            self._install_hooks()
            with _without_progress_bars():
                return call()
        except Exception as error:  # noqa: BLE001 - whatever the client raises, the verdict says what follows
            verdict: PushError = judge_exception(error, known=self.known, repo=self._name, now=time.time())
        # What the client raises may quote headers, and its frames hold them, and with them the token.
        verdict.__cause__ = verdict.__context__ = verdict.__traceback__ = None
        raise verdict

    @property
    def _name(self) -> str:
        return f"the {self._repo_type} repo {self.repo_id}"

    @staticmethod
    def _install_hooks() -> None:
        from huggingface_hub import get_session

        os.environ.setdefault(*_XET_BLOCK)  # read when the client makes its Xet session, which it does only once
        deadline.install_hooks(get_session())
        _redact_http_logs()


class _Redaction(logging.Filter):
    """Keeps secrets out of the log of the HTTP client: a Hub may repeat a request, and an address hold a password."""

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        clean = redacted(said)
        if clean != said:
            record.msg, record.args = clean, ()
        return True


_redaction = _Redaction()


def _redact_http_logs() -> None:
    # A filter of a logger does not see what is logged below it.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("httpx", "httpcore")):
            logging.getLogger(name).addFilter(_redaction)


def _fingerprint(endpoint: str, token: str | bool | None) -> str:
    return hashlib.blake2b(f"{endpoint}\0{token}".encode(), digest_size=8, person=b"hf-summ-account").hexdigest()


def _forget_storage_tokens() -> None:
    """Make the client ask for new tokens of the Xet storage.

    It caches them by the name of the repo. For a repo that was deleted and created again, storage takes an upload with
    the old token, and the Hub then refuses the commit.
    """
    from huggingface_hub.utils import _xet

    getattr(_xet, "XET_CONNECTION_INFO_CACHE", {}).clear()


class _ProgressBars:
    """The switch by which the client shows progress bars, also where there is no terminal."""

    @staticmethod
    def is_on() -> bool:
        from huggingface_hub.utils import are_progress_bars_disabled  # type: ignore[attr-defined]

        # A user who insists on them by HF_HUB_DISABLE_PROGRESS_BARS=0 has them.
        return not are_progress_bars_disabled() and constants.HF_HUB_DISABLE_PROGRESS_BARS is None

    @staticmethod
    def turn(on: bool) -> None:
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            disable_progress_bars,
            enable_progress_bars,
        )

        (enable_progress_bars if on else disable_progress_bars)()


# Every few minutes a bar for each upload would come between the lines of a training. A user's own download that begins
# while we upload has none either; one switch of the client is all there is.
_without_progress_bars = Quiet(_ProgressBars())


def over_xet() -> bool:
    """Tell whether the client uploads over Xet, and not over plain LFS."""
    return not constants.HF_HUB_DISABLE_XET and importlib.util.find_spec("hf_xet") is not None
