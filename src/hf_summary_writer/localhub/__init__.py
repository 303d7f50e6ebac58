"""A Hub on this machine that speaks the Hub's own HTTP API to the real `huggingface_hub` client."""

from __future__ import annotations

from hf_summary_writer.localhub.server import LocalHub, serve
from hf_summary_writer.localhub.stats import Count, LoggedRequest, Stats

__all__ = ["Count", "LocalHub", "LoggedRequest", "Stats", "serve"]
