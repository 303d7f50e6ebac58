"""The classes for frameworks, tested without a whole training and without a Hub."""

from __future__ import annotations

import importlib
import os
import pickle
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import events

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hf_summary_writer import HFSummaryWriter

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_SUMMARY_WRITER_MODE", "disabled")
    monkeypatch.setenv("HF_SUMMARY_WRITER_PATH_IN_REPO", "logs")
    monkeypatch.setenv("HF_SUMMARY_WRITER_COMMIT_EVERY", "0.5")


def accelerate_writer(repo_id: str | None) -> HFSummaryWriter:
    pytest.importorskip("accelerate")
    from accelerate import Accelerator

    from hf_summary_writer.integrations.accelerate import HubTracker

    accelerator = Accelerator(log_with=HubTracker(repo_id, run_name="first"), cpu=True)
    accelerator.init_trackers("project")
    writer: HFSummaryWriter = accelerator.get_tracker("hub", unwrap=True)
    return writer


def transformers_writer(repo_id: str | None) -> HFSummaryWriter:
    pytest.importorskip("transformers")
    from hf_summary_writer.integrations.transformers import HubCallback

    callback = HubCallback(repo_id, logdir="runs/first")
    begin(callback)
    assert callback.tb_writer is not None
    return callback.tb_writer


def ignite_writer(repo_id: str | None) -> HFSummaryWriter:
    pytest.importorskip("ignite")
    from hf_summary_writer.integrations.ignite import HubLogger

    writer: HFSummaryWriter = HubLogger(repo_id, "runs/first").writer
    return writer


def stable_baselines3_writer(repo_id: str | None) -> HFSummaryWriter:
    pytest.importorskip("stable_baselines3")
    from hf_summary_writer.integrations.stable_baselines3 import HubOutputFormat

    writer: HFSummaryWriter = HubOutputFormat(repo_id, "runs/first").writer
    return writer


def lightning_writer(repo_id: str | None) -> HFSummaryWriter:
    pytest.importorskip("lightning")
    from hf_summary_writer.integrations.lightning import HubLogger

    writer: HFSummaryWriter = HubLogger(repo_id, name="", version="first").experiment
    return writer


def ray_writer(repo_id: str | None) -> HFSummaryWriter:
    pytest.importorskip("ray.tune")
    from hf_summary_writer.integrations.ray import HubLoggerCallback

    callback = HubLoggerCallback(repo_id)
    callback._experiment = ""
    return callback._writer_of("runs/first")


WRITERS = [
    accelerate_writer,
    transformers_writer,
    ignite_writer,
    stable_baselines3_writer,
    lightning_writer,
    ray_writer,
]


def begin(callback: Any, trial: str | None = None) -> None:
    args = SimpleNamespace(output_dir="out", to_json_string=lambda: "{}")
    state = SimpleNamespace(
        is_world_process_zero=True, is_hyper_param_search=trial is not None, trial_name=trial, global_step=0
    )
    callback.on_train_begin(args, state, None)


