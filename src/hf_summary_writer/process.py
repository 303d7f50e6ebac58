"""All process-wide state: shared objects, and the callbacks for forks, SIGTERM and the exit.

Objects register themselves and are held weakly, so that a forgotten writer can still be collected. All hooks are
installed when this module is imported; an empty registry costs nothing.

Exit has two passes. The first runs through `threading._register_atexit`, while thread pools still work and daemon
threads still run; the second through `atexit`, because non-daemon threads of the user may log after the first. The
first hook is private to CPython, so it is feature-tested; without it the second pass does the work alone.
"""

from __future__ import annotations

import atexit

# Imported for its side effect on order: exit callbacks run newest first, and concurrent.futures registers the one
# that closes its pools when this module is imported. Ours must be newer than that, to run while pools still work.
import concurrent.futures.thread  # noqa: F401
import contextlib
import functools
import gc
import math
import os
import signal
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from types import FrameType

__all__ = [
    "EXIT_CODE",
    "ExitAware",
    "ForkAware",
    "Registry",
    "SigtermAware",
    "call_after_exit",
    "check_sigterm",
    "exit_is_over",
    "fork_count",
    "is_running",
    "let_imports_end_before_forks",
    "shared",
    "tell_after_fork",
    "tell_at_exit",
    "watch",
]

T = TypeVar("T")


class ForkAware(Protocol):
    """Is notified in a forked child, where only the calling thread is left."""

    def after_fork_in_child(self) -> None:
        """Replace locks and forget threads; never log or wait, since other locks may be held for ever."""


class ExitAware(Protocol):
    """Is notified when the interpreter is about to exit, possibly twice."""

    def at_exit(self) -> Callable[[bool], None] | None:
        """Start the last push without waiting; return a function that waits for it, in bounded time.

        The function's argument is whether the user skips the wait.
        """


class Registry:
    """Weakly held objects in the order in which they came. Any thread may use it."""

    def __init__(self) -> None:
        self._members: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: object) -> None:
        """Add a member, or make it the newest one."""
        # Each step is atomic, since a lock here could be held at a fork or by the thread that a signal interrupts.
        self.discard(member)
        self._members[id(member)] = member

    def discard(self, member: object) -> None:
        self._members.pop(id(member), None)

    def newest_first(self) -> list[Any]:
        # Taken in one step, while other threads add: a dictionary keeps the order in which its keys came.
        references = self._members.valuerefs()
        return [member for reference in reversed(references) if (member := reference()) is not None]


_fork_aware = Registry()

_exit_aware = Registry()


def tell_after_fork(member: ForkAware) -> None:
    """Call `member.after_fork_in_child()` in every child this process forks, for as long as `member` lives."""
    _fork_aware.add(member)


def tell_at_exit(member: ExitAware) -> None:
    """Call `member.at_exit()` when the interpreter exits, newest member first, for as long as `member` lives."""
    _exit_aware.add(member)


class _Shared:
    """Objects shared by key within the process, kept while one user holds them."""

    def __init__(self) -> None:
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        # The parent's lock may be held for ever. Reentrant, since a signal handler may make a writer, too.
        self._lock = threading.RLock()
        self._members: weakref.WeakValueDictionary[tuple[int, Hashable], Any] = weakref.WeakValueDictionary()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        # Some application servers fork without telling Python; hence the process in the key.
        with self._lock:
            found: T | None = self._members.get((os.getpid(), key))
            if found is None:
                found = self._members[os.getpid(), key] = make()
            return found


_shared = _Shared()

tell_after_fork(_shared)


def shared(key: Hashable, make: Callable[[], T]) -> T:
    """Return the shared object of `key`; create it with `make` if there is none."""
    return _shared.get(key, make)


# The frames of Python's import system have file names of their own.
_IMPORT_SYSTEM = "<frozen importlib"

_OWN_FILES = os.path.join(os.path.dirname(__file__), "")  # noqa: PTH120 - as in code objects

# An import takes seconds on a network disk; on a disk that hangs it never ends.
_LONGEST_IMPORT_SECONDS, _LOOK_SECONDS = 10.0, 0.001


