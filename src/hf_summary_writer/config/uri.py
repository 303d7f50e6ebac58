"""`hf://` URIs of repos and buckets."""

from __future__ import annotations

import re
from urllib.parse import unquote

from hf_summary_writer.checks import REPO_TYPES, check_path_in_repo, check_repo_id, check_revision

_URI = re.compile(
    r"hf://(?:(?P<kind>models|datasets|spaces|buckets(?=/[^/@]+/[^/@]+(?:/|$)))/)?"
    r"(?P<repo>(?!(?:models|datasets|spaces|buckets)(?:/|$))(?:[^/@]+/[^/@]+|[^/@]+(?=@|$)))"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(?P<path>.*))?"
)


def uri_parts(repo_id: str) -> dict[str, str]:
    """Return the parts of an `hf://` URI by the fields of `PushConfig`; none for a plain repo id.

    Raises:
        ValueError: If it is no URI of a repo.
    """
    if not repo_id.startswith("hf://"):
        return {}
    kind = repo_id.removeprefix("hf://").partition("/")[0]
    if kind in REPO_TYPES:
        # Read as the name of a user, it would lead to another repo.
        raise ValueError(f"{repo_id!r} is no URI of a repo or bucket: write hf://{kind}s/ instead of hf://{kind}/")
    found = _URI.fullmatch(repo_id)
    if found is None:
        raise ValueError(
            f"{repo_id!r} is no URI of a repo or bucket: use one such as 'hf://datasets/user/name@branch/folder' or "
            "'hf://buckets/user/name/folder'"
        )
    parts = {"repo_id": check_repo_id(found["repo"]), "repo_type": (found["kind"] or "models")[:-1]}
    if found["revision"] is not None:
        parts["revision"] = check_revision(unquote(found["revision"]))
    if found["path"]:
        parts["path_in_repo"] = check_path_in_repo(found["path"])
    return parts
