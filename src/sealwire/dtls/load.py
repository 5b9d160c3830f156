"""Under load: what an endpoint does while it is attacked, or while its owner says so.

Strangers always need a cookie (a ticket is no proof), so there is no early data either, and a
handshake gets a quarter of its time, those that are open already too.  It begins with the first
attack the detectors see and ends by itself when the last one is over, which they say only after a
while of calm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from sealwire.dtls.detectors import RULES, Attack, AttackEvent, Detectors, Rule
from sealwire.limits import Ledger, Limits
from sealwire.telemetry import EndpointCounters

#: What is left of handshake_seconds.
HANDSHAKE_PART: Final = 0.25


class Load:
    """Whether one endpoint is under load, by its detectors or by hand.

    Attributes:
        on: whether it is.
        limits: what new connections are made with.
    """

    __slots__ = ("_counters", "_detectors", "_forced", "_short", "_spacious", "_switch", "limits", "on")

    def __init__(
        self,
        counters: EndpointCounters,
        ledger: Ledger,
        limits: Limits,
        gauges: Callable[[], tuple[int, int]],
        switch: Callable[[bool, float], None],
        rules: Sequence[Rule] = RULES,
        *,
        port_shared: bool = False,
    ) -> None:
        """As :class:`Detectors`; `switch` is called when it goes on and off, with the time."""
        self._counters = counters
        self._detectors = Detectors(counters, ledger, limits, gauges, rules, port_shared=port_shared)
        self._spacious = limits
        self._short = replace(limits, handshake_seconds=limits.handshake_seconds * HANDSHAKE_PART)
        self._switch = switch
        self._forced: bool | None = None
        self.on = False
        self.limits = limits

    @property
    def attacks(self) -> frozenset[Attack]:
        """The attacks that go on, as the detectors see it."""
        return self._detectors.active

    @property
    def log(self) -> tuple[AttackEvent, ...]:
        """When attacks began and ended, oldest first; the newest events only."""
        return tuple(self._detectors.log)

    @property
    def due(self) -> float:
        """From when on :meth:`look` has something to do."""
        return self._detectors.due

    @property
    def deadline(self) -> float | None:
        """When to look even if nothing comes: an attack that is over must be seen to be."""
        return self._detectors.due if self.on or self._detectors.active else None

    def look(self, now: float) -> None:
        """Let the detectors look, and follow them."""
        self._detectors.look(now)
        self._follow(now)

    def force(self, on: bool | None, now: float) -> None:
        """Go under load (True) or never do (False), whatever the detectors see; None leaves it to them."""
        self._forced = on
        self._follow(now)

    def _follow(self, now: float) -> None:
        on = bool(self._detectors.active) if self._forced is None else self._forced
        if on is self.on:
            return
        self.on = on
        self.limits = self._short if on else self._spacious
        self._counters.under_load_entered += on
        self._switch(on, now)
