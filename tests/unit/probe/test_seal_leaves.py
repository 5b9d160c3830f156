"""Leaves: the compiled writer, its twin and cbor2 agree; damage is refused, by both alike."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.probe.batch import OFFSETS, Batch
from sealwire.probe.dissect.facts import EVENT_HEAD, Facts, events
from sealwire.probe.features import FIELDS, FIRST, Flow, row_struct, unpack
from sealwire.probe.seal import cbor, engine, leaves, tree
from sealwire.probe.seal.leaves import BACKWARD, COLUMNS, FORWARD, BadLeaf, Decoded, Encoded
from sealwire.probe.seal.tree import frame, split
from tests.unit.probe.sealing import FACTS_BYTES_AT, dissected, row, rows, transaction, transactions

try:
    from sealwire.probe.seal import _leaves, _tree
except ImportError:
    TWINS: list[Any] = [leaves]
    TREES: list[Any] = [tree]
else:
    TWINS = [leaves, _leaves]
    TREES = [tree, _tree]
HASHES = [twin.leaf_hashes for twin in TREES]

MOST = 1 << 40


def flow_leaves(twin: Any, data: bytes, stride: int, sequence: int = 0) -> bytes:
    """Leaves of rows without facts."""
    framed: bytes = twin.encode(data, stride, 0, b"", 0, sequence, MOST, MOST).framed
    return framed


@given(st.integers(0, 1 << 60), st.integers(0, 3), st.integers(0, (1 << 64) - 100))
def test_twins_write_the_same_and_read_it_back(seed: int, first_packets: int, sequence: int) -> None:
    data = rows(5, seed, first_packets)
    stride = row_struct(first_packets).size
    made = [twin.encode(data, stride, 1, b"", 0, sequence, 3, MOST) for twin in TWINS]
    assert all(each == made[0] for each in made)
    assert made[0].leaves == 3
    ended = [flow.ended for flow in unpack(data, first_packets)][1:4]
    assert made[0].times == (min(ended), max(ended))
    for twin in TWINS:
        expected = Decoded(b"\1\1\1", data[stride : 4 * stride], first_packets, b"", b"", [], made[0].times)
        assert twin.decode(made[0].framed, sequence) == expected


@given(st.integers(0, 1 << 60), st.integers(0, 3), st.integers(0, (1 << 64) - 100))
def test_a_dissected_batch_comes_out_as_it_went_in(seed: int, first_packets: int, sequence: int) -> None:
    """Rows, facts and transactions, byte by byte, whatever the pieces were."""
    chance = random.Random(seed)
    batch = Batch(
        *(dissected(9, seed, first_packets)[0], first_packets, dissected(9, seed, first_packets)[1])
    )
    told, stride = transactions(7, seed), row_struct(first_packets).size
    runs: list[list[Any]] = []
    cuts = [chance.randrange(1, 5) for _ in range(20)]
    for twin in TWINS:
        done: list[Any] = []
        row = at = 0
        for most in cuts:
            done.append(twin.encode(batch.rows, stride, row, batch.facts, at, sequence + row, most, MOST))
            row, at = row + done[-1].leaves, done[-1].end
        event = at = 0
        for most in cuts:
            done.append(twin.encode_transactions(told, at, sequence + row + event, most, MOST))
            event, at = event + done[-1].leaves, done[-1].end
        assert (row, event, at) == (9, 7, len(told))
        runs.append(done)
    assert all(run == runs[0] for run in runs)
    framed = b"".join(encoded.framed for encoded in runs[0])
    for twin in TWINS:
        found = twin.decode(framed, sequence)
        assert found[1:5] == (batch.rows, first_packets, batch.facts, told)
        known = [1 if flow.facts_bytes == 0 else 8 for flow in batch]
        assert found.kinds == bytes([*known, *[9] * 7])
        packets = [encoded.times for encoded in runs[0] if encoded.times]
        assert found.times == (min(t[0] for t in packets), max(t[1] for t in packets))
        again = found.batch()
        assert (list(again), again.event_data) == (list(batch), told)


@given(st.integers(0, 1 << 60))
def test_a_leaf_is_what_cbor2_writes_of_the_same_numbers(seed: int) -> None:
    """Byte for byte, without a line of ours in between."""
    data = row(seed, 2)
    (flow,) = unpack(data, 2)
    expected = cbor2.dumps(numbers(flow, 7), canonical=True)
    for twin in TWINS:
        assert split(flow_leaves(twin, data, len(data), 7)) == [expected]


@given(st.integers(0, 1 << 60))
def test_facts_are_what_cbor2_writes_of_them(seed: int) -> None:
    data, known = dissected(1, seed)
    event = transaction(seed)
    (flow,) = unpack(data, 0, known)
    (told,) = events(event)
    expected = [8, *numbers(flow, 7)[1:], values(flow.facts)]
    ends = told.source_address, told.destination_address
    ends = (ends[0][:4], ends[1][:4]) if told.ip_version == 4 else ends
    said = [9, 8, told.time, *ends, told.source_port, told.destination_port, told.protocol, told.vlan]
    said += [told.vlan_inner, told.part, told.first_packet, told.flow_start, values(told.facts)]
    for twin in TWINS:
        flows = twin.encode(data, len(data), 0, known, 0, 7, 1, MOST).framed
        assert split(flows) == [cbor2.dumps(expected, canonical=True)]
        transactions = twin.encode_transactions(event, 0, 8, 1, MOST).framed
        assert split(transactions) == [cbor2.dumps(said, canonical=True)]


def values(facts: Facts) -> list[int | bytes]:
    head = [int.from_bytes(facts.block[:2], "little"), *facts.block[2:4]]
    return [*head, *(part for fact in facts for part in fact)]


def numbers(flow: Flow, sequence: int) -> list[Any]:
    def address(packed: bytes) -> bytes:
        return packed[:4] if flow.ip_version == 4 else packed

    values = [getattr(flow, name) for name in COLUMNS]
    values[1:3] = address(flow.source_address), address(flow.destination_address)
    values[-1] = flow.history
    backward = [getattr(flow, name) for name in BACKWARD]
    nothing = not any(value not in (0, -1) for value in backward) and backward[9:11] == [-1, -1]
    nothing = nothing and all(value == 0 for value in backward[:9] + backward[11:])
    forward = [getattr(flow, name) for name in FORWARD]
    firsts = [list(pair) for pair in FIRST.iter_unpack(flow.first_sequence)]
    return [1, sequence, *values, forward, None if nothing else backward, firsts]


def test_every_column_of_a_row_is_in_the_leaf() -> None:
    named = {*COLUMNS, *FORWARD, *BACKWARD, "ip_version", "facts_bytes"}
    assert named == {field.name for field in FIELDS}


def test_the_schemas_are_frozen() -> None:
    """What is sealed once must be readable for ever: other columns are another schema."""
    text = ",".join((*COLUMNS, "/", *FORWARD, "/", *BACKWARD))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "cce166fd9c37313d"
    text = ",".join(leaves.TRANSACTION_COLUMNS)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "0cf4953baa8f670c"
    assert (leaves.FLOW, leaves.DISSECTED, leaves.TRANSACTION) == (1, 8, 9)


OLD_LEAVES = bytes.fromhex(
    "58419501031b18493fba64ef0001440a000001440a000001000000000000000000000000625368981801000000000000"
    "0000202000000000000000000000000000f68058419501041b18493fba64ef0002440a000001440a0000010000000000"
    "000000000000006253689818020000000000000000202000000000000000000000000000f6804483040507"
)


def test_a_leaf_sealed_before_there_were_facts_is_read() -> None:
    """Written by the program of 2026-11-20, before schemas 8 and 9."""
    for twin in TWINS:
        found = twin.decode(OLD_LEAVES, 3)
        assert found.kinds == b"\1\1\0"
        assert [flow.forward_packets for flow in found.batch()] == [1, 2]


@pytest.mark.parametrize("twin", TWINS)
def test_bounds_of_a_call(twin: Any) -> None:
    data = rows(10)
    size = row_struct().size
    whole, n, *_ = twin.encode(data, size, 0, b"", 0, 0, 100, MOST)
    assert n == 10
    one, n, *_ = twin.encode(data, size, 0, b"", 0, 0, 1, MOST)
    assert n == 1
    assert whole.startswith(one)
    # The room is checked before each leaf, so the last one may go beyond it.
    two, n, *_ = twin.encode(data, size, 0, b"", 0, 0, 100, len(one) + 1)
    assert n == 2
    assert whole.startswith(two)
    nothing = Encoded(b"", 0, 0, None)
    assert twin.encode(data, size, 0, b"", 0, 0, 100, 0) == nothing
    assert twin.encode(data, size, 10, b"", 0, 0, 100, MOST) == nothing
    told = transactions(5)
    whole, n, end, _ = twin.encode_transactions(told, 0, 0, 100, MOST)
    assert (n, end) == (5, len(told))
    one, n, *_ = twin.encode_transactions(told, 0, 0, 100, 1)
    assert n == 1
    assert whole.startswith(one)
    assert twin.encode_transactions(told, 0, 0, 100, 0) == nothing
    assert twin.encode_transactions(told, len(told), 0, 100, MOST) == Encoded(b"", 0, len(told), None)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("damage", ["version", "address", "history", "length", "stride"])
def test_rows_that_are_none_are_refused(twin: Any, damage: str) -> None:
    data = bytearray(row(8))
    stride = len(data)
    if damage == "version":
        data[36] = 5
    elif damage == "address":
        data[36], data[5] = 4, 1
    elif damage == "history":
        data[OFFSETS["history_letters"][0]] = 7
    elif damage == "length":
        data += b"\0"
    else:
        stride = 100
    with pytest.raises(ValueError, match=r"row|address"):
        twin.encode(bytes(data), stride, 0, b"", 0, 0, 10, MOST)


@pytest.mark.parametrize("twin", TWINS)
def test_facts_that_are_none_are_refused(twin: Any) -> None:
    data = bytearray(row(8))
    for known in (
        b"\1",
        b"\1\0\2",
        b"\1\0\2\0\7",
        b"\1\0\2\0\7\2\0x",
        b"\1\0\2\0" + b"\7\xff\xff" + bytes(65_535),
    ):
        data[FACTS_BYTES_AT : FACTS_BYTES_AT + 4] = len(known).to_bytes(4, "little")
        with pytest.raises(ValueError, match="row"):
            twin.encode(bytes(data), len(data), 0, known, 0, 0, 10, MOST)
        with pytest.raises(ValueError, match="row"):
            twin.encode(bytes(data), len(data), 0, known[:-1], 0, 0, 10, MOST)
    told = transaction(3)
    for n in (*range(80), len(told) - 1):
        if n:
            with pytest.raises(ValueError, match=r"row|events"):
                twin.encode_transactions(told[:n], 0, 0, 10, MOST)
    for damaged in (
        bytes(80),
        EVENT_HEAD.size.to_bytes(4, "little") + told[4:],
        told[:48] + b"\5" + told[49:],
    ):
        with pytest.raises(ValueError, match=r"row|events"):
            twin.encode_transactions(damaged, 0, 0, 10, MOST)


def outcome(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except BadLeaf as wrong:
        return "bad leaf", wrong.index
    except ValueError:
        return "malformed"


@given(st.integers(0, 1 << 60), st.integers(1, 3))
def test_damage_is_refused_by_both_or_read_alike(seed: int, flips: int) -> None:
    chance = random.Random(seed)
    data, known = dissected(2, seed, 1)
    framed = leaves.encode(data, row_struct(1).size, 0, known, 0, 9, 9, MOST).framed
    framed += leaves.encode_transactions(transaction(seed), 0, 11, 9, MOST).framed
    damaged = bytearray(framed)
    for _ in range(flips):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    if chance.random() < 0.3:
        del damaged[chance.randrange(len(damaged)) :]
    if chance.random() < 0.2:
        damaged.insert(chance.randrange(len(damaged)), chance.randrange(256))
    data = bytes(damaged)
    found = [outcome(lambda twin=twin: twin.decode(data, 9)) for twin in TWINS]  # type: ignore[misc]
    assert all(each == found[0] for each in found)
    hashes = [outcome(lambda twin=twin: twin(data)) for twin in HASHES]  # type: ignore[misc]
    assert all(each == hashes[0] for each in hashes)
    if isinstance(found[0], Decoded) and not found[0].others:
        # What is accepted is the one way to write it.
        assert written_again(found[0], 9) == data


def written_again(found: Decoded, sequence: int) -> bytes:
    out = []
    row = facts_at = event_at = 0
    for number, kind in enumerate(found.kinds, sequence):
        if kind == leaves.TRANSACTION:
            made = engine.encode_transactions(found.transactions, event_at, number, 1, MOST)
            event_at = made.end
        else:
            stride = row_struct(found.first_packets).size
            made = engine.encode(found.rows, stride, row, found.facts, facts_at, number, 1, MOST)
            row, facts_at = row + 1, made.end
        out.append(made.framed)
    return b"".join(out)


@pytest.mark.parametrize("twin", TWINS)
def test_leaves_take_a_bounded_multiple_of_their_bytes(twin: Any) -> None:
    """Many tiny leaves behind one with many first packets, as only somebody who forges would write them."""
    flow = cbor.decode(split(flow_leaves(leaves, rows(1), row_struct().size))[0])
    flow[-1] = [[0, 0]] * 100_000
    framed = frame(cbor.encode(flow)) + frame(b"\x80") * 300_000
    with pytest.raises(BadLeaf):
        twin.decode(framed, 0)


@pytest.mark.parametrize("twin", TWINS)
def test_every_prefix_is_refused(twin: Any) -> None:
    framed = flow_leaves(leaves, rows(2), row_struct().size)
    (first, second) = split(framed)
    whole = {0, len(frame(first))}
    for n in range(len(framed)):
        if n not in whole:
            with pytest.raises(ValueError, match=r"byte string|cut"):
                twin.decode(framed[:n], 0)
    for n in range(len(second)):
        with pytest.raises(BadLeaf) as caught:
            twin.decode(frame(first) + frame(second[:n]), 0)
        assert caught.value.index == 1


@pytest.mark.parametrize("twin", TWINS)
def test_other_schemas_come_out_as_they_are(twin: Any) -> None:
    flow = flow_leaves(leaves, rows(1), row_struct().size, 5)
    other = cbor.encode([99, 6, "whatever", [1, 2]])
    found = twin.decode(flow + frame(other), 5)
    assert (found.kinds, found.rows, found.others) == (b"\1\0", rows(1), [(1, other)])
    with pytest.raises(BadLeaf):
        twin.decode(frame(other), 5)


@pytest.mark.parametrize("twin", TREES)
def test_the_tree_is_that_of_the_rfc(twin: Any) -> None:
    """RFC 9162 section 2.1.1, as it is defined there."""

    def head(entries: list[bytes]) -> bytes:
        if not entries:
            return hashlib.sha256(b"").digest()
        if len(entries) == 1:
            return hashlib.sha256(b"\0" + entries[0]).digest()
        split_at = 1 << ((len(entries) - 1).bit_length() - 1)
        return hashlib.sha256(b"\1" + head(entries[:split_at]) + head(entries[split_at:])).digest()

    for n in (*range(20), 63, 64, 65, 1000):
        entries = [bytes([i % 256]) * (i % 300) for i in range(n)]
        framed = b"".join(map(frame, entries))
        assert twin.root(twin.leaf_hashes(framed)) == head(entries)
    huge = bytes(70_000)
    assert twin.root(twin.leaf_hashes(frame(huge) + frame(b""))) == head([huge, b""])


def test_the_tree_of_certificate_transparency() -> None:
    """The eight entries that implementations of RFC 6962 and 9162 test with, and their known root."""
    entries = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    framed = b"".join(frame(bytes.fromhex(entry)) for entry in entries)
    for twin in TREES:
        found = twin.root(twin.leaf_hashes(framed)).hex()
        assert found == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
