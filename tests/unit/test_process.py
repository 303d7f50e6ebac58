"""Objects that are notified of forks, exit and SIGTERM may be added and removed by other threads meanwhile."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from hf_summary_writer import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Member:
    """An object that is notified at exit."""

    close_timeout = 0.0

    def __init__(self) -> None:
        self.told = 0

    def at_sigterm(self) -> Callable[[bool], None]:
        self.told += 1
        return lambda _: None


@contextlib.contextmanager
def between_any_two_lines(step: Callable[[], object]) -> Iterator[None]:
    """Run a step before every line of the block, as another thread might."""

    def trace(*_: object) -> Any:
        step()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.fixture
def later() -> list[Member]:
    return []


def test_members_may_be_added_during_the_iteration(later: list[Member]) -> None:
    def add_one_more() -> None:
        later.append(Member())
        registry.add(later[-1])

    registry = process.Registry()
    first, second = Member(), Member()
    registry.add(first)
    registry.add(second)
    with between_any_two_lines(add_one_more):
        told = registry.newest_first()
    assert later
    assert told[-2:] == [second, first]
    assert registry.newest_first() == [*reversed(later), second, first]


def test_members_may_be_added_and_removed_while_sigterm_is_handled(later: list[Member]) -> None:
    def exchange() -> None:
        later.append(Member())
        watch._members.add(later[-1])
        watch._members.discard(later[len(later) // 2])

    watch = process._Watch()
    watch._before = signal.SIG_IGN  # or it would end this process
    member = Member()
    watch._members.add(member)
    with between_any_two_lines(exchange):
        watch._finish()
    assert member.told == 1


class Leaving:
    """An object that notes what happens to it at exit, and may fail."""

    def __init__(
        self, name: str, seen: list[str], begin: type[BaseException] | None, wait: type[BaseException] | None
    ) -> None:
        self._name, self._seen, self._begin, self._wait = name, seen, begin, wait

    def at_exit(self) -> Callable[[bool], None] | None:
        self._seen.append(f"{self._name} begins")
        if self._begin is not None:
            raise self._begin
        return self._await

    def _await(self, skip: bool) -> None:
        self._seen.append(f"{self._name} {'skips' if skip else 'waits'}")
        if self._wait is not None:
            raise self._wait

    def after_fork_in_child(self) -> None:
        self._seen.append(f"{self._name} in the child")
        if self._begin is not None:
            raise self._begin


@pytest.fixture
def leaving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function that makes objects, the newest last, and returns what they will note."""
    members: list[Leaving] = []

    def make(*failures: tuple[type[BaseException] | None, type[BaseException] | None]) -> list[str]:
        seen: list[str] = []
        for name, (begin, wait) in zip("abc", failures, strict=False):
            members.append(Leaving(name, seen, begin, wait))
            process.tell_at_exit(members[-1])
            process.tell_after_fork(members[-1])
        return seen

    for registry in ("_exit_aware", "_fork_aware"):
        monkeypatch.setattr(process, registry, process.Registry())
    return make


def test_all_begin_their_last_push_before_any_is_waited_for(leaving: Callable[..., list[str]]) -> None:
    seen = leaving((None, None), (None, None))
    process._Exit().one_pass()
    assert seen == ["b begins", "a begins", "b waits", "a waits"]


@pytest.mark.parametrize(
    ("interrupts", "then"), [(ValueError, "waits"), (KeyboardInterrupt, "skips"), (SystemExit, "skips")]
)
def test_a_failure_at_exit_costs_no_other_its_data_and_an_interrupt_skips_all_waits(
    leaving: Callable[..., list[str]], interrupts: type[BaseException], then: str
) -> None:
    seen = leaving((None, None), (None, interrupts), (ValueError, None))
    leave = process._Exit()
    leave.one_pass()
    assert seen == ["c begins", "b begins", "a begins", "b waits", f"a {then}"]
    seen.clear()
    leave.one_pass()
    assert seen[-1] == f"a {then}"


def test_functions_are_called_when_the_exit_is_over(leaving: Callable[..., list[str]]) -> None:
    seen = leaving((SystemExit, None))
    leave = process._Exit()

    def interrupted() -> None:
        raise KeyboardInterrupt

    leave.afterwards += [interrupted, lambda: seen.append(f"over: {leave.is_over}")]
    leave.last_pass()
    assert seen == ["a begins", "over: True"]


def test_an_object_that_fails_in_a_forked_child_hinders_no_other(leaving: Callable[..., list[str]]) -> None:
    seen = leaving((None, None), (ValueError, None))
    process._after_fork_in_child()
    assert seen == ["b in the child", "a in the child"]


