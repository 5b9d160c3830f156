"""What a flow table counts.  Every packet is in a flow or in a discard, and every flow leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from sealwire.probe.discards import PacketDiscard
from sealwire.probe.features import EndReason
from sealwire.telemetry import counter


@dataclass(slots=True)
class ProbeCounters:
    """Totals of one table.  `packets` = `flow_packets` + the sum of `discards`."""

    packets: int = counter("packets", "packets seen, whatever became of them")
    wire_bytes: int = counter("bytes", "their sizes on the wire")
    flow_packets: int = counter("packets", "packets that count in a flow")
    flow_bytes: int = counter("bytes", "their IP sizes")
    flows: int = counter("flows", "flows begun, parts after the active timeout included")
    exported: int = counter("flows", "flows exported")
    active: int = counter("flows", "flows in the table now")
    peak: int = counter("flows", "most flows in the table at once")
    held_bytes: int = counter("bytes", "what the flows in the table take now")
    peak_bytes: int = counter("bytes", "most of that at once")
    backwards: int = counter("packets", "packets older than one before them")
    clamped_times: int = counter(
        "packets", "packets whose time does not fit and was cut to the nearest that does"
    )
    dissected: int = counter("flows", "flows whose first payload was looked at")
    undissected: int = counter("flows", "flows for whose dissection there was no room")
    dissection_bytes: int = counter("bytes", "what dissection holds now")
    dissection_peak: int = counter("bytes", "most of that at once")
    dissection_refusals: int = counter("pieces", "pieces dissection did not keep for lack of room")
    events: int = counter("events", "transactions and handshakes told")
    discards: dict[PacketDiscard, int] = field(default_factory=dict)
    ends: dict[EndReason, int] = field(default_factory=dict)

    def snapshot(self) -> dict[str, int]:
        """Name to value; discards as ``discard.<name>``, ends as ``end.<name>``."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata}
        values.update({f"discard.{reason.name.lower()}": n for reason, n in self.discards.items()})
        values.update({f"end.{reason.name.lower()}": n for reason, n in self.ends.items()})
        return values

    @classmethod
    def of_shards(cls, parts: Sequence[ProbeCounters]) -> ProbeCounters:
        """Several tables over one input, each with a share of its flows, as if they were one.

        Every part saw every packet; the peaks are sums of the parts' peaks, so they may be too high.
        """
        seen = ("packets", "wire_bytes", "backwards", "clamped_times")
        total = cls(discards=dict(parts[0].discards))
        for name in (f.name for f in fields(cls) if f.metadata):
            values = [getattr(part, name) for part in parts]
            setattr(total, name, values[0] if name in seen else sum(values))
        for part in parts:
            for reason, n in part.ends.items():
                total.ends[reason] = total.ends.get(reason, 0) + n
        return total


@dataclass(slots=True)
class CaptureCounters:
    """What only a live capture counts, as the kernel has it."""

    kernel_packets: int = counter(
        "packets", "packets the kernel accepted for us, those it dropped among them"
    )
    kernel_drops: int = counter("packets", "of those, packets there was no room for")
    ring_freezes: int = counter("times", "times the ring between the kernel and us was full")

    def snapshot(self) -> dict[str, int]:
        """Name to value."""
        return {f.name: getattr(self, f.name) for f in fields(self)}
