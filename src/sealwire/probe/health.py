"""How a probe is: the six numbers that tell, and the rules by which it is degraded, each with what helps.

Six metrics: packets captured, flows exported, events signed and transmitted, how full its buffer is, how
much it drops; and active flows.  They are declared here once, and metrics, health events, alerts for
Prometheus and docs follow.  Rules look at the same numbers.  Nothing here reads a clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from sealwire.probe.events import Health
from sealwire.telemetry import counter

#: Rates are those of the latest seconds.
RATE_SECONDS: Final = 10.0


@dataclass(slots=True)
class ProbeHealth:
    """The numbers of a probe now; totals since it began where the name does not say otherwise."""

    packets_captured: int = counter("packets", "packets captured")
    flows_exported: int = counter("flows", "flows exported")
    events_signed: int = counter("events", "events that are signed and durable")
    events_transmitted: int = counter("events", "events that a collector has acknowledged")
    packets_dropped: int = counter("packets", "packets that were not seen, dropped by kernel or driver")
    packets_captured_per_second: float = counter("packets/s", "packets captured a second, of late")
    flows_exported_per_second: float = counter("flows/s", "flows exported a second, of late")
    events_signed_per_second: float = counter("events/s", "events signed a second, of late")
    events_transmitted_per_second: float = counter("events/s", "events acknowledged a second, of late")
    drop_ratio: float = counter("part", "packets that were not seen, as a part of all, of late")
    queue_utilization: float = counter("part", "how full the queue to the signer is")
    buffer_utilization: float = counter("part", "how full the spool of undelivered segments is")
    active_flows: int = counter("flows", "flows in the table now")
    unsigned_events: int = counter("events", "events that wait for their signature to be durable")
    unsigned_segments: float = counter("segments", "the same in segments of about 3,000 events")
    healthy: int = counter("yes/no", "1 while no degradation rule holds")


#: Those that fall as well.
GAUGES: Final = frozenset(
    {
        *("packets_captured_per_second", "flows_exported_per_second", "events_signed_per_second"),
        *("events_transmitted_per_second", "drop_ratio", "queue_utilization", "buffer_utilization"),
        *("active_flows", "unsigned_events", "unsigned_segments", "healthy"),
    }
)
#: Rate -> the total it is the rate of.
_RATES: Final = {
    "packets_captured_per_second": "packets_captured",
    "flows_exported_per_second": "flows_exported",
    "events_signed_per_second": "events_signed",
    "events_transmitted_per_second": "events_transmitted",
}


@dataclass(frozen=True, slots=True)
class Degradation:
    """A rule: degraded while a number is above its threshold, for longer than a moment."""

    name: str
    number: str
    threshold: float
    seconds: float
    mitigation: str
    severity: str = "warning"

    @property
    def back(self) -> float:
        """What it must fall to until the rule holds no more."""
        return self.threshold * 0.9


RULES: Final = (
    Degradation(
        *("queue_full", "queue_utilization", 0.8, 1.0),
        "events are sampled and then dropped, as signed policy events say: give the signer a core of its "
        "own, or raise MAX_BUFFER_SIZE_MB",
    ),
    Degradation(
        *("too_many_flows", "active_flows", 1_000_000, 1.0),
        "the flow idle for longest makes room: shorten FLOW_TIMEOUT_SECONDS, filter with -f, or raise "
        "DPI_MAX_FLOWS",
    ),
    # Signed one by one, 50 events were late; here a signature covers thousands, so segments are counted.
    Degradation(
        *("unsigned", "unsigned_segments", 50, 5.0),
        "the signer or its disk does not keep up: look at the disk of BUFFER_DIR, or sign with ed25519",
    ),
    Degradation(
        *("buffer_full", "buffer_utilization", 0.8, 1.0),
        "the collector is away or too slow, and the oldest goes when the spool is full: look at it, or raise "
        "SPOOL_MAX_MB",
        "critical",
    ),
)


@dataclass(slots=True)
class Watch:
    """Takes a probe's totals from time to time, and knows rates and which rules hold."""

    numbers: ProbeHealth = field(default_factory=ProbeHealth)
    #: Rules that hold, in their order.
    holding: list[Degradation] = field(default_factory=list)
    _seen: deque[tuple[float, dict[str, int]]] = field(default_factory=deque)
    _beyond: dict[str, float] = field(default_factory=dict)
    _told: tuple[int, int] = (0, 0)

    def note(self, now: float) -> list[tuple[Degradation, bool]]:
        """Judge `numbers` as they are at `now` (seconds); rules that begin (True) or cease to hold."""
        numbers = self.numbers
        totals = {total: getattr(numbers, total) for total in (*_RATES.values(), "packets_dropped")}
        self._seen.append((now, totals))
        while len(self._seen) > 2 and now - self._seen[1][0] >= RATE_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        passed = now - since
        for rate, total in _RATES.items():
            setattr(numbers, rate, (totals[total] - before[total]) / passed if passed > 0 else 0.0)
        numbers.drop_ratio = _ratio(
            totals["packets_dropped"] - before["packets_dropped"],
            totals["packets_captured"] - before["packets_captured"],
        )
        changed = [(rule, holds) for rule in RULES if (holds := self._judge(rule, now)) is not None]
        numbers.healthy = int(not self.holding)
        return changed

    def _judge(self, rule: Degradation, now: float) -> bool | None:
        """Whether a rule begins or ceases to hold; None where nothing changes."""
        value = getattr(self.numbers, rule.number)
        if rule in self.holding:
            if value > rule.back:
                return None
            self.holding.remove(rule)
            self._beyond.pop(rule.name, None)
            return False
        if value <= rule.threshold:
            self._beyond.pop(rule.name, None)
            return None
        if now - self._beyond.setdefault(rule.name, now) < rule.seconds:
            return None
        self.holding.append(rule)
        return True

    def event(self, time: int) -> Health:
        """The health event of now; `time` in nanoseconds since 1970."""
        numbers = self.numbers
        seen, dropped = numbers.packets_captured - self._told[0], numbers.packets_dropped - self._told[1]
        self._told = numbers.packets_captured, numbers.packets_dropped
        return Health(
            time=time,
            healthy=numbers.healthy,
            degraded=",".join(rule.name for rule in self.holding),
            active_flows=numbers.active_flows,
            buffer=round(1000 * min(max(numbers.queue_utilization, numbers.buffer_utilization), 1.0)),
            unsigned=numbers.unsigned_events,
            drops=round(1_000_000 * _ratio(dropped, seen)),
        )


