"""Keeps history while a program runs: a point every five seconds, alerts, and whether something grows."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable, Sequence
from types import TracebackType

from sealwire.monitor.alerts import DEFAULT_RULES, Alert, Alerts, Rule
from sealwire.monitor.growth import growing
from sealwire.monitor.history import EVERY_SECONDS, History, Point
from sealwire.monitor.sources import Monitor, Process


class Recorder:
    """Records `monitor` into a :class:`History`, on the running event loop, inside ``async with``.

    Args:
        every: seconds between points.
        on_alert: told of each alert that begins or ends; without it rules are not judged.
        rules: what is an alert.

    Attributes:
        history: the points.
        alerts: what fires now, None without `on_alert`.
    """

    def __init__(
        self,
        monitor: Monitor,
        *,
        every: float = EVERY_SECONDS,
        on_alert: Callable[[Alert], None] | None = None,
        rules: Sequence[Rule] = DEFAULT_RULES,
    ) -> None:
        self.history = History()
        self.alerts = None if on_alert is None else Alerts(on_alert, rules)
        self._monitor = monitor
        self._every = every
        self._told: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def record(self, now: float) -> None:
        """Take one point at `now`, judge it, and warn of what grows (each quantity once)."""
        self.history.add(Point.of(self._monitor.read(), Process.now(), now))
        if self.alerts is not None:
            indicators = self.history.indicators(self._every)
            if indicators is not None:
                self.alerts.judge(indicators, now)
        for found in growing(self.history.points()):
            if found.quantity not in self._told:
                self._told.add(found.quantity)
                warnings.warn(str(found), ResourceWarning, stacklevel=2)

    async def _run(self) -> None:
        while True:
            self.record(time.monotonic())
            await asyncio.sleep(self._every)

    async def __aenter__(self) -> Recorder:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
