"""The command line and schedulers start fast, without slow imports that they do not use."""

from __future__ import annotations

import subprocess
import sys

import pytest

# What takes long to import, or brings along much that does, and is not in every process.
LIBRARIES = {"numpy", "tensorboardX", "torch"}
CLIENT = {"huggingface_hub.hf_api", "httpx", "filelock"}
RARELY_USED = {"html", "importlib.metadata", "subprocess", "tqdm"}


@pytest.mark.parametrize(
    ("code", "slow"),
    [
        ("import hf_summary_writer.cli", LIBRARIES | CLIENT),
        ("from hf_summary_writer import CommitScheduler", LIBRARIES | CLIENT | RARELY_USED),
        ("from hf_summary_writer import HFSummaryWriter", CLIENT | RARELY_USED),
    ],
)
def test_slow_modules_are_imported_only_where_they_are_used(code: str, slow: set[str]) -> None:
    before = "import tensorboardX; " if "HFSummaryWriter" in code else ""
    listed = f"import sys; {before}known = set(sys.modules); {code}; print(*sorted(set(sys.modules) - known))"
    said = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, timeout=60, check=True)
    assert slow.isdisjoint(said.stdout.split())
