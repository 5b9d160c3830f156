"""The highest rate at which nothing is lost, found by bisection between nothing and flat out."""

from __future__ import annotations

import abc
import time
from typing import Final

from sealwire.bench.measurement import Bench, Check, Reading

_PROBES: Final = 6
# A rate is offered when at least this part of it was sent.
_OFFERED: Final = 0.97


class RateSearch(abc.ABC):
    """A Body that offers rates to its Peer, which answers "count" and "settled" with what came.

    Values: "" units a second, "sender" and "receiver" microseconds of CPU a unit on each side, "cpu" on both.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        #: CPU that sending spent on waiting for the next one's time, which is no cost of sending.
        self.waited_seconds = 0.0

    def wait_until(self, due: float) -> None:
        """Spin until `due` of time.perf_counter(): a sleep is not exact enough."""
        clock = time.perf_counter
        if clock() < due:
            before = time.process_time()
            while clock() < due:
                pass
            self.waited_seconds += time.process_time() - before

    @abc.abstractmethod
    def send(self, rate: float, seconds: float) -> int:
        """Send at `rate` units a second, 0 for flat out; how many were sent."""

    def run(self, seconds: float) -> Reading:
        best = (0.0, 0.0, 0.0)
        units = 0
        sent, rate, lost, used = self._offer(0.0, seconds)
        flat_out, limit = rate, "sender"
        units += sent
        if not lost:
            best = rate, *used
        else:
            limit = "receiver"
            low, high = 0.0, rate
            for _ in range(_PROBES):
                middle = (low + high) / 2
                sent, rate, lost, used = self._offer(middle, seconds)
                units += sent
                if lost:
                    high = middle
                elif rate < _OFFERED * middle:
                    # The sender itself cannot do it at a steady pace.
                    best, limit = (rate, *used), "sender"
                    break
                else:
                    low, best = middle, (rate, *used)
        if not best[0]:
            raise OSError("datagrams were lost at every rate")
        best_rate, sender_cpu, receiver_cpu = best
        return Reading(
            values={
                "": best_rate,
                "sender": sender_cpu,
                "receiver": receiver_cpu,
                "cpu": sender_cpu + receiver_cpu,
            },
            units=units,
            wall_seconds=seconds,
            cpu_seconds=(sender_cpu + receiver_cpu) * 1e-6 * units,
            checks=(
                Check(
                    "generator",
                    True,
                    f"the {limit} was the limit; flat out {flat_out:,.0f} per second were offered",
                ),
            ),
        )

    def _offer(self, rate: float, seconds: float) -> tuple[int, float, bool, tuple[float, float]]:
        """Send at `rate` (0 for flat out): how many, at what rate, whether any were lost, CPU each side."""
        before = self._bench.ask_peer("count")
        watch = self._bench.stopwatch
        self.waited_seconds = 0.0
        cpu = time.process_time()
        wall = watch.wall_seconds
        watch.start()
        sent = self.send(rate, seconds)
        watch.stop()
        cpu = time.process_time() - cpu - self.waited_seconds
        wall = watch.wall_seconds - wall
        after = self._bench.ask_peer("settled")
        lost = sent - round(after["count"] - before["count"])
        receiver = (after["cpu_seconds"] - before["cpu_seconds"]) / sent * 1e6
        return sent, sent / wall, lost > 0, (cpu / sent * 1e6, receiver)

    def verify(self) -> None:  # noqa: B027  (a Body may be content: what did not arrive is in the figure)
        pass
