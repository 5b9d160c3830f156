"""Flows that have to do with each other: connections that moved, names asked for before, ICMP errors."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.probe import Flow, engine, read
from sealwire.probe.dissect import relate, scan
from sealwire.probe.dissect.facts import Certainty, Fact, facts_block
from sealwire.probe.settings import Settings
from sealwire.probe.write import eve_event
from tests.unit.probe import packets as p
from tests.unit.probe.dissect import hellos as h
from tests.unit.probe.dissect.test_outputs import ANSWER, EVENT_SCHEMA, QUERY
from tests.unit.probe.test_outputs import check

DISSECTED = Settings(dissect=True).without_timeouts()


def association(flow: Flow) -> int | None:
    return flow.facts.number(Fact.ASSOCIATION)


def test_connections_that_moved_are_those_of_the_truth(shared_data: Path) -> None:
    truth = (shared_data / "probe/expected/gen-cid-rebind.truth.jsonl").read_text("utf-8").splitlines()
    flows = {}
    reading = read(shared_data / "probe/gen-cid-rebind.pcap", settings=DISSECTED)
    events = []
    for batch in reading.batches():
        flows.update({flow.community_id: flow for flow in batch})
        events += list(batch.events())
    tuples = 0
    for connection in map(json.loads, truth):
        parts = [flows.pop(one["community_id"]) for one in connection["tuples"]]
        tuples += len(parts)
        assert {flow.application for flow in parts} == {"quic" if connection["kind"] == "quic" else "dtls"}
        assert len({association(flow) for flow in parts} - {None}) == 1
        assert association(parts[0]) == parts[0].flow_id
        for moved in parts[1:]:
            assert moved.server_name == connection["sni"]
            before = moved.facts.as_dict()["path_from"]
            assert before == [parts[0].source, str(parts[0].source_port)]
    assert flows == {}
    for event in events:
        check(EVENT_SCHEMA, json.loads(json.dumps(eve_event(event))))
    assert tuples == 13
    assert sum(event.facts.raw(Fact.PATH) is not None for event in events) == 13 - 6
    assert reading.ambiguous_links == 0


def test_a_recorded_change_of_port_is_one_connection(shared_data: Path) -> None:
    """pion's client, whose datagrams a relay sent on from another port after the seventh."""
    said = json.loads((shared_data / "dtls13/dtls13_captures/pion__cid_rebind_rrc.json").read_text("utf-8"))
    steps = []
    for datagram in said["datagrams"]:
        port = 40_000 + datagram["path"]
        source, destination = (port, 4_433) if datagram["dir"] == "c2s" else (4_433, port)
        way = "|>" if datagram["dir"] == "c2s" else "|<"
        steps.append((datagram["t"], way, p.udp(source, destination, bytes.fromhex(datagram["hex"]))))
    flows = list(read(io.BytesIO(p.pcap(p.conversation(*steps))), settings=DISSECTED))
    assert len(flows) == 2
    first, second = flows
    assert association(first) == association(second) == first.flow_id
    assert (second.application, second.facts.certainty) == ("dtls", Certainty.CERTAIN)


def cid_hello(cid: bytes) -> bytes:
    return h.client_hello((h.versions(0xFEFC), (54, h.vector(1, cid))), version=0xFEFD, cookie=b"")


def cid_answer(cid: bytes) -> bytes:
    return h.server_hello(
        ((43, b"\xfe\xfc"), (51, b"\0\x1d" + h.vector(2, bytes(32))), (54, h.vector(1, cid)))
    )


def whole(message: bytes) -> bytes:
    return h.fragment(message, 0, len(message) - 4)


def connection(port: int, at: float, to_server: bytes, to_client: bytes) -> list[tuple[float, str, bytes]]:
    return [
        (at, "|>", p.udp(port, 4_433, whole(cid_hello(to_client)))),
        (at + 0.01, "|<", p.udp(4_433, port, whole(cid_answer(to_server)))),
    ]


def protected(cid: bytes) -> bytes:
    return b"\x3c" + cid + bytes(40)


def moved(*steps: tuple[float, str, bytes]) -> tuple[list[Flow], Any]:
    reading = read(io.BytesIO(p.pcap(p.conversation(*steps))), settings=DISSECTED)
    return list(reading), reading


