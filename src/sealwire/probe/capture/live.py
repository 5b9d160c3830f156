"""Live capture on Linux: a ring shared with the kernel (AF_PACKET, TPACKET_V3), parsed in place.

The socket is opened for no protocol, told to drop everything, given its ring, bound and emptied, and
only then given the real filter, so that the first packet counted is one that was asked for.  It is
never written to: nothing here can send.  One process, one interface; needs CAP_NET_RAW.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sealwire.errors import ConfigurationError, Error
from sealwire.probe.batch import Batch
from sealwire.probe.capture import Reading, inspector
from sealwire.probe.capture.bpf import Program
from sealwire.probe.decode import LinkType
from sealwire.probe.engine import Settings, table_for

# linux/if_packet.h and asm-generic/socket.h; the socket module does not have them.
_SOL_PACKET: Final = 263
_ADD_MEMBERSHIP: Final = 1
_RX_RING: Final = 5
_STATISTICS: Final = 6
_VERSION: Final = 10
_IGNORE_OUTGOING: Final = 23
_TPACKET_V3: Final = 2
_PROMISCUOUS: Final = 1
_SO_ATTACH_FILTER: Final = 26
_ETH_P_ALL: Final = 3
_STATUS_USER: Final = 1

BLOCK_BYTES: Final = 1 << 20
#: 64 MiB: at 10 Gbit/s, some 50 ms of not being scheduled.
BLOCKS: Final = 64
_FRAME_BYTES: Final = 2048
#: Milliseconds after which the kernel hands over a block that is not full.
_RETIRE_MS: Final = 10
#: How far behind the wall clock flows of a quiet interface are ended, so that no block is overtaken.
_BEHIND_NS: Final = 1_000_000_000

# ARPHRD numbers whose frames begin with an Ethernet header, and those that begin with IP.
_ETHERNETS: Final = {1, 772}
_BARE: Final = {512, 519, 65534, 768, 769, 776}


class LiveError(Error):
    """The interface cannot be captured from; says why."""


def link_type(interface: str) -> int:
    """Link type of an interface's frames.  Raises LiveError if there is none or it is not known."""
    path = Path("/sys/class/net") / interface / "type"
    try:
        if "/" in interface or interface in ("", ".", ".."):
            raise OSError
        number = int(path.read_text("ascii"))
    except OSError:
        raise LiveError(errno.ENODEV, f"there is no interface {interface!r}; ip link shows them") from None
    if number in _ETHERNETS:
        return LinkType.ETHERNET
    if number in _BARE:
        return LinkType.RAW
    raise LiveError(errno.ENOTSUP, f"frames of {interface} (ARPHRD {number}) are of a kind not known here")


