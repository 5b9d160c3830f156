"""What segments hold as rows of tables, for Parquet and DuckDB.

    flows          a finished flow: the columns of docs/probe/formats.md
    transactions   a handshake, query or answer of a flow
    certificates   a server's certificate where one was seen in the clear
    events         what the probe says of itself: starts, gaps, heartbeats
    segments       each segment: when it was sealed and came, where it lies

Each row begins with its number and where it was sealed (probe, segment, sequence), so that any of them can
be proved.  Times are nanoseconds in UTC, without a time zone, so that nothing is rounded.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import itertools
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from sealwire.probe import engine as probe_engine
from sealwire.probe.batch import OFFSETS, Batch, arrow_schema, pyarrow
from sealwire.probe.dissect import facts as dissected
from sealwire.probe.dissect.facts import Fact, Facts
from sealwire.probe.dissect.table import DISSECTED_COLUMNS, value_of
from sealwire.probe.events import Gap, GapReason, decode
from sealwire.probe.features import address, id_of, row_struct, unpack
from sealwire.probe.seal import engine
from sealwire.probe.seal.leaves import DISSECTED, FLOW, TRANSACTION, Decoded
from sealwire.probe.seal.segment import Segment
from sealwire.probe.store.reading import Arrived, row_number

#: No time is later: what a column of nanoseconds can hold.
_LATEST: Final = (1 << 63) - 1
#: In the order in which they are told to whoever asks.
TABLES: Final = ("flows", "transactions", "certificates", "events", "segments")
#: Columns that every row but a segment's begins with.
_SEALED: Final = (("row", "l"), ("probe", "u"), ("segment", "L"), ("sequence", "L"))

#: What only transactions show: name, whether it is a number, tag.
_TRANSACTION_FACTS: Final = (
    *(("http_method", False, Fact.METHOD), ("url", False, Fact.TARGET)),
    *(("http_user_agent", False, Fact.USER_AGENT), ("status", True, Fact.STATUS)),
    *(("http_content_type", False, Fact.CONTENT_TYPE), ("http_server", False, Fact.SERVER)),
    *(("rrtype", True, Fact.DNS_TYPE), ("dns_flags", True, Fact.DNS_FLAGS)),
    *(("client_software", False, Fact.CLIENT_SOFTWARE), ("server_software", False, Fact.SERVER_SOFTWARE)),
    *(("alert", True, Fact.ALERT), ("ech", True, Fact.ECH)),
)
_TRANSACTIONS: Final = (
    *_SEALED,
    *(("time", "t"), ("flow_id", "L"), ("source", "u"), ("destination", "u")),
    *(("source_port", "S"), ("destination_port", "S"), ("protocol", "C")),
    *DISSECTED_COLUMNS,
    *((name, "I" if number else "u") for name, number, _ in _TRANSACTION_FACTS),
)
_CERTIFICATES: Final = (
    *_SEALED,
    *(("time", "t"), ("flow_id", "L"), ("source", "u"), ("destination", "u"), ("destination_port", "S")),
    *(("server_name", "u"), ("subject", "u"), ("issuer", "u"), ("serial", "u")),
    *(("not_before", "s"), ("not_after", "s"), ("sha256", "u")),
)
_GAP_NUMBERS: Final = tuple(
    field.name for field in fields(Gap) if field.name not in ("time", "reason", "since", "until", "hash")
)
_EVENTS: Final = (
    *_SEALED,
    *(("time", "t"), ("event", "u"), ("reason", "u"), ("since", "T"), ("until", "T")),
    *((f"lost_{name}" if name == "events" else f"gap_{name}", "N") for name in _GAP_NUMBERS),
    ("detail", "u"),
)
_SEGMENTS: Final = (
    *(("probe", "u"), ("segment", "L"), ("first_event", "L"), ("last_event", "L")),
    *(("flows", "L"), ("transactions", "L"), ("sealed", "t"), ("received", "T"), ("boot", "u"), ("key", "u")),
    *(("clock", "u"), ("clock_error_us", "L"), ("heartbeat_s", "L"), ("hash", "u"), ("bytes", "L")),
    *(("file", "u"), ("counters", "u"), ("unreadable", "u")),
)


@functools.cache
def schemas() -> dict[str, Any]:
    """The schema of each table, of pyarrow.  Raises ConfigurationError without it."""
    pa = pyarrow()
    kinds = {
        **{"l": pa.int64(), "L": pa.uint64(), "I": pa.uint32(), "S": pa.uint16(), "C": pa.uint8()},
        **{"u": pa.string(), "t": pa.timestamp("ns"), "s": pa.timestamp("s")},
    }
    optional = {"T": pa.timestamp("ns"), "N": pa.uint64()}

    def schema(columns: Sequence[tuple[str, str]]) -> Any:
        return pa.schema(
            [
                pa.field(name, optional[kind], nullable=True)
                if kind in optional
                else pa.field(name, kinds[kind], nullable=False)
                for name, kind in columns
            ]
        )

    flows = [
        pa.field(field.name, pa.timestamp("ns") if pa.types.is_timestamp(field.type) else field.type, False)
        for field in arrow_schema(True)
    ]
    return {
        "flows": pa.schema([*schema(_SEALED), *flows]),
        "transactions": schema(_TRANSACTIONS),
        "certificates": schema(_CERTIFICATES),
        "events": schema(_EVENTS),
        "segments": schema(_SEGMENTS),
    }


def of_segment(found: Arrived, place: int, file: str) -> dict[str, Any]:
    """The rows of a segment, a pyarrow.RecordBatch for each table that has some.

    `place` is that of its probe in the store.  A segment that cannot be read is a row of `segments` only.
    """
    segment, unreadable = found.segment, ""
    made: dict[str, Any] = {}
    counts = (0, 0)
    try:
        decoded = engine.decode(segment.framed, segment.header.first_event)
        made = _Rows(segment, decoded, place).made()
        counts = len(decoded.kinds.translate(None, bytes((0, TRANSACTION)))), decoded.kinds.count(TRANSACTION)
    except (ValueError, LookupError, ArithmeticError, struct.error) as wrong:
        # Signed by its probe, and stored: but not what its schema says, so there is nothing to ask of it.
        unreadable = str(wrong) or type(wrong).__name__
    made["segments"] = _segment_row(found, file, counts, unreadable)
    return made


def _segment_row(found: Arrived, file: str, counts: tuple[int, int], unreadable: str) -> Any:
    segment, header = found.segment, found.segment.header
    row = {
        **{"probe": header.probe.hex(), "segment": header.segment},
        **{"first_event": header.first_event, "last_event": header.last_event},
        **{"flows": counts[0], "transactions": counts[1]},
        **{"sealed": min(header.sealed.wall, _LATEST), "received": found.received or None},
        **{"boot": header.boot.hex(), "key": header.key.hex(), "clock": header.sealed.state.name.lower()},
        **{"clock_error_us": header.sealed.error, "heartbeat_s": header.heartbeat},
        **{"hash": segment.hash.hex(), "bytes": found.end - found.begin, "file": file},
        **{"counters": json.dumps(header.counters), "unreadable": unreadable},
    }
    return _batch("segments", [row])


def _batch(table: str, rows: list[dict[str, Any]]) -> Any:
    return pyarrow().RecordBatch.from_pylist(rows, schema=schemas()[table])


class _Rows:
    """The rows of one decoded segment."""

    def __init__(self, segment: Segment, decoded: Decoded, place: int) -> None:
        self._header = segment.header
        self._probe = segment.header.probe.hex()
        self._decoded = decoded
        self._place = place

    def made(self) -> dict[str, Any]:
        made = {
            "flows": self._flows(),
            "transactions": self._transactions(),
            "certificates": [*self._flow_certificates(), *self._transaction_certificates()],
            "events": self._events(),
        }
        return {
            table: rows if table == "flows" else _batch(table, rows)
            for table, rows in made.items()
            if rows is not None and len(rows)
        }

    def _sequences(self, *kinds: int) -> list[int]:
        return [n for n, kind in enumerate(self._decoded.kinds, self._header.first_event) if kind in kinds]

    def _sealed(self, sequence: int) -> dict[str, Any]:
        return {
            "row": row_number(self._place, sequence),
            **{"probe": self._probe, "segment": self._header.segment, "sequence": sequence},
        }

    def _flows(self) -> Any:
        """As the batch's own columns, which are gathered in C."""
        if not self._decoded.rows:
            return None
        pa = pyarrow()
        batch = Batch(self._decoded.rows, self._decoded.first_packets, self._decoded.facts, dissected=True)
        columns = pa.record_batch(batch)
        compute = importlib.import_module("pyarrow.compute")
        kinds = pa.Array.from_buffers(
            pa.uint8(), len(self._decoded.kinds), [None, pa.py_buffer(self._decoded.kinds)]
        )
        own = compute.is_in(kinds, value_set=pa.array([FLOW, DISSECTED], pa.uint8()))
        sequences = compute.add(
            compute.indices_nonzero(own), pa.scalar(self._header.first_event, pa.uint64())
        )
        first = row_number(self._place, 0)
        arrays = [
            compute.add(sequences.cast(pa.int64()), first),
            pa.repeat(pa.scalar(self._probe), len(batch)),
            pa.repeat(pa.scalar(self._header.segment, pa.uint64()), len(batch)),
            sequences,
        ]
        schema = schemas()["flows"]
        for field, column in zip(list(schema)[len(_SEALED) :], columns.columns, strict=True):
            arrays.append(column if column.type == field.type else column.view(field.type))
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _told(self) -> Iterator[tuple[int, dissected.Event]]:
        if not self._decoded.transactions:
            return iter(())
        return zip(self._sequences(TRANSACTION), dissected.events(self._decoded.transactions), strict=True)

    def _transactions(self) -> list[dict[str, Any]]:
        rows = []
        for sequence, event in self._told():
            known = event.facts
            rows.append(
                {
                    **self._sealed(sequence),
                    **_ends(event),
                    "source_port": event.source_port,
                    "protocol": event.protocol,
                    **{name: value_of(known, name) for name, _ in DISSECTED_COLUMNS},
                    **{
                        name: (known.number(tag) or 0) & 0xFFFFFFFF if number else known.text(tag) or ""
                        for name, number, tag in _TRANSACTION_FACTS
                    },
                }
            )
        return rows

    def _transaction_certificates(self) -> Iterator[dict[str, Any]]:
        for sequence, event in self._told():
            if (der := event.facts.raw(Fact.CERTIFICATE)) is not None:
                yield {**self._sealed(sequence), **_ends(event), **_seen(event.facts, der)}

    def _flow_certificates(self) -> Iterator[dict[str, Any]]:
        decoded = self._decoded
        stride = row_struct(decoded.first_packets).size
        if not decoded.facts:
            return
        sequences = self._sequences(FLOW, DISSECTED)
        ends = list(itertools.accumulate(_facts_sizes(decoded.rows, stride), initial=0))
        for index in _having(decoded, stride, ends):
            at = index * stride
            block = decoded.facts[ends[index] : ends[index + 1]]
            (flow,) = unpack(decoded.rows[at : at + stride], decoded.first_packets, block)
            der = flow.facts.raw(Fact.CERTIFICATE)
            if der is not None:
                yield {
                    **self._sealed(sequences[index]),
                    **{"time": flow.ended, "flow_id": flow.flow_id, "source": flow.source},
                    **{"destination": flow.destination, "destination_port": flow.destination_port},
                    **_seen(flow.facts, der),
                }

    def _events(self) -> list[dict[str, Any]]:
        rows = []
        for index, leaf in self._decoded.others:
            event = decode(leaf)
            row = self._sealed(self._header.first_event + index)
            if event is None:
                rows.append(
                    {
                        **row,
                        "time": min(self._header.sealed.wall, _LATEST),
                        "event": "unknown",
                        "reason": "",
                        "detail": "",
                    }
                )
                continue
            said = {field.name: getattr(event, field.name) for field in fields(event)}
            row |= {"time": said.pop("time"), "event": type(event).__name__.lower(), "reason": ""}
            if isinstance(event, Gap):
                row["reason"] = _reason(said.pop("reason"))
                row |= {"since": said.pop("since"), "until": said.pop("until")}
                for name in _GAP_NUMBERS:
                    row[f"lost_{name}" if name == "events" else f"gap_{name}"] = said.pop(name)
            row["detail"] = json.dumps(
                {name: value.hex() if isinstance(value, bytes) else value for name, value in said.items()}
            )
            rows.append(row)
        return rows


