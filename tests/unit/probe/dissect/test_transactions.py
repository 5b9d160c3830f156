"""Every transaction of a stream: HTTP's requests with their responses, DNS over TCP; both desks alike."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.probe import Flow
from sealwire.probe.dissect.facts import Certainty, Fact, Flag, events
from sealwire.probe.features import unpack
from sealwire.probe.settings import Settings
from tests.unit.probe.dissect import hellos as h
from tests.unit.probe.twins import same

ON = Settings(dissect=True)
Told = dict[str, Any]


def seen(capture: bytes, settings: Settings = ON) -> tuple[Flow, list[Told]]:
    """The flow, and what its events tell."""
    walked = same(capture, settings)
    assert walked.counters["dissection_bytes"] == 0
    (flow,) = unpack(walked.rows, settings.first_packets, walked.facts)
    return flow, [event.facts.as_dict() for event in events(walked.events)]


def talk(*said: tuple[str, bytes]) -> bytes:
    """A stream in which each side says its pieces one behind the other."""
    at = {"<": 0, ">": 0}
    segments = []
    for way, data in said:
        segments.append((way, at[way], data))
        at[way] += len(data)
    return h.tcp_stream(segments)


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: www.example.org\r\n\r\n".encode()


def ok(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", *(headers or (f"Content-Length: {len(body)}",)), "", ""]
    return "\r\n".join(lines).encode() + body


def pairs(told: list[Told]) -> list[tuple[object, object]]:
    return [(one.get("url"), one.get("status")) for one in told]


CHUNKED = b"5;x=y\r\nhello\r\n00A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"

CONVERSATIONS = {
    "one after another": [
        *((">", get("/1")), ("<", ok(b"one")), (">", get("/2")), ("<", ok(status="404 Not Found"))),
    ],
    "pipelined": [(">", get("/1") + get("/2")), ("<", ok(b"one") + ok(status="404 Not Found"))],
    "in chunks": [
        (">", get("/1")),
        ("<", ok(CHUNKED, "Transfer-Encoding: gzip, Chunked")),
        (">", get("/2")),
        ("<", ok(status="404 Not Found")),
    ],
    "a body sent": [
        (">", b"POST /1 HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET " + get("/2")),
        ("<", ok(status="100 Continue") + ok() + ok(status="404 Not Found")),
    ],
    "a body sent in chunks": [
        (">", b"PUT /1 HTTP/1.1\r\ntransfer-encoding:chunked\r\n\r\n" + CHUNKED + b"\r\n" + get("/2")),
        ("<", ok() + ok(status="404 Not Found")),
    ],
    "no body where a length is told": [
        (">", b"HEAD /1 HTTP/1.1\r\n\r\n" + get("/2")),
        ("<", ok(b"", "Content-Length: 5000") + ok(status="404 Not Found")),
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("cut", [0, 1, 7])
def test_each_request_is_told_with_its_response(name: str, cut: int) -> None:
    said = CONVERSATIONS[name]
    if cut:
        # Small pieces, as many as are looked at.
        joined = {way: b"".join(data for w, data in said if w == way) for way in "<>"}
        step = {way: max(len(data) // 11, 1) + cut for way, data in joined.items()}
        said = [
            (way, joined[way][at : at + step[way]])
            for way in "><"
            for at in range(0, len(joined[way]), step[way])
        ]
    flow, told = seen(talk(*said))
    assert pairs(told) == [("/1", 200), ("/2", 404)]
    assert (flow.application, flow.facts.certainty) == ("http", Certainty.CERTAIN)
    # The flow's own facts are those of the first.
    assert (flow.facts.text(Fact.TARGET), flow.facts.number(Fact.STATUS)) == ("/1", 200)
    assert not flow.facts.flags & Flag.MALFORMED


def test_requests_nobody_answers_are_told_at_the_end() -> None:
    _, told = seen(talk((">", get("/1") + get("/2") + get("/3")), ("<", ok())))
    assert pairs(told) == [("/1", 200), ("/2", None), ("/3", None)]


def test_responses_without_requests_are_told() -> None:
    flow, told = seen(talk(("<", ok(b"x") + ok(status="404 Not Found"))))
    assert pairs(told) == [(None, 200), (None, 404)]
    assert flow.facts.number(Fact.STATUS) == 200


@pytest.mark.parametrize(
    "last",
    [
        ok(b"until the end", "Server: s"),
        ok(b"x", "Content-Length: 20000"),
        ok(b"x", "Transfer-Encoding: gzip"),
        ok(b"", "Upgrade: websocket", status="101 Switching Protocols"),
    ],
)
def test_behind_a_body_without_end_nothing_is_read(last: bytes) -> None:
    _, told = seen(talk((">", get("/1")), ("<", last + ok(status="500 Oops")), (">", get("/2"))))
    assert len(told) == 1
    assert told[0]["url"] == "/1"


@pytest.mark.parametrize(
    "bad",
    [
        ok(b"x", "Content-Length: -1"),
        ok(b"x", "Content-Length: 1", "Content-Length: 2"),
        ok(b"x", "Content-Length: 99999999999"),
        ok(b"zz\r\n", "Transfer-Encoding: chunked"),
        ok(b"1\r\nxy\r\n", "Transfer-Encoding: chunked"),
        ok(b"88888888\r\n", "Transfer-Encoding: chunked"),
    ],
)
def test_a_length_that_contradicts_itself_ends_the_reading(bad: bytes) -> None:
    flow, told = seen(talk((">", get("/1") + get("/2")), ("<", bad + ok())))
    assert pairs(told)[0] == ("/1", 200)
    assert flow.facts.flags & Flag.MALFORMED


def test_what_a_tunnel_carries_is_not_read() -> None:
    ask = b"CONNECT www.example.org:443 HTTP/1.1\r\n\r\n"
    _, told = seen(talk((">", ask), ("<", ok(b"", "Via: 1.1 x")), (">", get("/inside")), ("<", ok())))
    assert [one["http_method"] for one in told] == ["CONNECT"]


def test_requests_that_wait_are_bounded() -> None:
    flow, told = seen(talk((">", get("/") * 40)))
    assert len(told) == 16
    assert flow.facts.flags & Flag.TRUNCATED


def test_an_answer_in_another_protocol_is_no_transaction() -> None:
    flow, told = seen(talk((">", get("/1")), ("<", bytes(range(200))), (">", get("/2"))))
    assert flow.application == "http"
    assert pairs(told) == [("/1", None)]


# --- DNS over TCP --------------------------------------------------------------------------------


def message(number: int, flags: int, name: bytes, answers: bytes = b"") -> bytes:
    count = len(answers) // 16
    data = struct.pack("!HHHHHH", number, flags, 1, count, 0, 0)
    data += bytes((len(name),)) + name + b"\0\0\1\0\1" + answers
    return h.vector(2, data)


def dns(*said: tuple[str, bytes]) -> bytes:
    at = {"<": 0, ">": 0}
    segments = []
    for way, data in said:
        segments.append((way, at[way], data))
        at[way] += len(data)
    return h.tcp_stream(segments, port=53)


A = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"


@pytest.mark.parametrize("cut", [1, 2, 9, 1000])
def test_questions_over_tcp_are_told_as_over_udp(cut: int) -> None:
    asked = message(1, 0x0100, b"one") + message(2, 0x0100, b"two")
    answered = message(1, 0x8180, b"one", A) + message(2, 0x8183, b"two")
    said = [(">", asked[at : at + max(cut, 5)]) for at in range(0, len(asked), max(cut, 5))]
    flow, told = seen(dns(*said, ("<", answered)))
    assert [(one["server_name"], one["flags"]) for one in told] == [
        *(("one", 0x0100), ("two", 0x0100), ("one", 0x8180), ("two", 0x8183)),
    ]
    assert told[2]["answers"] == [{"rrtype": "A", "ttl": 60, "rdata": "192.0.2.1"}]
    assert (flow.application, flow.facts.certainty) == ("dns", Certainty.CERTAIN)
    assert flow.server_name == "one"


def test_a_length_that_cannot_be_is_not_dns() -> None:
    for data in (b"\0\5" + bytes(30), b"\xff\xff\0\1\1\0\0\1" + bytes(30)):
        flow, told = seen(dns((">", data)))
        assert flow.facts.certainty is not Certainty.CERTAIN
        assert told == []


def test_dns_needs_its_port_on_streams() -> None:
    flow, _ = seen(h.tcp_stream([(">", 0, message(1, 0x0100, b"one"))], port=5300))
    assert flow.application == ""


PIECES = st.lists(
    st.tuples(
        st.sampled_from("<>"),
        st.one_of(
            st.sampled_from(
                (get("/"), ok(b"ab"), ok(CHUNKED, "Transfer-Encoding: chunked"), CHUNKED, b"\r\n")
            ),
            st.sampled_from(
                (b"HEAD / HTTP/1.1\r\n\r\n", b"CONNECT a HTTP/1.1\r\n\r\n", b"HTTP/1.1 304 \r\n\r\n")
            ),
            st.sampled_from((message(1, 0x0100, b"one"), message(1, 0x8180, b"one", A))),
            st.binary(max_size=5),
        ),
    ),
    max_size=24,
)


@given(PIECES, st.sampled_from((53, 80)), st.integers(1, 200))
def test_both_desks_agree_on_any_talk(said: list[tuple[str, bytes]], port: int, step: int) -> None:
    at = {"<": 0, ">": 0}
    segments = []
    for way, data in said:
        for begin in range(0, len(data), step):
            piece = data[begin : begin + step]
            segments.append((way, at[way], piece))
            at[way] += len(piece)
    same(h.tcp_stream(segments, port=port), ON)
