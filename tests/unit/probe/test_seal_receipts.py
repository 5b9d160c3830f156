"""Receipts: whose word they are, what they prove of a spool, and what they do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.probe.features import row_struct
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.intake import Flows
from sealwire.probe.seal.keys import ALGORITHMS, SigningKey, generate, load_signing_key
from sealwire.probe.seal.receipts import Received, acknowledge, receipts
from sealwire.probe.seal.segment import Segment, prove
from sealwire.probe.verify import Fault, Trust, verify_proof
from tests.unit.probe import sealing as s

COLLECTOR = 8
STOLEN = s.BEGIN + 30 * s.SECOND


def spool() -> list[Segment]:
    disk = s.MemoryDisk()
    probe = s.recorder(disk)
    for second in (10, 20, 40):
        probe.take(Flows(s.rows(2, second), row_struct().size), s.moment(second))
        probe.flush(s.moment(second))
    probe.close(s.moment(50))
    return s.segments(disk)


BASE = spool()


def receipt(found: list[Segment], seconds: float, number: int = COLLECTOR) -> bytes:
    """What a collector says of segments that came then."""
    named = [(segment.header.segment, segment.hash) for segment in found]
    return acknowledge(BASE[0].header.probe, named, s.moment(seconds).wall, s.key(number))


def received(data: bytes, *collectors: int) -> Received:
    found = Received({s.key(n).id: s.key(n).public for n in collectors or (COLLECTOR,)})
    for one in receipts(data):
        found.take(one)
    return found


def trust(data: bytes, revoked: int | None = None) -> Trust:
    known = received(data)
    return s.trust(
        revoked={} if revoked is None else {s.key().id: revoked},
        received=known.times,
        acknowledged=known.segments,
    )


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_a_receipt_is_its_collectors_word(tmp_path: Path, algorithm: str) -> None:
    private, _, _ = generate(algorithm)
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_bytes(private)
    key: SigningKey = load_signing_key(tmp_path / "key")
    named = [(n, bytes([n]) * 32) for n in range(3)]
    data = acknowledge(bytes(32), named, 5, key)
    (found,) = receipts(data)
    assert (found.probe, found.segments, found.received) == (bytes(32), tuple(named), 5)
    assert found.authentic(key.public)
    assert not found.authentic(s.key(3).public)
    assert [one.received for one in receipts(data + data)] == [5, 5]


def test_the_format() -> None:
    """RFC 9052 section 4.2, as cbor2 reads it."""
    whole = cbor2.loads(receipt(BASE[:2], 1))
    assert whole.tag == 18
    protected, unprotected, payload, signature = whole.value
    assert (unprotected, len(signature)) == ({}, 64)
    assert cbor2.loads(protected) == {
        1: -8,
        4: s.key(COLLECTOR).id,
        "sealwire-receipt": {1: 1, 2: BASE[0].header.probe, 3: s.moment(1).wall},
    }
    assert [list(entry) for entry in cbor2.loads(payload)] == [[n, BASE[n].hash] for n in range(2)]


def test_every_flipped_bit_and_every_cut_is_refused() -> None:
    data = receipt(BASE[:3], 1)
    for at in range(len(data)):
        for damaged in (data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :], data[:at]):
            if damaged:
                try:
                    found = received(damaged)
                except Malformed:
                    continue
                assert (found.refused, found.times) == (1, {}), at


@given(st.binary(max_size=200))
def test_any_bytes_are_receipts_or_malformed(data: bytes) -> None:
    for begin in (b"", b"\xd2\x84", b"\xd2\x84\x40\xa0"):
        try:
            list(receipts(begin + data))
        except Malformed:
            pass


def test_what_was_received_before_a_key_was_stolen_is_believed() -> None:
    """The header's time is the signer's word; the receipt's is the collector's."""
    early = receipt(BASE[:3], 21)
    late = receipt(BASE[3:], 51)
    assert s.faults(BASE, 60, trust(early + late)) == []
    found = s.faults(BASE, 60, trust(early + late, STOLEN))
    assert found[:2] == [Fault.REVOKED_KEY] * 2
    assert len([fault for fault in found if fault is Fault.REVOKED_KEY]) == len(BASE) - 3
    # A second receipt later takes nothing away; and without any, everything counts as received now.
    assert s.faults(BASE[:3], 25, trust(early + receipt(BASE[:3], 52), STOLEN)) == []
    assert s.faults(BASE, 60, s.trust(revoked={s.key().id: STOLEN}))[0] is Fault.REVOKED_KEY


def test_a_proof_is_judged_by_when_its_segment_came() -> None:
    known = trust(receipt(BASE[:3], 21), STOLEN)
    assert verify_proof(prove(BASE[1], 0), known, s.moment(99).wall).header == BASE[1].header
    with pytest.raises(Malformed, match="revoked"):
        verify_proof(prove(BASE[3], 0), known, s.moment(99).wall)


def test_what_a_collector_saw_must_be_there() -> None:
    """Also where the end was cut at a stop, which no chain can show."""
    disk = s.MemoryDisk()
    s.recorder(disk).close(s.moment(1))
    first = s.segments(disk)
    again = s.recorder(disk, 60, boot=2)
    again.take(Flows(s.rows(2), row_struct().size), s.moment(61))
    again.close(s.moment(62))
    both = s.segments(disk)
    assert s.faults(first, 1000) == []
    named = [(segment.header.segment, segment.hash) for segment in both]
    data = acknowledge(both[0].header.probe, named, s.moment(63).wall, s.key(COLLECTOR))
    assert s.faults(first, 1000, trust(data)) == [Fault.RECEIVED]
    assert s.faults(both, 1000, trust(data)) == []


def test_another_segment_than_the_one_received_is_found() -> None:
    named = [(0, BASE[0].hash), (1, bytes(32))]
    data = acknowledge(BASE[0].header.probe, named, s.moment(63).wall, s.key(COLLECTOR))
    assert s.faults(BASE, 60, trust(data)) == [Fault.RECEIVED]


def test_what_was_dropped_since_is_not_missed() -> None:
    disk = s.MemoryDisk()
    probe = s.recorder(disk, most=6000, file_bytes=900)
    seen: dict[int, bytes] = {}
    for second in range(1, 30):
        probe.take(Flows(s.rows(2, second), row_struct().size), s.moment(second))
        probe.flush(s.moment(second))
        seen |= {segment.header.segment: segment.hash for segment in s.segments(disk)}
    probe.close(s.moment(30))
    kept = s.segments(disk)
    assert kept[0].header.segment > 0
    data = acknowledge(kept[0].header.probe, list(seen.items()), s.moment(31).wall, s.key(COLLECTOR))
    assert s.faults(kept, 31, trust(data)) == []


def test_only_trusted_collectors_count() -> None:
    data = receipt(BASE, 21, number=9)
    assert received(data).refused == 1
    assert received(data, 9).times
    (found,) = receipts(data)
    lied = replace(found, collector=s.key(COLLECTOR).id)
    assert not lied.authentic(s.key(COLLECTOR).public)
