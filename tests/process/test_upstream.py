"""A later tensorboardX may call what is private to it by other names: what is logged is written all the same."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorboardX

import events

# Names of tensorboardX that this package uses besides the documented classes, and modules.
FUNCTIONS = [
    "make_histogram", "image", "audio", "video", "mesh", "pr_curve", "scalar", "hparams", "make_np",
    "make_mat", "make_sprite", "make_tsv", "append_pbtxt", "TB_MAX_SPRITE_SIZE", "REGISTERED_FACTORIES",
    "EventFileWriter",
]  # fmt: skip
ATTRIBUTES = [
    "_get_file_writer", "_write_to_disk", "_filename_suffix", "_flush_secs", "_comet_config", "_comet_logger",
    "_get_comet_logger", "_default_metadata", "_max_queue",
]  # fmt: skip
MODULES = ["writer", "event_file_writer", "summary", "embedding", "x2num", "record_writer"]

LOG = """
import sys
import numpy as np
from hf_summary_writer.events import EventWriter
with EventWriter(sys.argv[1]) as writer:
    for step in range(3):
        writer.add_scalar("loss", np.float32(step), step)
        writer.add_scalar("named", step, step, 1.0, "display", "description")
    writer.add_histogram("histogram", np.arange(10), 0)
    writer.add_image("image", np.zeros((3, 4, 4), np.uint8), 0)
    writer.add_text("text", "words", 0)
    writer.add_scalars("both", {"a": 1, "b": 2}, 0)
    writer.add_hparams({"rate": 0.1}, {"accuracy": 1.0}, "trial")
    writer.add_embedding(np.zeros((3, 2)), ["a", "b", "c"], global_step=0)
"""


def renamed(folder: Path, pattern: str, name: str) -> Path:
    """Copy tensorboardX into a folder, with another name for what a regular expression finds."""
    copy = folder / "tensorboardX"
    shutil.copytree(Path(tensorboardX.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    found = re.compile(pattern)
    for path in copy.rglob("*.py"):
        path.write_text(found.sub(f"{name}_renamed", path.read_text(encoding="utf-8")), encoding="utf-8")
    for path in (copy / name, copy / f"{name}.py"):
        if path.exists():
            path.rename(path.with_name(path.name.replace(name, f"{name}_renamed")))
    return folder


def log_with(upstream: Path, logdir: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(upstream)!r})\n{LOG}"
    command = [sys.executable, "-W", "ignore", "-c", code, str(logdir)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


PATTERNS = {
    # Not a field of a protocol buffer or an argument that has the same name.
    **{name: rf"(?<![.])\b{name}\b(?!=)" for name in FUNCTIONS},
    **{name: rf"\b{name}\b" for name in ATTRIBUTES},
    **{name: rf"(?<=from [.]){name}\b|(?<=import ){name}\b" for name in MODULES},
}


@pytest.mark.faults("M3")
@pytest.mark.parametrize("name", PATTERNS)
def test_a_private_name_that_changes_costs_no_event(tmp_path: Path, name: str) -> None:
    done = log_with(renamed(tmp_path / "upstream", PATTERNS[name], name), tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert events.steps(tmp_path / "run", "loss") == [0, 1, 2]
    assert events.steps(tmp_path / "run", "named") == [0, 1, 2]
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*.tfevents.*"))
    for tag in (b"histogram", b"image", b"text", b"both", b"rate", b"accuracy"):
        assert tag in written, tag
    assert list((tmp_path / "run").rglob("tensors.tsv"))


def test_without_protocol_buffers_the_import_says_what_to_install(tmp_path: Path) -> None:
    upstream = renamed(tmp_path / "upstream", r"\bproto\b(?=[ .])", "proto")
    done = log_with(upstream, tmp_path / "run")
    assert "pip install 'tensorboardX>=2.6.4,<3'" in done.stderr.splitlines()[-1]
