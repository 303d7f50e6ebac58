"""JAX arrays on a real GPU; runs like test_gpu.py."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from hf_summary_writer.events import EventWriter, boundaries

if TYPE_CHECKING:
    from pathlib import Path

# Read at import: JAX would allocate most of the device's memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
jax = pytest.importorskip("jax", reason="jax is not installed")
jnp = jax.numpy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(jax.default_backend() == "cpu", reason="needs a GPU that JAX can use"),
    pytest.mark.filterwarnings("ignore"),
]


def summaries(logdir: Path) -> list[Any]:
    found = []
    for path in sorted(logdir.glob("*.tfevents.*")):
        content, start = path.read_bytes(), 0
        with path.open("rb") as file:
            for end in boundaries(file):
                event = Event.FromString(content[start + 12 : end - 4])
                start = end
                found += [(event.step, value) for value in event.summary.value]
    return found


def test_donated_arrays_are_logged_with_their_values_at_the_call(tmp_path: Path) -> None:
    advance = jax.jit(lambda x: x + 1, donate_argnums=0)
    state = jnp.zeros(())
    with EventWriter(tmp_path) as writer:
        for step in range(300):
            writer.add_scalar("a", state, step)
            state = advance(state)
    assert [(step, value.simple_value) for step, value in summaries(tmp_path)] == [(n, float(n)) for n in range(300)]


def test_jax_arrays_of_all_types_and_media_are_logged(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        for step, dtype in enumerate(["float32", "bfloat16", "float16", "int32", "uint8", "bool"]):
            writer.add_scalar("a", jnp.ones((1,), dtype), step)
        writer.add_histogram("h", jnp.arange(1000.0), 0)
        writer.add_image("i", jnp.zeros((3, 8, 8)), 0)
        with pytest.raises(AssertionError):
            writer.add_scalar("a", jnp.zeros(2), 0)
    found = summaries(tmp_path)
    assert [value.simple_value for _, value in found[:6]] == [1.0] * 6
    assert found[6][1].histo.num == 1000
    assert found[7][1].image.height == 8
