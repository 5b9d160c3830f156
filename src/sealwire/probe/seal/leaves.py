"""Flows and what dissection says of them as leaves: deterministic CBOR, in plain Python.

A leaf is one CBOR array: schema, event sequence, then numbers in a fixed order.  FLOW is the row of a
flow; DISSECTED the same and its facts; TRANSACTION a handshake, query or answer of a flow, which it
names by the fields its flow_id is made of.  *Facts* are the block of sealwire.probe.dissect.facts,
value by value: what a tag means is that module's, so a new kind of fact needs no new schema, and
leaves give back the batch that was sealed, byte by byte.  `_leaves` does the same, compiled; `engine`
chooses.  This twin leaves CBOR to cbor2, so comparing the two compares the compiled one with that.

CBOR is that of RFC 8949 section 4.2.1 (core deterministic encoding).
"""

from __future__ import annotations

import itertools
import re
import struct
from typing import Any, Final, NamedTuple

from sealwire.probe.batch import OFFSETS, Batch
from sealwire.probe.dissect.facts import BLOCK_HEAD, EVENT_HEAD, FACT_HEAD
from sealwire.probe.features import FIRST, HISTORY_BYTES, ROW_BYTES
from sealwire.probe.seal import cbor
from sealwire.probe.seal.tree import frame, split

#: Schemas.  Their columns are those below and may never change; other columns are another number.
FLOW: Final = 1
DISSECTED: Final = 8
TRANSACTION: Final = 9
#: Longest facts block of a leaf.
BLOCK_MAXIMUM_BYTES: Final = 65_535

_WAY: Final = (
    *("packets", "bytes", "payload_bytes", "wire_bytes", "first", "last", "size_square_sum", "size_min"),
    *("size_max", "gap_min", "gap_max", "gap_sum", "gap_square_sum_low", "gap_square_sum_high"),
    *("retransmissions", "out_of_order", "holes", "zero_windows", "window_min", "window_max"),
    *("tcp_flags", "ttl_min", "ttl_max", "tos"),
)
#: The columns of schemas FLOW and DISSECTED in the order of the leaf, behind schema and sequence.
COLUMNS: Final[tuple[str, ...]] = (
    *("ended", "source_address", "destination_address", "source_port", "destination_port", "protocol"),
    *("end_reason", "marks", "vlan", "vlan_inner", "part", "first_packet"),
    *("handshake_server", "handshake_client", "response", "history_letters"),
)
FORWARD: Final = tuple(f"forward_{name}" for name in _WAY)
BACKWARD: Final = tuple(f"backward_{name}" for name in _WAY)
#: The columns of schema TRANSACTION, behind schema and sequence and before the facts.
TRANSACTION_COLUMNS: Final[tuple[str, ...]] = (
    *("time", "source_address", "destination_address", "source_port", "destination_port", "protocol"),
    *("vlan", "vlan_inner", "part", "first_packet", "flow_start"),
)
_EVENT_FIELDS: Final = (
    *("length", "time", "source_address", "destination_address", "source_port", "destination_port"),
    *("ip_version", "protocol", "part", "flow_start", "first_packet", "vlan", "vlan_inner"),
)


def _event_offsets() -> dict[str, tuple[int, str]]:
    codes = re.findall(r"\d*[A-Za-z]", EVENT_HEAD.format)
    ends = itertools.accumulate(struct.calcsize("<" + code) for code in codes)
    starts = (0, *ends)
    return {name: (at, code) for name, at, code in zip(_EVENT_FIELDS, starts, codes, strict=False)}


#: Where they stand in an event of sealwire.probe.dissect.facts: offset and struct code, as OFFSETS.
TRANSACTION_OFFSETS: Final = _event_offsets()
_ELEMENTS: Final = {
    FLOW: 2 + len(COLUMNS) + 3,  # forward, backward, first packets
    DISSECTED: 2 + len(COLUMNS) + 4,  # and facts
    TRANSACTION: 2 + len(TRANSACTION_COLUMNS) + 1,
}


