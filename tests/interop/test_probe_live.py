"""Live capture between two network namespaces: what was sent is what is counted, and nothing is sent."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.namespaces import Pair, pair

PROBE = [sys.executable, "-m", "sealwire.cli", "--json", "probe", "-i", "right"]

# Raw frames, so that the kernels of both ends add nothing: UDP from 192.0.2.1 to an address nobody has.
SENDER = """
import socket, struct, sys, time
count, ports, tagged = map(int, sys.argv[1:])
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("left", 0))
for number in range(count):
    udp = struct.pack("!HHHH", 1024 + number % ports, 9, 8 + 100, 0) + bytes(100)
    ends = bytes((192, 0, 2, 1, 192, 0, 2, 99))
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), number & 0xFFFF, 0, 64, 17, 0) + ends
    tag = struct.pack("!HH", 0x8100, 42) if tagged else b""
    if number % 200 == 199:
        time.sleep(0.002)  # a kernel's backlog holds 1,000 packets, and a busy one is slow to empty it
    out.send(b"\\2\\0\\0\\0\\0\\2" + b"\\2\\0\\0\\0\\0\\1" + tag + b"\\x08\\0" + ip + udp)
"""


@pytest.fixture
def cable() -> Iterator[Pair]:
    if shutil.which("ip") is None:
        pytest.skip("absent: ip")
    if not hasattr(socket, "AF_PACKET"):
        pytest.skip("absent: AF_PACKET")
    with pair() as made:
        yield made


def capture(made: Pair, *arguments: str) -> subprocess.Popen[bytes]:
    started = subprocess.Popen(
        made.command("right", *PROBE, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert started.stdout is not None
    # It says so once its filter lets packets in.
    line = started.stdout.readline()
    if not line:
        raise AssertionError(started.communicate()[1].decode())
    assert json.loads(line) == {"event": "capturing", "interface": "right"}
    return started


def ended(started: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, err = started.communicate(timeout=40)
    assert started.returncode == 0, err.decode()
    summary: dict[str, Any] = json.loads(out)
    return summary


def received(made: Pair, side: str) -> int:
    text = made.run(
        side, "cat", f"/sys/class/net/{side}/statistics/{'tx' if side == 'right' else 'rx'}_packets"
    ).stdout
    return int(text)


def test_every_packet_sent_is_counted_and_none_is_sent(cable: Pair, tmp_path: Path) -> None:
    before = received(cable, "right")
    flows = tmp_path / "flows.json"
    running = capture(cable, "--packets", "5000", "--seconds", "30", "-f", "udp", "-w", str(flows))
    cable.run("left", sys.executable, "-c", SENDER, "5000", "10", "0")
    summary = ended(running)
    assert summary["packets"] == summary["flow_packets"] == summary["kernel_packets"] == 5000
    assert summary["kernel_drops"] == 0
    records = [json.loads(line) for line in flows.read_text("ascii").splitlines()]
    assert [record["flow"]["pkts_toserver"] for record in records] == [500] * 10
    assert {record["flow"]["bytes_toserver"] for record in records} == {500 * 142}
    assert received(cable, "right") == before


def test_tags_the_kernel_takes_away_are_put_back(cable: Pair, tmp_path: Path) -> None:
    flows = tmp_path / "flows.json"
    running = capture(cable, "--packets", "20", "--seconds", "30", "-w", str(flows), "-f", "udp")
    cable.run("left", sys.executable, "-c", SENDER, "20", "1", "1")
    ended(running)
    (record,) = [json.loads(line) for line in flows.read_text("ascii").splitlines()]
    assert record["vlan"] == [42]
    assert record["flow"]["bytes_toserver"] == 20 * 146


def test_a_filter_runs_in_the_kernel_and_snaplen_cuts(cable: Pair) -> None:
    running = capture(cable, "--seconds", "3", "-f", "udp src port 1024", "--snaplen", "64")
    cable.run("left", sys.executable, "-c", SENDER, "100", "4", "0")
    summary = ended(running)
    assert summary["packets"] == summary["flow_packets"] == 25
    assert summary["flow_bytes"] == 25 * 128


def test_a_tcp_conversation(cable: Pair, tmp_path: Path) -> None:
    """Offloads on: the kernel hands over segments larger than any cable takes, and bytes add up."""
    flows = tmp_path / "flows.json"
    running = capture(cable, "--seconds", "4", "-f", "tcp", "-w", str(flows))
    server = subprocess.Popen(
        cable.command(
            "right",
            *(sys.executable, "-c"),
            "import socket; s = socket.create_server(('192.0.2.2', 7000)); print(flush=True)\n"
            "c, _ = s.accept(); n = 0\n"
            "while d := c.recv(65536): n += len(d)\n"
            "c.sendall(str(n).encode()); c.close()",
        ),
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    server.stdout.readline()
    script = (
        "import socket; c = socket.create_connection(('192.0.2.2', 7000)); c.sendall(bytes(1000000))\n"
        "c.shutdown(1); print(c.recv(100).decode())"
    )
    assert cable.run("left", sys.executable, "-c", script).stdout.strip() == b"1000000"
    server.communicate(timeout=20)
    ended(running)
    (record,) = [json.loads(line) for line in flows.read_text("ascii").splitlines()]
    assert record["src_ip"] == "192.0.2.1"
    assert record["sealwire"]["forward_payload_bytes"] == 1_000_000
    assert record["sealwire"]["backward_payload_bytes"] == 7
    assert (record["sealwire"]["conn_state"], record["sealwire"]["end_reason"]) == ("SF", "fin")


def test_without_the_capability_it_says_so(cable: Pair) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("absent: setpriv")
    command = [
        "setpriv",
        "--bounding-set",
        "-net_raw",
        "--inh-caps",
        "-net_raw",
        *PROBE[:2],
        "sealwire.cli",
        *PROBE[3:],
    ]
    done = subprocess.run(cable.command("right", *command), capture_output=True, check=False, timeout=60)
    assert done.returncode == 3
    assert "CAP_NET_RAW" in json.loads(done.stdout)["message"]
