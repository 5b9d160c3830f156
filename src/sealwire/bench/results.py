"""Results as JSON: what was measured, where, with what, and every single turn.

A file is written whole or not at all.  Reading one back trusts nothing: whatever is wrong with it
becomes one sentence that names the file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sealwire.bench.measurement import Check, Figure, Kind, Promise, Reading, Role
from sealwire.bench.statistics import Summary, summarize

FORMAT: Final = "sealwire bench"
VERSION: Final = 1
_LARGEST_FILE_BYTES: Final = 64 << 20


class UnusableResult(Exception):
    """A result file that cannot be used; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one contender of one measurement gave.

    Attributes:
        status: ``measured``, ``not present`` or ``failed``; the latter two have a `reason`, no readings.
        what: version and conditions of a rival.
    """

    name: str
    role: Role
    status: str
    reason: str
    what: str
    readings: tuple[Reading, ...]

    def values(self, figure: str) -> list[float]:
        """The figure of every turn, in order."""
        return [reading.values[figure] for reading in self.readings]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one measurement, with every contender that has it."""

    name: str
    title: str
    figure: Figure
    entries: tuple[Entry, ...]
    checks: tuple[Check, ...]
    processes: int

    @property
    def ours(self) -> Entry:
        return next(entry for entry in self.entries if entry.role is Role.OURS)

    def has(self, entry: Entry) -> bool:
        """Whether an entry gave this figure."""
        return bool(entry.readings) and self.figure.name in entry.readings[0].values

    def summary(self, entry: Entry) -> Summary | None:
        """The summary of an entry; None if it gave no such figure."""
        if not self.has(entry):
            return None
        return summarize(entry.values(self.figure.name))


@dataclass(frozen=True, slots=True)
class Measured:
    """All that came of one measurement; `processes` says how many each contender has."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    entries: tuple[Entry, ...]
    checks: tuple[Check, ...]
    processes: int = 1

    def rows(self) -> list[Row]:
        """A row for each figure that at least our contender has, or should have had."""
        return [
            Row(
                f"{self.name}.{figure.name}" if figure.name else self.name,
                f"{self.title}, {figure.title}" if figure.title else self.title,
                figure,
                self.entries,
                self.checks,
                self.processes,
            )
            for figure in self.figures
        ]


@dataclass(frozen=True, slots=True)
class Result:
    """One run of the bench.

    Attributes:
        created: ISO 8601, UTC.
        scale: the fields of the Scale it ran with.
        machine, software: see `fingerprint`.
        hooks: what was injected; a result with a slow-down is no result of this software.
        conditions: CPUs pinned to and the load of the machine.
    """

    created: str
    scale: Mapping[str, Any]
    machine: Mapping[str, Any]
    software: Mapping[str, Any]
    hooks: Mapping[str, Any]
    conditions: Mapping[str, Any]
    measured: tuple[Measured, ...]

    def rows(self) -> list[Row]:
        return [row for one in self.measured for row in one.rows()]

    def failed_checks(self) -> list[tuple[str, Check]]:
        return [(one.name, check) for one in self.measured for check in one.checks if not check.passed]


def save(result: Result, path: Path) -> None:
    """Write `result`.  Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(encode(result), indent=1) + "\n", "utf-8")
    os.replace(fresh, path)


def load(path: Path) -> Result:
    """Read a result.

    Raises:
        UnusableResult: missing, truncated, of something else, or of a newer format.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise UnusableResult(f"cannot read {path}, {(error.strerror or str(error)).lower()}") from error
    try:
        value = json.loads(data) if len(data) <= _LARGEST_FILE_BYTES else None
    except (ValueError, RecursionError):
        raise UnusableResult(f"{path} is no JSON, or not all of it is there") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise UnusableResult(f"{path} is not a result of sealwire bench")
    if value.get("version") != VERSION:
        raise UnusableResult(f"{path} has format version {value.get('version')!r}, not {VERSION}")
    try:
        return _decode(value)
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        raise UnusableResult(
            f"{path} is damaged: it says it is a result of sealwire bench and is none"
        ) from None


def baseline_name(result: Result) -> str:
    """The name of a result's file among others: by machine and commit."""
    commit = str(result.software.get("commit", "unknown"))[:12]
    return f"{result.machine['id']}-{commit}.json"


