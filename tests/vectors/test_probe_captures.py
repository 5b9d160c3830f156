"""Captures and expected flows of others: an independent script's flow lists, truth files, nothing skipped.

shared/data/probe/MANIFEST.md says where they come from and how they are to be compared.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from sealwire.probe import Flow, read
from sealwire.probe.settings import Settings
from tests.unit.probe.packets import NO_TIMEOUTS, TABLES
from tests.unit.probe.twins import same, walk

LISTED = [
    *("chrome-cloudflare-quic-with-secrets.pcapng", "coap_mqtt.pcap", "dns.pcap", "dns_dot.pcap"),
    *(f"community-id-{name}.pcap" for name in ("icmp", "icmp6", "ipv6", "rsvp", "sctp", "tcp", "udp")),
    *("dtls13-cid.pcap", "dtls13-wolfssl.pcap", "dtls2.pcap", "dtls_certificate_fragments.pcap"),
    *("fuzz-2006-06-26-2594.pcap", "http1-with-cookies.pcapng", "http_ipv6.pcap", "modbus.pcap", "mqtt.pcap"),
    *("quic-v2.pcapng", "quic_frags_ch_in_multiple_packets.pcapng", "rdp.pcap", "smb_deletefile.pcap"),
    *("ssh.pcap", "stun.pcap", "synscan.pcap", "tls-handshake.pcapng", "tls12.pcap", "vxlan.pcap"),
    "wireguard.pcap",
]
GENERATED = ["gen-mix-800.pcap", "gen-cid-rebind.pcap"]

# The list's times are wrong for the second interface of this file (nanoseconds read as microseconds);
# tshark's are ours.
WRONG_TIMES = {"stun.pcap": 2}

SETTINGS = [
    Settings(),
    NO_TIMEOUTS,
    Settings(idle_timeout=0.5, active_timeout=2, linger=0.01, first_packets=5, tunnels=True),
    Settings(max_flows=7),
    Settings(max_bytes=65_536, tunnels=True, first_packets=255),
]


def as_listed(flow: Flow) -> dict[str, Any]:
    return {
        "src": flow.source,
        "sport": flow.source_port,
        "dst": flow.destination,
        "dport": flow.destination_port,
        "proto": flow.protocol,
        "pkts_c2s": flow.forward_packets,
        "pkts_s2c": flow.backward_packets,
        "bytes_c2s": flow.forward_bytes,
        "bytes_s2c": flow.backward_bytes,
        "flags_c2s": flow.forward_tcp_flags,
        "flags_s2c": flow.backward_tcp_flags,
        "vlan": flow.vlans,
        "community_id": flow.community_id,
    }


def test_every_flow_list_is_compared(shared_data: Path) -> None:
    lists = {
        path.name.removesuffix(".flows.jsonl")
        for path in (shared_data / "probe/expected").glob("*.flows.jsonl")
    }
    assert lists == set(LISTED)
    assert len(LISTED) == 31


@pytest.mark.parametrize("name", LISTED)
def test_flows_are_those_of_the_list(shared_data: Path, name: str) -> None:
    lines = (shared_data / "probe/expected" / f"{name}.flows.jsonl").read_text("utf-8").splitlines()
    summary, *listed = [json.loads(line) for line in lines]
    reading = read(shared_data / "probe" / name, settings=NO_TIMEOUTS)
    found = sorted(reading, key=lambda flow: flow.first_packet)
    times = [(flow["first"] * 1e6, flow["last"] * 1e6) for flow in listed]
    for flow in listed:
        del flow["first"], flow["last"]
    assert [as_listed(flow) for flow in found] == listed
    assert reading.counters.packets == summary["packets"]
    assert reading.counters.flow_packets == summary["ip_packets"] - summary["frag_tail"]
    assert reading.note == ""
    ours = [(flow.first / 1e3, flow.last / 1e3) for flow in found]
    wrong = [pair for pair in zip(ours, times, strict=True) if pair[0] != pytest.approx(pair[1], abs=2)]
    assert len(wrong) == WRONG_TIMES.get(name, 0)


@pytest.mark.parametrize("name", GENERATED)
def test_packets_and_bytes_are_those_of_the_truth(shared_data: Path, name: str) -> None:
    """The truth counts whole frames; a line may be a connection that changed its addresses."""
    lines = (shared_data / "probe/expected" / f"{name.removesuffix('.pcap')}.truth.jsonl").read_text("utf-8")
    reading = read(shared_data / "probe" / name, settings=NO_TIMEOUTS)
    found: dict[str, list[int]] = {}
    for flow in reading:
        total = found.setdefault(flow.community_id, [0, 0])
        total[0] += flow.packets
        total[1] += flow.forward_wire_bytes + flow.backward_wire_bytes
    expected = 0
    for line in map(json.loads, lines.splitlines()):
        ids = [one["community_id"] for one in line.get("tuples", [line])]
        totals = [found.pop(one) for one in ids]
        assert [sum(total) for total in zip(*totals, strict=True)] == [line["packets"], line["bytes"]]
        expected += line["packets"]
    assert found == {}
    assert expected == reading.counters.packets == reading.counters.flow_packets


@pytest.mark.parametrize("name", [*LISTED, *GENERATED])
@pytest.mark.skipif(len(TABLES) == 1, reason="the compiled modules are not built")
def test_both_tables_agree_byte_for_byte(shared_data: Path, name: str) -> None:
    capture = (shared_data / "probe" / name).read_bytes()[:1_000_000]
    for settings in SETTINGS:
        walked = same(capture, settings)
        counters = walked.counters
        discards = sum(n for key, n in counters.items() if key.startswith("discard."))
        assert counters["packets"] == counters["flow_packets"] + discards
        assert counters["flows"] == counters["exported"]
        assert counters["active"] == counters["held_bytes"] == 0


@pytest.mark.parametrize("name", LISTED)
@pytest.mark.skipif(len(TABLES) == 1, reason="the compiled modules are not built")
def test_both_tables_agree_on_damaged_captures(shared_data: Path, name: str) -> None:
    chance = random.Random(name)
    whole = (shared_data / "probe" / name).read_bytes()[:200_000]
    for _ in range(6):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 5, 50, 500))):
            damaged[chance.randrange(24, len(damaged))] = chance.choice((0, 255, chance.randrange(256)))
        same(
            bytes(damaged[: chance.choice((len(damaged), chance.randrange(len(damaged))))]),
            chance.choice(SETTINGS),
        )


@pytest.mark.parametrize("name", ["gen-mix-800.pcap", "synscan.pcap", "fuzz-2006-06-26-2594.pcap"])
def test_the_order_does_not_depend_on_keys_budgets_or_workers(shared_data: Path, name: str) -> None:
    path = shared_data / "probe" / name
    capture = path.read_bytes()
    settings = Settings(idle_timeout=0.05, linger=0.02)
    reference = walk(TABLES[0], capture, settings).rows
    assert walk(TABLES[0], capture, settings, key=os.urandom(16), budget=77).rows == reference
    for workers in (1, 2, 3):
        batches = read(path, settings=settings, workers=workers).batches()
        assert b"".join(batch.rows for batch in batches) == reference
