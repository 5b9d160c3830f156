"""Objectives in a TOML file, held against a result.

    [[objective]]
    row = "handshake.udp.full.p99"
    at_most = 15.0
    unit = "ms"

    [[objective]]
    row = "record.seal.1200"
    than = "pyOpenSSL, DTLS 1.2"     # then the bound is on ours divided by theirs
    at_most = 0.5

An objective is met when the median meets it; one whose interval reaches over the bound says so.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealwire.bench.results import Result, select
from sealwire.bench.tables import number


class UnusableObjectives(Exception):
    """A file of objectives that cannot be used; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One bound on one row; `than` is "" for an absolute one, `unit` "" to take the row's."""

    row: str
    at_most: float | None
    at_least: float | None
    unit: str
    than: str

    @property
    def words(self) -> str:
        bound = f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"
        return f"{self.row}: {bound}" + (f" times {self.than}" if self.than else f" {self.unit}".rstrip())


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether an objective is met, and what was found; without a figure it is neither met nor `measured`."""

    objective: Objective
    met: bool
    found: str
    measured: bool = True

    @property
    def sentence(self) -> str:
        return f"{self.objective.words}: {self.found}"


_KEYS = {"row", "at_most", "at_least", "unit", "than"}


def load(path: Path) -> list[Objective]:
    """Read a file of objectives.  Raises UnusableObjectives."""
    try:
        value = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UnusableObjectives(f"cannot read {path}, {(error.strerror or str(error)).lower()}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnusableObjectives(f"{path} is no TOML: {error}") from None
    entries = value.get("objective")
    if not isinstance(entries, list) or not entries:
        raise UnusableObjectives(f"{path} has no [[objective]]")
    return [_objective(entry, f"{path}, objective {n}") for n, entry in enumerate(entries, 1)]


def _objective(entry: Mapping[str, Any], where: str) -> Objective:
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise UnusableObjectives(
            f"{where}: there is no {unknown[0]!r}; an objective has {', '.join(sorted(_KEYS))}"
        )
    row, unit, than = (entry.get(key, "") for key in ("row", "unit", "than"))
    if not isinstance(row, str) or not row or not isinstance(unit, str) or not isinstance(than, str):
        raise UnusableObjectives(f"{where}: row, unit and than are strings, and row is needed")
    bounds = [entry[key] for key in ("at_most", "at_least") if key in entry]
    if len(bounds) != 1 or isinstance(bounds[0], bool) or not isinstance(bounds[0], int | float):
        raise UnusableObjectives(f"{where}: needs one number, at_most or at_least")
    return Objective(row, entry.get("at_most"), entry.get("at_least"), unit, than)


def judge(result: Result, objective: Objective) -> Outcome:
    """Hold one objective against a result; what was not measured is not met."""
    row = select(result.rows(), objective.row)
    if row is None:
        return Outcome(objective, False, "not measured", False)
    if objective.unit and objective.unit != row.figure.unit:
        return Outcome(objective, False, f"the row is in {row.figure.unit}", False)
    ours = row.summary(row.ours)
    if ours is None:
        return Outcome(objective, False, row.ours.reason or "no figure", False)
    values, unit = (ours.median, ours.low, ours.high), f" {row.figure.unit}"
    if objective.than:
        rival = next((entry for entry in row.entries if entry.name == objective.than), None)
        theirs = row.summary(rival) if rival is not None else None
        if theirs is None:
            why = rival.reason if rival is not None and rival.reason else "not measured"
            return Outcome(objective, False, f"{objective.than} has no figure ({why})", False)
        values = (ours.median / theirs.median, ours.low / theirs.high, ours.high / theirs.low)
        unit = " times"
    median, low, high = values
    if objective.at_most is not None:
        met, doubtful = median <= objective.at_most, low <= objective.at_most < high
    else:
        assert objective.at_least is not None
        met, doubtful = median >= objective.at_least, low < objective.at_least <= high
    found = f"{number(median)}{unit}"
    if doubtful:
        found += f", but the interval {number(low)} to {number(high)} reaches over the bound"
    return Outcome(objective, met, found)
