"""A body that repeats one task until a turn is over.

Passes are put together into spans long enough for the clock; what a pass needs is prepared between
spans, off the clock.  The figure is CPU time per unit, because a pinned process on a shared machine
still waits for others; wall time is kept beside it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from sealwire.bench.clocks import STEPS_OF_A_SPAN, Stopwatch, cpu_clock_step
from sealwire.bench.measurement import Bench, Check, Reading

_SPAN_SECONDS: Final = 0.002
_MOST_PASSES: Final = 1 << 16
# A turn ends after this many times its length on the wall, if others take the CPU away.
_LONGEST_TURN: Final = 4


class Task(Protocol):
    """What a loop repeats."""

    #: Records, operations... of one pass.
    units: int

    def prepare(self, passes: int) -> None:
        """Get ready for `passes` passes; not timed."""
        ...

    def work(self, passes: int) -> None:
        """Do them; timed."""
        ...

    def verify(self) -> None:
        """Raise if the last work did not do what it should."""
        ...


class Loop:
    """The Body of a Task; its figure `figure` is microseconds of CPU per unit."""

    def __init__(
        self, bench: Bench, task: Task, values: Callable[[], Mapping[str, float]] = dict, figure: str = ""
    ) -> None:
        """`values` gives further figures of the turn."""
        self._stopwatch = bench.stopwatch
        self._task = task
        self._values = values
        self._figure = figure
        self._passes = 0

    def run(self, seconds: float) -> Reading:
        gc.collect()
        if not self._passes:
            self._passes = self._calibrate()
        task, stopwatch = self._task, self._stopwatch
        units = 0
        while stopwatch.cpu_seconds < seconds and stopwatch.wall_seconds < seconds * _LONGEST_TURN:
            task.prepare(self._passes)
            stopwatch.start()
            task.work(self._passes)
            stopwatch.stop()
            units += self._passes * task.units
        return Reading(
            values={self._figure: stopwatch.cpu_seconds / units * 1e6, **self._values()},
            units=units,
            wall_seconds=stopwatch.wall_seconds,
            cpu_seconds=stopwatch.cpu_seconds,
            checks=(clock_check(stopwatch),),
        )

    def _calibrate(self) -> int:
        """How many passes make a span; the first pass of all pays for much that later ones do not."""
        trial = Stopwatch()
        passes, repeats = 1, 2
        while passes < _MOST_PASSES:
            for _ in range(repeats):
                self._task.prepare(passes)
                trial.reset()
                trial.start()
                self._task.work(passes)
                trial.stop()
            if trial.cpu_seconds >= _SPAN_SECONDS:
                break
            passes, repeats = passes * 2, 1
        return passes

    def verify(self) -> None:
        self._task.verify()

    def close(self) -> None:
        pass


def clock_check(stopwatch: Stopwatch) -> Check:
    """Whether spans were long enough for the clock they were timed with."""
    step = cpu_clock_step()
    span = stopwatch.cpu_seconds / max(1, stopwatch.spans)
    return Check(
        "clock",
        span >= STEPS_OF_A_SPAN * step,
        f"a timed span of {span * 1e6:.0f} us is {span / step:.0f} steps of the clock"
        f" ({STEPS_OF_A_SPAN} are enough)",
    )


class Repeated:
    """A Task that calls one function over and over; `check` judges what the last call returned."""

    def __init__(self, function: Callable[[], object], check: Callable[[object], bool]) -> None:
        self.units = 1
        self._function = function
        self._check = check
        self._last: object = None

    def prepare(self, passes: int) -> None:
        pass

    def work(self, passes: int) -> None:
        function = self._function
        last = self._last
        for _ in range(passes):
            last = function()
        self._last = last

    def verify(self) -> None:
        if not self._check(self._last):
            raise ValueError("what was computed is not right")
