"""Values on a device are read later, with the value and in the order of the calls, and no call waits for them."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import warnings
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equality import contents, show
from events import event_files, logged, scalars, steps, wait_until
from hf_summary_writer.events.files import EventFile
from hf_summary_writer.events.thread import WaitLimits, WriterThread, writer_thread
from hf_summary_writer.events.writer import EventWriter
from standin import StandIn

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn().install(monkeypatch)


def test_a_scalar_on_a_device_is_written_later_without_blocking_the_call(tmp_path: Path, device: StandIn) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_scalar("loss", device.array(1.5), 1)
        writer.add_scalar("lr", 0.25, 1)
        flushing = threading.Thread(target=writer.flush)
        flushing.start()
        flushing.join(0.3)
        assert flushing.is_alive()
        assert logged(tmp_path, growing=True) == []
        device.run_all()
        flushing.join(20)
        assert scalars(tmp_path, "loss") == [(1, 1.5)]
        assert scalars(tmp_path, "lr") == [(1, 0.25)]


def test_events_logged_before_a_value_on_a_busy_device_are_written(tmp_path: Path, device: StandIn) -> None:
    with EventWriter(tmp_path) as writer:
        for step in range(300):
            writer.add_scalar("lr", 0.5, step)
        writer.add_scalar("loss", device.array(1.5), 1)
        wait_until(lambda: steps(tmp_path, "lr", growing=True) == list(range(300)))
        assert steps(tmp_path, "loss", growing=True) == []
        device.run_all()
    assert steps(tmp_path, "loss") == [1]


def test_a_full_disk_at_close_loses_no_later_value_of_a_device(
    tmp_path: Path, device: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_scalar("lr", 0.5, 1)
        writer.flush()
        with monkeypatch.context() as disk:
            disk.setattr(EventFile, "append", Mock(side_effect=OSError("No space left on device")))
            writer.add_scalar("lr", 0.5, 2)
            writer.add_scalar("loss", device.array(2.5), 2)
            closing = writer._run_queue.close()
            writer.add_scalar("loss", device.array(3.5), 3)
            writer_thread.wait(closing)
        device.run_all()
    assert writer.dropped_events == 2
    assert scalars(tmp_path, "loss") == [(3, 3.5)]


def test_a_scalar_has_the_value_at_the_call(tmp_path: Path, device: StandIn) -> None:
    loss = device.array(0.0)
    with EventWriter(tmp_path) as writer:
        for step in range(100):
            loss.fill(step)
            writer.add_scalar("loss", loss, step)
        loss.fill(-1)
        device.run_all()
    assert scalars(tmp_path, "loss") == [(step, float(step)) for step in range(100)]


def test_many_scalars_are_copied_at_once(tmp_path: Path, device: StandIn) -> None:
    with EventWriter(tmp_path) as writer:
        for step in range(3000):
            writer.add_scalar("loss", device.array(step), step)
            writer.add_scalar("lr", step, step)
        device.run_all()
    assert steps(tmp_path, "loss") == steps(tmp_path, "lr") == list(range(3000))
    assert device.copies < 10


programs = st.lists(
    st.one_of(
        st.tuples(st.just("fill"), st.integers(0, 3), st.integers(-100, 100)),
        st.tuples(st.just("log"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("log twice"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("float"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("histogram"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("run"), st.integers(0, 1), st.integers(1, 5)),
    ),
    max_size=40,
)


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=40)
@given(programs)
def test_values_read_later_equal_values_read_synchronously(program: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as later, tempfile.TemporaryDirectory() as at_once:
        for logdir, is_synchronous in ((later, False), (at_once, True)):
            perform(program, logdir, is_synchronous=is_synchronous)
        assert show(contents(later)) == show(contents(at_once))


def perform(program: list[tuple[str, int, int]], logdir: str, *, is_synchronous: bool) -> None:
    device = StandIn()
    device.runs_at_once = is_synchronous
    # Each array has a stream of its own: 0 and 1 are shared by two each.
    arrays = [device.array([float(n)]) for n in range(4)]

    def given_to_writer(number: int) -> Any:
        return arrays[number].values.copy() if is_synchronous else arrays[number]

    with pytest.MonkeyPatch.context() as monkeypatch:
        device.install(monkeypatch)
        with EventWriter(logdir) as writer:
            for step, (action, number, argument) in enumerate(program):
                device.stream = number % 2
                if action == "fill":
                    arrays[number].fill(argument)
                elif action == "log":
                    writer.add_scalar(f"scalar{number}", given_to_writer(number), step)
                elif action == "log twice":
                    writer.add_scalars("main", {"a": given_to_writer(number), "b": 0.5}, step)
                elif action == "float":
                    writer.add_scalar("float", number, step)
                elif action == "histogram":
                    writer.add_histogram("histogram", given_to_writer(number), step)
                else:
                    device.run(number, argument)
            device.run_all()


def test_every_kind_of_scalar_is_read_later(tmp_path: Path, device: StandIn) -> None:
    value = device.array(0.5)
    with EventWriter(tmp_path) as writer:
        writer.add_scalar("new", value, 1, new_style=True)
        writer.add_scalar("described", value, 1, summary_description="words")
        writer.add_scalars("main", {"x": value}, 1)
        writer.add_hparams({"lr": 0.1}, {"accuracy": 0.75}, name="trial")
        value.fill(9)
        device.run_all()
        writer.export_scalars_to_json(tmp_path / "scalars.json")
    new, described = (event.summary.value[0] for event in logged(tmp_path))
    assert list(new.tensor.float_val) == [0.5]
    assert described.simple_value == 0.5
    assert scalars(tmp_path / "main" / "x", "main") == [(1, 0.5)]
    [[row]] = json.loads((tmp_path / "scalars.json").read_text()).values()
    assert row[1:] == [1, 0.5]


def test_metrics_of_a_trial_may_be_on_a_device(tmp_path: Path, device: StandIn) -> None:
    with EventWriter(tmp_path) as writer:
        metric = device.array(0.75)
        waiting = threading.Thread(target=writer.add_hparams, args=({"lr": 0.1}, {"accuracy": metric}, "trial"))
        waiting.start()
        device.run_all()
        waiting.join(20)
        assert not waiting.is_alive()
    assert [value for _, value in scalars(tmp_path / "trial", "accuracy")] == [0.75]


def test_media_are_read_and_encoded_later(tmp_path: Path, device: StandIn) -> None:
    rng = np.random.default_rng(0)
    pixels, labels = rng.random((3, 8, 8)), rng.integers(0, 2, 50)
    numbers, predictions = rng.standard_normal(1000), rng.random(50)
    corners = rng.random((1, 4, 3))

    def log(logdir: Path, make: Any) -> list[Any]:
        with EventWriter(logdir) as writer:
            given = [make(values) for values in (pixels, labels, numbers, predictions, corners)]
            image, truth, many, guesses, vertices = given
            writer.add_image("image", image, 1)
            writer.add_images("images", make(pixels[None]), 1)
            writer.add_histogram("histogram", many, 1)
            writer.add_pr_curve("curve", truth, guesses, 1)
            writer.add_mesh("mesh", vertices, config_dict={"a": 1}, global_step=1)
            writer.add_tensor("tensor", many, 1)
            writer.add_embedding(make(rng_points), global_step=1)
            if make == device.array:
                assert logged(logdir, growing=True) == []
                for array in given:
                    array.fill(0)
                device.run_all()
        return given

    rng_points = rng.random((5, 3))
    log(tmp_path / "host", np.copy)
    log(tmp_path / "device", device.array)
    assert show(contents(str(tmp_path / "device"))) == show(contents(str(tmp_path / "host")))
    points = [(tmp_path / name / "00001" / "default" / "tensors.tsv").read_text() for name in ("host", "device")]
    assert points[0] == points[1]


@pytest.mark.parametrize("method", ["add_scalar", "add_scalars"])
def test_more_than_one_number_is_refused_in_the_call(tmp_path: Path, device: StandIn, method: str) -> None:
    value = device.array([1.0, 2.0])
    with EventWriter(tmp_path) as writer:
        with pytest.raises(AssertionError):
            getattr(writer, method)("a", {"x": value} if method == "add_scalars" else value, 1)
        assert not device.copies
    assert logged(tmp_path) == []


def test_a_wrong_shape_is_refused_in_the_call(tmp_path: Path, device: StandIn) -> None:
    with EventWriter(tmp_path) as writer:
        with pytest.raises(Exception):  # noqa: B017, PT011 - the type depends on Pillow
            writer.add_image("image", device.array(np.zeros((7, 8, 8))), 1)
        with pytest.raises(ValueError, match="bins"):
            writer.add_pr_curve("curve", device.array([0.0, 1.0]), device.array([0.1, 0.9]), num_thresholds=0)
        writer.add_scalar("a", 1, 1)
    assert steps(tmp_path, "a") == [1]


def test_a_value_that_is_not_finite_is_warned_about_once_it_is_read(
    tmp_path: Path, device: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    with EventWriter(tmp_path) as writer, caplog.at_level(logging.WARNING):
        writer.add_scalar("a", device.array(float("nan")), 1)
        assert "NaN or Inf" not in caplog.text
        device.run_all()
        writer.flush()
    assert "NaN or Inf" in caplog.text


def test_a_device_failure_is_logged_once_and_nothing_hangs(
    tmp_path: Path, device: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_scalar("before", 1, 1)
        for step in range(10):
            writer.add_scalar("loss", device.array(step), step)
            if step == 5:
                device.error = RuntimeError("an illegal memory access was encountered")
                writer.flush()
        writer.add_image("image", device.array(np.zeros((3, 4, 4))), 1)
        writer.add_scalar("after", 1, 1)
        writer.flush()
    assert writer.dropped_events == 11
    assert steps(tmp_path, "before") == steps(tmp_path, "after") == [1]
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "illegal memory access" in record.getMessage()


def test_a_flush_gives_up_on_a_hung_device_and_other_writers_go_on(
    tmp_path: Path, device: StandIn, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WriterThread, "limits", WaitLimits(check=0.05, hang=0.2))
    with EventWriter(tmp_path / "stuck") as writer, EventWriter(tmp_path / "other") as other:
        writer.add_scalar("loss", device.array(1), 1)
        writer.flush()
        assert "the device has not answered" in caplog.text
        other.add_scalar("a", 1, 1)
        wait_until(lambda: steps(tmp_path / "other", "a", growing=True) == [1])
        device.run_all()
    assert steps(tmp_path / "stuck", "loss") == [1]


def test_a_call_during_graph_capture_raises_and_enqueues_nothing(tmp_path: Path, device: StandIn) -> None:
    device.is_capturing = True
    with EventWriter(tmp_path, max_pending_bytes=4096) as writer:
        for _ in range(3):
            with pytest.raises(RuntimeError, match="capturing"):
                writer.add_scalar("loss", device.array(1), 1)
            with pytest.raises(RuntimeError, match="capturing"):
                writer.add_histogram("numbers", device.array(np.zeros(400)), 1)
        device.is_capturing = False
        device.runs_at_once = True
        # The whole limit on device memory is still free.
        writer.add_histogram("numbers", device.array(np.zeros(512)), 1)
        assert writer._memory._acquired_on_device == 4096
    assert len(logged(tmp_path)) == 1


def test_pending_numbers_on_a_device_count_towards_the_memory_limit(tmp_path: Path, device: StandIn) -> None:
    with EventWriter(tmp_path, max_pending_bytes=1_000_000) as writer:
        for step in range(100):
            writer.add_scalar("loss", device.array(1.5), step)
        # torch's view of one takes more than 600 bytes.
        assert writer._memory._acquired - writer._memory._released > 100 * 600
        device.run_all()
        writer.flush()
        assert writer._memory._acquired == writer._memory._released
    assert steps(tmp_path, "loss") == list(range(100))


def test_over_the_limit_on_device_memory_the_caller_waits_for_the_copy(tmp_path: Path, device: StandIn) -> None:
    with EventWriter(tmp_path, max_pending_bytes=105_000) as writer:
        for step in range(10):
            # Four of them fit; the stand-in runs enqueued work when it is read synchronously.
            writer.add_histogram("numbers", device.array(np.full(3000, step)), step)
            assert device.runs_at_once == (step >= 4)
            if step == 4:
                break
        writer.flush()
        assert writer._memory._acquired_on_device == writer._memory._released_on_device == 4 * 24_000
    assert [event.summary.value[0].histo.max for event in logged(tmp_path)] == list(range(5))


def test_device_memory_of_refused_events_is_released(
    tmp_path: Path, device: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.runs_at_once = True
    with EventWriter(tmp_path, max_pending_bytes=100_000) as writer:
        with monkeypatch.context() as disk:
            disk.setattr(EventFile, "append", Mock(side_effect=OSError("No space left on device")))
            for step in range(50):
                writer.add_tensor("numbers", device.array(np.zeros(1000)), step)
            writer.flush()
        with pytest.raises(ValueError, match="invalid literal"):
            writer.add_tensor("numbers", device.array(np.zeros(1000)), "no step")
        with pytest.raises(TypeError, match="not JSON serializable"):
            writer.add_mesh("mesh", device.array(np.zeros((1, 8, 3))), config_dict={"camera": object()})
        writer.flush()
        assert writer.dropped_events > 0
        assert writer._memory._acquired_on_device == writer._memory._released_on_device


def test_without_device_memory_the_value_is_read_in_the_call(tmp_path: Path, device: StandIn) -> None:
    device.has_memory = False
    with EventWriter(tmp_path) as writer:
        writer.add_histogram("numbers", device.array(np.arange(10.0)), 1)
        assert device.runs_at_once
    assert len(logged(tmp_path)) == 1
    assert writer._memory._acquired_on_device == 0


def test_a_writer_without_files_reads_values_synchronously(tmp_path: Path, device: StandIn) -> None:
    with EventWriter(tmp_path / "run", write_to_disk=False) as writer:
        for method in (writer.add_scalar, writer.add_histogram):
            device.runs_at_once = False
            method("a", device.array(1.0))
            assert device.runs_at_once
    assert event_files(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_values_on_a_device_to_its_parent(tmp_path: Path, device: StandIn) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_scalar("parent", device.array(1), 1)
        wait_until(lambda: device.copies == 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the test forks with threads
            pid = os.fork()
        if pid == 0:
            writer.add_scalar("child", 1, 1)
            writer.flush()
            os._exit(0 if device.copies == 1 else 1)
        assert os.waitpid(pid, 0)[1] == 0
        device.run_all()
    assert steps(tmp_path, "parent") == steps(tmp_path, "child") == [1]