def test_one_id_of_two_connections_links_nothing_and_is_counted() -> None:
    flows, reading = moved(
        *connection(1_000, 0.0, b"same", b"aaaa"),
        *connection(2_000, 0.1, b"same", b"bbbb"),
        (0.3, "|>", p.udp(3_000, 4_433, protected(b"same"))),
    )
    assert association(flows[-1]) is None
    assert reading.ambiguous_links == 1


def test_ids_of_several_lengths_that_both_fit_link_nothing() -> None:
    flows, reading = moved(
        *connection(1_000, 0.0, b"ab", b"1111"),
        *connection(2_000, 0.1, b"abcd", b"2222"),
        (0.3, "|>", p.udp(3_000, 4_433, protected(b"abcd"))),
    )
    assert association(flows[-1]) is None
    assert reading.ambiguous_links == 1


def test_another_id_the_other_way_is_another_connection() -> None:
    flows, reading = moved(
        *connection(1_000, 0.0, b"good", b"mine"),
        (0.3, "|>", p.udp(3_000, 4_433, protected(b"good"))),
        (0.4, "|<", p.udp(4_433, 3_000, protected(b"else"))),
    )
    assert association(flows[-1]) is None
    assert reading.ambiguous_links == 0


def test_a_short_id_alone_is_likely_and_not_certain() -> None:
    flows, _ = moved(*connection(1_000, 0.0, b"x", b""), (0.3, "|>", p.udp(3_000, 4_433, protected(b"x"))))
    assert (association(flows[-1]), flows[-1].facts.certainty) == (flows[0].flow_id, Certainty.UNSURE)


def test_what_is_remembered_of_connections_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relate, "MAX_CONNECTIONS", 2)
    steps = []
    for n in range(4):
        steps += connection(1_000 + n, n / 10, f"id{n:02d}".encode(), b"mine")
    steps += [
        (1.0, "|>", p.udp(3_000, 4_433, protected(b"id00"))),
        (1.1, "|>", p.udp(3_001, 4_433, protected(b"id03"))),
    ]
    flows, _ = moved(*steps)
    by_port = {flow.source_port: flow for flow in flows}
    assert association(by_port[3_000]) is None
    assert association(by_port[3_001]) == by_port[1_003].flow_id


# --- names ---------------------------------------------------------------------------------------


def asked_then(time: float, client: str = "10.0.0.1", settings: Settings = DISSECTED) -> Flow:
    """A flow to 192.0.2.1 at a time; 10.0.0.1 is told at 0.5 that this is www.example.org."""
    steps = p.conversation((0.4, "|>", p.udp(50_000, 53, QUERY)), (0.5, "|<", p.udp(53, 50_000, ANSWER)))
    frame = p.ethernet(p.ip4(client, "192.0.2.1", 17, p.udp(6_000, 9, b"nothing that is known")))
    steps.append((p.START + round(time * p.SECOND), frame))
    flows = list(read(io.BytesIO(p.pcap(sorted(steps))), settings=settings))
    (flow,) = [flow for flow in flows if flow.destination_port == 9]
    return flow


def test_a_flow_has_the_name_its_client_asked_for_before() -> None:
    flow = asked_then(0.6)
    assert flow.facts.text(Fact.LEARNED_NAME) == "www.example.org"
    assert flow.server_name == flow.application == ""


def test_names_asked_for_later_or_by_others_are_not_taken() -> None:
    assert asked_then(0.3).facts.text(Fact.LEARNED_NAME) is None
    assert asked_then(0.6, "10.0.0.7").facts.text(Fact.LEARNED_NAME) is None


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relate, "MAX_NAMES", 10)
    names = relate.Names()
    for n in range(100):
        names.learn(n, bytes(16), b"name", (bytes(14) + struct.pack("!H", n),))
    assert len(names.known) == 10
    assert names.find(bytes(16) + bytes(14) + b"\0\x63") == (99, b"name")


# --- ICMP ----------------------------------------------------------------------------------------


