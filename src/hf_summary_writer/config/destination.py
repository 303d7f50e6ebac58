"""The place on a Hub that a folder is pushed to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from urllib.parse import quote

from hf_summary_writer.checks import BUCKET, DEFAULT_REVISION, as_unicode

__all__ = ["Destination"]


@dataclass(frozen=True, slots=True)
class Destination:
    """A folder of a branch of a repo on a Hub, or of a bucket, whose revision is empty."""

    endpoint: str
    repo_type: str
    repo_id: str
    revision: str
    path: str

    @property
    def key(self) -> str:
        """A short name for this destination that is safe in a file name."""
        canonical = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """The repo's name without its namespace."""
        return self.repo_id.rpartition("/")[2]

    @property
    def is_default_branch(self) -> bool:
        """Whether it is the default branch, or a bucket, which has no branches."""
        return self.revision in {DEFAULT_REVISION, ""}

    @property
    def folder_url(self) -> str:
        """The page of the files; `repo_id` must have its namespace."""
        if self.repo_type == BUCKET:
            return f"{self._repo_url}/tree/{quote(self.path)}" if self.path else self._repo_url
        return f"{self._repo_url}/tree/{quote(self.revision, safe='')}/{quote(self.path)}".rstrip("/")

    @property
    def url(self) -> str:
        """The page that shows the logs; `repo_id` must have its namespace.

        The Hub shows the tab "Training metrics" for the default branch of a model repo.
        """
        shown = self.repo_type == "model" and self.is_default_branch
        return f"{self._repo_url}/tensorboard" if shown else self.folder_url

    @property
    def known_url(self) -> str | None:
        """The page that shows the logs, once `repo_id` has its namespace."""
        return self.url if "/" in self.repo_id else None

    @property
    def known_folder_url(self) -> str | None:
        """The page of the files, once `repo_id` has its namespace."""
        return self.folder_url if "/" in self.repo_id else None

    @property
    def _repo_url(self) -> str:
        prefix = "" if self.repo_type == "model" else f"{self.repo_type}s/"
        return f"{self.endpoint}/{prefix}{self.repo_id}"

    def path_in_repo(self, relpath: str) -> str:
        """The place in the repo of the file that is `relpath` in the folder."""
        name = as_unicode(relpath)
        return f"{self.path}/{name}" if self.path else name
