"""Snapshots hold whole records of one version of a file, and nothing from outside the folder."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import socket
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_summary_writer.events.tfrecord import frame
from hf_summary_writer.folder import disk, scan, snapshot
from hf_summary_writer.folder.copies import PrivateCopies
from hf_summary_writer.folder.disk import STATE_FOLDER, StateFolder, WarnOnce
from hf_summary_writer.folder.ledger import LedgerEntry, Signature
from hf_summary_writer.folder.patterns import PathFilter
from hf_summary_writer.folder.scan import ChangedFile, unpushable
from hf_summary_writer.folder.snapshot import FileSnapshot, SkipReason, SnapshotReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERSION = frame(b"\x09\0\0\0\0\0\0\xf0\x3f\x1a\x0dbrain.Event:2")
EVERYTHING = PathFilter()
MB = 2**20
TOKEN = "hf_0123456789abcdefghij"
EVENTS = "events.out.tfevents.1700000000.host.1_0000-0000abcd_00000{}"


class Folder:
    """A folder that is being pushed, with the ledger entries of its uploaded files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, LedgerEntry] = {}
        self.reader = SnapshotReader(str(path), StateFolder(path / STATE_FOLDER), WarnOnce(), [TOKEN])

    def scan(self) -> dict[str, ChangedFile]:
        return {candidate.relpath: candidate for candidate in scan.FolderScan(str(self.path), EVERYTHING)}

    def changed(self) -> list[str]:
        found = scan.FolderScan(str(self.path), EVERYTHING, self.entries)
        return [candidate.relpath for candidate in found]

    def take(
        self, name: str, *, memory: int = MB, last: bool = False, between: Callable[[], object] = lambda: None
    ) -> FileSnapshot | LedgerEntry | SkipReason:
        candidate = self.scan()[name]
        between()
        return self.reader.take(candidate, self.entries.get(name), memory=memory, last=last)

    def push(self, name: str, *, memory: int = MB, last: bool = False) -> bytes | None:
        """Take a snapshot, record it as uploaded and return its content; `None` if there was nothing to send."""
        taken = self.take(name, memory=memory, last=last)
        if isinstance(taken, SkipReason):
            return None
        if isinstance(taken, LedgerEntry):
            self.entries[name] = taken
            return None
        body = taken.body if isinstance(taken.body, bytes) else taken.body.read_bytes()
        assert len(body) == taken.entry.length
        self.entries[name] = taken.entry
        self.reader.clear()
        return body


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path.resolve())
    yield folder
    folder.reader.clear()


def record(size: int = 20, fill: bytes = b"x") -> bytes:
    return frame(fill * size)


@pytest.mark.parametrize("memory", [MB, 0], ids=["in memory", "as a private copy"])
def test_an_event_file_is_cut_at_its_last_whole_record(folder: Folder, memory: int) -> None:
    whole = VERSION + record() + record()
    path = folder.path / "a.tfevents.1"
    path.write_bytes(whole + record()[:-3])
    assert folder.push(path.name, memory=memory) == whole
    assert folder.push(path.name, memory=memory) is None
    with path.open("ab") as file:
        file.write(record()[-3:])
    assert folder.push(path.name, memory=memory) == whole + record()


@pytest.mark.faults("D10")
@given(tail=st.binary(max_size=200))
def test_only_whole_records_are_published_before_any_bytes(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes
) -> None:
    folder = Folder(tmp_path_factory.mktemp("d10").resolve())
    (folder.path / "a.tfevents.1").write_bytes(VERSION + record() + tail)
    pushed = folder.push("a.tfevents.1")
    assert pushed is not None
    assert (VERSION + record() + tail).startswith(pushed)
    assert pushed.startswith(VERSION + record())
    if len(pushed) == len(VERSION + record()):
        assert folder.push("a.tfevents.1") is None


def test_an_event_file_without_an_event_waits_for_the_last_push(folder: Folder) -> None:
    (folder.path / "a.tfevents.1").write_bytes(VERSION)
    (folder.path / "b.tfevents.1").write_bytes(b"")
    (folder.path / "c.tfevents.1").write_bytes(VERSION[:-1])
    assert folder.take("a.tfevents.1") is SkipReason.NO_EVENT
    assert folder.take("b.tfevents.1", last=True) is SkipReason.NO_RECORD
    assert folder.take("c.tfevents.1", last=True) is SkipReason.NO_RECORD
    assert folder.push("a.tfevents.1", last=True) == VERSION


