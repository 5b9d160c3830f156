"""What a result suggests to look at: a few named rules, each with the figures it saw.

A rule knows nothing but the result.  It says where time or memory goes, not what to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from sealwire.bench.measurement import Role
from sealwire.bench.results import Result, Row

# Above this multiple of its crypto a record costs too much besides (targets of the design).
_RECORD_PART: Final = 1.3
# Below this part of a handshake's CPU its crypto is not what to look at.
_CRYPTO_PART: Final = 0.5
# A ledger that counts less than this part of what the system gave counts too little.
_LEDGER_PART: Final = 0.9


@dataclass(frozen=True, slots=True)
class Advice:
    """A rule that applied."""

    rule: str
    sentence: str


def advise(result: Result) -> list[Advice]:
    """Every rule that applies to `result`."""
    return [
        Advice(name, sentence)
        for name, rule in _RULES.items()
        for sentence in rule({row.name: row for row in result.rows()}, result)
    ]


Rows = dict[str, Row]


def _busy_machine(rows: Rows, result: Result) -> Iterator[str]:
    load = max(float(result.conditions.get(f"load_{when}", 0)) for when in ("before", "after"))
    if load > 1.5:
        yield f"the load was {load:.1f} while one process at a time was measured: repeat it when it is quiet"


def _twin(rows: Rows, result: Result) -> Iterator[str]:
    if not result.software.get("compiled"):
        yield "the plain-Python twin was measured: build the compiled modules"


def _record_overhead(rows: Rows, result: Result) -> Iterator[str]:
    for row in rows.values():
        alone = _median(row, Role.CRYPTO_ALONE)
        ours = _median(row, Role.OURS)
        if row.name.startswith("record.") and alone and ours and ours > _RECORD_PART * alone:
            yield f"{row.name} takes {ours / alone:.2f} times its crypto: look at what surrounds it"


def _handshake_engine(rows: Rows, result: Result) -> Iterator[str]:
    for row in rows.values():
        alone, ours = _median(row, Role.CRYPTO_ALONE), _median(row, Role.OURS)
        if row.name.startswith("handshake.memory") and alone and ours and alone < _CRYPTO_PART * ours:
            yield f"{row.name}: {1 - alone / ours:.0%} of the CPU is not crypto: profile the engine"


def _ledger_too_low(rows: Rows, result: Result) -> Iterator[str]:
    for name, row in rows.items():
        ledger = _median(row, Role.OURS)
        base = rows.get(name.removesuffix(".ledger"))
        held = _median(base, Role.OURS) if base is not None else None
        if name.endswith(".ledger") and ledger and held and ledger < _LEDGER_PART * held:
            yield f"{name} is {ledger:,.0f} B and the resident set grew by {held:,.0f}: charge more"


_RULES: Final[dict[str, Callable[[Rows, Result], Iterator[str]]]] = {
    "busy-machine": _busy_machine,
    "twin": _twin,
    "record-overhead": _record_overhead,
    "handshake-engine": _handshake_engine,
    "ledger-too-low": _ledger_too_low,
}


def _median(row: Row, role: Role) -> float | None:
    entry = next((entry for entry in row.entries if entry.role is role), None)
    summary = row.summary(entry) if entry is not None else None
    return summary.median if summary is not None else None
