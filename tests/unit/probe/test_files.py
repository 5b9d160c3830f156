"""Capture files: formats, byte orders, clocks, several interfaces, and every way of being damaged."""

from __future__ import annotations

import io
import struct

import pytest

from sealwire.errors import ConfigurationError
from sealwire.probe import read
from sealwire.probe.capture import CaptureError, bpf
from sealwire.probe.discards import PacketDiscard
from sealwire.probe.settings import Settings
from tests.unit.probe import packets as p
from tests.unit.probe.twins import same

FRAME = p.ethernet(p.ip4("10.0.0.1", "10.0.0.2", 17, p.udp(1, 2, b"x")))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_pcap_in_both_orders_and_resolutions(order: str, nano: bool) -> None:
    time = p.START + 123_456_789
    (flow,) = p.flows_of(p.pcap([(time, FRAME)], order=order, nano=nano))
    assert flow.first == (time if nano else time // 1000 * 1000)
    assert (flow.source, flow.source_port, flow.forward_payload_bytes) == ("10.0.0.1", 1, 1)


@pytest.mark.parametrize("order", ["<", ">"])
def test_kuznetzovs_records_are_longer(order: str) -> None:
    head = struct.pack(order + "IHHiIII", 0xA1B2CD34, 2, 4, 0, 0, 65535, 1)
    record = struct.pack(order + "IIII", 5, 6, len(FRAME), len(FRAME)) + bytes(8) + FRAME
    (flow,) = p.flows_of(head + record + record)
    assert flow.packets == 2
    assert flow.first == 5_000_006_000


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("resolution", "unit"),
    [(None, 10**6), (6, 10**6), (9, 10**9), (3, 1000), (0x80 | 20, 1 << 20), (12, 10**12)],
)
def test_pcapng_clocks(order: str, resolution: int | None, unit: int) -> None:
    options = b"" if resolution is None else struct.pack(order + "HHB3x", 9, 1, resolution)
    options += struct.pack(order + "HHq", 14, 8, 100)  # seconds added
    options += struct.pack(order + "HH", 0, 0)
    capture = p.section(order) + p.interface(order=order, options=options)
    seconds = 1_700_000_000 if unit < 10**12 else 17_000_000  # what fits
    capture += p.enhanced(0, seconds * unit + unit // 4, FRAME, order)
    (flow,) = p.flows_of(capture)
    assert flow.first == (seconds + 100) * p.SECOND + p.SECOND // 4


def test_pcapng_interfaces_sections_and_block_types() -> None:
    bare = FRAME[14:]
    other = p.block(0xBAD, b"whatever")
    simple = p.block(3, struct.pack("<I", len(bare)) + bare)
    old = p.block(2, struct.pack("<HHIIII", 1, 7, 0, 9, len(FRAME), len(FRAME)) + FRAME)
    capture = p.section() + p.interface(101) + other + p.interface(1)
    capture += p.enhanced(1, 5, FRAME) + p.enhanced(0, 6, bare) + simple + old
    capture += p.section(">") + p.interface(1, order=">") + p.enhanced(0, 8, FRAME, ">")
    walked = same(capture, p.NO_TIMEOUTS)
    assert walked.counters["flow_packets"] == 5
    (flow,) = p.flows_of(capture, settings=p.NO_TIMEOUTS)
    assert flow.packets == 5
    assert (flow.first, flow.last) == (5000, 9000)


def test_a_packet_of_no_described_interface_is_counted() -> None:
    walked = same(p.section() + p.enhanced(3, 5, FRAME), Settings())
    assert walked.counters["discard.unknown_interface"] == walked.counters["packets"] == 1


@pytest.mark.parametrize("size", range(0, 200, 7))
def test_every_piece_of_a_file_gives_what_is_there(size: int) -> None:
    whole = p.pcap([(p.START, FRAME)] * 4)
    piece = whole[:size]
    if size < 24:
        with pytest.raises(CaptureError, match=r"fewer than 4 bytes|ends inside its header"):
            p.flows_of(piece)
        return
    reading = read(io.BytesIO(piece))
    packets = sum(flow.packets for flow in reading)
    assert packets == (size - 24) // (16 + len(FRAME))
    assert bool(reading.note) == bool((size - 24) % (16 + len(FRAME)))


def test_absurd_lengths_end_the_reading_and_are_said() -> None:
    record = struct.pack("<IIII", 1, 1, 0xFFFFFFFF, 0xFFFFFFFF)
    reading = read(io.BytesIO(p.pcap([(p.START, FRAME)]) + record + bytes(100)))
    assert [flow.packets for flow in reading] == [1]
    assert "damaged" in reading.note
    for length in (0, 8, 13, 0x7FFFFFFC):
        block = struct.pack("<II", 6, length) + bytes(60)
        reading = read(io.BytesIO(p.section() + p.interface() + p.enhanced(0, 1, FRAME) + block))
        assert [flow.packets for flow in reading] == [1]
        assert "damaged" in reading.note


@pytest.mark.parametrize(
    "data", [b"", b"abc", b"nonsense that is long enough", b"\x0a\x0d\x0d\x0a" + bytes(60)]
)
def test_what_is_no_capture(data: bytes) -> None:
    if data[:1] == b"\x0a":
        reading = read(io.BytesIO(data))
        assert list(reading) == []
        assert "damaged" in reading.note
    else:
        with pytest.raises(CaptureError):
            list(read(io.BytesIO(data)))


def test_interfaces_are_bounded() -> None:
    reading = read(io.BytesIO(p.section() + p.interface() * 5000))
    assert list(reading) == []
    assert "4096 interfaces" in reading.note


def test_times_beyond_reason_are_cut_and_counted() -> None:
    capture = p.section() + p.interface() + p.enhanced(0, (1 << 64) - 1, FRAME) + p.enhanced(0, 1, FRAME)
    walked = same(capture, Settings())
    assert walked.counters["clamped_times"] == 1
    assert walked.counters["backwards"] == 1
    negative = struct.pack("<HHqHH", 14, 8, -(1 << 62), 0, 0)
    walked = same(p.section() + p.interface(options=negative) + p.enhanced(0, 7, FRAME), Settings())
    assert walked.counters["clamped_times"] == 1


class Trickle(io.RawIOBase):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, n: int = -1) -> bytes:
        return self._data.read(5)


