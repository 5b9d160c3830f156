"""The alarm put to the test: runs without a change, and runs with one that was injected.

A baseline, then so many runs of the same software, each compared with it: there must be hardly an
alarm.  Then a run whose timed spans are prolonged: there must be one on every measurement of time, but
for those whose noise, as the comparison itself found it, hides a change of this size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sealwire.bench import runner
from sealwire.bench.compare import Change, Comparison, compare
from sealwire.bench.measurement import Kind, Measurement
from sealwire.bench.results import Result
from sealwire.bench.runner import Plan

# A change of fewer standard errors cannot be told from noise among many rows.
_SIGMAS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What the alarm did: for each unchanged run its comparison, and the slowed one's."""

    unchanged: tuple[Comparison, ...]
    slowed: Comparison
    slow_down: float

    @property
    def false_alarms(self) -> int:
        """Alarms of all unchanged runs together."""
        return sum(len(comparison.alarms) for comparison in self.unchanged)

    @property
    def missed(self) -> list[str]:
        """Rows that measure time, were slowed and not reported, although noise would have let it be seen."""
        return [change.row for change in self._silent if change.error * _SIGMAS <= self.slow_down]

    @property
    def hidden(self) -> list[str]:
        """Rows that were slowed and not reported because of their noise."""
        return [change.row for change in self._silent if change.error * _SIGMAS > self.slow_down]

    @property
    def _silent(self) -> list[Change]:
        caught = {change.row for change in self.slowed.alarms}
        # Further figures of a measurement may be of its other process, which nobody slows.
        timed = [change for change in self.slowed.changes if change.headline and change.kind is Kind.TIME]
        return [change for change in timed if change.row not in caught]


def trial(
    measurements: Sequence[Measurement],
    plan: Plan,
    *,
    runs: int,
    slow_down: float,
    tell: Callable[[str], None] = lambda line: None,
    keep: Callable[[str, Result], None] = lambda name, result: None,
) -> Trial:
    """Run everything: 1 + `runs` times as it is and once slowed by the part `slow_down`.

    `keep` is given every result with a name for it.
    """
    tell("the baseline")
    baseline = runner.run(measurements, plan)
    keep("baseline", baseline)
    unchanged = []
    for n in range(runs):
        result = runner.run(measurements, plan)
        keep(f"unchanged-{n + 1}", result)
        comparison = compare(baseline, result)
        alarms = ", ".join(f"{change.row} {change.change:+.1%}" for change in comparison.alarms)
        tell(f"run {n + 1} of {runs} without a change: {alarms or 'no alarm'}")
        unchanged.append(comparison)
    slowed = runner.run(measurements, dataclasses.replace(plan, slow_down=slow_down))
    keep("slowed", slowed)
    return Trial(tuple(unchanged), compare(baseline, slowed), slow_down)
