"""Alert rules: what is compared with what, for how long, and how it ends.

A rule fires when its value has been beyond its threshold for a whole window, and clears when it has
come back by a margin, so that a value at the threshold does not ring all day.  What happens then is a
function of yours; nothing here changes the server by itself.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sealwire.monitor.history import Indicators


class Severity(enum.Enum):
    """How bad it is."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Rule:
    """Fires while an indicator is beyond a threshold.

    Attributes:
        name: of the rule.
        indicator: a field of :class:`sealwire.monitor.history.Indicators`.
        threshold: in the indicator's unit.
        above: whether beyond means above; else below.
        seconds: how long it must have been beyond.
        margin: the part of the threshold by which it must come back to clear.
    """

    name: str
    indicator: str
    threshold: float
    severity: Severity
    above: bool = True
    seconds: float = 30.0
    margin: float = 0.1

    def __post_init__(self) -> None:
        if self.indicator not in Indicators.__slots__:
            raise ValueError(f"there is no indicator {self.indicator!r}")
        if self.seconds < 0 or not 0 <= self.margin < 1:
            raise ValueError("a window is not negative, and a margin is a part below 1")

    def beyond(self, value: float) -> bool:
        return value > self.threshold if self.above else value < self.threshold

    def back(self, value: float) -> bool:
        part = self.threshold * self.margin
        return value <= self.threshold - part if self.above else value >= self.threshold + part


#: What is watched unless told otherwise.  Throughput has no rule: an idle server is not ill.
DEFAULT_RULES: Final = (
    Rule("slow handshakes", "latency_seconds", 0.015, Severity.WARNING),
    Rule("very slow handshakes", "latency_seconds", 0.025, Severity.CRITICAL),
    Rule("memory for peers", "memory_utilization", 0.8, Severity.CRITICAL),
    Rule("processor", "cpu_utilization", 0.9, Severity.WARNING),
    Rule("failing handshakes", "success_rate", 0.5, Severity.WARNING, above=False),
)


def throughput_rules(warning: float, critical: float) -> tuple[Rule, Rule]:
    """Rules for a server that must always move so many bits a second, such as 400e6 and 200e6."""
    name = "throughput_bits_per_second"
    return (
        Rule("low throughput", name, warning, Severity.WARNING, above=False),
        Rule("very low throughput", name, critical, Severity.CRITICAL, above=False),
    )


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule that fires (`firing`) or has just cleared, with the value that did it."""

    rule: Rule
    value: float
    firing: bool
    at: float

    def __str__(self) -> str:
        if not self.firing:
            return f"{self.rule.name}: over"
        word = "above" if self.rule.above else "below"
        limit = f"{self.rule.threshold:g} for {self.rule.seconds:g} s"
        return f"{self.rule.name}: {self.rule.indicator} is {self.value:g}, {word} {limit}"


class Alerts:
    """Judges indicators by rules, and tells `callback` of every alert that begins or ends."""

    def __init__(self, callback: Callable[[Alert], None], rules: Sequence[Rule] = DEFAULT_RULES) -> None:
        self._callback = callback
        self._rules = tuple(rules)
        self._beyond_since: dict[str, float] = {}
        self._firing: dict[str, Alert] = {}
        if len({rule.name for rule in rules}) != len(rules):
            raise ValueError("two rules have one name")

    @property
    def firing(self) -> list[Alert]:
        """What is wrong now."""
        return list(self._firing.values())

    def judge(self, indicators: Indicators, now: float) -> None:
        """Look at one more set of indicators; one that says nothing (None) changes nothing."""
        for rule in self._rules:
            value: float | None = getattr(indicators, rule.indicator)
            if value is None:
                continue
            if rule.name in self._firing:
                if rule.back(value):
                    del self._firing[rule.name]
                    self._beyond_since.pop(rule.name, None)
                    self._callback(Alert(rule, value, False, now))
                continue
            if not rule.beyond(value):
                self._beyond_since.pop(rule.name, None)
                continue
            since = self._beyond_since.setdefault(rule.name, now)
            if now - since >= rule.seconds:
                alert = Alert(rule, value, True, now)
                self._firing[rule.name] = alert
                self._callback(alert)