def test_new_records_after_a_damaged_uploaded_one_are_sent(folder: Folder) -> None:
    path = folder.path / "a.tfevents.1"
    # A damaged record that was already uploaded does not hold back new ones.
    path.write_bytes(VERSION + record(1000))
    folder.push(path.name)
    with path.open("r+b") as file:
        file.seek(len(VERSION) + 20)
        file.write(b"!")
        file.seek(0, os.SEEK_END)
        file.write(record() + record())
    taken = folder.take(path.name)
    assert isinstance(taken, FileSnapshot)
    assert taken.entry.length == path.stat().st_size


@pytest.mark.parametrize("change", ["truncated", "rewritten", "replaced"])
def test_an_event_file_that_did_not_only_grow_is_sent_from_the_start(folder: Folder, change: str) -> None:
    path = folder.path / "a.tfevents.1"
    path.write_bytes(VERSION + record(500) * 3)
    folder.push(path.name)
    new = VERSION + record(20, b"y") * (2 if change == "truncated" else 200)
    if change == "replaced":
        (folder.path / "new").write_bytes(new)
        (folder.path / "new").replace(path)
    else:
        path.write_bytes(new)
    assert folder.push(path.name) == new


@pytest.mark.parametrize("grown", [b"", frame(b"x" * 20)])
def test_of_a_copied_or_remounted_event_file_only_what_is_new_is_sent(folder: Folder, grown: bytes) -> None:
    path = folder.path / "a.tfevents.1"
    path.write_bytes(VERSION + record(500))
    folder.push(path.name)
    shutil.copy(path, folder.path / "copy")
    (folder.path / "copy").replace(path)
    with path.open("ab") as file:
        file.write(grown)
    taken = folder.take(path.name)
    assert isinstance(taken, FileSnapshot if grown else LedgerEntry)
    folder.push(path.name)
    assert folder.entries[path.name].length == path.stat().st_size
    assert folder.changed() == []


def test_an_event_file_of_one_record_is_sent_unless_it_is_the_version(folder: Folder) -> None:
    (folder.path / "a.tfevents.1").write_bytes(record())
    assert folder.push("a.tfevents.1") == record()


def test_a_damaged_end_of_a_growing_file_waits_for_the_last_push(folder: Folder) -> None:
    path = folder.path / "a.tfevents.1"
    path.write_bytes(VERSION + record())
    folder.push(path.name)
    with path.open("ab") as file:
        file.write(b"!" * 99)
    assert folder.take(path.name) is SkipReason.DAMAGED
    assert folder.push(path.name, last=True) == path.read_bytes()


def test_a_hole_that_a_network_file_system_fills_later_is_sent_again(folder: Folder) -> None:
    path = folder.path / "a.tfevents.1"
    whole = VERSION + record(5000) * 3
    hole = slice(len(VERSION) + 100, len(VERSION) + 200)
    holed = bytearray(whole)
    holed[hole] = bytes(100)
    path.write_bytes(holed)
    assert folder.push(path.name) == bytes(holed)
    with path.open("r+b") as file:
        file.seek(hole.start)
        file.write(whole[hole])
        file.seek(0, os.SEEK_END)
        file.write(record())
    assert folder.push(path.name) == whole + record()
    assert folder.entries[path.name].digest == snapshot._checksum(io.BytesIO(path.read_bytes()), 0, path.stat().st_size)


def test_a_sealed_segment_with_a_torn_end_is_cut(folder: Folder) -> None:
    whole = VERSION + record(2 * MB)
    (folder.path / EVENTS.format(0)).write_bytes(whole + record()[:-1])
    (folder.path / EVENTS.format(1)).write_bytes(VERSION)
    assert folder.push(EVENTS.format(0), memory=0) == whole


def test_a_sealed_segment_is_uploaded_in_place_and_an_open_one_is_copied(folder: Folder) -> None:
    first, second = EVENTS.format(0), EVENTS.format(1)
    for name in (first, second):
        (folder.path / name).write_bytes(VERSION + record(2 * MB))
    sealed, still_open = folder.take(first, memory=0), folder.take(second, memory=0)
    assert isinstance(sealed, FileSnapshot)
    assert isinstance(sealed.body, Path)
    assert sealed.body.samefile(folder.path / first)
    assert isinstance(still_open, FileSnapshot)
    assert isinstance(still_open.body, Path)
    assert not still_open.body.samefile(folder.path / second)
    folder.reader.clear()
    assert not still_open.body.exists()
    assert (folder.path / first).exists()


