"""JA4 and JA3 beside Wireshark's, wherever it has them; tests/interop/install_tshark fetches it."""

from __future__ import annotations

import ipaddress
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sealwire.probe import read
from sealwire.probe.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FIELDS = (
    *("ip.src", "ipv6.src", "udp.srcport", "tcp.srcport", "ip.dst", "ipv6.dst", "udp.dstport", "tcp.dstport"),
    *("tls.handshake.ja4", "dtls.handshake.ja4", "tls.handshake.ja3", "dtls.handshake.ja3"),
)
# TLS inside RDP's own first packets: the flow is RDP.
OTHERWISE = {"rdp.pcap": 1}


@pytest.fixture(scope="module")
def tshark() -> Path:
    peers = Path(os.environ.get("SEALWIRE_PEERS") or ROOT / ".cache/peers")
    program = peers / "tshark/run"
    if not program.exists():
        if os.environ.get("SEALWIRE_REQUIRE_PEERS") == "1" and (peers / "tshark").exists():
            pytest.fail("tests/interop/install_tshark left no program")
        pytest.skip("absent: tshark >= 4.2 (tests/interop/install_tshark)")
    return program


def hellos(tshark: Path, capture: Path) -> list[dict[str, str]]:
    command = [str(tshark), "-r", str(capture), "-Y", "tls.handshake.ja4 or dtls.handshake.ja4"]
    command += ["-T", "fields", "-E", "occurrence=f", "-d", "udp.port==4433,dtls"]
    for name in FIELDS:
        command += ["-e", name]
    if "dtls13" not in str(capture):
        command.remove("-d")
        command.remove("udp.port==4433,dtls")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in done.stdout.splitlines()]


Key = tuple[frozenset[tuple[Any, int]], int]


def key_of(hello: dict[str, str]) -> Key:
    ends = frozenset(
        (
            ipaddress.ip_address(hello[f"ip.{way}"] or hello[f"ipv6.{way}"]),
            int(hello[f"udp.{way}port"] or hello[f"tcp.{way}port"]),
        )
        for way in ("src", "dst")
    )
    return ends, 17 if hello["udp.srcport"] else 6


@pytest.mark.interop
def test_every_first_hello_has_wiresharks_fingerprints(shared_data: Path, tshark: Path) -> None:
    compared, otherwise = 0, Counter[str]()
    captures = [*(shared_data / "probe").glob("*.pcap*"), *(shared_data / "dtls13").rglob("*.pcap")]
    captures = [
        capture for capture in captures if capture.name != "vxlan.pcap"
    ]  # tunnels: tshark shows both ends
    for capture in captures:
        settings = Settings(dissect=True).without_timeouts()
        ours: dict[Key, dict[str, Any]] = {}
        for flow in read(capture, settings=settings):
            ends = frozenset(
                (ipaddress.ip_address(address), port)
                for address, port in (
                    (flow.source, flow.source_port),
                    (flow.destination, flow.destination_port),
                )
            )
            ours[ends, flow.protocol] = flow.facts.as_dict()
        seen: set[Key] = set()
        for hello in hellos(tshark, capture):
            key = key_of(hello)
            if key in seen:
                continue
            seen.add(key)
            compared += 1
            theirs = [
                hello[f"tls.handshake.{name}"] or hello[f"dtls.handshake.{name}"] for name in ("ja4", "ja3")
            ]
            facts = ours.get(key, {})
            if [facts.get("ja4"), facts.get("ja3")] != theirs:
                otherwise[capture.name] += 1
    assert dict(otherwise) == OTHERWISE
    assert compared > 500
