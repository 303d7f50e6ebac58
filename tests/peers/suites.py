"""Test suites of other projects that run with our classes instead of theirs, and the expected differences."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["SUITES", "Suite"]


@dataclass(frozen=True)
class Suite:
    """A test suite in a package's source distribution.

    Attributes:
        package: The name on PyPI; the tests are those of the installed version.
        files: The test files, below `tests`.
        classes: The classes to replace, as `module:name`.
        chosen: An expression for `pytest -k`.
        differs: Reasons of expected failures, by the end of a test's id; an unexpected pass is an error.
        left_out: Reasons for tests that are not run, likewise.
    """

    package: str
    files: tuple[str, ...]
    classes: tuple[str, ...]
    chosen: str = ""
    differs: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


SUITES = (
    Suite(
        "tensorboardX",
        (
            "test_embedding.py",
            "test_figure.py",
            "test_hparams.py",
            "test_multiprocess_write.py",
            "test_numpy.py",
            "test_onnx_graph.py",
            "test_pr_curve.py",
            "test_pytorch_graph.py",
            "test_pytorch_np.py",
            "test_record_writer.py",
            "test_summary.py",
            "test_summary_writer.py",
            "test_utils.py",
            "test_writer.py",
        ),
        ("tensorboardX:SummaryWriter",),
        differs={
            "test_embedding_s3_mock": "a run is a folder on this machine; object storage is refused",
            "test_record_writer_s3": "likewise",
            "test_windowsPath": "a name that the Hub's client cannot download everywhere is refused",
            "test_writer.py::WriterTest::test_flush": "a private name has the file; our tests compare the values",
            "test_writer.py::WriterTest::test_flush_after_close": "likewise",
        },
    ),
    Suite(
        "huggingface_hub",
        ("test_commit_scheduler.py",),
        ("huggingface_hub._commit_scheduler:CommitScheduler",),
        differs={
            "test_sync_and_squash_history": "the squashed commit is named after the folder",
            "test_context_manager": "a private name tells whether it is stopped",
        },
        left_out={
            "test_mocked_push_to_hub": "counts pushes in half a second, and the repo is made by the first of them",
        },
    ),
    Suite(
        "accelerate",
        ("test_tracking.py",),
        ("accelerate.tracking:TensorBoardTracker",),
        chosen="TensorBoard or tensorboard or CustomTracker",
    ),
    Suite(
        "stable-baselines3",
        ("test_logger.py", "test_tensorboard.py"),
        ("stable_baselines3.common.logger:TensorBoardOutputFormat",),
        differs={"test_report_video_to_tensorboard": "videos are written with moviepy 2, too, where PyTorch cannot"},
        left_out={
            "test_fps_logger[A2C]": "measures the machine, with a logger of its own",
            "test_fps_logger[DQN]": "likewise",
        },
    ),
    Suite(
        "pytorch-ignite",
        ("ignite/handlers/test_tensorboard_logger.py",),
        ("ignite.handlers.tensorboard_logger:TensorboardLogger",),
        differs={
            "test_no_tensorboardX_package": "tensorboardX is the base of our writer, also where PyTorch has one",
            "test_no_tensorboardX_nor_torch_utils_tensorboard": "likewise, so the message is another one",
        },
    ),
)
