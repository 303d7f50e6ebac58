"""Values that torch's or tensorboardX's writer accepts are accepted, from any library."""

from __future__ import annotations

import decimal
import fractions
import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from equality import contents
from events import logged, scalars
from hf_summary_writer.events import hooks, media
from hf_summary_writer.events.writer import EventWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLOPS = 6 * 70_000_000_000 * 15_000_000_000_000


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (FLOPS, 6.3e24),
        (2**64, 2.0**64),
        (-(2**63) - 1, -(2.0**63)),
        (decimal.Decimal("0.5"), 0.5),
        (fractions.Fraction(1, 4), 0.25),
        ("0.75", 0.75),
        (np.str_("1e3"), 1000.0),
        (np.array(3, dtype=object), 3.0),
        (np.array([2**70], dtype=object), 2.0**70),
        (True, 1.0),
    ],
    ids=repr,
)
def test_numbers_of_any_kind_and_size_are_logged(tmp_path: Path, value: Any, number: float) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_scalar("a", value, 0)
        writer.add_scalar("a", value, 1)
        writer.add_scalars("main", {"x": value}, 1)
    expected = float(np.float32(number))
    assert scalars(tmp_path, "a") == [(0, expected), (1, expected)]
    assert scalars(tmp_path / "main" / "x", "main") == [(1, expected)]


@pytest.mark.parametrize(
    "value", [10**400, "text", b"1", 1j, [1, 2], None, object()], ids=lambda value: type(value).__name__
)
def test_a_value_that_is_not_a_number_is_refused_in_the_call(tmp_path: Path, value: Any) -> None:
    with EventWriter(tmp_path) as writer, pytest.raises(Exception):  # noqa: B017, PT011
        writer.add_scalar("a", value, 0)
    assert logged(tmp_path) == []


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32])
def test_pixels_beyond_the_range_are_clipped_as_in_torch(tmp_path: Path, kind: Any) -> None:
    pixels = np.array([[[-1, 0, 1, 2]]], dtype=kind)
    with EventWriter(tmp_path) as writer:
        writer.add_image("given", pixels)
        writer.add_images("given", pixels[None])
        writer.add_images("given", [pixels], dataformats="CHW")
        writer.add_image_with_boxes("given", pixels.repeat(3, 0), np.zeros((0, 4)))
        writer.add_image("expected", pixels.clip(0, 1).astype(np.uint8) * 255)
        writer.add_images("expected", pixels[None].clip(0, 1).astype(np.uint8) * 255)
        writer.add_images("expected", pixels[None].clip(0, 1).astype(np.uint8) * 255)
        writer.add_image_with_boxes("expected", pixels.repeat(3, 0).clip(0, 1).astype(np.uint8) * 255, np.zeros((0, 4)))
    images = [event.summary.value[0].image for event in contents(str(tmp_path))["."]]
    assert images[:4] == images[4:]


class Keeping(EventWriter):
    _cleans_tags = False


@pytest.mark.parametrize("is_hooked", [False, True])
def test_tags_are_kept_in_the_place_of_torchs_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_hooked: bool
) -> None:
    monkeypatch.setattr(hooks, "summaries_are_hooked", lambda: is_hooked)
    tag, pixels = "/val loss [1]", np.zeros((3, 4, 4))
    with Keeping(tmp_path) as writer:
        for step in range(2):
            writer.add_scalar(tag, 1.0, step)
        writer.add_histogram(tag, np.arange(3.0))
        writer.add_histogram(tag, [1.0, 2.0])
        writer.add_histogram(tag, np.arange(3.0), bins="auto")
        writer.add_image(tag, pixels)
        writer.add_image(tag, pixels.tolist())
        writer.add_images(tag, pixels[None])
        if importlib.util.find_spec("moviepy") is not None:
            writer.add_video(tag, pixels[None, None])
            writer.add_video(tag, pixels[None, None], fps=2000)
    tags = [value.tag for event in logged(tmp_path) for value in event.summary.value]
    assert set(tags) == {tag}
    assert len(tags) >= 8


