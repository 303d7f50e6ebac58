"""Keeps a forked child from hanging in the hook by which `huggingface_hub` closes its HTTP client there.

To close it, that hook takes the lock of the client's pool of connections, and writes to the log where somebody logs at
DEBUG. A thread that pushes may be inside of either at the moment of the fork; it is not there in the child to get out
again, and the child would wait for it in the middle of `os.fork`, for ever. So the child does not find the client: it
is put aside for the moment of the fork, and the parent has it back at once. Who needs a client in the child gets a new
one, as after the hook.

Both the module and its variable are private to `huggingface_hub`, so they are feature-tested; without them its hook
does what it did.
"""

from __future__ import annotations

import os
import sys
from typing import Any

__all__: list[str] = []

_MODULE, _CLIENT = "huggingface_hub.utils._http", "_GLOBAL_CLIENT"


class _Aside:
    """Holds the client during a fork; in the child for good, or its sockets would be closed with a warning."""

    def __init__(self) -> None:
        self.client: Any = None

    def put(self) -> None:
        module = sys.modules.get(_MODULE)
        if module is not None and getattr(module, _CLIENT, None) is not None:
            self.client = getattr(module, _CLIENT)
            setattr(module, _CLIENT, None)

    def give_back(self) -> None:
        client, self.client = self.client, None
        module = sys.modules.get(_MODULE)
        # Another thread may have found none, and made a new one.
        if client is not None and getattr(module, _CLIENT, client) is None:
            setattr(module, _CLIENT, client)


_aside = _Aside()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_aside.put, after_in_parent=_aside.give_back)
