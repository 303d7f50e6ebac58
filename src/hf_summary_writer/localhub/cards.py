"""Validation of the metadata block at the top of a README.md, as on the Hub."""

from __future__ import annotations

import re
from typing import Any

import yaml  # type: ignore[import-untyped]

_BLOCK = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(?P<yaml>.*?)\r?\n?---[ \t]*(\r?\n|\Z)", re.DOTALL)
# Parsing this much takes about one second.
_MAX_METADATA_CHARACTERS = 64 * 1024
_MAX_ERROR_CHARACTERS = 500
_LISTS = ("tags", "model-index", "datasets", "metrics", "pipeline_tags")
_EMPTY = "empty or missing yaml metadata in repo card"


def check_card(content: str) -> tuple[list[str], list[str]]:
    """Return the Hub's warnings and errors about the metadata of a README.md."""
    match = _BLOCK.match(content[:_MAX_METADATA_CHARACTERS])
    if not match and len(content) > _MAX_METADATA_CHARACTERS and content.lstrip("\ufeff\r\n ").startswith("---"):
        return [], [f"The metadata is longer than {_MAX_METADATA_CHARACTERS} characters."]
    if not match or not match["yaml"].strip():
        return [_EMPTY], []
    try:
        metadata = yaml.safe_load(match["yaml"])
    except (yaml.YAMLError, RecursionError) as error:
        return [], [f"The metadata is not YAML: {' '.join(str(error).split())[:_MAX_ERROR_CHARACTERS]}"]
    if metadata is None:
        return [_EMPTY], []
    if not isinstance(metadata, dict):
        return [], ["The metadata must be a mapping of names to values."]
    return [], list(_wrong_fields(metadata))


def _wrong_fields(metadata: dict[Any, Any]) -> list[str]:
    errors = [
        f'"{name}" must be an array'
        for name in _LISTS
        if name in metadata and metadata[name] is not None and not isinstance(metadata[name], list)
    ]
    if not isinstance(metadata.get("license", ""), str | list | None):
        errors.append('"license" must be a string or an array')
    return errors
