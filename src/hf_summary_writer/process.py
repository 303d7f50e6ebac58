"""The one place for process-wide state: what parts of it share, and who is told when it forks and when it exits.

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
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["ExitAware", "ForkAware", "shared", "tell_after_fork", "tell_at_exit"]

T = TypeVar("T")


@runtime_checkable
class ForkAware(Protocol):
    """Is told, in a forked child, that only the calling thread is left."""

    def after_fork_in_child(self) -> None:
        """Put fresh locks in place and forget threads; never log, never wait: other locks may be held for ever."""


@runtime_checkable
class ExitAware(Protocol):
    """Is told that the interpreter is about to exit; may be told twice."""

    def at_exit(self) -> Callable[[bool], None] | None:
        """Begin to finish without waiting; return what waits for the end, in bounded time, if there is anything.

        What is returned is called with whether the user is in a hurry, and then must not wait.
        """


class _Registry:
    """Weakly held objects in the order in which they came."""

    def __init__(self) -> None:
        self._next = 0
        self._members: weakref.WeakValueDictionary[int, object] = weakref.WeakValueDictionary()

    def add(self, member: object) -> None:
        # A plain counter and a dict store are atomic under the GIL; a lock here could be held at a fork.
        self._next += 1
        self._members[self._next] = member

    def newest_first(self) -> list[object]:
        return [member for _, member in sorted(self._members.items(), reverse=True)]


_fork_aware = _Registry()
_exit_aware = _Registry()


def tell_after_fork(member: ForkAware) -> None:
    """Call `member.after_fork_in_child()` in every child this process forks, for as long as `member` lives."""
    _fork_aware.add(member)


def tell_at_exit(member: ExitAware) -> None:
    """Call `member.at_exit()` when the interpreter exits, newest member first, for as long as `member` lives."""
    _exit_aware.add(member)


class _Shared:
    """What all parts of the process that name the same key share, for as long as one of them holds it."""

    def __init__(self) -> None:
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        # What the parent shares may be locked for ever.
        self._lock = threading.Lock()
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
    """Return what others in this process got for `key`, or what `make` returns if nobody holds such a thing."""
    return _shared.get(key, make)


def _after_fork_in_child() -> None:
    for member in _fork_aware.newest_first():
        with contextlib.suppress(Exception):
            member.after_fork_in_child()  # type: ignore[attr-defined]


class _Exit:
    """Both passes of one exit.

    All members begin before any is waited for, so that ten writers do not wait ten times as long as one. One member's
    trouble must not cost the next one its data, and exit code and streams are the user's.
    """

    def __init__(self) -> None:
        self._hurry = False

    def one_pass(self) -> None:
        waits: list[Callable[[bool], None] | None] = []
        for member in _exit_aware.newest_first():
            self._guarded(lambda member=member: waits.append(member.at_exit()))  # type: ignore[misc]
        for wait in filter(None, waits):
            self._guarded(lambda wait=wait: wait(self._hurry))  # type: ignore[misc]

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            with contextlib.suppress(Exception):
                step()
        except KeyboardInterrupt:
            # One Ctrl-C skips the wait, all of it: that of the other members, and of the other pass.
            self._hurry = True


_exit = _Exit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
with contextlib.suppress(AttributeError, RuntimeError):
    threading._register_atexit(_exit.one_pass)  # type: ignore[attr-defined]  # noqa: SLF001 - feature-tested
atexit.register(_exit.one_pass)
