"""The pull requests of a repo: metadata and events. The commits are on the ref `refs/pr/N`."""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hf_summary_writer.localhub.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hf_summary_writer.localhub.disk import Disk

PULLS = "refs/pr/"
PULL = re.compile(r"refs/pr/[1-9][0-9]{0,8}")
DRAFT, OPEN, CLOSED, MERGED = "draft", "open", "closed", "merged"
MAX_TITLE_CHARACTERS = 200


@dataclass(slots=True)
class PullRequest:
    """A pull request.

    Args:
        number: counts the pull requests of a repo from 1.
        title: its title.
        author: the name of the user who opened it.
        base: the commit of the main branch that it starts from.
        created: the Unix time of its creation.
        status: draft, open, closed or merged.
        merged: the commit that it was merged with.
        events: comments and changes, as the Hub tells them.
    """

    number: int
    title: str
    author: str
    base: str
    created: float
    status: str = DRAFT
    merged: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ref(self) -> str:
        """Return the ref of its commits."""
        return f"{PULLS}{self.number}"

    @property
    def is_settled(self) -> bool:
        """Return whether it accepts no more commits."""
        return self.status in (CLOSED, MERGED)

    def comment(self, author: str, text: str) -> dict[str, Any]:
        """Add a comment, and return it as an event."""
        data = {"edited": False, "hidden": False, "latest": {"raw": text, "html": ""}}
        return self._add("comment", author, data)

    def set_status(self, author: str, status: str) -> dict[str, Any]:
        """Change the status, and return the change as an event."""
        self.status = status
        return self._add("status-change", author, {"status": status})

    def set_title(self, author: str, title: str) -> dict[str, Any]:
        """Change the title, and return the change as an event."""
        old, self.title = self.title, check_title(title)
        return self._add("title-change", author, {"from": old, "to": self.title})

    def _add(self, kind: str, author: str, data: dict[str, Any]) -> dict[str, Any]:
        event = {"id": secrets.token_hex(12), "type": kind, "author": author, "time": time.time(), "data": data}
        self.events.append(event)
        return event


def check_title(title: str) -> str:
    """Return a normalized title; reject an invalid one."""
    title = " ".join(title.split())
    if not 0 < len(title) <= MAX_TITLE_CHARACTERS:
        raise HubError(400, f"A title has 1 to {MAX_TITLE_CHARACTERS} characters.")
    return title


class PullStore:
    """The pull requests of one repo, each in a file; hold the lock of the repo to change them."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.json"

    def new(self, title: str, author: str, base: str) -> PullRequest:
        """Return a new pull request with the next number; it exists once it is saved."""
        numbers = [int(path.stem) for path in self._folder.glob("*.json")]
        return PullRequest(max(numbers, default=0) + 1, check_title(title), author, base, time.time())

    def save(self, pull: PullRequest) -> None:
        """Save a pull request durably."""
        self._disk.write(self._path(pull.number), json.dumps(asdict(pull)).encode())

    def get(self, number: int) -> PullRequest:
        """Return a pull request."""
        try:
            return PullRequest(**json.loads(self._path(number).read_bytes()))
        except FileNotFoundError:
            raise HubError(404, f"There is no pull request {number}.") from None

    def all(self) -> Iterator[PullRequest]:
        """Yield the pull requests, the newest first."""
        for number in sorted((int(path.stem) for path in self._folder.glob("*.json")), reverse=True):
            yield self.get(number)
