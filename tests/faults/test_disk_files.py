"""Files that vanish, change, cannot be read or have odd names do not hold back others, and are uploaded later."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import logging
import os
import random
import shutil
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
from huggingface_hub import HfApi

import commands
import remote
from faults.mounts import a_disk_of
from faults.rights import an_ordinary_user
from hf_summary_writer import CommitScheduler
from hf_summary_writer.config import PushConfig
from hf_summary_writer.events.tfrecord import frame
from hf_summary_writer.folder import STATE_FOLDER, snapshot
from hf_summary_writer.folder.copies import PrivateCopies
from hf_summary_writer.hub.repo import RepoRemote
from hf_summary_writer.push.batches import BatchLimits
from hf_summary_writer.push.once import Synced, sync
from hf_summary_writer.push.push import Pusher
from hf_summary_writer.push.status import known_folders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faults.conftest import World
    from faults.proxy import FaultProxy
    from hf_summary_writer.errors import CommitDetails
    from hub_process import HubProcess

pytestmark = pytest.mark.faults

MB = 2**20
HOUR = 60.0  # minutes
SECONDS = 30.0
VERSION = frame(b"\x09\0\0\0\0\0\0\xf0\x3f\x1a\x0dbrain.Event:2")


@pytest.mark.faults("D3")
def test_a_recreated_folder_is_pushed_and_its_deletion_is_not(world: World, api: HfApi) -> None:
    (world.folder / "old.txt").write_bytes(b"old")
    (world.folder / "kept.txt").write_bytes(b"1")
    run = world.schedule()
    run.next_commit()
    run.settle()
    shutil.rmtree(world.folder)
    assert run.push() is None
    assert not world.folder.exists()
    world.folder.mkdir()
    (world.folder / "kept.txt").write_bytes(b"2")
    (world.folder / "new.txt").write_bytes(b"new")
    assert run.push() is not None
    run.scheduler.close()
    assert remote.files(api, world.repo_id) == {"old.txt": b"old", "kept.txt": b"2", "new.txt": b"new"}
    assert world.said(logging.WARNING) == []
    assert world.schedule().push() is None


def test_a_folder_deleted_during_a_push_ends_it_without_an_error(
    world: World, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RepoRemote, "max_files", 1)
    for number in range(3):
        (world.folder / f"{number}.txt").write_bytes(b"%d" % number)
        os.utime(world.folder / f"{number}.txt", (number, number))

    def delete(_: CommitDetails) -> None:
        shutil.rmtree(world.folder)

    scheduler = CommitScheduler(
        repo_id=world.repo_id, folder_path=world.folder, every=HOUR, hf_api=world.api, on_commit=delete
    )
    scheduler.trigger().result(SECONDS)
    assert scheduler.trigger().result(SECONDS) is None
    scheduler.close()
    assert remote.files(api, world.repo_id) == {"0.txt": b"0"}


def test_a_folder_deleted_during_its_commit_is_not_recreated(world: World, proxy: FaultProxy) -> None:
    class Deleting(HfApi):
        def create_commit(self, *args: Any, **options: Any) -> Any:
            commit = super().create_commit(*args, **options)
            shutil.rmtree(world.folder)
            return commit

    (world.folder / "a.txt").write_bytes(b"1")
    run = world.schedule(hf_api=Deleting(endpoint=proxy.endpoint, token=proxy.token))
    assert run.next_commit().files == 1
    run.settle()
    run.scheduler.close()
    assert not world.folder.exists()
    assert world.said(logging.WARNING) == []


def test_a_deleted_folder_is_not_recreated_for_the_error_of_its_push(world: World, proxy: FaultProxy) -> None:
    (world.folder / "a.txt").write_bytes(b"1")
    run = world.schedule(hf_api=HfApi(endpoint=proxy.endpoint, token="hf_no one has such a token"))
    run.next_error()
    run.settle()
    shutil.rmtree(world.folder)
    assert "no token" in str(run.fail())
    run.scheduler.close()
    assert not world.folder.exists()


@pytest.mark.faults("D18")
def test_a_folder_whose_stat_fails_is_not_taken_for_deleted(
    world: World, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat_of = os.stat

    def failing(path: Any, **options: Any) -> os.stat_result:
        if path in {world.folder, str(world.folder)}:
            raise OSError(errno.EIO, "Input/output error")
        return stat_of(path, **options)

    (world.folder / "a.txt").write_bytes(b"1")
    scheduler = CommitScheduler(repo_id=world.repo_id, folder_path=world.folder, every=HOUR, hf_api=world.api)
    scheduler.trigger().result(SECONDS)
    (world.folder / "a.txt").write_bytes(b"2")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", failing)
        scheduler.close()
    assert remote.files(api, world.repo_id) == {"a.txt": b"2"}


class Busy:
    """Change three files continuously: replace one, append lines to one, and torn pieces of records to another.

    Args:
        folder: The folder of the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._begun, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._begun.wait(SECONDS)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        seeded = random.Random(1)
        stream = VERSION + b"".join(frame(seeded.randbytes(seeded.randrange(300))) for _ in range(2000))
        pieces = iter(range(0, len(stream), 37))
        with (self.folder / "log.jsonl").open("ab", buffering=0) as log, self.events.open("ab", buffering=0) as events:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                body = seeded.randbytes(seeded.randrange(20_000))
                (self.folder / "new").write_bytes(hashlib.sha256(body).digest() + body)
                (self.folder / "new").replace(self.folder / "state.bin")
                log.write(b'{"step": %d}\n' % number)
                for at in itertools.islice(pieces, 20):
                    events.write(stream[at : at + 37])
                self._begun.set()

    @property
    def events(self) -> Path:
        return self.folder / "a.tfevents.1"


