"""TensorBoard's readers in Python and in Rust follow a running writer through its segments."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psutil
import pytest
from tensorboard import context
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.data import server_ingester
from tensorboard.util import grpc_util

from events import wait_until
from hf_summary_writer.events.writer import EventWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TypeAlias

    Reader: TypeAlias = Callable[[str, str], list[tuple[int, float]]]


@contextlib.contextmanager
def python_reader(logdir: Path) -> Iterator[Reader]:
    accumulators: dict[str, EventAccumulator] = {}

    def read(run: str, tag: str) -> list[tuple[int, float]]:
        if run not in accumulators:
            accumulators[run] = EventAccumulator(str(logdir / run), size_guidance={"scalars": 0})
        accumulator = accumulators[run]
        accumulator.Reload()
        if tag not in accumulator.Tags()["scalars"]:
            return []
        return [(event.step, event.value) for event in accumulator.Scalars(tag)]

    yield read


@contextlib.contextmanager
def rust_reader(logdir: Path) -> Iterator[Reader]:
    try:
        binary = server_ingester.get_server_binary()
    except server_ingester.NoDataServerError as error:
        pytest.skip(f"no data server: {error}")
    before = set(psutil.Process().children())
    ingester = server_ingester.SubprocessServerDataIngester(
        server_binary=binary,
        logdir=str(logdir),
        reload_interval=1,
        channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
        samples_per_plugin={"scalars": 100_000},
    )
    try:
        ingester.start()
        provider = ingester.data_provider

        def read(run: str, tag: str) -> list[tuple[int, float]]:
            runs = provider.read_scalars(
                context.RequestContext(), experiment_id="", plugin_name="scalars", downsample=100_000
            )
            return [(datum.step, datum.value) for datum in runs.get(run, {}).get(tag, [])]

        yield read
    finally:
        # The server ends when this pipe is closed, which the ingester never does.
        ingester._stdin_handle.close()
        for server in set(psutil.Process().children()) - before:
            server.kill()
            server.wait()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", [python_reader, rust_reader])
def test_a_run_is_followed_live_through_its_segments(
    tmp_path: Path, reader: Callable[[Path], contextlib.AbstractContextManager[Reader]]
) -> None:
    with reader(tmp_path) as read, EventWriter(tmp_path / "run", segment_bytes=2000) as writer:
        for batch in range(3):
            for step in range(batch * 300, batch * 300 + 300):
                writer.add_scalar("loss", step / 8, step)
                if step % 50 == 0:
                    writer.add_scalars("both", {"x": step, "y": -step}, step)
                    writer.flush()
            writer.flush()
            expected = [(step, step / 8) for step in range(batch * 300 + 300)]
            wait_until(lambda: read("run", "loss") == expected)  # noqa: B023 - called before the next round
        wait_until(lambda: read("run/both/y", "both") == [(step, -float(step)) for step in range(0, 900, 50)])
        assert len(list((tmp_path / "run").glob("*.tfevents.*"))) > 10
        writer.close()
        writer.add_scalar("loss", 1.0, 900)
        writer.flush()
        wait_until(lambda: len(read("run", "loss")) == 901)
