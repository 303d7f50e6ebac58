"""The copies of snapshots to the host, which end while the writer thread does other work."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hf_summary_writer.events.device.snapshot import Copy, Device, Snapshot

__all__ = ["HostCopies"]


class HostCopies:
    """The copies of some snapshots, one for each device.

    Args:
        snapshots: The snapshots.
        report: Receives each error of a device. Its snapshots get no value then.

    Attributes:
        began: Time (monotonic) since which the devices are at work.
    """

    def __init__(self, snapshots: Iterable[Snapshot], report: Callable[[Exception], None]) -> None:
        self.began: float = time.monotonic()
        self._report = report
        self._copies: list[tuple[list[Snapshot], Copy]] = []
        by_device: defaultdict[Device, list[Snapshot]] = defaultdict(list)
        for snapshot in snapshots:
            by_device[snapshot.device].append(snapshot)
        for device, group in by_device.items():
            with self._errors_reported():
                self._copies.append((group, device.start_copy(group)))

    def are_ready(self) -> bool:
        """Return whether `read` would not wait."""
        return all(_is_ready(copy) for _, copy in self._copies)

    def read(self) -> None:
        """Set the value of each snapshot."""
        for group, copy in self._copies:
            with self._errors_reported():
                for snapshot, value in zip(group, copy.values(), strict=True):
                    snapshot.value = value

    @contextlib.contextmanager
    def _errors_reported(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - any error of a device
            self._report(error)


def _is_ready(copy: Copy) -> bool:
    try:
        return copy.is_ready()
    except Exception:  # noqa: BLE001 - `values` raises it again
        return True
