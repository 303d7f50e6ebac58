"""What of a large file goes ahead of its commit, and what an attempt after a failed one still sends of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from hf_summary_writer.folder.ledger import LedgerEntry, Signature
from hf_summary_writer.folder.snapshot import FileSnapshot
from hf_summary_writer.push.push import OVERLAP_BYTES, PIECE_BYTES, SentAhead

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 4 * PIECE_BYTES
STEP = PIECE_BYTES - OVERLAP_BYTES
AT_LEAST = 2 * PIECE_BYTES


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ahead") / "events"
    path.write_bytes(os.urandom(SIZE))
    return path


def content(path: Path, length: int = SIZE) -> FileSnapshot:
    return FileSnapshot("events", path, LedgerEntry(Signature.of(path.stat()), length))


def test_all_but_a_last_piece_is_sent_and_pieces_overlap(path: Path) -> None:
    sent: list[bytes] = []
    SentAhead().send(content(path), None, AT_LEAST, sent.append)
    whole = path.read_bytes()
    assert sent == [whole[start : start + PIECE_BYTES] for start in range(0, SIZE - PIECE_BYTES, STEP)]
    assert SIZE - (len(sent) * STEP + OVERLAP_BYTES) < PIECE_BYTES


def test_what_the_hub_holds_is_not_sent_again(path: Path) -> None:
    sent: list[bytes] = []
    known = content(path, 1000).entry
    SentAhead().send(content(path), known, AT_LEAST, sent.append)
    assert sent[0] == path.read_bytes()[1000 : 1000 + PIECE_BYTES]


@pytest.mark.parametrize(("length", "known"), [(AT_LEAST, 0), (SIZE, SIZE - AT_LEAST), (SIZE, SIZE)])
def test_little_goes_with_the_commit(path: Path, length: int, known: int) -> None:
    sent: list[bytes] = []
    SentAhead().send(content(path, length), content(path, known).entry, AT_LEAST, sent.append)
    assert sent == []


def test_what_is_in_memory_anyway_goes_with_the_commit(path: Path) -> None:
    sent: list[bytes] = []
    held = FileSnapshot("events", path.read_bytes(), content(path).entry)
    SentAhead().send(held, None, AT_LEAST, sent.append)
    assert sent == []


def test_a_second_attempt_goes_on_where_the_first_one_failed(path: Path) -> None:
    # With a Hub that takes only so many requests in a while, a file would never arrive otherwise.
    sent: list[bytes] = []

    def fail_after_two(piece: bytes) -> None:
        if len(sent) == 2:
            raise TimeoutError
        sent.append(piece)

    ahead = SentAhead()
    with pytest.raises(TimeoutError):
        ahead.send(content(path), None, PIECE_BYTES, fail_after_two)
    with pytest.raises(TimeoutError):
        ahead.send(content(path), None, PIECE_BYTES, fail_after_two)
    sent.clear()
    ahead.send(content(path), None, PIECE_BYTES, sent.append)
    whole, first = path.read_bytes(), STEP + PIECE_BYTES
    assert sent == [whole[start : start + PIECE_BYTES] for start in (first, first + STEP)]
    sent.clear()
    ahead.send(content(path), None, PIECE_BYTES, sent.append)
    assert sent == []
