"""The local copy of a repo or bucket for `view`: only new bytes are downloaded."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import CommitOperationAdd

from faults.proxy import Answer, FaultProxy, Hang
from hf_summary_writer.config import RUN_FILES, PushConfig
from hf_summary_writer.folder.patterns import PathFilter
from hf_summary_writer.hub.mirror import Changed, Mirror
from hub.test_bucket import needs_a_client_for_buckets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

pytestmark = pytest.mark.client  # the client makes the listings and URLs

SECONDS = 30.0
EVENTS = "run/events.out.tfevents.1.host"


class Place:
    """A repo or bucket and the folder of its mirror."""

    def __init__(self, api: HfApi, repo_id: str, repo_type: str, folder: Path) -> None:
        self.api, self.repo_id, self.repo_type, self.folder = api, repo_id, repo_type, folder
        self.told: list[str] = []
        if repo_type == "bucket":
            api.create_bucket(repo_id)
        else:
            api.create_repo(repo_id, repo_type=repo_type)

    def write(self, files: dict[str, bytes]) -> None:
        if self.repo_type == "bucket":
            self.api.batch_bucket_files(self.repo_id, add=[(content, path) for path, content in files.items()])
            return
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        self.api.create_commit(self.repo_id, operations, commit_message="Add", repo_type=self.repo_type)

    def mirror(self, **where: Any) -> Mirror:
        named = {"repo_id": self.repo_id, "repo_type": self.repo_type, **where}
        config = PushConfig.from_arguments(named, self.api.endpoint)
        return Mirror(self.api, config, self.folder, PathFilter(RUN_FILES), self.told.append)

    def held(self) -> dict[str, bytes]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(params=["model", pytest.param("bucket", marks=needs_a_client_for_buckets)])
def place(request: pytest.FixtureRequest, api: HfApi, repo_id: str, tmp_path: Path) -> Place:
    return Place(api, repo_id, request.param, tmp_path / "shown")


def refreshed(mirror: Mirror) -> Changed:
    return mirror.refresh()


def look_on(mirror: Mirror, times: int) -> None:
    """Wait for a number of checks, or until something has changed."""
    looks = iter(range(times))

    def ended(seconds: float) -> bool:
        time.sleep(seconds)
        return next(looks, None) is None

    mirror.wait(2.0, ended)


def eventually(mirror: Mirror, holds: Callable[[], bool]) -> None:
    """Refresh until the condition holds: the event stream of a bucket takes a moment."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        look_on(mirror, 1)
        refreshed(mirror)


def test_only_new_bytes_are_downloaded(place: Place, hub: HubProcess) -> None:
    first = b"x" * 100_000
    place.write({EVENTS: first, "notes.txt": b"not shown"})
    mirror = place.mirror()
    assert not mirror.paths
    assert refreshed(mirror) == Changed(1, 100_000, {})
    assert place.held() == {EVENTS: first}
    inode = (place.folder / EVENTS).stat().st_ino
    hub.reset_stats()
    place.write({EVENTS: first + b"y" * 10_000})
    eventually(mirror, lambda: place.held() == {EVENTS: first + b"y" * 10_000})
    assert (place.folder / EVENTS).stat().st_ino == inode
    assert hub.stats.download.sent <= 10_000 + 4096  # the end of the local file is downloaded to compare it
    again = place.mirror()  # as in a later call with the same folder
    assert refreshed(again) == Changed(0, 0, {})


def test_a_replaced_file_is_downloaded_again(place: Place) -> None:
    place.write({EVENTS: b"x" * 10_000})
    mirror = place.mirror()
    refreshed(mirror)
    for content in (b"z" * 20_000, b"short", b"", b"w" * 5000):
        place.write({EVENTS: content})
        eventually(mirror, lambda content=content: place.held() == {EVENTS: content})  # type: ignore[misc]


def test_files_added_to_an_empty_repo_or_bucket_are_downloaded(place: Place) -> None:
    mirror = place.mirror()
    assert refreshed(mirror) == Changed(0, 0, {})
    assert not mirror.paths
    place.write({EVENTS: b"1"})
    eventually(mirror, lambda: bool(mirror.paths))
    assert place.held() == {EVENTS: b"1"}


def test_a_single_folder_can_be_mirrored(place: Place) -> None:
    place.write({"a/x.tfevents.1": b"1", "ab/x.tfevents.1": b"2", "b/x.tfevents.1": b"3"})
    refreshed(place.mirror(path_in_repo="a"))
    assert place.held() == {"a/x.tfevents.1": b"1"}


