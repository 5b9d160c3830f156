"""Flows as leaves: deterministic CBOR, leaf hashes and the root, in plain Python.

The leaf of a flow (schema FLOW) is one CBOR array: schema, event sequence, then the numbers of its
row in a fixed order.  `framed` is what a segment holds: leaves one after another, each wrapped in a
byte string, so that hashing needs no decoding.  `_leaves` does the same, compiled; `engine`
chooses.  This twin leaves CBOR to cbor2 and hashing to hashlib, so comparing the two compares the
compiled writer with both.

CBOR is that of RFC 8949 section 4.2.1 (core deterministic encoding); the tree is RFC 9162's.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any, Final

from sealwire.probe.batch import OFFSETS
from sealwire.probe.features import FIRST, HISTORY_BYTES, ROW_BYTES
from sealwire.probe.seal import cbor

#: Schema of a flow whose columns are those below.  Another set of columns is another number.
FLOW: Final = 1

_WAY: Final = (
    *("packets", "bytes", "payload_bytes", "wire_bytes", "first", "last", "size_square_sum", "size_min"),
    *("size_max", "gap_min", "gap_max", "gap_sum", "gap_square_sum_low", "gap_square_sum_high"),
    *("retransmissions", "out_of_order", "holes", "zero_windows", "window_min", "window_max"),
    *("tcp_flags", "ttl_min", "ttl_max", "tos"),
)
#: The columns of schema FLOW in the order of the leaf, behind schema and sequence.  This list is
#: the schema: it may never change, whatever becomes of the rows.
COLUMNS: Final[tuple[str, ...]] = (
    *("ended", "source_address", "destination_address", "source_port", "destination_port", "protocol"),
    *("end_reason", "marks", "vlan", "vlan_inner", "part", "first_packet"),
    *("handshake_server", "handshake_client", "response", "history_letters"),
)
FORWARD: Final = tuple(f"forward_{name}" for name in _WAY)
BACKWARD: Final = tuple(f"backward_{name}" for name in _WAY)
#: Elements of a flow's leaf: schema, sequence, columns, forward, backward, first packets.
ELEMENTS: Final = 2 + len(COLUMNS) + 3

_VERSION: Final = OFFSETS["ip_version"][0]
_SKIPPED: Final = {"source_address", "destination_address", "history_letters"}


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


def _take(rows: bytes, at: int, name: str) -> int:
    offset, code = OFFSETS[name]
    value: int = struct.unpack_from("<" + code, rows, at + offset)[0]
    return value


def _flow(rows: bytes, at: int, stride: int, sequence: int) -> bytes:
    version = rows[at + _VERSION]
    if version not in (4, 6):
        raise ValueError(f"a row whose IP version is {version}")
    leaf: list[Any] = [FLOW, sequence]
    for name in COLUMNS:
        if name not in _SKIPPED:
            leaf.append(_take(rows, at, name))
            continue
        start = at + OFFSETS[name][0]
        if name == "history_letters":
            letters = rows[start : start + HISTORY_BYTES].rstrip(b"\0")
            if any(not 0x20 < letter < 0x7F for letter in letters):
                raise ValueError("a row whose history is not letters")
            leaf.append(letters.decode("ascii"))
        else:
            packed = rows[start : start + 16]
            if version == 4 and any(packed[4:]):
                raise ValueError("an IPv4 address of more than four bytes")
            leaf.append(packed[:4] if version == 4 else packed)
    leaf.append([_take(rows, at, name) for name in FORWARD])
    backward = [_take(rows, at, name) for name in BACKWARD]
    leaf.append(None if tuple(backward) == NO_PACKETS else backward)
    leaf.append([list(pair) for pair in FIRST.iter_unpack(rows[at + ROW_BYTES : at + stride])])
    return cbor.encode(leaf)


def encode(rows: bytes, stride: int, first: int, sequence: int, most: int, room: int) -> tuple[bytes, int]:
    """Leaves of the rows from number `first` on, framed, and how many.

    At most `most` of them, and no further one once `room` bytes are filled; `sequence` is the first
    one's event sequence.  Raises ValueError for rows that are none.
    """
    _check(rows, stride)
    out, done, size = [], 0, 0
    for at in range(first * stride, len(rows), stride):
        if done >= most or size >= room:
            break
        out.append(frame(_flow(rows, at, stride, sequence + done)))
        size += len(out[-1])
        done += 1
    return b"".join(out), done


def _check(rows: bytes, stride: int) -> None:
    if stride < ROW_BYTES or (stride - ROW_BYTES) % FIRST.size or len(rows) % stride:
        raise ValueError("these bytes are no rows")


def frame(leaf: bytes) -> bytes:
    """A leaf as the byte string a segment holds."""
    return cbor.head(2, len(leaf)) + leaf


def split(framed: bytes) -> list[bytes]:
    """The leaves of `framed`.  Raises ValueError where it is no run of byte strings."""
    found, at = [], 0
    while at < len(framed):
        major, length, at = cbor.read_head(framed, at)
        if major != 2 or length > len(framed) - at:
            raise ValueError("a leaf is no byte string")
        found.append(framed[at : at + length])
        at += length
    return found


def leaf_hashes(framed: bytes) -> bytes:
    """RFC 9162 section 2.1.1: 32 bytes for each leaf.  Raises ValueError for what is not framed."""
    return b"".join([hashlib.sha256(b"\0" + leaf).digest() for leaf in split(framed)])


def root(hashes: bytes) -> bytes:
    """RFC 9162 section 2.1.1: the Merkle Tree Hash over leaf hashes."""
    if len(hashes) % 32:
        raise ValueError("hashes have 32 bytes each")
    level = [hashes[at : at + 32] for at in range(0, len(hashes), 32)]
    if not level:
        return hashlib.sha256(b"").digest()
    # Splitting at the largest power of two is the same tree as pairing neighbours, level by level.
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [hashlib.sha256(b"\1" + left + right).digest() for left, right in pairs]
        level = above + level[len(level) & ~1 :]
    return level[0]


def decode(framed: bytes, sequence: int) -> tuple[bytes, int, list[tuple[int, bytes]]]:
    """Rows of the flows in `framed`, how many first packets each has, and every other leaf.

    Leaves must have the sequences from `sequence` on.  Raises BadLeaf, or ValueError where `framed`
    is no run of byte strings.  Leaves of another schema come out as (index, leaf), undecoded
    behind their first two numbers.
    """
    rows: list[bytes] = []
    others: list[tuple[int, bytes]] = []
    firsts = -1
    for index, leaf in enumerate(split(framed)):
        schema, number = _begin(index, leaf)
        if number != sequence + index:
            raise BadLeaf(index, f"its sequence is {number}, not {sequence + index}")
        if schema != FLOW:
            others.append((index, leaf))
            continue
        try:
            row, n = _row(cbor.decode(leaf))
        except (ValueError, struct.error) as error:
            raise BadLeaf(index, str(error)) from None
        if firsts not in (-1, n):
            raise BadLeaf(index, "another number of first packets than in the leaf before")
        firsts = n
        rows.append(row)
    return b"".join(rows), max(firsts, 0), others


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


def _row(leaf: Any) -> tuple[bytes, int]:
    if len(leaf) != ELEMENTS:
        raise ValueError(f"a flow has {ELEMENTS} elements, not {len(leaf)}")
    *columns, forward, backward, first_packets = leaf[2:]
    if not isinstance(forward, list) or not isinstance(first_packets, list):
        raise ValueError("an array is missing")
    if backward is not None and (not isinstance(backward, list) or tuple(backward) == NO_PACKETS):
        raise ValueError("a direction without packets is null")
    row = bytearray(ROW_BYTES)
    for name, value in zip(COLUMNS, columns, strict=True):
        offset = OFFSETS[name][0]
        if name == "history_letters":
            letters = value.encode("ascii") if isinstance(value, str) and value.isascii() else b"\0"
            if len(letters) > HISTORY_BYTES or any(not 0x20 < letter < 0x7F for letter in letters):
                raise ValueError("the history is not letters")
            row[offset : offset + len(letters)] = letters
        elif name in _SKIPPED:
            if not isinstance(value, bytes) or len(value) not in (4, 16):
                raise ValueError("an address has 4 or 16 bytes")
            if name == "destination_address" and len(value) != len(columns[1]):
                raise ValueError("the addresses are of two versions")
            row[offset : offset + len(value)] = value
            row[_VERSION] = 4 if len(value) == 4 else 6
        else:
            _put(row, name, value)
    for names, values in ((FORWARD, forward), (BACKWARD, NO_PACKETS if backward is None else backward)):
        if len(values) != len(names):
            raise ValueError(f"a direction has {len(names)} numbers")
        for name, value in zip(names, values, strict=True):
            _put(row, name, value)
    for pair in first_packets:
        if not isinstance(pair, list) or len(pair) != 2 or any(type(n) is not int for n in pair):
            raise ValueError("a first packet is two numbers")
        row += FIRST.pack(*pair)
    return bytes(row), len(first_packets)


def _put(row: bytearray, name: str, value: Any) -> None:
    offset, code = OFFSETS[name]
    if type(value) is not int:
        raise ValueError(f"{name} is no number")
    try:
        struct.pack_into("<" + code, row, offset, value)
    except struct.error:
        raise ValueError(f"{name} is out of its range") from None
