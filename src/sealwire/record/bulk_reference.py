"""Runs of records as trains of datagrams, in plain Python: what `_bulk` does, by seal_run and open_run.

Opening gives messages, not entries: at the rates of bulk traffic a tuple for each record is too much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sealwire.record.header import Buffer
from sealwire.record.reference import APPLICATION_DATA, Entry, Opener, Sealer
from sealwire.record.train import Train, couple

#: Messages, (number of a Discard, how many) for each that occurred, the record that ended the run if one
#: did that holds no application data, highest number of a message or -1, and where to go on.
Opened = tuple[list[bytes], list[tuple[int, int]], Entry | None, int, int, int]


def weigh(messages: Iterable[Buffer]) -> tuple[list[bytes], int, int]:
    """The messages as bytes that nobody changes, their bytes in all, and those of the longest."""
    taken = [one if type(one) is bytes else bytes(memoryview(one)) for one in messages]
    return taken, sum(map(len, taken)), max(map(len, taken), default=0)


def seal_trains(
    sealer: Sealer, content_type: int, messages: Sequence[Buffer], block: int, longest: int
) -> list[bytes | Train]:
    """A record for each message as :meth:`Sealer.seal_run`, each a datagram; neighbours form trains."""
    return couple(sealer.seal_run(content_type, messages, block, longest))


def open_data(opener: Opener, datagrams: Sequence[Buffer | Train], index: int, offset: int) -> Opened:
    """Open consecutive records of one epoch as :meth:`Opener.open_run`, and sort them.

    `offset` counts from the beginning of `datagrams[index]`, a train or not.
    """
    if index < 0 or offset < 0:
        raise ValueError("a run starts at an index and offset from 0 on")
    single: list[Buffer] = []
    places: list[tuple[int, int]] = []  # of each datagram: in `datagrams`, and where it begins in there
    for n in range(index, len(datagrams)):
        one = datagrams[n]
        if isinstance(one, Train):
            single += one.split()
            places += [(n, at) for at in range(0, len(one.data), one.size)]
        else:
            single.append(one)
            places.append((n, 0))
    places.append((len(datagrams), 0))
    at = next((k for k in range(len(places) - 1, -1, -1) if places[k] <= (index, offset)), 0)
    entries, at, inside = opener.open_run(single, at, offset - places[at][1])
    messages: list[bytes] = []
    drops: dict[int, int] = {}
    other = None
    highest = -1
    for entry in entries:
        content_type, sequence, content = entry
        if content_type < 0:
            drops[-content_type] = drops.get(-content_type, 0) + 1
        elif content_type == APPLICATION_DATA:
            messages.append(content)
            highest = max(highest, sequence)
        else:
            other = entry
    index, start = places[at]
    return messages, sorted(drops.items()), other, highest, index, start + inside
