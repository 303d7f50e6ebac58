"""The local writer: event order, durable flush, separate files, bounded memory and shutdown."""

from __future__ import annotations

import contextlib
import copy
import errno
import gc
import itertools
import logging
import math
import os
import pathlib
import pickle
import re
import socket
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
import tensorboardX
from google.protobuf import text_format
from tensorboard.compat.proto import event_pb2 as their_event
from tensorboard.compat.proto import summary_pb2 as their_summary
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from events import event_files, events, logged, scalars, steps, tensorboard_scalars, wait_until
from hf_summary_writer.checks import NAME_BYTES
from hf_summary_writer.events import media
from hf_summary_writer.events.device import HostCopies
from hf_summary_writer.events.failures import WriteFailures
from hf_summary_writer.events.files import EventFile, SegmentName, followed, parse_name
from hf_summary_writer.events.memory import MemoryLimit
from hf_summary_writer.events.queue import EventQueue
from hf_summary_writer.events.run_files import _SUFFIX_BYTES
from hf_summary_writer.events.signals import FlushRequest, Signal
from hf_summary_writer.events.thread import writer_thread
from hf_summary_writer.events.writer import EventWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

THREAD = "hf-summary-writer-events"


def writer_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def test_the_writer_is_a_summary_writer(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        assert isinstance(writer, tensorboardX.SummaryWriter)


def test_the_event_file_exists_when_the_constructor_returns(tmp_path: Path) -> None:
    with EventWriter(tmp_path / "run"):
        [path] = event_files(tmp_path)
        assert [event.file_version for event in events(path)] == ["brain.Event:2"]


def test_events_are_written_in_the_order_of_the_calls(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        for step in range(3000):
            writer.add_scalar("a", step / 7, step)
            if step % 100 == 0:
                writer.add_text("note", str(step), step)
    found = [(event.step, event.summary.value[0].tag) for event in logged(tmp_path)]
    expected = []
    for step in range(3000):
        expected.append((step, "a"))
        if step % 100 == 0:
            expected.append((step, "note/text_summary"))
    assert found == expected


def test_tensorboard_reads_the_logged_scalars(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        for step in range(100):
            writer.add_scalar("loss", 1 / (step + 1), step)
    assert tensorboard_scalars(tmp_path, "loss") == scalars(tmp_path, "loss")
    assert steps(tmp_path, "loss") == list(range(100))


def test_flush_returns_once_all_earlier_events_are_written_and_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    with EventWriter(tmp_path) as writer:
        monkeypatch.setattr(os, "fsync", fsync)
        for trial in range(30):
            for step in range(trial * 20):
                writer.add_scalar(f"trial{trial}", step, step)
            writer.flush()
            assert steps(tmp_path, f"trial{trial}") == list(range(trial * 20))
            [path] = event_files(tmp_path)
            assert path.stat().st_size in synced


def test_flush_covers_earlier_events_of_other_threads(tmp_path: Path) -> None:
    threads = 8
    failures: list[str] = []

    def log(writer: EventWriter, name: str) -> None:
        for round_ in range(15):
            for step in range(round_ * 20, round_ * 20 + 20):
                writer.add_scalar(name, step, step)
            writer.flush()
            found = steps(tmp_path, name, growing=True)
            if found != list(range(round_ * 20 + 20)):
                failures.append(f"{name} round {round_}: {len(found)}")

    with EventWriter(tmp_path) as writer:
        workers = [threading.Thread(target=log, args=(writer, f"thread{n}")) for n in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert failures == []


def test_flush_waits_for_a_close_in_another_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk = threading.Event()
    writer = EventWriter(tmp_path)
    for step in range(100):
        writer.add_scalar("a", step, step)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: on_disk.wait(60))
        closer = threading.Thread(target=writer.close)
        closer.start()
        wait_until(lambda: writer.all_writers is None)
        flusher = threading.Thread(target=writer.flush)
        flusher.start()
        flusher.join(0.3)
        assert flusher.is_alive()
        on_disk.set()
        flusher.join(20)
        closer.join(20)
    assert steps(tmp_path, "a") == list(range(100))


def test_a_relative_logdir_is_kept_when_the_working_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_summary_writer.events.queue._VERIFY_SECONDS", 0)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with EventWriter("run", segment_bytes=2000) as writer:
        writer.add_scalar("a", 0, 0)
        writer.flush()
        monkeypatch.chdir(tmp_path / "elsewhere")
        for step in range(1, 100):
            writer.add_scalar("a", step, step)
            writer.flush()
        writer.add_scalars("plot", {"x": 1}, 1)
        writer.add_embedding(np.zeros((3, 2)))
        assert writer.logdir == writer.file_writer.get_logdir() == "run"
        assert list(writer.scalar_dict) == ["run/plot/x"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert steps(tmp_path / "run", "a") == list(range(100))
    assert steps(tmp_path / "run" / "plot" / "x", "plot") == [1]
    assert (tmp_path / "run" / "00000" / "default" / "tensors.tsv").exists()
    assert (tmp_path / "run" / "projector_config.pbtxt").exists()


def test_embeddings_are_listed_in_the_order_of_the_calls(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_embedding(np.zeros((200, 50)), tag="array")
        writer.add_embedding([[1.0, 2.0], [3.0, 4.0]], tag="list")
    listed = (tmp_path / "projector_config.pbtxt").read_text()
    assert listed.index("array") < listed.index("list")


@pytest.mark.parametrize("step", ["make_mat", "append_pbtxt"])
def test_an_embedding_cut_short_by_a_full_disk_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write = getattr(media, step)

    def write_part(*arguments: Any) -> None:
        write(*arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    with EventWriter(tmp_path) as writer:
        writer.add_embedding(np.eye(2), tag="first")
        writer.flush()
        files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in {".tsv", ".pbtxt"}}
        with monkeypatch.context() as disk:
            disk.setattr(media, step, write_part)
            writer.add_embedding(np.eye(2), tag="second")
            writer.flush()
        assert writer.dropped_events == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in {".tsv", ".pbtxt"}} == files
    assert len(files) == 2


def test_the_projector_reads_embeddings_with_any_tag(tmp_path: Path) -> None:
    tags = ['quoted "tag"', "two\nlines", "größe", "back\\slash", "plain"]
    with EventWriter(tmp_path) as writer:
        for tag in tags:
            writer.add_embedding(np.eye(2), tag=tag)
    config = text_format.Parse((tmp_path / "projector_config.pbtxt").read_text("utf-8"), ProjectorConfig())
    assert [embedding.tensor_name for embedding in config.embeddings] == [f"{tag}:00000" for tag in tags]
    assert all((tmp_path / embedding.tensor_path).is_file() for embedding in config.embeddings)


@pytest.mark.parametrize("header", [None, ["a", "b"]])
def test_labels_of_an_embedding_count_towards_the_memory_limit(tmp_path: Path, header: list[str] | None) -> None:
    label = "x" * 10_000
    labels: list[Any] = [label] * 100 if header is None else [[label, label]] * 50
    with EventWriter(tmp_path) as writer:
        writer.add_embedding(np.zeros((len(labels), 2)), labels, metadata_header=header)
        assert writer._memory._acquired > 100 * 10_000
        writer.flush()
        assert writer._memory._acquired == writer._memory._released


def test_flush_covers_sub_runs(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_scalars("many", {"a": 1.0, "b": 2.0}, 3)
        writer.flush()
        assert scalars(tmp_path / "many" / "a", "many") == [(3, 1.0)]
        assert scalars(tmp_path / "many" / "b", "many") == [(3, 2.0)]


def test_events_reach_the_file_without_flush(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_scalar("a", 1, 1)
        wait_until(lambda: steps(tmp_path, "a", growing=True) == [1])


def test_flush_secs_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _: synced.set())
    with EventWriter(tmp_path, flush_secs=0.01) as writer:
        writer.add_scalar("a", 1, 1)
        assert synced.wait(10)


def test_repeated_and_concurrent_closes_are_one_close(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    for step in range(1000):
        writer.add_scalar("a", step, step)
    closers = [threading.Thread(target=writer.close) for _ in range(4)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join()
    writer.close()
    writer.flush()
    assert steps(tmp_path, "a") == list(range(1000))
    assert len(event_files(tmp_path)) == 1


def test_a_write_after_close_opens_a_new_file_that_follows_the_first(tmp_path: Path) -> None:
    class Counting(EventWriter):
        reopenings = 0

        def _reopened(self) -> None:
            self.reopenings += 1

    writer = Counting(tmp_path)
    writer.add_scalar("a", 1, 1)
    writer.close()
    [first] = event_files(tmp_path)
    content = first.read_bytes()
    writer.add_scalar("a", 2, 2)
    writer.add_scalar("a", 3, 3)
    writer.close()
    assert writer.reopenings == 1
    assert first.read_bytes() == content
    assert steps(tmp_path, "a") == [1, 2, 3]
    assert followed(path.name for path in event_files(tmp_path)) == {first.name}


def test_nothing_is_lost_when_threads_log_while_others_close(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    count = 3000

    def log(name: str) -> None:
        for step in range(count):
            writer.add_scalar(name, step, step)

    loggers = [threading.Thread(target=log, args=(f"thread{n}",)) for n in range(4)]
    for thread in loggers:
        thread.start()
    while any(thread.is_alive() for thread in loggers):
        writer.close()
    writer.close()
    wait_until(lambda: not writer_threads())
    for n in range(4):
        assert steps(tmp_path, f"thread{n}") == list(range(count))


def test_two_writers_in_one_folder_never_share_a_file(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as one, EventWriter(tmp_path) as other:
        one.add_scalar("one", 1, 1)
        other.add_scalar("other", 2, 2)
    assert len(event_files(tmp_path)) == 2
    assert steps(tmp_path, "one") == [1]
    assert steps(tmp_path, "other") == [2]


def test_the_file_name_carries_host_pid_and_suffix(tmp_path: Path) -> None:
    with EventWriter(tmp_path, filename_suffix=".mine"):
        [path] = event_files(tmp_path)
    name = parse_name(path.name)
    assert name is not None
    assert (name.pid, name.suffix, name.segment) == (os.getpid(), ".mine", 0)
    assert name.host


def test_a_long_run_is_split_into_segments(tmp_path: Path) -> None:
    with EventWriter(tmp_path, segment_bytes=4096) as writer:
        for step in range(5000):
            writer.add_scalar("a", step, step)
            if step % 500 == 0:
                writer.flush()
    paths = event_files(tmp_path)
    assert len(paths) > 5
    assert followed(path.name for path in paths) == {path.name for path in paths[:-1]}
    assert steps(tmp_path, "a") == list(range(5000))
    assert [step for step, _ in tensorboard_scalars(tmp_path, "a")] == list(range(5000))


def test_a_run_under_the_limit_has_one_file(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        for step in range(10_000):
            writer.add_scalar("a", step, step)
    assert len(event_files(tmp_path)) == 1


def test_event_files_lists_the_open_files(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    writer.add_scalars("m", {"x": 1})
    writer.flush()
    assert sorted(writer.event_files) == [str(path) for path in event_files(tmp_path)]
    writer.close()
    assert writer.event_files == []


def test_the_purge_step_is_written_once(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path, purge_step=7)
    writer.add_scalar("a", 1, 8)
    writer.close()
    writer.add_scalar("a", 2, 9)
    writer.close()
    assert [event.step for event in logged(tmp_path) if event.WhichOneof("what") == "session_log"] == [7]


def test_hparams_are_written_to_a_separate_run_by_the_same_thread(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_hparams({"lr": 0.1}, {"acc": 0.5}, name="trial", global_step=4)
        writer.flush()
        assert scalars(tmp_path / "trial", "acc") == [(4, 0.5)]
        [path] = event_files(tmp_path / "trial")
        assert parse_name(path.name) is not None


def test_hparams_may_be_written_to_the_run_itself(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_hparams({"lr": 0.1}, {}, run_name=".")
    assert len(event_files(tmp_path)) == 1
    assert len(logged(tmp_path)) == 3


def test_protocol_buffers_of_tensorboardx_are_accepted(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        theirs = their_summary.Summary(value=[their_summary.Summary.Value(tag="theirs", simple_value=2.0)])
        writer.file_writer.add_summary(theirs, 3)
        writer._get_file_writer().add_event(their_event.Event(summary=theirs), 4)
        writer.file_writer.event_writer.add_event(their_event.Event(summary=theirs, step=5))
    assert steps(tmp_path, "theirs") == [3, 4, 5]


@pytest.mark.parametrize("wrong", [None, b"bytes", "text", 3, their_event.Event(), object()])
def test_an_object_that_is_not_a_summary_is_refused_in_the_call(tmp_path: Path, wrong: object) -> None:
    with EventWriter(tmp_path) as writer, pytest.raises(TypeError):
        writer.file_writer.add_summary(wrong)


def test_without_write_to_disk_nothing_is_written(tmp_path: Path) -> None:
    with EventWriter(tmp_path / "run", write_to_disk=False) as writer:
        writer.add_scalar("a", 1)
        writer.add_scalars("m", {"x": 1})
        writer.add_hparams({"lr": 1}, {"acc": 1})
        writer.add_embedding(np.eye(2), ["a", "b"])
        writer.flush()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("logdir", ["s3://bucket/run", "gs://bucket/run"])
def test_object_storage_is_refused_before_anything_is_written(logdir: str) -> None:
    with pytest.raises(ValueError, match="local folder"):
        EventWriter(logdir)


def test_a_file_as_logdir_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        EventWriter(tmp_path / "file")


@pytest.mark.parametrize(
    "arguments",
    [
        {"filename_suffix": "../x"},
        {"segment_bytes": 0},
        {"max_pending_bytes": -1},
        {"filename_suffix": "\0"},
        {"filename_suffix": "x" * 101},
        {"purge_step": 1 << 63},
        {"flush_secs": -1},
        {"logdir": "x" * 256},
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_written(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        EventWriter(**{"logdir": tmp_path / "run", **arguments})
    assert list(tmp_path.iterdir()) == []


def test_flush_secs_may_be_none_but_otherwise_must_be_a_number(tmp_path: Path) -> None:
    with EventWriter(tmp_path / "run", flush_secs=None) as writer:
        writer.add_scalar("a", 1, 1)
        writer.flush()
        assert steps(tmp_path / "run", "a", growing=True) == [1]
    with EventWriter(tmp_path / "run", flush_secs=math.inf):
        pass
    with pytest.raises(TypeError, match="flush_secs must be a number of seconds, not str"):
        EventWriter(tmp_path / "other", flush_secs="120")  # type: ignore[arg-type]
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"filename_suffix": None}, "filename_suffix must be a str, not NoneType"),
        ({"segment_bytes": "4 MiB"}, "segment_bytes must be a number of bytes, not str"),
        ({"max_pending_bytes": None}, "max_pending_bytes must be a number of bytes, not NoneType"),
        ({"logdir": 0}, "logdir must be a str or a path, not int"),
        ({"logdir": []}, "logdir must be a str or a path, not list"),
        ({"logdir": np.array([1, 2])}, "logdir must be a str or a path, not ndarray"),
        ({"logdir": None, "comment": 3}, "comment must be a str, not int"),
    ],
    ids=str,
)
def test_arguments_of_the_wrong_type_are_named(tmp_path: Path, argument: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        EventWriter(**{"logdir": tmp_path / "run", **argument})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", [1.5, "3", True], ids=repr)
def test_a_purge_step_that_is_not_an_integer_is_refused_at_once(tmp_path: Path, step: Any) -> None:
    with pytest.raises(TypeError, match="purge_step must be an integer"):
        EventWriter(tmp_path / "run", purge_step=step)
    assert list(tmp_path.iterdir()) == []


def test_the_longest_suffix_fits_the_longest_file_name() -> None:
    name = SegmentName(10**10 - 1, "h" * 64, 2**32 - 1, 10**6, 10**6 - 1, "0" * 8, "x" * _SUFFIX_BYTES)
    assert parse_name(str(name)) == name
    assert len(str(name)) <= NAME_BYTES


def test_calls_with_one_invalid_value_write_nothing(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        for wrong in ("text", [1, 2]):
            with pytest.raises((AssertionError, TypeError)):
                writer.add_scalars("main", {"x": 1, "y": wrong}, 1)
        with pytest.raises(ValueError, match="invalid literal"):
            writer.add_hparams({"lr": 1}, {"accuracy": 1}, "trial", "no step")
    assert writer.scalar_dict == {}
    assert [path.parent for path in event_files(tmp_path)] == [tmp_path]
    assert logged(tmp_path) == []


def test_a_tag_that_cannot_be_encoded_is_refused_in_the_call(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer, pytest.raises(UnicodeEncodeError):
        writer.add_audio("\udcff", np.zeros(100, np.float32))


def test_a_rate_that_no_file_can_hold_is_refused_in_the_call(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    with EventWriter(tmp_path) as writer, pytest.raises(OverflowError):
        writer.add_audio("sound", np.zeros(100, np.float32), sample_rate=1 << 31)
    assert writer.dropped_events == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("fps", [math.nan, 1e-9])
def test_frames_per_second_that_no_file_can_hold_are_refused_in_the_call(tmp_path: Path, fps: float) -> None:
    pytest.importorskip("moviepy")
    with EventWriter(tmp_path) as writer, pytest.raises(Exception):  # noqa: B017, PT011 - the type depends on Pillow
        writer.add_video("film", np.zeros((1, 2, 3, 4, 4), np.uint8), fps=fps)
    assert writer.dropped_events == 0


@pytest.mark.parametrize("name", ["..", "../elsewhere", "a/../../b", "nul\0", "prompt " * 50], ids=repr)
def test_invalid_names_of_sub_runs_are_refused_in_the_call(tmp_path: Path, name: str) -> None:
    with EventWriter(tmp_path / "run") as writer:
        with pytest.raises(ValueError, match="name"):
            writer.add_scalars(name, {"x": 1})
        with pytest.raises(ValueError, match="name"):
            writer.add_scalars("main", {"x": 1, name: 1})
        with pytest.raises(ValueError, match="name"):
            writer.add_hparams({"lr": 1}, {"accuracy": 1}, run_name=name)
        writer.add_scalar("a", 1, 1)
    assert os.listdir(tmp_path) == ["run"]  # noqa: PTH208
    assert [path.parent.name for path in (tmp_path / "run").rglob("*")] == ["run"]


@pytest.mark.parametrize("tag", ["..", "nul\0", "x" * 300])
def test_invalid_tags_of_embeddings_are_refused_in_the_call(tmp_path: Path, tag: str) -> None:
    with EventWriter(tmp_path) as writer, pytest.raises(ValueError, match="name"):
        writer.add_embedding(np.zeros((3, 2)), tag=tag)


def test_a_trial_may_be_named_by_the_path_of_the_logdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with EventWriter("run") as writer:
        writer.add_hparams({"lr": 0.1}, {}, run_name=str(tmp_path / "run"))
    assert len(event_files(tmp_path / "run")) == 1


def test_unknown_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=r"unknown keyword arguments: flush_sec \(did you mean flush_secs\?\), unheard_of$"
    ):
        EventWriter(tmp_path, unheard_of=1, flush_sec=1)


def test_logdir_is_accepted_by_position_and_under_both_names(tmp_path: Path) -> None:
    for writer in (
        EventWriter(tmp_path / "run"),
        EventWriter(logdir=str(tmp_path / "run")),
        EventWriter(log_dir=tmp_path / "run"),
    ):
        with writer:
            assert writer.logdir == writer.log_dir == writer.get_logdir() == str(tmp_path / "run")


@pytest.mark.parametrize("name", ["../../up", "a\\b", "n\udcff\udcfe", "a\x1b[31m\n", ""])
def test_an_odd_name_of_the_machine_names_a_folder_in_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    with EventWriter() as writer:
        assert pathlib.Path(writer.logdir).parts[0] == "runs"
        assert len(pathlib.Path(writer.logdir).parts) == 2
        assert writer.logdir.isprintable()


@pytest.mark.usefixtures("collect_tensorboardx_writers")
def test_the_default_logdir_is_that_of_tensorboardx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with EventWriter(comment="_note") as writer, tensorboardX.SummaryWriter(comment="_note") as theirs:
        digits = re.compile("[0-9]")
        assert digits.sub("0", writer.logdir) == digits.sub("0", theirs.logdir)
        assert pathlib.Path(writer.logdir).parent.name == "runs"
        assert writer.logdir.endswith("_note")
    assert len(event_files(tmp_path / "runs")) == 2


def test_a_dropped_writer_still_writes_all_events(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    writer.add_scalar("a", 1, 1)
    del writer
    gc.collect()
    wait_until(lambda: not writer_threads())
    assert steps(tmp_path, "a") == [1]


def test_the_thread_ends_with_the_last_writer_and_restarts_with_the_next(tmp_path: Path) -> None:
    for _ in range(3):
        with EventWriter(tmp_path) as writer:
            writer.add_scalar("a", 1)
            assert len(writer_threads()) == 1
        wait_until(lambda: not writer_threads())


def test_a_thousand_writers_leak_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    process = psutil.Process()
    with EventWriter(tmp_path):
        pass
    wait_until(lambda: not writer_threads())
    before = process.num_fds()
    for cycle in range(1000):
        with EventWriter(tmp_path / str(cycle % 10)) as writer:
            writer.add_scalar("a", cycle, cycle)
    wait_until(lambda: not writer_threads())
    # Fewer if descriptors of an earlier test were garbage-collected in the meantime.
    assert process.num_fds() <= before
    assert sum(len(steps(tmp_path / str(n), "a")) for n in range(10)) == 1000


def test_threads_and_descriptors_do_not_grow_with_sub_runs(tmp_path: Path) -> None:
    process = psutil.Process()
    before = process.num_fds()
    with EventWriter(tmp_path) as writer:
        for step in range(3):
            writer.add_scalars("many", {f"key{n}": n for n in range(200)}, step)
            writer.flush()
            assert len(writer_threads()) == 1
            assert process.num_fds() - before <= 40
    for n in range(200):
        assert steps(tmp_path / "many" / f"key{n}", "many") == [0, 1, 2]


def test_a_caller_at_the_memory_limit_waits_for_the_disk_and_loses_nothing(tmp_path: Path) -> None:
    with EventWriter(tmp_path, max_pending_bytes=20_000) as writer:
        for step in range(20_000):
            writer.add_scalar("a", step, step)
            assert len(writer._queue.items) * 192 <= 20_200
        writer.flush()
        for step in range(20):
            writer.add_text("big", "x" * 15_000, step)
            assert len(writer._queue.items) <= 3
    assert steps(tmp_path, "a") == list(range(20_000))
    assert steps(tmp_path, "big/text_summary") == list(range(20))
    assert writer.dropped_events == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda writer, step: writer.add_scalar("a", float(step), step),
        lambda writer, step: writer.add_histogram("a", np.arange(10.0), step),
        lambda writer, step: writer.add_image("a", np.zeros((3, 4, 4), np.uint8), step),
        lambda writer, step: writer.add_text("a", "text", step),
    ],
    ids=["scalars", "histograms", "images", "texts"],
)
def test_small_events_stay_below_the_limit_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[EventWriter, int], None]
) -> None:
    limit = 1 << 20
    with EventWriter(tmp_path, max_pending_bytes=limit) as writer:
        call(writer, 0)
        writer.flush()
        monkeypatch.setattr(EventFile, "append", Mock(side_effect=OSError("No space left on device")))
        writer.add_scalar("a", 1.0, 0)
        writer.flush()
        tracemalloc.start()
        try:
            for step in itertools.count():
                call(writer, step)
                if writer.dropped_events:
                    break
            assert tracemalloc.get_traced_memory()[0] < limit
        finally:
            tracemalloc.stop()
        monkeypatch.undo()


def test_an_interrupted_call_releases_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire = MemoryLimit.acquire

    def interrupt(memory: MemoryLimit, nbytes: int) -> None:
        acquire(memory, nbytes)
        raise KeyboardInterrupt

    with EventWriter(tmp_path, max_pending_bytes=100_000) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(MemoryLimit, "acquire", interrupt)
            with pytest.raises(KeyboardInterrupt):
                writer.add_histogram("large", np.zeros(100_000))
        writer.flush()
        for step in range(10):
            writer.add_scalar("a", 1.0, step)
        writer.flush()
        assert writer._memory.items > 0
    assert steps(tmp_path, "a") == list(range(10))


def test_metadata_applies_to_every_call_and_ends_with_an_exception(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_scalar("a", 0, 1)
        with contextlib.suppress(KeyError), writer.use_metadata(global_step=7, walltime=123.0):
            writer.add_scalar("a", 1)
            writer.add_scalar("a", 2, 8)
            raise KeyError
        writer.add_scalar("a", 3, 9)
    assert steps(tmp_path, "a") == [1, 7, 8, 9]
    assert [event.wall_time for event in logged(tmp_path)][1:3] == [123.0, 123.0]


def test_the_memory_for_tags_is_bounded(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        for n in range(10_500):
            writer.add_scalar(f"tag{n}", n, 1)
        assert len(writer._prefixes) <= 10_000
    assert len(logged(tmp_path)) == 10_500


def test_only_the_event_that_cannot_be_encoded_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Any:
        raise RuntimeError("broken encoder")

    with EventWriter(tmp_path) as writer:
        writer.add_scalar("a", 1, 1)
        with caplog.at_level(logging.ERROR):
            writer.file_writer.add_deferred(fail, 100)
            writer.add_scalar("a", 2, 2)
            writer.flush()
        assert writer.dropped_events == 1
    assert "could not be encoded" in caplog.text
    assert steps(tmp_path, "a") == [1, 2]


@pytest.mark.faults("D12")
@pytest.mark.parametrize("bug", [RuntimeError("a bug"), MemoryError(), SystemExit(3)], ids=repr)
@pytest.mark.parametrize(
    ("kind", "step"), [(EventFile, "append"), (EventFile, "verify"), (EventFile, "sync"), (EventQueue, "work")]
)
def test_a_bug_in_one_writer_delays_no_other_writer_and_no_flush(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[EventFile | EventQueue],
    step: str,
    bug: BaseException,
) -> None:
    real = getattr(kind, step)

    def broken(self: Any, *arguments: Any) -> Any:
        if getattr(self, "directory", None) == folder or getattr(self, "_directory", None) == folder:
            raise bug
        return real(self, *arguments)

    def use() -> None:
        for number in range(3):
            writers[0].add_scalar("a", number, number)
            writers[1].add_scalar("b", number, number)
            writers[0].flush()
            writers[1].flush()
        done.append(steps(tmp_path / "good", "b", growing=True))
        monkeypatch.undo()
        writers[0].add_scalar("a", 3, 3)
        for writer in writers:
            writer.close()
        done.append(steps(tmp_path / "good", "b"))

    folder = str(tmp_path / "bad")
    writers = [EventWriter(folder), EventWriter(tmp_path / "good")]
    done: list[list[int]] = []
    for writer in writers:
        writer.flush()
    monkeypatch.setattr("hf_summary_writer.events.queue._VERIFY_SECONDS", 0)
    monkeypatch.setattr(kind, step, broken)
    [thread] = writer_threads()
    with caplog.at_level(logging.ERROR):
        using = threading.Thread(target=use, daemon=True)
        using.start()
        using.join(20)
        assert not using.is_alive()
    assert done == [[0, 1, 2], [0, 1, 2]]
    assert writer_threads() in ([], [thread])
    found = steps(folder, "a")
    assert found == ([0, 1, 2, 3] if step == "sync" else [3])
    assert len(found) + writers[0].dropped_events == 4
    [record] = [record for record in caplog.records if record.exc_info]
    assert folder in record.getMessage()
    wait_until(lambda: not writer_threads())


def test_a_bug_in_periodic_work_loses_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: EventQueue, now: float) -> None:
        raise RuntimeError(now)

    with monkeypatch.context() as patched:
        patched.setattr(EventQueue, "tidy", broken)
        with EventWriter(tmp_path) as writer:
            [thread] = writer_threads()
            for step in range(3):
                writer.add_scalar("a", step, step)
                writer.flush()
            assert writer_threads() == [thread]
    assert steps(tmp_path, "a") == [0, 1, 2]
    assert len([record for record in caplog.records if record.exc_info]) == 1


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda writer: pickle.loads(pickle.dumps(writer))])
def test_a_copied_writer_writes_its_own_file_in_the_same_folder(tmp_path: Path, copied: Any) -> None:
    with EventWriter(tmp_path, purge_step=3, filename_suffix=".x", segment_bytes=5000) as writer:
        writer.add_scalar("a", 1, 1)
        with copied(writer) as other:
            other.add_scalar("a", 2, 2)
            assert (other.logdir, other._filename_suffix, other._segment_bytes) == (str(tmp_path), ".x", 5000)
    assert steps(tmp_path, "a") == [1, 2]
    assert len(event_files(tmp_path)) == 2
    assert len([event for event in logged(tmp_path) if event.WhichOneof("what") == "session_log"]) == 1


def test_a_finalizer_that_closes_a_writer_does_not_hang_the_writer_thread(tmp_path: Path) -> None:
    closed = threading.Event()
    other = EventWriter(tmp_path / "other")
    other.add_scalar("b", 1, 1)

    def encode() -> Any:
        # A finalizer that runs when garbage is collected during encoding.
        other.add_scalar("b", 2, 2)
        other.flush()
        other.close()
        closed.set()
        raise RuntimeError("no event of it")

    with EventWriter(tmp_path / "one") as writer:
        writer.file_writer.add_deferred(encode, 10)
        writer.add_scalar("a", 1, 1)
        writer.flush()
        assert closed.is_set()
    assert steps(tmp_path / "one", "a") == [1]
    wait_until(lambda: not writer_threads())
    assert steps(tmp_path / "other", "b") == [1, 2]


def test_late_callers_of_a_closed_writer_register_its_queue_every_time(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        events = writer._run_queue
    assert events is not None
    events.register(1e12)
    assert events.register_at == 0


def test_a_queue_that_gave_up_its_events_is_not_failing_behind_a_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_thread, "register", lambda _: None)
    events = EventQueue(str(tmp_path), EventFile(str(tmp_path)), MemoryLimit(1 << 20), WriteFailures(1 << 20))
    events.put(b"event")
    requests = [events.close(), events.request_flush()]
    for _ in range(2):  # a close is tried twice
        events._fall_back(OSError(errno.EIO, "Input/output error"), 0.0)
    assert all(request.wait(0) for request in requests)
    assert not events.failing


def test_a_caller_may_look_at_copies_from_a_device_while_they_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = HostCopies((), lambda _: None)
    found: list[HostCopies | None] = [copies, None]
    read = property(lambda _: found.pop(0), lambda *_: None)
    monkeypatch.setattr(EventQueue, "_copies", read, raising=False)
    events = EventQueue(str(tmp_path), EventFile(str(tmp_path)), MemoryLimit(1 << 20), WriteFailures(1 << 20))
    assert events.device_wait_began == copies.began


def test_a_flush_that_races_with_a_disk_failure_ends_with_the_next_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_thread, "register", lambda _: None)
    failure = OSError(errno.EIO, "Input/output error")
    events = EventQueue(str(tmp_path), EventFile(str(tmp_path)), MemoryLimit(1 << 20), WriteFailures(1 << 20))

    class AddedLate(set[FlushRequest]):
        """The disk fails after a caller looked this set up and before it adds its request."""

        def add(self, request: FlushRequest) -> None:
            events._fall_back(failure, 0.0)
            super().add(request)

    events._requests = AddedLate()
    request = events.request_flush()
    assert not request.wait(0)
    events._fall_back(failure, 0.0)
    assert request.wait(0)
    assert not events.items


def test_a_signal_handler_may_wait_for_the_signal_whose_wait_it_interrupts() -> None:
    signal = Signal()
    waited: list[bool] = []

    class Interrupted:
        """The signal handler runs after its thread took the token and before it returns it."""

        def __init__(self, tokens: Any) -> None:
            self.tokens = tokens

        def get(self, *, timeout: float) -> None:
            self.tokens.get(timeout=timeout)
            if not waited:
                waited.append(False)
                waited[0] = signal.wait(0.1)

        def put(self, token: None) -> None:
            self.tokens.put(token)

    signal._released = Interrupted(signal._released)  # type: ignore[assignment]
    assert not signal.wait(0.01)
    setting = threading.Timer(0.05, signal.set)
    setting.start()
    assert signal.wait(20)
    setting.join()
    assert waited == [True]
    assert signal.wait(0)


def test_setting_a_signal_wakes_all_waiting_threads() -> None:
    signal = Signal()
    waiting = [threading.Thread(target=signal.wait, args=(60,)) for _ in range(4)]
    for thread in waiting:
        thread.start()
    signal.set()
    for thread in waiting:
        thread.join(20)
        assert not thread.is_alive()
