"""Clients other than `huggingface_hub` work with the local Hub."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hf_summary_writer.localhub import LocalHub

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(300)
# The folder with npm's installation of @huggingface/hub.
NODE_FOLDER = os.environ.get("OTHER_CLIENTS_NODE")
STEPS = 69


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub(tmp_path / "hub") as running:
        yield running


@pytest.mark.skipif(NODE_FOLDER is None, reason="OTHER_CLIENTS_NODE names no folder with @huggingface/hub")
def test_huggingface_js_makes_all_its_calls(hub: LocalHub) -> None:
    script = Path(NODE_FOLDER or "", "hub.mjs")
    shutil.copy(Path(__file__).with_name("hub.mjs"), script)
    command = ["node", script.name, hub.endpoint, hub.token, "local"]
    done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith("ok ")] == []
    assert len(lines) == STEPS


def test_a_dataset_is_pushed_and_loaded(hub: LocalHub, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    script = """
import datasets
rows = datasets.Dataset.from_dict({"step": list(range(1000)), "loss": [1 / (n + 1) for n in range(1000)]})
rows.push_to_hub("local/rows", private=True)
rows.push_to_hub("local/rows", config_name="more", split="test")
assert datasets.load_dataset("local/rows", split="train")["step"][:] == rows["step"][:]
assert datasets.load_dataset("local/rows", "more", split="test").num_rows == 1000
assert sum(1 for _ in datasets.load_dataset("local/rows", split="train", streaming=True)) == 1000
print("done")
"""
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.endswith("done\n"), done.stderr[-3000:]
