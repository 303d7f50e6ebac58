"""Events are written even if a later tensorboardX renames its private functions, attributes and modules."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tensorboardX

import events

if TYPE_CHECKING:
    from collections.abc import Mapping

# Names and modules of tensorboardX that this package uses besides the documented classes.
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


def renamed(folder: Path, patterns: Mapping[str, str]) -> Path:
    """Copy tensorboardX into a folder, with each name replaced where its regular expression matches."""
    copy = folder / "tensorboardX"
    shutil.copytree(Path(tensorboardX.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for path in copy.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for name, pattern in patterns.items():
            text = re.sub(pattern, f"{name}_renamed", text)
        path.write_text(text, encoding="utf-8")
    for name in patterns:
        for path in (copy / name, copy / f"{name}.py"):
            if path.exists():
                path.rename(path.with_name(path.name.replace(name, f"{name}_renamed")))
    return folder


def log_with(upstream: Path, logdir: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(upstream)!r})\n{LOG}"
    command = [sys.executable, "-W", "ignore", "-c", code, str(logdir)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


KINDS = {
    # Except fields of protocol buffers and arguments with the same name.
    "functions": {name: rf"(?<![.])\b{name}\b(?!=)" for name in FUNCTIONS},
    "attributes": {name: rf"\b{name}\b" for name in ATTRIBUTES},
    "modules": {name: rf"(?<=from [.]){name}\b|(?<=import ){name}\b" for name in MODULES},
}
EACH = {name: {name: pattern} for patterns in KINDS.values() for name, pattern in patterns.items()}


@pytest.mark.faults("M3")
@pytest.mark.parametrize(
    "patterns",
    [*KINDS.values(), *(pytest.param(one, marks=pytest.mark.slow) for one in EACH.values())],
    ids=[*KINDS, *EACH],
)
def test_renamed_private_names_lose_no_event(tmp_path: Path, patterns: dict[str, str]) -> None:
    done = log_with(renamed(tmp_path / "upstream", patterns), tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert events.steps(tmp_path / "run", "loss") == [0, 1, 2]
    assert events.steps(tmp_path / "run", "named") == [0, 1, 2]
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*.tfevents.*"))
    for tag in (b"histogram", b"image", b"text", b"both", b"rate", b"accuracy"):
        assert tag in written, tag
    assert list((tmp_path / "run").rglob("tensors.tsv"))


def test_without_protocol_buffers_the_import_error_names_the_requirement(tmp_path: Path) -> None:
    upstream = renamed(tmp_path / "upstream", {"proto": r"\bproto\b(?=[ .])"})
    done = log_with(upstream, tmp_path / "run")
    assert "pip install 'tensorboardX>=2.6.4,<3'" in done.stderr.splitlines()[-1]
