"""The pieces of a large file that are uploaded before its commit, and the resumption after a failure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from hf_summary_writer.hub.remote import Upload
from hf_summary_writer.hub.uploads import OVERLAP_BYTES, PIECE_BYTES, PieceReader

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 4 * PIECE_BYTES
STEP = PIECE_BYTES - OVERLAP_BYTES
AT_LEAST = 2 * PIECE_BYTES


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pieces") / "events"
    path.write_bytes(os.urandom(SIZE))
    return path


def upload(path: Path, size: int = SIZE, known: int = 0) -> Upload:
    return Upload("events", path, size, known, file_id=1)


def test_all_pieces_but_the_last_are_read_and_overlap(path: Path) -> None:
    read = list(PieceReader().pieces(upload(path), AT_LEAST))
    whole = path.read_bytes()
    assert read == [whole[start : start + PIECE_BYTES] for start in range(0, SIZE - PIECE_BYTES, STEP)]
    assert SIZE - (len(read) * STEP + OVERLAP_BYTES) < PIECE_BYTES


def test_bytes_that_the_hub_holds_are_not_read_again(path: Path) -> None:
    read = list(PieceReader().pieces(upload(path, known=1000), AT_LEAST))
    assert read[0] == path.read_bytes()[1000 : 1000 + PIECE_BYTES]


@pytest.mark.parametrize(("size", "known"), [(AT_LEAST, 0), (SIZE, SIZE - AT_LEAST), (SIZE, SIZE)])
def test_a_small_new_part_is_left_to_the_commit(path: Path, size: int, known: int) -> None:
    assert list(PieceReader().pieces(upload(path, size, known), AT_LEAST)) == []


def test_content_in_memory_is_left_to_the_commit(path: Path) -> None:
    assert list(PieceReader().pieces(Upload("events", path.read_bytes(), SIZE), AT_LEAST)) == []


def test_a_second_attempt_resumes_where_the_first_one_failed(path: Path) -> None:
    # Otherwise a rate-limited upload of a large file would never complete.
    reader = PieceReader()
    for _ in range(2):
        pieces = reader.pieces(upload(path), PIECE_BYTES)
        next(pieces)  # uploaded
        next(pieces)  # failed, so the generator is dropped
        del pieces
    whole, first = path.read_bytes(), 2 * PIECE_BYTES
    assert next(reader.pieces(upload(path), PIECE_BYTES)) == whole[first : first + PIECE_BYTES]
    list(reader.pieces(upload(path), PIECE_BYTES))
    assert list(reader.pieces(upload(path), PIECE_BYTES)) == []
