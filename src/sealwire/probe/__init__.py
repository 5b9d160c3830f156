"""The probe: packets in, flows out.

    for flow in sealwire.probe.read("capture.pcap"):
        print(flow.community_id, flow.packets, flow.bytes)

`capture` finds packets (files, a live interface), `decode` and `flows` make flows of them (compiled
in `_flows`), `dissect` finds out what they are (with ``dissect=True``), `features` says what a flow's
numbers mean, `batch` and `write` hand them on.
Only metadata is kept, never payload; nothing here can send a packet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sealwire.probe.batch import Batch
from sealwire.probe.capture import Reading, read
from sealwire.probe.dissect.facts import Certainty, Event, Facts, Protocol
from sealwire.probe.dissect.plugin import Answer, Dissector, FirstPacket, Opening, Sign
from sealwire.probe.engine import COMPILED, Settings, describe
from sealwire.probe.features import EndReason, Flow

__all__ = [
    "COMPILED",
    "Answer",
    "Batch",
    "Certainty",
    "Dissector",
    "EndReason",
    "Event",
    "Facts",
    "FirstPacket",
    "Flow",
    "Opening",
    "Protocol",
    "Reading",
    "Settings",
    "Sign",
    "describe",
    "read",
    "to_arrow",
]


def to_arrow(batches: Iterable[Batch]) -> Any:
    """A pyarrow.Table of batches, such as ``read(file).batches()``; needs pyarrow."""
    from sealwire.probe import write  # the forms flows are written in are not needed to read them

    return write.to_arrow(batches)
