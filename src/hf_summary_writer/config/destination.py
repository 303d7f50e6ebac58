"""The place on a Hub that a folder is pushed to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from urllib.parse import quote

from hf_summary_writer.checks import BUCKET, DEFAULT_REVISION, as_unicode


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
    def folder_url(self) -> str | None:
        """The page of the files, once `repo_id` has its namespace."""
        if "/" not in self.repo_id:
            return None
        repo = f"{self.endpoint}/{'' if self.repo_type == 'model' else f'{self.repo_type}s/'}{self.repo_id}"
        if self.repo_type == BUCKET:
            return f"{repo}/tree/{quote(self.path)}" if self.path else repo
        return f"{repo}/tree/{quote(self.revision, safe='')}/{quote(self.path)}".rstrip("/")

    @property
    def url(self) -> str | None:
        """The page that shows the logs, once `repo_id` has its namespace."""
        # The Hub shows the tab "Training metrics" for the default branch of a model repo.
        has_tab = self.repo_type == "model" and self.is_default_branch and "/" in self.repo_id
        return f"{self.endpoint}/{self.repo_id}/tensorboard" if has_tab else self.folder_url

    def path_in_repo(self, relpath: str) -> str:
        """The place in the repo of the file that is `relpath` in the folder."""
        name = as_unicode(relpath)
        return f"{self.path}/{name}" if self.path else name
