"""Arrays of JAX on an accelerator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hf_summary_writer.events.device.snapshot import Snapshot, without_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hf_summary_writer.events.device.snapshot import Copy


class _JaxDevice:
    """The accelerators of JAX, whose arrays never change but may be donated to a computation."""

    def can_copy(self, value: Any) -> bool:  # noqa: ARG002
        return True

    def number(self, value: Any) -> Snapshot | None:
        assert value.size == 1, "scalar should be 0D"  # noqa: S101 - as tensorboardX
        return Snapshot(self, self._copy_of(value), is_number=True)

    def snapshot(self, value: Any) -> Snapshot | None:
        return Snapshot(self, self._copy_of(value), nbytes=value.nbytes)

    def _copy_of(self, value: Any) -> Any:
        data = value.copy()
        data.copy_to_host_async()
        return data

    def start_copy(self, snapshots: Sequence[Snapshot]) -> Copy:
        return _JaxCopy(snapshots)

    def stand_in(self, value: Any) -> np.ndarray:
        return without_memory(value.dtype, value.shape)

    def histogram(self, limits: Sequence[float]) -> Callable[[Any], Any] | None:  # noqa: ARG002
        return None


class _JaxCopy:
    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self._snapshots = snapshots

    def is_ready(self) -> bool:
        return all(snapshot.data.is_ready() for snapshot in self._snapshots)

    def values(self) -> list[Any]:
        arrays = [np.asarray(snapshot.data) for snapshot in self._snapshots]
        return [
            float(array.reshape(())) if snapshot.is_number else array
            for snapshot, array in zip(self._snapshots, arrays, strict=True)
        ]


JAX = _JaxDevice()
