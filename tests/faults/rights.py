"""Drop root's capability to ignore file permissions temporarily."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["an_ordinary_user"]

# From linux/capability.h: the 64-bit version of the call, and the capabilities to ignore file permissions.
_VERSION_3 = 0x20080522
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1 << 1, 1 << 2


@contextlib.contextmanager
def an_ordinary_user() -> Iterator[None]:
    """Enforce file permissions for this thread and the threads that it starts, even for root."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    # Effective, permitted and inheritable sets, first for the low 32 capabilities, then for the high ones.
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
