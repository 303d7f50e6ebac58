"""File names sort by age and never collide, and a file holds whole records after any failed write."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events import event_files, payloads
from hf_summary_writer.events.files import EventFile, SegmentName, _host, followed, parse_name
from hf_summary_writer.events.tfrecord import frame

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "0" * 8

names = st.builds(
    SegmentName,
    created=st.integers(0, 10**10 - 1),
    host=st.from_regex(r"[A-Za-z0-9.-]{0,30}", fullmatch=True),
    pid=st.integers(0, 2**31),
    writer=st.integers(0, 10**6),
    segment=st.integers(0, 10**6 - 1),
    suffix=st.text(st.characters(codec="utf-8", exclude_characters="/\0"), max_size=10),
    token=st.from_regex("[0-9a-f]{8}", fullmatch=True),
)


@pytest.fixture
def files() -> Iterator[list[EventFile]]:
    opened: list[EventFile] = []
    yield opened
    for file in opened:
        file.forget()


@given(names)
def test_a_file_name_is_parsed_back(name: SegmentName) -> None:
    assert parse_name(str(name)) == name


@given(names, names)
def test_names_sort_by_age(one: SegmentName, other: SegmentName) -> None:
    if one.created < other.created:
        assert str(one) < str(other)


@given(names, st.integers(0, 1000), st.integers(1, 1000))
def test_the_segments_of_a_writer_sort_by_number_within_a_second(name: SegmentName, first: int, more: int) -> None:
    assert str(_segment(name, first)) < str(_segment(name, first + more))


def _segment(name: SegmentName, segment: int, created: int | None = None) -> SegmentName:
    created = name.created if created is None else created
    return replace(name, created=created, segment=segment)


@pytest.mark.parametrize(
    "name",
    ["", "x", "events.out.tfevents.1700000000.host", "events.out.tfevents.1700000000.host.12.0", "a.tfevents.1_2_3"],
)
def test_names_by_other_writers_are_not_parsed(name: str) -> None:
    assert parse_name(name) is None


def test_any_host_name_makes_a_name_that_is_parsed_back(
    tmp_path: Path, files: list[EventFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node_1/é" * 40)
    files.append(EventFile(str(tmp_path)))
    files[0].open()
    [path] = event_files(tmp_path)
    parsed = parse_name(str(path))
    assert parsed is not None
    assert parsed.host == ("node-1--" * 40)[:64]
    assert parsed.is_of_this_host


def test_only_the_last_segment_of_a_writer_has_no_follower() -> None:
    ours = SegmentName(100, "host", 7, 0, 0, TOKEN)
    segments = [str(_segment(ours, n, 100 + n)) for n in range(3)]
    sibling = str(SegmentName(100, "host", 7, 1, 0, TOKEN))
    assert followed([*segments, sibling, "unrelated.txt"]) == set(segments[:2])


def test_a_reused_pid_does_not_seal_the_file_of_the_new_process() -> None:
    earlier_life = [str(SegmentName(100 + n, "container", 1, 0, n, TOKEN)) for n in range(3)]
    this_life = str(SegmentName(500, "container", 1, 0, 0, TOKEN))
    assert this_life not in followed([*earlier_life, this_life])
    assert str(SegmentName(100, "container", 1, 0, 0, TOKEN)) in followed([*earlier_life, this_life])


def test_a_file_holds_its_version_and_then_the_appended_records(tmp_path: Path, files: list[EventFile]) -> None:
    file = EventFile(str(tmp_path / "a" / "b"))
    files.append(file)
    file.append([frame(b"one"), frame(b"two")])
    file.append([frame(b"three")])
    [path] = event_files(tmp_path)
    assert payloads(path)[1:] == [b"one", b"two", b"three"]
    assert file.appended == 3


def test_writers_opened_in_one_second_have_separate_files(tmp_path: Path, files: list[EventFile]) -> None:
    for _ in range(50):
        files.append(EventFile(str(tmp_path)))
        files[-1].open()
    paths = [file.path for file in files]
    assert len(set(paths)) == 50
    assert paths == sorted(paths, key=str)


def test_an_existing_file_of_the_same_name_is_never_truncated(
    tmp_path: Path, files: list[EventFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another container with the same host name and pid on a shared disk; its file is invisible until the open.
    monkeypatch.setattr(os, "listdir", lambda _: [])
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    file = EventFile(str(tmp_path))
    taken = tmp_path / str(SegmentName(1_700_000_000, _host(), os.getpid(), file._writer, 0, file._token))
    taken.write_bytes(b"theirs")
    files.append(file)
    file.append([frame(b"ours")])
    assert taken.read_bytes() == b"theirs"
    assert file.path is not None
    assert file.path > str(taken)


def test_a_new_file_sorts_last_after_the_clock_was_set_back(
    tmp_path: Path, files: list[EventFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    (tmp_path / f"events.out.tfevents.{int(now) + 3600}.elsewhere").touch()
    file = EventFile(str(tmp_path))
    files.append(file)
    file.open()
    assert [str(path) for path in event_files(tmp_path)][-1] == file.path
    monkeypatch.setattr(time, "time", lambda: now - 86_400)
    file.finish()
    file.open()
    assert [str(path) for path in event_files(tmp_path)][-1] == file.path


def test_a_file_name_with_the_highest_time_does_not_stop_the_writer(tmp_path: Path, files: list[EventFile]) -> None:
    (tmp_path / "events.out.tfevents.9999999999.x").touch()
    files.append(EventFile(str(tmp_path)))
    files[0].open()
    assert len(event_files(tmp_path)) == 2


def test_a_full_segment_is_followed_by_another_and_never_changes_again(tmp_path: Path, files: list[EventFile]) -> None:
    file = EventFile(str(tmp_path), segment_bytes=200)
    files.append(file)
    contents = [b"%03d" % n * 20 for n in range(20)]
    seen: dict[str, bytes] = {}
    for content in contents:
        file.append([frame(content)])
        closed = followed(path.name for path in event_files(tmp_path))
        for name in closed:
            seen.setdefault(name, (tmp_path / name).read_bytes())
    assert len(seen) > 5
    assert all((tmp_path / name).read_bytes() == content for name, content in seen.items())
    assert [p for path in event_files(tmp_path) for p in payloads(path)[1:]] == contents


def test_a_full_segment_and_the_name_of_each_are_synced(
    tmp_path: Path, files: list[EventFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    file = EventFile(str(tmp_path), segment_bytes=100)
    files.append(file)
    file.append([frame(b"x" * 100)])
    file.append([frame(b"y" * 100)])
    file.sync()
    file.sync()
    first, second = map(str, event_files(tmp_path))
    assert synced == [first, str(tmp_path), second, str(tmp_path)]


def test_a_resting_file_is_reopened_for_appending(tmp_path: Path, files: list[EventFile]) -> None:
    file = EventFile(str(tmp_path))
    files.append(file)
    file.append([frame(b"one")])
    file.rest()
    assert not file.is_open
    file.sync()
    assert not file.is_open
    file.append([frame(b"two")])
    [path] = event_files(tmp_path)
    assert payloads(path)[1:] == [b"one", b"two"]


@pytest.mark.parametrize("trouble", ["removed", "replaced", "truncated", "grown"])
def test_a_file_changed_by_another_program_is_replaced_by_a_new_one(
    tmp_path: Path, files: list[EventFile], trouble: str
) -> None:
    file = EventFile(str(tmp_path / "run"))
    files.append(file)
    file.append([frame(b"one")])
    assert file.path is not None
    path = tmp_path / "run" / Path(file.path).name
    if trouble == "removed":
        path.unlink()
        path.parent.rmdir()
    elif trouble == "replaced":
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    elif trouble == "truncated":
        os.truncate(path, 10)
    else:
        with path.open("ab") as other:
            other.write(b"theirs")
    file.verify()
    file.append([frame(b"two")])
    assert file.path != str(path)
    assert payloads(event_files(tmp_path)[-1])[1:] == [b"two"]


@pytest.mark.faults("D16")
def test_two_writers_with_the_same_host_and_pid_have_different_file_names(
    tmp_path: Path, files: list[EventFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Containers on different disks that upload to the same folder on the Hub.
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    monkeypatch.setattr("hf_summary_writer.events.files._writers", itertools.repeat(0))
    for folder in ("one", "other"):
        file = EventFile(str(tmp_path / folder))
        files.append(file)
        file.open()
    one, other = (path.name for path in sorted(tmp_path.rglob("*tfevents*")))
    assert one != other


@pytest.mark.faults("D17")
def test_a_file_system_with_changing_file_numbers_keeps_one_file(tmp_path: Path, files: list[EventFile]) -> None:
    file = EventFile(str(tmp_path))
    files.append(file)
    file.append([frame(b"first")])
    for number in range(5):
        file._identity = (0, number)
        file.verify()
        file.append([frame(b"%d" % number)])
    [path] = event_files(tmp_path)
    assert len(payloads(path)) == 7


@pytest.mark.faults("D17")
@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOTSUP, errno.EPERM])
def test_a_new_file_is_opened_where_appending_is_not_supported(
    tmp_path: Path, files: list[EventFile], monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    real_open = os.open

    def without_append(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_APPEND:
            raise OSError(error, os.strerror(error))
        return real_open(path, flags, mode)

    monkeypatch.setattr(os, "open", without_append)
    file = EventFile(str(tmp_path))
    files.append(file)
    for content in (b"one", b"two", b"three"):
        file.append([frame(content)])
        if content == b"two":
            file.rest()
    assert [p for path in event_files(tmp_path) for p in payloads(path)[1:]] == [b"one", b"two", b"three"]
    assert len(event_files(tmp_path)) == 2


@pytest.mark.faults("D17")
@pytest.mark.parametrize("error", [errno.ESPIPE, errno.EPERM, errno.ENOTSUP])
def test_a_new_file_is_opened_where_a_write_to_a_file_opened_again_fails(
    tmp_path: Path, files: list[EventFile], monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    real_open, real_write = os.open, os.write
    again: set[int] = set()

    def opened(path: str, flags: int, mode: int = 0o777) -> int:
        descriptor = real_open(path, flags, mode)
        (again.discard if flags & os.O_CREAT else again.add)(descriptor)
        return descriptor

    def write(descriptor: int, data: bytes) -> int:
        if descriptor in again:
            raise OSError(error, os.strerror(error))
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "write", write)
    file = EventFile(str(tmp_path))
    files.append(file)
    for content in (b"one", b"two", b"three"):
        assert file.in_one_go == (content == b"three")
        file.append([frame(content), frame(b"and")])
        if content == b"one":
            file.rest()
    monkeypatch.undo()
    assert file.appended == 6
    assert [payloads(path)[1:] for path in event_files(tmp_path)] == [
        [b"one", b"and"],
        [b"two", b"and", b"three", b"and"],
    ]


@pytest.mark.faults("D17")
def test_a_file_is_created_in_a_folder_that_cannot_be_listed(
    tmp_path: Path, files: list[EventFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    files.append(EventFile(str(tmp_path)))
    files[0].append([frame(b"x")])
    monkeypatch.undo()
    assert len(event_files(tmp_path)) == 1


@pytest.mark.skipif(os.name != "posix", reason="needs descriptors")
def test_an_event_file_never_gets_the_descriptor_of_a_standard_stream(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from hf_summary_writer.events import EventWriter\n"
        "os.close(0); os.close(1); os.close(2)\n"
        "writer = EventWriter(sys.argv[1])\n"
        "writer.add_scalar('a', 1.0, 1)\n"
        "writer.flush()\n"
        "for descriptor in range(3):\n"
        "    try: os.write(descriptor, b'printed')\n"
        "    except OSError: pass\n"
        "writer.close()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    [path] = event_files(tmp_path)
    assert len(payloads(path)) == 2


@pytest.mark.parametrize("room", range(0, 120, 7))
def test_a_full_disk_keeps_whole_records_and_the_others_can_be_appended_later(
    tmp_path: Path, files: list[EventFile], monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    file = EventFile(str(tmp_path))
    files.append(file)
    file.open()
    frames = [frame(b"x" * size) for size in (3, 30, 0, 17)]
    left = room
    real_write = os.write

    def write(descriptor: int, data: bytes | memoryview) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real_write(descriptor, data[:left])
        left -= written
        return written

    monkeypatch.setattr(os, "write", write)
    if room < sum(map(len, frames)):
        with pytest.raises(OSError, match="No space"):
            file.append(frames)
    else:
        file.append(frames)
    [path] = event_files(tmp_path)
    done = file.appended
    assert payloads(path)[1:] == [f[12:-4] for f in frames[:done]]
    left = 1000
    file.append(frames[done:])
    assert payloads(path)[1:] == [f[12:-4] for f in frames]


def test_a_file_whose_torn_tail_cannot_be_cut_off_is_abandoned(
    tmp_path: Path, files: list[EventFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = EventFile(str(tmp_path))
    files.append(file)
    file.append([frame(b"one")])
    first = file.path
    real_write = os.write

    def torn(descriptor: int, data: bytes) -> int:
        real_write(descriptor, data[:5])
        raise OSError(errno.EIO, "Input/output error")

    def refuse(_descriptor: int, _length: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", torn)
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(OSError, match="Input/output"):
            file.append([frame(b"two")])
    file.append([frame(b"two")])
    assert file.path != first
    assert payloads(event_files(tmp_path)[-1])[1:] == [b"two"]


def test_a_failed_write_to_a_truncated_file_adds_no_zeros(
    tmp_path: Path, files: list[EventFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = EventFile(str(tmp_path))
    files.append(file)
    file.append([frame(b"one")])
    [first] = event_files(tmp_path)
    os.truncate(first, 0)
    with monkeypatch.context() as disk:
        disk.setattr(os, "write", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            file.append([frame(b"two")])
    file.append([frame(b"two")])
    assert first.read_bytes() == b""
    assert payloads(event_files(tmp_path)[-1])[1:] == [b"two"]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_new_file_whose_first_write_fails_is_removed(
    tmp_path: Path, files: list[EventFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = EventFile(str(tmp_path))
    files.append(file)
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        with pytest.raises(OSError, match="No space"):
            file.open()
    assert event_files(tmp_path) == []
    assert descriptors() == before
    file.append([frame(b"one")])
    assert len(event_files(tmp_path)) == 1


def test_an_interrupted_write_is_neither_lost_nor_repeated(
    tmp_path: Path, files: list[EventFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = EventFile(str(tmp_path))
    files.append(file)
    file.append([frame(b"one")])
    real_write = os.write

    def interrupted(descriptor: int, data: bytes) -> int:
        real_write(descriptor, data)
        raise KeyboardInterrupt

    frames = [frame(b"two"), frame(b"three")]
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            file.append(frames)
    file.append(frames[file.appended - 1 :])
    [path] = event_files(tmp_path)
    assert payloads(path)[1:] == [b"one", b"two", b"three"]


def test_a_failed_sync_leaks_no_descriptor(
    tmp_path: Path, files: list[EventFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def open_no_folder(path: str, flags: int, *mode: int) -> int:
        if Path(path).is_dir():
            raise OSError(errno.EMFILE, "Too many open files")
        return real_open(path, flags, *mode)

    file = EventFile(str(tmp_path))
    files.append(file)
    file.append([frame(b"event")])
    file.rest()
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", open_no_folder)
        with pytest.raises(OSError, match="Too many open files"):
            file.sync()
    assert (file.is_open, file.dirty) == (False, True)
    file.sync()
    assert (file.is_open, file.dirty) == (False, False)
