"""Scalars of runs, read from a logdir or from a repo or bucket of the Hub."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hf_summary_writer.checks import as_patterns, check_folder
from hf_summary_writer.config import PushConfig
from hf_summary_writer.hub import (
    Mirror,
    as_os_errors,
    check_client,
    client_of,
    endpoint_for,
    missing_place,
    with_full_name,
)
from hf_summary_writer.notices import counted, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from huggingface_hub import HfApi

    from hf_summary_writer.events import Scalars

    Runs = dict[str, dict[str, Scalars]]

__all__ = ["no_folder", "place_of", "read", "read_folder", "read_remote"]

_MOST_NAMES = 10


def read(
    source: str | os.PathLike[str],
    tags: Sequence[str] | str | None = None,
    *,
    runs: Sequence[str] | str | None = None,
    repo_type: str | None = None,
    revision: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    hf_api: HfApi | None = None,
) -> dict[str, dict[str, Scalars]]:
    """Return the scalars of the runs in a logdir, repo or bucket.

    A run is a folder with event files, and its name the path of that folder below `source`, as in TensorBoard: `"."` is
    `source` itself. The values of a tag come in the order of their steps, those of one step in the order of the files.
    Damaged data is skipped with one warning for each file. Of a repo or bucket, only the event files of the wanted runs
    are downloaded. For a table of everything with pandas:

        runs = hf_summary_writer.read("user/my-runs")
        tables = {
            (run, tag): pandas.DataFrame(scalars._asdict())
            for run, tags in runs.items()
            for tag, scalars in tags.items()
        }
        pandas.concat(tables, names=["run", "tag", "row"])

    Args:
        source: A logdir; or a repo, as `name` (of the token's user), `namespace/name` or an `hf://` URI such as
            `hf://buckets/user/name/folder`. If there is a folder of this name, the folder is read, unless `repo_type`
            or `revision` is given.
        tags: Only these tags; patterns such as `"loss/*"` are fine.
        runs: Only these runs; patterns are fine.
        repo_type: `"model"` (the default), `"dataset"`, `"space"` or `"bucket"`.
        revision: The branch, tag or commit; `main` by default.
        folder: Keep the downloaded event files in this folder; the next call downloads only new data.
        token: The access token; by default, the stored one.
        hf_api: The `HfApi` for all requests, instead of a new one; another `token` than its own is refused.

    Returns:
        The `Scalars` by run and tag. Runs without a wanted tag are left out.

    Raises:
        LookupError: If there is no event file, or no run or tag for a name or pattern; the message names others.
        OSError: If there is no such folder or repo, or it or a file in it cannot be read.
        TypeError: If an argument is of the wrong type.
        ValueError: If `source` is empty, or an argument is invalid on the Hub.
        huggingface_hub.errors.HfHubHTTPError: If the Hub refuses access; it is an `OSError`.
    """
    place = place_of(source, repo_type=repo_type, revision=revision, token=token, endpoint=endpoint_for(hf_api, token))
    wanted_tags, wanted_runs = as_patterns(tags, "tags"), as_patterns(runs, "runs")
    if isinstance(place, Path):
        return read_folder(place, wanted_tags, wanted_runs)
    api = hf_api or client_of(place.endpoint, place.token)
    with as_os_errors(place):
        return read_remote(str(source), place, api, wanted_tags, wanted_runs, folder)


def place_of(
    source: str | os.PathLike[str],
    *,
    repo_type: str | None,
    revision: str | None,
    token: str | bool | None,
    endpoint: str,
) -> Path | PushConfig:
    """Return the folder, or the place on the Hub, that `source` means.

    Raises:
        FileNotFoundError: If it is a path and there is no such folder.
        NotADirectoryError: If it is a file.
        TypeError: If it is neither text nor a path.
        ValueError: If it is empty, or invalid on the Hub.
    """
    name = os.fspath(source) if isinstance(source, os.PathLike) else source
    if not isinstance(name, str):
        raise TypeError(f"source must be a str or a path, not {type(source).__name__}")
    if not name:  # as an unset variable of a shell gives it; to Python it is the working folder
        raise ValueError("the name of the folder, repo or bucket is empty: use . for the working folder")
    if "://" not in name and repo_type is None and revision is None:
        path = Path(name)
        if path.is_dir():
            return path
        may_be_a_repo = isinstance(source, str) and _may_be_a_repo(name)
        if path.is_file() and (_is_event_file(path.name) or not may_be_a_repo):
            raise NotADirectoryError(f"{name!r} is a file: give the folder of the run")
        if not may_be_a_repo:
            raise FileNotFoundError(f"there is no folder {name!r}")
    arguments = {"repo_id": name, "repo_type": repo_type, "revision": revision, "token": token}
    config = PushConfig.from_arguments(arguments, endpoint)
    check_client(config.repo_type)
    return config


def _may_be_a_repo(name: str) -> bool:
    return name.count("/") < 2 and name[:1] not in {"/", ".", "~"} and not name.endswith("/")


def read_folder(root: Path, tags: Collection[str] | None, runs: Collection[str] | None) -> Runs:
    """Return the scalars of the runs below a folder.

    Raises:
        LookupError: If there is no event file, or no run or tag for a name or pattern.
        OSError: If a file cannot be read.
    """
    wanted = _Wanted(runs)
    files = {run: paths for run, paths in _event_files(root) if wanted.takes(run)}
    return _scalars(str(root), files, wanted, tags)


def read_remote(
    source: str,
    config: PushConfig,
    api: HfApi,
    tags: Collection[str] | None,
    runs: Collection[str] | None,
    folder: str | os.PathLike[str] | None,
    progress: Callable[[int, int], Callable[[int], object]] | None = None,
) -> Runs:
    """Download the event files of the wanted runs, and return their scalars.

    Args:
        source: The name of the place in messages.
        config: Names the place.
        api: The client.
        tags: As for `read`.
        runs: Likewise.
        folder: Likewise.
        progress: As for `Mirror.refresh`.

    Raises:
        LookupError: If there is no event file, or no run or tag for a name or pattern.
        OSError: If there is no such repo, or a file cannot be downloaded.
    """
    wanted = _Wanted(runs)
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="hf-summary-writer-read-", ignore_cleanup_errors=True)
            )
        copy = check_folder(folder, "folder")

        def run_of(path: str) -> str:
            return os.path.relpath(path.rpartition("/")[0] or ".", config.path_in_repo or ".")

        def is_wanted(path: str) -> bool:
            return _is_event_file(path.rpartition("/")[2]) and wanted.takes(run_of(path))

        try:
            config = with_full_name(config, api)
            mirror = Mirror(api, config, copy, is_wanted, logger.warning)
            changed = mirror.refresh(progress)
        except Exception as error:
            missing = missing_place(config, error)
            if not missing:
                raise
            raise FileNotFoundError(no_folder(source, config) + missing) from error
        if changed.failed:
            raise OSError(changed.failure)
        # Not all that is in the folder: a kept copy may have files that are gone, or those of another repo.
        files: dict[str, list[Path]] = {}
        for path in sorted(mirror.paths):
            files.setdefault(run_of(path), []).append(copy / path)
        # The copy may be a temporary one.
        return _scalars(source, files, wanted, tags, lambda path: f"{path.relative_to(copy).as_posix()!a} of {source}")


def _scalars(
    shown: str,
    files: Mapping[str, list[Path]],
    wanted: _Wanted,
    tags: Collection[str] | None,
    name_of: Callable[[Path], str] = str,
) -> Runs:
    """Return the scalars of the files of runs.

    Args:
        shown: The name of the place in messages.
        files: The files of each run.
        wanted: The wanted runs.
        tags: The wanted tags.
        name_of: Returns the name of a file in messages.
    """
    from hf_summary_writer.events import ScalarReader  # with NumPy and tensorboardX, which other commands do without

    if not wanted.seen:
        raise LookupError(f"{shown} has no event files")
    wanted.check("run", shown)
    kept = _Wanted(tags)
    found = {}
    for run, paths in sorted(files.items()):
        reader = ScalarReader(kept.takes)
        for path in paths:
            try:
                damaged = reader.read(path)
            except FileNotFoundError:
                continue  # deleted since it was listed
            if damaged:
                places = counted(damaged, "place")
                logger.warning("%s is damaged in %s; the data there was skipped", name_of(path), places)
        if scalars := reader.scalars():
            found[run] = scalars
    kept.check("tag", shown)
    return found


def no_folder(source: str, config: PushConfig) -> str:
    """Return the beginning of a message about a repo name that may have been meant as a folder."""
    is_remote = source.startswith("hf://") or config.repo_type is not None or config.revision is not None
    return "" if is_remote or Path(source).is_dir() else f"there is no folder {source!r} on this machine, and "


class _Wanted:
    """Chooses names by patterns, and knows which patterns have chosen none.

    Args:
        patterns: Names, or patterns as `fnmatch` has them; `None` for all.
    """

    def __init__(self, patterns: Collection[str] | None) -> None:
        self._patterns = patterns
        self._unmatched = set(patterns or ())
        self.seen: set[str] = set()

    def takes(self, name: str) -> bool:
        self.seen.add(name)
        if self._patterns is None:
            return True
        # Also by equality: a tag may have brackets.
        found = {each for each in self._patterns if each == name or fnmatch.fnmatchcase(name, each)}
        self._unmatched -= found
        return bool(found)

    def check(self, kind: str, shown: str) -> None:
        """Raise `LookupError` for the first pattern that has chosen nothing."""
        for pattern in self._patterns or ():
            if pattern in self._unmatched:
                near = difflib.get_close_matches(pattern, self.seen, _MOST_NAMES, 0.5)
                names = near or sorted(self.seen)[:_MOST_NAMES]
                more = f" and {len(self.seen) - len(names)} more" if len(self.seen) > len(names) else ""
                exist = f"there are {', '.join(map(repr, names))}{more}" if names else f"there is no {kind}"
                raise LookupError(f"{shown} has no {kind} {pattern!r}: {exist}")


def _event_files(root: Path) -> Iterator[tuple[str, list[Path]]]:
    """Yield each run below a folder, and its event files in TensorBoard's order. Links are followed, as there."""
    seen = set()
    for folder, folders, names in os.walk(root, onerror=_warn_of_unlisted, followlinks=True):
        folders.sort()
        try:
            status = os.stat(folder)  # noqa: PTH116
        except FileNotFoundError:
            continue  # deleted since it was listed
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()  # a link to one of its parents, or a second one to the same folder
            continue
        seen.add((status.st_dev, status.st_ino))
        # A pipe would be waited for, and a device read without end.
        paths = [path for name in sorted(names) if _is_event_file(name) and (path := Path(folder, name)).is_file()]
        if paths:
            yield Path(os.path.relpath(folder, root)).as_posix(), paths


def _warn_of_unlisted(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # deleted meanwhile
        logger.warning("%s cannot be listed: %s; runs in it are left out", error.filename, error.strerror)


def _is_event_file(name: str) -> bool:
    return "tfevents" in name
