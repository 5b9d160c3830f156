"""Seat: what one worker has of a port that several processes share, and how it leaves.

A seat is made by the parent (`drive/workers.py`), travels to the worker when that begins, and is given
to :func:`sealwire.start_datagram_server`.  The sockets and queues in it are the parent's too: a worker
that ends leaves them as they are to the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealwire.drive.letters import Letters
from sealwire.drive.steering import Steering
from sealwire.drive.succession import Succession
from sealwire.dtls import KeyRatchet, Slot

if TYPE_CHECKING:
    from sealwire.drive.aio.server import DatagramServer

#: How often a worker tells its parent what it counted.
REPORT_SECONDS: Final = 1.0
#: What its parent says to a worker of a group that ends.
LAST: Final = b"!"
# Handshake messages under way are acknowledged by then, or repeated once.
_SETTLE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """One worker's part of one address: its data socket, and its handshake socket where there is one."""

    data: socket.socket
    handshakes: socket.socket | None
    why: str


@dataclass(frozen=True, slots=True)
class Keys:
    """Where a ratchet stands, for a worker to go on from."""

    secret: bytes
    number: int
    period: float
    keep: int

    def __repr__(self) -> str:
        return f"<keys of step {self.number}>"

    def ratchet(self) -> KeyRatchet:
        return KeyRatchet(self.secret, number=self.number, period=self.period, keep=self.keep)


class Seat:
    """One worker's part of a group.

    Attributes:
        index, count: which worker this is, from 0, of how many.
        places: its sockets, for each address of the group.
        letters: its post, for each address.
        slot: for :class:`sealwire.dtls.Endpoint`.
        tickets: keys for session tickets that all workers have; ``share_ticket_keys`` of a further Context,
            as an SNI callback chooses, takes them.
        drain_seconds: how long connections may go on when this worker is to end.
        succession: where this worker leaves its connections when another takes its slot; None to close them.
    """

    def __init__(
        self,
        index: int,
        count: int,
        places: tuple[Place, ...],
        letters: tuple[Letters, ...],
        control: socket.socket,
        cookies: Keys,
        tickets: Keys,
        drain_seconds: float,
        succession: Succession | None = None,
    ) -> None:
        self.index = index
        self.count = count
        self.places = places
        self.letters = letters
        self.drain_seconds = drain_seconds
        self.succession = succession
        self._control = control
        self._made_of = (index, count, places, letters, control, cookies, tickets, drain_seconds, succession)
        # Nobody takes this slot after this process: the group is ending, or its parent is gone.
        self._last = False
        self.slot = Slot(index, count, cookies.ratchet())
        self.tickets = tickets.ratchet()
        control.setblocking(False)

    def __reduce__(self) -> tuple[type[Seat], tuple[object, ...]]:
        return Seat, self._made_of

    def __repr__(self) -> str:
        return f"<Seat {self.index} of {self.count}>"

    def steering(self, ordinal: int) -> Steering:
        """How datagrams come to this worker at one address."""
        place = self.places[ordinal]
        return Steering(place.handshakes, place.why)

    async def serve(self, server: DatagramServer) -> None:
        """Serve until the parent or SIGTERM ends it, or the parent is gone; then drain and close.

        Draining, nobody new is admitted, and connections may go on for `drain_seconds`; then each peer
        gets close_notify.  With a `succession` they are moved to the next process of this slot, if there is
        to be one; a lasting one is for the next program, too.  To be called in the main thread, which has
        the signals.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_reader(self._control.fileno(), self._parent_speaks, stop)
        try:
            self._tell(ready=True)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REPORT_SECONDS):
                        await stop.wait()
                self._report(server)
            self._parent_speaks(stop)  # it said so before the signal
            if self.succession is not None and (self.succession.lasting or not self._last):
                await server.leave(self.succession, min(self.drain_seconds, _SETTLE_SECONDS))
            else:
                server.close()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.drain_seconds):
                        await server.wait_closed()
            await server.shutdown()
        finally:
            loop.remove_reader(self._control.fileno())
            loop.remove_signal_handler(signal.SIGTERM)
            self._report(server)

    def close(self) -> None:
        """Close this process's descriptors; the parent keeps its own."""
        for place in self.places:
            for sock in (place.data, place.handshakes):
                if sock is not None:
                    sock.close()
        for letters in self.letters:
            letters.close()
        self._control.close()

    def _parent_speaks(self, stop: asyncio.Event) -> None:
        """The parent says that the group ends, and nothing else; or it has ended itself."""
        with contextlib.suppress(BlockingIOError):
            said = self._control.recv(1)
            self._last = True
            if not said:
                stop.set()
                asyncio.get_running_loop().remove_reader(self._control.fileno())

    def _report(self, server: DatagramServer) -> None:
        self._tell(statistics=server.statistics(), connections=server.connections)

    def _tell(self, **words: bool | int | Mapping[str, int]) -> None:
        # A parent that does not listen misses one report; the next one has all that is in it.
        with contextlib.suppress(OSError):
            self._control.send(json.dumps(words).encode())
