"""Malicious repos and buckets, opened with `view`."""

from __future__ import annotations

import gzip
import http.server
import json
import logging
import threading
import time
import urllib.parse
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from faults.canary import Stranger
from hf_summary_writer.config import RUN_FILES, PushConfig
from hf_summary_writer.errors import PushError
from hf_summary_writer.folder.patterns import PathFilter
from hf_summary_writer.hub import deadline
from hf_summary_writer.hub import mirror as mirrors
from hf_summary_writer.hub.client import client_of
from hf_summary_writer.hub.mirror import Changed, Mirror, with_full_name
from hub.test_bucket import needs_a_client_for_buckets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Self

pytestmark = [pytest.mark.faults("S8"), pytest.mark.client]  # the client makes the listings and URLs

SECONDS = 30.0
EVENTS = "run/events.out.tfevents.1"


class HostileHub:
    """A Hub with one repo or bucket, whose answers a test sets.

    Attributes:
        files: The sizes in a listing, by path.
        content: The content of each file.
        headers: Response headers of a file.
        page: Response headers of a listing.
        padding: The number of spaces before a listing.
        feed: Bytes that are repeated as the event stream of a bucket until the client disconnects.
        asked: The path and the token of each request.
        fed: Bytes of the event stream that each connection received.
    """

    def __init__(self) -> None:
        self.files: dict[str, Any] = {EVENTS: 4}
        self.content = b"EVIL"
        self.headers: dict[str, str] = {}
        self.page: dict[str, str] = {}
        self.padding = 0
        self.feed = b""
        self.asked: list[tuple[str, str]] = []
        self.fed: list[int] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urllib.parse.unquote(self.path)
                hub.asked.append((path, self.headers.get("authorization") or ""))
                with suppress(OSError):
                    if path.partition("?")[0].endswith("/events"):
                        self.send_feed()
                    else:
                        self.send(*hub.answer(path))

            def send(self, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(200)
                for name, value in {"content-length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def send_feed(self) -> None:
                if not hub.feed:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                sent = 0
                try:
                    while sent < 2**28:
                        self.wfile.write(hub.feed)
                        sent += len(hub.feed)
                finally:
                    hub.fed.append(sent)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path: str) -> tuple[bytes, dict[str, str]]:
        if "/resolve/" in path:
            return self.content, self.headers
        if "/tree" in path:
            listed = [
                {"type": "file", "path": path, "size": size, "oid": "b" * 40, "xetHash": "c" * 64}
                for path, size in self.files.items()
            ]
            return b" " * self.padding + json.dumps(listed).encode(), self.page
        about = {"id": "evil/logs", "sha": "a" * 40, "private": False, "size": 4, "totalFiles": 1, "name": "../evil"}
        return json.dumps({**about, "createdAt": "2026-01-01T00:00:00.000Z"}).encode(), {}

    @property
    def downloads(self) -> int:
        return sum("/resolve/" in path for path, _ in self.asked)


@pytest.fixture
def hostile() -> Iterator[HostileHub]:
    with HostileHub() as hub:
        yield hub


@pytest.fixture(params=["model", pytest.param("bucket", marks=needs_a_client_for_buckets)])
def copy(request: pytest.FixtureRequest, hostile: HostileHub, tmp_path: Path) -> Mirror:
    return mirror_of(hostile, tmp_path / "copy", request.param)


def mirror_of(hub: HostileHub, folder: Path, repo_type: str) -> Mirror:
    config = PushConfig.from_arguments({"repo_id": "evil/logs", "repo_type": repo_type}, hub.endpoint)
    return Mirror(client_of(hub.endpoint, "hf_the_token"), config, folder, PathFilter(RUN_FILES), lambda _: None)


def look(mirror: Mirror) -> Changed:
    return mirror.refresh()


@pytest.mark.parametrize(
    "path", ["../evil.tfevents.1", "/x.tfevents.1", "a/../../evil.tfevents.1", ".git/x.tfevents.1"]
)
def test_a_file_outside_the_folder_is_not_requested(hostile: HostileHub, copy: Mirror, path: str) -> None:
    hostile.files = {path: 4}
    assert look(copy) == Changed(0, 0, {})
    assert not hostile.downloads


@pytest.mark.parametrize("size", [-1, "4", None, 1.5])
def test_a_file_with_an_invalid_size_is_not_requested(hostile: HostileHub, copy: Mirror, size: object) -> None:
    hostile.files = {EVENTS: size}
    with suppress(TypeError):  # some clients convert the size
        look(copy)
    assert not hostile.downloads


def test_a_download_is_cut_at_the_listed_size(hostile: HostileHub, copy: Mirror, tmp_path: Path) -> None:
    hostile.content = b"x" * 10_000_000
    assert look(copy) == Changed(1, 4, {})
    assert (tmp_path / "copy" / EVENTS).read_bytes() == b"xxxx"


def test_a_short_download_is_resumed(hostile: HostileHub, copy: Mirror, tmp_path: Path) -> None:
    hostile.files = {EVENTS: 10}
    assert list(look(copy).failed) == [EVENTS]
    hostile.content = b"EVIL567890"
    assert look(copy) == Changed(1, 6, {})
    assert (tmp_path / "copy" / EVENTS).read_bytes() == b"EVIL567890"


def test_a_compressed_file_is_not_unpacked(hostile: HostileHub, copy: Mirror) -> None:
    hostile.files = {EVENTS: 100_000_000}
    hostile.content, hostile.headers = gzip.compress(b" " * 100_000_000, 1), {"content-encoding": "gzip"}
    assert "compressed" in look(copy).failed[EVENTS]


def test_a_file_larger_than_the_free_space_is_not_downloaded(hostile: HostileHub, copy: Mirror) -> None:
    hostile.files = {EVENTS: 4, "run/events.out.tfevents.2": 10**15}
    found = look(copy)
    assert (found.files, list(found.failed)) == (1, ["run/events.out.tfevents.2"])
    assert "space" in found.failed["run/events.out.tfevents.2"]


def test_a_compressed_listing_is_refused(hostile: HostileHub, copy: Mirror) -> None:
    hostile.page = {"content-encoding": "gzip"}
    with pytest.raises(PushError, match="compressed"):
        look(copy)


def test_an_endless_listing_is_refused(hostile: HostileHub, copy: Mirror) -> None:
    hostile.padding = 8 * 2**20
    hostile.page = {"link": f'<{hostile.endpoint}/tree?cursor=1>; rel="next"'}
    with pytest.raises(PushError, match="more than 64 MB"):
        look(copy)


def test_a_listing_of_too_many_files_is_refused(
    hostile: HostileHub, copy: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "_MOST_FILES", 3)
    hostile.files = {f"{number}.txt": 1 for number in range(4)}
    with pytest.raises(PushError, match="more than 3 files"):
        look(copy)


def test_the_next_page_of_a_listing_sends_the_token_to_no_other_host(hostile: HostileHub, copy: Mirror) -> None:
    with Stranger() as elsewhere:
        hostile.page = {"link": f'<{elsewhere.endpoint}/tree?cursor=1>; rel="next"'}
        with pytest.raises(PushError, match="refused"):
            look(copy)
        assert elsewhere.received == []


def test_nothing_behind_links_in_the_local_copy_is_changed(hostile: HostileHub, copy: Mirror, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis").write_bytes(b"EV")
    (tmp_path / "copy" / "linked").mkdir(parents=True)
    (tmp_path / "copy" / "run").symlink_to(outside)
    (tmp_path / "copy" / "linked" / "a.tfevents.1").symlink_to(outside / "thesis")
    (tmp_path / "copy" / "linked" / "b.tfevents.1").hardlink_to(outside / "thesis")
    hostile.files = {EVENTS: 4, "run/new/c.tfevents.1": 4, "linked/a.tfevents.1": 4, "linked/b.tfevents.1": 4}
    assert sorted(look(copy).failed) == sorted(hostile.files)
    assert [path.read_bytes() for path in outside.iterdir()] == [b"EV"]


def test_an_invalid_user_name_is_refused(hostile: HostileHub) -> None:
    with pytest.raises(ValueError, match="not a name the Hub allows"):
        with_full_name(
            PushConfig(repo_id="logs", endpoint=hostile.endpoint), client_of(hostile.endpoint, "hf_the_token")
        )


@pytest.mark.parametrize("prefix", ["", "/mirror/hub"])
def test_an_endless_event_of_a_bucket_is_refused(
    hostile: HostileHub, tmp_path: Path, caplog: pytest.LogCaptureFixture, prefix: str
) -> None:
    pytest.importorskip("huggingface_hub", "2.3")
    caplog.set_level(logging.DEBUG)
    hostile.endpoint += prefix
    hostile.feed = b"data: " + b"x" * 2**20
    mirror = mirror_of(hostile, tmp_path / "copy", "bucket")
    end = time.monotonic() + SECONDS
    while not hostile.fed:
        assert time.monotonic() < end
        look(mirror)
    assert hostile.fed[0] < deadline._MAX_FEED_BYTES + 2**23  # plus the buffers of the sockets
