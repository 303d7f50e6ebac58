"""Private copies: under names of their own, of one moment, and never at the expense of who else needs the disk."""

from __future__ import annotations

import errno
import fcntl
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from hf_summary_writer.folder import disk as outbox
from hf_summary_writer.folder.disk import PrivateCopies, reserve

if TYPE_CHECKING:
    from pathlib import Path

MB, GB = 2**20, 2**30


def test_no_copy_takes_the_name_of_one_that_another_container_with_the_same_pids_has_removed(tmp_path: Path) -> None:
    names = set()
    for copies in (PrivateCopies(tmp_path / "outbox"), PrivateCopies(tmp_path / "outbox")):
        copies.clear()
        path, copy = copies.new_file()
        copy.close()
        names.add(path)
    assert len(names) == 2


@pytest.mark.parametrize(
    ("disk", "left"), [(64 * MB, 16 * MB), (4 * GB, 4 * GB // 20), (100 * GB, GB), (10_000 * GB, GB)]
)
def test_a_part_of_the_disk_is_left_to_others_neither_too_little_nor_too_much(disk: int, left: int) -> None:
    assert reserve(disk) == left


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"1234567890")
    return path


def disk_of(blocks: int, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    status = SimpleNamespace(f_blocks=blocks, f_bavail=free, f_frsize=1)
    monkeypatch.setattr(outbox.os, "fstatvfs", lambda _: status)  # type: ignore[attr-defined]


@pytest.mark.faults("D11")
def test_a_copy_that_would_touch_the_reserve_is_not_begun_and_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_shared", lambda *_: False)
    disk_of(GB, reserve(GB) + 9, monkeypatch)
    copies = PrivateCopies(tmp_path / "outbox")
    with source.open("rb") as file:
        with pytest.raises(OSError, match="left to others") as caught:
            copies.copy(file, 10)
        assert caught.value.errno == errno.ENOSPC
        assert list((tmp_path / "outbox").iterdir()) == []
        path, copy = copies.copy(file, 9)
        copy.close()
        assert path.read_bytes() == b"123456789"


def test_a_disk_that_tells_nothing_about_itself_is_copied_to(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_of(0, 0, monkeypatch)
    with source.open("rb") as file:
        path, copy = PrivateCopies(tmp_path / "outbox").copy(file, 10)
    copy.close()
    assert path.read_bytes() == b"1234567890"


def test_a_copy_that_shares_its_blocks_needs_no_room_and_ends_where_it_is_to(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def share(target: int, request: int, original: int) -> int:
        assert request == 0x40049409
        return os.pwrite(target, os.pread(original, 100, 0), 0)

    monkeypatch.setattr(fcntl, "ioctl", share)
    disk_of(GB, 0, monkeypatch)
    with source.open("rb") as file:
        path, copy = PrivateCopies(tmp_path / "outbox").copy(file, 4)
    with copy:
        assert copy.read() == b"1234"
    assert path.read_bytes() == b"1234"
