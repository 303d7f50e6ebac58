"""Trackers that hook into tensorboardX see our writer's calls and events as they see tensorboardX's."""

from __future__ import annotations

import collections
import functools
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorboardX
from tensorboardX import event_file_writer, writer

from equality import contents
from events import logged, scalars
from hf_summary_writer.events.writer import EventWriter

if TYPE_CHECKING:
    from pathlib import Path

CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("add_scalar", ("loss", np.float32(0.5), 1)),
    ("add_scalars", ("losses", {"train": 1, "valid": 2.0}, 1)),
    ("add_image", ("image", np.zeros((3, 4, 4)), 1)),
    ("add_images", ("images", np.zeros((2, 3, 4, 4)), 1)),
    ("add_histogram", ("weights", np.arange(9.0), 1)),
    ("add_text", ("note", "text", 1)),
    ("add_pr_curve", ("curve", np.array([0, 1]), np.array([0.1, 0.9]), 1)),
    ("add_embedding", (np.zeros((2, 2)),)),
    ("add_mesh", ("mesh", np.zeros((1, 3, 3)))),
    ("add_hparams", ({"lr": 0.1}, {"accuracy": 0.5}, "trial", 1)),
]


class Seen(collections.Counter[str]):
    """Count the calls of each hooked method."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._patch = patch

    def hook(self, kind: type, name: str) -> None:
        original = getattr(kind, name)

        @functools.wraps(original)
        def hooked(*arguments: Any, **named: Any) -> Any:
            self[name] += 1
            return original(*arguments, **named)

        self._patch.setattr(kind, name, hooked)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(monkeypatch)


@pytest.fixture
def seen_events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Replace the class that writes events, as W&B does."""
    found: list[tuple[str, Any]] = []

    class Watched(event_file_writer.EventFileWriter):  # type: ignore[misc]
        def __init__(self, logdir: str, *arguments: Any, **named: Any) -> None:
            found.append((logdir, None))
            super().__init__(logdir, *arguments, **named)

        def add_event(self, event: Any) -> None:
            found.append((self.get_logdir(), event))
            super().add_event(event)

    monkeypatch.setattr(writer, "EventFileWriter", Watched)
    return found


def use(kind: type, logdir: Path) -> None:
    with kind(str(logdir)) as summary_writer:
        for name, arguments in CALLS:
            getattr(summary_writer, name)(*arguments)


@pytest.mark.parametrize("kind", [tensorboardX.SummaryWriter, EventWriter])
def test_a_hooked_method_of_the_summary_writer_sees_each_call(kind: type, seen: Seen, tmp_path: Path) -> None:
    for name in ("__init__", "close", *dict(CALLS)):
        seen.hook(tensorboardX.SummaryWriter, name)
    use(kind, tmp_path)
    # tensorboardX writes hyperparameters with a second writer.
    assert seen == {**dict.fromkeys(dict(CALLS), 1), "__init__": 2, "close": 2, "add_scalar": 2}


def test_a_hook_on_the_file_writer_sees_as_many_events_as_with_tensorboardx(seen: Seen, tmp_path: Path) -> None:
    seen.hook(writer.FileWriter, "add_event")
    use(tensorboardX.SummaryWriter, tmp_path / "theirs")
    expected = seen["add_event"]
    use(EventWriter, tmp_path / "ours")
    assert seen["add_event"] == 2 * expected > 0


def test_a_hook_on_the_event_file_writer_sees_as_many_events(seen: Seen, tmp_path: Path) -> None:
    seen.hook(event_file_writer.EventFileWriter, "add_event")
    use(tensorboardX.SummaryWriter, tmp_path / "theirs")
    expected = seen["add_event"]
    use(EventWriter, tmp_path / "ours")
    assert seen["add_event"] == 2 * expected > 0
    assert contents(str(tmp_path / "ours")) == contents(str(tmp_path / "theirs"))


def test_our_writer_can_replace_tensorboardx_summary_writer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Ours(EventWriter):
        pass

    monkeypatch.setattr(tensorboardX, "SummaryWriter", Ours)
    use(tensorboardX.SummaryWriter, tmp_path / "ours")
    use(EventWriter, tmp_path / "plain")
    assert contents(str(tmp_path / "ours")) == contents(str(tmp_path / "plain"))


def test_hooked_calls_write_the_same_events(seen: Seen, tmp_path: Path) -> None:
    use(EventWriter, tmp_path / "plain")
    for name in dict(CALLS):
        seen.hook(tensorboardX.SummaryWriter, name)
    seen.hook(writer.FileWriter, "add_event")
    use(EventWriter, tmp_path / "hooked")
    plain, hooked = contents(str(tmp_path / "plain")), contents(str(tmp_path / "hooked"))
    assert hooked == plain


def test_a_replaced_event_file_writer_class_gets_the_folder_and_all_events(
    seen_events: list[tuple[str, Any]], tmp_path: Path
) -> None:
    with EventWriter(tmp_path) as summary_writer:
        for step in range(20):
            summary_writer.add_scalar("loss", step, step)
        summary_writer.add_image("image", np.zeros((3, 4, 4)), 20)
    assert {folder for folder, _ in seen_events} == {str(tmp_path)}
    assert [event.step for _, event in seen_events if event is not None] == list(range(21))
    assert [event.step for event in logged(tmp_path)] == list(range(21))


def test_a_hook_installed_later_sees_the_calls_after_a_second(
    seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time() + 60
    monkeypatch.setattr("hf_summary_writer.events.writer.time", lambda: now)
    with EventWriter(tmp_path) as summary_writer:
        summary_writer.add_scalar("loss", 0.0, 0)
        seen.hook(tensorboardX.SummaryWriter, "add_scalar")
        for step in range(1, 10):
            now += 0.5
            summary_writer.add_scalar("loss", 0.0, step)
    assert seen["add_scalar"] >= 6
    assert len(scalars(tmp_path, "loss")) == 10


def test_removing_a_hook_restores_the_fast_path(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Seen(patch).hook(tensorboardX.SummaryWriter, "add_scalar")
        summary_writer = EventWriter(tmp_path)
        summary_writer.add_scalar("loss", 0.0, 0)
        assert summary_writer._queue is None
    summary_writer.add_scalar("loss", 1.0, 1)
    summary_writer.add_scalar("loss", 2.0, 2)
    assert summary_writer._queue is not None
    summary_writer.close()
    assert len(scalars(tmp_path, "loss")) == 3


def test_values_that_tensorboardx_refuses_are_logged_with_hooks(seen: Seen, tmp_path: Path) -> None:
    seen.hook(tensorboardX.SummaryWriter, "add_scalar")
    seen.hook(tensorboardX.SummaryWriter, "add_scalars")
    with EventWriter(tmp_path) as summary_writer:
        summary_writer.add_scalar("/lead", 2**70, 1)
        summary_writer.add_scalars("/lead", {"/a": "0.5"}, 1)
    assert scalars(tmp_path, "lead") == [(1, 2.0**70)]
    assert scalars(tmp_path / "lead" / "a", "lead") == [(1, 0.5)]


def test_hooked_hyperparameters_on_a_failing_disk_raise_nothing(
    seen: Seen, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen.hook(tensorboardX.SummaryWriter, "add_hparams")
    with EventWriter(tmp_path) as summary_writer:
        (tmp_path / "trial").write_text("a file in the way")
        summary_writer.add_hparams({"lr": 0.1}, {"accuracy": 0.5}, "trial")
    assert seen["add_hparams"] == 1
    assert "hyperparameters could not be written" in caplog.text
