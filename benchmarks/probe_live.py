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

# One process, 64 packets a call.  Frames go to an address nobody has, from 4,096 ports.
SENDER = """
import ctypes, socket, struct, sys, time
seconds, size = float(sys.argv[1]), int(sys.argv[2])
class iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
class msghdr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.POINTER(iovec)),
                ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                ("flags", ctypes.c_int)]
class mmsghdr(ctypes.Structure):
    _fields_ = [("head", msghdr), ("length", ctypes.c_uint)]
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("left", 0))
out.setsockopt(263, 20, 1)  # PACKET_QDISC_BYPASS
frames, batches = [], []
for port in range(4096):
    udp = struct.pack("!HHHH", 1024 + port, 9, size - 34, 0) + bytes(size - 42)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, size - 14, 0, 0, 64, 17, 0)
    ip += bytes((192, 0, 2, 1, 192, 0, 2, 99))
    head = bytes((2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0))
    frames.append(ctypes.create_string_buffer(head + ip + udp, size))
for first in range(0, 4096, 64):
    batch = (mmsghdr * 64)()
    for slot, frame in enumerate(frames[first:first + 64]):
        batch[slot].head.iov = ctypes.pointer(iovec(ctypes.addressof(frame), size))
        batch[slot].head.iovlen = 1
    batches.append(batch)
library = ctypes.CDLL(None, use_errno=True)
sent, start = 0, time.monotonic()
while time.monotonic() - start < seconds:
    for batch in batches:
        done = library.sendmmsg(out.fileno(), batch, 64, 0)
        sent += max(done, 0)
print(sent, time.monotonic() - start)
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def inside(name: str) -> list[str]:
    """What runs a command in a namespace."""
    return ["ip", "netns", "exec", name]


def send(left: str, seconds: float, size: int) -> tuple[int, float]:
    command = [
        "ip",
        "netns",
        "exec",
        left,
        "taskset",
        "-c",
        "0",
        sys.executable,
        "-c",
        SENDER,
        str(seconds),
        str(size),
    ]
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
