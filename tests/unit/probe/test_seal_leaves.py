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

from sealwire.probe.batch import OFFSETS
from sealwire.probe.features import FIELDS, FIRST, Flow, row_struct, unpack
from sealwire.probe.seal import cbor, engine, leaves
from sealwire.probe.seal.leaves import BACKWARD, COLUMNS, FORWARD, BadLeaf, frame, split
from tests.unit.probe.sealing import row, rows

try:
    from sealwire.probe.seal import _leaves
except ImportError:
    TWINS: list[Any] = [leaves]
else:
    TWINS = [leaves, _leaves]

MOST = 1 << 40


@given(st.integers(0, 1 << 60), st.integers(0, 3), st.integers(0, (1 << 64) - 100))
def test_twins_write_the_same_and_read_it_back(seed: int, first_packets: int, sequence: int) -> None:
    data = rows(5, seed, first_packets)
    stride = row_struct(first_packets).size
    made = [twin.encode(data, stride, 1, sequence, 3, MOST) for twin in TWINS]
    assert all(each == made[0] for each in made)
    framed, n = made[0]
    assert n == 3
    for twin in TWINS:
        assert twin.decode(framed, sequence) == (data[stride : 4 * stride], first_packets, [])
        assert twin.leaf_hashes(framed) == leaves.leaf_hashes(framed)


@given(st.integers(0, 1 << 60))
def test_a_leaf_is_what_cbor2_writes_of_the_same_numbers(seed: int) -> None:
    """Byte for byte, without a line of ours in between."""
    data = row(seed, 2)
    (flow,) = unpack(data, 2)
    expected = cbor2.dumps(numbers(flow, 7), canonical=True)
    for twin in TWINS:
        framed, _ = twin.encode(data, len(data), 0, 7, 1, MOST)
        assert split(framed) == [expected]


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


def test_the_schema_of_flows_is_frozen() -> None:
    """What is sealed once must be readable for ever: other columns are another schema."""
    text = ",".join((*COLUMNS, "/", *FORWARD, "/", *BACKWARD))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == FROZEN


FROZEN = "cce166fd9c37313d"


@pytest.mark.parametrize("twin", TWINS)
def test_bounds_of_a_call(twin: Any) -> None:
    data = rows(10)
    size = row_struct().size
    whole, n = twin.encode(data, size, 0, 0, 100, MOST)
    assert n == 10
    one, n = twin.encode(data, size, 0, 0, 1, MOST)
    assert n == 1
    assert whole.startswith(one)
    # The room is checked before each leaf, so the last one may go beyond it.
    two, n = twin.encode(data, size, 0, 0, 100, len(one) + 1)
    assert n == 2
    assert whole.startswith(two)
    assert twin.encode(data, size, 0, 0, 100, 0) == (b"", 0)
    assert twin.encode(data, size, 10, 0, 100, MOST) == (b"", 0)


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
        twin.encode(bytes(data), stride, 0, 0, 10, MOST)


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
    framed, _ = leaves.encode(rows(2, seed, 1), row_struct(1).size, 0, 9, 9, MOST)
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
    hashes = [outcome(lambda twin=twin: twin.leaf_hashes(data)) for twin in TWINS]  # type: ignore[misc]
    assert all(each == hashes[0] for each in hashes)
    if found[0] not in ("malformed",) and found[0][0] != "bad leaf":
        # What is accepted is the one way to write it.
        got, firsts, others = found[0]
        if not others:
            assert engine.encode(got, row_struct(firsts).size, 0, 9, 9, MOST)[0] == data


@pytest.mark.parametrize("twin", TWINS)
def test_every_prefix_is_refused(twin: Any) -> None:
    framed, _ = leaves.encode(rows(2), row_struct().size, 0, 0, 9, MOST)
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
    flow, _ = leaves.encode(rows(1), row_struct().size, 0, 5, 9, MOST)
    other = cbor.encode([99, 6, "whatever", [1, 2]])
    assert twin.decode(flow + frame(other), 5) == (rows(1), 0, [(1, other)])
    with pytest.raises(BadLeaf):
        twin.decode(frame(other), 5)


@pytest.mark.parametrize("twin", TWINS)
def test_the_tree_is_that_of_the_rfc(twin: Any) -> None:
    """RFC 9162 section 2.1.1, as it is defined there."""

    def tree(entries: list[bytes]) -> bytes:
        if not entries:
            return hashlib.sha256(b"").digest()
        if len(entries) == 1:
            return hashlib.sha256(b"\0" + entries[0]).digest()
        split_at = 1 << ((len(entries) - 1).bit_length() - 1)
        return hashlib.sha256(b"\1" + tree(entries[:split_at]) + tree(entries[split_at:])).digest()

    for n in (*range(20), 63, 64, 65, 1000):
        entries = [bytes([i % 256]) * (i % 300) for i in range(n)]
        framed = b"".join(map(frame, entries))
        assert twin.root(twin.leaf_hashes(framed)) == tree(entries)
    huge = bytes(70_000)
    assert twin.root(twin.leaf_hashes(frame(huge) + frame(b""))) == tree([huge, b""])


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
    for twin in TWINS:
        found = twin.root(twin.leaf_hashes(framed)).hex()
        assert found == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