def _ratio(dropped: int, seen: int) -> float:
    return min(dropped / (dropped + seen), 1.0) if dropped > 0 else 0.0


def prometheus_rules() -> str:
    """The rules as a file for Prometheus (`rule_files`), YAML."""
    lines = ["groups:", "  - name: sealwire-probe", "    rules:"]
    for rule in RULES:
        alert = "SealwireProbe" + "".join(word.title() for word in rule.name.split("_"))
        lines += [
            f"      - alert: {alert}",
            f"        expr: sealwire_health_{rule.number} > {rule.threshold:g}".replace("1e+06", "1000000"),
            f"        for: {max(rule.seconds, 15):g}s",
            "        labels:",
            f"          severity: {rule.severity}",
            "        annotations:",
            f"          summary: '{{{{ $labels.server }}}}: {rule.number} above {rule.threshold:g}'",
            f"          mitigation: '{rule.mitigation}'",
        ]
    lines += [
        "      - alert: SealwireProbeDrops",
        "        expr: rate(sealwire_health_packets_dropped_total[1m]) > 100",
        "        for: 15s",
        "        labels:",
        "          severity: warning",
        "        annotations:",
        "          summary: '{{ $labels.server }}: more than 100 packets a second are not seen'",
        "          mitigation: 'filter with -f, or see sealwire doctor for settings of this machine'",
    ]
    return "\n".join(lines) + "\n"
