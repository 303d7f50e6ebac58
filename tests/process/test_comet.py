"""With comet configured, it gets the same calls from our writer as from tensorboardX's.

Comet's service is not available to a test, so a package with its name records the calls.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("PIL", reason="tensorboardX's comet logger needs pillow")

COMET = """
import hashlib, json, types
import numpy as np
TOLD = []
config = types.SimpleNamespace(experiment=None)

def init():
    TOLD.append(["init"])

def get_global_experiment():
    return config.experiment

def shown(value):
    if hasattr(value, "tobytes"):  # arrays and images
        return [type(value).__name__, hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, dict):
        return {str(key): shown(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(inner) for inner in value]
    return repr(value)

class Experiment:
    def __init__(self, **settings):
        TOLD.append(["Experiment", shown(settings)])
    def __getattr__(self, name):
        def told(*arguments, **named):
            TOLD.append([name, shown(arguments), shown(named)])
        return told
"""

CALLS = """
import json, os, sys, warnings
import numpy as np, comet_ml
from tensorboardX import SummaryWriter
from hf_summary_writer.events.writer import EventWriter
warnings.simplefilter("ignore")
which, logdir, onnx, config = sys.argv[1:]
writer = {"theirs": SummaryWriter, "ours": EventWriter}[which](logdir, comet_config=json.loads(config))
rng = np.random.default_rng(0)
pixels, numbers, vertices = rng.random((3, 8, 8)), rng.random(50), rng.random((1, 8, 3))
colours, faces = rng.integers(0, 255, (1, 8, 3)), rng.integers(0, 8, (1, 4, 3))
calls = [
    lambda: writer.add_scalar("a b", 1.0, 1),
    lambda: writer.add_scalar("a b", 2.0, 2),
    lambda: writer.add_scalar("a b", np.float32(3), 3, display_name="title"),
    lambda: writer.add_scalar("text", 1.0, "x"),
    lambda: writer.add_scalars("m", {"x": 1.0, "y": 2.0}, 1),
    lambda: writer.add_hparams({"lr": 0.5}, {"acc": 1.0}, name="trial", global_step=3),
    lambda: writer.add_histogram("h", numbers, 1),
    lambda: writer.add_histogram("h", numbers, 1, bins="auto"),
    lambda: writer.add_histogram_raw("raw", 0.0, 2.5, 6, 8.0, 14.0, [0.5, 1.5, 2.5], [1, 2, 3], 1),
    lambda: writer.add_image("i", pixels, 1),
    lambda: writer.add_images("i", pixels[None], 1),
    lambda: writer.add_image_with_boxes("b", pixels, np.array([[1, 1, 4, 4]]), 1),
    lambda: writer.add_text("t", "text", 1),
    lambda: writer.add_embedding(rng.random((4, 2)), [1, 2, 3, 4]),
    lambda: writer.add_pr_curve("pr", rng.integers(0, 2, 50), numbers, 1),
    lambda: writer.add_pr_curve_raw("pr", *(rng.random(20) for _ in range(6)), 2, 20),
    lambda: writer.add_mesh("me", vertices, colours, faces, {"c": 1}, 2),
    lambda: writer.add_onnx_graph(onnx),
    lambda: writer.flush(),
]
try:
    import soundfile
except ImportError:
    pass
else:
    calls.append(lambda: writer.add_audio("s", numbers - 0.5, 1))
raised = []
for call in calls:
    try:
        raised.append(call())
    except Exception as error:
        raised.append(type(error).__name__)
writer.close()
print(json.dumps([comet_ml.TOLD, raised]).replace(logdir, ""))
"""

KEYED = {"disabled": False, "api_key": "none", "project_name": "runs"}


def told(which: str, tmp_path: Path, config: dict[str, Any]) -> tuple[list[list[Any]], list[str | None]]:
    """Log with tensorboardX's writer or ours, and return comet's recorded calls and the errors that were raised."""
    (tmp_path / "comet_ml.py").write_text(COMET)
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{textwrap.dedent(CALLS)}"
    command = [
        sys.executable,
        "-c",
        code,
        which,
        str(tmp_path / which),
        str(tmp_path / "none.onnx"),
        json.dumps(config),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert ended.returncode == 0, ended.stderr
    everything, raised = json.loads(ended.stdout.splitlines()[-1])
    return everything, raised


@pytest.mark.parametrize("config", [KEYED, {"disabled": False}, {"disabled": None}], ids=str)
def test_comet_gets_the_calls_that_tensorboardx_makes(tmp_path: Path, config: dict[str, Any]) -> None:
    ours, theirs = told("ours", tmp_path, config), told("theirs", tmp_path, config)
    assert ours == theirs
    names = [entry[0] for entry in ours[0]]
    assert names[:2] == ["Experiment", "log_other"] if "api_key" in config else ["init", "Experiment"]
    assert names[-1] == "end"
    assert {"log_metric", "log_metrics", "log_parameters", "log_histogram_3d", "log_image", "log_text"} <= set(names)


def test_comet_gets_no_calls_unless_it_is_configured(tmp_path: Path) -> None:
    assert told("ours", tmp_path, {"disabled": True})[0] == []
