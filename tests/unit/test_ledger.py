"""The ledger survives restarts, crashes and damage."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_summary_writer.config import Destination, PushConfig
from hf_summary_writer.folder.disk import STATE_FOLDER, StateFolder
from hf_summary_writer.folder.ledger import CommitRecord, Ledger, LedgerEntry, LedgerError, Signature, ledgers_of
from hf_summary_writer.hub.remote import RemoteFile
from hf_summary_writer.push.push import is_at

if TYPE_CHECKING:
    from pathlib import Path

DESTINATION = Destination("https://hub", "model", "run", "main", "tensorboard")
COMMIT = CommitRecord("abc", "https://hub/commit/abc", 1.5)


def entry(size: int = 10, length: int | None = None) -> LedgerEntry:
    return LedgerEntry(Signature(1, 2, size, 4), size if length is None else length, tail="t")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".cache" / "ledger.jsonl"


def reread(path: Path) -> Ledger:
    ledger = Ledger(path, DESTINATION)
    ledger.refresh()
    return ledger


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("mtime_ns", "written"), [(2 * 10**9, 2.0), (2**89, 253_402_300_799), (-(2**89), 0.0)])
def test_a_file_time_outside_the_calendar_is_clamped(mtime_ns: int, written: float) -> None:
    assert Signature(1, 2, 3, mtime_ns).written == written


def test_records_are_read_back_after_a_restart(path: Path) -> None:
    ledger = Ledger(path, DESTINATION)
    ledger.refresh()
    ledger.record_repo("user/run")
    ledger.record({"a": entry(), "b/ü": entry(5)}, COMMIT)
    ledger.record({"a": entry(20)})
    again = reread(path)
    assert again.entries == {"a": entry(20), "b/ü": entry(5)}
    assert again.repo_id == "user/run"
    assert again.commit == COMMIT


def test_a_renamed_repo_keeps_its_records_for_later_processes(path: Path) -> None:
    ledger = Ledger(path, DESTINATION)
    ledger.record({"a": entry()}, COMMIT)
    ledger.record_repo("user/renamed")
    assert ledger.repo_id == "user/renamed"
    again = reread(path)
    assert (again.entries, again.repo_id) == ({"a": entry()}, None)


def test_the_oldest_upload_comes_first_after_a_restart_too(path: Path) -> None:
    ledger = Ledger(path, DESTINATION)
    ledger.record({"a": entry(), "b": entry(), "c": entry()})
    ledger.record({"a": entry(20)})
    ledger.record({"b": entry(20)})
    assert list(ledger.entries) == list(reread(path).entries) == ["c", "a", "b"]


def test_a_record_is_synced_before_its_rename_and_the_folder_after_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def noted_replace(*args: Any, **kwargs: Any) -> None:
        steps.append("rename")
        replace(*args, **kwargs)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    ledger = Ledger(path, DESTINATION)
    ledger.record({"a": entry()})
    assert steps == ["file", "rename", "folder"]
    steps.clear()
    ledger.record({"b": entry()})
    assert steps == ["file"]


def test_only_this_user_can_read_the_ledger(path: Path) -> None:
    Ledger(path, DESTINATION).record({"a": entry()})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_push_appends_records_for_its_own_files_only(path: Path) -> None:
    ledger = Ledger(path, DESTINATION)
    ledger.record({f"file-{number}": entry() for number in range(5000)})
    before = path.stat().st_size
    ledger.record({"file-7": entry(11)}, COMMIT)
    assert path.stat().st_size - before < 400


def test_outdated_lines_are_dropped_eventually(path: Path) -> None:
    ledger = Ledger(path, DESTINATION)
    for size in range(3000):
        ledger.record({"a": entry(size)})
    assert len(path.read_bytes().splitlines()) < 1100
    assert reread(path).entries == {"a": entry(2999)}


@settings(deadline=None)  # it waits for the disk
@given(cut=st.integers(1, 50))
def test_a_last_line_torn_by_a_crash_is_ignored_and_overwritten(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "ledger.jsonl"
    ledger = Ledger(path, DESTINATION)
    ledger.record({"a": entry()})
    ledger.record({"b": entry()})
    path.write_bytes(path.read_bytes()[:-cut])
    torn = reread(path)
    assert torn.entries == {"a": entry()}
    torn.record({"c": entry()})
    assert reread(path).entries == {"a": entry(), "c": entry()}


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


HEAD = line(version=1, destination=asdict(DESTINATION), folder={"path": "/run", "inode": 1})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\0" * 4096,
        b"not json\n",
        HEAD + b"[]\n",
        HEAD + b"null\n",
        line(version=2, destination={}),
        line(version=1, destination={"endpoint": "elsewhere"}),
        line(version=1, destination=asdict(DESTINATION), folder=None),
        HEAD + line(file=3, signature=[1, 2, 3, 4], length=3),
        HEAD + line(file="a", signature=[1, 2, 3], length=3),
        HEAD + line(file="a", signature=[1, 2, 3, "4"], length=3),
        HEAD + line(file="a", signature=[1, 2, 3, 4], length=30),
        HEAD + line(file="/etc/passwd", signature=[1, 2, 3, 4], length=3),
        HEAD + line(file="../../etc/passwd", signature=[1, 2, 3, 4], length=3),
        HEAD + line(commit={"oid": 3}),
        HEAD + line(commit={"oid": "1", "url": "", "time": 10**400}),
        HEAD + line(commit={"oid": "1", "url": "", "time": 10**15}),
        HEAD + line(commit={"oid": "1", "url": "", "time": -1}),
        HEAD + line(commit={"oid": "1", "url": "", "time": float("nan")}),
        HEAD + line(commit={"oid": "1", "url": "\x1b]0;title\x07", "time": 1}),
        HEAD + line(file="a", signature=[1, 2, 3, 4, 10**30], length=3),
        HEAD + line(file="a", signature=[1, 2, 3, 4, 5], length=3, verified=True),
        HEAD + line(file="a", signature=[1, 2, 3, 4, 5], length=3, young="yes"),
        HEAD + line(file="a", signature=[1, 2, 3, 4, 5], length=3, digest="0123abcg"),
        HEAD + line(file="a", signature=[1, 2, 3, 4], length=3) + b"[]\n",
        HEAD + line(settings={"allow": ["\x1b]0;title\x07"]}),
        HEAD + line(repo="somebody/elses"),
        HEAD + line(repo="../run"),
        HEAD + b"[" * 100_000 + b"\n",
        b"7" * 10_000 + b"\n",
    ],
)
def test_a_ledger_that_cannot_be_trusted_is_set_aside(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    ledger = Ledger(path, DESTINATION)
    with pytest.raises(LedgerError, match="set aside"):
        ledger.refresh()
    assert ledger.entries == {}
    assert not path.exists()
    ledger.record({"a": entry()})
    assert reread(path).entries == {"a": entry()}


def test_a_ledger_of_a_later_version_is_named_and_stays_where_folders_are_only_looked_at(tmp_path: Path) -> None:
    path = tmp_path / STATE_FOLDER / "later.jsonl"
    path.parent.mkdir(parents=True)
    content = line(version=2, destination=asdict(DESTINATION), folder={"path": "/run", "inode": 1})
    path.write_bytes(content)
    said: list[str] = []
    assert list(ledgers_of(tmp_path, lambda _, line: said.append(line))) == []
    assert "its version is 2 and this library knows 1" in said[0]
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", ["folder", "fifo", "link"])
def test_a_folder_pipe_or_link_in_place_of_the_ledger_is_set_aside_unopened(path: Path, kind: str) -> None:
    path.parent.mkdir()
    elsewhere = path.with_name("elsewhere")
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case _:
            elsewhere.write_bytes(HEAD + line(file="b", signature=[1, 2, 3, 4], length=3))
            path.symlink_to(elsewhere)
    ledger = Ledger(path, DESTINATION)
    with pytest.raises(LedgerError, match="set aside"):
        ledger.refresh()
    ledger.record({"a": entry()})
    assert reread(path).entries == {"a": entry()}


def test_records_of_another_process_are_seen(path: Path) -> None:
    mine, theirs = Ledger(path, DESTINATION), Ledger(path, DESTINATION)
    mine.record({"a": entry()})
    theirs.refresh()
    theirs.record({"b": entry()})
    mine.refresh()
    assert set(mine.entries) == {"a", "b"}
    mine.record({"c": entry()})
    assert set(reread(path).entries) == {"a", "b", "c"}


def test_a_ledger_that_cannot_be_read_for_a_moment_is_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(path, DESTINATION)
    ledger.record({"a": entry()})
    with monkeypatch.context() as failing:
        failing.setattr(StateFolder, "open", no_space)
        with pytest.raises(OSError, match="No space"):
            ledger.refresh()
    assert set(ledger.entries) == set(reread(path).entries) == {"a"}


@pytest.mark.parametrize(
    ("remote", "is_there"),
    [
        (RemoteFile(10, sha256="s", git_oid="pointer"), True),
        (RemoteFile(10, sha256="t", git_oid="pointer"), False),
        (RemoteFile(10, git_oid="g"), True),
        (RemoteFile(10, git_oid="h"), False),
        (RemoteFile(10, xet_hash="x"), True),
        (RemoteFile(10, xet_hash="y"), False),
        (RemoteFile(10), True),
        (RemoteFile(9, sha256="s"), False),
        (None, False),
    ],
)
def test_an_entry_is_compared_by_size_and_all_hashes_that_both_sides_know(
    remote: RemoteFile | None, is_there: bool
) -> None:
    assert is_at(entry()._replace(sha256="s", git_oid="g", xet_hash="x"), remote) is is_there


def test_records_are_kept_in_memory_if_the_disk_fails(path: Path) -> None:
    path.parent.write_text("a file where the folder should be")
    ledger = Ledger(path, DESTINATION)
    with pytest.raises(OSError, match="a link, or no folder"):
        ledger.record({"a": entry()}, COMMIT)
    assert ledger.entries == {"a": entry()}


def test_a_record_that_failed_is_written_with_the_next_one(path: Path) -> None:
    ledger = Ledger(path, DESTINATION)
    ledger.record({"a": entry()})
    kept = path.parent.rename(path.parent.with_name("kept"))
    path.parent.write_text("in the way")
    with pytest.raises(OSError, match="a link, or no folder"):
        ledger.record({"b": entry()})
    path.parent.unlink()
    kept.rename(path.parent)
    ledger.record({"c": entry()})
    assert set(reread(path).entries) == {"a", "b", "c"}


def test_a_failed_append_leaves_the_file_unchanged_and_the_record_in_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, other = Ledger(path, DESTINATION), Ledger(path, DESTINATION)
    ledger.record({"a": entry()})
    before = path.read_bytes()
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space"):
            ledger.record({"b": entry()})
    assert path.read_bytes() == before
    assert not ledger.refresh()
    assert set(ledger.entries) == {"a", "b"}
    ledger.record({"c": entry()})
    assert set(reread(path).entries) == {"a", "b", "c"}
    # Records of another process are still seen.
    other.refresh()
    other.record({"d": entry()})
    ledger.refresh()
    assert set(ledger.entries) == {"a", "b", "c", "d"}


def test_a_start_over_that_failed_is_written_with_the_next_record(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(path, DESTINATION)
    ledger.record({"a": entry(), "b": entry()})
    with monkeypatch.context() as full:
        full.setattr(Ledger, "_rewrite", no_space)
        with pytest.raises(OSError, match="No space"):
            ledger.retract([*ledger.entries])
    ledger.refresh()
    assert ledger.entries == {}
    ledger.record({"a": entry(20)})
    assert reread(path).entries == {"a": entry(20)}


def test_changed_settings_are_recorded_and_unchanged_ones_are_not(path: Path) -> None:
    ledger = Ledger(path, DESTINATION)
    public, private = (PushConfig.from_ledger(DESTINATION, {"private": private}) for private in (False, True))
    ledger.record_config(public)
    ledger.record_config(private)
    assert reread(path).config == private
    before = path.read_bytes()
    reread(path).record_config(private)
    assert path.read_bytes() == before


def test_a_retracted_record_is_gone_for_later_processes_at_once(path: Path) -> None:
    ledger = Ledger(path, DESTINATION)
    ledger.record({"a": entry(), "b": entry()})
    ledger.retract(["a", "c"])
    assert set(reread(path).entries) == {"b"}


def test_only_ledgers_with_a_valid_destination_are_found(tmp_path: Path) -> None:
    state = tmp_path / STATE_FOLDER
    Ledger(state / "good.jsonl", DESTINATION).record({"a": entry()})
    broken: list[dict[str, object]] = [{"path": "../x"}, {"repo_id": "a--b"}, {"endpoint": 3}, {"repo_type": "bin"}]
    for number, wrong in enumerate(broken):
        head = line(version=1, destination={**asdict(DESTINATION), **wrong}, folder={"path": str(tmp_path), "inode": 1})
        (state / f"{number}.jsonl").write_bytes(head)
    (state / "deep.jsonl").write_bytes(b"[" * 60_000)
    assert [ledger.path.name for ledger in ledgers_of(tmp_path)] == ["good.jsonl"]


def test_a_deleted_ledger_is_written_again_in_full(path: Path) -> None:
    ledger = Ledger(path, DESTINATION)
    ledger.record({"a": entry()})
    path.unlink()
    ledger.refresh()
    ledger.record({"b": entry()})
    assert set(reread(path).entries) == {"a", "b"}


def test_a_ledger_that_names_no_folder_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / STATE_FOLDER / f"{DESTINATION.key}.jsonl"
    Ledger(path, DESTINATION).record({"a": entry()})
    head, *rest = path.read_bytes().splitlines(keepends=True)
    without = {name: value for name, value in json.loads(head).items() if name != "folder"}
    path.write_bytes(b"".join([line(**without), *rest]))
    assert list(ledgers_of(tmp_path)) == []
    with pytest.raises(LedgerError, match="set aside"):
        Ledger(path, DESTINATION).refresh()
    assert not path.exists()


def test_the_ledger_of_a_copied_folder_is_reported_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    original, copy, moved = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    original.mkdir()
    path = original / STATE_FOLDER / f"{DESTINATION.key}.jsonl"
    Ledger(path, DESTINATION).record({"x": entry()})
    shutil.copytree(original, copy)
    assert list(ledgers_of(copy)) == []
    assert f"{str(copy)!r} holds the upload state of {str(original)!r}" in caplog.text
    assert f"hf-summary-writer sync {copy} run --into tensorboard" in caplog.text
    original.rename(moved)
    assert [set(ledger.entries) for ledger in ledgers_of(moved)] == [{"x"}]
    # The command in the warning names the destination, which makes the ledger the copy's own.
    followed = Ledger(copy / STATE_FOLDER / path.name, DESTINATION)
    followed.refresh()
    followed.record_config(PushConfig.from_ledger(DESTINATION, {}))
    assert [set(ledger.entries) for ledger in ledgers_of(copy)] == [{"x"}]


@pytest.mark.faults("S12")
def test_the_ledger_of_another_user_is_ignored_and_not_replaced(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root may give a file away")
    ledger = Ledger(path, DESTINATION)
    ledger.record({"a": entry()})
    os.chown(path, 12345, -1)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="another user"):
        ledger.refresh()
    with pytest.raises(PermissionError):
        ledger.record({"b": entry()})
    assert path.read_bytes() == before
    assert set(ledger.entries) == {"b"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["file", "signature", "length", "tail", "digest", "sha256", "git_oid", "young", "verified"]
FIELDS += [
    "commit",
    "oid",
    "url",
    "time",
    "repo",
    "new",
    "settings",
    "version",
    "destination",
    "folder",
    "path",
    "inode",
]
LINES = st.dictionaries(st.sampled_from(FIELDS), JSON | st.dictionaries(st.sampled_from(FIELDS), JSON), max_size=6)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(head=st.none() | LINES, lines=st.lists(LINES, max_size=3))
def test_any_ledger_content_is_read_or_set_aside(
    tmp_path_factory: pytest.TempPathFactory, head: dict[str, object] | None, lines: list[dict[str, object]]
) -> None:
    path = tmp_path_factory.mktemp("odd") / STATE_FOLDER / "ledger.jsonl"
    path.parent.mkdir(parents=True)
    first = HEAD if head is None else json.dumps(head).encode() + b"\n"
    path.write_bytes(first + b"".join(json.dumps(each).encode() + b"\n" for each in lines))
    ledger = Ledger(path, DESTINATION)
    try:
        ledger.refresh()
    except LedgerError:
        assert not path.exists()
    ledger.record({"a": entry()}, COMMIT)
    assert "a" in reread(path).entries
    assert len(list(ledgers_of(path.parents[3]))) == 1
