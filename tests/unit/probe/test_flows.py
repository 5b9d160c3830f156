"""The table: directions, ends, limits, order; and each feature against a story whose numbers are known."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.probe.features import FIELDS, EndReason, Flow, Mark, row_struct, unpack
from sealwire.probe.settings import Settings
from tests.unit.probe import packets as p
from tests.unit.probe.twins import same

ROOT = Path(__file__).resolve().parents[3]
MS = 1_000_000


def story(*steps: tuple[float, str, bytes], settings: Settings | None = None) -> list[Flow]:
    """The flows of a conversation; both tables must agree on them."""
    chosen = settings or Settings()
    return list(unpack(same(p.pcap(p.conversation(*steps)), chosen).rows, chosen.first_packets))


def handshake() -> list[tuple[float, str, bytes]]:
    return [
        (0.000, ">", p.tcp(1000, 80, p.SYN, seq=100)),
        (0.030, "<", p.tcp(80, 1000, p.SYN | p.ACK, seq=500, ack=101)),
        (0.040, ">", p.tcp(1000, 80, p.ACK, seq=101, ack=501)),
    ]


def whole() -> list[tuple[float, str, bytes]]:
    return [
        *handshake(),
        (0.050, ">", p.tcp(1000, 80, p.PSH | p.ACK, seq=101, ack=501, data=b"a" * 10, window=500)),
        (0.090, "<", p.tcp(80, 1000, p.PSH | p.ACK, seq=501, ack=111, data=b"b" * 100, window=0)),
        (0.100, ">", p.tcp(1000, 80, p.FIN | p.ACK, seq=111, ack=601)),
        (0.110, "<", p.tcp(80, 1000, p.FIN | p.ACK, seq=601, ack=112)),
        (0.120, ">", p.tcp(1000, 80, p.ACK, seq=112, ack=602)),
    ]


def test_a_whole_connection() -> None:
    (flow,) = story(*whole())
    assert flow.reason is EndReason.FIN
    assert (flow.forward_packets, flow.backward_packets) == (5, 3)
    assert (flow.forward_bytes, flow.backward_bytes) == (5 * 40 + 10, 3 * 40 + 100)
    assert flow.forward_wire_bytes == flow.forward_bytes + 5 * 14
    assert (flow.forward_payload_bytes, flow.backward_payload_bytes) == (10, 100)
    assert (flow.handshake_server, flow.handshake_client, flow.response) == (30 * MS, 10 * MS, 40 * MS)
    assert (flow.conn_state, flow.history) == ("SF", "ShADdwFf")
    assert not flow.midstream
    assert not flow.one_way
    assert (flow.duration, flow.first, flow.last) == (120 * MS, p.START, p.START + 120 * MS)
    assert (flow.forward_window_min, flow.forward_window_max, flow.backward_window_min) == (500, 1000, 0)
    assert flow.backward_zero_windows == 1
    assert flow.forward_tcp_flags == p.SYN | p.ACK | p.PSH | p.FIN
    assert (flow.forward_gap_min, flow.forward_gap_max, flow.forward_gap_sum) == (10 * MS, 50 * MS, 120 * MS)
    sizes = [40, 40, 50, 40, 40]
    mean = sum(sizes) / 5
    assert flow.mean_size() == mean
    assert flow.size_variance() == pytest.approx(sum((size - mean) ** 2 for size in sizes) / 5)
    gaps = [40, 10, 50, 20]
    assert flow.mean_gap() == 30 * MS
    assert flow.gap_variance() == pytest.approx(sum((gap - 30) ** 2 for gap in gaps) / 4 * MS**2)
    assert flow.forward_retransmissions == flow.forward_out_of_order == flow.forward_holes == 0


@pytest.mark.parametrize(
    ("steps", "state", "history"),
    [
        (handshake()[:1], "S0", "S"),
        (handshake(), "S1", "ShA"),
        ([*handshake(), (1, ">", p.tcp(1000, 80, p.FIN | p.ACK, seq=101))], "S2", "ShAF"),
        ([*handshake(), (1, "<", p.tcp(80, 1000, p.FIN | p.ACK, seq=501))], "S3", "ShAf"),
        ([*handshake(), (1, ">", p.tcp(1000, 80, p.RST, seq=101))], "RSTO", "ShAR"),
        ([*handshake(), (1, "<", p.tcp(80, 1000, p.RST, seq=501))], "RSTR", "ShAr"),
        ([handshake()[0], (1, "<", p.tcp(80, 1000, p.RST | p.ACK))], "REJ", "Sr"),
        ([handshake()[0], (1, ">", p.tcp(1000, 80, p.RST))], "RSTOS0", "SR"),
        ([handshake()[0], (1, ">", p.tcp(1000, 80, p.FIN, seq=101))], "SH", "SF"),
        ([handshake()[1], (1, "<", p.tcp(80, 1000, p.FIN, seq=501))], "SHR", "HF"),
        ([handshake()[1], (1, "<", p.tcp(80, 1000, p.RST, seq=501))], "RSTRH", "HR"),
        ([handshake()[2]], "OTH", "A"),
        ([(0, ">", p.tcp(1, 2, p.SYN | p.FIN))], "SH", "SIF"),
        ([(0, "|>", p.udp(1, 2, b"x"))], "S0", "D"),
        ([(0, "|>", p.udp(1, 2, b"x")), (0, "|<", p.udp(2, 1, b"x"))], "SF", "Dd"),
        ([(0, "|>", p.udp(1, 2))], "S0", ""),
    ],
)
def test_states_and_histories(steps: list[tuple[float, str, bytes]], state: str, history: str) -> None:
    (flow,) = story(*steps)
    assert (flow.conn_state, flow.history) == (state, history)


def data(at: float, seq: int, n: int = 100, flags: int = 16) -> tuple[float, str, bytes]:
    return at, ">", p.tcp(1000, 80, flags, seq=seq & 0xFFFFFFFF, data=b"x" * n)


@pytest.mark.parametrize(
    ("segments", "retransmissions", "out_of_order", "holes"),
    [
        ([0, 100, 200], 0, 0, 0),
        ([0, 100, 100, 200], 1, 0, 0),
        ([0, 200, 100, 300], 0, 1, 1),  # one overtook another
        ([0, 200, 300, 100, 100], 1, 1, 1),  # and then came again
        ([0, 200, 400, 100, 300], 0, 2, 2),
        ([0, 200, 400, 600, 100, 300, 500], 1, 2, 3),  # two holes are remembered
        ([-50, 50, 150, -50], 1, 0, 0),  # numbers wrap
        ([0, 50], 1, 0, 0),  # half of it is new
        ([0, 300, 150, 100, 250], 2, 1, 1),  # a hole filled from the middle: its later part is forgotten
    ],
)
def test_segments(segments: list[int], retransmissions: int, out_of_order: int, holes: int) -> None:
    (flow,) = story(*(data(number / 100, seq) for number, seq in enumerate(segments)))
    found = (flow.forward_retransmissions, flow.forward_out_of_order, flow.forward_holes)
    assert found == (retransmissions, out_of_order, holes)


def test_a_keep_alive_is_no_retransmission() -> None:
    (flow,) = story(data(0, 1), data(1, 100, 1), data(2, 100, 0))
    assert flow.forward_retransmissions == 0


def test_a_repeated_syn_is_measured_from_the_last() -> None:
    later = [(at + 1, way, payload) for at, way, payload in handshake()]
    (flow,) = story(handshake()[0], *later)
    assert flow.handshake_server == 30 * MS
    assert flow.forward_retransmissions == 1


def test_idle_flows_end_and_begin_again() -> None:
    first, second = story((0, "|>", p.udp(1, 2)), (300.0, "|<", p.udp(2, 1)))
    assert (first.reason, first.ended) == (EndReason.IDLE, p.START + 300 * p.SECOND)
    assert (second.reason, second.source) == (EndReason.INPUT_END, "10.0.0.2")
    (one,) = story((0, "|>", p.udp(1, 2)), (299.999, "|<", p.udp(2, 1)))
    assert one.packets == 2
    (one,) = story((0, "|>", p.udp(1, 2)), (9999, "|<", p.udp(2, 1)), settings=p.NO_TIMEOUTS)
    assert one.packets == 2


def test_long_flows_come_out_in_parts() -> None:
    steps = [(float(at), "|>", p.udp(1, 2)) for at in range(0, 50, 5)]
    parts = story(*steps, settings=Settings(active_timeout=20))
    assert [(flow.part, flow.packets, flow.reason) for flow in parts] == [
        (0, 4, EndReason.ACTIVE),
        (1, 4, EndReason.ACTIVE),
        (2, 2, EndReason.INPUT_END),
    ]
    assert [flow.marks for flow in parts] == [0, Mark.CONTINUED, Mark.CONTINUED]
    assert len({flow.flow_id for flow in parts}) == 3


def test_the_linger_takes_late_packets_and_a_new_syn_reopens() -> None:
    late = (0.9, "<", p.tcp(80, 1000, p.ACK, seq=602, ack=112))
    other = (5.0, "|>", p.udp(1, 2))
    first, _ = story(*whole(), late, other)
    assert (first.packets, first.ended) == (9, p.START + 110 * MS + p.SECOND)
    again = (0.95, ">", p.tcp(1000, 80, p.SYN, seq=9000))
    first, second = story(*whole(), late, again)
    assert (first.packets, first.reason, first.ended) == (9, EndReason.FIN, p.START + 950 * MS)
    assert (second.packets, second.midstream) == (1, False)
    after = (1.2, "<", p.tcp(80, 1000, p.ACK, seq=602, ack=112))
    _, stray = story(*whole(), after)
    assert stray.midstream
    (only,) = story(*whole(), after, again, settings=p.NO_TIMEOUTS)
    assert only.packets == 10


def test_a_reset_ends_a_flow() -> None:
    flow, _ = story(*handshake(), (1, "<", p.tcp(80, 1000, p.RST)), (9, "|>", p.udp(1, 2)))
    assert (flow.reason, flow.ended) == (EndReason.RST, p.START + 2 * p.SECOND)


def many(n: int, step: int = 1) -> bytes:
    frames = (
        p.ethernet(p.ip4(f"10.1.{i >> 8}.{i & 255}", "10.0.0.2", 6, p.tcp(i, 80, p.SYN))) for i in range(n)
    )
    return p.pcap((p.START + i * step, frame) for i, frame in enumerate(frames))


def test_a_full_table_exports_the_flow_idle_for_longest() -> None:
    walked = same(many(1000), Settings(max_flows=100))
    flows = list(unpack(walked.rows))
    assert walked.counters["end.evicted"] == 900
    assert walked.counters["peak"] == 100
    assert [flow.source_port for flow in flows] == list(range(1000))
    assert [flow.reason for flow in flows[:900]] == [EndReason.EVICTED] * 900


def test_memory_is_bounded_whatever_flows_do() -> None:
    frames = [p.ethernet(p.ip4(f"10.1.{i >> 8}.{i & 255}", "10.0.0.2", 17, p.udp(i, 80))) for i in range(400)]
    capture = p.pcap((p.START + n, frame) for n, frame in enumerate(frames * 5))
    walked = same(capture, Settings(max_bytes=65_536))
    assert walked.counters["peak_bytes"] <= 65_536
    assert walked.counters["flow_packets"] == 2000
    assert walked.counters["flows"] == walked.counters["exported"]


def test_the_sizes_promised_a_flow() -> None:
    """At most 256 bytes for a flow of one packet, 512 with all features."""
    one = same(many(1), Settings()).counters["peak_bytes"]
    two = same(p.pcap(p.conversation((0, "|>", p.udp(1, 2)), (0, "|<", p.udp(2, 1)))), Settings()).counters[
        "peak_bytes"
    ]
    assert (one, two) == (136, 512)


def test_time_that_goes_back_is_counted_and_breaks_nothing() -> None:
    steps = [
        (10, "|>", p.udp(1, 2)),
        (5, "|>", p.udp(1, 2)),
        (400, "|>", p.udp(3, 4)),
        (1, "|>", p.udp(1, 2)),
    ]
    walked = same(p.pcap(p.conversation(*steps)), Settings())
    assert walked.counters["backwards"] == 2
    flows = list(unpack(walked.rows))
    assert [flow.packets for flow in flows] == [2, 1, 1]
    assert (flows[0].forward_gap_min, flows[0].duration) == (0, 0)


def test_thousands_that_end_at_once_stay_in_order() -> None:
    capture = (
        many(20_000, step=0)
        + p.pcap([(p.START + 900 * p.SECOND, p.ethernet(p.ip4("1.1.1.1", "2.2.2.2", 6, p.tcp(1, 2, 2))))])[
            24:
        ]
    )
    flows = list(unpack(same(capture, Settings()).rows))
    assert [flow.first_packet for flow in flows] == list(range(1, 20_002))
    assert {flow.reason for flow in flows[:-1]} == {EndReason.IDLE}


def test_icmp_pairs_questions_with_answers() -> None:
    def icmp(kind: int, code: int = 0) -> bytes:
        return struct.pack("!BBHHH", kind, code, 0, 1, 1) + b"payload"

    ends = ("10.0.0.1", "10.0.0.2")
    frames = [
        p.ethernet(p.ip4(*ends, 1, icmp(8))),
        p.ethernet(p.ip4(*ends[::-1], 1, icmp(0))),
        p.ethernet(p.ip4(*ends, 1, icmp(3, 1))),
        p.ethernet(p.ip4(*ends[::-1], 1, icmp(3, 1))),
    ]
    flows = list(
        unpack(same(p.pcap((p.START + n, frame) for n, frame in enumerate(frames)), Settings()).rows)
    )
    assert [
        (flow.source_port, flow.destination_port, flow.forward_packets, flow.backward_packets)
        for flow in flows
    ] == [
        (8, 0, 1, 1),
        (3, 1, 1, 0),
        (3, 1, 1, 0),
    ]


def test_first_sizes_and_gaps_when_asked_for() -> None:
    steps = [(0, "|>", p.udp(1, 2, b"x" * 10)), (0.002, "|<", p.udp(2, 1)), (0.005, "|>", p.udp(1, 2))]
    (flow,) = story(*steps, settings=Settings(first_packets=2))
    assert flow.first_packets == [(38, 0), (-28, 2000)]
    (flow,) = story(*steps[:1], settings=Settings(first_packets=3))
    assert flow.first_packets == [(38, 0)]
    assert story(*steps)[0].first_packets == []


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.booleans(),
            st.integers(0, 63),
            st.integers(0, 400),
            st.integers(0, 30),
            st.integers(-5, 40),
        ),
        max_size=60,
    )
)
def test_both_tables_tell_any_story_alike(steps: list[tuple[int, bool, int, int, int, int]]) -> None:
    now, told = 50.0, []
    for port, back, flags, seq, size, wait in steps:
        now = max(now + wait / 10, 0)
        ports = (80, port) if back else (port, 80)
        told.append((now, "<" if back else ">", p.tcp(*ports, flags, seq=seq, ack=seq + 1, data=b"x" * size)))
    capture = p.pcap(p.conversation(*told))
    walked = same(
        capture, Settings(idle_timeout=3, active_timeout=9, linger=0.5, max_flows=3, first_packets=4)
    )
    assert walked.counters["flow_packets"] == len(steps)
    ended = [(flow.ended, flow.first_packet) for flow in unpack(walked.rows, 4)]
    assert ended == sorted(ended)


@pytest.mark.skipif(len(p.TABLES) == 1, reason="the compiled modules are not built")
def test_chosen_keys_cost_what_random_ones_cost() -> None:
    """Flows made to collide in plain hashes spread as well as others: no chain is long."""
    from sealwire.probe import _flows

    table = _flows.Table(Settings(), os.urandom(16))
    frames = (
        p.ethernet(
            p.ip4(
                f"10.0.{i >> 8}.{i & 255}",
                f"10.0.{(i ^ 0x5555) >> 8 & 255}.{(i ^ 0x5555) & 255}",
                17,
                p.udp(7, 7),
            )
        )
        for i in range(4096)
    )
    for n, frame in enumerate(frames):
        table.packet(memoryview(frame), len(frame), 1, p.START + n)
    # 2^12 flows (or half, where a pair is a flow and its way back) in as many buckets.
    assert table.longest_chain() < 16


def test_the_document_has_every_column_and_no_other() -> None:
    text = (ROOT / "docs/probe/features.md").read_text("utf-8")
    section = text.partition("## Columns")[2].partition("## Derived")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    documented = {row[0].strip("| `"): (row[1], row[2], row[3].rstrip(" |").strip()) for row in rows}
    declared = {field.name: (field.unit, field.meaning, field.ipfix) for field in FIELDS}
    assert documented == declared
    assert Flow._fields == (*(field.name for field in FIELDS), "first_sequence", "facts_block")
    assert row_struct().size == 368


def test_every_reason_is_documented() -> None:
    text = (ROOT / "docs/probe/features.md").read_text("utf-8")
    for reason in EndReason:
        assert f"| {int(reason)} `{reason.name.lower()}` |" in text
