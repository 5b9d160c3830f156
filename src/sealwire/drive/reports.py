"""What servers tell whoever watches them: totals, and the peers that cost most.

Everything is read when somebody asks; nothing here is called per packet.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from sealwire.telemetry import PeerReport

if TYPE_CHECKING:
    from sealwire import dtls, stcp

#: What peers can be ranked by: the fields of :class:`sealwire.telemetry.PeerReport` that are a cost.
COSTS: Final = ("held_bytes", "bytes_received", "bytes_sent", "records_opened", "records_sealed", "discards")


def report(connection: dtls.Connection | stcp.Connection, peer: str, now: float) -> PeerReport:
    """What `connection` costs at `now`."""
    counters = connection.counters
    return PeerReport(
        peer=peer,
        number=connection.number,
        state=str(connection.state),
        age_seconds=max(0.0, now - connection.began),
        held_bytes=connection.held_bytes,
        bytes_received=counters.bytes_received,
        bytes_sent=counters.bytes_sent,
        records_opened=counters.records_opened,
        records_sealed=counters.records_sealed,
        discards=sum(counters.discards.values()),
    )


def costliest(reports: Iterable[PeerReport], n: int, by: str) -> list[PeerReport]:
    """The `n` reports with most of `by`, most first.  ValueError for what is no cost."""
    if by not in COSTS:
        raise ValueError(f"peers are ranked by {', '.join(COSTS)}, not by {by!r}")
    return heapq.nlargest(n, reports, key=lambda one: (getattr(one, by), one.held_bytes, -one.number))
