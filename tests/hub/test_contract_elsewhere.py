"""The contract suite can run against another Hub and then sends requests to that Hub only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from conftest import CONTRACT_VARIABLES
from hub_process import HubProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTRACT = Path(__file__).with_name("test_contract.py")
ENDPOINT, TOKEN = CONTRACT_VARIABLES


def run_contract(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name not in CONTRACT_VARIABLES}
    command: Sequence[str | Path] = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", CONTRACT, *arguments]
    return subprocess.run(
        command,
        env=known | environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=CONTRACT.parents[2],
    )


def test_requests_of_the_contract_reach_the_named_hub(tmp_path: Path) -> None:
    with HubProcess(tmp_path) as other:
        done = run_contract({ENDPOINT: other.endpoint, TOKEN: other.token}, "-k", "created_once or deleted_repo")
        assert done.returncode == 0, done.stdout
        assert f"contract against: {other.endpoint}" in done.stdout
        assert "4 passed" in done.stdout
        assert [each for each in other.requests if each.path == "/api/repos/create"]
        assert not list((tmp_path / "repos").glob("*/*/*.git")), "every repo is deleted at the end"


def test_an_incomplete_or_wrong_login_fails_the_contract(hub: HubProcess) -> None:
    for environment in ({ENDPOINT: hub.endpoint}, {ENDPOINT: hub.endpoint, TOKEN: "hf_wrong"}):
        done = run_contract(environment, "-k", "deleted_repo")
        assert done.returncode != 0
        assert "1 error" in done.stdout