@pytest.mark.faults("D4")
def test_every_commit_holds_a_consistent_version_of_files_that_always_change(world: World, api: HfApi) -> None:
    busy = Busy(world.folder)
    run = world.schedule(ignore_patterns="new")
    with busy:
        infos = [run.push() for _ in range(5)]
    run.scheduler.close()
    published = [remote.files(api, world.repo_id, revision=info.oid) for info in infos if info is not None]
    assert len(published) > 1
    log, events = (world.folder / "log.jsonl").read_bytes(), busy.events.read_bytes()
    for files in published:
        state = files.get("state.bin")
        assert state is None or hashlib.sha256(state[32:]).digest() == state[:32]
        assert log.startswith(files.get("log.jsonl", b""))
        seen = files.get("a.tfevents.1", b"")
        assert events.startswith(seen)
        assert not seen or frame_ends(seen)
    last = remote.files(api, world.repo_id)
    whole = last.pop("a.tfevents.1")
    assert last == {"state.bin": (world.folder / "state.bin").read_bytes(), "log.jsonl": log}
    assert events.startswith(whole)
    assert frame_ends(whole)


@pytest.mark.faults("D4")
def test_a_file_that_changes_during_the_last_push_is_reported_as_missing(
    world: World, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = snapshot._read

    def then_rewritten(file: BinaryIO, size: int) -> bytes:
        body = original(file, size)
        (world.folder / "state.json").write_bytes(os.urandom(1000))
        return body

    (world.folder / "a.bin").write_bytes(b"1")
    (world.folder / "state.json").write_bytes(os.urandom(1000))
    monkeypatch.setattr(snapshot, "_read", then_rewritten)
    run = world.schedule()
    run.settle()
    run.scheduler.close()
    assert set(remote.files(api, world.repo_id)) == {"a.bin"}
    assert not run.scheduler.status().all_arrived
    assert [line for line in world.said(logging.INFO) if line.startswith("All")] == []
    [warning] = world.said(logging.WARNING)
    assert warning == world.said(logging.INFO)[-1]
    assert "1 file" in warning


def test_files_written_after_the_last_push_are_not_reported_as_missing(world: World) -> None:
    def go_on(commit: CommitDetails) -> None:
        (world.folder / f"{commit.oid}.bin").write_bytes(b"1")

    (world.folder / "a.bin").write_bytes(b"1")
    CommitScheduler(
        repo_id=world.repo_id, folder_path=world.folder, every=HOUR, hf_api=world.api, on_commit=go_on
    ).close()
    assert world.said(logging.INFO)[-1].startswith("All that the last push found of")
    assert world.said(logging.WARNING) == []


def frame_ends(content: bytes) -> bool:
    """Tell whether `content` ends at the end of a record, from the lengths of the records."""
    at = 0
    while at < len(content):
        at += 16 + int.from_bytes(content[at : at + 8], "little")
    return at == len(content)


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    with an_ordinary_user():
        yield


@pytest.mark.faults("D5")
@pytest.mark.usefixtures("ordinary_user")
def test_unreadable_files_wait_and_the_others_are_pushed(world: World, api: HfApi) -> None:
    (world.folder / "closed").mkdir()
    for name in ("readable.txt", "secret.txt", "closed/inside.txt"):
        (world.folder / name).write_bytes(name.encode())
    (world.folder / "secret.txt").chmod(0)
    (world.folder / "closed").chmod(0)
    run = world.schedule()
    run.next_commit()
    run.settle()
    assert run.push() is None
    assert remote.files(api, world.repo_id) == {"readable.txt": b"readable.txt"}
    warnings = world.said(logging.WARNING)
    assert [sum(name in line for line in warnings) for name in ("'secret.txt'", "'closed'")] == [1, 1]
    assert len(warnings) == 2
    (world.folder / "secret.txt").unlink()
    status = run.scheduler.status()
    assert (status.pending.files, status.pending.unlisted, status.all_arrived) == (0, 1, False)
    (world.folder / "secret.txt").write_bytes(b"secret.txt")
    (world.folder / "secret.txt").chmod(0o600)
    (world.folder / "closed").chmod(0o700)
    assert run.push() is not None
    assert set(remote.files(api, world.repo_id)) == {"readable.txt", "secret.txt", "closed/inside.txt"}


@pytest.mark.usefixtures("ordinary_user")
def test_an_unreadable_folder_hides_no_other(world: World) -> None:
    (world.folder / "file.txt").write_bytes(b"file")
    world.schedule().next_commit()
    (world.folder.parent / "closed").mkdir(mode=0)
    warnings: list[str] = []
    found = known_folders(world.folder.parent, lambda _, warning: warnings.append(warning))
    assert [known for known, _ in found] == [world.folder]
    assert len(warnings) == 1


@pytest.mark.usefixtures("ordinary_user")
def test_commands_report_a_folder_that_cannot_be_listed(hub: HubProcess, repo_id: str, folder: Path) -> None:
    (folder / "closed").mkdir(parents=True)
    (folder / "file.txt").write_bytes(b"file")
    commands.invoke(hub, "sync", folder, repo_id, "--allow", "*", home=folder.parent)
    (folder / "closed").chmod(0)
    listed = commands.invoke(hub, "sync", folder, "--dry-run", "--exit-code", home=folder.parent)
    shown = commands.invoke(hub, "status", folder, "--exit-code", home=folder.parent)
    assert (listed.returncode, shown.returncode) == (1, 1)
    assert "1 folder in it cannot be listed" in shown.stdout
    assert "nothing" not in shown.stdout


@pytest.mark.usefixtures("ordinary_user")
@pytest.mark.parametrize("closed", ["b", f"b/{STATE_FOLDER}"])
def test_commands_report_a_run_that_cannot_be_read(hub: HubProcess, repo_id: str, tmp_path: Path, closed: str) -> None:
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "file.txt").write_bytes(b"1")
        commands.invoke(hub, "sync", tmp_path / "runs" / name, repo_id, "--allow", "*", home=tmp_path)
    (tmp_path / "runs" / closed).chmod(0)
    for other in ("present", "deleted"):
        for words in (("sync",), ("sync", "--dry-run", "--exit-code"), ("status", "--exit-code")):
            done = commands.invoke(hub, *words, tmp_path / "runs", home=tmp_path)
            assert (other, words, done.returncode) == (other, words, 1)
            assert f"'{tmp_path}/runs/b' is left out: " in done.stderr
            assert "Permission denied" in done.stderr
        shutil.rmtree(tmp_path / "runs" / "a", ignore_errors=True)


