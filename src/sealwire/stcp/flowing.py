"""The short way of data: what a driver asks while data flows and nothing else happens.

Each answer is one look at what the long way (`pending`, `events`, `want_read`) says in several calls; a
condition that is not known here must make `flows` false.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sealwire.limits import Purpose
from sealwire.stcp.messaging import Messaging

if TYPE_CHECKING:
    from sealwire.wire import Buffer

#: A ledger fuller than this part of its limit stops reading, so that what is in flight still fits.
HIGH_WATER: Final = 7 / 8


class Flowing(Messaging):
    """The part of :class:`sealwire.stcp.Connection` that is about data under way."""

    def flows(self) -> bool:
        """Whether data flows and nothing else is to be done: no events, nothing to send, and `want_read`."""
        if self.state != "connected" or self._events or self.peer_closed or self._outgoing.held:
            return False
        mode, limits, ledger = self._messages, self._limits, self._ledger
        if mode is None:
            full = len(self._received) >= limits.receive_queue_bytes
        else:
            full = mode.has_more or mode.full
        return not full and ledger.held <= ledger.limit * HIGH_WATER

    def has(self, n: int) -> bool:
        """Whether `n` bytes, in message mode so many messages, can be read."""
        return (len(self._received) if self._messages is None else self._messages.ready) >= n

    @property
    def held(self) -> int:
        """Bytes of records waiting for the network."""
        return self._outgoing.held

    @property
    def crowded(self) -> bool:
        """Whether the ledger is so full that nothing more is read from the network."""
        return self._ledger.held > self._ledger.limit * HIGH_WATER

    def send_through(self, data: Buffer, write: Callable[[bytes], int]) -> bool:
        """Seal `data`, in message mode what was written, and give it to `write`, which says how much it took.

        For a driver whose socket may take it now: only what it leaves is held, charged, and in `pending`.

        Returns:
            Whether it was sealed.  If not, for want of room or because something is under way, nothing was
            taken of `data`; the usual way is `send` and `pending`.
        """
        if self.send_shortly(data, write):
            return True
        outgoing, mode = self._outgoing, self._messages
        if self.state != "connected":
            return False
        if mode is None:
            n = len(data)
            if n:
                if outgoing.held or not self._fits(n, 0):
                    return False
                outgoing.send_through(data, write)
                self.counters.messages_sent += 1
            return True
        while mode.has_more:
            run, cost = mode.run()
            if outgoing.held or not self._fits(len(run), cost):
                return False
            mode.sealed()
            outgoing.send_through(run, write)
        return True

    def _fits(self, n: int, charged: int) -> bool:
        """Whether `n` bytes may be sealed under the keys in use, with room for them if nobody takes them."""
        outgoing = self._outgoing
        return n <= outgoing.key_room_bytes and self._account.fits(
            Purpose.SEND_QUEUE, outgoing.sealed_bytes(n) - charged
        )
