"""Whom the attack programs send to: loopback and the other end of a namespace's cable, and nobody else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from sealwire.attack import Refused, Target, interfaces
from tests.interop import namespaces


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1"])
def test_loopback(host: str) -> None:
    target = Target(host, 4433)
    assert target.device == "lo"
    assert target.loopback
    assert target.sockaddr == (host, 4433)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("8.8.8.8", "the machine's own network"),
        ("10.0.0.1", "the machine's own network"),
        ("2001:db8::1", "the machine's own network"),
        ("::ffff:127.0.0.1", "another address or an interface in it"),
        ("::ffff:8.8.8.8", "another address or an interface in it"),
        ("::127.0.0.1", "the machine's own network"),
        ("64:ff9b::7f00:1", "the machine's own network"),
        ("fe80::1%lo", "another address or an interface in it"),
        ("0.0.0.0", "no one's address"),
        ("0.0.0.1", "the machine's own network"),
        ("::", "no one's address"),
        ("255.255.255.255", "everybody's address"),
        ("127.255.255.255", "everybody's address"),
        ("224.0.0.1", "a group"),
        ("239.1.2.3", "a group"),
        ("ff02::1", "a group"),
        ("localhost", "no address in digits"),
        ("localhost.", "no address in digits"),
        ("127.0.0.1.example.net", "no address in digits"),
        ("127.1", "no address in digits"),
        ("2130706433", "no address in digits"),
        ("0x7f000001", "no address in digits"),
        ("0177.0.0.1", "no address in digits"),
        ("127.0.0.1 ", "no address in digits"),
        ("127.0.0.1\n", "no address in digits"),
        ("１２７.0.0.1", "no address in digits"),  # noqa: RUF001 -- full-width digits, on purpose
        ("[::1]", "no address in digits"),
        ("", "no address in digits"),
    ],
)
def test_everything_else_is_refused(host: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        Target(host, 4433)


def test_the_machine_s_own_addresses_are_refused() -> None:
    """Its real interfaces are not loopback, though packets to them would not leave it either."""
    own = [one for i in interfaces.interfaces() if not i.loopback for one in i.addresses]
    for address in own:
        with pytest.raises(Refused):
            Target(str(address), 4433)


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_what_is_no_port(port: int) -> None:
    with pytest.raises(Refused, match="no port"):
        Target("127.0.0.1", port)


def test_where_the_machine_s_namespace_cannot_be_told_all_but_loopback_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interfaces, "host_namespace", lambda: None)
    assert not interfaces.in_own_namespace()
    assert Target("127.0.0.1", 1).device == "lo"
    with pytest.raises(Refused):
        Target("192.0.2.2", 1)


@pytest.mark.parametrize(
    ("host", "sources", "allowed"),
    [
        ("127.0.0.1", None, True),
        ("127.0.0.1", "127.3.0.0/16", True),
        ("127.0.0.1", "198.18.0.0/15", False),  # the answers would leave by the default route
        ("127.0.0.1", "0.0.0.0/0", False),
        ("127.0.0.1", "126.0.0.0/7", False),
        ("127.0.0.1", "::1/128", False),
        ("127.0.0.1", "127.0.0.1/8", False),
        ("127.0.0.1", "everybody", False),
        ("::1", "::1/128", True),
        ("::1", "::/0", False),
    ],
)
def test_whom_a_forger_pretends_to_be(host: str, sources: str | None, allowed: bool) -> None:
    target = Target(host, 4433)
    if allowed:
        assert target.sources(sources).is_loopback
        return
    with pytest.raises(Refused):
        target.sources(sources)


# --- namespaces -------------------------------------------------------------------------------

JUDGE = """
import json, sys
from sealwire.attack import Refused, Target
said = {}
for host in sys.argv[1:]:
    try:
        said[host] = Target(host, 4433).device
    except Refused as error:
        said[host] = str(error)