def test_no_command_takes_a_copied_run_for_uploaded(hub: HubProcess, repo_id: str, folder: Path) -> None:
    runs, home = folder / "runs", folder.parent
    (runs / "a").mkdir(parents=True)
    (runs / "a" / "file.txt").write_bytes(b"1")
    commands.invoke(hub, "sync", runs / "a", repo_id, "--allow", "*", home=home)
    shutil.copytree(runs / "a", runs / "b")
    for words in (("sync",), ("sync", "--dry-run", "--exit-code"), ("status", "--exit-code")):
        done = commands.invoke(hub, *words, runs, home=home)
        assert (words, done.returncode) == (words, 1)
        assert "of which it seems to be a copy" in done.stderr


@pytest.mark.usefixtures("ordinary_user")
def test_sync_reports_an_unreadable_folder(api: HfApi, repo_id: str, folder: Path) -> None:
    (folder / "file.txt").write_bytes(b"file")
    (folder / "closed").mkdir(mode=0)
    config = PushConfig(repo_id=repo_id, endpoint=api.endpoint, allow_patterns=None)
    synced = sync(folder, config, api)
    assert str(synced.error) == "1 folder in it cannot be listed"
    assert remote.files(api, repo_id) == {"file.txt": b"file"}


def test_outgoing_links_and_special_files_hold_back_no_file(world: World, api: HfApi) -> None:
    (world.folder.parent / "secret.txt").write_bytes(b"secret")
    (world.folder / "sub").mkdir()
    (world.folder / "sub" / "fine.tfevents.1").write_bytes(VERSION + frame(b"x"))
    for name, target in {"out": "../secret.txt", "loop": "x.tfevents.loop", "dangling": "nothing", "up": ".."}.items():
        (world.folder / f"x.tfevents.{name}").symlink_to(target)
    os.mkfifo(world.folder / "x.tfevents.fifo")
    with contextlib.suppress(PermissionError):  # only root makes devices
        os.mknod(world.folder / "x.tfevents.device", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(world.folder / "x.tfevents.socket"))
        run = world.schedule()
        run.next_commit()
        run.scheduler.close()
    assert remote.files(api, world.repo_id) == {"sub/fine.tfevents.1": VERSION + frame(b"x")}
    links = sorted(line.split("'")[1] for line in world.said(logging.WARNING) if "is a link out of the folder" in line)
    assert links == ["x.tfevents.out", "x.tfevents.up"]
    assert len(world.said(logging.WARNING)) == 2


