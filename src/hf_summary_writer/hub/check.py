"""Checks before a push: the Hub, the token and its rights, the clock, the cache of Xet. They change nothing."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from huggingface_hub import constants

from hf_summary_writer.checks import BUCKET, PULL_REQUESTS, check_repo_type, check_revision, without_password
from hf_summary_writer.config import MODE, Mode, mode_for
from hf_summary_writer.errors import ActionNeededError
from hf_summary_writer.hub.bucket import check_client
from hf_summary_writer.hub.client import client_of
from hf_summary_writer.hub.responses import (
    REPO_NOT_FOUND,
    REVISION_NOT_FOUND,
    answer_of,
    classify_exception,
    one_line,
    requests_left,
)
from hf_summary_writer.hub.thread import in_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from huggingface_hub import HfApi

    from hf_summary_writer.config import PushConfig

_SECONDS = 20.0

# Signed requests of uploads fail when the clocks differ by more than some minutes.
_MAX_CLOCK_SECONDS = 120.0

# Other refusals come from a proxy, or from a server that is no Hub.
_OF_THE_TOKEN = (401, 403)

_PACKAGES = ("hf-summary-writer", "huggingface_hub", "hf_xet", "tensorboardX")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: The name of the check.
        ok: Whether a push can rely on it.
        text: The result, for the user.
        remedy: The next step for the user; empty if `ok`.
    """

    subject: str
    ok: bool
    text: str
    remedy: str = ""


def check(
    api: HfApi, repo_id: str | None = None, repo_type: str | None = None, revision: str | None = None
) -> Iterator[Finding]:
    """Yield one finding after the other; makes two requests at most.

    Args:
        api: The client that pushes would use.
        repo_id: The repo that they would go to.
        repo_type: Its type.
        revision: Its branch.
    """
    yield _finding("versions", ", ".join([f"Python {platform.python_version()}", *map(_version, _PACKAGES)]))
    if repo_type == BUCKET:
        yield _bucket_client()
    yield _mode()
    yield _xet_cache(repo_type)
    endpoint = without_password(api.endpoint)
    try:
        answer = _ask(api, "GET", "/api/whoami-v2")
        account = answer.json()
        name = str(account["name"])
    except Exception as error:  # noqa: BLE001 - the client raises many kinds
        reason = str(classify_exception(error, known=False, repo="the Hub", now=time.time()))
        refusal = answer_of(error)
        if isinstance(error, UnicodeEncodeError) or (refusal is not None and refusal.status in _OF_THE_TOKEN):
            yield _finding("Hub", endpoint)
            yield _finding("token", reason, "log in with `hf auth login`, or set HF_TOKEN")
        else:
            yield _finding("Hub", f"{endpoint}: {reason}", "check HF_ENDPOINT, network and proxy")
        return
    yield _finding("Hub", endpoint)
    yield _clock(answer.headers.get("date", ""))
    yield _limits(answer.headers.get("ratelimit", ""))
    role = _role(account.get("auth"))
    remedy = "create a token that may write at https://huggingface.co/settings/tokens" if role == "read" else ""
    yield _finding("token", f"of {one_line(name)}, with the role {one_line(role)}", remedy)
    if repo_id is not None:
        full_name = repo_id if "/" in repo_id else f"{name}/{repo_id}"
        found = _rights(api, full_name, check_repo_type(repo_type), check_revision(revision))
        yield found if found is not None else _new_repo(account, full_name, check_repo_type(repo_type))


def _finding(subject: str, text: str, remedy: str = "") -> Finding:
    return Finding(subject, not remedy, text, remedy)


def require(config: PushConfig, api: HfApi | None) -> None:
    """Raise an error that names the first thing that is in the way of pushes with `config`.

    Raises:
        ActionNeededError: If there is one.
    """
    client = api or client_of(config.endpoint, config.token)
    for finding in check(client, config.repo_id, config.repo_type, config.revision):
        if not finding.ok:
            raise ActionNeededError(f"{finding.subject}: {finding.text}; {finding.remedy}")


def _ask(api: HfApi, method: str, path: str, **content: Any) -> Any:
    from huggingface_hub import get_session
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        hf_raise_for_status,
    )

    headers = build_hf_headers(token=api.token, library_name=api.library_name)

    def ask() -> Any:
        answer = get_session().request(method, f"{api.endpoint}{path}", headers=headers, timeout=_SECONDS, **content)
        hf_raise_for_status(answer)
        return answer

    return in_time(ask, _SECONDS)


