"""Parsers of the local Hub reject any input with a client error, in bounded memory."""

from __future__ import annotations

import asyncio
import json
import struct
import tracemalloc
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_summary_writer.localhub.attributes import UploadRules
from hf_summary_writer.localhub.buckets.batch import judge_batch, read_batch
from hf_summary_writer.localhub.cards import check_card
from hf_summary_writer.localhub.errors import HubError
from hf_summary_writer.localhub.hosts import Hosts
from hf_summary_writer.localhub.operations import read_commit
from hf_summary_writer.localhub.ranges import parse_range
from hf_summary_writer.localhub.runs.eventfiles import read_scalars
from hf_summary_writer.localhub.xet.shard import read_shard
from hf_summary_writer.localhub.xet.xorb import read_chunks

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = struct.pack("<32sQQ", b"HFRepoMetaData\x00UigEj{\x81W\x83\xa5\xbd\xd9\\\xcd\xd1J\xa9", 2, 0)
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=4), each, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["type", "path", "xetHash", "mtime", "key", "value", "summary", "content", "oid", "size", "algo"]
)
LINES = st.lists(st.dictionaries(NAMES, VALUES, max_size=5), max_size=4)


# On a busy machine an example may be slow.
bounded = settings(deadline=None)


class NoFiles:
    """An empty store."""

    def find(self, _name: str) -> None:
        return None


def status_of(call: Callable[[], object]) -> int:
    try:
        call()
    except HubError as error:
        return error.status
    return 200


def refuses_or_accepts(call: Callable[[], object]) -> None:
    assert status_of(call) < 500


def lines_of(values: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


@bounded
@given(st.binary(max_size=400))
def test_a_shard_of_any_bytes_is_refused_or_read(data: bytes) -> None:
    refuses_or_accepts(lambda: read_shard(BytesIO(data)))
    refuses_or_accepts(lambda: read_shard(BytesIO(HEADER + data)))


@bounded
@given(st.binary(max_size=400))
def test_a_xorb_of_any_bytes_is_refused_or_read(data: bytes) -> None:
    refuses_or_accepts(lambda: list(read_chunks(BytesIO(data))))
    frame = b"\0" + len(data).to_bytes(3, "little") + b"\1" + (100).to_bytes(3, "little") + data
    refuses_or_accepts(lambda: list(read_chunks(BytesIO(frame))))


@bounded
@given(LINES | st.binary(max_size=200))
def test_a_batch_of_any_content_is_refused_or_checked(data: list[dict[str, Any]] | bytes) -> None:
    body = data if isinstance(data, bytes) else lines_of(data)
    files: Any = NoFiles()
    refuses_or_accepts(lambda: judge_batch(read_batch(body), files, lambda _: 1))


@bounded
@given(LINES | st.binary(max_size=200))
def test_a_commit_of_any_content_is_refused_or_read(data: list[dict[str, Any]] | bytes) -> None:
    body = data if isinstance(data, bytes) else lines_of(data)
    lfs: Any = NoFiles()
    header = b'{"key": "header", "value": {"summary": "s"}}\n'
    for start in (b"", header):
        refuses_or_accepts(lambda start=start: read_commit(BytesIO(start + body), lfs))  # type: ignore[misc]


@bounded
@given(st.text(max_size=200))
def test_a_card_of_any_text_is_checked(text: str) -> None:
    check_card(text)
    check_card(f"---\n{text}\n---\n")


@bounded
@given(st.binary(max_size=200), st.text(min_size=1, max_size=30))
def test_ignore_rules_of_any_bytes_are_applied(rules: bytes, path: str) -> None:
    parsed = UploadRules(rules, rules)
    assert parsed.is_ignored(path) in (True, False)
    assert parsed.is_large(path, 1, b"") in (True, False)


@bounded
@given(st.text(max_size=40), st.integers(0, 100))
def test_a_range_of_any_text_is_refused_or_within_the_file(value: str, size: int) -> None:
    def check(text: str) -> None:
        found = parse_range(text, size)
        assert found is None or (found[1] is not None and 0 <= found[0] <= found[1] <= size)

    for text in (value, f"bytes={value}"):
        assert status_of(lambda text=text: check(text)) in (200, 416)  # type: ignore[misc]


@bounded
@given(st.text(max_size=40))
def test_a_host_of_any_text_is_refused_or_allowed(value: str) -> None:
    refuses_or_accepts(lambda: asyncio.run(Hosts().check(value)))


@bounded
@given(st.binary(max_size=300))
def test_an_event_file_of_any_bytes_is_read_without_an_error(data: bytes) -> None:
    read_scalars([data])
    read_scalars([data[:100], data[100:]])


def test_a_shard_that_announces_billions_of_entries_uses_little_memory(tmp_path: Any) -> None:
    path = tmp_path / "shard"
    path.write_bytes(HEADER + struct.pack("<32sII8x", bytes(32), 0, 2**32 - 1) + bytes(1000))
    tracemalloc.start()
    try:
        with path.open("rb") as shard, pytest.raises(HubError, match="cut short"):
            read_shard(shard)
        assert tracemalloc.get_traced_memory()[1] < 200_000_000
    finally:
        tracemalloc.stop()
