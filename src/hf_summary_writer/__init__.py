"""Keep a Hugging Face Hub repo up to date with a run's TensorBoard logs while training goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_summary_writer.scheduler import CommitScheduler
    from hf_summary_writer.writer import HFSummaryWriter

__all__ = ["CommitScheduler", "HFSummaryWriter"]

_HOMES = {"CommitScheduler": "hf_summary_writer.scheduler", "HFSummaryWriter": "hf_summary_writer.writer"}


def __getattr__(name: str) -> Any:
    # Public names are imported on first use, so that a scheduler alone does not pay for tensorboardX.
    if name in _HOMES:
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
