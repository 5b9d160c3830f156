"""Two results side by side: what got worse, beyond noise, and how sure that is.

Every row asks the same question, so the chance to cry wolf is shared out over all of them (Holm):
at most 5 % for the whole comparison.  An alarm needs both: a change beyond the row's threshold, and
one that noise does not explain.

Noise within a run is in its turns.  Noise between runs is not, and on a shared machine it is the
larger part.  It is estimated from what cannot have changed: the rivals of the same version that were
measured in turns with us then and now.  The yardstick says how much slower the machine was in a row;
it is taken out where that makes the rivals agree better with themselves.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sealwire.bench.measurement import Kind, Role
from sealwire.bench.results import Entry, Result, Row, UnusableResult, select
from sealwire.bench.statistics import holm, student_tail

FAMILY_ERROR: Final = 0.05
# Bytes per unit below which a change of memory is no change.
_LEAST_BYTES: Final = 64.0
_LEAST_LOST: Final = 0.5
_COUNTS: Final = (Kind.MEMORY, Kind.LOSS)
# Fewer unchanged figures say nothing about noise.
_FEWEST_CONTROLS: Final = 4
# What disturbs them differs: whoever else uses the machine takes time on the wall, hardly CPU time; but
# two processes that wake each other pay in CPU time, too, when they are kept apart.
_CPU: Final = "CPU time"
_CPU_OF_TWO: Final = "CPU time of two processes"
_MEMORY: Final = "memory"
_WALL: Final = "time on the wall"
# The noise between runs where too little was measured that could tell.
_ASSUMED_NOISE: Final = {_CPU: 0.03, _CPU_OF_TWO: 0.15, _MEMORY: 0.03, _WALL: 0.15}
# Standard deviations of a median distance.
_DEVIATION: Final = 1.4826
# A row whose controls moved by more than so many times the usual noise has a noise of its own.
_FAR: Final = 2.0
# The standard error of a median is this much larger than a mean's.
_MEDIAN_ERROR: Final = 1.2533


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How much worse is an alarm: parts of the old value."""

    time: float = 0.10
    rate: float = 0.05
    memory: float = 0.15

    def log(self, kind: Kind) -> float:
        """The threshold as a difference of logarithms, counted in the worse direction."""
        if kind is Kind.RATE:
            return -math.log1p(-self.rate)
        return math.log1p(self.time if kind is Kind.TIME else self.memory)


class Verdict:
    """What a row's change means."""

    WORSE: Final = "worse"
    BETTER: Final = "better"
    SAME: Final = "no change seen"


