"""Compare the public methods of another `SummaryWriter` with ours, argument by argument."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import TYPE_CHECKING

from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.events.summaries import Trial
from hf_summary_writer.events.writer import EventWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["displaced", "strangers"]

_OF_THE_CALLEE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def strangers(theirs: type) -> list[str]:
    """Return the methods and keywords of `theirs` that ours lacks or gives another default."""
    return [
        stranger
        for name, method in _public(theirs)
        for stranger in (
            [f"{name}({keyword})" for keyword in _unknown(name, method)] if hasattr(HFSummaryWriter, name) else [name]
        )
    ]


def displaced(theirs: type) -> set[str]:
    """Return the methods whose positional arguments differ in order between `theirs` and ours."""
    return {
        name
        for name, method in _public(theirs)
        if (wanted := _by_position(method)) != _by_position(getattr(EventWriter, name))[: len(wanted)]
    }


def _public(kind: type) -> Iterator[tuple[str, object]]:
    for name in sorted(dir(kind)):
        if (name == "__init__" or not name.startswith("_")) and callable(getattr(kind, name)):
            yield name, getattr(kind, name)


def _parameters(method: object) -> dict[str, inspect.Parameter]:
    if not callable(method):
        return {}
    found = inspect.signature(method).parameters.values()
    return {parameter.name: parameter for parameter in found if parameter.kind not in _OF_THE_CALLEE}


def _unknown(name: str, method: object) -> Iterator[str]:
    ours = {**_parameters(getattr(EventWriter, name)), **_parameters(getattr(HFSummaryWriter, name))}
    # These are recognized by their types, so they are not in the signature.
    others = {field.name: field.default for field in fields(Trial)} if name == "add_hparams" else {}
    for keyword, parameter in _parameters(method).items():
        if keyword not in ours and keyword not in others:
            yield keyword
        elif parameter.default is not inspect.Parameter.empty:
            default = ours[keyword].default if keyword in ours else others[keyword]
            if default != parameter.default:
                yield f"{keyword}={default!r}, not {parameter.default!r}"


def _by_position(method: object) -> list[str]:
    return [
        parameter.name
        for parameter in _parameters(method).values()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
