"""Three invariants hold for any changes of a folder between pushes and any interruption of a push.

A file on the Hub is a prefix of some local version of the file; the ledger never records more than the Hub holds; and
once the faults stop, both are equal. The machine runs over two kinds of stores: a real Hub through the real client, and
a dictionary, which is fast enough for many more examples. Writer, folder, snapshot, ledger, lock, push and forked
processes are real in both.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import io
import itertools
import os
import shutil
import signal
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import events
from aftermath import assert_sound
from faults.stores import FAILURES, BucketDictionary, Dictionary, RealBucket, RealHub
from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.errors import TemporaryError
from hf_summary_writer.events.encoding import file_version
from hf_summary_writer.events.files import parse_name
from hf_summary_writer.events.tfrecord import boundaries, frame, is_torn, next_record
from hf_summary_writer.events.writer import EventWriter
from hf_summary_writer.folder.ledger import Ledger
from hf_summary_writer.hub.repo import RepoRemote
from hf_summary_writer.push import RunState, is_state_file
from hub.test_bucket import needs_a_client_for_buckets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from huggingface_hub import HfApi

    from faults.proxy import FaultProxy
    from faults.stores import Store

HOUR = 60.0  # minutes
SECONDS = 30.0
EVENT_FILES = [f"events.out.tfevents.{number}" for number in range(3)]
PLAIN_FILES = ["metrics.jsonl", "sub/notes.txt"]
NAMES = st.sampled_from(EVENT_FILES + PLAIN_FILES)
SIZES = st.integers(min_value=0, max_value=300)
CRASHES = ["before the commit", "after the commit", "before the ledger", "in the ledger", "after the ledger"]


class Crash(BaseException):
    """The simulated death of the process."""


def whole(content: bytes) -> bytes:
    return content[: [0, *boundaries(io.BytesIO(content))][-1]]


def uploadable(content: bytes) -> bytes:
    """Return the part of an event file that a last push uploads: all but a torn record at the end.

    Damage that is followed by whole records, or that is not a record still being written, is uploaded unchanged.
    """
    file, start = io.BytesIO(content), 0
    while True:
        *_, end = start, *boundaries(file, start)
        if is_torn(file, end, len(content)):
            return content[:end]
        following = next_record(file, end + 1, len(content))
        if following is None:
            return content
        start = following


class FolderAndHub(RuleBasedStateMachine):
    """Rules are actions of users, disks, networks and processes; invariants are the library's promises."""

    def __init__(self, make_store: Callable[[], Store]) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="state-machine-")).resolve()
        self.folder = self.root / "run"
        self.history: dict[str, list[bytes]] = {}
        self.clock = itertools.count(1_700_000_000)
        self.logged = 0
        self.store = make_store()
        self.writer: HFSummaryWriter | None = None

    @initialize()
    def begin(self) -> None:
        (self.folder / "sub").mkdir(parents=True)
        self.store.__enter__()
        self.restart()

    def teardown(self) -> None:
        try:
            if self.writer is not None:
                self.restart()
                self.log(1)  # a run without an event is not uploaded
                self.writer.close()
                self.assert_all_uploaded()
                assert_sound(self.folder)
        finally:
            self.die()
            self.store.__exit__()
            shutil.rmtree(self.root)

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.write_bytes(content)
        # Every change gets a different time, as on a file system with a fine clock.
        moment = next(self.clock) * 10**9
        os.utime(path, ns=(moment, moment))
        self.history.setdefault(name, []).append(content)

    def read(self, name: str) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / name).read_bytes()
        return b""

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the files in the folder: those of the rules and the writers' event files."""
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and not name.startswith(".cache/"):
                yield name, path.read_bytes()

    def versions(self, name: str) -> list[bytes]:
        """Return all versions of a file; the writers' own files only grow."""
        return self.history.get(name) or [self.read(name)]

    def die(self) -> None:
        """End the writer without a push; its events are on the disk."""
        writer, self.writer = self.writer, None
        if writer is not None:
            writer.scheduler.stop()
            EventWriter.close(writer)

    def outcome(self) -> BaseException | None:
        """Push, and return the error if it failed."""
        assert self.writer is not None
        return self.writer.scheduler.trigger().exception(SECONDS)

    @property
    def ledger(self) -> Ledger:
        assert self.writer is not None
        return self.writer.scheduler._job.ledger

    @rule(name=NAMES, size=SIZES)
    def append(self, name: str, size: int) -> None:
        content = self.read(name)
        if name in EVENT_FILES:
            content = whole(content) or frame(file_version(0.0))
            self.write(name, content + frame(os.urandom(size)))
        else:
            self.write(name, content + os.urandom(size))

    @rule(name=NAMES, share=st.floats(min_value=0, max_value=1))
    def truncate(self, name: str, share: float) -> None:
        content = self.read(name)
        self.write(name, content[: int(len(content) * share)])

    @rule(name=NAMES)
    def rewrite_with_the_same_size(self, name: str) -> None:
        content = self.read(name)
        if name in EVENT_FILES:
            ends = [0, *boundaries(io.BytesIO(content))]
            self.write(name, b"".join(frame(os.urandom(end - begin - 16)) for begin, end in itertools.pairwise(ends)))
        else:
            self.write(name, os.urandom(len(content)))

    @rule(name=NAMES, size=SIZES)
    def replace_by_rename(self, name: str, size: int) -> None:
        self.write(name, frame(os.urandom(size)) if name in EVENT_FILES else os.urandom(size))
        (self.root / "new").write_bytes(self.read(name))
        (self.root / "new").rename(self.folder / name)

    @rule(name=st.sampled_from(EVENT_FILES), size=st.integers(min_value=0, max_value=30))
    def leave_a_torn_record(self, name: str, size: int) -> None:
        self.write(name, self.read(name) + frame(os.urandom(40))[: size + 1])

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    @rule(count=st.integers(min_value=1, max_value=5))
    def log(self, count: int) -> None:
        assert self.writer is not None
        for _ in range(count):
            self.writer.add_scalar("loss", self.logged, self.logged)
            self.logged += 1

    @rule()
    def push(self) -> None:
        error = self.outcome()
        assert error is None or isinstance(error, TemporaryError), error

    @rule(name=NAMES)
    def delete_a_file_on_the_hub(self, name: str) -> None:
        if f"logs/run/{name}" in self.store.look().files:
            self.store.delete(f"logs/run/{name}")

    @rule(name=NAMES, size=SIZES)
    def replace_a_file_on_the_hub(self, name: str, size: int) -> None:
        if f"logs/run/{name}" in self.store.look().files:
            # The invariants must accept a content that is not ours.
            content = frame(os.urandom(size))
            self.history.setdefault(name, []).append(content)
            self.store.replace(f"logs/run/{name}", content)

    @rule()
    def replace_the_folder_by_a_copy(self) -> None:
        self.die()
        shutil.copytree(self.folder, self.root / "copy")
        shutil.rmtree(self.folder)
        (self.root / "copy").rename(self.folder)
        self.restart()

    @rule(how=st.sampled_from(FAILURES))
    def push_fails(self, how: str) -> None:
        self.log(1)
        with self.store.fails(how):
            assert isinstance(self.outcome(), TemporaryError)

    @rule()
    def push_without_writing_the_ledger(self) -> None:
        def refuse(*_: object) -> None:
            raise OSError(28, "full")

        with mock.patch.object(self.ledger, "_write", refuse):
            self.push()

    @rule(step=st.sampled_from(CRASHES))
    def push_crashes(self, step: str) -> None:
        assert self.writer is not None
        self.log(1)
        ledger, remote = self.ledger, self.writer.scheduler._remote
        name_of_commit = "_commit" if isinstance(remote, RepoRemote) else "_send"
        commit, record = getattr(remote, name_of_commit), ledger.record

        def at_the_commit(*arguments: Any) -> None:
            if step == "after the commit":
                commit(*arguments)
            raise Crash

        def at_the_ledger(*arguments: Any) -> None:
            if step == "in the ledger" and ledger.path.exists():
                with ledger.path.open("ab") as file:
                    file.write(b'{"file":"eve')
            if step == "after the ledger":
                record(*arguments)
            raise Crash

        is_commit = step in CRASHES[:2]
        with mock.patch.object(
            *((remote, name_of_commit, at_the_commit) if is_commit else (ledger, "record", at_the_ledger))
        ):
            assert isinstance(self.outcome(), Crash)
        self.restart()

    @rule()
    def restart(self) -> None:
        self.die()
        self.writer = HFSummaryWriter(
            self.store.repo_id,
            logdir=self.folder,
            commit_every=HOUR,
            path_in_repo="logs",
            repo_type=self.store.repo_type,
            repo_allow_patterns=None,
            hf_api=self.store.api,
            model_card=False,
        )
        self.push()  # as every process does at its start

    @rule()
    def close_and_restart(self) -> None:
        assert self.writer is not None
        self.writer.close()
        self.restart()

    @rule()
    def lose_the_ledger(self) -> None:
        self.ledger.path.unlink(missing_ok=True)
        self.restart()

    @rule(count=st.integers(min_value=1, max_value=5), in_a_push=st.booleans(), closes=st.booleans())
    def fork(self, count: int, *, in_a_push: bool, closes: bool) -> None:
        assert self.writer is not None
        with contextlib.ExitStack() as paused:
            future = None
            if in_a_push:
                self.log(1)
                wait_until_it_pauses = paused.enter_context(self.store.pauses())
                future = self.writer.scheduler.trigger()
                wait_until_it_pauses()
            asked = self.store.asked()
            child = forked(functools.partial(log_and_try_to_push, self.writer, count, closes=closes))
            assert self.store.asked() == asked, "the child pushed"
        if future is not None:
            assert future.exception(SECONDS) is None
        own = [name for name, _ in self.files() if (parsed := parse_name(name)) and parsed.pid == child]
        found = [event for name in own for event in events.events(self.folder / name)]
        assert [event.step for event in found if event.HasField("summary")] == list(range(count))
        # The parent pushes the child's events.
        self.push()
        held = self.store.look().files
        assert all(held.get(f"logs/run/{name}") == self.read(name) for name in own)

    @invariant()
    def files_on_the_hub_are_prefixes_of_local_versions(self) -> None:
        for path, versions in self.store.look().versions.items():
            if is_state_file(path):
                assert all(map(RunState.parse, versions))
                continue
            name = path.removeprefix("logs/run/").partition(".replaced-")[0]
            here = self.versions(name)
            for content in versions:
                if name in PLAIN_FILES:
                    assert content in here, name
                else:
                    assert any(version.startswith(content) for version in here), name
                    assert uploadable(content) == content, name

    @invariant()
    def the_ledger_records_no_more_than_the_hub_holds(self) -> None:
        if self.writer is None:
            return
        ledger = Ledger(self.ledger.path, self.ledger.destination)
        ledger.refresh()
        versions = self.store.look().versions
        for name, entry in ledger.entries.items():
            assert entry.length in map(len, versions.get(f"logs/run/{name}", [])), name

    def assert_all_uploaded(self) -> None:
        held = self.store.look().files
        for name, content in self.files():
            expected = content if name in PLAIN_FILES else uploadable(content)
            if expected or name in PLAIN_FILES:
                assert held.get(f"logs/run/{name}") == expected, name


