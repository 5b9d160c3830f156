"""Flows to files: EVE-style JSON lines, CSV, Parquet and Arrow, from batches.

EVE has the field names of Suricata's flow records, so that what reads those reads these; what
Suricata has no name for is under "sealwire".  docs/probe/flow.schema.json describes a line.  All
text is ASCII: names an attacker made are escaped.
"""

from __future__ import annotations

import csv
import datetime
import functools
import importlib
import io
import json
from collections.abc import Iterable
from typing import IO, Any, Final, Protocol

from sealwire.probe.batch import COLUMNS, Batch, arrow_schema, columns_of, pyarrow
from sealwire.probe.dissect.eve import ends, path, transaction
from sealwire.probe.dissect.facts import Event, Fact
from sealwire.probe.dissect.table import DISSECTED_COLUMNS, value_of
from sealwire.probe.features import FIELDS, ICMP, ICMP6, NOTHING, TCP, Flow, community_id_of, id_of

#: Names of protocols as Suricata writes them; others are numbers.
_PROTOCOLS: Final = {1: "ICMP", 6: "TCP", 17: "UDP", 47: "GRE", 50: "ESP", 58: "IPv6-ICMP", 132: "SCTP"}
#: Suricata's reasons for the end of a flow by ours.
_REASONS: Final = {1: "timeout", 2: "timeout", 3: "tcp_end", 4: "tcp_end", 5: "shutdown", 6: "forced"}
_FLAGS: Final = (
    ("fin", 1),
    ("syn", 2),
    ("rst", 4),
    ("psh", 8),
    ("ack", 16),
    ("urg", 32),
    ("ecn", 64),
    ("cwr", 128),
)


class MakeSink(Protocol):
    """How a sink is made; `dissected` says whether the batches will have what dissection says."""

    def __call__(self, out: IO[bytes], dissected: bool = False) -> Sink: ...


class Sink(Protocol):
    """Where batches go."""

    def write(self, batch: Batch) -> None: ...

    def close(self) -> None: ...