def test_a_stream_in_small_pieces_gives_the_same() -> None:
    for capture in (
        p.pcap([(p.START + n, FRAME) for n in range(20)]),
        p.section() + p.interface() + p.enhanced(0, 4, FRAME) * 9,
    ):
        whole = p.flows_of(capture)
        assert list(read(Trickle(capture))) == whole  # type: ignore[arg-type]


def test_a_reading_is_read_once() -> None:
    reading = read(io.BytesIO(p.pcap([(p.START, FRAME)])))
    assert len(list(reading)) == 1
    with pytest.raises(ValueError, match="read once"):
        list(reading)


needs_libpcap = pytest.mark.skipif(not bpf.available(), reason="absent: libpcap")


@needs_libpcap
@pytest.mark.parametrize(("link", "frame"), [(1, FRAME), (101, FRAME[14:]), (0, b"\2\0\0\0" + FRAME[14:])])
def test_filters_leave_packets_out_and_count_them(link: int, frame: bytes) -> None:
    capture = p.pcap([(p.START, frame)] * 3, link)
    reading = read(io.BytesIO(capture), bpf="udp dst port 2")
    assert [flow.packets for flow in reading] == [3]
    reading = read(io.BytesIO(capture), bpf="tcp")
    assert list(reading) == []
    assert reading.counters.discards == {PacketDiscard.FILTERED: 3}


@needs_libpcap
def test_both_tables_filter_alike() -> None:
    from sealwire.probe import files

    capture = p.pcap(
        [(p.START, FRAME), (p.START, p.ethernet(p.ip4("1.2.3.4", "5.6.7.8", 6, p.tcp(1, 2, 2))))]
    )
    program = bpf.Program("tcp", 1)
    counted = []
    for kind in p.TABLES:
        begun = files.begin(memoryview(capture), True)
        assert begun is not None
        table = kind(Settings())
        table.feed(begun[0], memoryview(capture), begun[1], 100, [program])
        counted.append(table.counters().snapshot())
    assert counted[0]["discard.filtered"] == 1
    assert all(other == counted[0] for other in counted)


@needs_libpcap
@pytest.mark.parametrize("expression", ["tcp prot 5", "port 99999999", "\0", "("])
def test_a_wrong_filter_is_said_at_once(expression: str) -> None:
    with pytest.raises(ConfigurationError):
        read(io.BytesIO(b""), bpf=expression)


def test_without_libpcap_filters_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise OSError(name)

    bpf._library.cache_clear()
    monkeypatch.setattr("ctypes.CDLL", absent)
    try:
        assert not bpf.available()
        with pytest.raises(ConfigurationError, match="libpcap"):
            bpf.Program("tcp", 1)
    finally:
        bpf._library.cache_clear()
