"""One bare Git repository: revisions, trees and commits."""

from __future__ import annotations

import itertools
import re
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import IO, TYPE_CHECKING

from dulwich.diff_tree import tree_changes
from dulwich.errors import GitProtocolError, NotGitRepository, NotTreeError
from dulwich.objects import Commit, ObjectID, Tag, Tree
from dulwich.patch import write_tree_diff
from dulwich.protocol import ReceivableProtocol
from dulwich.refs import Ref, check_ref_format
from dulwich.repo import Repo
from dulwich.server import DictBackend, UploadPackHandler

from hf_summary_writer.localhub.attributes import DEFAULT_ATTRIBUTES
from hf_summary_writer.localhub.disk import sync_all, sync_folder
from hf_summary_writer.localhub.errors import BadRequestError, HubError, RepoNotFoundError, RevisionNotFoundError
from hf_summary_writer.localhub.lfs import MAX_POINTER_BYTES, parse_pointer
from hf_summary_writer.localhub.trees import TreeEditor, is_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dulwich.objects import ShaFile
    from dulwich.server import BackendRepo

    from hf_summary_writer.localhub.lfs import Pointer

MAIN = "main"
HEADS = "refs/heads/"
TAGS = "refs/tags/"
STALE = "The branch was updated since you opened this page. Please refresh and try again."
# A ref is a file name, and its lock file has a longer one.
_MAX_REF_PART_BYTES = 200
# Folders of an open repository in memory.
_MOST_FOLDERS = 256
# Git abbreviates to 7 digits by default.
_OID = re.compile(r"[0-9a-f]{7,40}")