def test_a_tree_of_linked_runs_is_not_reported_as_complete(api: HfApi, repo_id: str, folder: Path) -> None:
    (folder.parent / "other").mkdir()
    (folder / "best").symlink_to("../other")
    (folder / "fine.tfevents.1").write_bytes(VERSION + frame(b"x"))
    config = PushConfig(repo_id=repo_id, endpoint=api.endpoint)
    synced = sync(folder, config, api)
    assert synced.missing == 0
    assert "links out of it are not followed: 'best'" in str(synced.error)
    assert remote.files(api, repo_id) == {"fine.tfevents.1": VERSION + frame(b"x")}
    ignoring = dataclasses.replace(config, ignore_patterns=("best/",))
    assert sync(folder, ignoring, api) == Synced(0, None, repo_id)


def test_a_link_that_cannot_be_resolved_holds_back_no_file(api: HfApi, repo_id: str, folder: Path) -> None:
    (folder.parent / "round").symlink_to("round")
    (folder / "latest").symlink_to("../round")
    (folder / "fine.tfevents.1").write_bytes(VERSION + frame(b"x"))
    config = PushConfig(repo_id=repo_id, endpoint=api.endpoint, allow_patterns=("*.tfevents.*",))
    assert sync(folder, config, api) == Synced(0, None, repo_id)
    assert remote.files(api, repo_id) == {"fine.tfevents.1": VERSION + frame(b"x")}


def test_files_that_are_created_and_deleted_all_the_time_hold_back_no_other(world: World, api: HfApi) -> None:
    stop = threading.Event()

    def come_and_go() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            path = world.folder / f"passing-{number % 7}.txt"
            path.write_bytes(b"x" * 1000)
            (world.folder / f"passing-{(number + 3) % 7}.txt").unlink(missing_ok=True)

    thread = threading.Thread(target=come_and_go)
    run = world.schedule()
    thread.start()
    try:
        for number in range(10):
            (world.folder / f"stays-{number}.txt").write_bytes(b"%d" * 100)
            run.push()
    finally:
        stop.set()
        thread.join()
    run.scheduler.close()
    held = remote.files(api, world.repo_id)
    assert {path: held.get(path) for path in world.on_disk()} == world.on_disk()
    assert world.said(logging.WARNING) == []


FINE = [
    "a b",
    "%2f",
    "a%00",
    "#?&=+",
    "é",
    "e\u0301",
    "🙂",
    "A.txt",
    "a.txt",
    "x" * 255,
    "é" * 127,
    "-",
    "~",
    ".cached",
    "ab:c",
]
ODD = [b"a\nb", b"a\\b", b"a\x7fb", b"a\x1b[31mb", b"a\xffb", b"a:b"]


