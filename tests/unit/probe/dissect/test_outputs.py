"""What dissection says, handed on: events in EVE, columns, pseudonyms, plugins, the documents."""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import io
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sealwire import cli
from sealwire.errors import ConfigurationError
from sealwire.probe import Answer, Batch, Certainty, Dissector, Opening, read, to_arrow
from sealwire.probe.dissect import certificates
from sealwire.probe.dissect.facts import TAGS, Fact, Facts, Kind
from sealwire.probe.dissect.rare import ROWS
from sealwire.probe.dissect.table import DISSECTED_COLUMNS
from sealwire.probe.write import SINKS
from tests.certificates import server
from tests.unit.probe import packets as p
from tests.unit.probe.dissect import hellos as h
from tests.unit.probe.test_outputs import check

ROOT = Path(__file__).resolve().parents[4]
SCHEMA: dict[str, Any] = json.loads((ROOT / "docs/probe/flow.schema.json").read_text("utf-8"))
EVENT_SCHEMA: dict[str, Any] = json.loads((ROOT / "docs/probe/event.schema.json").read_text("utf-8"))

QUERY = b"\0\7\1\0\0\1\0\0\0\0\0\0\3www\7example\3org\0\0\1\0\1"
ANSWER = b"\0\7\x81\x80\0\1\0\1\0\0\0\0\3www\7example\3org\0\0\1\0\1\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"


def mixed() -> bytes:
    """A TLS handshake, a DNS question with its answer, and something nobody knows."""
    tls = p.conversation(
        (0.0, ">", p.tcp(40_000, 443, p.SYN, seq=0)),
        (0.1, "<", p.tcp(443, 40_000, p.SYN | p.ACK, seq=100, ack=1)),
        (0.2, ">", p.tcp(40_000, 443, p.ACK, seq=1, ack=101, data=h.record(h.client_hello()))),
        (0.3, "<", p.tcp(443, 40_000, p.ACK, seq=101, ack=1, data=h.record(h.server_hello()))),
        (0.4, "|>", p.udp(50_000, 53, QUERY)),
        (0.5, "|<", p.udp(53, 50_000, ANSWER)),
        (0.6, "|>", p.udp(50_001, 9, b"something else entirely")),
    )
    return p.pcap(tls)


def batches(**changes: Any) -> list[Batch]:
    return list(read(io.BytesIO(mixed()), dissect=True, **changes).batches())


def eve_lines(found: list[Batch]) -> list[dict[str, Any]]:
    out = io.BytesIO()
    sink = SINKS["eve"](out, True)
    for batch in found:
        sink.write(batch)
    sink.close()
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_events_stand_beside_their_flow_in_order_of_time() -> None:
    lines = eve_lines(batches())
    assert [line["event_type"] for line in lines] == ["tls", "dns", "dns", "flow", "flow", "flow"]
    assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
    flows = {line["flow_id"]: line for line in lines if line["event_type"] == "flow"}
    for line in lines:
        check(SCHEMA if line["event_type"] == "flow" else EVENT_SCHEMA, line)
        flow = flows[line["flow_id"]]
        for name in ("src_ip", "src_port", "dest_ip", "dest_port", "proto", "community_id"):
            assert line[name] == flow[name]
    tls, query, answer = lines[:3]
    assert (tls["tls"]["sni"], tls["tls"]["version"], tls["tls"]["cipher"]) == (
        *("www.example.org", "TLS 1.3"),
        "TLS_AES_128_GCM_SHA256",
    )
    assert query["dns"] == {
        "version": 2,
        "type": "query",
        "id": 7,
        "rrname": "www.example.org",
        "rrtype": "A",
    }
    assert answer["dns"]["answers"] == [{"rrtype": "A", "ttl": 60, "rdata": "192.0.2.1"}]
    assert [line.get("app_proto") for line in lines[3:]] == ["tls", "dns", None]


def test_a_stream_cut_into_pieces_gives_the_same_lines() -> None:
    class Slow(io.BytesIO):
        def read1(self, n: int | None = -1) -> bytes:
            return self.read(37)

        def fileno(self) -> int:
            raise OSError

    whole = eve_lines(batches())
    pieces = eve_lines(list(read(Slow(mixed()), dissect=True).batches()))
    assert pieces == whole


def test_csv_and_arrow_have_the_columns() -> None:
    out = io.BytesIO()
    sink = SINKS["csv"](out, True)
    for batch in batches():
        sink.write(batch)
    rows = list(csv.DictReader(io.StringIO(out.getvalue().decode("ascii"))))
    assert [row["application"] for row in rows] == ["tls", "dns", ""]
    assert rows[0]["ja4"].startswith("t13d0204h2_")
    assert rows[0]["version"] == str(0x0304)
    if importlib.util.find_spec("pyarrow") is None:
        pytest.skip("absent: pyarrow")
    table = to_arrow(batches())
    table.validate(full=True)
    for name, _ in DISSECTED_COLUMNS:
        assert [str(value) for value in table[name].to_pylist()] == [row[name] for row in rows], name


def test_without_dissection_nothing_is_added() -> None:
    (batch,) = [batch for batch in read(io.BytesIO(mixed())).batches() if len(batch)]
    assert (batch.facts, batch.event_data, batch.dissected) == (b"", b"", False)
    assert {flow.application for flow in batch} == {""}
    assert len(batch.columns()) + len(DISSECTED_COLUMNS) == len(Batch(batch.rows, dissected=True).columns())


def test_no_payload_leaves_the_probe() -> None:
    for batch in batches():
        for flow in batch:
            assert flow.facts.raw(Fact.HEAD) is None
        assert b"something else entirely" not in batch.facts + batch.event_data + batch.rows


