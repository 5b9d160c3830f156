"""The handshake socket of a server: what it brings goes to the gate, in C where that is built.

It is read so much at a time, after the data socket, and in a crowd with pauses: a turn of an event
loop costs as much as a hundred hellos, so some should have come before the next.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from sealwire import dtls
from sealwire.drive import batches
from sealwire.drive.peers import report_own_address
from sealwire.drive.udp import Entry, UdpSocket

#: Batches of a turn; in C they cost about half a millisecond.
_BATCHES: Final = 8
#: So many datagrams in one turn are a crowd.
_CROWD: Final = 16
#: How long to let a crowd gather.  The buffer holds what 100,000 a second send in five times that.
PAUSE_SECONDS: Final = 0.001
_BROKEN: Final = frozenset((errno.EBADF, errno.ENOTSOCK))


class Handshakes:
    """Takes datagrams from a handshake socket to an endpoint.

    Attributes:
        sock: the socket; :meth:`close` closes it.
    """

    def __init__(self, sock: socket.socket, endpoint: dtls.Endpoint) -> None:
        self.sock = sock
        self._endpoint = endpoint
        self._udp: UdpSocket | None = None
        endpoint.hellos_behind = True
        if batches.COMPILED and endpoint.gate.compiled:
            from sealwire.drive._front import Front

            sock.setblocking(False)
            report_own_address(sock)
            self._front = Front(sock)
        else:
            self._udp = UdpSocket(sock, connected=False, grow=False)

    def take(self, now: float) -> tuple[bool, list[Entry]]:
        """Give the endpoint what has arrived, up to a budget.

        Returns:
            Whether it was a crowd, and those datagrams that may be somebody's who is connected.

        Raises:
            OSError: the socket is broken.
        """
        if self._udp is not None:
            entries = self._udp.receive()
            if entries:
                self._endpoint.receive(entries, now)
            self._endpoint.hellos_taken(now)
            return len(entries) >= _CROWD, entries
        count = 0
        rest: list[Entry] = []
        for _ in range(_BATCHES):
            try:
                filled = self._front.fill()
            except OSError as error:
                if error.errno in _BROKEN:
                    raise
                continue  # ICMP, which anybody can forge
            if not filled:
                break
            self._endpoint.receive_front(self._front, now)
            rest += self._front.rest
            count += filled
            if filled < _CROWD:
                break
        self._endpoint.hellos_taken(now)
        return count >= _CROWD, rest

    def close(self) -> None:
        self.sock.close()
