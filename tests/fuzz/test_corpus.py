"""The fuzzers' corpus and small changes of it break no parser; `nox -s fuzz` tries many more inputs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS, seeds


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_in_the_corpus_is_read_or_refused(name: str) -> None:
    found = list(seeds(name))
    assert found
    for data in found:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_inputs_are_read_or_refused(name: str) -> None:
    @settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
    @given(changed(name))
    def check(data: bytes) -> None:
        TARGETS[name](data)

    check()


@st.composite
def changed(draw: st.DrawFn, name: str) -> bytes:
    """Return an input of the corpus with bytes replaced, inserted or removed."""
    data = draw(st.sampled_from(list(seeds(name))))
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 8)))
    return data[:start] + draw(st.binary(max_size=8)) + data[end:]
