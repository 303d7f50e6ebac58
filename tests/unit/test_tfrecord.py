"""Frames equal those of TensorFlow, and record boundaries are found in any bytes that a crash left."""

from __future__ import annotations

import io
import itertools
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboardX.crc32c import _crc32c as slow_crc32c
from tensorboardX.record_writer import RecordWriter
from tensorboardX.record_writer import masked_crc32c as their_masked_crc

from hf_summary_writer.events import tfrecord
from hf_summary_writer.events.tfrecord import boundaries, frame, frames, is_torn, masked_crc, next_record

if TYPE_CHECKING:
    from pathlib import Path

payloads = st.lists(st.binary(max_size=600), max_size=12)


def ends_of(frames: list[bytes]) -> list[int]:
    return list(itertools.accumulate(map(len, frames)))


def test_the_checksum_has_the_standard_test_value() -> None:
    assert tfrecord.crc32c(b"123456789") == 0xE3069283


@given(st.binary(max_size=2000))
def test_the_checksum_equals_that_of_tensorboardx(data: bytes) -> None:
    assert tfrecord.crc32c(data) == slow_crc32c(data)
    assert masked_crc(data) == their_masked_crc(data)


@pytest.mark.parametrize("length", [0, 1, 37, 255, 256, 257, 70_000])
def test_a_frame_equals_that_of_tensorboardx_byte_for_byte(tmp_path: Path, length: int) -> None:
    payload = bytes(i % 251 for i in range(length))
    writer = RecordWriter(str(tmp_path / "record"))
    writer.write(payload)
    writer.close()
    assert frame(payload) == (tmp_path / "record").read_bytes()


@given(payloads)
def test_every_boundary_is_found(payloads: list[bytes]) -> None:
    frames = list(map(frame, payloads))
    assert list(boundaries(io.BytesIO(b"".join(frames)))) == ends_of(frames)


@given(payloads, st.binary(min_size=1, max_size=200))
def test_noise_after_whole_records_is_not_counted(payloads: list[bytes], noise: bytes) -> None:
    frames = list(map(frame, payloads))
    assert list(boundaries(io.BytesIO(b"".join(frames) + noise))) == ends_of(frames)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=8), st.data())
def test_a_file_cut_anywhere_ends_at_the_last_whole_record(payloads: list[bytes], data: st.DataObject) -> None:
    frames = list(map(frame, payloads))
    content = b"".join(frames)
    cut = data.draw(st.integers(0, len(content)))
    whole = [end for end in ends_of(frames) if end <= cut]
    assert list(boundaries(io.BytesIO(content[:cut]))) == whole
    assert list(boundaries(io.BytesIO(content), end=cut)) == whole


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=8), st.data())
def test_only_records_before_a_flipped_bit_are_whole(payloads: list[bytes], data: st.DataObject) -> None:
    frames = list(map(frame, payloads))
    content = bytearray(b"".join(frames))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    assert list(boundaries(io.BytesIO(bytes(content)))) == [end for end in ends_of(frames) if end <= at]


@given(st.binary(max_size=400))
def test_random_bytes_hold_no_record_and_never_raise(noise: bytes) -> None:
    assert list(boundaries(io.BytesIO(noise))) == []


@pytest.mark.parametrize("length", [1, 15, 16, 17, 4096, 3 << 20])
def test_zeros_hold_no_record(length: int) -> None:
    assert list(boundaries(io.BytesIO(bytes(length)))) == []


def test_reading_can_start_at_an_earlier_boundary() -> None:
    first, second = frame(b"version"), frame(b"event")
    file = io.BytesIO(first + second)
    assert list(boundaries(file, start=len(first))) == [len(first) + len(second)]
    assert list(boundaries(file, start=len(first) + len(second))) == []


def test_a_start_beyond_the_end_of_a_file_that_shrank_finds_no_record() -> None:
    assert list(boundaries(io.BytesIO(frame(b"x")), start=1000)) == []


def test_records_larger_than_a_block_and_across_blocks_are_verified() -> None:
    sizes = [(1 << 20) - 30, 5, 3 << 20, 1 << 20, (1 << 20) + 1, 7]
    frames = [frame(bytes([i]) * size) for i, size in enumerate(sizes)]
    content = b"".join(frames)
    assert list(boundaries(io.BytesIO(content))) == ends_of(frames)
    damaged = bytearray(content)
    damaged[2 << 20] ^= 1
    assert list(boundaries(io.BytesIO(bytes(damaged)))) == ends_of(frames)[:2]


def test_a_large_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        for _ in range(3):
            file.write(frame(bytes(24 << 20)))
    with path.open("rb") as file:
        tracemalloc.start()
        try:
            assert len(list(boundaries(file))) == 3
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 8 << 20


def test_the_scan_ends_if_the_file_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "shrinking"
    frames = [frame(bytes(700_000)) for _ in range(4)]
    path.write_bytes(b"".join(frames))
    with path.open("rb", buffering=0) as file:
        found = boundaries(file)
        assert next(found) == len(frames[0])
        with path.open("r+b") as other:
            other.truncate(len(frames[0]) + 10)
        assert list(found) == []


def first_whole_record(content: bytes, start: int) -> int | None:
    """Return the result of `next_record` by trying every position."""
    found = (at for at in range(start, len(content)) if next(boundaries(io.BytesIO(content), at), None) is not None)
    return next(found, None)


NOISE = st.lists(st.sampled_from([bytes(1), bytes(13), bytes(40), b"\x01", b"noise", frame(b"")[:-1]])).map(b"".join)


@given(before=NOISE, payloads=st.lists(st.binary(max_size=40), max_size=2), after=NOISE, start=st.integers(0, 30))
def test_the_next_record_is_found_after_any_bytes(
    before: bytes, payloads: list[bytes], after: bytes, start: int
) -> None:
    content = before + b"".join(frames(payloads)) + after
    with pytest.MonkeyPatch.context() as small:
        small.setattr(tfrecord, "_BLOCK_BYTES", 64)
        found = next_record(io.BytesIO(content), start, len(content))
    assert found == first_whole_record(content, start)


@given(payload=st.binary(max_size=40), cut=st.integers(1, 60), flipped=st.integers(0, 50))
def test_a_torn_record_is_distinguished_from_a_damaged_one(payload: bytes, cut: int, flipped: int) -> None:
    record = frame(payload)
    torn = record[:-cut]
    assert is_torn(io.BytesIO(torn), 0, len(torn))
    damaged = bytearray(record)
    damaged[flipped % len(record)] ^= 1
    assert not is_torn(io.BytesIO(damaged), 0, len(damaged))