def test_an_idle_bucket_costs_no_request_once_its_event_stream_works(
    api: HfApi, repo_id: str, tmp_path: Path, hub: HubProcess
) -> None:
    pytest.importorskip("huggingface_hub", "2.3")
    place = Place(api, repo_id, "bucket", tmp_path / "shown")
    place.write({EVENTS: b"1"})
    mirror = place.mirror()
    refreshed(mirror)
    deadline = time.monotonic() + SECONDS
    content = b"1"
    while True:
        # On a busy machine a listing may come before the event that reports the same change.
        for _ in range(3):
            content += b"2"
            place.write({EVENTS: content})
            eventually(mirror, lambda content=content: place.held() == {EVENTS: content})  # type: ignore[misc]
        look_on(mirror, 4)
        before = len(hub.requests)
        look_on(mirror, 8)
        refreshed(mirror)
        if len(hub.requests) == before:
            break
        assert time.monotonic() < deadline


@needs_a_client_for_buckets
def test_a_bucket_without_an_event_stream_is_polled(
    repo_id: str, tmp_path: Path, hub: HubProcess, client: Callable[..., HfApi]
) -> None:
    with FaultProxy(hub) as proxy:
        proxy.add("GET", r"/api/buckets/.*/events", Answer(404), times=float("inf"))
        place = Place(client(proxy), repo_id, "bucket", tmp_path / "shown")
        place.write({EVENTS: b"1"})
        mirror = place.mirror()
        refreshed(mirror)
        for content in (b"12", b"123"):
            place.write({EVENTS: content})
            eventually(mirror, lambda content=content: place.held() == {EVENTS: content})  # type: ignore[misc]


@pytest.mark.parametrize("repo_type", ["model", pytest.param("bucket", marks=needs_a_client_for_buckets)])
def test_a_failed_download_is_retried_at_the_next_refresh(
    repo_id: str, tmp_path: Path, hub: HubProcess, client: Callable[..., HfApi], repo_type: str
) -> None:
    with FaultProxy(hub) as proxy:
        place = Place(client(proxy), repo_id, repo_type, tmp_path / "shown")
        place.write({EVENTS: b"12"})
        mirror = place.mirror()
        proxy.add("GET", r"/resolve/", Answer(500), times=float("inf"))
        assert list(refreshed(mirror).failed) == [EVENTS]
        proxy.clear()
        assert refreshed(mirror) == Changed(1, 2, {})


def test_an_interrupt_ends_the_downloads(place: Place) -> None:
    files = {f"run/{number}/events.out.tfevents.1.host": b"x" for number in range(100)}
    place.write(files)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.mirror().refresh(lambda _files, _size: interrupt)
    assert len(place.held()) < len(files)


def test_a_folder_that_does_not_exist_yet_is_mirrored_once_it_does(place: Place) -> None:
    place.write({EVENTS: b"1"})
    mirror = place.mirror(path_in_repo="sweep")
    assert refreshed(mirror) == Changed(0, 0, {})
    place.write({f"sweep/{EVENTS}": b"12"})
    eventually(mirror, lambda: place.held() == {f"sweep/{EVENTS}": b"12"})


def test_an_interrupt_does_not_wait_for_a_hung_hub(
    repo_id: str, tmp_path: Path, hub: HubProcess, client: Callable[..., HfApi]
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with FaultProxy(hub) as proxy:
        place = Place(client(proxy), repo_id, "model", tmp_path / "shown")
        place.write({f"run/{name}/{EVENTS.rpartition('/')[2]}": b"x" for name in ("a", "hangs")})
        proxy.add("GET", "/resolve/.*hangs", Hang(), times=float("inf"))
        with pytest.raises(KeyboardInterrupt):
            place.mirror().refresh(lambda _files, _size: interrupt)
        assert [thread for thread in threading.enumerate() if thread.name == "hf-summary-writer-download"]


def test_two_mirrors_in_one_folder_write_no_byte_twice(place: Place) -> None:
    content = {f"run/{number}.tfevents.1": bytes([number]) * 300_000 for number in range(8)}
    place.write(content)
    both = threading.Barrier(2)

    def begin_together(_files: int, _size: int) -> Callable[[int], object]:
        both.wait(SECONDS)
        return lambda _size: None

    with ThreadPoolExecutor(2) as pool:
        for changed in pool.map(lambda mirror: mirror.refresh(begin_together), [place.mirror(), place.mirror()]):
            assert not changed.failed
    assert place.held() == content