def test_only_a_process_that_exists_runs() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as ended:
        ended.wait()
    assert [process.is_running(pid) for pid in (os.getpid(), 1, ended.pid, 10**30)] == [True, True, False, False]


def test_objects_are_shared_by_key_while_one_user_holds_them() -> None:
    class Shared:
        pass

    first = process.shared("a key of this test", Shared)
    assert process.shared("a key of this test", Shared) is first
    assert process.shared("another key", Shared) is not first


def theirs(*_: object) -> None:
    """Do nothing, as a handler of the user's."""


@pytest.fixture
def sigterm() -> Iterator[process._Watch]:
    """Return a watch in a process whose SIGTERM handler and wake-up descriptor are the user's."""
    before = signal.signal(signal.SIGTERM, theirs)
    descriptor = signal.set_wakeup_fd(-1)
    yield process._Watch()
    signal.signal(signal.SIGTERM, before)
    signal.set_wakeup_fd(descriptor)


def wakeup_fd() -> int:
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
    return descriptor


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def join_the_thread() -> None:
    for thread in threading.enumerate():
        if thread.name == "hf-summary-writer-sigterm":
            thread.join(10)


def test_the_earlier_handler_comes_back_with_the_last_member(sigterm: process._Watch) -> None:
    before = descriptors()
    first, second = Member(), Member()
    for member in (first, second):
        sigterm.add(member)
    assert signal.getsignal(signal.SIGTERM) == sigterm._handle
    assert wakeup_fd() != -1
    sigterm.remove(first)
    assert signal.getsignal(signal.SIGTERM) == sigterm._handle
    sigterm.remove(second)
    assert (signal.getsignal(signal.SIGTERM), wakeup_fd()) == (theirs, -1)
    join_the_thread()
    assert descriptors() == before


def test_a_handler_that_the_user_sets_later_stays(sigterm: process._Watch) -> None:
    member = Member()
    sigterm.add(member)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sigterm.remove(member)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_the_wake_up_descriptor_of_an_event_loop_stays(sigterm: process._Watch) -> None:
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    member = Member()
    sigterm.add(member)
    assert wakeup_fd() == writable
    sigterm.remove(member)
    assert signal.set_wakeup_fd(-1) == writable
    for descriptor in (readable, writable):
        os.close(descriptor)


def test_a_member_that_leaves_in_another_thread_leaves_the_handler(sigterm: process._Watch) -> None:
    member = Member()
    sigterm.add(member)
    with ThreadPoolExecutor(1) as other:
        other.submit(sigterm.remove, member).result()
    assert signal.getsignal(signal.SIGTERM) == sigterm._handle
    sigterm.remove(member)
    assert signal.getsignal(signal.SIGTERM) is theirs


def test_without_a_thread_the_handler_is_not_installed(
    sigterm: process._Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = descriptors()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError):
        sigterm.add(Member())
    assert (signal.getsignal(signal.SIGTERM), wakeup_fd(), descriptors()) == (theirs, -1, before)


def test_no_fork_waits_again_for_an_import_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = SimpleNamespace(reached=threading.Event(), go_on=threading.Event())
    (tmp_path / "hanging_module.py").write_text("import its_events as e; e.reached.set(); e.go_on.wait()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "its_events", events)
    monkeypatch.setattr(process, "_OWN_FILES", __file__)
    monkeypatch.setattr(process, "_LONGEST_IMPORT_SECONDS", 0.0)
    thread = threading.Thread(target=lambda: importlib.import_module("hanging_module"), daemon=True)
    thread.start()
    events.reached.wait()
    assert process._importing() == {thread.ident}
    process._let_imports_end()
    assert process._importing() == set()
    events.go_on.set()
    thread.join()


def test_a_garbage_collection_does_not_hang_while_a_fork_looks_for_imports() -> None:
    code = (
        "import gc, threading\n"
        "from hf_summary_writer import process\n"
        "class Garbage: pass\n"
        "for threshold in range(1, 30):\n"
        "    gc.set_threshold(threshold)\n"
        "    for _ in range(20):\n"
        "        garbage = Garbage(); garbage.itself, garbage.local = garbage, threading.local()\n"
        "        garbage.local.value = 1\n"
        "        del garbage\n"
        "        process._let_imports_end()\n"
        "assert gc.isenabled()\n"
        "gc.disable(); process._let_imports_end()\n"
        "assert not gc.isenabled()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
