"""Changing a tree file by file, loading only the folders on the way."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from dulwich.objects import Blob, ObjectID, Tree

from hf_summary_writer.localhub.errors import BadRequestError, EntryNotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dulwich.object_store import BaseObjectStore
    from dulwich.objects import ShaFile

_FILE_MODE = stat.S_IFREG | 0o644


def is_folder(mode: int) -> bool:
    """Return whether a tree entry of this mode is a folder."""
    return stat.S_ISDIR(mode)


class TreeEditor:
    """The new tree of a commit: the existing tree with the operations applied in order.

    Args:
        store: where Git's objects are.
        tree: the folder as it is.
        written: takes every object that was written to `store`.
    """

    def __init__(self, store: BaseObjectStore, tree: Tree, written: list[ShaFile]) -> None:
        self._store = store
        self._written = written
        self._entries: dict[bytes, tuple[int, ObjectID] | TreeEditor] = {
            item.path: (item.mode, item.sha) for item in tree.items()
        }

    def write(self, path: str, content: bytes) -> None:
        """Write a file at `path`."""
        blob = Blob.from_string(content)
        self._add(blob)
        self._put(path.encode().split(b"/"), (_FILE_MODE, blob.id), path)

    def adopt(self, changes: Mapping[str, str | None]) -> None:
        """Apply a diff: the object id for each path, or None for a deleted file."""
        for path, oid in changes.items():
            if oid is None:
                self.delete(path)
        for path, oid in changes.items():
            if oid is not None:
                self._put(path.encode().split(b"/"), (_FILE_MODE, ObjectID(oid.encode())), path)

    def delete(self, path: str, *, folder: bool = False) -> None:
        """Remove the file or the folder with its content at `path`; with `folder`, only a folder."""
        *folders, name = path.encode().split(b"/")
        editor: TreeEditor | None = self
        for each in folders:
            editor = editor._folder(each) if editor else None  # noqa: SLF001
        found = editor._entries.get(name) if editor else None  # noqa: SLF001
        if editor is None or found is None or (folder and not _is_folder(found)):
            raise EntryNotFoundError(path)
        del editor._entries[name]  # noqa: SLF001

    def _folder(self, name: bytes) -> TreeEditor | None:
        found = self._entries.get(name)
        if isinstance(found, tuple) and is_folder(found[0]):
            tree = self._store[found[1]]
            if isinstance(tree, Tree):
                found = self._entries[name] = TreeEditor(self._store, tree, self._written)
        return found if isinstance(found, TreeEditor) else None

    def _put(self, parts: list[bytes], entry: tuple[int, ObjectID], path: str) -> None:
        name = parts[0]
        if len(parts) == 1:
            if name in self._entries and _is_folder(self._entries[name]):
                raise BadRequestError(f"A file cannot replace the folder {path}: delete the folder first.")
            self._entries[name] = entry
            return
        folder = self._folder(name)
        if folder is None:
            if name in self._entries:
                raise BadRequestError(f"{path} is under a file: delete the file first.")
            folder = self._entries[name] = TreeEditor(self._store, Tree(), self._written)
        folder._put(parts[1:], entry, path)

    def finish(self) -> ObjectID:
        """Write the tree without empty folders, and return its id."""
        tree = Tree()
        for name, entry in self._entries.items():
            if not isinstance(entry, TreeEditor):
                tree.add(name, *entry)
            elif not entry._is_empty:  # noqa: SLF001
                tree.add(name, stat.S_IFDIR, entry.finish())
        self._add(tree)
        return tree.id

    @property
    def _is_empty(self) -> bool:
        return all(isinstance(each, TreeEditor) and each._is_empty for each in self._entries.values())  # noqa: SLF001

    def _add(self, item: ShaFile) -> None:
        if item.id not in self._store:
            self._store.add_object(item)
            self._written.append(item)


def _is_folder(entry: tuple[int, ObjectID] | TreeEditor) -> bool:
    return isinstance(entry, TreeEditor) or is_folder(entry[0])
