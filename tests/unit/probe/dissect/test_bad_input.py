"""Hostile and broken input: bounded, counted, never certain of what is wrong; both desks alike."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.probe import Flow
from sealwire.probe.dissect import dns
from sealwire.probe.dissect.facts import Certainty, Fact, Flag, Protocol, events
from sealwire.probe.features import unpack
from sealwire.probe.settings import Settings
from tests.unit.probe import packets as p
from tests.unit.probe.dissect import hellos as h
from tests.unit.probe.twins import Walked, same

ON = Settings(dissect=True)


def both(capture: bytes, settings: Settings = ON) -> tuple[list[Flow], Walked]:
    walked = same(capture, settings)
    assert walked.counters["dissection_bytes"] == 0
    return list(unpack(walked.rows, settings.first_packets, walked.facts)), walked


def one(capture: bytes, settings: Settings = ON) -> Flow:
    (flow,) = both(capture, settings)[0]
    return flow


def cut(data: bytes, n: int) -> list[tuple[str, int, bytes]]:
    return [(">", at, data[at : at + n]) for at in range(0, len(data), n)]


def answered(segments: list[tuple[str, int, bytes]]) -> bytes:
    return h.tcp_stream([*segments, ("<", 0, h.record(h.server_hello(), version=0x0303))])


# --- what is right, however it comes -------------------------------------------------------------

HELLO = h.record(h.client_hello())
WHOLE = one(answered([(">", 0, HELLO)])).facts.block


def test_a_whole_handshake_is_learnt() -> None:
    flow = one(answered([(">", 0, HELLO)]))
    assert (flow.application, flow.server_name, flow.facts.certainty) == (
        *("tls", "www.example.org"),
        Certainty.CERTAIN,
    )
    assert (flow.facts.version, flow.facts.number(Fact.CIPHER), flow.facts.number(Fact.GROUP)) == (
        0x0304,
        0x1301,
        29,
    )


@pytest.mark.parametrize("n", [15, 40, 64, 100])
def test_segments_of_any_size_and_order_give_the_same(n: int) -> None:
    chance = random.Random(n)
    for _ in range(5):
        segments = cut(HELLO, n)
        chance.shuffle(segments)
        assert one(answered(segments)).facts.block == WHOLE


def test_sequence_numbers_may_wrap() -> None:
    flow = one(h.tcp_stream(cut(HELLO, 50), start=(1 << 32) - 60))
    assert flow.server_name == "www.example.org"


def test_the_first_bytes_to_arrive_stay() -> None:
    other = h.record(h.client_hello((h.server_name(b"evil.example.net"), *h.PLAIN[1:])))
    segments = [(">", 0, HELLO[:60]), (">", 0, other), (">", 60, HELLO[60:])]
    assert one(h.tcp_stream(segments)).server_name != "evil.example.net"


def test_records_may_cut_a_hello_anywhere() -> None:
    message = h.client_hello()
    data = b"".join(h.record(message[at : at + 11]) for at in range(0, len(message), 11))
    assert one(answered([(">", 0, data)])).facts.block == WHOLE


@pytest.mark.parametrize("n", [10, 30, 1000])
def test_fragments_of_a_dtls_hello_in_any_order(n: int) -> None:
    message = h.client_hello((*h.PLAIN[:2], h.versions(0xFEFC), (54, b"\2ab")), version=0xFEFD, cookie=b"")
    size = len(message) - 4
    pieces = [h.fragment(message, at, min(n, size - at)) for at in range(0, size, n)][:12]
    if n < 15:  # more than the packets that are looked at, several in one
        pieces = [b"".join(h.fragment(message, at, min(n, size - at)) for at in range(0, size, n))]
    random.Random(n).shuffle(pieces)
    flow = one(h.datagrams([(">", piece) for piece in pieces]))
    assert (flow.application, flow.facts.version, flow.facts.raw(Fact.CLIENT_ID)) == ("dtls", 0xFEFC, b"ab")


def test_a_part_behind_the_active_timeout_is_what_the_connection_is() -> None:
    steps = [(0.0, "|>", p.udp(40_000, 4_433, h.fragment(_dtls(), 0, len(_dtls()) - 4)))]
    steps += [(n, "|>", p.udp(40_000, 4_433, b"\x17\xfe\xfd" + bytes(20))) for n in (1.0, 3.0, 5.0)]
    flows, walked = both(p.pcap(p.conversation(*steps)), Settings(dissect=True, active_timeout=2))
    assert [flow.application for flow in flows] == ["dtls"] * len(flows)
    assert len(flows) >= 2
    assert len(list(events(walked.events))) == 1


def _dtls() -> bytes:
    return h.client_hello((h.versions(0xFEFC),), version=0xFEFD, cookie=b"")


def test_ech_says_that_the_name_is_not_sure() -> None:
    flow = one(h.tcp_stream([(">", 0, h.record(h.client_hello((*h.PLAIN, (0xFE0D, b"x")))))]))
    assert flow.facts.number(Fact.ECH) == 1


# --- what is wrong -------------------------------------------------------------------------------


def test_a_hello_of_64_kilobytes_is_bounded() -> None:
    message = h.client_hello((*h.PLAIN, (21, bytes(65_000))))
    data = b"".join(h.record(message[at : at + 16_000]) for at in range(0, len(message), 16_000))
    flows, walked = both(h.tcp_stream(cut(data, 1_460)))
    assert (flows[0].application, flows[0].facts.certainty) == ("tls", Certainty.UNSURE)
    assert flows[0].facts.flags & Flag.TRUNCATED
    assert walked.counters["dissection_peak"] < 20_000


@pytest.mark.parametrize("at", range(43, 60))
def test_lengths_that_lie_make_nothing_certain_but_what_is(at: int) -> None:
    for value in (0, 0x7F, 0xFF):
        damaged = bytearray(HELLO)
        damaged[at] = value
        flow = one(h.tcp_stream([(">", 0, bytes(damaged))]))
        assert flow.application == "tls"
        if flow.facts.certainty is not Certainty.CERTAIN:
            assert flow.server_name == ""


LOOPS = [
    b"\xc0\x0c",  # to itself
    b"\xc0\x0e\xc0\x0c",
    b"\x01a\xc0\x0c",
    b"\x3f" + bytes(63) + b"\xc0\x0c",
    b"\xff\xff",
    b"\x40" + bytes(64),
]


@pytest.mark.parametrize("name", LOOPS)
def test_dns_names_that_loop_or_lie_end(name: bytes) -> None:
    message = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + name + b"\0\1\0\1"
    assert dns.name_at(memoryview(message), 12) == (b"", -1)
    flow = one(h.datagrams([(">", message)], port=53))
    assert (flow.application, flow.facts.certainty) == ("dns", Certainty.UNSURE)
    assert flow.facts.flags & Flag.MALFORMED


def test_a_dns_name_is_at_most_255_bytes() -> None:
    name = b"".join(b"\x3f" + b"a" * 63 for _ in range(4)) + b"\0"
    assert dns.name_at(memoryview(name), 0)[1] == -1
    assert dns.name_at(memoryview(name[64:]), 0)[1] == len(name) - 64


def test_an_answer_with_thousands_of_records_is_bounded() -> None:
    records = (b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + bytes(4)) * 4_000
    message = struct.pack("!HHHHHH", 7, 0x8180, 1, 4_000, 0, 0) + b"\1a\0\0\1\0\1" + records
    steps = [("<", message)]
    _, walked = both(h.datagrams(steps, port=53))
    (event,) = events(walked.events)
    answers = event.facts.as_dict()["answers"]
    assert isinstance(answers, list)
    assert len(answers) == 16
    assert event.facts.certainty is Certainty.CERTAIN


def test_a_resolver_with_thousands_of_queries_holds_nothing() -> None:
    query = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\1a\0\0\1\0\1"
    steps = [(n / 1000, "|>", p.udp(40_000, 53, query)) for n in range(3_000)]
    flows, walked = both(p.pcap(p.conversation(*steps)))
    assert walked.counters["events"] == 3_000
    assert walked.counters["dissection_peak"] < 1_000
    assert flows[0].server_name == "a"


@pytest.mark.parametrize("seed", range(20))
def test_quic_with_random_ids_and_content_is_never_certain(seed: int) -> None:
    chance = random.Random(seed)
    steps = []
    for _ in range(8):
        to, source = chance.randbytes(chance.randrange(22)), chance.randbytes(chance.randrange(21))
        head = bytes((0xC0 | chance.randrange(64),)) + chance.choice(
            (b"\0\0\0\1", b"\x6b\x33\x43\xcf", b"\0\0\0\0")
        )
        head += h.vector(1, to) + h.vector(1, source) + b"\0" + b"\x44\xb0"
        steps.append((chance.choice("<>"), head + chance.randbytes(chance.choice((3, 20, 1_200)))))
    flow = one(h.datagrams(steps, port=443))
    assert flow.application in ("quic", "")
    assert flow.facts.certainty is not Certainty.CERTAIN


def test_http_headers_without_end_are_bounded() -> None:
    data = b"GET /x HTTP/1.1\r\nHost: a.example\r\n" + b"X: " + b"y" * 40_000
    flow, walked = both(h.tcp_stream(cut(data, 1_460)))
    assert flow[0].application == "http"
    assert flow[0].facts.flags & Flag.TRUNCATED
    assert (flow[0].server_name, flow[0].facts.text(Fact.METHOD)) == ("a.example", "GET")
    assert walked.counters["dissection_peak"] < 20_000


@pytest.mark.parametrize(
    "line",
    [
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.2",
        b"GET /",
        b"GET / HTTP/1.1 x",
        b"HTTP/1.1 2x0 OK",
        b"FETCH / HTTP/1.1",
    ],
)
def test_lines_that_are_not_http_are_not_certain(line: bytes) -> None:
    flow = one(h.tcp_stream([(">", 0, line + b"\r\nHost: a\r\n\r\n")]))
    assert flow.facts.certainty is not Certainty.CERTAIN


def test_stun_attributes_that_lie_are_nothing() -> None:
    head = b"\0\1\0\x08\x21\x12\xa4\x42" + bytes(12)
    assert one(h.datagrams([(">", head + b"\0\x14\0\x04abcd")], port=3478)).application == "stun"
    for body in (b"\0\x14\0\x05abcd", b"\0\x14\xff\xffabcd"):
        assert one(h.datagrams([(">", head + body)], port=3478)).application == ""


def test_what_the_limit_leaves_out_is_counted() -> None:
    """Half a hello from each of many clients: at most the limit is held, the rest is counted."""
    half = HELLO[:100]
    segment = p.tcp(1, 443, p.ACK, data=half)
    steps = [
        (p.START + n, p.ethernet(p.ip4(f"10.1.{n >> 8}.{n & 255}", "10.0.0.2", 6, segment)))
        for n in range(1_000)
    ]
    flows, walked = both(p.pcap(steps), Settings(dissect=True, max_dissection_bytes=65_536))
    counters = walked.counters
    assert 0 < counters["dissected"] < 1_000 == counters["dissected"] + counters["undissected"]
    assert counters["dissection_refusals"] >= counters["undissected"] > 0
    assert counters["dissection_peak"] <= 65_536
    assert len(flows) == 1_000


def test_a_capture_that_is_cut_short_of_the_payload_makes_nothing_up() -> None:
    whole = p.ethernet(p.ip4("10.0.0.1", "10.0.0.2", 6, p.tcp(1, 443, p.ACK, data=HELLO)))
    for n in range(54, len(whole), 7):
        head = struct.pack("<IIII", p.START // p.SECOND, 0, n, len(whole))
        flow = one(p.pcap([]) + head + whole[:n])
        assert flow.facts.certainty is not Certainty.CERTAIN


# --- anything ------------------------------------------------------------------------------------

SEEDS = [
    HELLO,
    h.record(h.server_hello()),
    h.fragment(_dtls(), 0, len(_dtls()) - 4),
    struct.pack("!HHHHHH", 7, 0x8180, 1, 1, 0, 0) + b"\1a\0\0\1\0\1\xc0\x0c\0\5\0\1\0\0\0\1\0\2\xc0\x0c",
    b"GET /x HTTP/1.1\r\nHost: a.example\r\nUser-Agent: z\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Type: t\r\n\r\n",
    b"SSH-2.0-x\r\n" + struct.pack("!IBB", 94, 4, 20) + bytes(16) + b"\0\0\0\1a" * 10 + bytes(30),
    b"\1\1\0\x0c\x21\x12\xa4\x42" + bytes(12) + b"\0\x20\0\x08\0\1\x11\x22abcd",
    b"\xc0\0\0\0\1\x08abcdefgh\0\0\x44\xb0" + bytes(1_200),
    b"\x10\x0e\0\4MQTT\4\2\0\x3c\0\2ab",
]


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                data[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)))
            case 1:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 2:
                del data[at:]
            case _:
                data[at:at] = draw(st.binary(max_size=5))
        if not data:
            break
    return bytes(data)


STEPS = st.lists(st.tuples(st.sampled_from("<>"), payloads()), min_size=1, max_size=16)


@given(STEPS, st.sampled_from((443, 53, 5353, 4_433)))
def test_both_desks_agree_on_any_datagrams(steps: list[tuple[str, bytes]], port: int) -> None:
    both(h.datagrams(steps, port=port))


@given(STEPS, st.lists(st.integers(0, 400), min_size=16, max_size=16))
def test_both_desks_agree_on_any_streams(steps: list[tuple[str, bytes]], offsets: list[int]) -> None:
    both(h.tcp_stream([(way, at, data) for (way, data), at in zip(steps, offsets, strict=False)]))
    ends = {"<": 0, ">": 0}
    segments = []
    for way, data in steps:
        segments.append((way, ends[way], data))
        ends[way] += len(data)
    both(h.tcp_stream(segments), Settings(dissect=True, max_dissection_bytes=65_536))


def test_protocols_have_one_number_each() -> None:
    assert len({protocol.value for protocol in Protocol}) == len(Protocol.__members__)