@functools.lru_cache(4096)
def _second(seconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")


def timestamp(nanoseconds: int) -> str:
    """A time as Suricata writes it, in UTC and microseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06d}+0000"


def eve(flow: Flow) -> dict[str, Any]:
    """A flow as an EVE record."""
    protocol = flow.protocol
    record: dict[str, Any] = {
        "timestamp": timestamp(flow.ended),
        "flow_id": flow.flow_id,
        "event_type": "flow",
    }
    if vlans := flow.vlans:
        record["vlan"] = vlans
    record["src_ip"] = flow.source
    if protocol in (ICMP, ICMP6):
        record["dest_ip"] = flow.destination
        record["icmp_type"], record["icmp_code"] = flow.source_port, flow.destination_port
    elif flow.source_port or flow.destination_port:
        record["src_port"] = flow.source_port
        record["dest_ip"] = flow.destination
        record["dest_port"] = flow.destination_port
    else:
        record["dest_ip"] = flow.destination
    record["ip_v"] = flow.ip_version
    record["proto"] = _PROTOCOLS.get(protocol) or f"{protocol:03d}"
    record["community_id"] = flow.community_id
    record["flow"] = {
        "pkts_toserver": flow.forward_packets,
        "pkts_toclient": flow.backward_packets,
        "bytes_toserver": flow.forward_wire_bytes,
        "bytes_toclient": flow.backward_wire_bytes,
        "start": timestamp(flow.first),
        "end": timestamp(flow.last),
        "age": flow.duration // 1_000_000_000,
        "state": _state(flow),
        "reason": _REASONS[flow.end_reason],
    }
    if protocol == TCP:
        flags = flow.forward_tcp_flags | flow.backward_tcp_flags
        record["tcp"] = {
            "tcp_flags": f"{flags:02x}",
            "tcp_flags_ts": f"{flow.forward_tcp_flags:02x}",
            "tcp_flags_tc": f"{flow.backward_tcp_flags:02x}",
            **{name: True for name, bit in _FLAGS if flags & bit},
        }
    record["sealwire"] = _more(flow)
    if flow.facts_block:
        facts = flow.facts
        if facts.application:
            record["app_proto"] = facts.application
        record["sealwire"]["certainty"] = facts.certainty.name.lower()
        record["sealwire"]["facts"] = facts.as_dict()
    return record


def eve_event(event: Event) -> dict[str, Any]:
    """An event as an EVE record; addresses and ports are those of its flow."""
    source, destination = ends(event)
    application = event.facts.application
    name = "path" if event.facts.raw(Fact.PATH) is not None else application
    record: dict[str, Any] = {
        "timestamp": timestamp(event.time),
        "flow_id": id_of(event.key),
        "event_type": name,
    }
    if vlans := event.vlans:
        record["vlan"] = vlans
    record["src_ip"], record["src_port"] = source, event.source_port
    record["dest_ip"], record["dest_port"] = destination, event.destination_port
    record["ip_v"] = event.ip_version
    record["proto"] = _PROTOCOLS.get(event.protocol) or f"{event.protocol:03d}"
    record["community_id"] = community_id_of(
        *(event.source_address, event.destination_address, event.source_port, event.destination_port),
        *(event.ip_version, event.protocol),
    )
    if name == "path":
        record["app_proto"] = application
    record[name] = path(event) if name == "path" else transaction(event)
    return record


def _state(flow: Flow) -> str:
    if flow.protocol == TCP and (flow.forward_tcp_flags | flow.backward_tcp_flags) & 5:
        return "closed"
    return "established" if flow.backward_packets else "new"


_ELSEWHERE: Final = frozenset(
    {
        *("source_port", "destination_port", "ip_version", "protocol", "end_reason", "marks", "facts_bytes"),
        *("vlan", "vlan_inner", "source_address", "destination_address", "history_letters"),
        *(f"{way}_{name}" for way in ("forward", "backward") for name in ("packets", "wire_bytes")),
        *(f"{way}_gap_square_sum_{part}" for way in ("forward", "backward") for part in ("low", "high")),
    }
)
_ONLY_HERE: Final = tuple(field.name for field in FIELDS if field.name not in _ELSEWHERE)


def _more(flow: Flow) -> dict[str, Any]:
    more: dict[str, Any] = {
        "end_reason": flow.reason.name.lower(),
        "conn_state": flow.conn_state,
        "history": flow.history,
        "midstream": flow.midstream,
        "one_way": flow.one_way,
    }
    for name in _ONLY_HERE:
        value = getattr(flow, name)
        if value != NOTHING and (flow.backward_packets or not name.startswith("backward_")):
            more[name] = value
    for way in ("forward", "backward") if flow.backward_packets else ("forward",):
        more[f"{way}_size_mean"] = flow.mean_size(way)
        more[f"{way}_size_variance"] = flow.size_variance(way)
        more[f"{way}_gap_mean"] = flow.mean_gap(way)
        more[f"{way}_gap_variance"] = flow.gap_variance(way)
    if flow.first_sequence:
        more["first_packets"] = flow.first_packets
    return more


_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def eve_line(flow: Flow) -> str:
    """A flow as one line of JSON, without the line's end."""
    return _encode(eve(flow))


class EveSink:
    """JSON lines."""

    def __init__(self, out: IO[bytes], dissected: bool = False) -> None:
        self._out = out

    def write(self, batch: Batch) -> None:
        lines = [
            eve_line(record) if isinstance(record, Flow) else _encode(eve_event(record))
            for record in batch.records()
        ]
        if lines:
            self._out.write(("\n".join(lines) + "\n").encode("ascii"))

    def close(self) -> None:
        self._out.flush()


CSV_COLUMNS: Final = tuple(name for name, _ in COLUMNS)


class CsvSink:
    """Comma-separated values with a header; times in nanoseconds since 1970."""

    def __init__(self, out: IO[bytes], dissected: bool = False) -> None:
        self._out = out
        self._dissected = dissected
        self._out.write((",".join(name for name, _ in columns_of(dissected)) + "\r\n").encode("ascii"))

    def write(self, batch: Batch) -> None:
        text = io.StringIO()
        writer = csv.writer(text)
        for flow in batch:
            values = [_csv_value(flow, name) for name in CSV_COLUMNS]
            if self._dissected:
                facts = flow.facts
                values += [value_of(facts, name) for name, _ in DISSECTED_COLUMNS]
            writer.writerow(values)
        self._out.write(text.getvalue().encode("ascii", "backslashreplace"))

    def close(self) -> None:
        self._out.flush()


def _csv_value(flow: Flow, name: str) -> object:
    if name == "end_reason":
        return flow.reason.name.lower()
    for way in ("forward", "backward"):
        if name.startswith(way):
            match name.removeprefix(way):
                case "_size_mean":
                    return flow.mean_size(way)
                case "_size_variance":
                    return flow.size_variance(way)
                case "_gap_mean":
                    return flow.mean_gap(way)
                case "_gap_variance":
                    return flow.gap_variance(way)
    return getattr(flow, name)


class ParquetSink:
    """A Parquet file, through pyarrow; ConfigurationError where that is absent."""

    def __init__(self, out: IO[bytes], dissected: bool = False) -> None:
        self._pyarrow = pyarrow()
        parquet = importlib.import_module("pyarrow.parquet")
        self._writer = parquet.ParquetWriter(out, arrow_schema(dissected), compression="zstd")

    def write(self, batch: Batch) -> None:
        if len(batch):
            self._writer.write_batch(self._pyarrow.record_batch(batch))

    def close(self) -> None:
        self._writer.close()


class ArrowSink:
    """An Arrow IPC stream, through pyarrow; ConfigurationError where that is absent."""

    def __init__(self, out: IO[bytes], dissected: bool = False) -> None:
        self._pyarrow = pyarrow()
        self._writer = self._pyarrow.ipc.new_stream(out, arrow_schema(dissected))

    def write(self, batch: Batch) -> None:
        if len(batch):
            self._writer.write_batch(self._pyarrow.record_batch(batch))

    def close(self) -> None:
        self._writer.close()


SINKS: Final[dict[str, MakeSink]] = {
    "eve": EveSink,
    "csv": CsvSink,
    "parquet": ParquetSink,
    "arrow": ArrowSink,
}


def to_arrow(batches: Iterable[Batch]) -> Any:
    """A pyarrow.Table of batches, such as ``read(file).batches()``; needs pyarrow."""
    pa = pyarrow()
    dissected, columns = False, []
    for batch in batches:
        dissected = batch.dissected
        if len(batch):
            columns.append(pa.record_batch(batch))
    return pa.Table.from_batches(columns, schema=arrow_schema(dissected))
