"""Letters between the workers of one port: datagrams that reached one and belong to another.

The kernel steers a run of datagrams by its first one, so a run of several connections may come to the
wrong worker whole; where the kernel cannot steer at all, so does every peer that changed its address.
Who gets such a datagram knows from its connection id whose it is and posts it: the parent made a pair
of Unix datagram sockets for every worker, and keeps both ends, so a letter outlives who wrote it.

A full queue loses a letter, which is counted, as the network may lose any datagram; nothing waits.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

from sealwire.drive.peers import Address, Reached

Item = tuple[bytes, Address]

# Beyond it a letter is closed and another begun; the longest datagram fits into one by itself.
_LETTER_BYTES = 60 * 1024
_MOST_BYTES = 2 * 65_536
#: Letters taken in a turn.
_BATCH = 16
# Of an item: bytes of the address, of the control message with our own, of the datagram; its level, kind.
_ITEM = struct.Struct("=HHIii")


def encode(items: Iterable[Item]) -> bytes:
    """Datagrams and the addresses they came from, as :func:`decode` reads them."""
    parts: list[bytes] = []
    for data, address in items:
        level, kind, own = address.own if isinstance(address, Reached) else (0, 0, b"")
        # Text, because an address may have a zone in it; no part of one has a zero byte.
        text = "\0".join(map(str, address)).encode()
        parts += (_ITEM.pack(len(text), len(own), len(data), level, kind), text, own, data)
    return b"".join(parts)


def decode(letter: bytes) -> list[Item]:
    """What :func:`encode` was given.

    Raises:
        ValueError: these bytes are no letter.
    """
    items: list[Item] = []
    at = 0
    while at < len(letter):
        try:
            address_bytes, own_bytes, data_bytes, level, kind = _ITEM.unpack_from(letter, at)
        except struct.error as error:
            raise ValueError(f"a letter is cut short: {error}") from error
        at += _ITEM.size
        text, own = letter[at : at + address_bytes], letter[at + address_bytes :][:own_bytes]
        at += address_bytes + own_bytes
        data = letter[at : at + data_bytes]
        at += data_bytes
        if at > len(letter):
            raise ValueError("a letter is cut short")
        host, *numbers = text.decode().split("\0")
        address: Address = (host, *map(int, numbers))
        items.append((data, Reached.at(address, (level, kind, own)) if own else address))
    return items


class Letters:
    """The post of one worker and one port.

    Args:
        inbox: where letters to this worker arrive.
        outboxes: for each worker where its letters go; its own is among them, so that numbers fit.
    """

    def __init__(self, inbox: socket.socket, outboxes: Sequence[socket.socket]) -> None:
        self.inbox = inbox
        self._outboxes = tuple(outboxes)
        for sock in (inbox, *self._outboxes):
            sock.setblocking(False)

    def __reduce__(self) -> tuple[type[Letters], tuple[socket.socket, tuple[socket.socket, ...]]]:
        return Letters, (self.inbox, self._outboxes)

    def post(self, worker: int, items: Sequence[Item]) -> int:
        """Give `items` to `worker`; how many of them its queue did not take."""
        lost = 0
        for some in _letters(items):
            try:
                self._outboxes[worker].send(encode(some))
            except OSError:
                # Full, or too long for the socket's buffer.
                lost += len(some)
        return lost

    def take(self) -> list[Item]:
        """What has arrived, a few letters at most."""
        items: list[Item] = []
        for _ in range(_BATCH):
            try:
                letter = self.inbox.recv(_MOST_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            items += decode(letter)
        return items

    def close(self) -> None:
        for sock in (self.inbox, *self._outboxes):
            sock.close()


def post_offices(workers: int) -> list[Letters]:
    """The post of each worker; together they hold both ends of every pair."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(workers)]
    outboxes = [out for _, out in pairs]
    return [Letters(inbox, outboxes) for inbox, _ in pairs]


def _letters(items: Sequence[Item]) -> Iterator[list[Item]]:
    some: list[Item] = []
    room = _LETTER_BYTES
    for item in items:
        if some and len(item[0]) > room:
            yield some
            some, room = [], _LETTER_BYTES
        some.append(item)
        room -= len(item[0])
    if some:
        yield some
