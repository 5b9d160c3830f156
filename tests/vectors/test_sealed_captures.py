"""What dissection says of other people's captures, sealed: it comes out byte for byte as it went in."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealwire.probe import read
from sealwire.probe.events import leaves_json
from sealwire.probe.features import row_struct
from sealwire.probe.seal import engine, leaves
from sealwire.probe.seal.intake import Flows, Transactions
from tests.unit.probe import sealing as s
from tests.vectors.test_probe_captures import GENERATED, LISTED


@pytest.mark.parametrize("name", [*LISTED, *GENERATED])
def test_a_capture_is_sealed_whole(shared_data: Path, name: str) -> None:
    disk = s.MemoryDisk()
    probe = s.recorder(disk, most=1 << 30)
    rows, facts, told, printed = [], [], [], 0
    for number, batch in enumerate(
        read(shared_data / "probe" / name, dissect=True, first_packets=3).batches()
    ):
        probe.take(Transactions(batch.event_data), s.moment(number))
        probe.take(Flows(batch.rows, row_struct(3).size, batch.facts), s.moment(number))
        rows.append(batch.rows)
        facts.append(batch.facts)
        told.append(batch.event_data)
    probe.close(s.moment(1_000_000))
    found = s.segments(disk)
    assert s.faults(found, 1_000_000) == []
    decoded = [engine.decode(segment.framed, segment.header.first_event) for segment in found]
    assert decoded == [leaves.decode(segment.framed, segment.header.first_event) for segment in found]
    assert b"".join(each.rows for each in decoded) == b"".join(rows)
    assert b"".join(each.facts for each in decoded) == b"".join(facts)
    assert b"".join(each.transactions for each in decoded) == b"".join(told)
    for each, segment in zip(decoded, found, strict=True):
        printed += sum(1 for _ in leaves_json(each, segment.header.first_event))
    assert printed == sum(segment.header.events for segment in found)