@pytest.mark.parametrize("has_soundfile", [True, False])
@pytest.mark.parametrize("shape", [(100,), (100, 1), (1, 100), (1, 1, 100)])
def test_mono_audio_is_accepted_in_every_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_soundfile: bool, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(media, "is_usable", lambda _: has_soundfile)
    wave = np.sin(np.arange(100) / 5).astype(np.float32)
    with EventWriter(tmp_path) as writer:
        writer.add_audio("a", wave.reshape(shape), 1, sample_rate=8000)
    [event] = logged(tmp_path)
    audio = event.summary.value[0].audio
    assert (audio.num_channels, audio.length_frames) == (1, 100)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package `soundfile` that is installed but lacks its library."""
    (tmp_path / "soundfile.py").write_text("raise OSError('sndfile library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "soundfile", raising=False)
    media.is_usable.cache_clear()
    yield
    media.is_usable.cache_clear()


@pytest.mark.usefixtures("broken")
def test_audio_is_written_without_soundfiles_library(tmp_path: Path) -> None:
    with EventWriter(tmp_path / "run") as writer:
        writer.add_audio("a", np.sin(np.arange(100) / 5), 1)
    [event] = logged(tmp_path / "run")
    assert event.summary.value[0].audio.length_frames == 100


@pytest.mark.torch
def test_hyperparameters_of_all_types_are_accepted(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    given = {
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "size": torch.Size([3, 4]),
        "loss": torch.nn.CrossEntropyLoss(),
        "optimizer": torch.optim.Adam,
        "generator": torch.Generator(),
        "betas": torch.tensor([0.9, 0.999]),
        "lr": torch.tensor(0.1),
        "layout": torch.strided,
        "complex": torch.tensor(1j),
        "uninitialized": torch.nn.UninitializedParameter(),
        "meta": torch.ones(1, device="meta"),
    }
    with EventWriter(tmp_path) as writer:
        writer.add_hparams(given, {"accuracy": torch.tensor([[0.5]])}, name="trial")
    assert [value for _, value in scalars(tmp_path / "trial", "accuracy")] == [0.5]


@pytest.mark.torch
def test_tensors_of_every_class_and_layout_are_logged(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class MetaTensor(torch.Tensor):  # type: ignore[misc, name-defined]
        """A tensor subclass, as in libraries for medical images."""

    one = torch.tensor([1.5])
    for step, value in enumerate(
        [
            one.as_subclass(MetaTensor),
            torch.nn.Parameter(one),
            one.to_sparse(),
            (one * 1j).conj().imag * -1,
            one.bfloat16(),
            one.to(torch.float8_e5m2),
        ]
    ):
        with EventWriter(tmp_path / str(step)) as writer:
            writer.add_scalar("a", value, step)
            writer.add_histogram("h", value, step)
        assert scalars(tmp_path / str(step), "a") == [(step, 1.5)]
        assert len(logged(tmp_path / str(step))) == 2


@pytest.mark.torch
def test_a_tensor_without_values_is_refused_in_the_call(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with EventWriter(tmp_path) as writer:
        for log in (writer.add_scalar, writer.add_histogram):
            with pytest.raises(NotImplementedError):
                log("a", torch.ones(1, device="meta"), 1)
    assert logged(tmp_path) == []


@pytest.mark.torch
def test_logging_in_compiled_code_leaves_the_graph(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    code = """
import sys
from hf_summary_writer.events import EventWriter
writer = EventWriter(sys.argv[1])
import torch
writer.add_scalar("eager", torch.tensor(1.0), 0)

@torch.compile(backend="eager")
def train(x, step):
    y = x * 2
    writer.add_scalar("loss", y.sum(), step)
    writer.add_scalar("lr", 0.5, step)
    writer.add_scalars("main", {"a": y.sum()}, step)
    writer.add_histogram("histogram", y, step)
    writer.add_image("image", x, step, dataformats="HW")
    writer.add_mesh("mesh", y[None], global_step=step)
    return y + 1

for step in range(5):
    assert train(torch.full((4, 4), float(step)), step)[0, 0] == 2 * step + 1
writer.close()
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert scalars(tmp_path, "loss") == [(step, 32.0 * step) for step in range(5)]
    assert scalars(tmp_path, "lr") == [(step, 0.5) for step in range(5)]
    assert len(logged(tmp_path)) == 26
