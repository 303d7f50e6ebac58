"""Takes from the superuser, for a while, the right to read and write what others may not."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["an_ordinary_user"]

# From linux/capability.h: the 64-bit version of the call, and what lets root pass over the permissions of files.
_VERSION_3 = 0x20080522
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1 << 1, 1 << 2


@contextlib.contextmanager
def an_ordinary_user() -> Iterator[None]:
    """Let permissions of files mean something to this thread, and to those that it starts, also for root."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    # Effective, permitted and inheritable, first for the low 32 capabilities and then for the high ones.
    before = (ctypes.c_uint32 * 6)()
    _checked(libc.capget(header, before))
    lowered = (ctypes.c_uint32 * 6)(*before)
    lowered[0] &= ~(_DAC_OVERRIDE | _DAC_READ_SEARCH)
    _checked(libc.capset(header, lowered))
    try:
        yield
    finally:
        _checked(libc.capset(header, before))


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
