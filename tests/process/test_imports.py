"""The command line and schedulers start fast, without slow imports that they do not use."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("code", ["import hf_summary_writer.cli", "from hf_summary_writer import CommitScheduler"])
def test_numpy_and_tensorboardx_are_not_imported(code: str) -> None:
    listed = f"{code}\nimport sys\nprint(*sorted({{'numpy', 'tensorboardX', 'torch'}} & sys.modules.keys()))"
    said = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.split() == []
