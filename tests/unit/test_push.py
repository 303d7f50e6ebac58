"""One push of several folders: what each gets, and what stays for later, with a remote that keeps files in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import shutil
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import CommitInfo

from hf_summary_writer.config import PushConfig
from hf_summary_writer.errors import (
    ActionNeededError,
    BranchGoneError,
    FolderBusyError,
    InterruptedPushError,
    PostponedError,
    RejectedError,
    RepoGoneError,
    TemporaryError,
    UnwrittenError,
)
from hf_summary_writer.events import file_version, frame
from hf_summary_writer.events.files import SegmentName
from hf_summary_writer.folder import (
    STATE_FOLDER,
    ChangedFile,
    LedgerEntry,
    SkipReason,
    StateFolder,
    lease,
    push_lock,
    snapshot,
)
from hf_summary_writer.folder.ledger import Signature
from hf_summary_writer.hub.client import Client
from hf_summary_writer.hub.remote import COMMITS, Published, Remote, RemoteFile
from hf_summary_writer.push import job as push_job
from hf_summary_writer.push import push as push_module
from hf_summary_writer.push.budget import CommitQueue
from hf_summary_writer.push.job import Job
from hf_summary_writer.push.push import Outcomes, Pusher, Round
from hf_summary_writer.push.run_job import RunJob
from hf_summary_writer.push.run_state import RunPhase, RunState
from hf_summary_writer.push.runs import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from hf_summary_writer.hub.remote import Upload

REPO = "user/run"


class MemoryHub(Remote):
    """A branch in memory.

    Attributes:
        stored: The files by path.
        commits: The paths in each commit.
        attempts: The paths of each call of `publish`.
        uploads: The last upload of each path.
        errors: Raised instead of the next commits, one each; `None` lets one pass.
        list_errors: Raised instead of the next listings.
        check_errors: Raised instead of the next checks whether the repo is back.
        refused: The files that it does not take.
        left_out: The files that its `.gitignore` leaves out.
        in_doubt: The files of which it does not say for certain that they arrived.
        files_per_commit: How many files it commits at once.
        squashes: How often its history was squashed.
        squash_error: Raised by the next squash.
        token_error: Raised where the token is looked up.
        creations: How often it was created.
        small: The paths of each call of `publish_small`.
        along: The uploads that came along with others.
        listed: The paths of each listing.
        meanwhile: Called while it makes a commit.
    """

    max_files = 100
    rate_limit = COMMITS

    def __init__(self, repo_id: str = REPO) -> None:
        user = SimpleNamespace(endpoint="https://hub", token="")
        super().__init__(PushConfig(repo_id=REPO, endpoint="https://hub"), Client(None, user))
        self._full_name = repo_id
        self.exists = self.has_branch = False
        self.stored: dict[str, bytes] = {}
        self.commits: list[list[str]] = []
        self.attempts: list[list[str]] = []
        self.uploads: dict[str, Upload] = {}
        self.errors: list[Exception | None] = []
        self.list_errors: list[Exception] = []
        self.check_errors: list[Exception] = []
        self.refused: set[str] = set()
        self.left_out: set[str] = set()
        self.in_doubt: set[str] = set()
        self.files_per_commit = 100
        self.requests = 0
        self.squashes = 0
        self.squash_error: Exception | None = None
        self.token_error: Exception | None = None
        self.creations = 0
        self.small: list[list[str]] = []
        self.along: list[Upload] = []
        self.listed: list[list[str]] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def check_token(self) -> None:
        if self.token_error is not None:
            raise self.token_error

    def publish(
        self,
        uploads: Sequence[Upload],
        title: str,
        commit_slot: Callable[[], AbstractContextManager[object]],
        along: Sequence[Upload] = (),
    ) -> Iterator[Published]:
        self.along += along
        self.attempts.append([each.path for each in uploads])
        for start in range(0, len(uploads), self.files_per_commit):
            with commit_slot():
                yield self._commit(uploads[start : start + self.files_per_commit], title)

    def _commit(self, uploads: Sequence[Upload], title: str) -> Published:
        self._request(self.errors)
        paths = frozenset(each.path for each in uploads)
        if paths & self.refused:
            raise RejectedError("the Hub refused the content")
        self.meanwhile()
        left_out = paths & self.left_out
        for each in uploads:
            if each.path not in left_out:
                self.stored[each.path] = each.body if isinstance(each.body, bytes) else each.body.read_bytes()
                self.uploads[each.path] = each
        self.commits.append([each.path for each in uploads])
        url = f"https://huggingface.co/{REPO}/commit/{len(self.commits)}"
        commit = CommitInfo(commit_url=url, commit_message=title, commit_description="", oid=url[-1])
        committed = paths - left_out
        arrived = committed - self.in_doubt
        return Published(commit=commit, committed=committed, arrived=arrived, left_out=left_out, settled=paths)

    def publish_small(
        self,
        uploads: Sequence[Upload],
        commit_slot: Callable[[], AbstractContextManager[object]],  # noqa: ARG002 - as of a remote
    ) -> None:
        self.small.append([each.path for each in uploads])

    def squash(self, title: str) -> None:  # noqa: ARG002 - as of a remote
        self.squashes += 1
        error, self.squash_error = self.squash_error, None
        if error is not None:
            raise error

    def _request(self, errors: list[Any]) -> None:
        assert self.known, "the full name of the repo is not known yet"
        self.requests += 1
        if errors and (error := errors.pop(0)) is not None:
            raise error
        if not self.exists:
            raise RepoGoneError("gone")
        if not self.has_branch:
            raise BranchGoneError("gone")

    def _list(self, paths: list[str]) -> dict[str, RemoteFile]:
        self._request(self.list_errors)
        self.listed.append(paths)
        known = {path: self.stored[path] for path in paths if path in self.stored}
        return {path: RemoteFile(len(body), hashlib.sha256(body).hexdigest()) for path, body in known.items()}

    def _find(self) -> None:
        if self.check_errors:
            raise self.check_errors.pop(0)
        if not self.exists:
            raise RepoGoneError("gone")
        self.has_branch = True

    def _create(self) -> bool:
        self.requests += 1
        self.creations += 1
        self.exists = self.has_branch = True
        self.repo_id = self._full_name
        return True

    def _call(self, call: Callable[[], Any], seconds: float | None = None) -> Any:  # noqa: ARG002 - in this thread
        return call()


class Turns(CommitQueue):
    """A queue that lets every push pass and notes which ones asked, and whether they were last ones."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.finals: list[bool] = []
        self.commits: list[bool] = []
        self.error: PostponedError | None = None

    def wait_turn(self, *, final: bool) -> None:
        self.finals.append(final)
        if self.error is not None:
            raise self.error

    @contextlib.contextmanager
    def commit(self, *, final: bool) -> Iterator[None]:
        self.commits.append(final)
        yield


