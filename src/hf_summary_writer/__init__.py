"""Keep a Hugging Face Hub repo up to date with a run's TensorBoard logs while training goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_summary_writer.errors import (
        ActionNeededError,
        CommitDetails,
        ErrorDetails,
        PushError,
        RateLimitError,
        RejectedError,
        RepoGoneError,
        StallDetails,
        TemporaryError,
    )
    from hf_summary_writer.events import Scalars
    from hf_summary_writer.push import Status
    from hf_summary_writer.reading import read
    from hf_summary_writer.scheduler import CommitScheduler
    from hf_summary_writer.viewing import view
    from hf_summary_writer.writer import HFSummaryWriter

    __version__: str

__all__ = [
    "ActionNeededError",
    "CommitDetails",
    "CommitScheduler",
    "ErrorDetails",
    "HFSummaryWriter",
    "PushError",
    "RateLimitError",
    "RejectedError",
    "RepoGoneError",
    "Scalars",
    "StallDetails",
    "Status",
    "TemporaryError",
    "__version__",
    "read",
    "view",
]

_HOMES = {
    "CommitScheduler": "scheduler",
    "HFSummaryWriter": "writer",
    "Scalars": "events.scalars",
    "Status": "push.status",
    "read": "reading",
    "view": "viewing",
}


def __getattr__(name: str) -> Any:
    # Public names are imported on first use, so that a scheduler alone does not pay for tensorboardX.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("hf-summary-writer")
    else:
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
