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
from sealwire.probe.batch import OFFSETS
from sealwire.probe.dissect import relate, scan
from sealwire.probe.dissect.facts import EVENT_HEAD, Certainty, Fact, facts_block
from sealwire.probe.dissect.plugin import FirstPacket, Opening, Sign
from sealwire.probe.dissect.rare import DISSECTORS
from sealwire.probe.features import row_struct
from sealwire.probe.settings import Settings
from sealwire.probe.write import eve_event
from tests.unit.probe import packets as p
from tests.unit.probe.dissect import hellos as h
from tests.unit.probe.dissect.test_outputs import ANSWER, EVENT_SCHEMA, QUERY
from tests.unit.probe.test_outputs import check

ROOT = Path(__file__).resolve().parents[4]
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


def test_names_are_bounded() -> None:
    names = relate.Names(10)
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


def first_payloads() -> list[bytes]:
    """First packets of the captures that are in the tree."""
    found: list[bytes] = []
    for path in sorted((ROOT / "tests/data/probe").glob("*.pcap")):
        data, at = path.read_bytes(), 24
        for _ in range(12):
            if at + 16 > len(data):
                break
            n = int.from_bytes(data[at + 8 : at + 12], "little")
            frame = data[at + 16 : at + 16 + n]
            payload = frame[42:] if frame[23] == 17 else frame[34 + (frame[46] >> 4) * 4 :]
            found += [payload] if payload else []
            at += 16 + n
    return found


SEEN = first_payloads()
SIGNS = (
    Sign(b"ab"),
    Sign(b"\x80", mask=b"\xc0", every=True, least=2),
    Sign(port=53),
    Sign(b"\1", at=3, port=88),
)
ADDRESS = st.sampled_from((bytes(16), b"\1" * 16, b"\2" * 16))
PACKET = st.tuples(st.integers(0, 1), st.one_of(st.just(b"ab"), st.binary(max_size=8)))
HEAD = st.lists(PACKET, max_size=6).map(
    lambda packets: b"".join(struct.pack("<BHH", way, len(data), len(data)) + data for way, data in packets)
)
FACT = st.one_of(
    st.tuples(st.sampled_from((2, 11, 20, 21, 23)), st.binary(max_size=24)),
    st.tuples(st.just(60), HEAD),
)
BLOCK = st.one_of(
    st.just(b""),
    st.builds(
        facts_block,
        st.sampled_from((0, 1, 2, 3, 4, 5, 40)),
        st.sampled_from((0, 1, 2)),
        st.lists(FACT, max_size=5),
    ),
)
ROW = st.tuples(
    ADDRESS, ADDRESS, st.sampled_from((53, 88)), st.sampled_from((1, 6, 17)), st.integers(0, 9), BLOCK
)
TOLD = st.tuples(
    ADDRESS,
    ADDRESS,
    st.integers(0, 9),
    st.sampled_from((b"", b"a", b"bc")),
    st.lists(st.binary(min_size=4, max_size=4)),
)


def row_of(source: bytes, destination: bytes, port: int, protocol: int, time: int, block: bytes) -> bytes:
    row = bytearray(row_struct().size)
    row[:16], row[16:32] = source, destination
    for name, code, value in (
        *(("source_port", "<H", 9), ("destination_port", "<H", port), ("protocol", "<B", protocol)),
        *(("ended", "<q", time), ("forward_first", "<q", time), ("facts_bytes", "<I", len(block))),
    ):
        struct.pack_into(code, row, OFFSETS[name][0], value)
    return bytes(row)


def answer_event(server: bytes, client: bytes, time: int, name: bytes, addresses: list[bytes]) -> bytes:
    facts = [(2, name), *((23, b"\1\0" + bytes(4) + address) for address in addresses)]
    block = facts_block(4, 2, facts)
    head = EVENT_HEAD.pack(EVENT_HEAD.size + len(block), time, server, client, 53, 9, 4, 17, 0, 0, 0, 0, 0)
    return head + block


@pytest.mark.skipif(not engine.hashes(), reason="the compiled modules are not built")
@given(st.lists(st.tuples(st.lists(ROW, max_size=6), st.lists(TOLD, max_size=6)), max_size=3), st.booleans())
def test_both_scanners_say_the_same(batches: list[Any], serving: bool) -> None:
    from sealwire.probe.dissect import _scan

    wanted = [(1 << n, protocol, sign) for n, sign in enumerate(SIGNS) for protocol in (6, 17)]
    scanners = [kind(wanted, bytes(16), 3) for kind in (scan.Scanner, _scan.Scanner)]
    servers = {bytes(16) + b"\x35\0"} if serving else set()
    stride = row_struct().size
    for listed, told in batches:
        rows, facts = b"".join(row_of(*one) for one in listed), b"".join(one[-1] for one in listed)
        events = b"".join(answer_event(*one) for one in told)
        assert scan.handshakes(events) == _scan.handshakes(events)
        left = [scanner.left(rows, stride, facts, servers) for scanner in scanners]
        assert left[0] == left[1]
        replaced = [(index, facts_block(40, 2, [(2, b"x")] * (index % 2))) for index, *_ in left[0]][::2]
        first, second = (scanner.finish(rows, stride, facts, events, replaced) for scanner in scanners)
        assert first == second


@given(
    st.sampled_from((6, 17)),
    st.sampled_from((1, 53, 88, 123, 161, 389, 1194, 1883, 5060, 5683, 502)),
    st.lists(
        st.tuples(
            st.booleans(),
            st.builds(
                lambda seed, more: seed[: more[0]] + more[1],
                st.sampled_from(SEEN),
                st.tuples(st.integers(0, 256), st.binary(max_size=6)),
            ),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_signs_leave_out_nothing_a_dissector_knows(
    protocol: int, port: int, said: list[tuple[bool, bytes]]
) -> None:
    packets = tuple(FirstPacket(backward, len(data), data[:256]) for backward, data in said)
    opening = Opening(protocol, 40_000, port, packets)
    head = b"".join(struct.pack("<BHH", p.backward, p.size, len(p.data)) + p.data for p in packets)
    block = facts_block(0, 0, [(60, head)])
    row = row_of(bytes(16), bytes(16), port, protocol, 0, block)
    for dissector in DISSECTORS:
        answer = dissector.dissect(opening) if protocol in dissector.transports else None
        if answer is not None:
            scanner = scan.Scanner([(1, protocol, sign) for sign in dissector.signs], bytes(16), 1)
            assert scanner.left(row, len(row), block, ()), dissector.application


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