@dataclass(frozen=True, slots=True)
class Change:
    """One row then and now.

    Attributes:
        change: new / old - 1, as measured.
        machine: the part of it that was the machine, by the yardstick; 0 if it was not taken out.
        error: standard error of the change, in logarithms, noise between runs included.
        p: the chance to see this or worse without any change, Holm-adjusted.
    """

    row: str
    title: str
    unit: str
    kind: Kind
    old: float
    new: float
    change: float
    machine: float
    error: float
    p: float
    verdict: str
    #: Whether it is the first figure of its measurement.
    headline: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows of two results; `skipped` has a sentence for each that could not be compared."""

    changes: tuple[Change, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def alarms(self) -> list[Change]:
        return [change for change in self.changes if change.verdict == Verdict.WORSE]


@dataclass(frozen=True, slots=True)
class _Shift:
    """A difference of median logarithms, positive for worse, with its error within the runs."""

    value: float
    error: float
    freedom: float


@dataclass(frozen=True, slots=True)
class _Noise:
    """Between runs, for figures of one class: its size, from how many controls, and what to do with drift.

    With no controls to speak of the size is an assumption.
    """

    size: float
    controls: int
    corrected: bool
    assumed: bool = False


def compare(old: Result, new: Result, thresholds: Thresholds | None = None) -> Comparison:
    """Compare two results of one machine.

    Raises:
        UnusableResult: they come from different machines, or one ran on the twin and one compiled.
    """
    thresholds = thresholds or Thresholds()
    if old.machine.get("id") != new.machine.get("id"):
        raise UnusableResult("the results come from different machines, whose figures cannot be compared")
    if old.software.get("compiled") != new.software.get("compiled"):
        raise UnusableResult("one result is of the compiled record layer and one of its plain-Python twin")
    if not old.measured or not new.measured:
        raise UnusableResult("there is nothing to compare: a result has no rows")
    pairs, skipped = _pairs(old, new)
    shifts = [_shift(row_old.ours, row_new.ours, row_old) for row_old, row_new in pairs]
    drifts = [_drift(row_old, row_new) for row_old, row_new in pairs]
    unchanged = [_controls(row_old, row_new) for row_old, row_new in pairs]
    noises = _noises([row for row, _ in pairs], drifts, unchanged)
    judged = []
    for (row, _), shift, drift, controls in zip(pairs, shifts, drifts, unchanged, strict=True):
        noise = noises[_class(row)]
        # A count has no noise: when all turns agree it is known exactly.
        exact = shift.error == 0 and row.figure.kind in _COUNTS
        between = 0.0 if exact else noise.size
        moved = drift if noise.corrected and not exact else 0.0
        # Where the row's own rivals moved by far more than others did, so may we have.
        own = 0.0 if exact else _moved(controls, moved)
        between = own if own > _FAR * between else between
        error = math.hypot(shift.error, between)
        freedom = _freedom(shift, between, noise.controls)
        judged.append((shift.value - moved, moved, error, freedom))
    p_worse = holm([_p(value, error, freedom) for value, _, error, freedom in judged])
    p_better = holm([_p(-value, error, freedom) for value, _, error, freedom in judged])
    changes = []
    for (row_old, row_new), (value, moved, error, _), worse, better in zip(
        pairs, judged, p_worse, p_better, strict=True
    ):
        limit = thresholds.log(row_old.figure.kind)
        verdict = Verdict.SAME
        if value > limit and worse < FAMILY_ERROR:
            verdict = Verdict.WORSE
        elif -value > limit and better < FAMILY_ERROR:
            verdict = Verdict.BETTER
        before, after = (_median(row.ours, row) for row in (row_old, row_new))
        change = (after - before) / before if before else 0.0
        sign = -1 if row_old.figure.kind is Kind.RATE else 1
        changes.append(
            Change(
                row_old.name,
                row_old.title,
                row_old.figure.unit,
                row_old.figure.kind,
                before,
                after,
                change,
                math.expm1(sign * moved),
                error,
                worse,
                verdict,
                headline=not row_old.figure.name,
            )
        )
    return Comparison(tuple(changes), tuple(skipped), tuple(_notes(old, new, noises)))


def _pairs(old: Result, new: Result) -> tuple[list[tuple[Row, Row]], list[str]]:
    pairs, skipped = [], []
    rows_new = new.rows()
    for row in old.rows():
        other = select(rows_new, row.name)
        if other is None:
            skipped.append(f"{row.name}: the new result does not have it")
        elif other.figure.unit != row.figure.unit or other.figure.kind is not row.figure.kind:
            skipped.append(f"{row.name}: its unit changed from {row.figure.unit} to {other.figure.unit}")
        elif min(_turns(row), _turns(other)) < 2:
            side = "old" if _turns(row) < 2 else "new"
            skipped.append(f"{row.name}: the {side} result has no figure")
        else:
            pairs.append((row, other))
    known = {row.name for row in old.rows()}
    skipped += [f"{row.name}: the old result does not have it" for row in rows_new if row.name not in known]
    return pairs, skipped


def _turns(row: Row) -> int:
    return len(row.ours.readings) if row.has(row.ours) else 0


def _logs(entry: Entry, row: Row) -> list[float]:
    """Logarithms of the turns, turned so that more is worse."""
    sign = -1 if row.figure.kind is Kind.RATE else 1
    least = {Kind.MEMORY: _LEAST_BYTES, Kind.LOSS: _LEAST_LOST}.get(row.figure.kind, 1e-12)
    return [sign * math.log(max(value, least)) for value in entry.values(row.figure.name)]


def _median(entry: Entry, row: Row) -> float:
    return statistics.median(entry.values(row.figure.name))


def _shift(old: Entry, new: Entry, row: Row) -> _Shift:
    before, after = _logs(old, row), _logs(new, row)
    value = statistics.median(after) - statistics.median(before)
    parts = [
        (_MEDIAN_ERROR**2 * statistics.variance(logs) / len(logs), len(logs) - 1) for logs in (before, after)
    ]
    total = sum(part for part, _ in parts)
    freedom = total**2 / sum(part**2 / n for part, n in parts) if total > 1e-30 else math.inf
    return _Shift(value, math.sqrt(total) if total > 1e-30 else 0.0, freedom)


def _entry(row: Row, role: Role) -> Entry | None:
    return next((entry for entry in row.entries if entry.role is role and len(entry.readings) > 1), None)


def _drift(old: Row, new: Row) -> float:
    """By how much slower the yardstick was in this row, as a difference of logarithms."""
    before, after = _entry(old, Role.YARDSTICK), _entry(new, Role.YARDSTICK)
    if before is None or after is None or old.figure.kind in _COUNTS:
        return 0.0
    return math.log(statistics.median(after.values("")) / statistics.median(before.values("")))


def _class(row: Row) -> str:
    if row.figure.kind in _COUNTS:
        return _MEMORY
    if row.figure.unit != "us":
        return _WALL
    return _CPU if row.processes == 1 else _CPU_OF_TWO


def _controls(old: Row, new: Row) -> list[_Shift]:
    """How contenders of the row moved that did not change."""
    found = []
    for entry in old.entries:
        # What is measured of ours may change with our code, even without its crypto.
        fixed = entry.role is Role.RIVAL or (entry.role is Role.CRYPTO_ALONE and entry.what)
        other = next((one for one in new.entries if one.name == entry.name), None)
        if not fixed or other is None or other.what != entry.what:
            continue
        if min(len(entry.readings), len(other.readings)) > 1 and old.has(entry) and new.has(other):
            found.append(_shift(entry, other, old))
    return found


def _moved(controls: Sequence[_Shift], drift: float) -> float:
    """How far the row's own controls moved, as one standard deviation; 0 without two, as one says nothing.

    By their median, because one of them may have had bad luck with its memory, which is no matter of ours.
    """
    distances = [abs(shift.value - drift) for shift in controls]
    return _DEVIATION * statistics.median(distances) if len(distances) > 1 else 0.0


def _noises(
    rows: Sequence[Row], drifts: Sequence[float], unchanged: Sequence[Sequence[_Shift]]
) -> dict[str, _Noise]:
    """The noise between runs for every class of figures, from contenders that did not change."""
    by_class: dict[str, list[tuple[_Shift, float]]] = {}
    for row, drift, controls in zip(rows, drifts, unchanged, strict=True):
        by_class.setdefault(_class(row), []).extend((shift, drift) for shift in controls)
    largest = max((abs(drift) for drift in drifts), default=0.0)
    return {name: _noise(name, controls, largest) for name, controls in by_class.items()}


def _noise(name: str, controls: Sequence[tuple[_Shift, float]], largest_drift: float) -> _Noise:
    if len(controls) < _FEWEST_CONTROLS:
        # Nobody can say how well the yardstick follows the machine; half of what it took out is doubted.
        drifts = name != _MEMORY
        size = max(_ASSUMED_NOISE[name], largest_drift / 2 if drifts else 0.0)
        return _Noise(size, 2 * _FEWEST_CONTROLS, corrected=drifts, assumed=True)

    def excess(values: Sequence[float]) -> float:
        """What of the shifts their errors do not explain; never below half of all, as they are few."""
        squares = statistics.fmean(value * value for value in values)
        within = statistics.fmean(shift.error**2 for shift, _ in controls)
        return math.sqrt(max(squares - within, squares / 4))

    raw = excess([shift.value for shift, _ in controls])
    corrected = excess([shift.value - drift for shift, drift in controls])
    return _Noise(min(raw, corrected), len(controls), corrected=corrected < raw)


def _freedom(shift: _Shift, between: float, controls: int) -> float:
    """Degrees of freedom of the two errors together (Welch and Satterthwaite)."""
    total = shift.error**2 + between**2
    if total == 0:
        return math.inf
    within = shift.error**4 / shift.freedom if shift.freedom < math.inf else 0.0
    return total**2 / max(within + between**4 / max(controls, 1), 1e-300)


def _p(value: float, error: float, freedom: float) -> float:
    if error == 0:
        return 0.0 if value > 0 else 1.0
    return student_tail(value / error, min(freedom, 1e6))


def _notes(old: Result, new: Result, noises: dict[str, _Noise]) -> list[str]:
    notes = []
    for key, word in (
        ("python", "interpreter"),
        ("openssl_interpreter", "OpenSSL"),
        ("cryptography", "cryptography"),
    ):
        if old.software.get(key) != new.software.get(key):
            notes.append(f"the {word} changed: {old.software.get(key)} then, {new.software.get(key)} now")
    for name, result in (("old", old), ("new", new)):
        if result.hooks.get("slow_down"):
            notes.append(f"the {name} result has an injected slow-down of {result.hooks['slow_down']:.0%}")
        load = max(result.conditions.get("load_before", 0), result.conditions.get("load_after", 0))
        if load > 1.5:
            notes.append(f"the machine was busy during the {name} run (load {load:.1f})")
    if old.scale.get("name") != new.scale.get("name"):
        notes.append(f"the old run was {old.scale.get('name')}, the new one {new.scale.get('name')}")
    for name, noise in sorted(noises.items()):
        known = "assumed" if noise.assumed else f"from {noise.controls} unchanged figures"
        taken = ", the machine's drift taken out" if noise.corrected else ""
        notes.append(f"noise between the runs, {name}: {noise.size:.1%} ({known}{taken})")
    return notes
