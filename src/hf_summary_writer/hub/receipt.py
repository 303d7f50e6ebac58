"""The receipt of a push to a bucket. Imports the client's `CommitInfo`, which is slow: import it where one is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo

if TYPE_CHECKING:
    from typing_extensions import Self


class BucketReceipt(CommitInfo):
    """The result of a push to a bucket: a `CommitInfo` without an id, since a bucket has no commits.

    Attributes:
        commit_url: The page of the bucket; also `repo_url`.
        commit_message: The title of the push.
        oid: `None`.
        files: How many files the last batch of the push brought up to date.
        bytes: How many bytes these files have.
    """

    def __new__(cls, url: str, *_: Any) -> Self:
        return str.__new__(cls, url)

    def __init__(self, url: str, message: str, files: int, nbytes: int) -> None:
        # Not by the base class, which takes the page for that of a commit to a repo.
        self.commit_url: str = url
        self.commit_message: str = message
        self.commit_description: str = ""
        self.repo_url: Any = url
        self.oid: Any = None
        self.pr_url: str | None = None
        self.pr_revision: str | None = None
        self.pr_num: int | None = None
        self.files: int = files
        self.bytes: int = nbytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.commit_url!r}, {self.commit_message!r}, {self.files}, {self.bytes})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.commit_url, self.commit_message, self.files, self.bytes)
