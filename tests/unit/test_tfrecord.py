"""A frame is what TensorFlow writes, and boundaries are found in whatever bytes a crash left behind."""

from __future__ import annotations

import io
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboardX.crc32c import _crc32c as slow_crc32c
from tensorboardX.record_writer import RecordWriter
from tensorboardX.record_writer import masked_crc32c as their_masked_crc

from hf_summary_writer.events import tfrecord
from hf_summary_writer.events.tfrecord import Scan, boundaries, frame, last_boundary, masked_crc, scan

if TYPE_CHECKING:
    from pathlib import Path

payloads = st.lists(st.binary(max_size=600), max_size=12)


def test_the_checksum_has_the_value_of_the_standard() -> None:
    assert tfrecord.crc32c(b"123456789") == 0xE3069283


@given(st.binary(max_size=2000))
def test_the_checksum_is_that_of_tensorboardx(data: bytes) -> None:
    assert tfrecord.crc32c(data) == slow_crc32c(data)
    assert masked_crc(data) == their_masked_crc(data)


@pytest.mark.parametrize("length", [0, 1, 37, 255, 256, 257, 70_000])
def test_a_frame_is_byte_for_byte_what_tensorboardx_writes(tmp_path: Path, length: int) -> None:
    payload = bytes(i % 251 for i in range(length))
    writer = RecordWriter(str(tmp_path / "record"))
    writer.write(payload)
    writer.close()
    assert frame(payload) == (tmp_path / "record").read_bytes()


@given(payloads)
def test_every_boundary_is_found(payloads: list[bytes]) -> None:
    frames = [frame(payload) for payload in payloads]
    ends = [sum(map(len, frames[: i + 1])) for i in range(len(frames))]
    assert list(boundaries(io.BytesIO(b"".join(frames)))) == ends


@given(payloads, st.binary(min_size=1, max_size=200))
def test_noise_behind_whole_records_is_not_counted(payloads: list[bytes], noise: bytes) -> None:
    whole = b"".join(map(frame, payloads))
    assert scan(io.BytesIO(whole + noise)) == Scan(len(whole), len(payloads))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=8), st.data())
def test_a_file_cut_anywhere_ends_at_the_last_whole_record(payloads: list[bytes], data: st.DataObject) -> None:
    frames = [frame(payload) for payload in payloads]
    content = b"".join(frames)
    cut = data.draw(st.integers(0, len(content)))
    ends = [0, *(sum(map(len, frames[: i + 1])) for i in range(len(frames)))]
    expected = max(end for end in ends if end <= cut)
    assert last_boundary(io.BytesIO(content[:cut])) == expected
    assert last_boundary(io.BytesIO(content), end=cut) == expected


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=8), st.data())
def test_one_flipped_bit_ends_the_whole_records_before_it(payloads: list[bytes], data: st.DataObject) -> None:
    frames = [frame(payload) for payload in payloads]
    content = bytearray(b"".join(frames))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    ends = [0, *(sum(map(len, frames[: i + 1])) for i in range(len(frames)))]
    assert last_boundary(io.BytesIO(bytes(content))) == max(end for end in ends if end <= at)


@given(st.binary(max_size=400))
def test_noise_alone_never_raises_and_has_no_record(noise: bytes) -> None:
    assert scan(io.BytesIO(noise)) == Scan(0, 0)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 4096, 3 << 20])
def test_zeros_are_no_records(length: int) -> None:
    assert scan(io.BytesIO(bytes(length))) == Scan(0, 0)


def test_a_scan_goes_on_from_an_earlier_boundary() -> None:
    first, second = frame(b"version"), frame(b"event")
    file = io.BytesIO(first + second)
    assert scan(file, start=len(first)) == Scan(len(first) + len(second), 1)
    assert scan(file, start=len(first) + len(second)) == Scan(len(first) + len(second), 0)


def test_a_start_behind_the_end_of_a_file_that_shrank_is_answered_calmly() -> None:
    assert scan(io.BytesIO(frame(b"x")), start=1000) == Scan(1000, 0)


def test_the_number_of_records_tells_a_bare_file_version_from_a_file_with_events() -> None:
    assert scan(io.BytesIO(frame(b"version"))).records == 1
    assert scan(io.BytesIO(frame(b"version") + frame(b"event"))).records == 2


def test_a_descriptor_is_read_without_moving_its_position(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(frame(b"a") + frame(b"b") + b"torn")
    with path.open("rb") as file:
        file.seek(5)
        assert scan(file.fileno()) == Scan(34, 2)
        assert file.tell() == 5


def test_records_larger_than_a_block_and_across_blocks_are_verified() -> None:
    sizes = [(1 << 20) - 30, 5, 3 << 20, 1 << 20, (1 << 20) + 1, 7]
    content = b"".join(frame(bytes([i]) * size) for i, size in enumerate(sizes))
    assert scan(io.BytesIO(content)) == Scan(len(content), len(sizes))
    damaged = bytearray(content)
    damaged[2 << 20] ^= 1
    assert scan(io.BytesIO(bytes(damaged))).records == 2


def test_a_large_file_is_scanned_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        for _ in range(3):
            file.write(frame(bytes(24 << 20)))
    with path.open("rb") as file:
        tracemalloc.start()
        try:
            assert scan(file).records == 3
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 8 << 20


def test_a_file_that_shrinks_under_the_scan_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "shrinking"
    frames = [frame(bytes(700_000)) for _ in range(4)]
    path.write_bytes(b"".join(frames))
    with path.open("rb") as file:
        found = boundaries(file.fileno())
        assert next(found) == len(frames[0])
        with path.open("r+b") as other:
            other.truncate(len(frames[0]) + 10)
        assert list(found) == []
