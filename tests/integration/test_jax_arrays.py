"""For JAX arrays the decoded files equal those of tensorboardX."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorboardX

from equality import Call, contents, perform, show
from hf_summary_writer.events.writer import EventWriter

if TYPE_CHECKING:
    from pathlib import Path

# Read at import: JAX would search for accelerators, slowly and with warnings.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
jax = pytest.importorskip("jax", reason="jax is not installed")
jnp = jax.numpy

DTYPES = ["float32", "bfloat16", "float16", "int32", "uint8", "bool"]


# Values stay below these in images too: larger ones overflow in tensorboardX and are clipped here and in torch.
LIMITS = {"uint8": 256, "int32": 2, "bool": 2}


def random(dtype: str, *shape: int) -> Any:
    numbers = np.random.default_rng(0).random(shape) * LIMITS.get(dtype, 1)
    return jnp.asarray(numbers if dtype not in LIMITS else numbers.astype(int)).astype(dtype)


def calls(dtype: str) -> list[Call]:
    found: list[Call] = [
        ("add_scalar", ("scalar", random(dtype), 1), {}),
        ("add_scalar", ("scalar", random(dtype, 1), 2), {}),
        ("add_scalar", ("scalar", random(dtype, 2), 3), {}),
        ("add_scalar", ("scalar", 1.0, jnp.int32(4)), {}),
        ("add_scalars", ("several", {"a": random(dtype), "b": random(dtype, 1, 1)}, jnp.int32(1)), {}),
        ("add_hparams", ({"rate": 0.5}, {"accuracy": random(dtype)}), {"name": "trial"}),
        ("add_histogram", ("histogram", random(dtype, 40), 1), {}),
        ("add_histogram", ("histogram", random(dtype, 40), 1), {"bins": "auto"}),
        ("add_image", ("image", random(dtype, 3, 8, 8), 1), {}),
        ("add_images", ("images", random(dtype, 2, 3, 8, 8), 1), {}),
        ("add_image_with_boxes", ("boxes", random(dtype, 3, 8, 8), random(dtype, 2, 4), 1), {}),
        ("add_embedding", (random(dtype, 4, 2),), {"tag": "points"}),
        ("add_embedding", (random(dtype, 4, 2), [1, 2, 3, 4], random(dtype, 4, 3, 4, 4)), {"tag": "pictures"}),
        ("add_pr_curve", ("curve", random("bool", 50), random(dtype, 50), 1), {}),
        ("add_mesh", ("mesh", random(dtype, 1, 8, 3)), {}),
    ]
    if importlib.util.find_spec("soundfile") is not None:
        found.append(("add_audio", ("sound", random(dtype, 50), 1), {}))
    if importlib.util.find_spec("moviepy") is not None:
        found.append(("add_video", ("film", random(dtype, 1, 2, 3, 8, 8), 1), {}))
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_jax_arrays_are_written_as_by_tensorboardx(dtype: str, tmp_path: Path) -> None:
    with tensorboardX.SummaryWriter(str(tmp_path / "theirs")) as theirs, EventWriter(tmp_path / "ours") as ours:
        raised = perform(theirs, calls(dtype))
        assert perform(ours, calls(dtype)) == raised
    assert raised.count(None) >= len(raised) - 2
    assert show(contents(str(tmp_path / "ours"))) == show(contents(str(tmp_path / "theirs")))


def test_tracers_and_deleted_arrays_are_refused_in_the_call(tmp_path: Path) -> None:
    outcomes: list[Any] = []

    def log(writer: Any, value: Any) -> None:
        attempts: list[Call] = [
            ("add_scalar", ("scalar", value, 1), {}),
            ("add_scalar", ("scalar", 1.0, value), {}),
            ("add_histogram", ("histogram", value * jnp.ones(3), 1), {}),
            ("add_image", ("image", value * jnp.ones((3, 4, 4)), 1), {}),
        ]
        outcomes.append(perform(writer, attempts))

    with tensorboardX.SummaryWriter(str(tmp_path / "theirs")) as theirs, EventWriter(tmp_path / "ours") as ours:
        gone = jnp.ones(())
        gone.delete()
        for writer in (theirs, ours):
            jax.jit(lambda value, writer=writer: log(writer, value))(jnp.float32(1))  # a tracer
            outcomes.append(perform(writer, [("add_scalar", ("s", gone), {}), ("add_histogram", ("h", gone), {})]))
    assert outcomes[:2] == outcomes[2:]
    assert None not in [error for outcome in outcomes for error in outcome]


def test_an_array_donated_after_the_call_does_not_change_the_log(tmp_path: Path) -> None:
    double = jax.jit(lambda array: array * 2, donate_argnums=0)
    with EventWriter(tmp_path) as writer:
        array = jnp.ones((3, 8, 8))
        writer.add_histogram("histogram", array, 1)
        writer.add_image("image", array, 1)
        for _ in range(100):  # in the same memory, if the backend supports that
            array = double(array)
        array.block_until_ready()
    histogram, image = (event.summary.value[0] for event in contents(str(tmp_path))["."])
    assert (histogram.histo.min, histogram.histo.max) == (1.0, 1.0)
    assert image.image.encoded_image_string


def test_jax_is_not_imported_by_the_writer(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom hf_summary_writer.events.writer import EventWriter\n"
        "with EventWriter(sys.argv[1]) as writer:\n    writer.add_scalar('a', 1.0, 1)\nassert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=100)
