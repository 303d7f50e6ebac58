"""A Hub on this machine that speaks the Hub's own HTTP API to the real `huggingface_hub` client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_summary_writer.localhub.accounts import Organization, User
    from hf_summary_writer.localhub.server import LocalHub
    from hf_summary_writer.localhub.stats import Count, LoggedRequest, Stats

__all__ = ["Count", "LocalHub", "LoggedRequest", "Organization", "Stats", "User"]

_HOMES = {
    **dict.fromkeys(("Organization", "User"), "accounts"),
    "LocalHub": "server",
    **dict.fromkeys(("Count", "LoggedRequest", "Stats"), "stats"),
}


def __getattr__(name: str) -> Any:
    # On first use, so that the command can say which packages it needs where they are not installed.
    if name in _HOMES:
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