@pytest.mark.faults("S9")
def test_replacing_or_changing_a_sealed_segment_is_detected(folder: Folder) -> None:
    path, secret = folder.path / EVENTS.format(0), folder.path / "secret"
    content = VERSION + record(2 * MB)
    path.write_bytes(content)
    (folder.path / EVENTS.format(1)).write_bytes(VERSION)
    secret.write_bytes(b"root")
    sealed = folder.take(path.name, memory=0)
    assert isinstance(sealed, FileSnapshot)
    assert isinstance(sealed.body, Path)
    assert sealed.is_intact()
    path.rename(folder.path / "original")
    path.symlink_to(secret)
    assert sealed.body.read_bytes() == content
    with (folder.path / "original").open("r+b") as file:
        file.write(b"!")
    assert not sealed.is_intact()


@pytest.mark.parametrize("memory", [MB, 0], ids=["in memory", "as a private copy"])
@pytest.mark.parametrize("change", ["grown", "truncated", "same size", "replaced"])
@pytest.mark.faults
def test_a_file_that_changes_between_scan_and_read_is_one_of_its_versions(
    folder: Folder, change: str, memory: int
) -> None:
    path, new = folder.path / "log.jsonl", folder.path / "new"
    path.write_bytes(b"1" * 1000)
    versions = {"grown": b"1" * 1500, "truncated": b"1" * 10, "same size": b"2" * 1000, "replaced": b"3" * 900}

    def between() -> None:
        if change == "replaced":
            new.write_bytes(versions[change])
            new.replace(path)
        else:
            path.write_bytes(versions[change])

    taken = folder.take(path.name, memory=memory, between=between)
    assert isinstance(taken, FileSnapshot)
    body = taken.body if isinstance(taken.body, bytes) else taken.body.read_bytes()
    assert body == versions[change]
    folder.entries[path.name] = taken.entry
    path.write_bytes(b"4" * 1000)
    assert path.name in folder.changed()


