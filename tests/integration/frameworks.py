"""Run the code blocks of `docs/integrations.md` as a user's scripts, and read their event files back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util.tensor_util import make_ndarray

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from hub_process import HubProcess

__all__ = ["PAGE", "Series", "block", "download", "read", "run"]

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "integrations.md"
SECONDS = 240

Series = dict[tuple[str, str], list[tuple[int, Any]]]


def block(heading: str, number: int = 0) -> str:
    """Return a code block below a heading of the page."""
    [section] = re.findall(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    found: str = re.findall(r"^```py\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)[number]
    return found


def run(
    training: str, code: str, hub: HubProcess, folder: Path, *launcher: str, rename: tuple[str, str] = ("", "")
) -> None:
    """Run the file of `training` and then `code` as one script in `folder`, with the Hub in the environment."""
    script = folder / "train.py"
    text = f"{(HERE / 'training' / f'{training}.py').read_text()}\n\n{code}\n"
    script.write_text(text.replace(*rename) if rename[0] else text)
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": hub.token,
        "PYTHONPATH": str(HERE / "pieces"),
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [*(launcher or [sys.executable]), str(script)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"


def download(api: HfApi, repo_id: str, place: str, folder: Path) -> Path:
    """Download a folder of a repo, and return its local path."""
    api.snapshot_download(repo_id, local_dir=folder, allow_patterns=f"{place}/*")
    return folder / place


def read(logdir: Path) -> Series:
    """Return the steps and values that TensorBoard reads below a folder, by run and tag.

    Folders named by a time, which libraries use for hyperparameters, are renamed to `<time>`.
    """
    found: Series = {}
    for folder in sorted({path.parent for path in logdir.rglob("*.tfevents.*")}):
        name = re.sub(r"\b\d{10}\.\d+\b", "<time>", folder.relative_to(logdir).as_posix())
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "histograms": 0})
        events.Reload()
        tags = events.Tags()
        for tag in tags["scalars"]:
            found[name, tag] = [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in tags["tensors"]:
            found[name, tag] = [(event.step, _value(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in tags["histograms"]:
            found[name, tag] = [(event.step, event.histogram_value) for event in events.Histograms(tag)]
        for tag, content in _plugin(events, "hparams").items():
            found[name, tag] = [(0, MessageToDict(HParamsPluginData.FromString(content)))]
        if tags["graph"]:
            found[name, "graph"] = [(0, events.Graph().SerializeToString(deterministic=True))]
    return found


def _plugin(events: EventAccumulator, name: str) -> dict[str, bytes]:
    try:
        contents: dict[str, bytes] = events.PluginTagToContent(name)
    except KeyError:
        return {}
    return contents


def _value(message: Any) -> Any:
    array = make_ndarray(message)
    return array.item() if array.size == 1 else array.tolist()