@functools.cache
def let_imports_end_before_forks() -> None:
    """From now on, let a fork wait until no thread of this package is importing a module.

    A child has the lock of that module and not the thread that would release it, so the same import in the child, as of
    the Hub's client or a codec for images, would never end.

    Hooks run newest first. So this one has to be newer than one that keeps imports from ending, as that of `filelock`.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_let_imports_end)


# Threads whose import had not ended in time: the next fork would wait for it as long.
_given_up: set[int] = set()


def _let_imports_end() -> None:
    until = time.monotonic() + _LONGEST_IMPORT_SECONDS
    while importing := _importing():
        if time.monotonic() >= until:
            _given_up.update(importing)
            return
        time.sleep(_LOOK_SECONDS)


def _importing() -> set[int]:
    """Return the other threads that are importing a module, in a call of this package, and are not given up."""
    me = threading.get_ident()
    importing = {ident for ident, frame in _frames().items() if ident != me and _is_own_import(frame)}
    _given_up.intersection_update(importing)
    return importing - _given_up


def _frames() -> dict[int, FrameType]:
    # Until Python 3.12 a garbage collection in that call hangs if it frees a `threading.local`: python/cpython#106883.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames()  # noqa: SLF001
    finally:
        if was_enabled:
            gc.enable()


def _is_own_import(frame: FrameType | None) -> bool:
    """Return whether a thread with this frame is importing a module, in a call of this package."""
    imports = False
    while frame is not None:
        name = frame.f_code.co_filename
        imports = imports or name.startswith(_IMPORT_SYSTEM)
        if imports and name.startswith(_OWN_FILES):
            return True
        frame = frame.f_back
    return False


def _after_fork_in_child() -> None:
    for member in _fork_aware.newest_first():
        with contextlib.suppress(Exception):
            member.after_fork_in_child()


class _Forks:
    def __init__(self) -> None:
        self.count = 0

    def note(self) -> None:
        self.count += 1


_forks = _Forks()


def fork_count() -> int:
    """Return how many children this process has forked, as far as Python knows."""
    return _forks.count


class _Exit:
    """Both passes of one exit.

    All members begin before any is waited for, so that ten writers do not wait ten times as long as one. One member's
    failure must not cost the next one its data, and exit code and streams are the user's.
    """

    def __init__(self) -> None:
        self._skips_waits = False
        self.is_over = False
        self.afterwards: list[Callable[[], object]] = []

    def last_pass(self) -> None:
        try:
            self.one_pass()
        finally:
            self.is_over = True
            for function in self.afterwards:
                self._guarded(function)

    def one_pass(self) -> None:
        waits: list[Callable[[bool], None] | None] = []
        for member in _exit_aware.newest_first():
            self._guarded(lambda member=member: waits.append(member.at_exit()))  # type: ignore[misc]
        for wait in filter(None, waits):
            self._guarded(lambda wait=wait: wait(self._skips_waits))  # type: ignore[misc]

    def _guarded(self, step: Callable[[], object]) -> None:
        try:
            with contextlib.suppress(Exception):
                step()
        except BaseException:  # noqa: BLE001 - of Ctrl-C, or of a signal handler that exits
            # One of them skips the wait, all of it: that of the other members, and of the other pass.
            self._skips_waits = True


_exit = _Exit()


def call_after_exit(function: Callable[[], object]) -> None:
    """Call `function` after the last pass of the exit, when `exit_is_over` already."""
    _exit.afterwards.append(function)


def is_running(pid: int) -> bool:
    """Return whether a process of this machine may still run; on Windows nothing is known."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it belongs to another user
        pass
    return True


def exit_is_over() -> bool:
    """Return whether the last pass of the exit is over: code that still runs has to finish its own uploads.

    Exit handlers that were registered before this module was imported, daemon threads and finalizers still run.
    """
    return _exit.is_over or sys.is_finalizing()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child, after_in_parent=_forks.note)

with contextlib.suppress(AttributeError, RuntimeError):
    threading._register_atexit(_exit.one_pass)  # type: ignore[attr-defined]  # noqa: SLF001 - feature-tested

atexit.register(_exit.last_pass)

EXIT_CODE = 128 + 15


class SigtermAware(Protocol):
    """Has something to finish when SIGTERM comes."""

    close_timeout: float

    def at_sigterm(self) -> Callable[[bool], None]:
        """Begin to finish without waiting; return a function that waits for the end, up to `close_timeout` seconds."""