def test_an_icmp_error_names_the_flow_it_cites() -> None:
    sent = p.ip4("10.0.0.1", "10.0.0.2", 17, p.udp(5_000, 9, b"x"))
    error = p.ip4("10.0.0.2", "10.0.0.1", 1, b"\3\3\0\0\0\0\0\0" + sent[:28])
    flows = p.flows_of(p.pcap([(p.START, p.ethernet(sent)), (p.START + 1, p.ethernet(error))]), dissect=True)
    by_protocol = {flow.protocol: flow for flow in flows}
    assert by_protocol[1].facts.as_dict()["details"] == {"cited_community_id": by_protocol[17].community_id}


@given(st.sampled_from((1, 58)), st.integers(0, 255), st.binary(max_size=80))
def test_whatever_an_icmp_error_quotes_is_an_answer(protocol: int, kind: int, data: bytes) -> None:
    found = relate.cited(protocol, kind, data)
    assert found is None or found.startswith("1:")


# --- the passes ----------------------------------------------------------------------------------

FACT = st.tuples(st.sampled_from((2, 11, 20, 21, 23, 60)), st.binary(max_size=24))
BLOCK = st.one_of(
    st.just(b""),
    st.builds(
        facts_block,
        st.sampled_from((0, 1, 2, 3, 4, 5, 40)),
        st.sampled_from((0, 1, 2)),
        st.lists(FACT, max_size=5),
    ),
)


@pytest.mark.skipif(not engine.COMPILED, reason="the compiled modules are not built")
@given(st.lists(BLOCK, max_size=8), st.booleans())
def test_both_passes_find_the_same(blocks: list[bytes], known: bool) -> None:
    from sealwire.probe.dissect import _scan

    rows = b"".join(bytes(40) + struct.pack("<I", len(block)) for block in blocks)
    named: dict[bytes, object] = {bytes(32): 1} if known else {}
    facts, fresh = b"".join(blocks), set[bytes]()
    assert _scan.rows(rows, 44, 40, facts, named, fresh) == scan.rows(rows, 44, 40, facts, named, fresh)
    events = b"".join(
        struct.pack("<Iq", 74 + len(block), 5) + bytes(32) + b"\x35\0" + bytes(28) + block for block in blocks
    )
    assert _scan.news(events) == scan.news(events)


def test_pseudonyms_leave_no_address_in_what_dissection_says() -> None:
    sent = p.ip4("10.0.0.1", "10.0.0.2", 17, p.udp(5_000, 9, b"x"))
    error = p.ip4("10.0.0.2", "10.0.0.1", 1, b"\3\3\0\0\0\0\0\0" + sent[:28])
    steps = p.conversation(
        *connection(1_000, 0.0, b"good", b"mine"),
        (0.3, "|>", p.udp(3_000, 4_433, protected(b"good"))),
        (0.4, "|>", p.udp(50_000, 53, QUERY)),
        (0.5, "|<", p.udp(53, 50_000, ANSWER)),
        (
            0.6,
            "|<",
            p.udp(
                3478, 6_000, b"\1\1\0\x0c\x21\x12\xa4\x42" + bytes(12) + b"\0\1\0\x08\0\1\x11\x22\x0a\0\0\1"
            ),
        ),
    )
    steps.append((p.START + p.SECOND, p.ethernet(error)))
    batches = list(read(io.BytesIO(p.pcap(steps)), settings=DISSECTED).batches())
    plain = [flow for batch in batches for flow in batch]
    found = {name for flow in plain for name in flow.facts.as_dict()}
    assert {"path_from", "mapped_address", "details", "association_id"} <= found
    hidden = [batch.pseudonymised(bytes(32)) for batch in batches]
    flows = [flow for batch in hidden for flow in batch]
    said = json.dumps([flow.facts.as_dict() for flow in flows])
    said += json.dumps([eve_event(event) for batch in hidden for event in batch.events()])
    for word in ("10.0.0", "192.0.2", "path_from", "mapped_address", "cited"):
        assert word not in said
    ids = [association(flow) for flow in flows if association(flow) is not None]
    assert len(ids) == 2
    assert len(set(ids)) == 1
    assert set(ids).isdisjoint({association(flow) for flow in plain})
    assert [flow.server_name for flow in flows] == [flow.server_name for flow in plain]
