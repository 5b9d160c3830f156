"""What `sealwire doctor` finds, on this machine and on one made of files."""

from __future__ import annotations

import errno
import resource
import socket
from pathlib import Path
from typing import Any

import pytest

from sealwire.drive import batches, steering
from sealwire.drive.fitness import Finding, Grade, examine


def found(findings: list[Finding]) -> dict[str, Finding]:
    by_name = {finding.name: finding for finding in findings}
    assert len(by_name) == len(findings)
    return by_name


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine of files: small buffers, a narrow and a wide interface, an old processor."""
    core, net = tmp_path / "proc/sys/net/core", tmp_path / "sys/class/net"
    core.mkdir(parents=True)
    (core / "rmem_max").write_text("212992\n")
    (core / "wmem_max").write_text("212992\n")
    for name, mtu in (("lo", "65536"), ("tun0", "1100"), ("eth0", "1500"), ("eth1", "9000"), ("odd", "?")):
        (net / name).mkdir(parents=True)
        (net / name / "mtu").write_text(mtu)
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nflags : fpu sse2\n")
    return tmp_path


def test_this_machine() -> None:
    names = found(examine("compiled, on something", True))
    assert {"records", "batches", "buffers.receive", "buffers.send", "descriptors", "processor"} <= set(names)
    assert names["records"].grade is Grade.GOOD
    assert all(bool(finding.step) == (finding.grade is not Grade.GOOD) for finding in names.values())


def test_a_machine_that_lacks_much(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "COMPILED", False)
    monkeypatch.setattr(batches, "segments", lambda sock: False)
    monkeypatch.setattr(batches, "ask_for_trains", lambda sock: False)
    monkeypatch.setattr(steering, "attach", refuse)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 1024))
    names = found(examine("plain Python (no compiler)", False, machine))
    assert {name: finding.grade for name, finding in names.items()} == {
        "records": Grade.LACKING,
        "batches": Grade.ADVICE,
        "python.openssl": Grade.GOOD,
        "kernel.segments": Grade.ADVICE,
        "kernel.merges": Grade.ADVICE,
        "kernel.steers": Grade.ADVICE,
        "buffers.receive": Grade.ADVICE,
        "buffers.send": Grade.GOOD,
        "descriptors": Grade.ADVICE,
        "mtu.eth0": Grade.GOOD,
        "mtu.eth1": Grade.ADVICE,
        "mtu.lo": Grade.GOOD,
        "mtu.tun0": Grade.LACKING,
        "processor": Grade.ADVICE,
    }
    assert "sysctl -w net.core.rmem_max=4194304" in names["buffers.receive"].step
    assert "mtu=1052" in names["mtu.tun0"].step
    assert "ulimit -n 4096" in names["descriptors"].step


def refuse(*_: Any) -> None:
    raise PermissionError(errno.EPERM, "no")


def test_a_machine_without_proc_and_sys(tmp_path: Path) -> None:
    names = found(examine("compiled", True, tmp_path))
    assert "net.core.rmem_max" in names["buffers.receive"].found
    assert not any(name.startswith("mtu.") for name in names)


def test_other_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    names = found(examine("compiled", True, tmp_path))
    assert names["kernel"].grade is Grade.ADVICE
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert not batches.segments(sock)
        assert not batches.ask_for_trains(sock)


def test_looking_changes_nothing() -> None:
    before = Path("/proc/self/fd")
    count = len(list(before.iterdir()))
    examine("compiled", True)
    assert len(list(before.iterdir())) == count
