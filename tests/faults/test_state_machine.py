"""Whatever happens to a folder between pushes, and wherever a push breaks off, three things hold.

What the Hub holds of a file is the beginning of the file as it once was here; the ledger never says more than the Hub
holds; and once the faults stop, both are the same. The folder, the snapshot, the ledger, the lock and the push are
real; only the storage of the Hub is a dictionary, since a real one would take minutes.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shutil
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hf_summary_writer.arrival import Settings
from hf_summary_writer.attempt import Caller
from hf_summary_writer.committer import Committer, Seat
from hf_summary_writer.destination import Destination
from hf_summary_writer.encode import file_version
from hf_summary_writer.errors import PushError, TemporaryError
from hf_summary_writer.hub import Uploaded
from hf_summary_writer.ledger import Ledger
from hf_summary_writer.push import Pusher
from hf_summary_writer.tfrecord import boundaries, frame
from hf_summary_writer.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Sequence

DESTINATION = Destination("http://nowhere", "model", "tester/run", "main", "logs")
EVENT_FILES = [f"events.out.tfevents.{number}" for number in range(3)]
PLAIN_FILES = ["metrics.jsonl", "sub/notes.txt"]
NAMES = st.sampled_from(EVENT_FILES + PLAIN_FILES)
SIZES = st.integers(min_value=0, max_value=300)
STEPS = ["before the commit", "after the commit", "before the ledger", "in the ledger", "after the ledger"]


class Crash(BaseException):
    """The process is gone: nothing after it is done, not even by a `finally` that matters."""


class Storage:
    """What the Hub holds, now and in every commit before; it fails where it is told."""

    def __init__(self) -> None:
        self.repo_id = "tester/run"
        self.known = self.created = False
        self.files: dict[str, bytes] = {}
        self.versions: dict[str, list[bytes]] = {}
        self.breaks: dict[str, BaseException] = {}

    def ensure_repo(self) -> str:
        return self.repo_id

    def find_repo(self) -> None:
        """It is there from the start."""

    def upload(self, files: Sequence[tuple[str, bytes | Path]], readme: bytes | None = None) -> Uploaded:
        assert readme is None, "the repo was not created for this folder"
        new = {path: body if isinstance(body, bytes) else body.read_bytes() for path, body in files}
        for path, content in new.items():
            if self.files.get(path) == content:
                self.versions.setdefault(path, []).append(content)
        changed: Any = [
            SimpleNamespace(path_in_repo=path, content=content)
            for path, content in new.items()
            if self.files.get(path) != content
        ]
        return Uploaded(tuple(changed), None, frozenset())

    def commit(self, additions: Sequence[Any], message: str) -> Any:
        assert message
        self._break("before the commit")
        for addition in additions:
            self.files[addition.path_in_repo] = addition.content
            self.versions.setdefault(addition.path_in_repo, []).append(addition.content)
        self._break("after the commit")
        return SimpleNamespace(oid="0" * 40, commit_url="http://nowhere")

    def _break(self, step: str) -> None:
        error = self.breaks.pop(step, None)
        if error is not None:
            raise error


def whole(content: bytes) -> bytes:
    return content[: [0, *boundaries(io.BytesIO(content))][-1]]


class FolderAndHub(RuleBasedStateMachine):
    """Rules are what users, disks, networks and processes do; invariants are the promises."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="state-machine-")).resolve()
        self.folder = self.root / "run"
        self.history: dict[str, list[bytes]] = {}
        self.storage = Storage()
        self.clock = itertools.count(1_700_000_000)
        self.caller = Caller("hf-summary-writer-hub")

    @initialize()
    def begin(self) -> None:
        (self.folder / "sub").mkdir(parents=True)
        self.restart()

    def teardown(self) -> None:
        try:
            self.storage.breaks.clear()
            if hasattr(self, "pusher"):
                self.restart()
                self.push(last=True)
                self.same_once_faults_stop()
        finally:
            self.caller.stop()
            shutil.rmtree(self.root)

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.write_bytes(content)
        # Every change gets a time of its own, as on a file system with a fine clock.
        moment = next(self.clock) * 10**9
        os.utime(path, ns=(moment, moment))
        self.history.setdefault(name, []).append(content)

    def read(self, name: str) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / name).read_bytes()
        return b""

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
        self.write(name + ".new", b"")
        self.write(name, frame(os.urandom(size)) if name in EVENT_FILES else os.urandom(size))
        (self.folder / (name + ".new")).write_bytes(self.read(name))
        (self.folder / (name + ".new")).rename(self.folder / name)

    @rule(name=st.sampled_from(EVENT_FILES), size=st.integers(min_value=0, max_value=30))
    def leave_a_torn_record(self, name: str, size: int) -> None:
        self.write(name, self.read(name) + frame(os.urandom(40))[: size + 1])

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    @rule(last=st.booleans())
    def push(self, *, last: bool) -> None:
        with contextlib.suppress(TemporaryError):
            self.pusher.push(last=last, interrupted=lambda: False, lock_seconds=5)

    @rule(step=st.sampled_from(STEPS[:2]))
    def push_fails(self, step: str) -> None:
        error = TemporaryError(step)
        error.in_doubt = step == "after the commit"
        self.storage.breaks[step] = error
        with contextlib.suppress(PushError):
            self.pusher.push(last=False, interrupted=lambda: False, lock_seconds=5)
        self.storage.breaks.clear()

    @rule()
    def the_disk_takes_no_ledger(self) -> None:
        def refuse(*_: object) -> None:
            raise OSError(28, "full")

        self.pusher.ledger._write = refuse  # type: ignore[assignment, method-assign]
        self.push(last=False)
        del self.pusher.ledger._write

    @rule(step=st.sampled_from(STEPS))
    def push_crashes(self, step: str) -> None:
        ledger = self.pusher.ledger
        if step in STEPS[:2]:
            self.storage.breaks[step] = Crash()
        else:
            record = ledger.record

            def crash(*arguments: Any) -> None:
                if step == "in the ledger" and ledger.path.exists():
                    with ledger.path.open("ab") as file:
                        file.write(b'{"file":"eve')
                if step == "after the ledger":
                    record(*arguments)
                raise Crash

            ledger.record = crash  # type: ignore[assignment, method-assign]
        with contextlib.suppress(Crash):
            self.push(last=False)
        self.storage.breaks.clear()
        self.restart()

    @rule()
    def restart(self) -> None:
        self.storage.known = False
        storage: Any = self.storage
        self.pusher = Pusher(
            self.folder,
            DESTINATION,
            Settings(),
            storage,
            self.caller,
            threading.Lock(),
            lambda _: None,
            Seat(Committer(Turns(lambda: None))),
        )

    @rule()
    def lose_the_ledger(self) -> None:
        self.pusher.ledger.path.unlink(missing_ok=True)
        self.restart()

    @invariant()
    def the_hub_holds_the_beginning_of_what_was_here(self) -> None:
        for path, content in self.storage.files.items():
            name = path.removeprefix("logs/")
            versions = self.history[name]
            assert any(version.startswith(content) for version in versions), name
            if name in EVENT_FILES:
                assert whole(content) == content
            else:
                assert content in versions

    @invariant()
    def the_ledger_is_never_ahead_of_the_hub(self) -> None:
        if hasattr(self, "pusher"):
            ledger = Ledger(self.pusher.ledger.path, DESTINATION)
            ledger.refresh()
            for name, arrival in ledger.arrivals.items():
                lengths = {len(version) for version in self.storage.versions.get(f"logs/{name}", [])}
                assert arrival.length in lengths, name

    def same_once_faults_stop(self) -> None:
        for name in EVENT_FILES + PLAIN_FILES:
            if not (self.folder / name).exists():
                continue
            content = self.read(name)
            expected = whole(content) if name in EVENT_FILES else content
            if expected or name in PLAIN_FILES:
                assert self.storage.files.get(f"logs/{name}") == expected, name


EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "200"))
TestFolderAndHub = FolderAndHub.TestCase
TestFolderAndHub.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