def _bucket_client() -> Finding:
    try:
        check_client(BUCKET)
    except ValueError as error:
        return _finding("client", str(error), "upgrade huggingface_hub and hf_xet")
    return _finding("client", "can push to buckets")


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def _mode() -> Finding:
    try:
        mode = mode_for()
    except ValueError as error:
        return _finding("mode", str(error), f"correct {MODE}")
    remedy = "" if mode is Mode.ONLINE else f"unset {MODE}, HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE"
    return _finding("mode", mode.value, remedy)


def _xet_cache(repo_type: str | None) -> Finding:
    if constants.HF_HUB_DISABLE_XET and repo_type != BUCKET:
        return _finding("Xet", "switched off by HF_HUB_DISABLE_XET: files go over plain LFS")
    folder = Path(constants.HF_XET_CACHE)
    existing = next(each for each in (folder, *folder.parents) if os.path.exists(each))  # noqa: PTH110
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return _finding("Xet", f"cache in {folder}")
    remedy = "set HF_HOME to a folder that you may write to, or HF_HUB_DISABLE_XET=1"
    return _finding("Xet", f"cache in {folder}, not writable", remedy)


def _role(auth: Any) -> str:
    """Return the role of the token; other ways to log in have none."""
    token = auth.get("accessToken") if isinstance(auth, dict) else None
    return str(token.get("role", "unknown")) if isinstance(token, dict) else "unknown"


def _clock(date: str) -> Finding:
    try:
        distance = time.time() - parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return _finding("clock", "the Hub did not tell its own")
    remedy = "set the clock" if abs(distance) > _MAX_CLOCK_SECONDS else ""
    return _finding("clock", f"{distance:+.0f} s from that of the Hub", remedy)


def _limits(header: str) -> Finding:
    left = requests_left(header)
    text = "the Hub names none" if left is None else f"{left[0]:,} API requests left for the next {left[1]} s"
    return _finding("limits", text)


def _new_repo(account: Mapping[str, Any], repo_id: str, repo_type: str) -> Finding:
    """Return whether the account may create a repo, as far as it is known without creating it."""
    namespace = repo_id.partition("/")[0]
    organizations = [each.get("name") for each in account.get("orgs") or () if isinstance(each, dict)]
    known = {str(each).lower() for each in (account["name"], *organizations)}
    # The local Hub may let each user use all namespaces.
    if namespace.lower() not in known and not account.get("anyNamespace"):
        return _finding(
            "repo",
            f"{repo_type} {repo_id} does not exist, and {namespace} is neither {one_line(str(account['name']))}"
            " nor an organization of this account",
            "correct the name, or ask for access to it",
        )
    return _finding("repo", f"{repo_type} {repo_id} does not exist: the first push creates it")


def _rights(api: HfApi, repo_id: str, repo_type: str, revision: str) -> Finding | None:
    """Make the request that precedes a commit or batch: it needs the same right and changes nothing.

    Returns `None` if there is no such repo.
    """
    probe = {"files": [{"path": "check.txt", "size": 1, "sample": "eA=="}]}
    try:
        if repo_type == BUCKET:
            _ask(api, "GET", f"/api/buckets/{repo_id}/xet-write-token")
        else:
            _ask(api, "POST", f"/api/{repo_type}s/{repo_id}/preupload/{quote(revision, safe='')}", json=probe)
    except Exception as error:  # noqa: BLE001 - the client raises many kinds
        answer = answer_of(error)
        code = "" if answer is None else answer.error_code
        if code == REPO_NOT_FOUND:
            return None
        if code == REVISION_NOT_FOUND and revision.startswith(PULL_REQUESTS):
            text = f"{repo_type} {repo_id} has no pull request {revision}"
            return _finding("repo", text, "open it first, or name a branch")
        if code == REVISION_NOT_FOUND:
            return _finding("repo", f"{repo_type} {repo_id} has no branch {revision}: the first push creates it")
        reason = str(classify_exception(error, known=False, repo=repo_id, now=time.time()))
        return _finding("repo", reason, "use a token that may write to this repo, or another repo")
    return _finding("repo", f"the token may write to {repo_type} {repo_id}")