def _empty_backward() -> tuple[int, ...]:
    """The numbers of a direction without packets; such a one is null in the leaf."""
    return tuple(-1 if name in ("gap_min", "gap_max") else 0 for name in _WAY)


NO_PACKETS: Final = _empty_backward()


class BadLeaf(ValueError):
    """A leaf is not what its schema says.  `index` counts from 0 within what was decoded."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"leaf {index}: {reason}")
        self.index = index
        self.reason = reason


class Encoded(NamedTuple):
    """Leaves, framed, and how far what they were made of is used up."""

    framed: bytes
    leaves: int
    #: Where, in the facts blocks or events, the next one begins.
    end: int
    #: Earliest and latest packet time, nanoseconds since 1970; None without leaves.
    times: tuple[int, int] | None


class Decoded(NamedTuple):
    """What the leaves of a segment hold."""

    #: The schema of each leaf, 0 for those that are only in `others`.
    kinds: bytes
    rows: bytes
    #: First packets of each row.
    first_packets: int
    #: The facts blocks of the rows, one behind the other.
    facts: bytes
    #: Events of sealwire.probe.dissect.facts, one behind the other.
    transactions: bytes
    #: Index and bytes of every other leaf, undecoded behind its first two numbers.
    others: list[tuple[int, bytes]]
    #: Earliest and latest packet time; None without flows and transactions.
    times: tuple[int, int] | None

    def batch(self) -> Batch:
        """The batch as it was sealed."""
        dissected = bool(self.facts or self.transactions)
        return Batch(self.rows, self.first_packets, self.facts, self.transactions, dissected)


def _number(record: bytes, offsets: dict[str, tuple[int, str]], at: int, name: str) -> int:
    offset, code = offsets[name]
    value: int = struct.unpack_from("<" + code, record, at + offset)[0]
    return value


def _columns(data: bytes, offsets: dict[str, tuple[int, str]], at: int, names: tuple[str, ...]) -> list[Any]:
    """The columns of a row or event at `at`."""
    version = data[at + offsets["ip_version"][0]]
    if version not in (4, 6):
        raise ValueError(f"a row whose IP version is {version}")
    found: list[Any] = []
    for name in names:
        start = at + offsets[name][0]
        if name == "history_letters":
            letters = data[start : start + HISTORY_BYTES].rstrip(b"\0")
            if any(not 0x20 < letter < 0x7F for letter in letters):
                raise ValueError("a row whose history is not letters")
            found.append(letters.decode("ascii"))
        elif name.endswith("_address"):
            packed = data[start : start + 16]
            if version == 4 and any(packed[4:]):
                raise ValueError("an IPv4 address of more than four bytes in a row")
            found.append(packed[:4] if version == 4 else packed)
        else:
            found.append(_number(data, offsets, at, name))
    return found


def _facts(block: bytes) -> list[int | bytes]:
    """A facts block, value by value."""
    if not BLOCK_HEAD.size <= len(block) <= BLOCK_MAXIMUM_BYTES:
        raise ValueError("a row whose facts are none")
    found: list[int | bytes] = list(BLOCK_HEAD.unpack_from(block))
    at = BLOCK_HEAD.size
    while at < len(block):
        if len(block) - at < FACT_HEAD.size:
            raise ValueError("a row whose facts are cut short")
        tag, n = FACT_HEAD.unpack_from(block, at)
        at += FACT_HEAD.size + n
        if at > len(block):
            raise ValueError("a row whose facts are cut short")
        found += [tag, block[at - n : at]]
    return found


def encode(
    rows: bytes, stride: int, first: int, facts: bytes, begin: int, sequence: int, most: int, room: int
) -> Encoded:
    """Leaves of the rows from number `first` on, whose facts blocks begin at `begin`.

    At most `most` of them, and no further one once `room` bytes are filled; `sequence` is the first
    one's event sequence.  Raises ValueError for rows that are none.
    """
    if (
        stride < ROW_BYTES
        or (stride - ROW_BYTES) % FIRST.size
        or len(rows) % stride
        or first < 0
        or begin < 0
    ):
        raise ValueError("these bytes are no rows")
    out: list[bytes] = []
    times: list[int] = []
    size = 0
    for at in range(first * stride, len(rows), stride):
        if len(out) >= most or size >= room:
            break
        n = _number(rows, OFFSETS, at, "facts_bytes")
        if n > len(facts) - begin:
            raise ValueError("a row whose facts are missing")
        leaf: list[Any] = [
            DISSECTED if n else FLOW,
            sequence + len(out),
            *_columns(rows, OFFSETS, at, COLUMNS),
        ]
        leaf.append([_number(rows, OFFSETS, at, name) for name in FORWARD])
        backward = [_number(rows, OFFSETS, at, name) for name in BACKWARD]
        leaf.append(None if tuple(backward) == NO_PACKETS else backward)
        leaf.append([list(pair) for pair in FIRST.iter_unpack(rows[at + ROW_BYTES : at + stride])])
        if n:
            leaf.append(_facts(facts[begin : begin + n]))
            begin += n
        out.append(frame(cbor.encode(leaf)))
        size += len(out[-1])
        times.append(leaf[2])
    return Encoded(b"".join(out), len(out), begin, (min(times), max(times)) if times else None)


def encode_transactions(events: bytes, begin: int, sequence: int, most: int, room: int) -> Encoded:
    """Leaves of the events from byte `begin` on; the other arguments as for `encode`.

    Raises ValueError for events that are none.
    """
    if begin < 0:
        raise ValueError("these bytes are no events")
    out: list[bytes] = []
    times: list[int] = []
    size = 0
    while begin < len(events) and len(out) < most and size < room:
        n = int.from_bytes(events[begin : begin + 4], "little")
        if not EVENT_HEAD.size <= n <= len(events) - begin:
            raise ValueError("these bytes are no events")
        leaf: list[Any] = [TRANSACTION, sequence + len(out)]
        leaf += _columns(events, TRANSACTION_OFFSETS, begin, TRANSACTION_COLUMNS)
        leaf.append(_facts(events[begin + EVENT_HEAD.size : begin + n]))
        begin += n
        out.append(frame(cbor.encode(leaf)))
        size += len(out[-1])
        times.append(leaf[2])
    return Encoded(b"".join(out), len(out), begin, (min(times), max(times)) if times else None)


def decode(framed: bytes, sequence: int) -> Decoded:
    """What the leaves in `framed` hold; they must have the sequences from `sequence` on.

    Raises BadLeaf, or ValueError where `framed` is no run of byte strings.
    """
    kinds, rows, facts, transactions = bytearray(), bytearray(), bytearray(), bytearray()
    others: list[tuple[int, bytes]] = []
    times: list[int] = []
    firsts = -1
    for index, leaf in enumerate(split(framed)):
        schema, number = _begin(index, leaf)
        if number != sequence + index:
            raise BadLeaf(index, f"its sequence is {number}, not {sequence + index}")
        kinds.append(schema if schema in _ELEMENTS else 0)
        if schema not in _ELEMENTS:
            others.append((index, leaf))
            continue
        try:
            record, block, n = record_of(leaf)
        except (ValueError, struct.error) as error:
            raise BadLeaf(index, str(error)) from None
        if schema == TRANSACTION:
            times.append(_number(record, TRANSACTION_OFFSETS, 0, "time"))
            transactions += record + block
            continue
        if firsts not in (-1, n):
            raise BadLeaf(index, "another number of first packets than in the leaf before")
        firsts = n
        times.append(_number(record, OFFSETS, 0, "ended"))
        rows += record
        facts += block
    return Decoded(
        *(bytes(kinds), bytes(rows), max(firsts, 0), bytes(facts), bytes(transactions), others),
        times=(min(times), max(times)) if times else None,
    )


def _begin(index: int, leaf: bytes) -> tuple[int, int]:
    try:
        major, elements, at = cbor.read_head(leaf, 0)
        kind, schema, at = cbor.read_head(leaf, at)
        also, number, at = cbor.read_head(leaf, at)
    except ValueError as error:
        raise BadLeaf(index, str(error)) from None
    if (major, kind, also) != (4, 0, 0) or elements < 2:
        raise BadLeaf(index, "it is no array that begins with schema and sequence")
    return schema, number


def record_of(leaf: bytes) -> tuple[bytes, bytes, int]:
    """The row or event of a leaf of a schema above, its facts block, how many first packets it has.

    Raises ValueError or struct.error for one that is not what its schema says.
    """
    schema, _, *values = cbor.decode(leaf)
    if len(values) != _ELEMENTS[schema] - 2:
        raise ValueError(f"a leaf of schema {schema} has {_ELEMENTS[schema]} elements, not {2 + len(values)}")
    if schema == TRANSACTION:
        block = _block(values.pop())
        event = bytearray(EVENT_HEAD.size)
        struct.pack_into("<I", event, 0, len(event) + len(block))
        _put_columns(event, TRANSACTION_OFFSETS, TRANSACTION_COLUMNS, values)
        return bytes(event), block, 0
    block = _block(values.pop()) if schema == DISSECTED else b""
    *columns, forward, backward, first_packets = values
    if not isinstance(forward, list) or not isinstance(first_packets, list):
        raise ValueError("an array is missing")
    if backward is not None and (not isinstance(backward, list) or tuple(backward) == NO_PACKETS):
        raise ValueError("a direction without packets is null")
    row = bytearray(ROW_BYTES)
    _put_columns(row, OFFSETS, COLUMNS, columns)
    struct.pack_into("<I", row, OFFSETS["facts_bytes"][0], len(block))
    for names, numbers in ((FORWARD, forward), (BACKWARD, NO_PACKETS if backward is None else backward)):
        if len(numbers) != len(names):
            raise ValueError(f"a direction has {len(names)} numbers")
        for name, value in zip(names, numbers, strict=True):
            _put(row, OFFSETS, name, value)
    for pair in first_packets:
        if not isinstance(pair, list) or len(pair) != 2 or any(type(n) is not int for n in pair):
            raise ValueError("a first packet is two numbers")
        row += FIRST.pack(*pair)
    return bytes(row), block, len(first_packets)


def _put_columns(
    record: bytearray, offsets: dict[str, tuple[int, str]], names: tuple[str, ...], values: list[Any]
) -> None:
    versions = set()
    for name, value in zip(names, values, strict=True):
        offset = offsets[name][0]
        if name == "history_letters":
            letters = value.encode("ascii") if isinstance(value, str) and value.isascii() else b"\0"
            if len(letters) > HISTORY_BYTES or any(not 0x20 < letter < 0x7F for letter in letters):
                raise ValueError("the history is not letters")
            record[offset : offset + len(letters)] = letters
        elif name.endswith("_address"):
            if not isinstance(value, bytes) or len(value) not in (4, 16):
                raise ValueError("an address has 4 or 16 bytes")
            record[offset : offset + len(value)] = value
            versions.add(4 if len(value) == 4 else 6)
        else:
            _put(record, offsets, name, value)
    if len(versions) != 1:
        raise ValueError("the addresses are of two versions")
    record[offsets["ip_version"][0]] = versions.pop()


def _put(record: bytearray, offsets: dict[str, tuple[int, str]], name: str, value: Any) -> None:
    offset, code = offsets[name]
    if type(value) is not int:
        raise ValueError(f"{name} is no number")
    try:
        struct.pack_into("<" + code, record, offset, value)
    except struct.error:
        raise ValueError(f"{name} is out of its range") from None


def _block(facts: Any) -> bytes:
    """The facts block of its values."""
    if not isinstance(facts, list) or len(facts) < 3 or len(facts) % 2 == 0:
        raise ValueError("facts are an array of three numbers, then tags and values")
    numbers = [*facts[:3], *facts[3::2]]
    if any(type(n) is not int for n in numbers) or not all(isinstance(value, bytes) for value in facts[4::2]):
        raise ValueError("a fact is a number and a byte string")
    block = BLOCK_HEAD.pack(*facts[:3]) + b"".join(
        FACT_HEAD.pack(tag, len(value)) + value for tag, value in zip(facts[3::2], facts[4::2], strict=True)
    )
    if len(block) > BLOCK_MAXIMUM_BYTES:
        raise ValueError("more facts than a leaf may have")
    return block