@dataclasses.dataclass
class Writer:
    """A writer whose events are on the disk already, unless it `is_behind`."""

    is_behind: bool
    dropped_events: int = 0
    logged_events: int = 1

    def flush(self) -> None:
        pass


def jobs_of(*due: Job, soon: Sequence[Job] = (), others_wait: bool = False) -> Round:
    """Return the jobs of one push: those that are due, and those that are due soon."""
    return Round(iter(due), iter(soon), lambda: others_wait)


@pytest.fixture
def hub() -> MemoryHub:
    return MemoryHub()


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
def push(hub: MemoryHub, turns: Turns) -> Callable[..., Outcomes]:
    pusher = Pusher(hub)
    pusher.queue = turns

    def push(*jobs: Job, final: bool = False, **others: Any) -> Outcomes:
        for job in jobs:
            job.final = final
        return pusher.push(jobs_of(*jobs, **others))

    return push


@pytest.fixture
def make(tmp_path: Path, hub: MemoryHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Job]]:
    """Return a function that makes the job of a folder with one file; with a rank, the one of a writer's logdir."""
    monkeypatch.setattr(snapshot, "YOUNG_NS", 0)  # else each file is looked at once more
    jobs: list[Job] = []
    writers = []  # a run holds its own weakly

    def make(name: str, content: bytes | None = b"1", rank: int | None = None, **options: Any) -> Job:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True, parents=True)
        if content is not None:
            (folder / "a.txt").write_bytes(content)
        is_behind = options.pop("is_behind", False)
        options = {"model_card": False, "run_state": "repo_type" in options, **options}
        config = PushConfig(repo_id=REPO, endpoint="https://hub", path_in_repo=name, allow_patterns=None, **options)
        if rank is None:
            jobs.append(Job(folder, config, hub, content_lock=threading.Lock()))
        else:
            writers.append(Writer(is_behind=is_behind))
            run = Run(folder, config, rank, writers[-1])  # type: ignore[arg-type]
            jobs.append(RunJob(run, hub, content_lock=threading.Lock(), is_other_rank=rank != 0))
        return jobs[-1]

    yield make
    for job in jobs:
        job.lease.release()