class LiveReading(Reading):
    """An interface being captured: a Reading that ends when told to.

    `seconds` and `packets` end it; so does stop().  Raises LiveError, also without CAP_NET_RAW.
    """

    def __init__(
        self,
        interface: str,
        settings: Settings,
        *,
        bpf: str = "",
        snaplen: int = 65_535,
        seconds: float | None = None,
        packets: int | None = None,
    ) -> None:
        if not 64 <= snaplen <= 262_144:
            raise ConfigurationError(f"snaplen must be from 64 to 262144, not {snaplen}")
        if "vlan" in bpf.split():
            raise ConfigurationError(
                "a live filter cannot ask for vlan: the kernel takes the tag out before it filters"
            )
        self.settings = settings
        self.note = ""
        self._used = False
        self._table = table_for(settings)(settings, os.urandom(16))
        self._inspector = inspector(settings) if settings.dissect else None
        self._link = link_type(interface)
        self._seconds, self._most = seconds, packets
        self._stopping = False
        self._kernel_packets = self._kernel_drops = self._freezes = 0
        self._block = 0
        program = _with_snaplen(Program(bpf, self._link).raw(), snaplen) if bpf else _return(snaplen)
        try:
            # Protocol 0: nothing is received before bind().
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError as error:
            raise LiveError(
                errno.EPERM,
                "capturing needs the capability CAP_NET_RAW: run it as root or give it that",
            ) from error
        try:
            self._prepare(interface, program)
        except BaseException:
            self._socket.close()
            raise

    def _prepare(self, interface: str, program: bytes) -> None:
        capture = self._socket
        capture.setsockopt(_SOL_PACKET, _VERSION, struct.pack("=i", _TPACKET_V3))
        _attach(capture, _return(0))
        request = (BLOCK_BYTES, BLOCKS, _FRAME_BYTES, BLOCK_BYTES // _FRAME_BYTES * BLOCKS, _RETIRE_MS, 0, 0)
        capture.setsockopt(_SOL_PACKET, _RX_RING, struct.pack("=7I", *request))
        self._ring = mmap.mmap(capture.fileno(), BLOCK_BYTES * BLOCKS, mmap.MAP_SHARED)
        self._view = memoryview(self._ring)
        if interface == "lo":  # where every packet is seen going out and coming in
            capture.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, struct.pack("=i", 1))
        capture.bind((interface, _ETH_P_ALL))
        index = socket.if_nametoindex(interface)
        member = struct.pack("=iHH8s", index, _PROMISCUOUS, 0, bytes(8))
        capture.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, member)
        while self._ready():  # empty, unless something was in flight
            self._give_back()
        capture.getsockopt(_SOL_PACKET, _STATISTICS, 12)  # reading sets to zero
        _attach(capture, program)

    def stop(self) -> None:
        """End the capture at the next block."""
        self._stopping = True

    def close(self) -> None:
        """Give the ring back.  May be called twice."""
        if self._socket.fileno() != -1:
            self._count_drops()
            self._view.release()
            self._ring.close()
            self._socket.close()

    @property
    def position(self) -> tuple[int, int | None]:
        """Nothing: an interface has no end."""
        return 0, None

    def live_counters(self) -> dict[str, int]:
        """What the kernel says: packets it accepted for us, and those it had no room for."""
        return {
            "kernel_packets": self._kernel_packets,
            "kernel_drops": self._kernel_drops,
            "ring_freezes": self._freezes,
        }

    def batches(self) -> Iterator[Batch]:
        """As Reading's; the ring is given back at the end."""
        if self._used:
            raise ValueError("a capture is read once")
        self._used = True
        try:
            yield from self._batches()
        finally:
            self.close()

    def _batches(self) -> Iterator[Batch]:
        poller = select.poll()
        poller.register(self._socket.fileno(), select.POLLIN | select.POLLERR)
        end = None if self._seconds is None else time.monotonic() + self._seconds
        interrupted = False
        while not self._over(end):
            try:
                if not self._ready():
                    wait = 0.1 if end is None else max(min(0.1, end - time.monotonic()), 0.0)
                    poller.poll(wait * 1000)
                if not self._ready():
                    self._table.tick(time.time_ns() - _BEHIND_NS)
                    yield self._taken()
                    continue
                yield from self._walk_block()
                self._count_drops()  # for whoever watches
            except KeyboardInterrupt:
                interrupted = True
                break
        self._count_drops()
        if not interrupted:
            while self._ready():
                yield from self._walk_block()
        while self._table.finish():
            yield self._taken()
        if self._inspector is not None:
            yield self._taken()

    def _walk_block(self) -> Iterator[Batch]:
        at, left = 0, 0
        while True:
            at, left = self._table.feed_block(self._view, self._block * BLOCK_BYTES, at, left, self._link)
            yield self._taken()
            if not left:
                break
        self._give_back()

    def _over(self, end: float | None) -> bool:
        late = end is not None and time.monotonic() >= end
        enough = self._most is not None and self.counters.packets >= self._most
        return self._stopping or late or enough

    def _ready(self) -> bool:
        status: int = struct.unpack_from("=I", self._view, self._block * BLOCK_BYTES + 8)[0]
        return bool(status & _STATUS_USER)

    def _give_back(self) -> None:
        struct.pack_into("=I", self._view, self._block * BLOCK_BYTES + 8, 0)
        self._block = (self._block + 1) % BLOCKS

    def _count_drops(self) -> None:
        got, dropped, frozen = struct.unpack("=III", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 12))
        # The kernel counts what it dropped among what it got.
        self._kernel_packets += got
        self._kernel_drops += dropped
        self._freezes += frozen


def _return(n: int) -> bytes:
    """A filter that takes `n` bytes of every packet; 0 takes none."""
    return struct.pack("=HBBI", 0x06, 0, 0, n)


def _with_snaplen(program: bytes, snaplen: int) -> bytes:
    """libpcap's program with what it returns for packets that pass cut to `snaplen`."""
    found = []
    for code, true, false, value in struct.iter_unpack("=HBBI", program):
        takes = snaplen if code == 0x06 and value else value
        found.append(struct.pack("=HBBI", code, true, false, takes))
    return b"".join(found)


def _attach(to: socket.socket, program: bytes) -> None:
    code = ctypes.create_string_buffer(program, len(program))
    to.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    )
