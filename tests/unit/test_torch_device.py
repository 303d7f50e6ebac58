"""Packing, copying and unpacking of accelerator tensors, with torch's CPU backend as the accelerator."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from tensorboardX.summary import histogram

from equality import contents, show
from hf_summary_writer.events.device import Snapshot, find
from hf_summary_writer.events.device.torch import TorchDevice, _is_default_of_cuda
from hf_summary_writer.events.media import histogram_from_statistics
from hf_summary_writer.events.summaries import unwrapped
from hf_summary_writer.events.writer import EventWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    # Half-precision sums overflow in NumPy.
    pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:torch.quantize:UserWarning"),
]

DTYPES = ["float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "bool", "uint8", "int8", "int32"]


class Backend:
    """The interface of `torch.cuda` on the CPU: enqueued work runs at once."""

    capturing = False

    class Stream:
        def __init__(self, _: Any = None) -> None:
            self.waited_for: list[Any] = []
            self.records = 0

        def wait_event(self, event: Any) -> None:
            assert event.recorded
            self.waited_for.append(event)

    class Event:
        recorded = 0

        def record(self, stream: Any) -> None:
            self.recorded += 1
            stream.records += 1

        def query(self) -> bool:
            return True

        def synchronize(self) -> None:
            assert self.recorded

    def __init__(self) -> None:
        self.current = self.Stream()

    def current_device(self) -> None:
        return None

    def current_stream(self, _: Any) -> Any:
        return self.current

    def is_current_stream_capturing(self) -> bool:
        return self.capturing

    @contextlib.contextmanager
    def device(self, _: Any) -> Iterator[None]:
        yield

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before


def make_device() -> TorchDevice:
    return TorchDevice(torch, Backend(), torch.device("cpu"), pin=False)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> TorchDevice:
    device = make_device()
    for kind in (torch.Tensor, torch.nn.Parameter):
        monkeypatch.setitem(find._finders, kind, lambda _: device)
    return device


def numbers(device: TorchDevice, values: Iterable[Any]) -> list[Snapshot]:
    snapshots = [device.number(value) for value in values]
    assert None not in snapshots
    return snapshots  # type: ignore[return-value]


def read(device: TorchDevice, values: list[Any], are_numbers: set[int]) -> list[Any]:
    snapshots = [(device.number if n in are_numbers else device.snapshot)(value) for n, value in enumerate(values)]
    copy = device.start_copy([snapshot for snapshot in snapshots if snapshot is not None])
    assert copy.is_ready()
    return copy.values()


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3), st.booleans()),
        min_size=1,
        max_size=30,
    ),
    st.randoms(use_true_random=False),
)
def test_values_of_all_types_and_shapes_are_read_back_in_order(
    wanted: list[tuple[str, list[int], bool]], random: Any
) -> None:
    values, are_numbers = [], set()
    for index, (dtype, shape, is_number) in enumerate(wanted):
        are_numbers |= {index} if is_number else set()
        size = [1] * len(shape) if is_number else shape
        values.append((torch.rand(size) * random.uniform(0, 3)).to(getattr(torch, dtype)))
    found = read(make_device(), values, are_numbers)
    for index, (value, back) in enumerate(zip(values, found, strict=True)):
        if index in are_numbers:
            assert back == float(value.to(torch.float64))
        else:
            assert back.dtype == value.dtype
            assert back.shape == value.shape
            assert np.array_equal(unwrapped(back), unwrapped(value))


def test_memory_for_numbers_is_reused_once_all_of_it_has_been_read() -> None:
    device = make_device()
    blocks = set()
    for step in range(20):
        snapshots = numbers(device, map(torch.tensor, range(step, step + 100)))
        blocks |= {snapshot.data for snapshot in snapshots}
        assert device.start_copy(snapshots).values() == list(range(step, step + 100))
    assert len(blocks) == 2


def test_memory_with_pending_copies_is_not_reused() -> None:
    device = make_device()
    snapshots = numbers(device, map(torch.tensor, range(1000)))
    first, second = device.start_copy(snapshots[500:]), device.start_copy(snapshots[:500])
    assert first.values() == first.values() == list(range(500, 1000))
    later = numbers(device, [torch.tensor(-1)] * 1000)
    assert second.values() == list(range(500))
    assert device.start_copy(later).values() == [-1.0] * 1000


def test_memory_for_numbers_survives_the_inference_mode_of_a_caller() -> None:
    device = make_device()
    weight = torch.tensor([2.0], requires_grad=True)
    with torch.inference_mode():
        snapshots = numbers(device, [torch.tensor(1.0)])
    snapshots += numbers(device, [weight, weight * 2])
    assert device.start_copy(snapshots).values() == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("is_first", [True, False])
def test_memory_for_numbers_survives_a_transform(*, is_first: bool) -> None:
    device = make_device()
    plain = torch.tensor(5.0)
    taken: list[Any] = [] if is_first else [*numbers(device, [plain])]

    def double(x: Any) -> Any:
        taken.append(device.number(plain))
        return x * 2

    torch.func.grad(double)(torch.tensor(1.0))
    torch.func.vmap(double)(torch.ones(3))
    snapshots = [snapshot for snapshot in taken if snapshot is not None] + numbers(device, [plain])
    assert device.start_copy(snapshots).values() == [5.0] * len(snapshots)


def test_without_memory_for_a_block_the_number_is_read_in_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    device = make_device()
    monkeypatch.setattr(torch, "empty", Mock(side_effect=torch.OutOfMemoryError))
    assert device.number(torch.tensor(1.0)) is None


def test_the_end_of_a_copy_is_marked_in_the_call_except_on_the_default_stream() -> None:
    for key, recorded_in_calls in (((0, 0, 1), 0), ((3, 0, 1), 10)):
        device = make_device()
        device._stream_key, device._is_default = lambda _, key=key: key, _is_default_of_cuda
        snapshots = numbers(device, [torch.tensor(1.0)] * 10)
        stream = device._backend.current
        assert stream.records == recorded_in_calls
        device.start_copy(snapshots)
        assert stream.records == max(recorded_in_calls, 1)


def test_numbers_do_not_count_towards_the_limit_on_device_memory(tmp_path: Path, device: TorchDevice) -> None:
    with EventWriter(tmp_path) as writer:
        for step in range(10):
            writer.add_scalar("a", torch.tensor(1.0), step)
        writer.flush()
        assert device._streams
        assert writer._memory._acquired_on_device == writer._memory._released_on_device == 0


@pytest.mark.usefixtures("device")
def test_tensors_with_gradients_parameters_and_inference_tensors_are_logged(tmp_path: Path) -> None:
    with torch.inference_mode():
        inference = torch.tensor([4.0])
    values = [torch.tensor(1.0, requires_grad=True), torch.nn.Parameter(torch.tensor([[2.0]])), inference]
    values.append(values[0] * 3)
    with EventWriter(tmp_path / "later") as writer:
        for step, value in enumerate(values):
            writer.add_scalar("a", value, step)
            writer.add_histogram("h", value, step)
            with torch.no_grad():
                value.detach().zero_() if value is not inference else None
    found = [event.summary.value[0].simple_value for event in contents(str(tmp_path / "later"))["."]][::2]
    assert found == [1.0, 2.0, 4.0, 3.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.tensor([1 + 2j]),
        lambda: torch.quantize_per_tensor(torch.tensor([1.0]), 0.1, 0, torch.qint8),
        lambda: torch.tensor([1 + 2j]).conj().imag,
    ],
)
def test_unusual_tensors_are_read_in_the_call(device: TorchDevice, make: Any) -> None:
    assert not device.can_copy(make())


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.tensor(1.0).to_sparse(),
        lambda: torch.tensor([1.0]).to_sparse(),
        lambda: torch.tensor(1 + 2j),
        lambda: torch.quantize_per_tensor(torch.tensor(1.0), 0.1, 0, torch.qint8),
    ],
)
def test_a_number_in_an_unusual_tensor_is_read_in_the_call(device: TorchDevice, make: Any) -> None:
    assert device.number(make()) is None


def test_a_lazily_negated_number_is_read(device: TorchDevice) -> None:
    assert device.start_copy(numbers(device, [torch.tensor(1 + 2j).conj().imag])).values() == [-2.0]


def test_tensors_inside_of_a_transform_are_read_in_the_call(device: TorchDevice) -> None:
    seen = []

    def double(x: Any) -> Any:
        seen.append(device.can_copy(x) or device.number(x))
        return x * 2

    torch.func.grad(double)(torch.tensor(1.0))
    torch.func.vmap(double)(torch.ones(3))
    assert seen == [None, None]


def test_a_call_during_a_graph_capture_raises_and_logs_nothing(device: TorchDevice, tmp_path: Path) -> None:
    device._backend.capturing = True
    with EventWriter(tmp_path) as writer, pytest.raises(RuntimeError, match="graph is being captured"):
        writer.add_scalar("a", torch.tensor(1.0), 1)
    assert contents(str(tmp_path)) == {".": []}


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=60)
@given(
    stn.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int32]),
        stn.array_shapes(max_dims=2, max_side=40),
        elements=st.integers(-1000, 1000),
    ),
    st.sampled_from([1, 1e-3, 1 / 3]),
)
def test_a_histogram_computed_on_the_device_equals_that_of_tensorboardx(array: np.ndarray, scale: float) -> None:
    compare_histograms(torch.from_numpy((array * scale).astype(array.dtype)))


def compare_histograms(values: Any) -> None:
    device = make_device()
    snapshot = device.snapshot(values)
    assert snapshot is not None
    snapshot.reduce = device.histogram(LIMITS)
    [statistics] = device.start_copy([snapshot]).values()
    found = histogram_from_statistics("h", LIMITS, values.numel(), statistics.numpy()).value[0].histo
    wanted = histogram("h", unwrapped(values), LIMITS).value[0].histo
    assert list(found.bucket) == list(wanted.bucket)
    assert list(found.bucket_limit) == list(wanted.bucket_limit)
    for name in ("min", "max", "num"):
        assert getattr(found, name) == getattr(wanted, name)
    magnitude = float(values.double().abs().sum())
    assert found.sum == pytest.approx(wanted.sum, abs=1e-12 * magnitude)
    assert found.sum_squares == pytest.approx(wanted.sum_squares)


@functools.cache
def default_bins() -> list[float]:
    return EventWriter("unused", write_to_disk=False).default_bins  # type: ignore[no-any-return]


LIMITS = default_bins()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_on_the_limits_of_bins_fall_into_the_bins_of_tensorboardx(dtype: Any) -> None:
    limits = torch.tensor(LIMITS, dtype=torch.float64)
    around = torch.cat([limits, limits.nextafter(limits * 2), limits.nextafter(limits * 0)])
    compare_histograms(around.to(dtype)[: 3 * len(LIMITS)])


def test_more_values_than_fit_a_chunk_are_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_summary_writer.events.device.torch._CHUNK", 100)
    compare_histograms(torch.randn(1050, generator=torch.Generator().manual_seed(0)))


def test_values_on_a_device_are_written_as_values_on_the_host(
    tmp_path: Path, device: TorchDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((3, 8, 8), generator=generator)
    labels, guesses = torch.randint(0, 2, (20,), generator=generator), torch.rand(20, generator=generator)

    def log(logdir: Path) -> None:
        with EventWriter(logdir) as writer:
            for step in range(3):
                writer.add_scalar("a", image[0, 0, step], step)
                writer.add_scalar("new", image[0, 0, step], step, new_style=True)
                writer.add_scalars("main", {"x": image[0, 1, step], "y": labels[step]}, step)
            writer.add_image("image", image, 1)
            writer.add_images("images", image[None], 1)
            writer.add_video("video", image[None, None], 1)
            writer.add_tensor("tensor", image.bfloat16(), 1)
            writer.add_pr_curve("curve", labels, guesses, 1)
            writer.add_mesh("mesh", image, global_step=1)
            writer.add_embedding(image[0], label_img=image[None].expand(8, 3, 8, 8), global_step=1)

    assert device.can_copy(image)
    log(tmp_path / "device")
    monkeypatch.undo()
    log(tmp_path / "host")
    assert show(contents(str(tmp_path / "device"))) == show(contents(str(tmp_path / "host")))
