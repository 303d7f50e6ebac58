"""Names of repos and buckets: the rules of the Hub, and look-up without regard to case."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hf_summary_writer.localhub.errors import BadRequestError

KINDS = ("models", "datasets", "spaces")
BUCKETS = "buckets"

_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
# First path segments of the routes.
_RESERVED = {*KINDS, BUCKETS, "api", "v1", "v2", "xorbs", "lfs-objects", "lfs-verify", "localhub", "login"}


@dataclass(frozen=True, slots=True)
class RepoId:
    """A repo or bucket: its kind as in URLs of the API, its namespace and its name."""

    kind: str
    namespace: str
    name: str

    @property
    def full_name(self) -> str:
        """Return namespace and name, as users write it."""
        return f"{self.namespace}/{self.name}"

    @property
    def page(self) -> str:
        """Return the path of the page."""
        return f"/{self.full_name}" if self.kind == "models" else f"/{self.kind}/{self.full_name}"

    @property
    def key(self) -> RepoId:
        """Return the case-insensitive form of the name."""
        return RepoId(self.kind, self.namespace.lower(), self.name.lower())

    @property
    def is_possible(self) -> bool:
        """Return whether a repo can have this name, so that it is safe as a path."""
        return all(_PART.fullmatch(part) for part in (self.namespace, self.name))


def split_name(full_name: str) -> tuple[str, str]:
    """Return namespace and name."""
    namespace, slash, name = full_name.partition("/")
    if not slash or "/" in name:
        raise BadRequestError(f"{full_name!r} is no full name: namespace/name.")
    return namespace, name


def check_name(namespace: str, name: str) -> None:
    """Reject names that are invalid for a repo or bucket."""
    if namespace.lower() in _RESERVED:
        raise BadRequestError(f"The name {namespace!r} is taken by the Hub itself.")
    for part in (namespace, name):
        check_part(part)


def check_part(part: str) -> None:
    """Reject an invalid name of a namespace, repo or bucket."""
    if not _PART.fullmatch(part) or "--" in part or ".." in part or part.endswith(".git"):
        raise BadRequestError(
            f"Invalid name {part!r}: use letters, digits, '-', '_' and '.', at most 96, "
            "no '--' or '..', and do not begin or end with '-' or '.' or end with '.git'."
        )
