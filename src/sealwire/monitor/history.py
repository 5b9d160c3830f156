"""The last hour in a ring, and what it says: rates, success, throughput, growth.

A point is a few numbers; there are at most `POINTS` of them, so history costs the same after a year.
Real history belongs into Prometheus; this is for programs without it, and for `sealwire status`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sealwire.monitor.sources import Process, Reading

#: An hour at one point every five seconds.
POINTS: Final = 720
EVERY_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Point:
    """Sums over all servers at `at`, on a clock that never goes back; counters only grow."""

    at: float
    connections: int
    handshakes_completed: int
    handshakes_failed: int
    handshake_seconds: float
    connections_opened: int
    connections_closed: int
    bytes_received: int
    bytes_sent: int
    records: int
    discards: int
    held_bytes: int
    held_limit_bytes: int
    resident_bytes: int
    cpu_seconds: float
    open_descriptors: int

    @classmethod
    def of(cls, readings: Sequence[Reading], process: Process, at: float) -> Point:
        """The sums of `readings`."""
        endpoints = [reading.endpoint for reading in readings]
        totals = [reading.totals for reading in readings]
        return cls(
            at=at,
            connections=sum(reading.connections for reading in readings),
            handshakes_completed=sum(one.handshakes_completed for one in endpoints),
            handshakes_failed=sum(one.handshakes_failed for one in endpoints),
            handshake_seconds=sum(one.handshake_seconds.sum for one in endpoints),
            connections_opened=sum(one.connections_opened for one in endpoints),
            connections_closed=sum(one.connections_closed for one in endpoints),
            bytes_received=sum(one.bytes_received for one in totals),
            bytes_sent=sum(one.bytes_sent for one in totals),
            records=sum(one.records_opened + one.records_sealed for one in totals),
            discards=sum(sum(one.discards.values()) for one in (*endpoints, *totals)),
            held_bytes=sum(reading.held_bytes for reading in readings),
            held_limit_bytes=sum(reading.held_limit_bytes for reading in readings),
            resident_bytes=process.resident_bytes,
            cpu_seconds=process.cpu_seconds,
            open_descriptors=process.open_descriptors,
        )


@dataclass(frozen=True, slots=True)
class Indicators:
    """What happened between two points.

    Attributes:
        seconds: between them.
        handshakes_per_second, connections_closed_per_second: set up and torn down.
        success_rate: of handshakes that ended, those that completed; None if none ended.
        latency_seconds: the mean length of those that completed; None if none did.
        throughput_bits_per_second: protected bytes, both directions.
        records_per_second, discards_per_second: records made or opened; what was dropped.
        cpu_utilization: of one processor, from 0; with threads it may pass 1.
        memory_utilization: of the bytes that may be held for peers, those held at the end.
    """

    seconds: float
    handshakes_per_second: float
    connections_closed_per_second: float
    success_rate: float | None
    latency_seconds: float | None
    throughput_bits_per_second: float
    records_per_second: float
    discards_per_second: float
    cpu_utilization: float
    memory_utilization: float

    @classmethod
    def between(cls, old: Point, new: Point) -> Indicators:
        """What happened from `old` to `new`.  ValueError unless `new` is later."""
        seconds = new.at - old.at
        if seconds <= 0:
            raise ValueError("the newer point must be later")
        completed = new.handshakes_completed - old.handshakes_completed
        ended = completed + new.handshakes_failed - old.handshakes_failed
        spent = new.handshake_seconds - old.handshake_seconds
        moved = new.bytes_received + new.bytes_sent - old.bytes_received - old.bytes_sent
        return cls(
            seconds=seconds,
            handshakes_per_second=completed / seconds,
            connections_closed_per_second=(new.connections_closed - old.connections_closed) / seconds,
            success_rate=completed / ended if ended else None,
            latency_seconds=spent / completed if completed else None,
            throughput_bits_per_second=8 * moved / seconds,
            records_per_second=(new.records - old.records) / seconds,
            discards_per_second=(new.discards - old.discards) / seconds,
            cpu_utilization=(new.cpu_seconds - old.cpu_seconds) / seconds,
            memory_utilization=new.held_bytes / new.held_limit_bytes if new.held_limit_bytes else 0.0,
        )


class History:
    """The newest points, at most `most` of them."""

    def __init__(self, most: int = POINTS) -> None:
        self._points: deque[Point] = deque(maxlen=most)

    def __len__(self) -> int:
        return len(self._points)

    def add(self, point: Point) -> None:
        """Keep `point`, and forget the oldest if there are too many."""
        self._points.append(point)

    def points(self, start: float = float("-inf"), end: float = float("inf")) -> list[Point]:
        """Those from `start` to `end`, both included, oldest first."""
        return [point for point in self._points if start <= point.at <= end]

    def indicators(self, seconds: float) -> Indicators | None:
        """What happened in the last `seconds`, as far as history goes back; None below two points."""
        if len(self._points) < 2:
            return None
        new = self._points[-1]
        old = next(point for point in self._points if point.at >= new.at - seconds or point is new)
        if old is new:
            old = self._points[-2]
        return Indicators.between(old, new)