def abbreviates(text: str, oid: str) -> bool:
    """Return whether a text is an id, or its first 7 or more digits."""
    return _OID.fullmatch(text) is not None and oid.startswith(text)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder of a tree, by its full path."""

    path: str
    oid: str
    is_folder: bool


@dataclass(frozen=True, slots=True)
class LoggedCommit:
    """A commit as the history shows it."""

    oid: str
    message: str
    time: int
    author: str

    @property
    def title(self) -> str:
        """Return the first line of the message."""
        return self.message.partition("\n")[0]

    @property
    def description(self) -> str:
        """Return the message without its first line."""
        return self.message.partition("\n")[2].strip("\n")


@dataclass(slots=True)
class _Searched:
    """A tree of searched paths: the path that ends here, if one does, and the paths below it."""

    path: str = ""
    below: dict[bytes, _Searched] = field(default_factory=dict)

    def add(self, path: str) -> None:
        """Add a path."""
        node = self
        for name in path.encode().split(b"/"):
            node = node.below.setdefault(name, _Searched())
        node.path = path


class GitRepo:
    """An open bare repository; hold the repo's lock to write to it."""

    def __init__(self, repo: Repo, path: Path) -> None:
        self._repo = repo
        self._path = path
        # Many paths share few folders, and a large folder is slow to parse.
        self._folders: dict[bytes, Tree] = {}

    @staticmethod
    def create(path: Path, author: str) -> None:
        """Make `path`, an empty folder, a repository with a first commit, as the Hub does."""
        Repo.init_bare(str(path), default_branch=MAIN.encode()).close()
        sync_all(path)
        with GitRepo.open(path) as git:
            attributes = DEFAULT_ATTRIBUTES.encode()
            git.commit(
                HEADS + MAIN, None, lambda tree: tree.write(".gitattributes", attributes), "initial commit", author
            )

    @staticmethod
    @contextmanager
    def open(path: Path) -> Iterator[GitRepo]:
        """Open the repository at `path` for a few operations."""
        try:
            opened = Repo(str(path), bare=True)
        except NotGitRepository:
            # The repo was deleted or renamed since the caller looked it up.
            raise RepoNotFoundError from None
        with closing(opened) as repo:
            # Not by the setting core.fsyncObjectFiles: Git itself warns that it is deprecated.
            repo.object_store.fsync_object_files = True
            try:
                yield GitRepo(repo, path)
            except Exception as error:
                if path.exists():
                    raise
                # The repo was deleted or renamed during the operations.
                raise RepoNotFoundError from error

    @staticmethod
    def remove_stale_locks(path: Path) -> None:
        """Remove the locks that a killed server or a failed write left; only while nobody else writes here."""
        for folder in ("objects", "refs"):
            for lock in (path / folder).rglob("*.lock"):
                lock.unlink(missing_ok=True)

    def resolve(self, revision: str) -> str:
        """Return the commit that a branch, a tag, a full ref, `HEAD`, or a commit id names, also an abbreviated one."""
        for name in (revision, HEADS + revision, TAGS + revision):
            if name.startswith("refs/") and (found := self.ref(name)):
                return found
        if revision == "HEAD":
            return self.resolve(HEADS + MAIN)
        if _OID.fullmatch(revision):
            candidates = self._repo.object_store.iter_prefix(revision.encode())
            commits = [oid.decode() for oid in candidates if isinstance(self._repo[oid], Commit)]
            if len(commits) == 1:
                return commits[0]
        raise RevisionNotFoundError(revision)

    def ref(self, name: str) -> str | None:
        """Return the commit that a ref such as `refs/heads/main` points to, or None if there is no such ref."""
        raw = name.encode("utf-8", "surrogatepass")
        if not check_ref_format(Ref(raw)):
            return None
        try:
            found = self._repo[Ref(raw)]
        except (KeyError, OSError):
            return None
        while isinstance(found, Tag):
            found = self._repo[found.object[1]]
        return found.id.decode()

    def refs(self, prefix: str) -> dict[str, str]:
        """Return the commits of all refs under a prefix, by the name after it."""
        base = Ref(prefix.rstrip("/").encode())
        names = sorted(name.decode() for name in self._repo.refs.keys(base))
        return {name: oid for name in names if (oid := self.ref(prefix + name))}

    def set_ref(self, name: str, oid: str, expected: str | None = None) -> None:
        """Point a ref to a commit, durably; with `expected`, only if the ref points to that commit."""
        raw = name.encode("utf-8", "surrogatepass")
        if not check_ref_format(Ref(raw)) or any(len(part) > _MAX_REF_PART_BYTES for part in raw.split(b"/")):
            raise BadRequestError(f"{name!r} is no name for a branch or a tag.")
        try:
            with self._writing():
                done = self._repo.refs.set_if_equals(
                    Ref(raw), ObjectID(expected.encode()) if expected else None, ObjectID(oid.encode())
                )
        except (NotADirectoryError, IsADirectoryError, FileExistsError) as error:
            raise HubError(409, f"{name} is in the way of, or under, another branch or tag.") from error
        if not done:
            raise HubError(412, STALE)
        self._sync_folders_of(name)

    def delete_ref(self, name: str) -> None:
        """Delete a ref, durably."""
        with self._writing():
            del self._repo.refs[Ref(name.encode())]
        self._sync_folders_of(name)

    def _sync_folders_of(self, ref: str) -> None:
        # Creating or deleting a ref may also create or delete folders.
        for folder in (self._path / ref).parents:
            if folder == self._path:
                break
            if folder.is_dir():
                sync_folder(folder)

    def root(self, commit: str) -> Entry:
        """Return the root folder of a commit."""
        return Entry("", self._tree_of(commit).id.decode(), is_folder=True)

    def entry(self, commit: str, path: str) -> Entry | None:
        """Return the file or folder at `path`, or None if there is none."""
        if not path:
            return self.root(commit)
        try:
            mode, oid = self._tree_of(commit).lookup_path(self._folder, path.encode())
        except (KeyError, NotTreeError):
            return None
        return Entry(path, oid.decode(), is_folder(mode))

    def _folder(self, oid: ObjectID) -> ShaFile:
        found: ShaFile | None = self._folders.get(oid)
        if found is None:
            found = self._repo.get_object(oid)
            if isinstance(found, Tree):
                if len(self._folders) >= _MOST_FOLDERS:
                    self._folders.clear()
                self._folders[oid] = found
        return found

    def walk(self, folder: Entry, *, recursive: bool, after: str = "") -> Iterator[Entry]:
        """Yield the entries of a folder, sorted by path; only those after the entry with the path `after`."""
        # Without recursion: trees can be deeper than Python's stack.
        to_come = self._children(folder)
        while to_come:
            entry = to_come.pop()
            if not after:
                yield entry
            elif entry.path == after:
                after = ""
            elif not after.startswith(f"{entry.path}/"):
                continue
            if recursive and entry.is_folder:
                to_come += self._children(entry)

    def _children(self, folder: Entry) -> list[Entry]:
        """Return the direct children of a folder, in reverse order."""
        tree = self._repo[ObjectID(folder.oid.encode())]
        items = tree.items() if isinstance(tree, Tree) else []
        paths = [(f"{folder.path}/{item.path.decode()}".lstrip("/"), item) for item in reversed(items)]
        return [Entry(path, item.sha.decode(), is_folder(item.mode)) for path, item in paths]

    def blob(self, oid: str) -> bytes:
        """Return the content of a file that Git itself holds."""
        return self._repo[ObjectID(oid.encode())].as_raw_string()

    def describe(self, entry: Entry) -> tuple[int, Pointer | None]:
        """Return the size of the blob of a file, and the LFS pointer if the blob is one."""
        blob = self.blob(entry.oid)
        return len(blob), parse_pointer(blob) if len(blob) <= MAX_POINTER_BYTES else None

    def log(self, commit: str) -> Iterator[LoggedCommit]:
        """Yield the commits that led to `commit`, newest first."""
        oid = ObjectID(commit.encode())
        while True:
            found = self._repo[oid]
            if not isinstance(found, Commit):
                return
            message, author = (raw.decode(errors="replace") for raw in (found.message, found.author))
            yield LoggedCommit(found.id.decode(), message, found.commit_time, author.partition(" <")[0])
            if not found.parents:
                return
            oid = found.parents[0]

    def last_commits(self, commit: str, entries: Sequence[Entry]) -> dict[str, LoggedCommit]:
        """Return the last commit up to `commit` that changed each entry, by path."""
        searched = _Searched()
        found: dict[str, LoggedCommit] = {}
        for entry in entries:
            searched.add(entry.path)
        history = self.log(commit)
        newer = next(history)
        for older in history:
            if not searched.below:
                break
            changed = self._changed(searched, self._tree_of(newer.oid), self._tree_of(older.oid))
            found |= dict.fromkeys(changed, newer)
            newer = older
        return {entry.path: found.get(entry.path, newer) for entry in entries}

    def _changed(self, searched: _Searched, newer: Tree | None, older: Tree | None) -> Iterator[str]:
        """Yield the searched paths below a folder that differ between two commits, and search them no longer."""
        for name, each in list(searched.below.items()):
            oids = [tree[name][1] if tree is not None and name in tree else None for tree in (newer, older)]
            if oids[0] == oids[1]:
                continue
            if each.path:
                yield each.path
                each.path = ""
            if each.below:
                folders = [self._folder(oid) if oid else None for oid in oids]
                yield from self._changed(each, *(found if isinstance(found, Tree) else None for found in folders))
            if not each.below:
                del searched.below[name]

    def ids(self, commit: str) -> tuple[str, ...]:
        """Return the ids of the commits that led to `commit`, newest first."""
        return _ids(self._path, commit)

    def changes(self, commit: str) -> Iterator[tuple[str, str]]:
        """Yield the changes of a commit: "add", "modify" or "delete", and the path of the file."""
        found = self._repo[ObjectID(commit.encode())]
        parents = found.parents if isinstance(found, Commit) else []
        before = self._tree_of(parents[0].decode()).id if parents else None
        for change in tree_changes(self._repo.object_store, before, self._tree_of(commit).id):
            entry = change.new if change.new and change.new.path else change.old
            if entry and entry.path:
                yield change.type, entry.path.decode(errors="replace")

    def diff(self, before: str, after: str) -> dict[str, str | None]:
        """Return the changed files between two commits: path to object id, None if deleted."""
        found: dict[str, str | None] = {}
        for change in tree_changes(self._repo.object_store, self._tree_of(before).id, self._tree_of(after).id):
            old, new = change.old, change.new
            if new and new.path and new.sha:
                found[new.path.decode(errors="replace")] = new.sha.decode()
            elif old and old.path:
                found[old.path.decode(errors="replace")] = None
        return found

    def patch(self, before: str, after: str, most_bytes: int) -> str:
        """Return the diff between two commits as text, truncated to a size."""
        text = BytesIO()
        write_tree_diff(text, self._repo.object_store, self._tree_of(before).id, self._tree_of(after).id)
        return text.getvalue()[:most_bytes].decode(errors="replace")

    def between(self, before: str, after: str) -> list[LoggedCommit]:
        """Return the commits after `before` up to `after`, the oldest first."""
        found = list(itertools.takewhile(lambda commit: commit.oid != before, self.log(after)))
        return found[::-1]

    def commit(
        self,
        ref: str,
        head: str | None,
        edit: Callable[[TreeEditor], None],
        message: str,
        author: str,
        base: str | None = None,
    ) -> str:
        """Commit a tree changed by `edit`, and point a ref to the commit, durably.

        Args:
            ref: the ref.
            head: the commit that the ref points to, None for a new one.
            edit: changes the tree.
            message: the message of the commit.
            author: the name of the user.
            base: the parent, `head` by default.
        """
        parent = base or head
        written: list[ShaFile] = []
        tree = TreeEditor(self._repo.object_store, self._tree_of(parent) if parent else Tree(), written)
        with self._writing():
            edit(tree)
            commit = _new_commit(tree.finish(), parent, message, author)
        self._publish(ref, head, [*written, commit])
        return commit.id.decode()

    def squash(self, branch: str, message: str, author: str) -> str:
        """Replace the history of a branch by one commit with the same tree."""
        head = self.resolve(HEADS + branch)
        commit = _new_commit(self._tree_of(head).id, None, message, author)
        self._publish(HEADS + branch, head, [commit])
        return commit.id.decode()

    def start(self, branch: str, message: str, author: str, replaced: str | None) -> None:
        """Point a branch to a new empty commit without a parent, and replace the current commit if there is one."""
        tree = Tree()
        with self._writing():
            self._repo.object_store.add_object(tree)
        self._publish(HEADS + branch, replaced, [tree, _new_commit(tree.id, None, message, author)])

    def upload_pack(self, request: IO[bytes], answer: IO[bytes], *, advertise: bool) -> None:
        """Respond to `git fetch`, or advertise the refs."""
        protocol = ReceivableProtocol(request.read, answer.write)
        if advertise:
            protocol.write_pkt_line(b"# service=git-upload-pack\n")
            protocol.write_pkt_line(None)
        repos: dict[str, BackendRepo] = {"/": self._repo}
        handler = UploadPackHandler(DictBackend(repos), ["/"], protocol, stateless_rpc=True, advertise_refs=advertise)
        try:
            handler.handle()
        except (GitProtocolError, ValueError, KeyError, AssertionError) as error:
            raise BadRequestError("This is no request of a Git client.") from error

    def _publish(self, ref: str, head: str | None, objects: list[ShaFile]) -> None:
        """Point a ref to the last of the given objects after all of them are durable."""
        commit = objects[-1]
        with self._writing():
            self._repo.object_store.add_object(commit)
        for folder in {each.id[:2].decode() for each in objects}:
            sync_folder(self._path / "objects" / folder)
        sync_folder(self._path / "objects")
        self.set_ref(ref, commit.id.decode(), head)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            # Dulwich leaves its lock when it cannot write a file, as on a full disk: the next attempt would fail too.
            self.remove_stale_locks(self._path)
            raise

    def _tree_of(self, commit: str) -> Tree:
        found = self._repo[ObjectID(commit.encode())]
        if isinstance(found, Commit):
            tree = self._folder(found.tree)
            if isinstance(tree, Tree):
                return tree
        raise RevisionNotFoundError(commit)


# Clients ask for a history page by page; that of a commit never changes.
@lru_cache(maxsize=4)
def _ids(path: Path, commit: str) -> tuple[str, ...]:
    with GitRepo.open(path) as git:
        return tuple(each.oid for each in git.log(commit))


def _new_commit(tree: ObjectID, parent: str | None, message: str, author: str) -> Commit:
    commit = Commit()
    commit.tree = tree
    commit.parents = [ObjectID(parent.encode())] if parent else []
    commit.author = commit.committer = f"{author} <{author}@localhost>".encode()
    commit.author_time = commit.commit_time = int(time.time())
    commit.author_timezone = commit.commit_timezone = 0
    commit.encoding = b"UTF-8"
    commit.message = message.encode("utf-8", "replace")
    return commit
