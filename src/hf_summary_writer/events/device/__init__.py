"""Values on accelerators: snapshots taken in the call without waiting for the device, and read later in batches.

A snapshot is a copy on the device, enqueued on the caller's stream, so that it holds the value at the call even if
the program changes the tensor afterwards. Numbers are copied next to each other, into a block of device memory, which
costs the caller one small operation. The writer thread copies all pending snapshots to the host together, on a stream
of its own, and checks at its next pass whether the copy has ended; it blocks neither the interpreter nor the other
queues while the device works.
"""

from __future__ import annotations

from hf_summary_writer.events.device.find import device_of, take_number
from hf_summary_writer.events.device.snapshot import Device, HostCopies, Snapshot

__all__ = ["Device", "HostCopies", "Snapshot", "device_of", "take_number"]
