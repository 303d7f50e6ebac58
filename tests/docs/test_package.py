"""The distribution on PyPI is complete: links in the description work, and the sdist has all cited files."""

from __future__ import annotations

import json
import re
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
SITE = "https://hf-summary-writer.readthedocs.io/en/latest/"


def test_links_of_the_pypi_description_point_to_existing_pages() -> None:
    installed = distribution("hf-summary-writer")
    if json.loads(installed.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable"):
        pytest.skip("an editable install keeps the description of an earlier commit")
    description = installed.metadata.json["description"]
    links = re.findall(r"\]\(([^)]+)\)", str(description))
    assert len(links) > 5
    for link in links:
        assert link.startswith("https://")
        if link.startswith(SITE):
            name = link.removeprefix(SITE).partition("#")[0]
            page = f"{name.rstrip('/')}.md" if name.endswith("/") else name
            assert (ROOT / "docs" / page).is_file(), link


def test_the_documentation_has_one_address() -> None:
    for name in ("mkdocs.yml", "pyproject.toml"):
        addresses = re.findall(r"https://[\w.-]*readthedocs\.io/[\w./-]*", (ROOT / name).read_text(encoding="utf-8"))
        assert set(addresses) == {SITE}, name


def test_the_sdist_has_every_file_that_the_documentation_cites() -> None:
    tomllib = pytest.importorskip("tomllib")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = settings["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    cited = set()
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        words = {word for code in re.findall(r"`([^`\n]+)`", text) for word in code.split()}
        links = {link.partition("#")[0] for link in re.findall(r"\]\(([^):]+)\)", text)}
        cited |= {word for word in words if "/" in word.strip("/") and (ROOT / word).exists()}
        cited |= {(page.parent / link).resolve().relative_to(ROOT).as_posix() for link in links if link}
    assert len(cited) > 20
    missing = [
        path
        for path in sorted(cited)
        if not any(path.startswith(f"{each}/") or PurePosixPath(path).match(each) for each in included)
    ]
    assert missing == []
