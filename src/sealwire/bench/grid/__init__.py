"""Requests and answers over a byte stream: plain TCP, Python's ssl and STCP side by side.

The method of the promised figures: a fixed number of clients on persistent connections, each with one
request in flight, every answer compared with what was asked, latency taken for each.  All frame
messages by a four-byte length.  Server and clients are processes of their own, on a CPU each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Cell:
    """A row of the grid: how many clients ask with how many bytes, and what was promised for it.

    Attributes:
        size, clients: bytes of a message, clients.
        rate: requests a second promised.
        p99: 99th percentile of latency promised, in ms.
    """

    size: int
    clients: int
    rate: float
    p99: float


GRID: Final = (
    Cell(256, 50, 8_500.0, 10.0),
    Cell(4_096, 20, 6_800.0, 8.7),
    Cell(16_384, 10, 4_300.0, 11.7),
    Cell(65_536, 5, 1_750.0, 27.2),
)