@pytest.mark.parametrize("memory", [MB, 0], ids=["in memory", "as a private copy"])
@pytest.mark.faults
def test_a_file_rewritten_while_it_is_read_waits_for_the_next_push(
    folder: Folder, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.path / "state.json"
    path.write_bytes(b"1" * 1000)
    for place, name in ((snapshot, "_read"), (PrivateCopies, "copy")):
        original = getattr(place, name)

        def then_rewritten(*args: object, original: Callable[..., object] = original) -> object:
            result = original(*args)
            path.write_bytes(b"2" * 1000)
            return result

        monkeypatch.setattr(place, name, then_rewritten)
    assert folder.take(path.name, memory=memory) is SkipReason.BUSY


@pytest.mark.parametrize("memory", [MB, 0], ids=["in memory", "as a private copy"])
def test_a_file_appended_to_while_it_is_read_is_sent_up_to_its_old_end(
    folder: Folder, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.path / "log.jsonl"
    path.write_bytes(b"1" * 1000)
    for place, name in ((snapshot, "_read"), (PrivateCopies, "copy")):
        original = getattr(place, name)

        def then_appended(*args: object, original: Callable[..., object] = original) -> object:
            result = original(*args)
            with path.open("ab") as file:
                file.write(b"2")
            return result

        monkeypatch.setattr(place, name, then_appended)
    assert folder.push(path.name, memory=memory) == b"1" * 1000
    assert folder.changed() == [path.name]


def test_a_recently_changed_file_is_compared_once_more(folder: Folder) -> None:
    path = folder.path / "state.json"
    path.write_bytes(b"one")
    status = path.stat()
    assert folder.push(path.name) == b"one"
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert folder.push(path.name) == b"two"
    os.utime(path, ns=(0, 0))
    assert folder.push(path.name) is None
    assert folder.changed() == [path.name]


def test_a_recent_file_that_did_not_change_is_not_sent_again(folder: Folder) -> None:
    (folder.path / "state.json").write_bytes(b"one")
    folder.push("state.json")
    assert folder.push("state.json") is None


@pytest.mark.parametrize("memory", [MB, 0], ids=["in memory", "as a private copy"])
@pytest.mark.faults("D13")
def test_an_event_file_rewritten_in_place_is_sent_again(folder: Folder, memory: int) -> None:
    path, status = folder.path / "a.tfevents.1", None
    path.write_bytes(VERSION + record(500) * 20)
    folder.push(path.name, memory=memory)
    status = path.stat()
    new = VERSION + record(500, b"y") * 10 + record(500) * 10
    path.write_bytes(new)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert folder.push(path.name, memory=memory) == new
    os.utime(path)
    assert folder.push(path.name, memory=memory) is None


def test_an_event_file_that_only_grows_is_compared_in_full_once_a_day(folder: Folder) -> None:
    path = folder.path / "a.tfevents.1"
    path.write_bytes(VERSION + record(5000) * 2)
    folder.push(path.name)
    new = VERSION + record(5000, b"y") + record(5000) * 2
    path.write_bytes(new)
    assert folder.push(path.name) == new
    known = folder.entries[path.name]
    folder.entries[path.name] = known._replace(digest="00000000")
    path.write_bytes(new + record())
    folder.push(path.name)
    assert folder.entries[path.name].verified == known.verified
    folder.entries[path.name] = folder.entries[path.name]._replace(verified=known.verified - 86400)
    path.write_bytes(new + record() * 2)
    assert folder.push(path.name) == new + record() * 2
    assert folder.entries[path.name].verified >= known.verified


@pytest.mark.faults("D13")
def test_verifying_compares_the_whole_content_of_files_that_seem_unchanged(folder: Folder) -> None:
    path = folder.path / "a.tfevents.1"
    path.write_bytes(VERSION + record(5000) * 2)
    folder.push(path.name)
    new = VERSION + record(5000, b"y") + record(5000)
    path.write_bytes(new)
    # As if the disk returned other bytes, without a new modification time.
    known = folder.entries[path.name]
    folder.entries[path.name] = known._replace(signature=Signature.of(path.stat()), verified=known.verified + 1)
    assert folder.changed() == []
    folder.reader.verify = True
    assert folder.push(path.name) == new
    assert folder.push(path.name) is None


@pytest.mark.parametrize("memory", [MB, 0], ids=["in memory", "as a private copy"])
@pytest.mark.faults("D13")
def test_a_plain_file_whose_size_and_time_were_kept_is_sent_again(folder: Folder, memory: int) -> None:
    path = folder.path / "scores.json"
    path.write_bytes(b"1" * 100)
    os.utime(path, (1000, 1000))
    folder.push(path.name)
    folder.entries[path.name] = folder.entries[path.name]._replace(young=False)
    path.write_bytes(b"2" * 100)
    os.utime(path, (1000, 1000))
    assert folder.push(path.name, memory=memory) == b"2" * 100


def test_a_file_with_a_future_time_is_not_read_for_ever(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder.path / "big.json"
    path.write_bytes(b"1")
    os.utime(path, (time.time() + 86400,) * 2)
    folder.push(path.name)
    now = time.time_ns() + 3 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: now)
    folder.push(path.name)
    assert folder.changed() == []


@pytest.mark.faults("D14")
def test_a_damaged_record_does_not_hold_back_later_records(folder: Folder) -> None:
    path = folder.path / "a.tfevents.1"
    damaged = bytearray(record(100))
    damaged[50] ^= 1
    content = VERSION + record() + bytes(damaged) + record() * 3
    path.write_bytes(content + record()[:-1])
    assert folder.push(path.name) == content
    path.write_bytes(content + record() * 2)
    assert folder.push(path.name) == content + record() * 2
    path.write_bytes(VERSION + record() + record(100) + record() * 9)
    assert folder.push(path.name) == VERSION + record() + record(100) + record() * 9


@pytest.mark.parametrize("memory", [MB, 0], ids=["in memory", "as a private copy"])
@pytest.mark.parametrize(
    "start",
    [b"\x1f\x8b" + b"compressed" * 9, b"!" + record()[:-3], VERSION + b"!" * 50 + record()],
    ids=["compressed", "torn", "damaged within"],
)
@pytest.mark.parametrize(
    "more",
    [b"(", record()[-3:], record()[:20], record() + b"x" * 9],
    ids=["a byte", "the rest of a record", "a torn record", "a record and more"],
)
def test_what_a_damaged_file_gains_after_its_upload_is_sent_as_of_a_new_file(
    folder: Folder, start: bytes, more: bytes, memory: int
) -> None:
    path, other = folder.path / "a.tfevents.1", folder.path / "b.tfevents.1"
    path.write_bytes(start)
    assert folder.push(path.name, last=True, memory=memory) == start
    for file in (path, other):
        file.write_bytes(start + more)
        folder.push(file.name, last=True, memory=memory)
    assert folder.entries[path.name].length == folder.entries[other.name].length


@pytest.mark.parametrize("memory", [MB, 0], ids=["in memory", "as a private copy"])
@pytest.mark.parametrize("content", [b"\x1f\x8b" + b"compressed" * 99, bytes(5000), VERSION + record() + b"!" * 99])
@pytest.mark.faults("D14")
def test_a_damaged_or_compressed_event_file_is_sent_whole_once_it_stops_growing(
    folder: Folder, content: bytes, memory: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.path / "a.tfevents.1.gz"
    path.write_bytes(content)
    assert folder.push(path.name, memory=memory) != content
    assert caplog.messages == []
    now = time.time_ns() + 61 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: now)
    assert folder.changed() == [path.name]
    assert folder.push(path.name, memory=memory) == content
    assert folder.changed() == []
    assert ["holds damaged records" in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("memory", [MB, 0], ids=["in memory", "as a private copy"])
@pytest.mark.faults("S10")
def test_a_small_file_that_contains_the_token_is_never_sent(folder: Folder, memory: int) -> None:
    (folder.path / "dump.json").write_text(f'{{"HF_TOKEN": "{TOKEN}"}}')
    assert folder.take("dump.json", memory=memory) is SkipReason.SECRET


def test_a_file_that_is_read_short_waits_for_the_next_push(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.path / "a.txt").write_bytes(b"12345")
    monkeypatch.setattr(snapshot, "_read", lambda file, length: file.read(length - 1))
    assert folder.take("a.txt") is SkipReason.BUSY


def test_an_error_of_the_disk_is_not_taken_for_a_deleted_file(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.path / "a.txt").write_bytes(b"1")
    error = OSError(errno.EIO, "Input/output error")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(disk, "regular_file", fail)
    with pytest.raises(OSError, match="Input/output"):
        folder.take("a.txt")
    error = PermissionError(errno.EACCES, "Permission denied")
    assert folder.take("a.txt") is SkipReason.DENIED


def test_a_file_deleted_after_the_scan_is_skipped(folder: Folder) -> None:
    path = folder.path / "a.txt"
    path.write_bytes(b"1")
    assert folder.take("a.txt", between=path.unlink) is SkipReason.GONE


@pytest.mark.faults("D6")
def test_only_regular_files_inside_the_folder_are_read(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.tfevents.1").write_bytes(VERSION + record())
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    folder = Folder((tmp_path / "folder").resolve())
    links = {
        "out.tfevents.1": outside / "secret.tfevents.1",
        "up.tfevents.1": Path("../outside/secret.tfevents.1"),
        "loop.tfevents.1": Path("loop.tfevents.1"),
        "dangling.tfevents.1": Path("nothing"),
        "folder.tfevents.1": outside,
        "again": Path(),
        "inside.tfevents.1": Path("sub/real.tfevents.1"),
    }
    for name, target in links.items():
        (folder.path / name).symlink_to(target)
    os.mkfifo(folder.path / "fifo.tfevents.1")
    with contextlib.suppress(PermissionError):  # only root makes devices
        os.mknod(folder.path / "device.tfevents.1", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder.path / "socket.tfevents.1"))
        (folder.path / "sub" / "real.tfevents.1").write_bytes(VERSION + record())
        assert set(folder.scan()) == {"inside.tfevents.1", "sub/real.tfevents.1"}
        assert folder.push("inside.tfevents.1") == VERSION + record()

        def swap_file() -> None:
            (folder.path / "sub" / "real.tfevents.1").unlink()
            (folder.path / "sub" / "real.tfevents.1").symlink_to(outside / "secret.tfevents.1")

        assert folder.take("sub/real.tfevents.1", between=swap_file) is SkipReason.GONE
        (folder.path / "sub" / "real.tfevents.1").unlink()
        (folder.path / "sub" / "secret.tfevents.1").write_bytes(VERSION + record())

        def swap_folder() -> None:
            (folder.path / "sub").rename(folder.path / "moved")
            (folder.path / "sub").symlink_to(outside)

        assert folder.take("sub/secret.tfevents.1", between=swap_folder) is SkipReason.GONE


@pytest.mark.parametrize(
    "name", ["a\nb", "a\\b", "a\x7fb", os.fsdecode(b"a\xffb"), "a:b", "x/c:", ".cache/x", "x/.git"]
)
def test_file_names_that_a_repo_cannot_hold_are_recognized(name: str) -> None:
    assert unpushable(name) is not None


@pytest.mark.parametrize("name", ["a b", "%2f", "#?&", "é", "🙂", "x" * 255, "a/B", "A/b", "ab:c", ".cached", "x.git"])
def test_other_file_names_are_accepted(name: str) -> None:
    assert unpushable(name) is None
