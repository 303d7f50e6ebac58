"""List every warning and error that the library can log; docs/troubleshooting.md must explain each of them.

    python scripts/messages.py

Variable parts are shown as `…`. A test compares the list with the page.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "hf_summary_writer"
LEVELS = {"warning", "error", "exception", "critical", "log"}
# Errors that reach a warning as its reason, and the functions that make them.
ERRORS = re.compile(
    r"(ActionNeeded|BranchGone|Deadline|FolderBusy|InterruptedPush|RateLimit|Rejected|RepoGone|Temporary)Error"
)
PLACEHOLDER = re.compile(r"%\.?\d*[sdrfa]|%%")
GAPS = re.compile(r"…(?:['\"]?…)+")


@dataclass(frozen=True)
class Message:
    """A message and the place in the source that it comes from."""

    text: str
    place: str


def messages(package: Path = PACKAGE) -> list[Message]:
    """Return the warnings and errors of all modules but the local Hub's, in source order."""
    found = []
    for path in sorted(package.rglob("*.py")):
        if "localhub" not in path.parts:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found += [Message(text, f"{path.relative_to(ROOT)}:{line}") for line, text in _in_module(tree)]
    return found


def _in_module(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for scope in ast.walk(tree):
        if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(scope):
                argument = _message_argument(node)
                if argument is not None:
                    for text in _texts(argument, scope):
                        # Without letters it only passes on another message.
                        if re.search(r"[A-Za-z]{3}", text):
                            yield argument.lineno, text


def _message_argument(node: ast.AST) -> ast.expr | None:
    """Return the expression of the message, if `node` is a call that logs one or makes an error of a push."""
    if not isinstance(node, ast.Call):
        return None
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    if name in LEVELS and "logger" in owner:
        return node.args[1 if name == "log" else 0]
    if name == "warn" and len(node.args) > 1:  # of disk.Once: a key and the message
        return node.args[1]
    if ERRORS.fullmatch(name) and node.args:
        return node.args[0]
    return None


def _texts(expression: ast.expr, scope: ast.AST) -> list[str]:
    """Return the possible texts of an expression, looking up names that the function assigns."""
    if isinstance(expression, ast.Constant):
        return [PLACEHOLDER.sub("…", str(expression.value))]
    if isinstance(expression, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in expression.values]
        return [GAPS.sub("…", "".join(parts))]
    if isinstance(expression, ast.IfExp):
        return _texts(expression.body, scope) + _texts(expression.orelse, scope)
    if isinstance(expression, ast.Name):
        return [
            text
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id == expression.id for target in node.targets)
            and not isinstance(node.value, ast.Name)
            for text in _texts(node.value, scope)
        ]
    return []


if __name__ == "__main__":
    for message in messages():
        print(f"{message.place}  {message.text}")
