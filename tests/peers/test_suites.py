"""Tests of other projects pass with our classes instead of theirs, except for listed differences."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import scripts
from peers.suites import SUITES, Suite

if TYPE_CHECKING:
    from hub_process import HubProcess

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1200)]

SECONDS = 900.0


def unpacked_tests(package: str, folder: Path) -> Path:
    """Download the source of the installed version, and return a folder with only its `tests`."""
    try:
        wanted = f"{package}=={version(package).partition('+')[0]}"
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    words = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), wanted]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, timeout=SECONDS)
    (source,) = folder.glob("*.tar.gz")
    root = folder / "suite"
    with tarfile.open(source) as archive:
        top = archive.getnames()[0].partition("/")[0]
        members = [each for each in archive if each.name.startswith(f"{top}/tests/")]
        archive.extractall(root, members, filter="data")
    # Without the package itself, which would be imported from here; some tests import from their own folder.
    (root / top / "tests" / "__init__.py").touch()
    return root / top


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.package)
def test_their_tests_pass_with_our_classes(suite: Suite, hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    root = unpacked_tests(suite.package, tmp_path)
    (root / "conftest.py").touch()  # makes this folder the root of their suite
    chosen = ("-k", suite.chosen) if suite.chosen else ()
    plugins = ("-p", "peers.replaced", "-p", "no:randomly", "-p", "no:cacheprovider")
    files = (f"tests/{name}" for name in suite.files)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "--rootdir", ".", *plugins, "-W", "ignore", "-ra", *chosen, *files],
        cwd=root,
        env={
            **scripts.environment(hub, tmp_path),
            "HF_SUMMARY_WRITER_REPO_ID": repo_id,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "SUITE": suite.package,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    print(ended.stdout)  # noqa: T201 - pytest shows it with a failure
    assert ended.returncode == 0, ended.stdout[-20_000:]