def baseline(directory: Path, result: Result) -> Result:
    """The newest usable result of the same machine in `directory`, of another time than `result`.

    Raises:
        UnusableResult: there is none.
    """
    found: list[Result] = []
    for path in sorted(directory.glob(f"{result.machine['id']}-*.json")):
        try:
            found.append(load(path))
        except UnusableResult:
            continue
    others = [one for one in found if one.created != result.created]
    if not others:
        raise UnusableResult(f"{directory} has no result of this machine to compare with")
    return max(others, key=lambda one: one.created)


def encode(result: Result) -> dict[str, Any]:
    """`result` as JSON has it; medians and intervals are added for those who read it without us."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "created": result.created,
        "scale": dict(result.scale),
        "machine": dict(result.machine),
        "software": dict(result.software),
        "hooks": dict(result.hooks),
        "conditions": dict(result.conditions),
        "measured": [_encode_measured(one) for one in result.measured],
    }


def _encode_measured(one: Measured) -> dict[str, Any]:
    return {
        "name": one.name,
        "title": one.title,
        "processes": one.processes,
        "figures": [
            {
                "name": figure.name,
                "unit": figure.unit,
                "kind": figure.kind.value,
                "direction": figure.kind.direction,
                "title": figure.title,
                "promised": None if figure.promised is None else dataclasses.asdict(figure.promised),
            }
            for figure in one.figures
        ],
        "contenders": [
            {
                "name": entry.name,
                "role": entry.role.value,
                "status": entry.status,
                "reason": entry.reason,
                "what": entry.what,
                "summary": {
                    figure.name: dataclasses.asdict(summarize(entry.values(figure.name)))
                    for figure in one.figures
                    if entry.readings and figure.name in entry.readings[0].values
                },
                "turns": [_encode_reading(reading) for reading in entry.readings],
            }
            for entry in one.entries
        ],
        "checks": [dataclasses.asdict(check) for check in one.checks],
    }


def _encode_reading(reading: Reading) -> dict[str, Any]:
    fields = {field.name: getattr(reading, field.name) for field in dataclasses.fields(reading)}
    checks = [dataclasses.asdict(check) for check in reading.checks]
    return {**fields, "values": dict(reading.values), "quantiles": dict(reading.quantiles), "checks": checks}


def _decode(value: Mapping[str, Any]) -> Result:
    measured = tuple(_decode_measured(one) for one in value["measured"])
    result = Result(
        created=_text(value["created"]),
        scale=dict(value["scale"]),
        machine=dict(value["machine"]),
        software=dict(value["software"]),
        hooks=dict(value["hooks"]),
        conditions=dict(value["conditions"]),
        measured=measured,
    )
    _text(result.machine["id"])
    for row in result.rows():
        for entry in row.entries:
            if row.has(entry) and not all(map(math.isfinite, entry.values(row.figure.name))):
                raise ValueError
        _ = row.ours
    return result


def _decode_measured(value: Mapping[str, Any]) -> Measured:
    return Measured(
        _text(value["name"]),
        _text(value["title"]),
        tuple(
            Figure(
                _text(one["name"]),
                _text(one["unit"]),
                Kind(one["kind"]),
                _text(one["title"]),
                None
                if one["promised"] is None
                else Promise(float(one["promised"]["value"]), _text(one["promised"]["words"])),
            )
            for one in value["figures"]
        ),
        tuple(
            Entry(
                _text(one["name"]),
                Role(one["role"]),
                _text(one["status"]),
                _text(one["reason"]),
                _text(one["what"]),
                tuple(_decode_reading(turn) for turn in one["turns"]),
            )
            for one in value["contenders"]
        ),
        tuple(Check(**check) for check in value["checks"]),
        int(value["processes"]),
    )


def _decode_reading(value: Mapping[str, Any]) -> Reading:
    return Reading(
        values={_text(name): float(one) for name, one in value["values"].items()},
        units=int(value["units"]),
        wall_seconds=float(value["wall_seconds"]),
        cpu_seconds=float(value["cpu_seconds"]),
        user_seconds=float(value["user_seconds"]),
        system_seconds=float(value["system_seconds"]),
        rss_bytes=int(value["rss_bytes"]),
        quantiles={_text(name): float(one) for name, one in value["quantiles"].items()},
        checks=tuple(Check(**check) for check in value["checks"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def select(rows: Sequence[Row], name: str) -> Row | None:
    """The row of that name, None if there is none."""
    return next((row for row in rows if row.name == name), None)