@pytest.mark.parametrize("make", WRITERS)
def test_every_wrapper_uses_the_environment(
    make: Callable[[str | None], HFSummaryWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_SUMMARY_WRITER_REPO_ID", "user/of-the-environment")
    writer = make(None)
    writer.close()
    assert writer.repo_id == "user/of-the-environment"
    assert (writer.scheduler.path_in_repo, writer.scheduler.every) == ("logs/first", 0.5)


def test_wrappers_need_no_repo_if_the_environment_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("stable_baselines3")
    from hf_summary_writer.integrations.accelerate import HubTracker
    from hf_summary_writer.integrations.stable_baselines3 import HubOutputFormat

    monkeypatch.setenv("HF_SUMMARY_WRITER_REPO_ID", "user/of-the-environment")
    assert HubTracker(run_name="first").run_name == "first"
    assert HubTracker().run_name
    output = HubOutputFormat(folder="runs/first")
    output.close()
    assert output.writer.repo_id == "user/of-the-environment"


@pytest.mark.parametrize(
    ("framework", "name", "folder"),
    [
        ("accelerate", "HubTracker", "logging_dir"),
        ("transformers", "HubCallback", "logdir"),
        ("lightning", "HubLogger", "save_dir"),
        ("ray", "HubLoggerCallback", None),
    ],
)
def test_wrong_arguments_are_refused_before_the_training_begins(framework: str, name: str, folder: str | None) -> None:
    pytest.importorskip(f"{framework}.tune" if framework == "ray" else framework)
    wrapper = getattr(importlib.import_module(f"hf_summary_writer.integrations.{framework}"), name)
    wrapper("hf://datasets/user/run", commit_every=1)
    with pytest.raises(ValueError, match="a/b/c"):
        wrapper("a/b/c")
    with pytest.raises(TypeError, match="commit_every"):
        wrapper(commit_every="often")
    with pytest.raises(TypeError, match=r"every \(did you mean commit_every\?\)"):
        wrapper("user/run", every=1)
    if folder is not None:
        with pytest.raises(ValueError, match=f"{folder} must be a folder on this machine"):
            wrapper("user/run", **{folder: "s3://bucket/runs"})


@pytest.mark.parametrize("make", WRITERS)
def test_every_wrapper_accepts_a_uri(make: Callable[[str | None], HFSummaryWriter]) -> None:
    writer = make("hf://datasets/user/run@dev/elsewhere")
    writer.close()
    place = writer.scheduler.status().destination
    assert (place.repo_type, place.repo_id, place.revision) == ("dataset", "user/run", "dev")
    assert place.path == "elsewhere/first"


def test_the_tracker_skips_the_same_values_as_accelerates_own(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from accelerate import Accelerator

    from hf_summary_writer.integrations.accelerate import HubTracker

    accelerator = Accelerator(log_with=HubTracker("user/run", run_name="first"), cpu=True)
    accelerator.init_trackers("project")
    accelerator.log({"none": None, "list": [0.1], "tuple": (1, 2), "loss": 0.5, "note": "text"}, step=1)
    accelerator.end_training()
    found = {value.tag for event in events.logged(tmp_path / "runs" / "first") for value in event.summary.value}
    assert found == {"loss", "note/text_summary"}


def test_each_trial_of_a_search_is_a_separate_run(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from hf_summary_writer.integrations.transformers import HubCallback

    callback = HubCallback("user/run", logdir=tmp_path / "search")
    folders = []
    for trial in ("run-0", "run-1", None, None):  # the first one is pruned, so its end is not reported
        begin(callback, trial)
        assert callback.tb_writer is not None
        folders.append(callback.tb_writer.logdir)
        if trial != "run-0":
            callback.on_train_end(None, None, None)
    search = tmp_path / "search"
    assert folders == [str(search / "run-0"), str(search / "run-1"), *[f"{search}/"] * 2]


def log_with_accelerate(names: list[str]) -> HFSummaryWriter:
    writer = accelerate_writer("user/run")
    from hf_summary_writer.integrations.accelerate import HubTracker

    tracker = HubTracker("user/run", run_name="first")
    tracker.start()
    writer.close()
    for step in range(STEPS):
        tracker.log(dict.fromkeys(names, 0.5), step)
    assert tracker.writer is not None
    return tracker.writer


def log_with_transformers(names: list[str]) -> HFSummaryWriter:
    pytest.importorskip("transformers")
    from hf_summary_writer.integrations.transformers import HubCallback

    callback = HubCallback("user/run", logdir="runs/first")
    begin(callback)
    for step in range(STEPS):
        state = SimpleNamespace(is_world_process_zero=True, global_step=step)
        callback.on_log(None, state, None, logs=dict.fromkeys(names, 0.5))
    assert callback.tb_writer is not None
    return callback.tb_writer


def log_with_stable_baselines3(names: list[str]) -> HFSummaryWriter:
    pytest.importorskip("stable_baselines3")
    from hf_summary_writer.integrations.stable_baselines3 import HubOutputFormat

    output = HubOutputFormat("user/run", "runs/first")
    for step in range(STEPS):
        output.write(dict.fromkeys(names, 0.5), dict.fromkeys(names, ()), step)
    return output.writer


def log_with_lightning(names: list[str]) -> HFSummaryWriter:
    pytest.importorskip("lightning")
    from hf_summary_writer.integrations.lightning import HubLogger

    logger = HubLogger("user/run", name="", version="first")
    for step in range(STEPS):
        logger.log_metrics(dict.fromkeys(names, 0.5), step)
        logger.save()
    writer: HFSummaryWriter = logger.experiment
    return writer


STEPS = 50
NAMES = ["val loss", "acc@5", "f1 %", "train|x"]


@pytest.mark.parametrize(
    "log", [log_with_accelerate, log_with_transformers, log_with_stable_baselines3, log_with_lightning]
)
def test_flushes_by_a_framework_do_not_sync_and_names_are_kept(
    log: Callable[[list[str]], HFSummaryWriter], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def count(descriptor: int) -> None:
        synced.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", count)
    writer = log(NAMES)
    assert len(synced) < STEPS / 2  # the syncs of the constructor and of `flush_secs`
    before = len(synced)
    writer.flush()
    assert len(synced) > before
    writer.close()
    found = [value.tag for event in events.logged(tmp_path / "runs" / "first") for value in event.summary.value]
    for name in NAMES:
        [tag] = {tag for tag in found if tag.endswith(name)}
        assert found.count(tag) == STEPS


def test_versions_with_equal_subfolders_have_different_paths_in_the_repo() -> None:
    pytest.importorskip("lightning")
    from hf_summary_writer.integrations.lightning import HubLogger

    places = []
    for options in ({"version": 0, "sub_dir": "logs"}, {"version": 1, "sub_dir": "logs"}, {"version": "a/b"}):
        with HubLogger("user/run", name="experiment", **options).experiment as writer:
            places.append(writer.scheduler.path_in_repo)
    assert places == [f"logs/experiment/{place}" for place in ("version_0/logs", "version_1/logs", "a/b")]


def test_nested_logging_blocks_raise_nothing() -> None:
    pytest.importorskip("torch")
    from hf_summary_writer.integrations.framework_writer import TorchFrameworkWriter, logging_with

    with TorchFrameworkWriter("user/run", "runs/first") as writer, logging_with(writer), logging_with(writer):
        writer.flush()


def test_a_logger_in_a_spawned_process_closes_its_writer(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    from hf_summary_writer.integrations.lightning import HubLogger

    logger = HubLogger("user/run", name="", version="first")
    logger.log_metrics({"a": 1.0}, 1)
    copied = pickle.loads(pickle.dumps(logger))
    copied.log_metrics({"a": 2.0}, 2)
    for each in (copied, logger):
        each.finalize("success")
        assert each.experiment.all_writers is None
    assert len(events.event_files(tmp_path)) == 2