def forked(body: Callable[[], bool]) -> int:
    """Run `body` in a forked child, check that it returned true in time, and return the child's pid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the test forks with threads
        pid = os.fork()
    if pid == 0:
        code = 2
        # Dump the stacks of a hung child to a descriptor, since the streams may be locked for ever in a child.
        faulthandler.dump_traceback_later(SECONDS / 2, exit=True, file=2)
        try:
            code = 0 if body() else 1
        finally:
            os._exit(code)
    deadline = time.monotonic() + SECONDS
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pytest.fail("the child hangs")
        time.sleep(0.001)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    return pid


def log_and_try_to_push(writer: HFSummaryWriter, count: int, *, closes: bool) -> bool:
    for step in range(count):
        writer.add_scalar("child", step, step)
    writer.flush()
    did_nothing = writer.scheduler.trigger().result(5) is None and writer.scheduler.push_to_hub() is None
    if closes:
        writer.close()
    return did_nothing


def run_machine(make_store: Callable[[], Store], examples: int, *, derandomize: bool) -> None:
    machine: Any = functools.partial(FolderAndHub, make_store)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("TEST_EXAMPLES", examples)),
            stateful_step_count=30,
            deadline=None,
            derandomize=derandomize,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


@pytest.mark.client  # over a real Hub, the client commits and fails
@pytest.mark.transport
def test_folder_and_hub_agree_after_random_steps(proxy: FaultProxy, proxied: HfApi) -> None:
    run_machine(lambda: RealHub(proxied, proxy), examples=3, derandomize=True)


@needs_a_client_for_buckets
@pytest.mark.client
def test_folder_and_bucket_agree_after_random_steps(proxy: FaultProxy, proxied: HfApi) -> None:
    run_machine(lambda: RealBucket(proxied, proxy), examples=3, derandomize=True)


@pytest.mark.parametrize("store", [Dictionary, pytest.param(BucketDictionary, marks=needs_a_client_for_buckets)])
def test_folder_and_a_dictionary_agree_after_random_steps(store: type[Dictionary]) -> None:
    run_machine(store, examples=15, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_folder_and_hub_agree_in_many_random_histories(proxy: FaultProxy, proxied: HfApi) -> None:
    run_machine(lambda: RealHub(proxied, proxy), examples=25, derandomize=False)


@needs_a_client_for_buckets
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_folder_and_bucket_agree_in_many_random_histories(proxy: FaultProxy, proxied: HfApi) -> None:
    run_machine(lambda: RealBucket(proxied, proxy), examples=25, derandomize=False)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("store", [Dictionary, pytest.param(BucketDictionary, marks=needs_a_client_for_buckets)])
def test_folder_and_a_dictionary_agree_in_many_random_histories(store: type[Dictionary]) -> None:
    run_machine(store, examples=100, derandomize=False)
