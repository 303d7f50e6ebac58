"""With the code in `docs/integrations.md` the Hub holds the same data as each framework's own writer writes."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from integration.frameworks import PAGE, Series, block, download, read, run

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import GitCommitInfo, HfApi

    from hub_process import HubProcess

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def repo_id(api: HfApi) -> str:
    """Return the repo that the page names, in the namespace of the token's user."""
    return f"{api.whoami()['name']}/my-experiments"


@dataclass(frozen=True)
class Case:
    """A block of the page and its comparison with the framework's own writer.

    Attributes:
        training: The file that prepares the block and can train with the framework's own writer.
        heading: The heading above the block.
        place: The path of its run in the repo, below `tensorboard`.
        needs: Required packages.
        number: The number of the block below the heading.
        default: Code that trains with the framework's own writer into `{folder}`.
        varying: A pattern of tags whose values are times or paths, which differ between runs.
        least: Tags that must be among the compared ones.
        slow: Whether it takes more than half a minute.
    """

    training: str
    heading: str
    place: str
    needs: tuple[str, ...]
    least: tuple[str, ...]
    number: int = 0
    default: str = "default({folder!r})"
    varying: str = "$"
    slow: bool = False


CASES = [
    Case(
        "transformers",
        "transformers",
        "transformers",
        ("transformers", "accelerate"),
        ("train/loss", "train/learning_rate", "args/text_summary"),
        varying=r"train/train_(runtime|.*_per_second)|(args|model_config)/text_summary",
    ),
    Case(
        "transformers",
        "transformers",
        "transformers-once",
        ("transformers", "accelerate"),
        ("train/loss",),
        number=1,
        default="default({folder!r}, trainings=1)",
        varying=r"train/train_(runtime|.*_per_second)|(args|model_config)/text_summary",
        slow=True,
    ),
    Case("accelerate", "accelerate", "accelerate", ("accelerate",), ("loss", "_hparams_/experiment")),
    Case("accelerate", "accelerate", "accelerate-own", ("accelerate",), ("loss", "_hparams_/experiment"), number=1),
    Case(
        "lightning",
        "Lightning",
        "lightning/first",
        ("lightning",),
        ("loss", "own", "graph", "_hparams_/experiment"),
        slow=True,
    ),
    Case(
        "stable_baselines3",
        "Stable-Baselines3",
        "sb3",
        ("stable_baselines3",),
        ("train/value_loss", "rollout/ep_rew_mean"),
        varying="time/fps",
    ),
    Case("ignite", "PyTorch-Ignite", "ignite", ("ignite",), ("training/loss",)),
    Case(
        "ray",
        "Ray Tune",
        "ray",
        ("ray",),
        ("ray/tune/loss", "ray/tune/weights"),
        varying=r"ray/tune/(time_.*|.*timestamp.*)|_hparams_/.*",
        slow=True,
    ),
    Case("pytorch", "PyTorch", "pytorch", ("torch",), ("loss", "weights", "graph", "final", "_hparams_/experiment")),
    Case("keras", "Keras", "keras", ("keras", "tensorflow"), ("epoch_loss",), slow=True),
    Case("flax", "Flax and CLU", "flax", ("flax", "clu", "tensorflow"), ("loss",), slow=True),
]


