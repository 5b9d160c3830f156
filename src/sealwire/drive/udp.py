"""A UDP socket that reads and writes in runs, and for which the network's complaints are hints.

Reading drains: one wake-up takes up to a batch of datagrams, because a turn of an event loop costs
more than many datagrams; what the kernel put together comes as a train.  Writing goes on until the
kernel takes no more; the rest waits here, in order, and meanwhile nothing new should be asked of the
engine.

ICMP errors can be forged by anyone who guesses two ports, so they end nothing: they are counted
and remembered, for the message of a handshake that then times out.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from sealwire.drive import batches, pathmtu
from sealwire.drive.batches import Entry
from sealwire.drive.peers import Address, Reached, report_own_address
from sealwire.dtls import Train, bytes_of, split_all
from sealwire.telemetry import ConnectionCounters

__all__ = ["BATCH", "Address", "Entry", "Reached", "Refusals", "UdpSocket", "grow_receive_buffer"]

#: Datagrams or trains taken per wake-up, and about how many bytes; then the event loop serves others,
#: those who take from receive queues among them.
BATCH: Final = 64
_BATCH_BYTES: Final = 128 * 1024
# A burst must fit while Python is busy elsewhere.  The kernel grants up to net.core.rmem_max.
RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024

# Everything else is about the path or the destination: unreachable, too big, forbidden by a
# firewall, a forged source port 0.  None of it may stop a server.
_BROKEN: Final = frozenset((errno.EBADF, errno.ENOTSOCK))
# A train was refused and its datagrams may pass: too long for the way there, or no checksums in hardware.
_NOT_AS_TRAIN: Final = frozenset((errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.EOPNOTSUPP))

# Transmissions that met nothing but refusals before a handshake is given up: with the RFC's timers
# that is three seconds after the first.
_REFUSED_TRANSMISSIONS: Final = 3


# linux/in.h and linux/in6.h; Python names none of them.
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_PROBE: Final = 3
# UDP payloads that links carry, for a socket whose kernel does not know the peer's.
_COMMON_BYTES: Final = (8972, 1472, 1452, 1392, 1372, 1252, 1232, 548)


class UdpSocket:
    """A non-blocking UDP socket; `connected` ones have one peer and send to it.

    Attributes:
        sock: the socket itself.
        refusals: how often the path reported an error.
        last_refusal: the latest such error, None if there was none.
        dropped: datagrams the kernel would not send for such a reason.
        segments: whether trains are sent as such; off from the first that this machine cannot cut.
        merges: whether the kernel puts trains together on their way in.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        connected: bool,
        grow: bool = True,
        plain: bool = not batches.COMPILED,
    ) -> None:
        """`grow` asks for a receive buffer that outlasts a busy interpreter.

        `plain`: one call for each datagram or train, instead of one for many.
        """
        sock.setblocking(False)
        if grow:
            grow_receive_buffer(sock)
        self.sock = sock
        self.refusals = 0
        self.last_refusal: OSError | None = None
        self.dropped = 0
        self._connected = connected
        self._waiting: deque[Entry] = deque()
        self._receiver = batches.PlainReceiver() if plain else batches.Receiver()
        self._send_batch = batches.plain_send if plain else batches.send
        self._most_sent = 1 if self._send_batch is batches.plain_send else batches.MOST_SENT
        # Of a datagram or train, as the last batch had them.
        self._usual_bytes = 1.0
        self.segments = batches.segments(sock)
        self.merges = batches.ask_for_trains(sock)
        if not connected:
            report_own_address(sock)
        #: Told the largest size that may pass, and where to, when a datagram was too big for the way there.
        self.on_too_big: Callable[[int, Address], None] | None = None

    @property
    def blocked(self) -> bool:
        """Whether datagrams wait for the kernel to take them."""
        return bool(self._waiting)

    @property
    def lost(self) -> int:
        """Datagrams the kernel dropped because nobody took them in time, as far as it has told (Linux)."""
        return self._receiver.lost

    @property
    def congestion_marks(self) -> int:
        """How often what came was marked by a router that is about to drop (ECN CE, RFC 3168)."""
        return self._receiver.marked

    def receive(self) -> list[Entry]:
        """What has arrived, at most a batch; empty when nothing has.

        Raises:
            OSError: the socket itself is broken.
        """
        batch: list[Entry] = []
        attempts, room = BATCH, _BATCH_BYTES
        while attempts > 0 and room > 0:
            # A slot holds up to 64 KiB: after trains, few slots are enough.
            most = min(attempts, batches.MOST_RECEIVED, 1 + int(room / self._usual_bytes))
            try:
                got = self._receiver.receive(self.sock, most)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                attempts -= 1
                self._hint(error)
                if error.errno == errno.EMSGSIZE:
                    self._what_passes(self.sock.getpeername() if self._connected else ())
                continue
            batch += got
            size = bytes_of(data for data, _ in got)
            self._usual_bytes = size / len(got) + 1
            if len(got) < most and self._receiver.error is None:
                break
            attempts -= len(got)
            room -= size
        return batch

    def send(self, datagrams: Iterable[Entry]) -> None:
        """Send all of them, or as many as the kernel takes; the others wait for `send` with nothing.

        Raises:
            OSError: the socket itself is broken.
        """
        waiting = self._waiting
        if self.segments:
            waiting.extend(datagrams)
        else:
            waiting.extend((data, address) for one, address in datagrams for data in split_all([one]))
        cut_short = False
        while waiting:
            batch = list(islice(waiting, self._most_sent))
            try:
                sent = self._send_batch(self.sock, batch, self._connected)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                cut_short = False
                self._refused(error)
            except ValueError:
                # A name, or an address with a zone in it: an application's own, through `sendto`.
                try:
                    data, address = waiting[0]
                    self.sock.sendto(data.data if isinstance(data, Train) else data, address)
                except (BlockingIOError, InterruptedError):
                    return
                except OSError as error:
                    self._refused(error)
                else:
                    waiting.popleft()
            else:
                if cut_short:
                    self._answer_lost(batch[0][1])
                cut_short = sent < len(batch)
                if sent == len(waiting):
                    waiting.clear()
                else:
                    for _ in range(sent):
                        waiting.popleft()

    def _answer_lost(self, address: Address) -> None:
        """The kernel took less than it was given, and then the rest without a word.

        sendmmsg(2) says how many it sent and forgets what stopped it, so an answer to an earlier datagram
        ends there.  What a router said of the path the kernel has learned all the same.
        """
        if self._connected:
            self.refusals += 1
            self.last_refusal = OSError(0, "an earlier datagram was refused")
            self._what_passes(address)

    def _refused(self, error: OSError) -> None:
        """Learn from a refusal of what is to be sent first, and go past it."""
        if error.errno in _BROKEN:
            raise error
        one, address = self._waiting.popleft()
        if isinstance(one, Train):
            if error.errno in _NOT_AS_TRAIN:
                if error.errno in (errno.EIO, errno.EOPNOTSUPP):
                    self.segments = False
                self._waiting.extendleft((data, address) for data in reversed(one.split()))
                return
            self._hint(error)
            if error.errno == errno.ECONNREFUSED and self._retry(one, address):
                return
            self.dropped += one.count
            return
        self._hint(error)
        if self._is_about_another(error, len(one), address) and self._retry(one, address):
            return
        self.dropped += 1

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

    def _retry(self, one: bytes | Train, address: Address) -> bool:
        try:
            self._send_batch(self.sock, [(one, address)], self._connected)
        except (OSError, ValueError):
            return False
        return True

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

    @staticmethod
    def release(sock: socket.socket) -> None:
        """Leave a socket that was one of these as others expect it: datagrams one by one."""
        batches.ask_for_trains(sock, False)

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
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < RECEIVE_BUFFER_BYTES:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    except OSError:
        pass
