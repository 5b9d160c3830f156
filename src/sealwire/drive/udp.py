"""A UDP socket that reads and writes in runs, and for which the network's complaints are hints.

Reading drains: one wake-up takes up to a batch of datagrams, because a turn of an event loop costs
more than many datagrams.  Writing goes on until the kernel takes no more; the rest waits here, in
order, and meanwhile nothing new should be asked of the engine.

ICMP errors can be forged by anyone who guesses two ports, so they end nothing: they are counted
and remembered, for the message of a handshake that then times out.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from sealwire.drive import pathmtu
from sealwire.telemetry import ConnectionCounters

Address = tuple[Any, ...]

#: Datagrams taken per wake-up; then the event loop serves others.
BATCH: Final = 64
# The largest UDP payload; a shorter buffer would cut datagrams silently.
_DATAGRAM_BYTES: Final = 65_535
# A burst must fit while Python is busy elsewhere.  The kernel grants up to net.core.rmem_max.
_RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024

# Everything else is about the path or the destination: unreachable, too big, forbidden by a
# firewall, a forged source port 0.  None of it may stop a server.
_BROKEN: Final = frozenset((errno.EBADF, errno.ENOTSOCK))


# Transmissions that met nothing but refusals before a handshake is given up: with the RFC's timers
# that is three seconds after the first.
_REFUSED_TRANSMISSIONS: Final = 3


# Python names it from 3.14 on; it is 8 in every Linux.
_IP_PKTINFO: Final = 8
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(20)

# linux/in.h and linux/in6.h; Python names none of them.
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_PROBE: Final = 3
# UDP payloads that links carry, for a socket whose kernel does not know the peer's.
_COMMON_BYTES: Final = (8972, 1472, 1452, 1392, 1372, 1252, 1232, 548)


class Reached(tuple[Any, ...]):
    """A peer's address, equal to the plain one, that remembers which of our addresses it reached.

    A socket bound to every address would answer from whichever the routes prefer, and a peer that
    asked another one would not take that for an answer.
    """

    own: tuple[int, int, bytes]

    @classmethod
    def at(cls, address: Address, own: tuple[int, int, bytes]) -> Reached:
        """`address`, reached at what `own` says: a control message for the answer."""
        reached = cls(address)
        reached.own = own
        return reached


def _report_own_address(sock: socket.socket) -> bool:
    """Have each datagram say where it arrived; False where one address leaves no doubt."""
    if sys.platform != "linux" or sock.getsockname()[0] not in ("0.0.0.0", "::"):  # noqa: S104
        return False
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    return True


class UdpSocket:
    """A non-blocking UDP socket; `connected` ones have one peer and send to it.

    Attributes:
        sock: the socket itself.
        refusals: how often the path reported an error.
        last_refusal: the latest such error, None if there was none.
        dropped: datagrams the kernel would not send for such a reason.
    """

    def __init__(self, sock: socket.socket, *, connected: bool, grow: bool = True) -> None:
        """`grow` asks for a receive buffer that outlasts a busy interpreter."""
        sock.setblocking(False)
        if grow:
            grow_receive_buffer(sock)
        self.sock = sock
        self.refusals = 0
        self.last_refusal: OSError | None = None
        self.dropped = 0
        self._connected = connected
        self._waiting: deque[tuple[bytes, Address]] = deque()
        self._reached = not connected and _report_own_address(sock)
        #: Told the largest size that may pass, and where to, when a datagram was too big for the way there.
        self.on_too_big: Callable[[int, Address], None] | None = None

    @property
    def blocked(self) -> bool:
        """Whether datagrams wait for the kernel to take them."""
        return bool(self._waiting)

    def receive(self) -> list[tuple[bytes, Address]]:
        """What has arrived, at most a batch; empty when nothing has.

        Raises:
            OSError: the socket itself is broken.
        """
        batch: list[tuple[bytes, Address]] = []
        recvfrom = self._receive_reached if self._reached else self.sock.recvfrom
        attempts = BATCH
        while attempts:
            attempts -= 1
            try:
                batch.append(recvfrom(_DATAGRAM_BYTES))
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._hint(error)
                if error.errno == errno.EMSGSIZE:
                    self._what_passes(self.sock.getpeername() if self._connected else ())
        return batch

    def send(self, datagrams: Iterable[tuple[bytes, Address]]) -> None:
        """Send all of them, or as many as the kernel takes; the others wait for `send` with nothing.

        Raises:
            OSError: the socket itself is broken.
        """
        waiting = self._waiting
        waiting.extend(datagrams)
        while waiting:
            data, address = waiting[0]
            try:
                self._send(data, address)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._hint(error)
                if self._is_about_another(error, len(data), address) and self._retry(data, address):
                    waiting.popleft()
                    continue
                self.dropped += 1
            waiting.popleft()

    def probe_path(self) -> None:
        """Have datagrams refused or lost, not cut, where they are too big (RFC 8899 section 3) [9147-4.4-8].

        What the kernel learned of the path is not asked either: it may have been forged.
        """
        if sys.platform != "linux":
            return
        if self.sock.family == socket.AF_INET6:
            self.sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        else:
            self.sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)

    def _is_about_another(self, error: OSError, n: int, address: Address) -> bool:
        """Whether a refusal to send `n` bytes was meant for an earlier datagram; says what passes.

        A connected socket reports the answer to an earlier datagram when the next is sent, and has not sent
        that one; once reported, the error is gone.
        """
        if error.errno != errno.EMSGSIZE:
            return error.errno == errno.ECONNREFUSED
        known = self._what_passes(address)
        if known is not None:
            return n <= known
        if self.on_too_big is not None:
            self.on_too_big(next((size for size in _COMMON_BYTES if size < n), 0), address)
        return False

    def _what_passes(self, address: Address) -> int | None:
        """Tell the owner what the kernel knows of the path after a complaint, where there is one peer.

        A router said it by ICMP (RFC 9147 section 4.4 [9147-4.4-6]), and the kernel compared that with what
        this socket sent.  A server's socket is told nothing, lest a stranger's ICMP cost every peer a
        system call.
        """
        known = pathmtu.estimate(self.sock) if self._connected else None
        if known is not None and self.on_too_big is not None:
            self.on_too_big(known, address)
        return known

    def path_estimate(self, address: Address) -> int | None:
        """The UDP payload the kernel takes for possible on the way to `address`, None where it is unknown.

        RFC 9147 section 4.4 [9147-4.4-2]
        """
        if self._connected:
            return pathmtu.estimate(self.sock)
        return pathmtu.estimate_to(address, self.sock.family)

    def _retry(self, data: bytes, address: Address) -> bool:
        try:
            self._send(data, address)
        except OSError:
            return False
        return True

    def _send(self, data: bytes, address: Address) -> None:
        if self._connected:
            self.sock.send(data)
        elif isinstance(address, Reached):
            self.sock.sendmsg([data], [address.own], 0, address)
        else:
            self.sock.sendto(data, address)

    def _receive_reached(self, n: int) -> tuple[bytes, Address]:
        data, ancillary, _, address = self.sock.recvmsg(n, _ANCILLARY_BYTES)
        for level, kind, value in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
                # struct in_pktinfo: interface, local address to send from, destination in the header.
                own = (level, kind, bytes(4) + value[4:8] + bytes(4))
                return data, Reached.at(address, own)
            if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                # struct in6_pktinfo: address, interface; the latter only matters with link-local.
                link_local = value[0] == 0xFE and value[1] & 0xC0 == 0x80
                own = (level, kind, value if link_local else value[:16] + bytes(4))
                return data, Reached.at(address, own)
        return data, address

    def _hint(self, error: OSError) -> None:
        if error.errno in _BROKEN:
            raise error
        self.refusals += 1
        self.last_refusal = error

    def connect(self, address: Address) -> bool:
        """Have one peer from here on; whether that could be.

        Not where connecting could move the socket to another of our addresses: there strangers'
        datagrams still come and are the caller's to drop.
        """
        if not isinstance(address, Reached):
            self.sock.connect(address)
            self._connected = True
        return self._connected

    def close(self) -> None:
        self._waiting.clear()
        self.sock.close()


class Refusals:
    """How often the path refused what a handshake sent while nobody answered.

    Attributes:
        move_on: another address is left, so one refusal is enough to try it.
    """

    def __init__(self, udp: UdpSocket, counters: ConnectionCounters) -> None:
        self.move_on = False
        self._udp = udp
        self._counters = counters
        self._seen = 0
        self._sent = 0
        self._transmissions = 0

    def give_up_if_hopeless(self) -> None:
        """Raise ConnectionRefusedError where waiting longer is not worth it.

        A refusal can be forged by whoever knows the ports, so it counts only until a peer answered;
        at most one counts per transmission, however many datagrams that had.
        """
        if self._counters.datagrams_received or self._udp.refusals == self._seen:
            return
        self._seen = self._udp.refusals
        if self._counters.datagrams_sent > self._sent:
            self._sent = self._counters.datagrams_sent
            self._transmissions += 1
        if self.move_on or self._transmissions >= _REFUSED_TRANSMISSIONS:
            raise ConnectionRefusedError(f"no peer answered{self.words}")

    @property
    def words(self) -> str:
        """The end of a sentence about a peer that did not answer: what the path reported, if anything."""
        error = self._udp.last_refusal
        if error is None:
            return ""
        if error.errno == errno.ECONNREFUSED:
            return "; port unreachable was reported"
        return f"; the path reported: {error.strerror or error}"


def grow_receive_buffer(sock: socket.socket) -> None:
    """Ask for a receive buffer of 4 MiB; what the kernel grants is enough to go on."""
    try:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < _RECEIVE_BUFFER_BYTES:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    except OSError:
        pass
