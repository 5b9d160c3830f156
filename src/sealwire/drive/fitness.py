"""What this machine has that makes datagrams fast, and what to do about what it lacks.

Each finding comes from asking: an option is set on a socket of our own on loopback, a limit is read
where the kernel keeps it.  Nothing is changed, and nothing leaves the machine.
"""

from __future__ import annotations

import enum
import os
import platform
import resource
import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sealwire.drive import batches, steering
from sealwire.drive.udp import RECEIVE_BUFFER_BYTES

_SYSTEM: Final = Path("/")
# A server has one or two descriptors a socket; a program with many clients has one for each.
_DESCRIPTORS: Final = 4_096
# Below this IPv6 does not work (RFC 8200 section 5), and datagrams of the usual size are cut.
_LEAST_MTU_BYTES: Final = 1_280
_ETHERNET_MTU_BYTES: Final = 1_500


class Grade(enum.StrEnum):
    """How good it is."""

    GOOD = "good"
    #: It works; something is slower or smaller than it could be.
    ADVICE = "advice"
    #: Something this machine could do is missing, at a great cost.
    LACKING = "lacking"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: dotted, stable, for programs.
        found: what there is, for people.
        step: what to do about it; empty where there is nothing to do.
    """

    name: str
    grade: Grade
    found: str
    step: str = ""


def examine(record_layer: str, compiled: bool, system: Path = _SYSTEM) -> list[Finding]:
    """Look at everything.

    Args:
        record_layer: how records are protected, as `sealwire --version` says it, and whether `compiled`.
        system: where /proc and /sys are.
    """
    return [
        _paths(record_layer, compiled),
        _batches(),
        Finding("python.openssl", Grade.GOOD, f"{ssl.OPENSSL_VERSION}, of the interpreter"),
        *_kernel(),
        *_buffers(system),
        _descriptors(),
        *_interfaces(system),
        _processor(system),
    ]


def _paths(record_layer: str, compiled: bool) -> Finding:
    if compiled:
        return Finding("records", Grade.GOOD, f"records are {record_layer}")
    step = "install a C compiler and Python's headers, then sealwire again; unset SEALWIRE_PURE if it is set"
    return Finding("records", Grade.LACKING, f"records: {record_layer}: ten times slower or more", step)


def _batches() -> Finding:
    found = f"batches of datagrams: {batches.describe()}"
    if batches.COMPILED:
        return Finding("batches", Grade.GOOD, found)
    return Finding("batches", Grade.ADVICE, f"{found}: a system call a datagram", "as for records")


def _kernel() -> Iterator[Finding]:
    if sys.platform != "linux":
        yield Finding("kernel", Grade.ADVICE, f"{platform.system()}: no segmentation of datagrams", "")
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        offers = (
            (
                "kernel.segments",
                batches.segments(sock),
                "sends runs of datagrams (UDP_SEGMENT)",
                "4.18",
            ),
            ("kernel.merges", batches.ask_for_trains(sock), "receives runs of datagrams (UDP_GRO)", "5.0"),
            ("kernel.steers", _steers(), "gives handshakes a socket of their own (reuseport BPF)", "4.5"),
        )
    for name, present, what, since in offers:
        if present:
            yield Finding(name, Grade.GOOD, f"the kernel {what}")
        else:
            step = f"Linux {since} does; a sandbox or container may forbid it"
            yield Finding(name, Grade.ADVICE, f"not so: the kernel {what}", step)


def _steers() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        try:
            second = steering.split(sock).handshakes
        except OSError:
            return False
        if second is None:
            return False
        second.close()
        return True


def _buffers(system: Path) -> Iterator[Finding]:
    wanted = RECEIVE_BUFFER_BYTES
    for name, option, file in (
        ("buffers.receive", socket.SO_RCVBUF, "rmem_max"),
        ("buffers.send", socket.SO_SNDBUF, "wmem_max"),
    ):
        most = _number(system / "proc/sys/net/core" / file)
        if most is None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, option, wanted)
                most = sock.getsockopt(socket.SOL_SOCKET, option)
        found = f"sockets may {name.partition('.')[2]} into {most:,} B (net.core.{file})"
        # Only what arrives while Python is busy can be lost.
        if most >= wanted or option == socket.SO_SNDBUF:
            yield Finding(name, Grade.GOOD, found)
        else:
            step = f"sysctl -w net.core.{file}={wanted}: a burst must fit while Python is busy elsewhere"
            yield Finding(name, Grade.ADVICE, found, step)


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft:,} descriptors a process, {hard:,} if it asks"
    if soft >= _DESCRIPTORS or soft == resource.RLIM_INFINITY:
        return Finding("descriptors", Grade.GOOD, found)
    step = f"ulimit -n {_DESCRIPTORS}, for a program with many clients; a server's peers share one socket"
    return Finding("descriptors", Grade.ADVICE, found, step)


def _interfaces(system: Path) -> Iterator[Finding]:
    try:
        names = sorted(path.name for path in (system / "sys/class/net").iterdir())
    except OSError:
        return
    for name in names:
        mtu = _number(system / "sys/class/net" / name / "mtu")
        if mtu is None:
            continue
        found = f"{name} carries {mtu:,} B (MTU)"
        if mtu < _LEAST_MTU_BYTES:
            step = f"give mtu={max(mtu - 48, 0)} to channels and servers on it, or make it {_LEAST_MTU_BYTES}"
            yield Finding(f"mtu.{name}", Grade.LACKING, found, step)
        elif mtu > _ETHERNET_MTU_BYTES and name != "lo":
            step = f"where the whole path carries it, mtu={mtu - 48} makes fewer, larger datagrams"
            yield Finding(f"mtu.{name}", Grade.ADVICE, found, step)
        else:
            yield Finding(f"mtu.{name}", Grade.GOOD, found)


def _processor(system: Path) -> Finding:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        text = (system / "proc/cpuinfo").read_text("ascii", "replace")
    except OSError:
        return Finding("processor", Grade.GOOD, f"{count} CPUs, of a kind not known")
    words = next((line.split() for line in text.splitlines() if line.startswith(("flags", "Features"))), [])
    if "aes" in words:
        return Finding("processor", Grade.GOOD, f"{count} CPUs with AES instructions")
    step = "prefer TLS_CHACHA20_POLY1305_SHA256 (set_ciphersuites)"
    return Finding("processor", Grade.ADVICE, f"{count} CPUs without AES instructions", step)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
