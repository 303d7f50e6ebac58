"""Private copies are consistent, unnamed, and leave disk space to the training."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from typing import TYPE_CHECKING

import pytest

from hf_summary_writer.folder import copies as copying
from hf_summary_writer.folder.copies import PrivateCopies, reserve
from hf_summary_writer.folder.disk import StateFolder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MB, GB = 2**20, 2**30


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(params=["by descriptor", "by name"])
def copies(state: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateCopies]:
    if request.param == "by name":
        monkeypatch.setattr(copying, "_DESCRIPTORS", state / "nowhere")
    copies = PrivateCopies(StateFolder(state))
    yield copies
    copies.clear()


def test_clearing_closes_the_files_that_were_handed_over(
    copies: PrivateCopies, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "a").write_text("content")
    with (tmp_path / "a").open("rb") as file:
        held = copies.hold(file)
    assert (held is None) == ("by name" in request.node.name)
    if held is not None:
        (tmp_path / "a").unlink()
        assert held.read_text() == "content"
        copies.clear()
        assert not held.exists()


@pytest.mark.parametrize(
    ("disk", "left"), [(64 * MB, 16 * MB), (4 * GB, 4 * GB // 20), (100 * GB, GB), (10_000 * GB, GB)]
)
def test_the_disk_reserve_is_a_share_with_a_minimum_and_a_maximum(disk: int, left: int) -> None:
    assert reserve(disk) == left


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"1234567890")
    return path


def disk_of(blocks: int, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying.shutil, "disk_usage", lambda _: (blocks, blocks - free, free))  # type: ignore[attr-defined]


def test_clear_frees_a_copy_even_if_a_forked_process_holds_it(source: Path, copies: PrivateCopies, state: Path) -> None:
    with source.open("rb") as file:
        path, copy = copies.copy(file, 10)
        held = os.dup(copy.fileno())
        assert path.read_bytes() == b"1234567890"
        copies.clear()
    assert not path.exists()
    assert list(state.iterdir()) == []
    assert os.fstat(held).st_size == 0
    os.close(held)


@pytest.mark.faults("D11")
def test_a_copy_that_would_use_the_disk_reserve_is_not_started(
    source: Path, copies: PrivateCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_shared", lambda *_: False)
    disk_of(GB, reserve(GB) + 9, monkeypatch)
    with source.open("rb") as file:
        with pytest.raises(OSError, match="left to others") as caught:
            copies.copy(file, 10)
        assert caught.value.errno == errno.ENOSPC
        path, _ = copies.copy(file, 9)
        assert path.read_bytes() == b"123456789"


def test_a_disk_of_unknown_size_is_copied_to(
    source: Path, copies: PrivateCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_of(0, 0, monkeypatch)
    with source.open("rb") as file:
        path, _ = copies.copy(file, 10)
    assert path.read_bytes() == b"1234567890"


def test_a_copy_that_shares_blocks_needs_no_space_and_has_the_right_length(
    source: Path, copies: PrivateCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    def share(target: int, request: int, original: int) -> int:
        assert request == 0x40049409
        return os.pwrite(target, os.pread(original, 100, 0), 0)

    monkeypatch.setattr(fcntl, "ioctl", share)
    disk_of(GB, 0, monkeypatch)
    with source.open("rb") as file:
        path, copy = copies.copy(file, 4)
    assert copy.read() == b"1234"
    assert path.read_bytes() == b"1234"


@pytest.mark.parametrize("ends", ["empty", "with an error"])
@pytest.mark.parametrize("copied_before", [0, 1, 2])
def test_a_file_is_read_if_the_file_systems_copy_is_incomplete(
    source: Path, copies: PrivateCopies, monkeypatch: pytest.MonkeyPatch, copied_before: int, ends: str
) -> None:
    calls = 0

    def copy_file_range(original: int, copy: int, *_: int) -> int:
        nonlocal calls
        calls += 1
        if calls <= copied_before:
            return os.pwrite(copy, os.pread(original, 3, 3 * (calls - 1)), 3 * (calls - 1))
        if ends == "empty":
            return 0
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(copying.os, "copy_file_range", copy_file_range, raising=False)  # type: ignore[attr-defined]
    with source.open("rb") as file:
        file.seek(5)
        path, _ = copies.copy(file, 9)
        assert path.read_bytes() == b"123456789"


def test_a_copy_that_fails_takes_no_space(
    source: Path, copies: PrivateCopies, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object, copy: int, *__: object) -> None:
        os.write(copy, b"1234")
        raise MemoryError

    monkeypatch.setattr(copying.os, "copy_file_range", fail, raising=False)  # type: ignore[attr-defined]
    with source.open("rb") as file, pytest.raises(MemoryError):
        copies.copy(file, 9)
    assert [path.stat().st_size for path in state.iterdir()] in ([], [0])


def test_without_a_state_folder_a_copy_is_in_the_folder_for_temporary_files(
    source: Path, copies: PrivateCopies, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.touch()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with source.open("rb") as file:
        path, _ = copies.copy(file, 9)
    assert path.read_bytes() == b"123456789"
    assert [each for each in (tmp_path / "temporary").iterdir() if each != path] == []
    copies.clear()
    assert list((tmp_path / "temporary").iterdir()) == []
