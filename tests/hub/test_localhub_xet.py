"""Xet storage: integrity checks, deduplication, and byte-for-byte downloads."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cramjam
import pytest
from blake3 import blake3
from huggingface_hub import CommitOperationAdd, constants

from hf_summary_writer.localhub import LocalHub
from hf_summary_writer.localhub.errors import BadRequestError
from hf_summary_writer.localhub.xet import hashing, shard, xorb
from hf_summary_writer.localhub.xet.owners import add_owner, readable_parts
from hub.content import files_of_at_most
from hub.wire import Reply, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from huggingface_hub import HfApi

    from hub_process import HubProcess

needs_xet = pytest.mark.skipif(constants.HF_HUB_DISABLE_XET, reason="Xet is switched off")
LOG = "events.tfevents.1"


def cas(
    hub: HubProcess, repo_id: str, method: str, path: str, body: bytes | None = None, scope: str = "write"
) -> Reply:
    granted = send(hub, "GET", f"/api/models/{repo_id}/xet-{scope}-token/main").json()
    assert granted["casUrl"] == hub.endpoint
    return send(hub, method, path, body, token=granted["accessToken"])


def plain_xorb(*chunks: bytes) -> tuple[str, bytes]:
    frames = [b"\0" + len(c).to_bytes(3, "little") + b"\0" + len(c).to_bytes(3, "little") + c for c in chunks]
    name = hashing.xorb_hash([(hashing.chunk_hash(chunk), len(chunk)) for chunk in chunks])
    return hashing.to_hex(name), b"".join(frames)


def push(api: HfApi, repo_id: str, content: bytes, path: str = LOG) -> Any:
    return api.create_commit(repo_id, [CommitOperationAdd(path, content)], commit_message="Add")


CONTENTS = {
    "one byte": b"x",
    "random": random.Random(1).randbytes(700_000),
    "the same over and over": bytes(range(256)) * 3000,
    "zeros": bytes(1_000_000),
    "floats, which are grouped before they are compressed": struct.pack(
        "<200000f", *(i * 0.001 for i in range(200_000))
    ),
    "text": b"".join(b"step %d loss %d\n" % (n, n * n) for n in range(40_000)),
    "several xorbs": random.Random(2).randbytes(70_000_000),
}


@needs_xet
@pytest.mark.parametrize("case", CONTENTS)
def test_a_file_is_downloaded_unchanged_over_xet_and_over_plain_http(
    hub: HubProcess, api: HfApi, repo_id: str, case: str, tmp_path: Path
) -> None:
    content = CONTENTS[case]
    api.create_repo(repo_id)
    push(api, repo_id, content)
    assert Path(api.hf_hub_download(repo_id, LOG, local_dir=tmp_path)).read_bytes() == content
    assert send(hub, "GET", f"/{repo_id}/resolve/main/{LOG}").body == content
    assert hub.stats.cas.requests > 0  # how to put it together; the data itself may have been there before


@needs_xet
def test_any_range_of_a_file_can_be_read(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    content = random.Random(3).randbytes(500_000) + bytes(300_000) + random.Random(4).randbytes(200_000)
    api.create_repo(repo_id)
    push(api, repo_id, content)
    url, rng = f"/{repo_id}/resolve/main/{LOG}", random.Random(5)
    for _ in range(30):
        start = rng.randrange(len(content))
        end = rng.randrange(start, len(content))
        reply = send(hub, "GET", url, headers={"Range": f"bytes={start}-{end}"})
        assert (reply.status, reply.body == content[start : end + 1]) == (206, True)
        assert reply.headers["content-range"] == f"bytes {start}-{end}/{len(content)}"
    assert send(hub, "GET", url, headers={"Range": "bytes=-7"}).body == content[-7:]
    assert send(hub, "GET", url, headers={"Range": "bytes=999990-"}).body == content[-10:]
    assert send(hub, "GET", url, headers={"Range": "bytes=1000000-"}).status == 416


@needs_xet
def test_uploading_an_existing_file_from_a_new_process_sends_almost_nothing(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    content = b""
    api.create_repo(repo_id)
    for n in range(5):
        content += random.Random(100 + n).randbytes(400_000)
        push(api, repo_id, content)
    (tmp_path / "old").write_bytes(content)
    before = hub.stats.xorb.received
    script = (
        "import sys; from huggingface_hub import HfApi, constants; constants.ENDPOINT = sys.argv[1];"
        "HfApi(endpoint=sys.argv[1], token=sys.argv[2])"
        ".upload_file(path_or_fileobj=sys.argv[3], path_in_repo='again.tfevents.1', repo_id=sys.argv[4])"
    )
    command = [sys.executable, "-c", script, hub.endpoint, hub.token, str(tmp_path / "old"), repo_id]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_XET_CACHE": str(tmp_path / "xet")}
    subprocess.run(command, check=True, timeout=60, env=environment)
    assert hub.stats.xorb.received - before < len(content) / 20
    assert send(hub, "GET", f"/{repo_id}/resolve/main/again.tfevents.1").body == content


def test_a_xorb_must_match_its_hash(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    api.create_repo(repo_id)
    name, body = plain_xorb(b"one chunk", b"another chunk")
    other, _ = plain_xorb(b"something else")
    wrong = {
        "another xorb": (other, body),
        "a changed byte": (name, body[:-1] + b"!"),
        "a missing chunk": (name, body[:17]),
        "a chunk cut short": (name, body[:-3]),
        "nothing": (name, b""),
        "an unknown version": (name, b"\1" + body[1:]),
        "an unknown compression": (name, body[:4] + b"\7" + body[5:]),
        "no LZ4 where it says so": (name, body[:4] + b"\1" + body[5:]),
    }
    for case, (claimed, content) in wrong.items():
        assert cas(hub, repo_id, "POST", f"/v1/xorbs/default/{claimed}", content).status == 400, case
    assert cas(hub, repo_id, "POST", f"/v1/xorbs/default/{name}", body).json() == {"was_inserted": True}
    assert cas(hub, repo_id, "POST", f"/v1/xorbs/default/{name}", body).json() == {"was_inserted": False}


def make_shard(chunks: list[bytes], sha256: bytes, **wrong: Any) -> bytes:
    """Return the shard of a file with these chunks, all in one xorb."""
    hashes = [(hashing.chunk_hash(chunk), len(chunk)) for chunk in chunks]
    size = sum(map(len, chunks))
    term = shard.Term(
        wrong.get("xorb", hashing.xorb_hash(hashes)), wrong.get("size", size), 0, wrong.get("end", len(chunks))
    )
    proof: bytes = wrong.get("proof", hashing.range_hash(raw for raw, _ in hashes))
    name = wrong.get("name", hashing.file_hash(hashes))
    header = struct.pack("<32sQQ", b"HFRepoMetaData\x00UigEj{\x81W\x83\xa5\xbd\xd9\\\xcd\xd1J\xa9", 2, 0)
    file = struct.pack("<32sIIQ", name, wrong.get("flags", 3 << 30), 1, 0) + shard.pack_terms([term])
    end = b"\xff" * 32 + bytes(16)
    return header + file + proof + bytes(16) + sha256 + bytes(16) + end + end


def test_a_shard_must_name_existing_chunks_and_prove_them(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    api.create_repo(repo_id)
    chunks = [b"first chunk", b"second chunk"]
    name, body = plain_xorb(*chunks)
    sha256 = bytes(range(32))
    good = make_shard(chunks, sha256)
    assert cas(hub, repo_id, "POST", "/v1/shards", good).status == 400, "the xorb was not uploaded yet"
    assert cas(hub, repo_id, "POST", f"/v1/xorbs/default/{name}", body).status == 200
    wrong = {
        "no shard": b"no shard",
        "cut short": good[:-60],
        "another proof": make_shard(chunks, sha256, proof=bytes(32)),
        "another file hash": make_shard(chunks, sha256, name=bytes(32)),
        "another size": make_shard(chunks, sha256, size=1),
        "a chunk too many": make_shard(chunks, sha256, end=3),
        "another xorb": make_shard(chunks, sha256, xorb=bytes(32)),
        "no proof": make_shard(chunks, sha256, flags=0),
    }
    for case, content in wrong.items():
        assert cas(hub, repo_id, "POST", "/v1/shards", content).status == 400, case
    assert cas(hub, repo_id, "POST", "/v1/shards", good).json() == {"result": 1}


def test_the_storage_accepts_only_its_own_tokens(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    api.create_repo(repo_id)
    name, body = plain_xorb(b"a chunk")
    path = f"/v1/xorbs/default/{name}"
    assert send(hub, "POST", path, body).status == 401, "the storage refuses the Hub's token"
    assert send(hub, "POST", path, body, token=None).status == 401
    assert cas(hub, repo_id, "POST", path, body, scope="read").status == 403
    assert send(hub, "GET", f"/xorbs/{name}", token=None).status == 403


def test_unknown_files_and_chunks_are_404(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    api.create_repo(repo_id)
    # Zeros are the hash of an empty file.
    for path in (f"/v1/chunks/default/{'f' * 64}", f"/v1/reconstructions/{'f' * 64}"):
        assert cas(hub, repo_id, "GET", path).status == 404


def test_a_decompression_bomb_is_refused() -> None:
    packed = bytes(cramjam.lz4.compress(bytes(100_000_000)))
    with pytest.raises(BadRequestError, match="does not unpack"):
        xorb.unpack(packed, 1, 1000)


def test_a_chunk_that_is_smaller_than_announced_is_refused() -> None:
    packed = bytes(cramjam.lz4.compress(b"small"))
    assert xorb.unpack(packed, 1, 5) == b"small"
    with pytest.raises(BadRequestError, match="size it announces"):
        xorb.unpack(packed, 1, 6)


def test_hashes_match_the_published_specification() -> None:
    # The example of the specification: a hash and its form in URLs.
    raw = bytes.fromhex("16af3a84044b83d6be998a42e20399f2cc5650eaf99950639f50418aece7954e")
    text = "d6834b04843aaf16f29903e2428a99be635099f9ea5056cc4e95e7ec8a41509f"
    assert hashing.to_hex(raw) == text
    assert hashing.from_hex(text) == raw
    one = [(blake3(b"x").digest(), 1)]
    assert hashing.xorb_hash(one) == one[0][0]


def test_xorbs_survive_a_restart(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    content = random.Random(6).randbytes(300_000)
    with LocalHub(tmp_path, any_namespace=True) as hub:
        client(hub).create_repo("tester/x")
        push(client(hub), "tester/x", content)
    with LocalHub(tmp_path, any_namespace=True) as hub:
        assert send(hub, "GET", f"/tester/x/resolve/main/{LOG}").body == content


def test_an_owner_cut_short_by_a_full_disk_does_not_hide_the_next(tmp_path: Path) -> None:
    path = tmp_path / "xorb"
    add_owner(path, "first", 0, 7)
    with files_of_at_most((tmp_path / "xorb.owners").stat().st_size + 5), pytest.raises(OSError, match="too large"):
        add_owner(path, "second", 0, 7)
    add_owner(path, "third", 0, 7)
    assert readable_parts(path, {"first", "third"}.__contains__) == [[0, 7], [0, 7]]
    assert not readable_parts(path, "second".__eq__)
