"""Finished flows in bulk: rows, flow objects one by one, or Arrow columns.

A batch offers Arrow's PyCapsule interface, so `pyarrow.record_batch(batch)`, `polars.DataFrame(batch)`
and DuckDB take its columns; they are gathered in C and not copied again.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import struct
from collections.abc import Iterator, Sequence
from heapq import merge
from typing import Any, Final

from sealwire.errors import ConfigurationError
from sealwire.probe import engine
from sealwire.probe.dissect.facts import EVENT_HEAD, Event, events, pseudonymised
from sealwire.probe.dissect.table import DISSECTED_COLUMNS, dissected_columns
from sealwire.probe.features import FIELDS, EndReason, Flow, address, row_struct, unpack

_FORMATS: Final = {"Q": "L", "q": "l", "I": "I", "H": "S", "B": "C"}
_TIME: Final = "tsn:UTC"
_TIMES: Final = {"ended", "forward_first", "forward_last", "backward_first", "backward_last"}
_TEXT: Final = "u"
_NUMBER: Final = "g"
_LEFT_OUT: Final = {
    *("source_address", "destination_address", "history_letters", "facts_bytes", "end_reason"),
    *(f"{way}_gap_square_sum_{part}" for way in ("forward", "backward") for part in ("low", "high")),
}
_VERSION_AT: Final = 36
# In an event: behind length and time; behind both addresses and ports.
_EVENT_ENDS_AT: Final = 12
_EVENT_VERSION_AT: Final = 48


def _offsets() -> dict[str, tuple[int, str]]:
    at, found = 0, {}
    for field in FIELDS:
        found[field.name] = (at, field.code)
        at += struct.calcsize("<" + field.code)
    return found


OFFSETS: Final = _offsets()

_DERIVED: Final = tuple(
    (f"{way}_{name}", way, method)
    for way in ("forward", "backward")
    for name, method in (
        ("size_mean", "mean_size"),
        ("size_variance", "size_variance"),
        ("gap_mean", "mean_gap"),
        ("gap_variance", "gap_variance"),
    )
)

_METHODS: Final = ("mean_size", "size_variance", "mean_gap", "gap_variance")
#: Where they stand in a row, and how wide they are.
_END_REASON: Final = (OFFSETS["end_reason"][0], 1)
_FACTS_BYTES: Final = (OFFSETS["facts_bytes"][0], 4)

#: Columns of the Arrow form: name and Arrow format.
COLUMNS: Final[tuple[tuple[str, str], ...]] = (
    ("flow_id", "L"),
    ("community_id", _TEXT),
    ("source", _TEXT),
    ("destination", _TEXT),
    ("end_reason", _TEXT),
    ("conn_state", _TEXT),
    ("history", _TEXT),
    *(
        (field.name, _TIME if field.name in _TIMES else _FORMATS[field.code])
        for field in FIELDS
        if field.name not in _LEFT_OUT
    ),
    *((name, _NUMBER) for name, _, _ in _DERIVED),
)


def columns_of(dissected: bool) -> tuple[tuple[str, str], ...]:
    """Columns of the Arrow form, with those of dissection or without."""
    return COLUMNS + DISSECTED_COLUMNS if dissected else COLUMNS


class Batch:
    """Rows of finished flows, in order, and what dissection says of them.

    `facts` are the facts blocks of the rows, one behind the other; `event_data` the events that happened
    before the next batch's.
    """

    __slots__ = ("dissected", "event_data", "facts", "first_packets", "rows")

    def __init__(
        self,
        rows: bytes,
        first_packets: int = 0,
        facts: bytes = b"",
        event_data: bytes = b"",
        dissected: bool = False,
    ) -> None:
        self.rows = rows
        self.first_packets = first_packets
        self.facts = facts
        self.event_data = event_data
        self.dissected = dissected

    def __len__(self) -> int:
        return len(self.rows) // row_struct(self.first_packets).size

    def __iter__(self) -> Iterator[Flow]:
        return unpack(self.rows, self.first_packets, self.facts)

    def events(self) -> Iterator[Event]:
        """Handshakes and transactions, in order of time."""
        return iter(sorted(events(self.event_data), key=lambda event: (event.time, event.first_packet)))

    def told(self) -> Iterator[tuple[Event, bytes]]:
        """Events with their bytes, as they came."""
        at = 0
        for event in events(self.event_data):
            n = EVENT_HEAD.size + len(event.facts.block)
            yield event, self.event_data[at : at + n]
            at += n

    def records(self) -> Iterator[Flow | Event]:
        """Flows and events together in order of time, whatever the input was cut into."""
        if not self.event_data:
            return iter(self)
        return merge(self.events(), iter(self), key=_moment)

    def pseudonymised(self, key: bytes) -> Batch:
        """The batch with each address replaced by a keyed hash of it.

        The new address lies in fd04::/16 (it was IPv4) or fd06::/16; everything that follows from
        addresses follows from the new ones.  `key` has 16 to 64 bytes; who has it can test guesses.
        """
        if not 16 <= len(key) <= 64:
            raise ConfigurationError(f"the key of pseudonyms must have 16 to 64 bytes, not {len(key)}")
        rows = bytearray(self.rows)
        names: dict[bytes, bytes] = {}
        facts: list[bytes] = []
        here = 0
        for at in range(0, len(rows), row_struct(self.first_packets).size):
            version = rows[at + _VERSION_AT : at + _VERSION_AT + 1]
            for where in (at, at + 16):
                rows[where : where + 16] = _pseudonym(names, bytes(version + rows[where : where + 16]), key)
            rows[at + _VERSION_AT] = 6
            (n,) = struct.unpack_from("<I", rows, at + _FACTS_BYTES[0])
            facts.append(pseudonymised(self.facts[here : here + n], key))
            struct.pack_into("<I", rows, at + _FACTS_BYTES[0], len(facts[-1]))
            here += n
        told = []
        for event, data in self.told():
            head = bytearray(data[: EVENT_HEAD.size])
            block = pseudonymised(event.facts.block, key)
            struct.pack_into("<I", head, 0, len(head) + len(block))
            for where in (_EVENT_ENDS_AT, _EVENT_ENDS_AT + 16):
                old = bytes((event.ip_version,)) + bytes(head[where : where + 16])
                head[where : where + 16] = _pseudonym(names, old, key)
            head[_EVENT_VERSION_AT] = 6
            told.append(bytes(head) + block)
        return Batch(bytes(rows), self.first_packets, b"".join(facts), b"".join(told), self.dissected)

    def columns(self) -> list[list[bytes]]:
        """The buffers of the columns: one of values, or offsets and characters."""
        size = row_struct(self.first_packets).size
        reasons = _gather(self.rows, size, *_END_REASON)
        columns: list[list[bytes]] = [
            *self._named(size),
            _named_reasons(reasons),
        ]
        # Ids, addresses and reason stand before the states.
        columns += self._states(size)
        for field in FIELDS:
            if field.name not in _LEFT_OUT:
                offset, code = OFFSETS[field.name]
                columns.append([_gather(self.rows, size, offset, struct.calcsize("<" + code))])
        columns += self._moments(size)
        if self.dissected:
            columns += dissected_columns(_gather(self.rows, size, *_FACTS_BYTES), self.facts)
        return columns

    def _named(self, size: int) -> list[list[bytes]]:
        """Ids and addresses."""
        addresses = [_addresses(self.rows, size, 0), _addresses(self.rows, size, 16)]
        if engine.hashes():
            from sealwire.probe import _columns

            return [
                [_columns.flow_ids(self.rows, size)],
                list(_columns.community_ids(self.rows, size)),
                *addresses,
            ]
        flows = list(self)
        ids = struct.pack(f"<{len(flows)}Q", *(flow.flow_id for flow in flows))
        return [[ids], _texts([flow.community_id for flow in flows]), *addresses]

    def _states(self, size: int) -> list[list[bytes]]:
        if engine.COMPILED:
            from sealwire.probe import _columns

            return [list(column) for column in _columns.states(self.rows, size)]
        flows = list(self)
        return [_texts([flow.conn_state for flow in flows]), _texts([flow.history for flow in flows])]

    def _moments(self, size: int) -> list[list[bytes]]:
        """Means and variances, forward before backward."""
        if not engine.COMPILED:
            flows = list(self)
            return [
                [struct.pack(f"<{len(flows)}d", *(getattr(flow, method)(way) for flow in flows))]
                for _, way, method in _DERIVED
            ]
        from sealwire.probe import _columns

        found: list[list[bytes]] = []
        for backward, way in enumerate(("forward", "backward")):
            columns, left = _columns.moments(self.rows, size, backward)
            whole = [bytearray(column) for column in columns]
            for index in left:  # their integers are too large for the compiled division
                (flow,) = unpack(self.rows[index * size : (index + 1) * size], self.first_packets)
                for column, method in zip(whole, _METHODS, strict=True):
                    struct.pack_into("<d", column, 8 * index, getattr(flow, method)(way))
            found += [[bytes(column)] for column in whole]
        return found

    def __arrow_c_schema__(self) -> object:
        """Arrow's PyCapsule interface."""
        return schema_capsule(self.dissected)

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        """Arrow's PyCapsule interface; `requested_schema` is only ever a wish and is not granted."""
        if engine.COMPILED:
            from sealwire.probe import _arrow

            return _arrow.capsules(list(columns_of(self.dissected)), self.columns(), len(self))
        capsules: tuple[object, object] = self._with_pyarrow().__arrow_c_array__()
        return capsules

    def _with_pyarrow(self) -> Any:
        pa = pyarrow()
        schema = arrow_schema(self.dissected)
        arrays = [
            pa.Array.from_buffers(kind, len(self), [None, *map(pa.py_buffer, buffers)])
            for kind, buffers in zip(schema.types, self.columns(), strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


_REASONS: Final = {int(reason): reason.name.lower() for reason in EndReason}


#: By number; one that this version does not know is its number.
_REASON_NAMES: Final = [_REASONS.get(number, str(number)).encode("ascii") for number in range(256)]
_REASON_LENGTHS: Final = [len(name) for name in _REASON_NAMES]


def _named_reasons(reasons: bytes) -> list[bytes]:
    """The column of end reasons: offsets and characters."""
    ends = itertools.accumulate(map(_REASON_LENGTHS.__getitem__, reasons), initial=0)
    return [struct.pack(f"<{len(reasons) + 1}i", *ends), b"".join(map(_REASON_NAMES.__getitem__, reasons))]


def _moment(record: Flow | Event) -> tuple[int, int, int]:
    return (
        (record.time, 0, record.first_packet)
        if isinstance(record, Event)
        else (record.ended, 1, record.first_packet)
    )


def _pseudonym(names: dict[bytes, bytes], old: bytes, key: bytes) -> bytes:
    """What stands for an address with its version in front."""
    new = names.get(old)
    if new is None:
        digest = hashlib.blake2b(old, digest_size=14, key=key).digest()
        new = names[old] = bytes((0xFD, old[0])) + digest
    return new


def schema_capsule(dissected: bool = False) -> object:
    """The columns as an Arrow schema."""
    if engine.COMPILED:
        from sealwire.probe import _arrow

        return _arrow.schema_capsule(list(columns_of(dissected)))
    capsule: object = arrow_schema(dissected).__arrow_c_schema__()
    return capsule


def pyarrow() -> Any:
    """The module pyarrow; ConfigurationError with the way to get it where it is absent."""
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        raise ConfigurationError("this needs pyarrow: pip install 'sealwire[probe]'") from None


def arrow_schema(dissected: bool = False) -> Any:
    """The columns as a pyarrow.Schema."""
    pa = pyarrow()
    types = {
        **{"L": pa.uint64(), "l": pa.int64(), "I": pa.uint32(), "S": pa.uint16(), "C": pa.uint8()},
        **{_TEXT: pa.string(), _NUMBER: pa.float64(), _TIME: pa.timestamp("ns", "UTC")},
    }
    return pa.schema([pa.field(name, types[kind], nullable=False) for name, kind in columns_of(dissected)])


def _texts(texts: Sequence[str]) -> list[bytes]:
    pieces = [text.encode("ascii", "backslashreplace") for text in texts]
    ends = [0]
    for piece in pieces:
        ends.append(ends[-1] + len(piece))
    return [struct.pack(f"<{len(ends)}i", *ends), b"".join(pieces)]


def _gather(rows: bytes, size: int, offset: int, width: int) -> bytes:
    if engine.COMPILED:
        from sealwire.probe import _arrow

        return _arrow.gather(rows, size, offset, width)
    return b"".join([rows[at : at + width] for at in range(offset, len(rows), size)])


def _addresses(rows: bytes, size: int, offset: int) -> list[bytes]:
    if engine.COMPILED:
        from sealwire.probe import _arrow

        return list(_arrow.addresses(rows, size, offset, _VERSION_AT))
    return _texts(
        [
            address(rows[at + offset : at + offset + 16], rows[at + _VERSION_AT])
            for at in range(0, len(rows), size)
        ]
    )
