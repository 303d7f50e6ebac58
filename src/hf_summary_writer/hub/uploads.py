"""Files on their way into a commit: uploads in pieces, the Hub's answers to each, and the README.md of a new repo."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

    from huggingface_hub import CommitOperationAdd

    from hf_summary_writer.config import Destination
    from hf_summary_writer.hub.remote import RemoteFile, Upload

T = TypeVar("T")

# Pieces of a large file that are uploaded before it: the client and its allocator hold about 20 times this. Each piece
# takes two requests of the Hub's API.
PIECE_BYTES = 4 * 2**20
# Chunks are cut by content and have at most 128 kB. With this overlap two pieces nearly always agree on a cut, so that
# no chunk of the whole file is new because it crosses the end of a piece.
OVERLAP_BYTES = 256 * 2**10


class PieceReader:
    """Reads the new part of large files in pieces, from where an earlier attempt ended.

    The Xet client collects up to 64 MB of new chunks before it uploads them, and holds those several times over. When
    the whole file follows its pieces, the client finds their chunks known, and they cost no memory.
    """

    def __init__(self) -> None:
        self._ends: dict[Hashable, int] = {}

    def pieces(self, upload: Upload, at_least: int) -> Iterator[bytes]:
        """Yield the pieces of a file, but for a last part of less than a piece; none if the new part is small.

        Args:
            upload: The file. A file in memory yields nothing.
            at_least: New parts of up to this many bytes are small.
        """
        # The file may be another one by now. Then too much or too little is uploaded here, which does no harm.
        start = max(upload.known_bytes, self._ends.get(upload.file_id, 0))
        if isinstance(upload.body, bytes) or upload.size - start <= at_least:
            return
        with upload.body.open("rb") as file:
            for end in range(start + PIECE_BYTES, upload.size, PIECE_BYTES - OVERLAP_BYTES):
                file.seek(end - PIECE_BYTES)
                yield file.read(PIECE_BYTES)
                self._ends[upload.file_id] = end


@dataclass(frozen=True, slots=True)
class PreparedCommit:
    """Files that are ready to be committed.

    Attributes:
        additions: The files to commit; empty if the Hub already holds all.
        left_out: The paths in the repo that its `.gitignore` keeps out.
        along: Small files that come along with the additions.
        kept: The files in the repo that would be replaced by less, and the paths under which they are kept.
        listed: The Hub's listing of each file by its path in the repo, also of files that need no commit.
    """

    additions: tuple[CommitOperationAdd, ...]
    left_out: frozenset[str]
    along: tuple[CommitOperationAdd, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)
    listed: Mapping[str, RemoteFile] = field(default_factory=dict)

    def shares(self, most: int) -> list[PreparedCommit]:
        """Return the commits to make one after the other, of which none posts more than `most` bytes, or a single file.

        The first commit has all files without posted bytes and all else of this one.
        """
        if posted_bytes(self.additions) <= most:
            return [self]
        uploaded = [each for each in self.additions if not posted_bytes([each])]
        posted = [each for each in self.additions if posted_bytes([each])]
        first, *others = grouped(posted, lambda each: posted_bytes([each]), most)
        return [
            replace(self, additions=(*uploaded, *first)),
            *(PreparedCommit(tuple(each), frozenset(), listed=self.listed) for each in others),
        ]


def posted_bytes(additions: Iterable[CommitOperationAdd]) -> int:
    """Return how many bytes of content travel within the commit itself, as text of up to some megabytes does.

    The client promises to leave nothing in an addition that it has uploaded before.
    """
    return sum(addition.upload_info.size for addition in additions if addition.path_or_fileobj != b"")


def grouped(items: Iterable[T], size_of: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Yield the items in groups: as many as fit into `most` bytes, at least one."""
    found: list[T] = []
    size = 0
    for item in items:
        if found and size + size_of(item) > most:
            yield found
            found, size = [], 0
        found.append(item)
        size += size_of(item)
    if found:
        yield found


# The client keeps the Hub's response about each file in private attributes. Without them a file that the Hub leaves out
# would count as uploaded; the tests for that run on the oldest and the newest version that is allowed.
def is_left_out(addition: Any) -> bool:
    """Return whether the repo's `.gitignore` keeps it out."""
    return bool(getattr(addition, "_should_ignore", False))


def is_in_lfs(addition: Any) -> bool:
    """Return whether the Hub stores it in LFS."""
    return getattr(addition, "_upload_mode", None) == "lfs"


def exists(addition: Any) -> bool:
    """Return whether the repo has a file at this path, of any content."""
    return getattr(addition, "_remote_oid", None) is not None


def is_identical(addition: Any) -> bool:
    """Return whether the repo holds the very same file."""
    remote = getattr(addition, "_remote_oid", None)
    return remote is not None and remote == getattr(addition, "_local_oid", None)


def git_oid(addition: Any) -> str:
    """Return the hash by which Git knows a file, or its pointer to LFS; empty if the client does not expose it.

    It reveals that a file in LFS was replaced by one in Git.
    """
    mode = getattr(addition, "_upload_mode", None)
    if mode == "lfs":
        from huggingface_hub.utils.sha import git_hash

        info = addition.upload_info
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{info.sha256.hex()}\nsize {info.size}\n"
        return git_hash(pointer.encode())
    return str(getattr(addition, "_local_oid", None) or "") if mode == "regular" else ""


CARD_PATH = "README.md"

# A Space is built as its card says; the fields are those that the Hub requires of one without a program.
_SPACE_FIELDS = ('title: "{name}"', "emoji: 📈", "colorFrom: blue", "colorTo: green", "sdk: static", "pinned: false")

_LOGS = """
# {name}

Logs of training runs, in the format of [TensorBoard](https://www.tensorflow.org/tensorboard), kept up to date by
`hf-summary-writer` while the training goes on. {where}

To read them on a machine of your own:

```sh
pip install huggingface_hub tensorboard
hf download {repo_id}{options} --local-dir {name}
tensorboard --logdir {logs}
```
"""

_FILES = """
# {name}

Files of a folder, kept up to date by `hf-summary-writer`.

To download them:

```sh
pip install huggingface_hub
hf download {repo_id}{options} --local-dir {name}
```
"""


def model_card(destination: Destination, *, holds_logs: bool) -> bytes:
    """Return a card for the new repo of `destination`, whose `repo_id` has its namespace.

    Args:
        destination: The destination.
        holds_logs: Whether event files are uploaded, and not only files of other kinds.
    """
    name = destination.name
    fields = [field.format(name=name) for field in _SPACE_FIELDS if destination.repo_type == "space"]
    tags = ["- tensorboard", "- hf-summary-writer"] if holds_logs else ["- hf-summary-writer"]
    options = "" if destination.repo_type == "model" else f" --repo-type {destination.repo_type}"
    options += "" if destination.is_default_branch else f" --revision {destination.revision}"
    where = "Each folder below is a run."
    if destination.repo_type == "model" and destination.is_default_branch:
        where = 'The tab "Training metrics" of this page shows them.'
    head = ["---", *fields, "tags:", *tags, "---"]
    # Not the download itself: the client keeps files of its own there, by names that TensorBoard takes for runs.
    logs = "/".join([name, *destination.path.split("/")[:-1]])
    body = (_LOGS if holds_logs else _FILES).format(
        name=name, logs=logs, repo_id=destination.repo_id, options=options, where=where
    )
    return ("\n".join(head) + "\n" + body).encode()
