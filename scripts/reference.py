"""MkDocs hook: generate the parts of the reference that come from the code.

`<!-- generated: commands -->` becomes the reference of the command line, `<!-- generated: add methods -->` the table of
all `add_*` methods. As an extension of Griffe it shows defaults by their values instead of the names of constants.
"""

from __future__ import annotations

import inspect
import re
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click
import griffe

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "hf-summary-writer"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers of a page by the generated parts."""
    for name, generate in GENERATED.items():
        marker = f"<!-- generated: {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, "\n".join(generate()))
    return markdown


def commands() -> Iterator[str]:
    """Yield the reference of every command: usage, description and options, as `--help` shows them."""
    from hf_summary_writer.cli import main

    group = click.Context(main, info_name=PROGRAM, **main.context_settings)
    yield from _command(group)
    for name, command in sorted(main.commands.items()):
        yield from _command(click.Context(command, parent=group, info_name=name))


def _command(context: click.Context) -> Iterator[str]:
    command = context.command
    yield f"## {context.command_path}\n"
    yield f"```text\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(command.help or "")):
        # Click ends the text of `--help` at a form feed; a backspace marks lines that are not to be wrapped.
        text = paragraph.partition("\f")[0]
        if text.startswith("\b\n"):
            yield f"```text\n{inspect.cleandoc(text[2:])}\n```\n"
        else:
            yield f"{_escaped(text)}\n"
    yield "| Option | Description |\n| --- | --- |"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            yield f"| `{record[0]}` | {_escaped(record[1])} |"
    yield ""


def _escaped(text: str) -> str:
    """Return plain text as Markdown, with options as code."""
    text = re.sub(r"[\\*_<>|\[\]]", lambda found: f"&#{ord(found[0])};", " ".join(text.split()))
    return re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)\b", r"`\1`", text)


def add_methods() -> Iterator[str]:
    """Yield a table of all methods that log something."""
    from hf_summary_writer import HFSummaryWriter

    yield "| Method | Logs |\n| --- | --- |"
    for name, method in inspect.getmembers(HFSummaryWriter, inspect.isfunction):
        if name.startswith("add_"):
            sentence = re.match(r".*?\.(?=\s|$)", inspect.getdoc(method) or "", re.DOTALL)
            summary = sentence[0] if sentence else ""
            yield f"| `{name}({', '.join(_arguments(method))})` | {_escaped(summary)} |"


def _arguments(method: Any) -> Iterator[str]:
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        name = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
        yield name if parameter.default is parameter.empty else f"{name}={parameter.default!r}"


GENERATED = {"commands": commands, "add methods": add_methods}


class Defaults(griffe.Extension):
    """Show the value of a default that the source gives by the name of a constant."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Replace the names of constants."""
        for parameter in func.parameters:
            name = str(parameter.default)
            if name.isidentifier() and name.isupper():
                module = sys.modules.get(func.module.path) or import_module(func.module.path)
                parameter.default = repr(getattr(module, name))
