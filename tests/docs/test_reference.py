"""The reference pages and the code on all pages agree with the package."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from pathlib import Path

import click
import pytest

import hf_summary_writer
from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:^|\s)hf-summary-writer (?P<arguments>(?:[^\n\\]|\\\n)*)")


def blocks(page: Path, *languages: str) -> list[str]:
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [match["code"] for match in found if match["language"] in languages]


COMMANDS = sorted(
    {
        match["arguments"].replace("\\\n", " ")
        for page in PAGES
        for code in blocks(page, "sh", "bash", "console")
        for match in COMMAND.finditer(code)
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_on_the_pages_use_existing_options(line: str) -> None:
    arguments = shlex.split(line, comments=True)
    command = main.commands[arguments[0]]
    context = click.Context(command, info_name=arguments[0], **command.context_settings)
    values, rest, _ = command.make_parser(context).parse_args(arguments[1:])
    required = {each.name for each in command.params if each.required}
    assert required <= {name for name, value in values.items() if value}
    assert rest == [] or "--" in arguments


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_code_on_the_pages_parses(page: Path) -> None:
    for code in blocks(page, "py", "python"):
        ast.parse(re.sub(r"^[%!].*", "", code, flags=re.MULTILINE))


def test_the_reference_lists_all_inherited_arguments() -> None:
    listed = set(
        re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/reference/python.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    inherited = inspect.signature(HFSummaryWriter.__mro__[1]).parameters
    assert set(inherited) - {"logdir", "kwargs"} <= listed


def test_the_reference_names_all_exports_of_the_package() -> None:
    page = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    assert [name for name in hf_summary_writer.__all__ if not re.search(rf"\b{name}\b", page)] == []