def without(series: Series, varying: str) -> Series:
    """Return the series with a fixed value for tags whose values differ between runs."""
    return {
        (run_name, tag): [(step, "…" if re.fullmatch(varying, tag) else value) for step, value in events]
        for (run_name, tag), events in series.items()
    }


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] if case.slow else [], id=case.place) for case in CASES],
)
def test_tensorboard_reads_the_same_from_the_hub_as_from_the_frameworks_writer(
    case: Case, hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    for package in case.needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    name = case.place.rpartition("/")[2]
    run(case.training, block(case.heading, case.number), hub, ours)
    run(case.training, case.default.format(folder=f"logs/{name}"), hub, theirs)
    found = read(download(api, repo_id, f"tensorboard/{case.place}", tmp_path / "download"))
    wanted = read(theirs / "logs" / name)
    assert {tag for _, tag in wanted} >= set(case.least)
    assert without(renamed(found), case.varying) == without(renamed(wanted), case.varying)


def renamed(series: Series) -> Series:
    """Return the series with unified names of Ray's experiments and of both libraries' groups of scalars."""
    return {(_shared(run_name), tag): events for (run_name, tag), events in series.items()}


def _shared(run_name: str) -> str:
    trial = re.search(r"_(\d{5})_\d+_lr=", run_name)
    # torch joins group and series by an underscore, tensorboardX makes folders of them.
    return f"trial {trial[1]}" if trial else run_name.replace("both_", "both/")


def test_the_page_names_the_versions_of_the_lane() -> None:
    [table] = re.findall(r"^\| Framework .*?\n\n", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    project = (PAGE.parents[1] / "pyproject.toml").read_text()
    lane = project[project.index("\nintegration-fast = [") : project.index("[tool.hatch")]
    versions = re.findall(r'"[a-z0-9-]+(?:\[[a-z]+\])?==([0-9.]+?)(?:\.\*)?"', lane)
    assert len(versions) > 8
    assert [version for version in versions if not re.search(rf"\b{re.escape(version)}\b", table)] == []


def test_every_block_of_the_page_is_run() -> None:
    ran = {(case.heading, case.number) for case in CASES} | {("Distributed training", 0)}
    headings = re.findall(r"^## (.*)$", PAGE.read_text(), re.MULTILINE)
    stated = set()
    for heading in headings:
        number = 0
        while True:
            try:
                block(heading, number)
            except IndexError:
                break
            stated.add((heading, number))
            number += 1
    assert ran == stated


@pytest.mark.slow
def test_lightning_under_its_former_name_is_supported(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    pytest.importorskip("pytorch_lightning")
    code = block("Lightning").replace("first", "former")
    check = "import pytorch_lightning.loggers as theirs; assert isinstance(logger, theirs.TensorBoardLogger)"
    run("lightning", f"{code}\n{check}", hub, tmp_path, rename=("lightning.pytorch", "pytorch_lightning"))
    found = read(download(api, repo_id, "tensorboard/lightning/former", tmp_path / "download"))
    assert len(found[".", "own"]) == 12


# `accelerate launch` with several processes; `--cpu` would need mpirun for more than one process.
ACCELERATE_LAUNCH = (
    *("env", "ACCELERATE_USE_CPU=true", sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"),
    *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--num_processes"),
)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


@pytest.mark.parametrize(
    ("launcher", "package"),
    [(TORCHRUN, "torch"), (ACCELERATE_LAUNCH, "accelerate")],
    ids=["torchrun", "accelerate launch"],
)
def test_each_rank_logs_and_the_main_rank_pushes(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, launcher: tuple[str, ...], package: str
) -> None:
    pytest.importorskip(package)
    code = block("Distributed training").replace("runs/distributed", f"runs/{package}-ranks")
    before = {commit.commit_id for commit in _commits(api, repo_id)}
    run("distributed", code, hub, tmp_path, *launcher, "2")
    found = read(download(api, repo_id, f"tensorboard/{package}-ranks", tmp_path / "download"))
    assert found == {(".", f"loss/{rank}"): [(s, pytest.approx(1 / (s + 1))) for s in range(6)] for rank in range(2)}
    assert len(list((tmp_path / "runs" / f"{package}-ranks").glob("*.tfevents.*"))) == 2
    after = [commit for commit in _commits(api, repo_id) if commit.commit_id not in before and "Logs" in commit.title]
    assert 1 <= len(after) <= 2


def test_under_accelerate_launch_the_tracker_logs_in_the_main_process(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate")
    code = block("accelerate").replace('"accelerate"', '"launched"')
    # PyTorch sometimes aborts at exit after two processes trained over gloo, with or without a tracker.
    check = "import os; assert accelerator.num_processes == 2; os._exit(0)"
    run("accelerate", f"{code}\n{check}", hub, tmp_path, *ACCELERATE_LAUNCH, "2")
    found = read(download(api, repo_id, "tensorboard/launched", tmp_path / "download"))
    # Each process takes half of the six batches.
    assert [step for step, _ in found[".", "loss"]] == [0, 1, 2]
    assert len(list((tmp_path / "runs" / "launched").glob("*.tfevents.*"))) == 1


def _commits(api: HfApi, repo_id: str) -> list[GitCommitInfo]:
    return list(api.list_repo_commits(repo_id)) if api.repo_exists(repo_id) else []