def check_sigterm() -> None:
    """Check that the calling thread may set a handler of SIGTERM.

    Raises:
        ValueError: If it may not.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before is None:
        raise ValueError("push_on_sigterm=True: SIGTERM has a handler that is not Python's and cannot be kept")
    try:
        signal.signal(signal.SIGTERM, before)
    except ValueError:
        raise ValueError(
            "push_on_sigterm=True needs the main thread of the main interpreter: only there can Python set a handler"
            " of a signal"
        ) from None


def _longest(members: list[SigtermAware]) -> float:
    return max((member.close_timeout for member in members), default=0.0)


# The bytes that the pipe of `_Watch` carries besides signal numbers.
_STOP, _HANDLED = b"\x00", b"\xff"

# A child that was just forked writes the signals that it gets to its parent's pipe, until its hooks have run.
_SECONDS_OF_BIRTH = 5.0


class _Watch:
    """The SIGTERM handler of this process and the thread that makes the last push; both exist while there are members.

    Python runs a handler between two bytecodes of the main thread, so not during a long call of C. But the
    signal's number is written to the wake-up descriptor at once, and the thread reads it from there.
    """

    def __init__(self) -> None:
        self._pipe: tuple[int, int] | None = None
        self._forked_at = -math.inf
        self._reset()
        tell_after_fork(self)

    def _reset(self) -> None:
        self._pid = os.getpid()
        # Reentrant: a signal handler may close a writer while its thread is inside.
        self._lock = threading.RLock()
        self._members = Registry()
        self._before: Any = signal.SIG_DFL
        self._is_handled = self._ends_by_itself = False

    def add(self, member: SigtermAware) -> None:
        """Have `member` finish when SIGTERM comes; only in the main thread.

        Raises:
            ValueError: If this is not the main thread of the main interpreter.
            RuntimeError: If no thread can be started any more.
            OSError: If the process may open no more files.
        """
        with self._lock:
            installed = signal.getsignal(signal.SIGTERM)
            if installed != self._handle:
                signal.signal(signal.SIGTERM, self._handle)
                self._before = installed
            if self._pipe is None:
                try:
                    self._pipe = self._start()
                except (OSError, RuntimeError):
                    self._put_back()
                    raise
                others = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
                if others != -1:  # the descriptor of an event loop; then only the handler wakes the thread
                    signal.set_wakeup_fd(others)
            self._members.add(member)

    def _start(self) -> tuple[int, int]:
        pipe = os.pipe()
        try:
            os.set_blocking(pipe[1], False)
            threading.Thread(target=self._run, args=pipe, name="hf-summary-writer-sigterm", daemon=True).start()
        except (OSError, RuntimeError):
            for descriptor in pipe:
                os.close(descriptor)
            raise
        return pipe

    def remove(self, member: SigtermAware) -> None:
        """Remove `member`; with the last one restore the earlier handler."""
        with self._lock:
            self._members.discard(member)
            if self._members or self._pipe is None:
                return
            # Only the main thread may restore a handler. From other threads ours stays and calls the earlier handler.
            with contextlib.suppress(ValueError):
                self._put_back()
                self._tell(_STOP)
                self._pipe = None

    def note_fork(self) -> None:
        """Note the time of a fork."""
        self._forked_at = time.monotonic()

    def after_fork_in_child(self) -> None:
        """Put the handler back in the child, whose parent may count on SIGTERM to end it."""
        with contextlib.suppress(ValueError):
            self._put_back()
        pipe, self._pipe = self._pipe, None
        for descriptor in pipe or ():
            os.close(descriptor)
        self._reset()

    def _put_back(self) -> None:
        if self._pipe is not None:
            others = signal.set_wakeup_fd(-1)
            if others not in (-1, self._pipe[1]):
                signal.set_wakeup_fd(others)
        if signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, self._before)

    def _tell(self, mark: bytes) -> None:
        if self._pipe is not None:
            with contextlib.suppress(BlockingIOError):  # full of other signals, which wake the thread as well
                os.write(self._pipe[1], mark)

    def _handle(self, number: int, frame: Any) -> None:
        is_watched = bool(self._members) and self._pid == os.getpid()
        if is_watched:
            self._is_handled = True
            self._tell(_HANDLED)
        if callable(self._before):
            try:
                self._before(number, frame)
            except BaseException:
                self._ends_by_itself = True
                raise
        elif self._before is signal.SIG_DFL:
            if is_watched:
                self._give_way()
            else:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)

    def _give_way(self) -> None:
        """Wait in the main thread until the other thread ends the process.

        A call of C that holds the interpreter and runs handlers, such as a match of a regular expression, lets no other
        thread run but while a handler waits. It waits half the time, since the main thread may have been interrupted
        while it held a lock that the last push needs, of `logging` for example.
        """
        time.sleep(_longest(self._members.newest_first()) / 2)

    def _run(self, readable: int, writable: int) -> None:
        began_early = False
        while True:
            for mark in os.read(readable, 4096):
                if mark == _STOP[0]:
                    os.close(readable)
                    os.close(writable)
                    return
                if mark == signal.SIGTERM and time.monotonic() > self._forked_at + _SECONDS_OF_BIRTH:
                    began_early = True
                    self._finish()
                elif mark == _HANDLED[0]:
                    if not began_early:
                        self._finish()
                    began_early = False

    def _finish(self) -> None:
        came = time.monotonic()
        members: list[SigtermAware] = self._members.newest_first()
        if not members:
            return
        grace = came + _longest(members)
        waits: list[Callable[[bool], None]] = []
        for member in members:
            with contextlib.suppress(Exception):
                waits.append(member.at_sigterm())
        for wait in waits:
            with contextlib.suppress(Exception):
                wait(False)
        if self._before is signal.SIG_IGN:
            return
        if callable(self._before):
            main = threading.main_thread().ident
            if not self._is_handled and main is not None:
                # It came just before the main thread began to wait, or to another thread: nothing ends that wait.
                signal.pthread_kill(main, signal.SIGTERM)
            time.sleep(max(0.0, grace - time.monotonic()))
        if not self._ends_by_itself:
            os._exit(EXIT_CODE)


watch: _Watch = _Watch()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=watch.note_fork)