def busy(job: Job) -> AbstractContextManager[object]:
    """Hold the lock of a folder, as another process that pushes it does."""
    return push_lock(StateFolder(job.folder / STATE_FOLDER))


def errors(outcomes: Outcomes, *jobs: Job) -> list[type[Exception] | None]:
    found = [outcomes[job].error for job in jobs]
    return [None if error is None else type(error) for error in found]


def test_all_folders_are_in_one_commit_and_an_unchanged_one_asks_for_nothing(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub, turns: Turns
) -> None:
    one, two = make("one"), make("two")
    outcomes = push(one, two)
    assert outcomes[one].commit == outcomes[two].commit
    assert hub.commits == [["one/a.txt", "two/a.txt"]]
    before = hub.requests
    assert push(one, two) == {}
    assert (hub.requests, turns.finals, turns.commits) == (before, [False], [False])


def test_a_folder_that_another_process_pushes_is_left_out(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    one, two = make("one"), make("two")
    with busy(one):
        assert errors(push(one, two), one, two) == [FolderBusyError, None]
    assert hub.commits == [["two/a.txt"]]
    assert errors(push(one), one) == [None]


@pytest.mark.parametrize("has_locks", [True, False])
def test_of_two_jobs_on_one_folder_the_second_one_waits(
    make: Callable[..., Job],
    push: Callable[..., Outcomes],
    hub: MemoryHub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    has_locks: bool,
) -> None:
    def no_locks(*_: object) -> Any:
        raise OSError(errno.ENOLCK, "No locks available")

    if not has_locks:
        monkeypatch.setattr(lease, "_acquired", no_locks)
    first, second = make("run"), make("run")
    assert errors(push(first, second), first, second) == [None, FolderBusyError]
    assert hub.commits == [["run/a.txt"]]
    assert ("cannot be used" in caplog.text) is not has_locks


def test_a_last_push_comes_first_and_waits_for_no_turn(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub, turns: Turns
) -> None:
    one, last = make("one"), make("last")
    last.final = True
    push(one, soon=[last])
    assert hub.commits == [["last/a.txt", "one/a.txt"]]
    assert turns.finals == turns.commits == [True]


def test_a_folder_that_is_due_soon_only_joins_the_push_of_another(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    one, two = make("one"), make("two")
    push(one, soon=[two])
    assert hub.commits == [["one/a.txt", "two/a.txt"]]
    (two.folder / "b.txt").write_bytes(b"2")
    assert push(one, soon=[two]) == {}


def test_one_push_holds_a_bounded_number_of_locks(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_module, "most_open_files", lambda: 4)
    jobs = [make(f"run-{number}") for number in range(3)]
    push(*jobs)
    assert hub.commits == [["run-0/a.txt", "run-1/a.txt"]]


def test_a_push_without_its_turn_sends_nothing(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub, turns: Turns
) -> None:
    one, two = make("one"), make("two")
    turns.error = PostponedError("others are first")
    assert errors(push(one, two), one, two) == [PostponedError, PostponedError]
    assert hub.requests == 0


def test_an_error_of_the_disk_fails_one_folder_alone(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = make("one"), make("two"), make("three")

    def fail(*_: object) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(one, "refresh", fail)
        failing.setattr(two, "read", fail)
        assert errors(push(one, two, three), one, two, three) == [OSError, TemporaryError, None]
    assert hub.commits == [["three/a.txt"]]
    assert errors(push(one, two, three), one, two, three) == [None, None, None]


def test_an_error_of_the_hub_fails_the_folders_that_still_had_something_to_send(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryHub, "max_files", 1)
    one, two, three = make("one"), make("two"), make("three")
    hub.errors = [None, TemporaryError("down")]
    outcomes = push(one, two, three)
    assert errors(outcomes, one, two, three) == [None, TemporaryError, TemporaryError]
    assert outcomes[two].error is not outcomes[three].error
    assert errors(push(one, two, three), two, three) == [None, None]
    assert hub.commits == [["one/a.txt"], ["two/a.txt"], ["three/a.txt"]]


def test_between_commits_others_get_their_turn(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryHub, "max_files", 1)
    one, two = make("one"), make("two")
    assert errors(push(one, two, others_wait=True), one, two) == [None, PostponedError]
    assert errors(push(two, others_wait=True), two) == [None]
    assert len(hub.commits) == 2


def test_a_push_ends_when_all_its_folders_are_out_of_time(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    one, two = make("one"), make("two")
    one.interrupted = lambda: True
    assert errors(push(one, two), one, two) == [None, None]
    for job in (one, two):
        (job.folder / "a.txt").write_bytes(b"22")
        job.interrupted = lambda: True
    assert None not in errors(push(one, two), one, two)
    assert len(hub.commits) == 1


@pytest.mark.parametrize("files_per_commit", [100, 3])
def test_refused_files_are_found_by_halving_and_hold_back_no_other(
    make: Callable[..., Job],
    push: Callable[..., Outcomes],
    hub: MemoryHub,
    caplog: pytest.LogCaptureFixture,
    files_per_commit: int,
) -> None:
    hub.files_per_commit = files_per_commit
    job = make("run")
    for number in range(7):
        (job.folder / f"{number}.txt").write_bytes(b"%d" % number)
    hub.refused = {"run/3.txt", "run/5.txt"}
    assert errors(push(job), job) == [None]
    assert sorted(path for paths in hub.commits for path in paths) == [f"run/{name}.txt" for name in "01246a"]
    assert job.inventory.pending().refused == 2
    assert "'5.txt'" in caplog.text
    assert push(job) == {}
    # The last push tries them once more, after the others.
    hub.refused.clear()
    (job.folder / "b.txt").write_bytes(b"new")
    assert errors(push(job, final=True), job) == [None]
    assert hub.attempts[-1][0] == "run/b.txt"
    assert sorted(hub.attempts[-1][1:]) == ["run/3.txt", "run/5.txt"]
    assert not job.inventory.pending().refused


@pytest.mark.parametrize("accepts_one", [False, True])
@pytest.mark.parametrize(("others_wait", "max_files"), [(False, 100), (True, 100), (False, 1)])
def test_five_refusals_in_a_row_end_the_push_of_a_folder_unless_a_file_was_accepted(
    make: Callable[..., Job],
    push: Callable[..., Outcomes],
    hub: MemoryHub,
    monkeypatch: pytest.MonkeyPatch,
    accepts_one: bool,
    others_wait: bool,
    max_files: int,
) -> None:
    monkeypatch.setattr(MemoryHub, "max_files", max_files)
    job, other = make("run"), make("other")
    for number in range(8):
        (job.folder / f"{number}.txt").write_bytes(b"%d" % number)
    hub.refused = {f"run/{name}.txt" for name in ("01234567" if accepts_one else "01234567a")}
    first, second = errors(push(job, other, others_wait=others_wait), job, other)
    assert second is None
    refusals = [paths for paths in hub.attempts if len(paths) == 1 and paths[0] in hub.refused]
    assert len(refusals) == (8 if accepts_one else 5)
    assert first is (None if accepts_one else ActionNeededError)
    assert job.inventory.pending().refused == (8 if accepts_one else 4)
    assert "other/a.txt" in hub.stored


@pytest.mark.parametrize("in_doubt", [False, True])
def test_a_commit_without_an_answer_makes_later_processes_look_again(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub, in_doubt: bool
) -> None:
    job = make("run")
    (job.folder / "b.txt").write_bytes(b"b")
    push(job)
    (job.folder / "a.txt").write_bytes(b"22")
    error = TemporaryError("no answer")
    error.in_doubt = in_doubt
    hub.errors = [error]
    assert errors(push(job), job) == [TemporaryError]
    later = make("run", b"22")
    later.refresh()
    assert sorted(later.ledger.entries) == (["b.txt"] if in_doubt else ["a.txt", "b.txt"])


def test_what_was_committed_before_an_error_or_the_end_of_the_time_is_recorded(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    job = make("run")
    for name in "bc":
        (job.folder / f"{name}.txt").write_bytes(name.encode())
    hub.files_per_commit = 1
    hub.errors = [None, TemporaryError("down")]
    assert errors(push(job), job) == [TemporaryError]
    assert len(job.ledger.entries) == 1
    job.interrupted = lambda: len(hub.commits) == 2
    assert errors(push(job), job) == [InterruptedPushError]
    assert len(job.ledger.entries) == 2
    job.interrupted = lambda: False
    assert errors(push(job), job) == [None]
    assert sorted(path for paths in hub.commits for path in paths) == ["run/a.txt", "run/b.txt", "run/c.txt"]


def test_a_touched_file_is_compared_once_and_not_sent(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    job = make("run")
    push(job)
    os.utime(job.folder / "a.txt", (1, 1))
    assert errors(push(job), job) == [None]
    assert push(job) == {}
    assert len(hub.commits) == 1


def test_for_a_file_that_holds_the_token_no_repo_is_created(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    hub.client.secret = "hf_0123456789abcdefghij"
    job = make("run", b"token = hf_0123456789abcdefghij")
    assert errors(push(job, final=True), job) == [None]
    assert hub.requests == 0
    assert push(job) == {}


def test_only_files_that_arrived_for_certain_are_recorded(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    job, ignored = make("run"), make("ignored")
    (job.folder / "b.txt").write_bytes(b"b")
    (job.folder / "c.txt").write_bytes(b"c")
    hub.left_out, hub.in_doubt = {"run/b.txt", "ignored/a.txt"}, {"run/c.txt"}
    outcomes = push(job, ignored)
    assert errors(outcomes, job, ignored) == [None, None]
    assert outcomes[job].commit is not None
    assert outcomes[ignored].commit is None
    assert sorted(job.ledger.entries) == ["a.txt"]
    assert (job.inventory.pending().files, job.inventory.pending().refused) == (1, 1)


def test_a_grown_file_names_the_bytes_that_the_hub_holds(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    job = make("run", b"123")
    push(job)
    first = hub.uploads["run/a.txt"]
    (job.folder / "a.txt").write_bytes(b"12345")
    push(job)
    second = hub.uploads["run/a.txt"]
    assert (first.known_bytes, first.is_first) == (0, True)
    assert (second.known_bytes, second.is_first) == (3, False)


def test_a_repo_that_is_gone_is_not_recreated_and_gets_everything_once_it_is_back(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    one, two = make("one"), make("two")
    push(one, two)
    hub.exists = hub.has_branch = False
    hub.stored.clear()
    (one.folder / "b.txt").write_bytes(b"b")
    assert errors(push(one), one) == [RepoGoneError]
    later = make("one")
    later.refresh()
    assert not later.ledger.entries
    before = len(hub.attempts)
    assert errors(push(one), one) == [RepoGoneError]
    assert (len(hub.attempts), hub.exists) == (before, False)
    hub.exists = hub.has_branch = True
    assert errors(push(one, two), one, two) == [None, None]
    assert sorted(hub.stored) == ["one/a.txt", "one/b.txt", "two/a.txt"]
    assert not any(each.is_first for each in hub.uploads.values())
    assert push(one, two) == {}


def test_a_branch_that_is_gone_gets_everything_in_the_same_push(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    one, two = make("one"), make("two")
    push(one, two)
    hub.has_branch = False
    hub.stored.clear()
    (one.folder / "b.txt").write_bytes(b"b")
    assert errors(push(one), one) == [None]
    assert sorted(hub.stored) == ["one/a.txt", "one/b.txt"]
    assert errors(push(two), two) == [None]
    assert "two/a.txt" in hub.stored
    assert push(one, two) == {}


def test_a_process_that_dies_before_a_lost_branch_is_back_leaves_no_record(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    job = make("run")
    push(job)
    hub.has_branch = False
    hub.check_errors = [TemporaryError("down")]
    (job.folder / "b.txt").write_bytes(b"b")
    assert errors(push(job), job) == [TemporaryError]
    later = make("run")
    later.refresh()
    assert not later.ledger.entries


def test_a_last_push_sends_again_what_the_hub_lost_or_replaced(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    job = make("run")
    for name in "bcd":
        (job.folder / f"{name}.txt").write_bytes(name.encode())
    push(job)
    del hub.stored["run/b.txt"]
    hub.stored["run/c.txt"] = b"x"
    del hub.stored["run/d.txt"]
    (job.folder / "d.txt").unlink()
    (job.folder / "a.txt").write_bytes(b"22")
    assert errors(push(job, final=True), job) == [None]
    assert hub.commits[1:] == [["run/a.txt"], ["run/b.txt", "run/c.txt"]]


def test_the_files_of_a_renamed_repo_are_compared_under_its_new_name(
    make: Callable[..., Job], push: Callable[..., Outcomes]
) -> None:
    push(make("run"))
    renamed = MemoryHub("user/renamed")
    later = make("run")
    later.ledger.refresh()
    later.ledger.repo_id = None  # the name of another repo is not kept
    later.asked = later.final = True
    outcomes = Pusher(renamed).push(jobs_of(later))
    assert errors(outcomes, later) == [None]
    assert list(renamed.stored) == ["run/a.txt"]


def test_files_lost_with_the_branch_during_the_comparison_are_sent_again(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    job = make("run")
    push(job)
    hub.list_errors = [BranchGoneError("gone")]
    hub.stored.clear()
    (job.folder / "b.txt").write_bytes(b"b")
    assert errors(push(job, final=True), job) == [None]
    assert sorted(hub.stored) == ["run/a.txt", "run/b.txt"]


def test_a_comparison_that_fails_is_an_error_of_last_pushes_alone(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_job, "_COMMITS_UNTIL_COMPARED", 0)
    one, last = make("one"), make("last")
    push(one, last)
    for job in (one, last):
        (job.folder / "b.txt").write_bytes(b"b")
    hub.errors, hub.list_errors = [TemporaryError("down")], [TemporaryError("down")]
    assert errors(push(one, last), one, last) == [TemporaryError, TemporaryError]
    assert hub.list_errors, "a push that failed compares nothing"
    one.final, last.final = False, True
    assert errors(push(soon=[one, last]), one, last) == [None, None]
    assert errors(push(one, soon=[last]), one, last) == [None, TemporaryError]


def test_the_history_is_squashed_once_after_commits_of_a_run_that_wants_it(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    plain, squashing = make("plain"), make("squashing", squash_history=True)
    push(plain)
    assert hub.squashes == 0
    push(plain, squashing)
    assert hub.squashes == 1
    (plain.folder / "b.txt").write_bytes(b"b")
    push(plain)
    push(squashing, final=True)
    assert hub.squashes == 1


@pytest.mark.parametrize("error", [TemporaryError("down"), BranchGoneError("gone")])
def test_commits_count_although_the_squash_fails_unless_the_branch_is_gone(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub, error: Exception
) -> None:
    job = make("run", squash_history=True)
    hub.squash_error = error
    assert errors(push(job), job) == [None]
    assert len(hub.commits) == (1 if type(error) is TemporaryError else 2)


def test_without_a_token_the_destination_is_kept_for_a_later_process(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    job = make("run")
    hub.token_error = ActionNeededError("there is no token")
    assert errors(push(job), job) == [ActionNeededError]
    later = make("run")
    later.refresh()
    assert later.ledger.known_config.settings == job.config.settings
    assert later.ledger.config is not None
    assert hub.requests == 0


def test_a_run_that_is_not_pushed_keeps_the_records_of_earlier_processes(
    make: Callable[..., Job], push: Callable[..., Outcomes]
) -> None:
    push(make("run"))
    make("run", every=7.0).remember()
    later = make("run")
    later.refresh()
    assert sorted(later.ledger.entries) == ["a.txt"]


def test_a_run_that_is_not_pushed_writes_no_state_while_another_process_pushes_it(make: Callable[..., Job]) -> None:
    job = make("run")
    with busy(job):
        job.remember()
    assert not job.ledger.path.exists()
    job.remember()
    assert job.ledger.path.exists()


def test_a_later_process_does_not_create_a_repo_that_took_files_before(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    push(make("run"))
    hub.known = False
    later = make("run", b"22")
    assert errors(push(later), later) == [None]
    assert hub.creations == 1


def test_a_deleted_folder_is_not_compared_with_the_hub(make: Callable[..., Job], push: Callable[..., Outcomes]) -> None:
    job = make("run")
    push(job)
    shutil.rmtree(job.folder)
    assert push(job, final=True) == {}
    assert not job.folder.exists()


@pytest.mark.parametrize("asked", [False, True])
def test_data_that_the_disk_has_not_taken_fails_a_push_that_was_asked_for(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub, asked: bool
) -> None:
    job = make("run", rank=0, is_behind=True)
    job.asked = asked
    for _ in range(2):  # with something new, and without
        assert errors(push(job), job) == [UnwrittenError if asked else None]
    assert hub.commits == [["run/a.txt"]]


def test_each_commit_is_announced_to_the_hook(make: Callable[..., Job], push: Callable[..., Outcomes]) -> None:
    seen: list[Any] = []
    push(make("run", b"123", on_commit=seen.append))
    assert [(each.repo_id, each.oid, each.files, each.bytes) for each in seen] == [(REPO, "1", 1, 3)]


def test_a_file_without_a_record_is_read_once(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    job = make("run", None)
    (job.folder / "a.tfevents.1").write_bytes(b"")
    push(job)
    assert push(job) == {}
    assert hub.requests == 0


def test_a_commit_that_crossed_another_one_is_repeated_and_no_success_until_then(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    job, other = make("run"), make("run")

    def record_another_commit() -> None:
        other.refresh()
        other.record_repo(is_new=False)
        known = Signature.of((job.folder / "a.txt").stat())
        other.record(None, {"a.txt": LedgerEntry(known, 1), "b.txt": LedgerEntry(Signature(1, 2, 3, 4), 3)})

    hub.meanwhile = record_another_commit
    assert errors(push(job, final=True), job) == [TemporaryError]
    assert "b.txt" in job.ledger.entries
    hub.meanwhile = lambda: None
    assert errors(push(job, final=True), job) == [None]
    assert hub.commits == [["run/a.txt"], ["run/a.txt"]]
    assert sorted(job.ledger.entries) == ["a.txt", "b.txt"]
    assert push(job) == {}


def test_older_files_are_compared_after_some_commits_and_new_ones_are_not(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_job, "_COMMITS_UNTIL_COMPARED", 2)
    job = make("run", b"0")
    for number in range(1, 5):
        push(job)
        (job.folder / f"{number}.txt").write_bytes(b"new")
    assert hub.listed == [["run/a.txt"], ["run/a.txt", "run/1.txt", "run/2.txt"]]


@pytest.mark.parametrize("seconds", [3600.0, 0.0])
def test_a_process_that_uploaded_nothing_compares_unless_another_one_just_has(
    make: Callable[..., Job],
    push: Callable[..., Outcomes],
    hub: MemoryHub,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> None:
    monkeypatch.setattr(push_job, "_SECONDS_UNTIL_COMPARED", seconds)
    push(make("run"))
    hub.stored.clear()
    later = make("run", None)
    push(later, final=True)
    assert list(hub.stored) == ([] if seconds else ["run/a.txt"])


def test_a_last_push_that_follows_a_comparison_does_not_repeat_it(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    push(make("run"))
    later = make("run", None)
    later.ledger.refresh()
    later.ledger.commit = dataclasses.replace(later.ledger.commit, time=0.0)  # type: ignore[type-var]
    push(later, final=True)
    assert hub.listed == [["run/a.txt"]]
    push(later, final=True)
    assert hub.listed == [["run/a.txt"]]


def test_a_watcher_holds_the_lease_until_its_last_push(make: Callable[..., Job], push: Callable[..., Outcomes]) -> None:
    job = make("run")
    push(job)
    assert job.lease.held
    push(job, final=True)
    assert not job.lease.held


def test_a_writer_leaves_its_pushes_to_a_watcher_above(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    watcher, writer = make("runs"), make("runs/run", rank=0, run_state=True)
    push(watcher)
    assert push(writer, final=True) == {}
    assert writer.owner_above == watcher.folder
    watcher.lease.release()
    push(writer, final=True)
    assert "runs/run/a.txt" in hub.stored
    # The watcher may have uploaded the state of this run, so that one in its place is no other run's.
    assert [each.is_first for each in hub.along if each.path.startswith("runs/run/")] == [False]


def test_another_owner_pushes_for_a_writer_except_at_a_trigger_and_at_the_end(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    owner, job = (make("run", rank=0) for _ in range(2))
    push(owner)
    for asked, final in [(False, False), (True, False), (False, True)]:
        before = len(hub.commits)
        (job.folder / f"{asked}-{final}.txt").write_bytes(b"new")
        job.asked = asked
        push(job, final=final)
        assert len(hub.commits) - before == (asked or final)
    owner.lease.release()
    job.asked = False
    (job.folder / "b.txt").write_bytes(b"new")
    push(job)
    assert "run/b.txt" in hub.stored
    assert job.lease.held


def test_another_rank_waits_an_interval_and_at_the_end_pushes_only_what_it_logged(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    job = make("run", rank=1)
    assert push(job) == {}
    assert errors(push(job), job) == [None]
    assert hub.commits == [["run/a.txt"]]
    (job.folder / "b.txt").write_bytes(b"of rank 0")
    push(job, final=True)  # as the owner
    assert "run/b.txt" in hub.stored
    job.lease.release()
    late = make("run", b"22", rank=1)
    names = [str(SegmentName(1700000000, "host", pid, 0, 0, "0" * 8)) for pid in (os.getppid(), os.getpid())]
    for name in names:
        (late.folder / name).write_bytes(frame(file_version(1.0)))
        assert push(late, final=True) == {}
        (late.folder / name).write_bytes(frame(file_version(1.0)) + frame(b"x"))
    push(late, final=True)
    assert f"run/{names[1]}" in hub.stored
    assert push(late, final=True)[late].commit is None


def test_a_folder_is_pushed_although_its_state_cannot_be_read_or_written(
    make: Callable[..., Job],
    push: Callable[..., Outcomes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    job = make("run")
    monkeypatch.setattr(StateFolder, "open", fail)
    monkeypatch.setattr(StateFolder, "write", fail)
    outcome = push(job)[job]
    assert outcome.error is None
    assert outcome.commit is not None
    assert caplog.text.count("cannot be used") == 1
    assert push(job) == {}


def test_a_folder_that_cannot_be_listed_is_no_success_and_holds_back_no_other_file(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make("run")
    (job.folder / "sub").mkdir()
    scandir = os.scandir

    def fail(path: str) -> Any:
        if path.endswith("sub"):
            raise OSError(errno.EIO, "Input/output error")
        return scandir(path)

    with monkeypatch.context() as failing:
        failing.setattr(os, "scandir", fail)
        for _ in range(2):
            assert errors(push(job), job) == [TemporaryError]
    assert hub.commits == [["run/a.txt"]]
    assert push(job) == {}


def test_files_that_could_not_be_read_are_counted_until_the_next_push(
    make: Callable[..., Job], push: Callable[..., Outcomes]
) -> None:
    job = make("run")
    for reason in SkipReason:
        job.skip(ChangedFile("b.txt", Signature(1, 2, 3, 4), "b.txt"), reason)
    assert job.left_behind == 3  # denied, busy, and damaged
    push(job)
    assert job.left_behind == 0


def test_the_end_of_a_run_is_told_once_all_its_files_are_there(
    make: Callable[..., Job], push: Callable[..., Outcomes], hub: MemoryHub
) -> None:
    job = make("run", rank=0, repo_type="bucket")
    push(job)
    job.runs.end(RunPhase.FINISHED)  # type: ignore[union-attr]
    (job.folder / "b.txt").write_bytes(b"b")
    hub.errors = [TemporaryError("down")]
    assert errors(push(job, final=True), job) == [TemporaryError]
    assert hub.small == []
    (job.folder / "b.txt").unlink()
    assert errors(push(job, final=True), job) == [None]
    assert hub.small == [["run/hf-summary-writer.json"]]
    push(job, final=True)
    assert len(hub.small) == 1


def test_a_run_that_ends_while_its_state_is_written_is_not_left_as_running(
    make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make("run", rank=0, run_state=True)
    assert isinstance(job.runs, Run)
    run, write = job.runs, StateFolder.write

    def end_meanwhile(self: StateFolder, name: str, content: bytes, **options: Any) -> os.stat_result:
        status = write(self, name, content, **options)
        run.end(RunPhase.FINISHED)
        return status

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(StateFolder, "write", end_meanwhile)
        job.leave_state()
    job.leave_state()
    left = job.folder / STATE_FOLDER / "run.json"
    assert RunState.parse(left.read_bytes()).phase is RunPhase.FINISHED


def test_writers_of_one_folder_with_different_settings_write_nothing_while_idle(
    make: Callable[..., Job], push: Callable[..., Outcomes]
) -> None:
    jobs = [make("run", rank=0), make("run", rank=0, ignore_patterns=("*.log",))]

    def pushed() -> bytes:
        for job in jobs:
            job.asked = True
            assert errors(push(job), job) == [None]
        return jobs[0].ledger.path.read_bytes()

    before = pushed()
    assert pushed() == before
