"""Keeps `torch.compile` from tracing into the code of this package.

A traced writer would be wrong (a time that is a constant) or slow (a guard for each imported module). The public
function, `torch.compiler.disable`, imports torch's compiler, which takes seconds, only to mark functions like this.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_state = {"is_done": False}


def keep_out_of_graphs() -> None:
    """Mark all functions of the package, once torch is imported; without effect before that."""
    torch = sys.modules.get("torch")
    if _state["is_done"] or not hasattr(torch, "_C"):
        return
    _state["is_done"] = True
    # Private names, which other versions of torch may lack: there it traces, which works for most calls.
    with contextlib.suppress(AttributeError, TypeError):
        frames: Any = torch._C._dynamo.eval_frame  # type: ignore[union-attr]  # noqa: SLF001
        skip = frames._FrameExecStrategy(frames._FrameAction.SKIP, frames._FrameAction.SKIP)  # noqa: SLF001
        for function in _functions():
            function._torchdynamo_disable = True  # noqa: SLF001 - not to be inlined into a graph
            frames.set_code_exec_strategy(function.__code__, skip)  # nor compiled by itself, nor are its callees


def _functions() -> Iterator[Any]:
    package = __name__.rpartition(".")[0]
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{package}."):
            for member in list(vars(module).values()):
                if getattr(member, "__module__", None) == name:
                    yield from _functions_in(member)


def _functions_in(member: Any) -> Iterator[Any]:
    if inspect.isfunction(member):
        yield member
    elif inspect.isclass(member):
        for attribute in list(vars(member).values()):
            function = getattr(attribute, "fget", attribute)
            if inspect.isfunction(function):
                yield function
