"""What flows become: EVE lines under their schema, CSV, Arrow, Parquet, pseudonyms; always the same bytes."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sealwire.errors import ConfigurationError
from sealwire.probe import Batch, Flow, read, to_arrow
from sealwire.probe.batch import COLUMNS
from sealwire.probe.write import SINKS, eve, eve_line
from tests.unit.probe import packets as p
from tests.unit.probe.test_flows import handshake, whole

ROOT = Path(__file__).resolve().parents[3]
SCHEMA: dict[str, Any] = json.loads((ROOT / "docs/probe/flow.schema.json").read_text("utf-8"))


def mixed() -> bytes:
    six = p.ethernet(p.ip6("2001:db8::1", "fe80::2", 17, p.udp(53, 53, b"x")), 0x86DD, [(0x8100, 7)])
    icmp = p.ethernet(p.ip4("10.0.0.9", "10.0.0.8", 1, bytes((8, 0)) + bytes(6)))
    esp = p.ethernet(p.ip4("10.0.0.9", "10.0.0.8", 50, bytes(60)))
    steps = p.conversation(*whole(), (0.2, "|>", p.udp(9, 9)), (0.21, "|<", p.udp(9, 9, b"back")))
    return p.pcap([*steps, (p.START, six), (p.START, icmp), (p.START, esp)])


def needs(name: str) -> Any:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"absent: {name}")
    return importlib.import_module(name)


def check(schema: dict[str, Any], value: Any, where: str = "") -> None:
    """The parts of JSON Schema that ours uses."""
    import re

    if "const" in schema:
        assert value == schema["const"], where
    if "enum" in schema:
        assert value in schema["enum"], where
    kinds: dict[str, type | tuple[type, ...]] = {"object": dict, "array": list, "string": str, "integer": int}
    kinds |= {"boolean": bool, "number": (int, float)}
    if "type" in schema:
        assert isinstance(value, kinds[schema["type"]]), where
        assert schema["type"] == "boolean" or not isinstance(value, bool), where
    if "minimum" in schema:
        assert schema["minimum"] <= value <= schema.get("maximum", value), where
    if "pattern" in schema:
        assert re.search(schema["pattern"], value), where
    if schema.get("type") == "object":
        others = schema.get("additionalProperties")
        assert set(schema.get("required", ())) <= set(value), where
        assert others or set(value) <= set(schema["properties"]), where
        for name, member in value.items():
            check(schema.get("properties", {}).get(name, others), member, f"{where}.{name}")
    for item in value if isinstance(value, list) else ():
        check(schema.get("items", {}), list(item) if isinstance(item, tuple) else item, where)


def test_every_line_is_what_the_schema_says() -> None:
    flows = [*p.flows_of(mixed(), first_packets=3), *p.flows_of(p.pcap(p.conversation(*handshake())))]
    for flow in flows:
        check(SCHEMA, json.loads(eve_line(flow)))
        assert eve_line(flow).isascii()
    assert len(flows) == 6


def test_the_names_are_those_suricata_users_know() -> None:
    by_protocol = {flow.protocol: eve(flow) for flow in p.flows_of(mixed())}
    record = by_protocol[6]
    assert (record["src_ip"], record["src_port"], record["dest_ip"], record["dest_port"]) == (
        *("10.0.0.1", 1000),
        *("10.0.0.2", 80),
    )
    assert (record["event_type"], record["proto"], record["ip_v"]) == ("flow", "TCP", 4)
    assert record["flow"]["start"] == "2023-11-14T22:13:20.000000+0000"
    assert record["flow"]["end"] == "2023-11-14T22:13:20.120000+0000"
    assert (record["flow"]["pkts_toserver"], record["flow"]["reason"]) == (5, "tcp_end")
    assert record["tcp"] == {
        **{"tcp_flags": "1b", "tcp_flags_ts": "1b", "tcp_flags_tc": "1b"},
        **{"fin": True, "syn": True, "psh": True, "ack": True},
    }
    assert (by_protocol[1]["icmp_type"], by_protocol[1]["icmp_code"]) == (8, 0)
    assert "src_port" not in by_protocol[50]
    assert by_protocol[50]["proto"] == "ESP"


def written(form: str, capture: bytes, **settings: Any) -> bytes:
    out = io.BytesIO()
    sink = SINKS[form](out)
    for batch in read(io.BytesIO(capture), **settings).batches():
        sink.write(batch)
    sink.close()
    return out.getvalue()


@pytest.mark.parametrize("form", sorted(SINKS))
def test_the_same_capture_gives_the_same_bytes(form: str) -> None:
    if form in ("parquet", "arrow"):
        needs("pyarrow")
    assert written(form, mixed()) == written(form, mixed())


def test_csv_has_the_columns_and_the_values() -> None:
    rows = list(csv.DictReader(io.StringIO(written("csv", mixed()).decode("ascii"))))
    flows = p.flows_of(mixed())
    assert list(rows[0]) == [name for name, _ in COLUMNS]
    for row, flow in zip(rows, flows, strict=True):
        assert row["source"] == flow.source
        assert int(row["forward_bytes"]) == flow.forward_bytes
        assert row["end_reason"] == flow.reason.name.lower()
        assert float(row["forward_gap_variance"]) == flow.gap_variance()


def compare(columns: dict[str, list[Any]], flows: list[Flow]) -> None:
    """Every Arrow column against the flows it was made of."""
    methods = {"size_mean": "mean_size", "gap_mean": "mean_gap"}
    for name, kind in COLUMNS:
        way, _, rest = name.partition("_")
        if kind == "g":
            expected: list[Any] = [getattr(flow, methods.get(rest, rest))(way) for flow in flows]
        elif name == "end_reason":
            expected = [flow.reason.name.lower() for flow in flows]
        else:
            expected = [getattr(flow, name) for flow in flows]
        assert columns[name] == expected, name


def test_arrow_columns_are_the_flows() -> None:
    pa = needs("pyarrow")
    flows = p.flows_of(mixed())
    table = to_arrow(read(io.BytesIO(mixed())).batches())
    kinds = [pa.int64() if kind == "tsn:UTC" else table.schema.field(name).type for name, kind in COLUMNS]
    plain = table.cast(pa.schema(list(zip(table.schema.names, kinds, strict=True))))
    compare({name: plain[name].to_pylist() for name, _ in COLUMNS}, flows)
    table.validate(full=True)


def test_columns_outlive_their_batch() -> None:
    pa = needs("pyarrow")
    batches = [
        pa.record_batch(Batch(batch.rows)) for batch in read(io.BytesIO(mixed())).batches() if len(batch)
    ]
    import gc

    gc.collect()
    assert batches[0].column("source").to_pylist() == [flow.source for flow in p.flows_of(mixed())]
    # A capsule nobody takes is released, too.
    capsules = Batch(b"").__arrow_c_array__()
    del capsules
    gc.collect()


def test_the_plain_columns_are_the_compiled_ones() -> None:
    needs("pyarrow")
    script = (
        "import io, sys, hashlib; from sealwire.probe import read\n"
        "from sealwire.probe.engine import COMPILED\n"
        "assert not COMPILED\n"
        "batches = list(read(io.BytesIO(sys.stdin.buffer.read())).batches())\n"
        "import pyarrow\n"
        "for batch in batches:\n"
        "    pyarrow.record_batch(batch).validate(full=True)\n"
        "print(hashlib.sha256(repr([batch.columns() for batch in batches]).encode()).hexdigest())"
    )
    environment = {**os.environ, "SEALWIRE_PURE": "1", "SEALWIRE_REQUIRE_COMPILED": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], input=mixed(), env=environment, capture_output=True, check=True
    )
    import hashlib

    ours = [batch.columns() for batch in read(io.BytesIO(mixed())).batches()]
    assert done.stdout.decode().strip() == hashlib.sha256(repr(ours).encode()).hexdigest()


def test_pseudonyms_hide_addresses_and_keep_who_is_who() -> None:
    (batch,) = [batch for batch in read(io.BytesIO(mixed())).batches() if len(batch)]
    key = bytes(range(32))
    hidden, again, other = (list(batch.pseudonymised(k)) for k in (key, key, key[::-1]))
    flows = list(batch)
    assert hidden == again
    assert [flow.source for flow in hidden] != [flow.source for flow in other]
    text = "\n".join(eve_line(flow) for flow in hidden)
    for flow in flows:
        assert flow.source not in text
        assert flow.community_id not in text
    names = {flow.source: new.source for flow, new in zip(flows, hidden, strict=True)}
    assert len(set(names.values())) == len(names)
    assert all(new.startswith(("fd04:", "fd06:")) for new in names.values())
    assert [flow.packets for flow in hidden] == [flow.packets for flow in flows]
    with pytest.raises(ConfigurationError):
        batch.pseudonymised(b"short")


def test_without_pyarrow_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'sealwire\[probe\]'"):
        to_arrow([])
