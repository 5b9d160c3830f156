"""Train: datagrams of one size laid end to end in one buffer, as segmentation offload moves them.

A system call with UDP_SEGMENT cuts a train into datagrams, one with UDP_GRO puts such a train together
(docs/data-plane.md).  All have the same size except the last, which may be shorter.  Sealing writes
trains and opening reads them, so that a run of records is one object and one call on its whole way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from sealwire.record.header import Buffer

DatagramT = TypeVar("DatagramT", bytes, Buffer)

#: What one send with UDP_SEGMENT takes: the kernel's UDP_MAX_SEGMENTS, and the largest UDP payload of IPv4.
MOST_DATAGRAMS: Final = 64
MOST_BYTES: Final = 65_507


@dataclass(frozen=True, slots=True)
class Train:
    """At least one datagram.

    Attributes:
        data: the datagrams, one behind the other.
        size: bytes of each but the last.
    """

    data: bytes
    size: int

    @property
    def count(self) -> int:
        """How many datagrams there are."""
        return -(-len(self.data) // self.size)

    def split(self, offset: int = 0) -> list[bytes]:
        """Each datagram by itself; of the one that `offset` lies in, what is behind `offset`."""
        data, size = self.data, self.size
        first = min((offset // size + 1) * size, len(data))
        parts = [data[offset:first]] if first > offset else []
        return parts + [data[at : at + size] for at in range(first, len(data), size)]

    def starts_alike(self, n: int) -> bool:
        """Whether the datagrams agree in each of their first `n` bytes, which all of them have."""
        data, size = self.data, self.size
        last = (len(data) - 1) % size + 1
        if last < n:
            return False
        count = self.count
        return all(data[at::size].count(data[at]) == count for at in range(n))


def count_of(datagrams: Iterable[Buffer | Train]) -> int:
    """How many datagrams these are, those of trains counted each."""
    total = 0
    for one in datagrams:
        total += one.count if isinstance(one, Train) else 1
    return total


def bytes_of(datagrams: Iterable[Buffer | Train]) -> int:
    """Their bytes."""
    total = 0
    for one in datagrams:
        total += len(one.data) if isinstance(one, Train) else len(one)
    return total


def split_all(datagrams: Iterable[DatagramT | Train]) -> list[DatagramT | bytes]:
    """The same datagrams, one by one."""
    single: list[DatagramT | bytes] = []
    for one in datagrams:
        if isinstance(one, Train):
            single += one.split()
        else:
            single.append(one)
    return single


def rest_of(datagrams: Sequence[Buffer | Train], index: int, offset: int) -> list[Buffer]:
    """What is left behind `offset` bytes of `datagrams[index]`, one by one."""
    rest: list[Buffer] = []
    if offset:
        first = datagrams[index]
        if isinstance(first, Train):
            rest += first.split(offset)
        else:
            rest.append(first[offset:])
        index += 1
    for one in datagrams[index:]:
        rest += one.split() if isinstance(one, Train) else [one]
    return rest


def couple(datagrams: Iterable[bytes]) -> list[bytes | Train]:
    """The same datagrams in the same order, in trains where neighbours allow it."""
    coupled: list[bytes | Train] = []
    waiting: list[bytes] = []
    held = 0

    def leave() -> None:
        if waiting:
            coupled.append(Train(b"".join(waiting), len(waiting[0])) if len(waiting) > 1 else waiting[0])
            waiting.clear()

    for one in datagrams:
        ended = waiting and (
            len(one) > len(waiting[0])
            or len(waiting[-1]) < len(waiting[0])
            or len(waiting) == MOST_DATAGRAMS
            or held + len(one) > MOST_BYTES
        )
        if ended or not one:
            leave()
            held = 0
        if not one:
            coupled.append(one)
            continue
        waiting.append(one)
        held += len(one)
    leave()
    return coupled


def pack_records(records: Iterable[bytes], most: int) -> list[bytes]:
    """Datagrams of at most `most` bytes that hold the records in order; a longer record has its own."""
    datagrams: list[bytes] = []
    waiting: list[bytes] = []
    held = 0
    for record in records:
        if waiting and held + len(record) > most:
            datagrams.append(b"".join(waiting))
            waiting.clear()
            held = 0
        waiting.append(record)
        held += len(record)
    if waiting:
        datagrams.append(b"".join(waiting))
    return datagrams
