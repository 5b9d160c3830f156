"""Features recomputed from the fields tshark reads out of packets; and its TCP analysis beside ours."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sealwire.probe import Flow, read
from tests.unit.probe import packets as p
from tests.unit.probe.packets import NO_TIMEOUTS

CAPTURES = [
    "ssh.pcap",
    "http_ipv6.pcap",
    "coap_mqtt.pcap",
    "rdp.pcap",
    "chrome-cloudflare-quic-with-secrets.pcapng",
]

FIELDS = [
    *("frame.number", "frame.time_epoch", "frame.len", "ip.src", "ipv6.src", "ip.dst", "ipv6.dst", "ip.len"),
    *(
        "ipv6.plen",
        "ip.ttl",
        "ipv6.hlim",
        "ip.dsfield",
        "ipv6.tclass",
        "ip.proto",
        "tcp.srcport",
        "tcp.dstport",
    ),
    *(
        "udp.srcport",
        "udp.dstport",
        "udp.length",
        "tcp.len",
        "tcp.flags",
        "tcp.window_size_value",
        "tcp.seq_raw",
    ),
    *(
        "tcp.ack_raw",
        "tcp.analysis.retransmission",
        "tcp.analysis.out_of_order",
        "tcp.analysis.spurious_retransmission",
    ),
]


@dataclass
class Seen:
    """One direction, from the fields."""

    sizes: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    payload: list[int] = field(default_factory=list)
    ttls: list[int] = field(default_factory=list)
    windows: list[int] = field(default_factory=list)
    flags: int = 0
    tos: int = 0
    retransmissions: list[int] = field(default_factory=list)
    out_of_order: list[int] = field(default_factory=list)

    def features(self) -> dict[str, float]:
        gaps = [max(b - a, 0) for a, b in zip(self.times, self.times[1:], strict=False)]
        n = len(self.sizes)

        def variance(values: list[int]) -> float:
            squares, count = sum(value * value for value in values), len(values)
            return (count * squares - sum(values) ** 2) / count**2 if values else 0.0

        return {
            "packets": n,
            "bytes": sum(self.sizes),
            "wire_bytes": sum(self.frames),
            "payload_bytes": sum(self.payload),
            "first": self.times[0] if n else 0,
            "last": max(self.times, default=0),
            "size_min": min(self.sizes, default=0),
            "size_max": max(self.sizes, default=0),
            "gap_min": min(gaps, default=-1),
            "gap_max": max(gaps, default=-1),
            "gap_sum": sum(gaps),
            "ttl_min": min(self.ttls, default=0),
            "ttl_max": max(self.ttls, default=0),
            "window_min": min(self.windows, default=0),
            "window_max": max(self.windows, default=0),
            "tcp_flags": self.flags,
            "tos": self.tos,
            "size_variance": variance(self.sizes),
            "gap_variance": variance(gaps),
            "size_mean": sum(self.sizes) / n if n else 0.0,
            "gap_mean": sum(gaps) / len(gaps) if gaps else 0.0,
        }


Key = tuple[str, str, int, int, int]


def nanoseconds(text: str) -> int:
    seconds, _, rest = text.partition(".")
    return int(seconds) * 10**9 + int(rest.ljust(9, "0")[:9])


def dissected(tshark: str, path: Path) -> dict[Key, tuple[Seen, Seen]]:
    command = [tshark, "-n", "-r", str(path), "-T", "fields", "-E", "separator=|", "-E", "occurrence=f"]
    command += ["-o", "tcp.relative_sequence_numbers:FALSE"]
    for name in FIELDS:
        command += ["-e", name]
    out = subprocess.run(command, capture_output=True, check=True, timeout=120).stdout.decode()
    found: dict[Key, tuple[Seen, Seen]] = {}
    for line in out.splitlines():
        got = dict(zip(FIELDS, line.split("|"), strict=True))
        source, destination = got["ip.src"] or got["ipv6.src"], got["ip.dst"] or got["ipv6.dst"]
        if not source or not (got["tcp.srcport"] or got["udp.srcport"]):
            continue
        tcp = bool(got["tcp.srcport"])
        ports = [int(got[("tcp" if tcp else "udp") + end]) for end in (".srcport", ".dstport")]
        key = (source, destination, ports[0], ports[1], 6 if tcp else 17)
        back = (destination, source, ports[1], ports[0], key[4])
        way = found[back][1] if back in found else found.setdefault(key, (Seen(), Seen()))[0]
        way.sizes.append(int(got["ip.len"] or 0) or int(got["ipv6.plen"]) + 40)
        way.frames.append(int(got["frame.len"]))
        way.times.append(nanoseconds(got["frame.time_epoch"]))
        way.ttls.append(int(got["ip.ttl"] or got["ipv6.hlim"]))
        if len(way.sizes) == 1:
            way.tos = int(got["ip.dsfield"] or got["ipv6.tclass"], 0)
        way.payload.append(int(got["tcp.len"]) if tcp else int(got["udp.length"]) - 8)
        if tcp:
            flags = int(got["tcp.flags"], 0) & 0xFF
            way.flags |= flags
            if not flags & 4:
                way.windows.append(int(got["tcp.window_size_value"]))
            number = int(got["frame.number"])
            if got["tcp.analysis.retransmission"] or got["tcp.analysis.spurious_retransmission"]:
                way.retransmissions.append(number)
            if got["tcp.analysis.out_of_order"]:
                way.out_of_order.append(number)
    return found


def key_of(flow: Flow) -> Key:
    return flow.source, flow.destination, flow.source_port, flow.destination_port, flow.protocol


def ours(flow: Flow, way: str) -> dict[str, float]:
    methods = {"size_mean": flow.mean_size, "gap_mean": flow.mean_gap}
    methods |= {"size_variance": flow.size_variance, "gap_variance": flow.gap_variance}
    names = Seen().features()
    return {name: methods[name](way) if name in methods else getattr(flow, f"{way}_{name}") for name in names}


@pytest.mark.parametrize("name", CAPTURES)
def test_features_are_those_of_the_fields(
    shared_data: Path, program: Callable[[str], str], name: str
) -> None:
    path = shared_data / "probe" / name
    seen = dissected(program("tshark"), path)
    flows = {key_of(flow): flow for flow in read(path, settings=NO_TIMEOUTS) if flow.protocol in (6, 17)}
    assert set(flows) == set(seen)
    for key, ways in seen.items():
        for way, direction in zip(("forward", "backward"), ways, strict=True):
            assert ours(flows[key], way) == direction.features(), (key, way)


@pytest.mark.parametrize(
    "name", [*CAPTURES, "smb_deletefile.pcap", "stun.pcap", "mqtt.pcap", "gen-mix-800.pcap"]
)
def test_tcp_analysis_agrees_on_captures(shared_data: Path, program: Callable[[str], str], name: str) -> None:
    path = shared_data / "probe" / name
    seen = dissected(program("tshark"), path)
    for flow in read(path, settings=NO_TIMEOUTS):
        for way, direction in zip(("forward", "backward"), seen.get(key_of(flow), ()), strict=False):
            counted = getattr(flow, f"{way}_retransmissions"), getattr(flow, f"{way}_out_of_order")
            assert counted == (len(direction.retransmissions), len(direction.out_of_order)), (
                key_of(flow),
                way,
            )


# Segments 0..9 of 100 bytes as they pass the probe, 20 ms apart unless said: (number, milliseconds).
# What happened is known, because it was made; then what we count, and what tshark counts:
# retransmissions, out of order.
STORIES: dict[str, tuple[list[tuple[int, int]], tuple[int, int], tuple[int, int], str]] = {
    "sent twice": (
        [(0, 20), (1, 20), (1, 300), (2, 20)],
        (1, 0),
        (1, 0),
        "both right",
    ),
    "overtaken by one, at once": (
        [(0, 20), (2, 1), (1, 1), (3, 20)],
        (0, 1),
        (0, 1),
        "both right",
    ),
    "overtaken by one, slowly": (
        [(0, 20), (2, 20), (1, 100), (3, 20)],
        (0, 1),
        (1, 0),
        "the network swapped them; tshark takes what is late for sent again, which nothing in it says",
    ),
    "lost before the probe and sent again": (
        [(0, 20), (2, 20), (3, 20), (1, 400), (4, 20)],
        (0, 1),
        (1, 0),
        "sent again, and tshark is right; the probe saw these bytes once and does not guess from time",
    ),
    "half of it new": (
        [(0, 20), (1, 20), (-1, 20), (3, 20)],
        (1, 0),
        (0, 1),
        "bytes 150 to 250, of which 50 had been seen: no swap makes that; tshark goes by the round trip",
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_tcp_analysis_beside_ours_where_the_truth_is_known(
    tmp_path: Path, program: Callable[[str], str], name: str
) -> None:
    steps, expected, theirs, _ = STORIES[name]
    now = 0.0
    told = [
        (0.00, ">", p.tcp(1000, 80, p.SYN, seq=99)),
        (0.03, "<", p.tcp(80, 1000, p.SYN | p.ACK, seq=499, ack=100)),
        (0.06, ">", p.tcp(1000, 80, p.ACK, seq=100, ack=500)),
    ]
    now = 0.06
    for number, wait in steps:
        now += wait / 1000
        start = 150 if number < 0 else 100 * number
        told.append((now, ">", p.tcp(1000, 80, p.ACK | p.PSH, seq=100 + start, ack=500, data=b"x" * 100)))
    path = tmp_path / "story.pcap"
    path.write_bytes(p.pcap(p.conversation(*told)))
    (flow,) = read(path)
    assert (flow.forward_retransmissions, flow.forward_out_of_order) == expected
    ((forward, _),) = dissected(program("tshark"), path).values()
    assert (len(forward.retransmissions), len(forward.out_of_order)) == theirs
