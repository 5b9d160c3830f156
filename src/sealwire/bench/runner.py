"""Measures: every contender of a row in turns, A B A B, each in processes of its own.

A contender that fails is out of its row with a sentence, and the others go on.  The first turn of
each process warms up and is thrown away.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from sealwire.bench import fingerprint, selfcheck, yardstick
from sealwire.bench.measurement import Absent, Contender, Measurement, Reading, Role, Scale
from sealwire.bench.processes import Lost, Running, choose_cpus
from sealwire.bench.results import Entry, Measured, Result

#: Fewer turns say nothing about noise.
LEAST_RUNS: Final = 5
_YARDSTICK_SECONDS: Final = 0.03

Progress = Callable[[str], None]


def _nothing(what: object) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to measure.

    Attributes:
        location: where the measurements are, ``module:attribute``; workers find them again there.
        directory: certificates; see :class:`~sealwire.bench.measurement.Bench`.
        rivals: whether to measure them too.
        slow_down: part by which our contenders' timed spans are prolonged, to see it noticed.
        progress: is told what happens now.
        finished: is given each measurement when it is done.
    """

    location: str
    directory: Path
    scale: Scale
    rivals: bool = True
    slow_down: float = 0.0
    progress: Progress = _nothing
    finished: Callable[[Measured], None] = _nothing


def run(measurements: Sequence[Measurement], plan: Plan) -> Result:
    """Measure them, one after the other."""
    cpus = choose_cpus()
    load_before = fingerprint.load()
    measured = []
    stick = _Seat(yardstick.CONTENDER)
    _start(stick, yardstick.MEASUREMENT, dataclasses.replace(plan, location=yardstick.LOCATION), cpus)
    try:
        for measurement in measurements:
            one = _measure(measurement, plan, cpus, stick)
            measured.append(one)
            plan.finished(one)
    finally:
        stick.leave()
    return Result(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        scale=asdict(plan.scale),
        machine=fingerprint.machine(),
        software=fingerprint.software(),
        hooks={"slow_down": plan.slow_down},
        conditions={
            "cpus": list(cpus),
            "load_before": load_before,
            "load_after": fingerprint.load(),
            "rivals": plan.rivals,
        },
        measured=tuple(measured),
    )


@dataclass(slots=True)
class _Seat:
    """A contender during its measurement: `running` until it is lost, if it was ever present."""

    contender: Contender
    status: str = "measured"
    reason: str = ""
    what: str = ""
    running: Running | None = None
    readings: list[Reading] = field(default_factory=list)

    @property
    def fresh_each_turn(self) -> bool:
        """Whether each turn gets a new process: where memory lies can cost a quarter, and stays the same.

        One process by itself, measured five times, would hide that from us; what we are compared with
        may have its luck.
        """
        return self.contender.role is Role.OURS and self.contender.peer is None

    def lose(self, error: Lost) -> None:
        self.status, self.reason = "failed", str(error)
        # Half a measurement is none: what it gave before may be what made it fail.
        self.readings.clear()
        self.leave()

    def leave(self) -> None:
        if self.running is not None:
            self.running.end()
            self.running = None

    def entry(self) -> Entry:
        name, role = self.contender.name, self.contender.role
        return Entry(name, role, self.status, self.reason, self.what, tuple(self.readings))


def _measure(
    measurement: Measurement, plan: Plan, cpus: tuple[int | None, int | None], stick: _Seat
) -> Measured:
    stick.readings.clear()
    wanted = [one for one in measurement.contenders if plan.rivals or one.role is not Role.RIVAL]
    seats = [_Seat(contender) for contender in wanted]
    try:
        for seat in seats:
            plan.progress(f"{measurement.name}: {seat.contender.name} starts")
            _start(seat, measurement, plan, cpus)
        for turn in range(plan.scale.runs + 1):
            _turn(stick, turn, min(plan.scale.seconds, _YARDSTICK_SECONDS))
            for seat in seats:
                plan.progress(f"{measurement.name}: turn {turn} of {plan.scale.runs}, {seat.contender.name}")
                if turn > 1 and seat.fresh_each_turn and seat.running is not None:
                    seat.leave()
                    _start(seat, measurement, plan, cpus)
                    _turn(seat, 0, plan.scale.seconds / 2)
                _turn(seat, turn, plan.scale.seconds)
    finally:
        for seat in seats:
            seat.leave()
    entries = [seat.entry() for seat in (*seats, stick)]
    checks = selfcheck.merge(entries)
    verdict = selfcheck.sabotage(measurement, entries)
    if verdict is not None:
        checks.append(verdict)
    processes = 1 if all(one.peer is None for one in measurement.contenders) else 2
    return Measured(
        measurement.name, measurement.title, measurement.figures, tuple(entries), tuple(checks), processes
    )


def _turn(seat: _Seat, turn: int, seconds: float) -> None:
    if seat.running is None:
        return
    try:
        reading = seat.running.run(seconds)
    except Lost as error:
        seat.lose(error)
    else:
        # The first turn warms up.
        if turn:
            seat.readings.append(reading)


def _start(seat: _Seat, measurement: Measurement, plan: Plan, cpus: tuple[int | None, int | None]) -> None:
    contender = seat.contender
    presence = contender.presence()
    if isinstance(presence, Absent):
        seat.status, seat.reason = "not present", presence.reason
        return
    seat.what = presence.what
    try:
        seat.running = Running(
            plan.location,
            measurement,
            contender,
            directory=plan.directory,
            scale=plan.scale,
            slow_down=plan.slow_down if contender.role is Role.OURS else 0.0,
            cpus=cpus,
        )
    except Lost as error:
        seat.lose(error)
