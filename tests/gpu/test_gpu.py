"""Tensors on a real GPU. Needs only torch, tensorboardX and this package, so that it runs on a bare machine:

pytest -c /dev/null --noconftest -p no:cacheprovider -q tests/gpu
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import histogram

from hf_summary_writer.events import EventWriter, boundaries

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore"),
]

BUSY_CYCLES = 4_000_000_000
"""Clock cycles that keep the GPU busy for two seconds or so."""


def summaries(logdir: Path) -> list[Any]:
    found = []
    for path in sorted(logdir.glob("*.tfevents.*")):
        with path.open("rb") as file:
            start = 0
            for end in boundaries(file):
                file.seek(start)
                event = Event.FromString(file.read(end - start)[12:-4])
                start = end
                found += [(event.step, value) for value in event.summary.value]
    return found


def scalars(logdir: Path, tag: str = "a") -> list[tuple[int, float]]:
    return [(step, value.simple_value) for step, value in summaries(logdir) if value.tag == tag]


def test_a_call_returns_while_the_gpu_is_busy(tmp_path: Path) -> None:
    value = torch.ones((), device="cuda")
    with EventWriter(tmp_path) as writer:

        def log(step: int) -> None:
            writer.add_scalar("a", value, step)
            writer.add_histogram("h", value, step)
            writer.add_image("i", torch.rand(3, 8, 8, device="cuda"), step)

        log(0)
        writer.flush()  # CUDA waits for the device when it loads a kernel at its first use
        torch.cuda._sleep(BUSY_CYCLES)
        behind = torch.cuda.Event()
        behind.record()
        for step in range(1, 50):
            log(step)
        assert not behind.query(), "the calls waited for the GPU"
    assert scalars(tmp_path) == [(step, 1.0) for step in range(50)]
    assert len(summaries(tmp_path)) == 3 * 50


def test_a_scalar_has_the_value_at_the_call_even_if_the_tensor_changes_later(tmp_path: Path) -> None:
    value = torch.zeros((), device="cuda")
    with EventWriter(tmp_path) as writer:
        torch.cuda._sleep(BUSY_CYCLES // 5)
        for step in range(2000):
            value.fill_(step)
            writer.add_scalar("a", value, step)
            temporary = torch.full((1,), float(step), device="cuda")
            writer.add_scalar("b", temporary, step)
            del temporary
        value.fill_(-1)
    assert scalars(tmp_path) == scalars(tmp_path, "b") == [(step, float(step)) for step in range(2000)]


def test_values_on_side_streams_are_read_in_stream_order(tmp_path: Path) -> None:
    streams = [torch.cuda.Stream() for _ in range(3)]
    values = [torch.zeros((), device="cuda") for _ in streams]
    torch.cuda.synchronize()
    with EventWriter(tmp_path) as writer:
        for step in range(300):
            for number, (stream, value) in enumerate(zip(streams, values, strict=True)):
                with torch.cuda.stream(stream):
                    if step % 100 == number:
                        torch.cuda._sleep(BUSY_CYCLES // 50)
                    value.fill_(step * 10 + number)
                    writer.add_scalar(f"stream{number}", value, step)
    for number in range(3):
        assert scalars(tmp_path, f"stream{number}") == [(step, step * 10.0 + number) for step in range(300)]


DTYPES = [
    "float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "bool", "uint8", "int8", "int16",
    "int32", "int64",
]  # fmt: skip


def test_scalars_of_all_types_and_shapes_with_one_element(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        for step, dtype in enumerate(DTYPES):
            for shape in ((), (1,), (1, 1)):
                writer.add_scalar("a", torch.ones(shape, device="cuda").to(getattr(torch, dtype)), step)
                writer.add_scalar("f", 0.5, step)
        weight = torch.nn.Parameter(torch.tensor(2.0, device="cuda"))
        writer.add_scalar("p", weight, 0)
        writer.add_scalar("p", (weight * 2).sum(), 1)
        with torch.inference_mode():
            writer.add_scalar("p", torch.tensor(3.0, device="cuda"), 2)
        writer.add_scalar("n", torch.tensor(7.0, device="cuda"), 0, new_style=True)
        writer.add_scalars("main", {"x": torch.tensor(8.0, device="cuda")}, 1)
        writer.add_hparams({"lr": 0.1}, {"accuracy": torch.tensor(9.0, device="cuda")}, name="trial")
    assert [value for _, value in scalars(tmp_path)] == [1.0] * 3 * len(DTYPES)
    assert scalars(tmp_path, "p") == [(0, 2.0), (1, 4.0), (2, 3.0)]
    assert [list(value.tensor.float_val) for _, value in summaries(tmp_path) if value.tag == "n"] == [[7.0]]
    assert scalars(tmp_path / "main" / "x", "main") == [(1, 8.0)]
    assert [value for _, value in scalars(tmp_path / "trial", "accuracy")] == [9.0]


@pytest.mark.parametrize("size", [1, 1000, 3_000_000])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int32"])
def test_a_histogram_equals_that_of_the_host(tmp_path: Path, size: int, dtype: str) -> None:
    values = (torch.randn(size, device="cuda") * 1000).to(getattr(torch, dtype))
    with EventWriter(tmp_path) as writer:
        writer.add_histogram("h", values, 1)
        limits = writer.default_bins
        expected = values.double().cpu().numpy()
        values.zero_()
    [(_, found)] = summaries(tmp_path)
    wanted = histogram("h", expected, limits).value[0].histo
    assert list(found.histo.bucket) == list(wanted.bucket)
    assert list(found.histo.bucket_limit) == list(wanted.bucket_limit)
    assert (found.histo.min, found.histo.max, found.histo.num) == (wanted.min, wanted.max, wanted.num)
    assert found.histo.sum == pytest.approx(wanted.sum, abs=1e-9 * float(np.abs(expected).sum()))
    assert found.histo.sum_squares == pytest.approx(wanted.sum_squares)


def test_media_on_the_gpu_equal_those_of_the_host(tmp_path: Path) -> None:
    image = torch.rand(3, 32, 32)
    labels, guesses = torch.randint(0, 2, (100,)), torch.rand(100)
    for name, where in (("host", "cpu"), ("gpu", "cuda")):
        with EventWriter(tmp_path / name) as writer:
            pixels, truth, predictions = image.to(where), labels.to(where), guesses.to(where)
            writer.add_image("image", pixels, 1)
            writer.add_images("images", pixels[None], 1)
            writer.add_tensor("tensor", pixels.bfloat16(), 1)
            writer.add_pr_curve("curve", truth, predictions, 1)
            writer.add_mesh("mesh", pixels, global_step=1)
            writer.add_embedding(pixels[0], global_step=1)
            for tensor in (pixels, truth, predictions):
                tensor.zero_() if where == "cuda" else None
    assert summaries(tmp_path / "gpu") == summaries(tmp_path / "host")
    points = [(tmp_path / name / "00001" / "default" / "tensors.tsv").read_text() for name in ("host", "gpu")]
    assert points[0] == points[1]


def test_a_replayed_graph_logs_the_value_of_each_replay(tmp_path: Path) -> None:
    source, loss = torch.zeros((), device="cuda"), None
    graph = torch.cuda.CUDAGraph()
    with EventWriter(tmp_path) as writer:
        with torch.cuda.graph(graph):
            loss = source * 2
        for step in range(500):
            source.fill_(step)
            graph.replay()
            writer.add_scalar("a", loss, step)
    assert scalars(tmp_path) == [(step, 2.0 * step) for step in range(500)]


def test_logging_before_a_graph_capture_does_not_break_it(tmp_path: Path) -> None:
    value = torch.ones((), device="cuda")
    with EventWriter(tmp_path, flush_secs=0) as writer:
        writer.add_scalar("a", value, -1)
        writer.flush()
        for trial in range(20):
            for step in range(50):
                writer.add_scalar("a", value, step)
            writer.add_image("i", torch.rand(3, 64 + trial, 64, device="cuda"), trial)
            writer.add_histogram("h", torch.rand(100_000 * (trial + 1), device="cuda"), trial)
            flushing = threading.Thread(target=writer.flush)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                flushing.start()
                result = value * 2
                time.sleep(0.02)
                result = result + 1
            flushing.join()
            graph.replay()
            assert float(result) == 3.0
    assert len(scalars(tmp_path)) == 1001
    assert writer.dropped_events == 0


def test_a_call_during_a_graph_capture_raises_and_does_not_break_the_capture(tmp_path: Path) -> None:
    value = torch.ones((), device="cuda")
    with EventWriter(tmp_path) as writer:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = value * 2
            with pytest.raises(RuntimeError, match="captured"):
                writer.add_scalar("a", result, 1)
            with pytest.raises(RuntimeError, match="captured"):
                writer.add_histogram("h", result, 1)
        graph.replay()
        assert float(result) == 2.0
        writer.add_scalar("a", result, 2)
    assert scalars(tmp_path) == [(2, 2.0)]


def test_wrong_shapes_are_refused_without_waiting(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        torch.cuda._sleep(BUSY_CYCLES)
        behind = torch.cuda.Event()
        behind.record()
        with pytest.raises(AssertionError):
            writer.add_scalar("a", torch.zeros(2, device="cuda"), 1)
        assert not behind.query()
    assert summaries(tmp_path) == []


def test_nan_is_warned_about_once_it_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with EventWriter(tmp_path) as writer, caplog.at_level(logging.WARNING):
        writer.add_scalar("a", torch.tensor(float("nan"), device="cuda"), 1)
        writer.flush()
        assert "NaN or Inf" in caplog.text


def test_device_memory_is_bounded_and_released(tmp_path: Path) -> None:
    with EventWriter(tmp_path, max_pending_bytes=16 * 2**20) as writer:
        big = torch.rand(1 << 20, device="cuda")
        writer.add_tensor("warm", big[:10], 0)
        writer.flush()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        for step in range(50):
            writer.add_histogram("h", big, step)
        writer.flush()
        assert torch.cuda.memory_allocated() <= before + 2**20
        assert torch.cuda.max_memory_allocated() - before < 200 * 2**20
    assert len(summaries(tmp_path)) == 51


def run(code: str, logdir: Path) -> subprocess.CompletedProcess[str]:
    preamble = "import os, sys, time, torch\nfrom hf_summary_writer.events import EventWriter\nlogdir = sys.argv[1]\n"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", preamble + code, str(logdir)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_script_without_a_close_has_all_events_on_disk(tmp_path: Path) -> None:
    code = """
