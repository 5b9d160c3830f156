"""T35: live capture over a veth pair between two network namespaces, sender and probe on a core each.

    python benchmarks/probe_live.py [SECONDS] [BYTES]     (as root; offloads off)

Prints the rate one sender reaches without and with capture, and what became of every packet: sent,
taken by the kernel for the probe, counted in flows, dropped.  Exit code 1 if one is unexplained.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

SENDER = Path(__file__).with_name("send_frames.py")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def inside(name: str) -> list[str]:
    """What runs a command in a namespace."""
    return ["ip", "netns", "exec", name]


def send(left: str, seconds: float, size: int) -> tuple[int, float]:
    command = [*inside(left), "taskset", "-c", "0", sys.executable, SENDER, "left", str(seconds), str(size)]
    sent, took = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(sent), float(took)


def received(right: str) -> int:
    command = [*inside(right), "cat", "/sys/class/net/right/statistics/rx_packets"]
    return int(subprocess.run(command, check=True, capture_output=True).stdout)


def measure(left: str, right: str, seconds: float, size: int) -> int:
    before, took = send(left, min(seconds, 3.0), size)
    print(
        f"without capture: {before / took:,.0f} packets/s, {before * size * 8e-9 / took:.2f} Gbit/s offered"
    )
    probe = [
        "taskset",
        "-c",
        str(min(1, (os.cpu_count() or 1) - 1)),
        sys.executable,
        "-m",
        "sealwire.cli",
        "--json",
    ]
    probe += ["probe", "-i", "right", "--seconds", str(seconds + 4), "-f", "udp and dst host 192.0.2.99"]
    started = subprocess.Popen([*inside(right), *probe], stdout=subprocess.PIPE)
    assert started.stdout is not None
    started.stdout.readline()  # it says so once its filter is in place
    arrived = received(right)
    sent, took = send(left, seconds, size)
    arrived = received(right) - arrived
    out, _ = started.communicate()
    summary = json.loads(out.splitlines()[-1])
    rate = sent / took
    print(
        f"with capture:    {rate:,.0f} packets/s, {rate * size * 8e-9:.2f} Gbit/s offered, {size} bytes each"
    )
    print(f"sent {sent:,}; arrived {arrived:,}; kernel took {summary['kernel_packets']:,};", end=" ")
    print(f"in flows {summary['flow_packets']:,}; dropped {summary['kernel_drops']:,}")
    # What else arrived (a kernel's own neighbour discovery) the filter leaves out.
    unexplained = sent - summary["flow_packets"] - summary["kernel_drops"]
    print(f"unexplained: {unexplained}")
    return int(unexplained != 0)


def main() -> int:
    numbers = [float(text) for text in sys.argv[1:] if not text.startswith("-")]
    seconds, size = (*numbers, *(5.0, 697)[len(numbers) :])
    if os.geteuid() != 0:
        print("not measured: network namespaces need root")
        return 0
    tag = uuid.uuid4().hex[:6]
    left, right = f"sw-l-{tag}", f"sw-r-{tag}"
    try:
        ip("netns", "add", left)
        ip("netns", "add", right)
        ip("-n", left, "link", "add", "left", "type", "veth", "peer", "name", "right", "netns", right)
        for name, end in ((left, "left"), (right, "right")):
            off = ["ethtool", "-K", end, "tso", "off", "gso", "off", "gro", "off"]
            subprocess.run([*inside(name), *off], check=False, capture_output=True)
            ip("-n", name, "link", "set", end, "up")
        return measure(left, right, seconds, int(size))
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"not measured: {error}")
        return 0
    finally:
        for name in (left, right):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