print(json.dumps(said))
"""


def judged(pair: namespaces.Pair, *hosts: str) -> dict[str, str]:
    done = pair.run("left", sys.executable, "-c", JUDGE, *hosts)
    said: dict[str, str] = json.loads(done.stdout)
    return said


def test_the_other_end_of_a_cable_and_nothing_beyond_it() -> None:
    with namespaces.pair() as pair:
        # An address of the other namespace that is on no cable.
        subprocess.run(["ip", "-n", pair.right, "addr", "add", "203.0.113.1/32", "dev", "lo"], check=True)
        subprocess.run(["ip", "-n", pair.left, "route", "add", "default", "via", "192.0.2.2"], check=True)
        hosts = ["127.0.0.1", "192.0.2.2", "192.0.2.1", "192.0.2.3", "192.0.2.255", "203.0.113.1", "8.8.8.8"]
        said = judged(pair, *hosts)
        assert said["127.0.0.1"] == "lo"
        assert said["192.0.2.2"] == "left"
        for host in hosts[2:]:
            assert "is not the other end" in said[host], host


def test_another_pair_s_cable_is_not_ours_though_its_numbers_are_the_same() -> None:
    """Interfaces are numbered anew in each namespace, so twins are alike in all but where they lead."""
    with namespaces.pair() as pair, namespaces.pair() as other:
        subprocess.run(["ip", "-n", other.left, "addr", "add", "203.0.113.7/24", "dev", "left"], check=True)
        subprocess.run(["ip", "-n", other.right, "addr", "add", "203.0.113.8/24", "dev", "right"], check=True)
        said = judged(pair, "192.0.2.2", "192.0.2.1", "203.0.113.7", "203.0.113.8")
        assert said.pop("192.0.2.2") == "left"
        assert all("is not the other end" in why for why in said.values()), said


def test_a_cable_to_the_machine_s_own_namespace_is_refused() -> None:
    """The other end of such a cable is the machine itself, and through it the world."""
    with namespaces.pair() as pair:
        end = f"sw{os.getpid() % 100_000}"
        add = ["ip", "link", "add", end, "type", "veth", "peer", "name", "out", "netns", pair.left]
        subprocess.run(add, check=True)
        try:
            subprocess.run(["ip", "addr", "add", "198.51.100.1/24", "dev", end], check=True)
            subprocess.run(
                ["ip", "-n", pair.left, "addr", "add", "198.51.100.2/24", "dev", "out"], check=True
            )
            assert "is not the other end" in judged(pair, "198.51.100.1")["198.51.100.1"]
        finally:
            subprocess.run(["ip", "link", "del", end], check=True)


STRAY = """
import socket, sys, time
from pathlib import Path
from sealwire.attack import Target
sent = Path("/sys/class/net/left/statistics/tx_packets")
before = int(sent.read_text())
if sys.argv[1] == "tied":
    stray = Target("127.0.0.1", 9).open()
else:
    stray = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for host in ("192.0.2.2", "203.0.113.1"):
    try:
        stray.connect((host, 9))
        stray.send(b"astray")
    except OSError:
        pass
time.sleep(0.2)
print(int(sent.read_text()) - before)
"""


def test_a_tied_socket_sends_nothing_elsewhere() -> None:
    """The kernel holds it to its interface, whatever address a mistake might put in."""
    with namespaces.pair() as pair:
        subprocess.run(["ip", "-n", pair.left, "route", "add", "default", "via", "192.0.2.2"], check=True)
        left = {
            how: int(pair.run("left", sys.executable, "-c", STRAY, how).stdout) for how in ("tied", "free")
        }
        assert left["tied"] == 0
        assert left["free"] > 0


def test_interfaces_are_those_the_kernel_names() -> None:
    found = {one.name: one for one in interfaces.interfaces()}
    assert {name: one.index for name, one in found.items()} == {n: i for i, n in socket.if_nameindex()}
    assert ip_address("127.0.0.1") in found["lo"].addresses
    assert [one.name for one in found.values() if one.loopback] == ["lo"]


def test_a_namespace_that_is_none_has_no_interfaces(tmp_path: Path) -> None:
    (tmp_path / "net").write_bytes(b"")
    assert interfaces.interfaces_in(tmp_path / "net") == ()
    assert interfaces.interfaces_in(tmp_path / "absent") == ()
    assert interfaces.number(tmp_path / "net") == -1
    assert interfaces.number(tmp_path / "absent") == -1