writer = EventWriter(logdir)
torch.cuda._sleep(500_000_000)
for step in range(1000):
    writer.add_scalar("a", torch.tensor(float(step), device="cuda"), step)
"""
    result = run(code, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert scalars(tmp_path) == [(step, float(step)) for step in range(1000)]


def test_a_forked_child_logs_without_using_the_device(tmp_path: Path) -> None:
    code = """
writer = EventWriter(logdir)
torch.cuda._sleep(500_000_000)
for step in range(100):
    writer.add_scalar("a", torch.tensor(float(step), device="cuda"), step)
time.sleep(0.2)
pid = os.fork()
if pid == 0:
    writer.add_scalar("child", 1.0, 1)
    writer.close()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    result = run(code, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert scalars(tmp_path) == [(step, float(step)) for step in range(100)]
    assert scalars(tmp_path, "child") == [(1, 1.0)]


def test_after_a_kernel_failure_neither_flush_nor_close_hangs(tmp_path: Path) -> None:
    code = """
writer = EventWriter(logdir)
writer.add_scalar("before", 1.0, 1)
bad = torch.zeros(10, device="cuda")[torch.tensor([1000], device="cuda")]
for step in range(10):
    try:
        writer.add_scalar("a", bad, step)
    except RuntimeError:
        pass
writer.add_scalar("after", 1.0, 1)
writer.flush()
writer.close()
print("closed", writer.dropped_events)
os._exit(0)
"""
    result = run(code, tmp_path)
    assert result.stdout.startswith("closed"), result.stderr
    assert scalars(tmp_path, "before") == scalars(tmp_path, "after") == [(1, 1.0)]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_several_devices_in_one_loop(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        for step in range(200):
            for index in range(2):
                writer.add_scalar(f"gpu{index}", torch.tensor(float(step), device=f"cuda:{index}"), step)
    for index in range(2):
        assert scalars(tmp_path, f"gpu{index}") == [(step, float(step)) for step in range(200)]