def test_pseudonyms_cover_events() -> None:
    hidden = [batch.pseudonymised(bytes(32)) for batch in batches()]
    lines = eve_lines(hidden)
    assert len(lines) == 6
    text = json.dumps([line for line in lines if line["event_type"] != "dns"])
    assert "10.0.0." not in text
    flows = {line["flow_id"] for line in lines if line["event_type"] == "flow"}
    assert {line["flow_id"] for line in lines} == flows


# --- plugins -------------------------------------------------------------------------------------


class Entirely(Dissector):
    application: ClassVar[str] = "entirely"
    transports: ClassVar[frozenset[int]] = frozenset({17})

    def dissect(self, opening: Opening) -> Answer | None:
        assert opening.has_port(9)
        first = opening.packets[0]
        assert (first.size, first.backward, opening.data(False)) == (23, False, b"something else entirely")
        return Answer(Certainty.CERTAIN, {"words": "3", "odd": "\N{SNOWMAN}"}, "a.example")


class Broken(Entirely):
    def dissect(self, opening: Opening) -> Answer | None:
        raise RuntimeError("no")


def last_flow(plugin: Dissector) -> Any:
    return [flow for batch in batches(dissectors=[plugin]) for flow in batch][-1]


def test_a_plugin_names_what_nobody_else_knows() -> None:
    flow = last_flow(Entirely())
    assert (flow.application, flow.server_name, flow.facts.certainty) == (
        "entirely",
        "a.example",
        Certainty.CERTAIN,
    )
    assert flow.facts.as_dict()["details"] == {"words": "3", "odd": "\\xe2\\x98\\x83"}


def test_a_plugin_that_raises_costs_its_answer() -> None:
    reading = read(io.BytesIO(mixed()), dissect=True, dissectors=[Broken()])
    assert [flow.application for flow in reading] == ["tls", "dns", ""]
    assert reading.plugin_refusals == 1


def test_a_plugin_that_takes_too_long_is_left_out_of_the_batch() -> None:
    from sealwire.probe.dissect.inspector import PLUGIN_BUDGET_NS, Inspector
    from sealwire.probe.engine import Settings, Table

    now = [0]

    class Slow(Entirely):
        def dissect(self, opening: Opening) -> Answer | None:
            now[0] += PLUGIN_BUDGET_NS
            return None

    from sealwire.probe import files

    steps = [(n / 10, "|>", p.udp(50_000 + n, 9, b"something else entirely")) for n in range(5)]
    data = memoryview(p.pcap(p.conversation(*steps)))
    table = Table(Settings(dissect=True))
    begun = files.begin(data, True)
    assert begun is not None
    table.feed(begun[0], data, begun[1], 100)
    inspector = Inspector(Settings(dissect=True), [Slow()], lambda: now[0])
    assert table.finish()
    rows = table.take()
    inspector.batch(rows, table.take_facts(), b"")
    assert (inspector.shown, inspector.plugin_refusals) == (5, 4)


def test_plugins_come_from_entry_points_or_say_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    from sealwire.probe.capture import PLUGINS, plugins

    def found(value: str) -> Any:
        entry = importlib.metadata.EntryPoint("mine", value, PLUGINS)
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
        plugins.cache_clear()
        return plugins()

    (plugin,) = found(f"{__name__}:Entirely")
    assert plugin.application == "entirely"
    for value, words in (("no.such:Thing", "cannot be used"), ("json:JSONDecoder", "is no Dissector")):
        with pytest.raises(ConfigurationError, match=words):
            found(value)
    monkeypatch.undo()
    plugins.cache_clear()


# --- certificates, documents, options ------------------------------------------------------------


def test_certificates_are_told_and_remembered() -> None:
    der = server().chain[0]
    said = certificates.describe(der)
    assert said is certificates.describe(der)
    assert {"subject", "issuer", "not_after", "fingerprint_sha256"} <= set(said)
    assert set(certificates.describe(b"no certificate")) == {"fingerprint_sha256"}
    assert set(certificates.describe(der[:-5])) == {"fingerprint_sha256"}


def test_bad_certificates_are_described_without_an_error(shared_data: Path) -> None:
    for path in sorted((shared_data / "dtls13/bad_certs").rglob("*")):
        if path.is_file():
            said = certificates.describe(path.read_bytes())
            assert json.dumps(said).isascii()


def test_the_document_has_every_fact_and_every_protocol() -> None:
    text = (ROOT / "docs/probe/dissectors.md").read_text("utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    documented = {row[0].strip("| `"): row[1].rstrip(" |") for row in rows if len(row) == 2}
    declared = {tag.name: tag.meaning for tag in TAGS.values() if tag.kind is not Kind.HEAD}
    assert declared.items() <= documented.items()
    accuracy = (ROOT / "docs/probe/accuracy.md").read_text("utf-8")
    for row in ROWS:
        assert f"| `{row.protocol}` | {row.details} | {', '.join(row.captures)} |" in accuracy


def test_the_program_dissects_unless_told_not_to(tmp_path: Path) -> None:
    path, out = tmp_path / "x.pcap", tmp_path / "x.json"
    path.write_bytes(mixed())
    assert cli.main(["probe", "-r", str(path), "-w", str(out)]) == 0
    assert [json.loads(line)["event_type"] for line in out.read_text().splitlines()][:3] == [
        "tls",
        "dns",
        "dns",
    ]
    assert cli.main(["probe", "-r", str(path), "-w", str(out), "--no-dissection"]) == 0
    assert {json.loads(line)["event_type"] for line in out.read_text().splitlines()} == {"flow"}


def test_an_empty_block_says_nothing() -> None:
    nothing = Facts(b"")
    assert (nothing.application, nothing.server_name, nothing.version, nothing.as_dict()) == (
        "",
        "",
        None,
        {},
    )
