"""Storage buckets on the local Hub, through the real client."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from hf_summary_writer.localhub import LocalHub, User
from hf_summary_writer.localhub.buckets import events as bucket_events
from hf_summary_writer.localhub.buckets import files as bucket_files
from hf_summary_writer.localhub.disk import Disk
from hub.content import files_of_at_most, noise
from hub.wire import Reply, send
from hub_process import HubProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hub_process import HasEndpoint

buckets = pytest.importorskip("huggingface_hub._buckets", reason="this client has no buckets")
from huggingface_hub.errors import BucketNotFoundError, HfHubHTTPError  # noqa: E402

pytestmark = pytest.mark.client
EMPTY = "0" * 64


@pytest.fixture
def bucket_id() -> str:
    """Return the id of a new bucket."""
    return f"local/bucket-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def bucket(api: HfApi, bucket_id: str) -> str:
    api.create_bucket(bucket_id)
    return bucket_id


def add(api: HfApi, bucket_id: str, files: dict[str, bytes]) -> None:
    api.batch_bucket_files(bucket_id, add=[(content, path) for path, content in files.items()])


def paths(api: HfApi, bucket_id: str, **more: Any) -> list[str]:
    return [entry.path for entry in api.list_bucket_tree(bucket_id, **more)]


def read(hub: HasEndpoint, bucket_id: str, path: str, **headers: str) -> Reply:
    return send(hub, "GET", f"/buckets/{bucket_id}/resolve/{quote(path, safe='')}", headers=headers)


def batch(hub: HasEndpoint, bucket_id: str, *operations: dict[str, Any]) -> Reply:
    body = b"".join(json.dumps(each).encode() + b"\n" for each in operations)
    headers = {"Content-Type": "application/x-ndjson"}
    return send(hub, "POST", f"/api/buckets/{bucket_id}/batch", body, headers=headers)


def test_bucket_files_are_downloaded_byte_for_byte(hub: HubProcess, api: HfApi, bucket: str, tmp_path: Path) -> None:
    files = {"logs/events.tfevents.1": noise(1), "a b#%?.txt": b"text", "empty": b"", "large": noise(2, 3_000_000)}
    add(api, bucket, files)
    api.download_bucket_files(bucket, files=[(path, tmp_path / path) for path in files])
    assert {path: (tmp_path / path).read_bytes() for path in files} == files
    assert {path: read(hub, bucket, path).body for path in files} == files
    about = api.bucket_info(bucket)
    assert (about.total_files, about.size) == (4, sum(map(len, files.values())))


def test_a_growing_file_sends_its_new_data(hub: HubProcess, api: HfApi, bucket: str) -> None:
    content = b""
    for n in range(4):
        content += noise(10 + n, 300_000)
        before = hub.stats.xorb.received
        add(api, bucket, {"events.tfevents.1": content})
        assert hub.stats.xorb.received - before < 450_000
    assert read(hub, bucket, "events.tfevents.1").body == content


def test_a_bucket_is_created_once_described_changed_and_deleted(api: HfApi, bucket_id: str, hub: HubProcess) -> None:
    url = api.create_bucket(bucket_id)
    assert (url.bucket_id, url.url) == (bucket_id, f"{hub.endpoint}/buckets/{bucket_id}")
    assert api.create_bucket(bucket_id.upper(), exist_ok=True).bucket_id == bucket_id
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_bucket(bucket_id)
    assert not api.bucket_info(bucket_id).private
    assert send(hub, "PUT", f"/api/buckets/{bucket_id}/settings", {"private": True}).status == 200
    assert api.bucket_info(bucket_id).private
    assert send(hub, "GET", f"/api/buckets/{bucket_id}", token=None).status == 401
    api.delete_bucket(bucket_id)
    with pytest.raises(BucketNotFoundError):
        api.bucket_info(bucket_id)
    api.delete_bucket(bucket_id, missing_ok=True)
    with pytest.raises(BucketNotFoundError):
        api.delete_bucket(bucket_id)


def test_buckets_are_listed_and_searched(api: HfApi, bucket: str, hub: HubProcess) -> None:
    assert bucket in [each.id for each in api.list_buckets()]
    found = send(hub, "GET", f"/api/buckets/local?search={bucket[-8:]}").json()
    assert [each["id"] for each in found] == [bucket]
    first = send(hub, "GET", "/api/buckets/local?limit=1")
    assert len(first.json()) == 1
    assert send(hub, "GET", "/api/buckets/nobody").headers["x-error-code"] == "RepoNotFound"
    assert send(hub, "DELETE", "/api/buckets/word").status == 404


def test_a_renamed_bucket_is_found_under_both_names(api: HfApi, hub: HubProcess, bucket: str) -> None:
    add(api, bucket, {"a": b"1"})
    api.move_bucket(from_id=bucket, to_id=f"{bucket}-moved")
    add(api, f"{bucket}-moved", {"b": b"2"})
    assert paths(api, bucket) == ["a", "b"]
    assert read(hub, f"{bucket}-moved", "a").body == b"1"
    assert read(hub, bucket, "a").status == 307


def test_trees_are_listed_by_prefix_level_and_page(api: HfApi, hub: HubProcess, bucket: str) -> None:
    names = ["logs/a", "logs/sub/b", "logs/sub/c", "logs.json", "logs_2/d", "other/e"]
    add(api, bucket, dict.fromkeys(names, b"x"))
    assert paths(api, bucket) == sorted(names)
    assert sorted(paths(api, bucket, prefix="logs")) == sorted(names[:-1])
    assert paths(api, bucket, recursive=False) == ["logs.json", "logs", "logs_2", "other"]
    assert paths(api, bucket, prefix="logs", recursive=False) == ["logs.json", "logs/a", "logs/sub", "logs_2"]
    assert paths(api, bucket, prefix="logs/sub/b") == ["logs/sub/b"]
    assert paths(api, bucket, prefix="absent") == []
    (folder,) = [each for each in api.list_bucket_tree(bucket, recursive=False) if each.path == "other"]
    assert folder.uploaded_at is not None
    for recursive in (True, False):
        url, seen = f"/api/buckets/{bucket}/tree?limit=1&recursive={recursive}", []
        while url:
            reply = send(hub, "GET", url)
            seen += [entry["path"] for entry in reply.json()]
            url = reply.headers.get("link", "").partition(">")[0].lstrip("<")
        assert seen == paths(api, bucket, recursive=recursive)


def test_bucket_paths_info_leaves_out_missing_paths(api: HfApi, bucket: str) -> None:
    add(api, bucket, {"a/b": b"12"})
    (found,) = api.get_bucket_paths_info(bucket, ["a/b", "a", "absent"])
    assert (found.path, found.size, len(found.xet_hash)) == ("a/b", 2, 64)


def test_ranges_and_metadata_of_a_file(api: HfApi, hub: HubProcess, bucket: str) -> None:
    add(api, bucket, {"a/b.bin": noise(3)})
    assert read(hub, bucket, "a/b.bin", Range="bytes=10-19").body == noise(3)[10:20]
    assert read(hub, bucket, "absent").headers["x-error-code"] == "EntryNotFound"
    about = api.get_bucket_file_metadata(bucket, "a/b.bin")
    assert about.size == len(noise(3))
    assert api.delete_bucket(bucket) is None


def test_operations_of_a_batch_fail_one_by_one(api: HfApi, hub: HubProcess, bucket: str) -> None:
    add(api, bucket, {"there": b"x"})
    good = {"type": "addFile", "path": "good", "xetHash": EMPTY, "mtime": 1_700_000_000_000}
    bad_paths = ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a/..", "a\\b", "a\0", "x" * 1025, None]
    bad = [{**good, "path": path} for path in bad_paths]
    bad += [
        {**good, "path": "unknown content", "xetHash": "a" * 64},
        {**good, "path": "no hash", "xetHash": "zz"},
        {"type": "deleteFile", "path": "absent"},
        {"type": "rename", "path": "there"},
        {"type": "copyFile", "path": "copy", "xetHash": EMPTY[:-1] + "1", "sourceRepoType": "model"},
    ]
    reply = batch(hub, bucket, good, *bad, {"type": "deleteFile", "path": "there"})
    answer = reply.json()
    assert (reply.status, answer["success"]) == (200, False)
    assert (answer["processed"], answer["succeeded"]) == (len(bad) + 2, 2)
    assert [each["path"] for each in answer["failed"]] == [str(each["path"]) for each in bad]
    assert paths(api, bucket) == ["good"]
    reply = batch(hub, bucket, *bad)
    assert (reply.status, reply.json()["succeeded"]) == (422, 0)


def test_a_batch_is_at_most_1000_operations(hub: HubProcess, bucket: str) -> None:
    operation = {"type": "addFile", "path": "a", "xetHash": EMPTY}
    assert batch(hub, bucket, *[operation] * 1000).status == 200
    assert batch(hub, bucket, *[operation] * 1001).status == 400
    assert send(hub, "POST", f"/api/buckets/{bucket}/batch", b"{\n").status == 400


def test_times_in_seconds_and_milliseconds_are_recognized(hub: HubProcess, bucket: str) -> None:
    for path, moment in (("seconds", 1_700_000_000), ("milliseconds", 1_700_000_000_000)):
        batch(hub, bucket, {"type": "addFile", "path": path, "xetHash": EMPTY, "mtime": moment})
    for entry in send(hub, "GET", f"/api/buckets/{bucket}/tree").json():
        assert entry["mtime"] == "2023-11-14T22:13:20.000Z"


def test_files_are_copied_from_buckets_and_repos(api: HfApi, hub: HubProcess, bucket: str, repo_id: str) -> None:
    if not hasattr(api, "copy_files"):
        pytest.skip("this client copies no files")
    api.create_repo(repo_id, private=True)
    api.create_commit(repo_id, [CommitOperationAdd("events.tfevents.1", noise(4))], commit_message="Add")
    other = f"{bucket}-other"
    api.create_bucket(other)
    add(api, other, {"logs/a": noise(5)})
    api.copy_files(f"hf://buckets/{other}/logs/a", f"hf://buckets/{bucket}/from-bucket")
    api.copy_files(f"hf://{repo_id}/events.tfevents.1", f"hf://buckets/{bucket}/from-repo")
    api.delete_bucket(other)
    api.delete_repo(repo_id)
    assert read(hub, bucket, "from-bucket").body == noise(5)
    assert read(hub, bucket, "from-repo").body == noise(4)


def test_sync_uploads_changed_files_and_then_nothing(api: HfApi, bucket: str, hub: HubProcess, tmp_path: Path) -> None:
    (tmp_path / "up/sub").mkdir(parents=True)
    for name in ("up/a", "up/sub/b"):
        (tmp_path / name).write_bytes(name.encode())
    target = f"hf://buckets/{bucket}/logs"
    api.sync_bucket(str(tmp_path / "up"), target)
    assert paths(api, bucket) == ["logs/a", "logs/sub/b"]
    hub.reset_stats()
    api.sync_bucket(str(tmp_path / "up"), target)
    assert not [each for each in hub.requests if each.path.endswith("/batch")]
    api.sync_bucket(target, str(tmp_path / "down"))
    assert (tmp_path / "down/sub/b").read_bytes() == b"up/sub/b"


def test_other_users_see_public_buckets_and_cannot_write(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    with LocalHub(tmp_path, users=[User("ann", "hf_ann"), User("ben", "hf_ben")]) as hub:
        ann, ben = client(hub, "hf_ann"), client(hub, "hf_ben")
        ann.create_bucket("ann/public")
        ann.create_bucket("private", private=True)
        add(ann, "ann/private", {"a": noise(6)})
        (secret,) = ann.get_bucket_paths_info("ann/private", ["a"])
        assert [each.id for each in ben.list_buckets("ann")] == ["ann/public"]
        with pytest.raises(BucketNotFoundError):
            ben.bucket_info("ann/private")
        with pytest.raises(HfHubHTTPError, match="403"):
            ben.create_bucket("ann/more")
        with pytest.raises(HfHubHTTPError, match="403"):
            ben.delete_bucket("ann/public")
        ben.create_bucket("ben/own")
        body = json.dumps({"type": "addFile", "path": "a", "xetHash": secret.xet_hash}).encode()
        stolen = send(hub, "POST", "/api/buckets/ben/own/batch", body, token="hf_ben")
        assert stolen.status == 422, "a hash gives no access to foreign content"


def test_requests_to_buckets_are_counted_and_limited(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    with LocalHub(tmp_path, requests_per_5min=2) as hub:
        api = client(hub)
        api.create_bucket("local/a")
        api.bucket_info("local/a")
        with pytest.raises(HfHubHTTPError, match="429"):
            api.bucket_info("local/a")
        assert hub.stats.api.requests == 3


def test_acknowledged_changes_survive_a_kill(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    files = {f"logs/{n}": noise(n, 1000) for n in range(20)}
    with HubProcess(tmp_path, "--token", "hf_t") as hub:
        api = client(hub)
        api.create_bucket("local/kept", private=True)
        for path, content in files.items():
            add(api, "local/kept", {path: content})
        api.batch_bucket_files("local/kept", delete=["logs/0"])
        hub.kill()
    log = tmp_path / "buckets/buckets/local/kept/changes.ndjson"
    with log.open("ab") as torn:
        torn.write(b'{"sequence": 99, "ti')
    with HubProcess(tmp_path, "--token", "hf_t") as hub:
        api = client(hub)
        assert api.bucket_info("local/kept").private
        assert sorted(paths(api, "local/kept")) == sorted(set(files) - {"logs/0"})
        add(api, "local/kept", {"more": b"x"})
        assert all(read(hub, "local/kept", path).body == content for path, content in files.items() if path != "logs/0")


class Follower:
    """A client of the event stream."""

    def __init__(self, hub: HasEndpoint, bucket_id: str, query: str = "") -> None:
        self._connection = http.client.HTTPConnection(urlsplit(hub.endpoint).netloc, timeout=60)
        headers = {"Authorization": f"Bearer {hub.token}", "Accept": "text/event-stream"}
        self._connection.request("GET", f"/api/buckets/{bucket_id}/events{query}", headers=headers)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200
        assert self._answer.headers["content-type"].startswith("text/event-stream")

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        name = ""
        while line := self._answer.readline().decode():
            if line.startswith("event: "):
                name = line.removeprefix("event: ").strip()
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))

    def line(self) -> str:
        return self._answer.readline().decode().strip()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def following(hub: HubProcess, bucket: str) -> Iterator[Callable[..., Iterator[tuple[str, dict[str, Any]]]]]:
    followers = []

    def follow(query: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        followers.append(Follower(hub, bucket, query))
        return followers[-1].events()

    yield follow
    for each in followers:
        each.close()


def test_the_event_stream_reports_changes(api: HfApi, bucket: str, following: Callable[..., Any]) -> None:
    events = following()
    assert next(events) == ("ready", {}), "the bucket has no changes yet"
    add(api, bucket, {"a": b"1"})
    name, data = next(events)
    (change,) = data["changes"]
    assert (name, change["path"], change["op"], change["size"]) == ("changes", "a", "add", 1)
    add(api, bucket, {"a": b"12"})
    assert next(events)[1]["changes"][0]["op"] == "update"
    api.batch_bucket_files(bucket, delete=["a"])
    assert next(events)[1]["changes"] == [{"path": "a", "op": "delete"}]


def test_a_stream_resumes_from_a_cursor_or_a_time(
    hub: HubProcess, api: HfApi, bucket: str, following: Callable[..., Any]
) -> None:
    add(api, bucket, {"a": b"1"})
    updated = send(hub, "GET", f"/api/buckets/{bucket}").json()["updatedAt"]
    add(api, bucket, {"b": b"2"})
    events = following("?since=" + quote(updated))
    seen = [next(events) for _ in range(3)]
    assert [name for name, _ in seen] == ["changes", "changes", "ready"]
    cursor = seen[0][1]["cursor"]
    events = following(f"?cursor={cursor}")
    (name, data), (ready, _) = next(events), next(events)
    assert (name, [each["path"] for each in data["changes"]], ready) == ("changes", ["b"], "ready")
    assert next(following("?cursor=999"))[0] == "reset"
    assert next(following("?since=2999-01-01T00:00:00Z"))[0] == "ready"


def test_a_stream_ends_with_its_bucket_and_with_the_hub(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    with LocalHub(tmp_path) as hub:
        api = client(hub)
        for name in ("local/a", "local/b"):
            api.create_bucket(name)
        followers = [Follower(hub, name) for name in ("local/a", "local/b")]
        streams = [each.events() for each in followers]
        assert [next(events)[0] for events in streams] == ["ready"] * 2
        api.delete_bucket("local/a")
        assert next(streams[0])[0] == "reconnect"
    assert next(streams[1])[0] == "reconnect"
    for each in followers:
        each.close()


def test_a_stream_resumes_from_the_cursor_of_a_reconnect_event(
    hub: HubProcess, api: HfApi, bucket: str, following: Callable[..., Any]
) -> None:
    add(api, bucket, {"a": b"1"})
    events = following()
    assert next(events)[0] == "ready"
    hub.end_streams()
    name, data = next(events)
    assert name == "reconnect"
    add(api, bucket, {"b": b"2"})
    name, data = next(following(f"?cursor={data['cursor']}"))
    assert (name, [each["path"] for each in data["changes"]]) == ("changes", ["b"])


def test_a_reset_event_ends_a_stream_and_a_new_one_can_be_opened(
    hub: HubProcess, api: HfApi, bucket: str, following: Callable[..., Any]
) -> None:
    add(api, bucket, {"a": b"1"})
    events = following()
    assert next(events)[0] == "ready"
    hub.end_streams("reset")
    assert next(events)[0] == "reset"
    assert next(events, None) is None
    assert next(following())[0] == "ready"


def test_an_idle_stream_is_kept_alive(
    tmp_path: Path, client: Callable[..., HfApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_events, "_KEEP_ALIVE_SECONDS", 0.01)
    with LocalHub(tmp_path) as hub:
        client(hub).create_bucket("local/idle")
        follower = Follower(hub, "local/idle")
        lines = [follower.line() for _ in range(7)]
        follower.close()
    assert lines == ["event: ready", "data: {}", "", ": keep-alive", "", ": keep-alive", ""]


def test_two_streams_report_all_changes_of_eight_clients_once_in_one_order(
    hub: HubProcess, bucket: str, following: Callable[..., Any]
) -> None:
    expected = {f"{client}/{n}" for client in range(8) for n in range(125)}
    streams = [following(), following()]
    seen: list[list[str]] = [[], []]

    def collect(number: int) -> None:
        for name, data in streams[number]:
            if name == "changes":
                seen[number] += [change["path"] for change in data["changes"]]
            if len(seen[number]) >= len(expected):
                return

    def write(client: int) -> None:
        for n in range(125):
            operation = {"type": "addFile", "path": f"{client}/{n}", "xetHash": EMPTY}
            assert batch(hub, bucket, operation).status == 200

    threads = [threading.Thread(target=collect, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(write, range(8)))
    for thread in threads:
        thread.join(60)
    assert [sorted(each) for each in seen] == [sorted(expected)] * 2
    assert seen[0] == seen[1], "both streams have the same order"


def test_a_long_change_log_is_compacted_and_its_end_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_files, "_KEPT_BATCHES", 5)
    disk = Disk(tmp_path / "unfinished")
    files = bucket_files.BucketFiles(tmp_path, disk)
    for n in range(26):
        files.change([bucket_files.Change(f"{n % 7}", bucket_files.BucketFile(f"{n % 7}", EMPTY, n, 0, 0))])
    known = files.since(25)
    assert known is not None
    assert ([batch.sequence for batch in known], files.since(3), len(files)) == ([26], None, 7)
    assert len((tmp_path / "changes.ndjson").read_bytes().splitlines()) < 26
    again = bucket_files.BucketFiles(tmp_path, disk)
    assert (again.sequence, again.size, again.updated) == (files.sequence, files.size, files.updated)
    assert again.listing("", "", 10, recursive=True) == files.listing("", "", 10, recursive=True)
    assert again.since(3) is None


def many(number: int) -> list[bucket_files.Change]:
    paths = [f"{number}/{n}" for n in range(40)]
    return [bucket_files.Change(path, bucket_files.BucketFile(path, EMPTY, 0, 0, 0)) for path in paths]


def test_a_batch_cut_short_by_a_full_disk_is_discarded(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "unfinished")
    files = bucket_files.BucketFiles(tmp_path, disk)
    files.change(many(0))
    log = tmp_path / "changes.ndjson"
    before = log.read_bytes()
    for room in (10, len(before) - 10):
        with files_of_at_most(len(before) + room), pytest.raises(OSError, match="too large"):
            files.change(many(1))
        assert log.read_bytes() == before
    files.change(many(2))
    again = bucket_files.BucketFiles(tmp_path, disk)
    assert (len(again), again.sequence) == (len(files), files.sequence) == (80, 2)


def test_a_file_exists_while_it_is_replaced(tmp_path: Path) -> None:
    files = bucket_files.BucketFiles(tmp_path, Disk(tmp_path / "unfinished"))
    change = bucket_files.Change("a", bucket_files.BucketFile("a", EMPTY, 5, 0, 0))
    files.change([change])
    seen, is_done = set(), threading.Event()

    def look() -> None:
        while not is_done.is_set():
            seen.add((files.find("a") is not None, files.size))

    interval = sys.getswitchinterval()
    reader = threading.Thread(target=look)
    try:
        sys.setswitchinterval(1e-6)
        reader.start()
        for _ in range(20):
            files.change([change] * 1000)
    finally:
        sys.setswitchinterval(interval)
        is_done.set()
        reader.join()
    assert seen == {(True, 5)}


def test_bad_resume_points_are_400(hub: HubProcess, bucket: str) -> None:
    for query in ("?cursor=x", "?cursor=-1", "?since=yesterday", "?cursor=" + "9" * 50):
        assert send(hub, "GET", f"/api/buckets/{bucket}/events{query}").status == 400


def test_a_file_system_reads_and_writes_the_bucket(hub: HubProcess, api: HfApi, bucket: str) -> None:
    hffs = pytest.importorskip("huggingface_hub.hf_file_system")
    if not hasattr(api, "copy_files"):
        pytest.skip("the file system of this client may know no buckets")
    add(api, bucket, {"logs/a.txt": b"hello", "other/b": b"x"})
    files = hffs.HfFileSystem(endpoint=hub.endpoint, token=hub.token, skip_instance_cache=True)
    assert files.ls(f"buckets/{bucket}/logs", detail=False) == [f"buckets/{bucket}/logs/a.txt"]
    assert files.cat(f"buckets/{bucket}/logs/a.txt") == b"hello"
    with files.open(f"buckets/{bucket}/logs/new.txt", "wb") as file:
        file.write(b"written")
    assert read(hub, bucket, "logs/new.txt").body == b"written"
    files.rm(f"buckets/{bucket}/logs/a.txt")
    assert "logs/a.txt" not in paths(api, bucket)


@pytest.mark.parametrize("fault", [None, "reconnect", "reset"])
def test_a_file_system_follows_changes_by_others(hub: HubProcess, api: HfApi, bucket: str, fault: str | None) -> None:
    pytest.importorskip("huggingface_hub._bucket_live_follow", reason="this client follows no buckets")
    hffs = pytest.importorskip("huggingface_hub.hf_file_system")
    files = hffs.HfFileSystem(endpoint=hub.endpoint, token=hub.token, skip_instance_cache=True, live_follow=True)
    expected = [f"buckets/{bucket}/logs/{name}" for name in "abc"]

    def wait_for(names: list[str]) -> None:
        deadline = time.monotonic() + 60
        while sorted(files.ls(f"buckets/{bucket}/logs", detail=False)) != names:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    add(api, bucket, {"logs/a": b"1"})
    wait_for(expected[:1])
    add(api, bucket, {"logs/b": b"2"})
    wait_for(expected[:2])
    if fault:
        hub.end_streams(fault)
    add(api, bucket, {"logs/c": b"3"})
    wait_for(expected)