@pytest.mark.faults("D8")
def test_odd_names_are_uploaded_or_warned_about_once_in_escaped_form(world: World, api: HfApi) -> None:
    (world.folder / "a b").mkdir()
    (world.folder / ".cache").mkdir()
    local = {name: name.encode() for name in FINE if name != "a b"} | {"a b/#": b"1"}
    for name, content in local.items():
        (world.folder / name).write_bytes(content)
    for raw in ODD:
        (world.folder / os.fsdecode(raw)).write_bytes(b"1")
    (world.folder / ".cache" / "theirs.txt").write_bytes(b"1")
    run = world.schedule()
    run.next_commit()
    run.settle()
    assert run.push() is None
    assert remote.files(api, world.repo_id) == local
    warnings = world.said(logging.WARNING)
    assert len(warnings) == len(ODD) + 1
    assert all(line.isascii() and line.isprintable() for line in warnings)
    for raw in ODD:
        assert [ascii(os.fsdecode(raw)) in line for line in warnings].count(True) == 1


def test_only_the_first_of_many_odd_names_are_warned_about(world: World, api: HfApi) -> None:
    for number in range(100):
        (world.folder / f"a\n{number}").write_bytes(b"1")
    (world.folder / "a").write_bytes(b"1")
    run = world.schedule()
    run.next_commit()
    assert remote.files(api, world.repo_id) == {"a": b"1"}
    assert len(world.said(logging.WARNING)) == 11
    assert world.said(logging.WARNING)[-1].endswith("more like it are not named")


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_that_cannot_be_copied_fails_the_push_and_holds_back_no_other(
    world: World, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pusher, "limits", BatchLimits(bytes_in_memory=10))
    run = world.schedule()
    run.settle()
    (world.folder / "small.txt").write_bytes(b"1")
    (world.folder / "large.txt").write_bytes(b"1" * 100)
    with monkeypatch.context() as full:
        full.setattr(PrivateCopies, "copy", no_space)
        error = run.fail()
    assert "'large.txt' could not be read or copied" in str(error)
    assert remote.files(api, world.repo_id) == {"small.txt": b"1"}
    run.push()  # the scheduler's own retry may have been earlier
    assert remote.files(api, world.repo_id) == {"small.txt": b"1", "large.txt": b"1" * 100}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with a_disk_of("64m", tmp_path / "disk") as folder:
        yield folder


@pytest.mark.faults("D11")
def test_a_push_leaves_disk_space_to_the_training(
    world: World, api: HfApi, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pusher, "limits", BatchLimits(bytes_in_memory=10))
    (disk / "ballast").write_bytes(bytes(40 * MB))
    folder, content = disk / "run", os.urandom(13 * MB)
    folder.mkdir()
    run = world.schedule(folder_path=folder)
    run.settle()
    over, free = threading.Event(), [10 * MB]

    def watch() -> None:
        while not over.wait(0.0001):
            free.append(shutil.disk_usage(disk).free)

    (folder / "large.bin").write_bytes(content)  # 11 MB are free beside it
    (folder / "small.txt").write_bytes(b"1")
    with ThreadPoolExecutor() as pool:
        watching = pool.submit(watch)
        error = run.fail()
        over.set()
        watching.result(SECONDS)
    assert min(free) > 9 * MB
    assert "'large.bin' could not be read or copied" in str(error)
    assert "13.6 MB" in str(error)
    assert remote.files(api, world.repo_id) == {"small.txt": b"1"}
    (disk / "ballast").unlink()
    run.push()  # the scheduler's own retry may have been earlier
    assert remote.files(api, world.repo_id) == {"small.txt": b"1", "large.bin": content}


def test_without_free_descriptors_a_push_fails_instead_of_finding_no_files(world: World, api: HfApi) -> None:
    run = world.schedule()
    run.settle()
    (world.folder / "a.txt").write_bytes(b"1")
    taken: list[int] = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        error = run.fail()
    finally:
        for descriptor in taken:
            os.close(descriptor)
    assert "Too many open files" in str(error)
    run.push()  # the scheduler's own retry may have been earlier
    assert remote.files(api, world.repo_id) == {"a.txt": b"1"}
