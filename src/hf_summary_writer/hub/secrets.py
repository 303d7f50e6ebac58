"""Tokens, passwords and signatures of addresses, which no message of this package shows."""

from __future__ import annotations

import re

from hf_summary_writer.checks import SHORTEST_SECRET, without_password

_TOKENS = re.compile(r"\bhf_[A-Za-z0-9_]{6,}|(?i:bearer)\s+\S+")

# Storage takes whoever knows such an address or header for the user, for minutes or hours.
_SIGNATURES = re.compile(r"""((?:[?&][\w.-]+=|(?i:x-xet-access-token)\W{1,6}(?:b')?))[^&\s"'<>,)]{32,}""")

# The tokens that this process has sent: a Hub may repeat a request, and not all tokens look like one.
_sent: list[str] = []


def keep_secret(token: str) -> None:
    """Leave a token out of all later messages."""
    if len(token) >= SHORTEST_SECRET and token not in _sent:
        _sent.append(token)


def redacted(text: str) -> str:
    """Return `text` without tokens, passwords and signatures."""
    for token in _sent:
        text = text.replace(token, "<token>")
    return without_password(_SIGNATURES.sub(r"\1<signature>", _TOKENS.sub("<token>", text)))
