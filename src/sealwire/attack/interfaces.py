"""Interfaces and addresses of this network namespace and of the others on this machine.

The kernel is asked over rtnetlink (rtnetlink(7)); a namespace other than ours is asked from a
thread that enters it and ends there, so that nothing else of the process ever moves.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

IPAddress = IPv4Address | IPv6Address

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/net_namespace.h
_RTM_GETLINK: Final = 18
_RTM_GETADDR: Final = 22
_RTM_GETNSID: Final = 90
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_REQUEST: Final = 0x1
_DUMP: Final = 0x300
_IFLA_IFNAME: Final = 3
_IFLA_LINK: Final = 5
_IFLA_LINKINFO: Final = 18
_IFLA_LINK_NETNSID: Final = 37
_IFLA_INFO_KIND: Final = 1
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_NETNSA_NSID: Final = 1
_NETNSA_FD: Final = 3
_IFF_LOOPBACK: Final = 8
_CLONE_NEWNET: Final = 0x40000000
_NAMED: Final = Path("/run/netns")
_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=BBBBI")
_ATTRIBUTE: Final = struct.Struct("=HH")
_FAMILY: Final = struct.Struct("=Bxxx")
_INT: Final = struct.Struct("=i")
# The two upper bits of an attribute's type are flags.
_TYPE_MASK: Final = 0x3FFF


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface.

    `peer` is the index of a cable's other end, in the namespace where that is; `beyond` is that namespace's
    number in this one, -1 for this one itself.  Indexes alone tell no cable from another: every namespace
    counts its interfaces anew.
    """

    index: int
    name: str
    loopback: bool
    #: "veth" for a cable between namespaces; "" for what has no kind, such as hardware.
    kind: str
    peer: int
    beyond: int
    addresses: tuple[IPAddress, ...]

    @property
    def hardware(self) -> bool:
        """It may lead out of the machine: what software made has a kind."""
        return not self.loopback and not self.kind


def interfaces() -> tuple[Interface, ...]:
    """Those of the namespace the calling thread is in."""
    addresses: dict[int, list[IPAddress]] = {}
    for body in _ask(_RTM_GETADDR, bytes(_ADDRESS.size), _DUMP):
        _, _, _, _, index = _ADDRESS.unpack_from(body)
        found = dict(_attributes(body[_ADDRESS.size :]))
        # On a line from point to point, the local address is ours and the other one the peer's.
        packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
        if packed is not None:
            addresses.setdefault(index, []).append(ip_address(packed))
    made = []
    for body in _ask(_RTM_GETLINK, bytes(_LINK.size), _DUMP):
        _, _, index, flags, _ = _LINK.unpack_from(body)
        found = dict(_attributes(body[_LINK.size :]))
        kind = dict(_attributes(found.get(_IFLA_LINKINFO, b""))).get(_IFLA_INFO_KIND, b"")
        made.append(
            Interface(
                index,
                found[_IFLA_IFNAME].rstrip(b"\0").decode(),
                bool(flags & _IFF_LOOPBACK),
                kind.rstrip(b"\0").decode(),
                _integer(found.get(_IFLA_LINK), 0),
                _integer(found.get(_IFLA_LINK_NETNSID), -1),
                tuple(addresses.get(index, ())),
            )
        )
    return tuple(made)


def in_own_namespace() -> bool:
    """Whether the calling thread is in a network namespace made for something, and not in the machine's.

    The machine's is process 1's.  Where that may not be seen, a namespace has to have a name (ip-netns(8)).
    """
    own, host = _inode(Path("/proc/thread-self/ns/net")), host_namespace()
    if own is None or own == host:
        return False
    return host is not None or own in {_inode(file) for file in _NAMED.glob("*")}


def host_namespace() -> int | None:
    """The inode of process 1's namespace, which is the machine's (or the container's); None if hidden."""
    return _inode(Path("/proc/1/ns/net"))


def other_namespaces() -> Iterator[Path]:
    """A file for each other network namespace but the machine's: named ones, and those of processes."""
    host = host_namespace()
    seen = {_inode(Path("/proc/thread-self/ns/net")), host}
    processes = [] if host is None else Path("/proc").glob("[0-9]*/ns/net")
    for file in [*sorted(_NAMED.glob("*")), *processes]:
        inode = _inode(file)
        if inode is not None and inode not in seen:
            seen.add(inode)
            yield file


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except OSError:
        return None


def number(namespace: Path) -> int:
    """Another namespace's number in ours, by which `Interface.beyond` names it; -1 where it has none."""
    try:
        with namespace.open("rb") as file:
            asked = _ATTRIBUTE.pack(_ATTRIBUTE.size + _INT.size, _NETNSA_FD) + _INT.pack(file.fileno())
            for body in _ask(_RTM_GETNSID, _FAMILY.pack(socket.AF_UNSPEC) + asked):
                return _integer(dict(_attributes(body[_FAMILY.size :])).get(_NETNSA_NSID), -1)
    except OSError:
        pass
    return -1


def interfaces_in(namespace: Path) -> tuple[Interface, ...]:
    """Those of another namespace; none where we may not look."""
    found: list[tuple[Interface, ...]] = []

    def look() -> None:
        try:
            with namespace.open("rb") as file:
                if _libc.setns(file.fileno(), _CLONE_NEWNET) == 0:
                    found.append(interfaces())
        except OSError:
            return

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0] if found else ()


_libc: Final = ctypes.CDLL(None, use_errno=True)


def _ask(kind: int, body: bytes, how: int = 0) -> Iterator[bytes]:
    """The answers to a question; one, unless all that there are is asked for (`_DUMP`).  Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | how, 1, 0) + body)
        while True:
            data = netlink.recv(1 << 17)
            while data:
                size, answer, _, _, _ = _HEADER.unpack_from(data)
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    raise OSError("the kernel does not tell its interfaces or namespaces")
                yield data[_HEADER.size : size]
                if not how:
                    return
                data = data[(size + 3) & ~3 :]


def _integer(value: bytes | None, absent: int) -> int:
    return absent if value is None else int(_INT.unpack(value)[0])


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        if size < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[_ATTRIBUTE.size : size]
        data = data[(size + 3) & ~3 :]
