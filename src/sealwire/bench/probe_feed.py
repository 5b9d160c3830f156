"""A capture that goes on: the packets of one file again and again, at their rate, from other addresses.

    python -m sealwire.bench.probe_feed FILE ROUNDS PERIOD > a pipe

The file is one of `probe_files` with a rate, whose PERIOD (seconds, such as 0.5) of flows is repeated
without a gap: what a flow sends behind the period's end falls into the next round.  Each round's
flows have their own first byte of the client's address.  Two bytes of a record change, and its
nanoseconds every other round, so a reader on another core is never short of packets.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from pathlib import Path
from typing import Final

from sealwire.bench.probe_files import START

_SECOND: Final = 1_000_000_000
_HEAD: Final = 24
_RECORD: Final = struct.Struct("<IIII")
_NANOSECONDS: Final = struct.Struct("<I")
#: Where the client's address begins in a frame, by whether it is the sender: Ethernet, then IPv4.
_ADDRESS_AT: Final = (16 + 14 + 12, 16 + 14 + 16)
#: First byte of clients' addresses in the file.
_CLIENT: Final = 10
_PIPE_BYTES: Final = 1 << 20
_WRITE_BYTES: Final = 1 << 20


class Round:
    """One period of packets, in order, and what changes of it."""

    def __init__(self, data: bytes, period: float) -> None:
        length = round(period * _SECOND)
        records: list[tuple[int, int, int, int]] = []
        at = _HEAD
        while at + _RECORD.size <= len(data):
            seconds, fraction, captured, _ = _RECORD.unpack_from(data, at)
            late, when = divmod(seconds * _SECOND + fraction - START, length)
            records.append((when, late, at, _RECORD.size + captured))
            at += _RECORD.size + captured
        records.sort()
        self._length = length
        self.packets = len(records)
        self.head = data[:_HEAD]
        self.data = bytearray(b"".join(data[at : at + size] for _, _, at, size in records))
        self._starts: list[int] = []
        self._whens = [when for when, _, _, _ in records]
        #: By how many periods late: where clients' first bytes are.
        self._clients: dict[int, list[int]] = {}
        at = 0
        for _, late, _, size in records:
            self._starts.append(at)
            forth = self.data[at + _ADDRESS_AT[0]] == _CLIENT
            self._clients.setdefault(late, []).append(at + _ADDRESS_AT[not forth])
            at += size

    def turn(self, number: int) -> bytearray:
        """The bytes of a round; the same object each time."""
        data = self.data
        second, offset = divmod(START + number * self._length, _SECOND)
        low, before = second & 0xFF, (START // _SECOND) & ~0xFF
        assert second & ~0xFF == before, "too many rounds for one byte of seconds"
        pack = _NANOSECONDS.pack_into
        for at, when in zip(self._starts, self._whens, strict=True):
            data[at] = low
            pack(data, at + 4, when + offset)
        for late, places in self._clients.items():
            byte = _CLIENT + (number - late) % 200
            for at in places:
                data[at] = byte
        return data


def main() -> int:
    file, rounds, period = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    one = Round(file.read_bytes(), period)
    out = sys.stdout.fileno()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(out, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    try:
        os.write(out, one.head)
        for number in range(rounds):
            view = memoryview(one.turn(number))
            while view:
                view = view[os.write(out, view[:_WRITE_BYTES]) :]
    except BrokenPipeError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
