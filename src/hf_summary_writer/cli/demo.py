"""The demo: a real training, a Hub on this machine, and a comparison of logged and uploaded events."""

from __future__ import annotations

import collections
import contextlib
import filecmp
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click
import numpy as np
from huggingface_hub import HfApi
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from hf_summary_writer.localhub import LocalHub
from hf_summary_writer.notices import amount
from hf_summary_writer.reading import read
from hf_summary_writer.writer import HFSummaryWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hf_summary_writer.errors import CommitDetails

REPO_ID = "hf-summary-writer-demo"

COMMIT_EVERY_SECONDS = 2.0

BATCH = 128


def run(*, keep: Path | None, open_tensorboard: bool, live: bool, seconds: float) -> bool:
    """Run the demo; return whether the Hub holds exactly the logged data.

    Args:
        keep: The folder for the Hub's repos, the logs and the download; a temporary one by default.
        open_tensorboard: Whether to show the download in TensorBoard at the end, until Ctrl-C.
        live: Whether to upload to a bucket, and show that in TensorBoard from the beginning, until Ctrl-C.
        seconds: How long to train.
    """
    with contextlib.ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hf-summary-writer-demo-")))
        hub = stack.enter_context(LocalHub(folder / "hub"))
        click.echo(f"A Hub on this machine: {hub.endpoint}")
        disable_progress_bars()  # a bar of the download would interrupt the output of the demo
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        logdir = folder / "runs" / time.strftime("digits-%H%M%S")
        board = stack.enter_context(_live_board(hub, api)) if live else None
        logged, repo_id = _train(api, logdir, seconds, "bucket" if live else "model")
        download = folder / "download"
        if live:
            api.sync_bucket(f"hf://buckets/{repo_id}", str(download), quiet=True)
        else:
            api.snapshot_download(repo_id, local_dir=download)
        equal = _compare(logged, logdir, download / "tensorboard" / logdir.name)
        if keep is not None:
            click.echo(f"Kept in {folder}: hub/, runs/ and download/")
        if open_tensorboard:
            command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(download / "tensorboard")]
            board = stack.enter_context(subprocess.Popen(command, text=True))  # noqa: S603 - our own command
            stack.callback(board.terminate)
        if board is not None:
            with contextlib.suppress(KeyboardInterrupt):
                click.echo("TensorBoard runs until Ctrl-C")
                board.wait()
    return equal


@contextlib.contextmanager
def _live_board(hub: LocalHub, api: HfApi) -> Iterator[subprocess.Popen[str]]:
    """Show a new bucket in TensorBoard as it grows, and open that in a browser."""
    bucket = api.create_bucket(REPO_ID, exist_ok=True)
    command = [sys.executable, "-m", "hf_summary_writer", "view", f"hf://buckets/{bucket.bucket_id}"]
    with subprocess.Popen(  # noqa: S603 - our own command
        [*command, "--endpoint", hub.endpoint],
        env={**os.environ, "HF_TOKEN": hub.token},
        stderr=subprocess.PIPE,
        text=True,
    ) as board:
        try:
            lines = iter(board.stderr or ())
            found = next((match for line in lines if (match := re.search(r"http://\S+/", line))), None)
            # Or its pipe would be full.
            threading.Thread(target=collections.deque, args=(lines, 0), daemon=True).start()
            if found is not None:
                click.echo(f"TensorBoard shows the bucket {bucket.bucket_id} at {found[0]}")
                webbrowser.open(found[0])
            yield board
        finally:
            board.terminate()


# The steps and values of each scalar that the training logged.
_Points: TypeAlias = "dict[str, list[tuple[int, float]]]"


def _train(api: HfApi, logdir: Path, seconds: float, repo_type: str) -> tuple[_Points, str]:
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(images / 16.0, labels, random_state=0)
    model = MLPClassifier(hidden_layer_sizes=(64,), random_state=0)
    logged: _Points = {"loss/train": [], "accuracy/test": [], "hparam/accuracy": []}
    click.echo(f"Training on {len(train_x)} images of digits for {seconds:.0f} s, logging to {logdir}")
    with HFSummaryWriter(
        REPO_ID,
        logdir=logdir,
        commit_every=COMMIT_EVERY_SECONDS / 60,
        repo_type=repo_type,
        hf_api=api,
        on_commit=_say,
    ) as writer:
        writer.add_text("description", "A small classifier of handwritten digits (scikit-learn's `load_digits`).", 0)

        def log(tag: str, value: float, step: int) -> None:
            writer.add_scalar(tag, value, step)
            logged[tag].append((step, value))

        step = 0
        for epoch, batches in enumerate(_epochs(len(train_x), seconds)):
            for batch in batches:
                model.partial_fit(train_x[batch], train_y[batch], classes=np.arange(10))
                log("loss/train", float(model.loss_), step)
                step += 1
            guess = model.predict(test_x)
            log("accuracy/test", float((guess == test_y).mean()), step)
            writer.add_histogram("weights/hidden", model.coefs_[0], step)
            if epoch % 5 == 0:
                doubtful = np.argsort(model.predict_proba(test_x).max(axis=1))[:16]
                writer.add_images("least_certain", test_x[doubtful].reshape(-1, 1, 8, 8), step)
        accuracy = float((model.predict(test_x) == test_y).mean())
        writer.add_hparams(
            {"hidden": 64, "batch": BATCH}, {"hparam/accuracy": accuracy}, name="hparams", global_step=step
        )
        logged["hparam/accuracy"].append((step, accuracy))
        click.echo(f"Trained {step} steps, {accuracy:.1%} of the test images are right; the rest of the logs follows")
    return logged, writer.repo_id


def _epochs(count: int, seconds: float) -> Iterator[list[np.ndarray[Any, Any]]]:
    """Yield shuffled batches of indices, epoch by epoch, for some seconds; at a pace that can be watched."""
    order = np.random.default_rng(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        shuffled = order.permutation(count)
        yield [shuffled[start : start + BATCH] for start in range(0, count, BATCH)]
        time.sleep(0.05)


def _say(commit: CommitDetails) -> None:
    click.echo(
        f"{time.strftime('%H:%M:%S')}  {f'commit {commit.oid[:8]}' if commit.oid else 'upload'}  "
        f"{amount(commit.files, commit.bytes)}  "
        f"in {commit.seconds:.2f} s  {commit.url}"
    )


def _compare(logged: _Points, logdir: Path, downloaded: Path) -> bool:
    """Print a table of logged and uploaded data; return whether they are equal."""
    uploaded = {tag: scalars for tags in read(downloaded).values() for tag, scalars in tags.items()}
    rows = []
    for tag, points in logged.items():
        # An event file holds scalars as float32.
        expected = [(step, float(np.float32(value))) for step, value in points]
        found = list(zip(*(column.tolist() for column in uploaded[tag][:2]), strict=True)) if tag in uploaded else []
        rows.append((tag, len(points), len(found), expected == found))
    files = sorted(str(path.relative_to(logdir)) for path in logdir.rglob("*.tfevents.*"))
    same, _, _ = filecmp.cmpfiles(logdir, downloaded, files, shallow=False)
    rows.append(("event files, byte for byte", len(files), len(same), len(files) == len(same)))

    click.echo(f"\n{'':28} {'logged':>8} {'on the Hub':>11}  equal")
    for tag, here, there, equal in rows:
        click.echo(f"{tag:28} {here:>8} {there:>11}  {'yes' if equal else 'NO'}")
    return all(equal for *_, equal in rows)