def _facts_sizes(rows: bytes, stride: int) -> list[int]:
    offset = OFFSETS["facts_bytes"][0]
    return [n for (n,) in struct.Struct(f"<{offset}xI{stride - offset - 4}x").iter_unpack(rows)]


def _having(decoded: Decoded, stride: int, ends: list[int]) -> Sequence[int]:
    """Flows that may have a certificate."""
    if not probe_engine.COMPILED:
        return range(len(ends) - 1)
    from sealwire.probe import _arrow, _columns

    sizes = _arrow.gather(decoded.rows, stride, OFFSETS["facts_bytes"][0], 4)
    offsets = _columns.texts(sizes, decoded.facts, Fact.CERTIFICATE, True)[0]
    texts = struct.unpack(f"<{len(ends)}i", offsets)
    return [index for index in range(len(ends) - 1) if texts[index + 1] > texts[index]]


def _reason(number: int) -> str:
    try:
        return GapReason(number).name.lower()
    except ValueError:
        return str(number)


def _ends(event: dissected.Event) -> dict[str, Any]:
    return {
        **{"time": event.time, "flow_id": id_of(event.key)},
        "source": address(event.source_address, event.ip_version),
        "destination": address(event.destination_address, event.ip_version),
        "destination_port": event.destination_port,
    }


def _seen(known: Facts, der: bytes) -> dict[str, Any]:
    return {"server_name": known.text(Fact.NAME) or "", **_certificate(der)}


@functools.lru_cache(4096)
def _certificate(der: bytes) -> dict[str, Any]:
    """What a certificate says; empty where it cannot be read."""
    known: dict[str, Any] = {"sha256": hashlib.sha256(der).hexdigest()}
    try:
        certificate = x509.load_der_x509_certificate(der)
        return {
            **known,
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "serial": f"{certificate.serial_number:x}",
            "not_before": int(certificate.not_valid_before_utc.timestamp()),
            "not_after": int(certificate.not_valid_after_utc.timestamp()),
        }
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm):
        return {**known, "subject": "", "issuer": "", "serial": "", "not_before": 0, "not_after": 0}
