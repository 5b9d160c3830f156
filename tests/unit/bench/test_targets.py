"""Targets: each names rows, rivals and pages that exist, and a result is held against them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from sealwire.bench import report, targets
from sealwire.bench.measurement import Figure, Kind, Role
from sealwire.bench.results import Entry, Measured, Result
from sealwire.bench.rows import ROWS
from sealwire.bench.slo import Objective
from tests.unit.bench import made

ROOT = Path(__file__).resolve().parents[3]
OBJECTIVES = [(one.id, objective) for one in targets.TARGETS for objective in one.objectives]


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(("name", "objective"), OBJECTIVES)
def test_each_bound_is_on_a_row_and_a_rival_there_are(name: str, objective: Objective) -> None:
    figures = {one.row_name(figure): (one, figure) for one in ROWS for figure in one.figures}
    measurement, figure = figures[objective.row]
    assert objective.unit in ("", figure.unit)
    assert objective.than == "" or objective.than in {one.name for one in measurement.contenders}
    better = objective.at_least if figure.kind is Kind.RATE else objective.at_most
    assert better is not None, "a bound on the side that would be worse"


def test_each_page_is_there_and_has_the_heading() -> None:
    for target in targets.TARGETS:
        name, _, anchor = target.page.partition("#")
        text = (ROOT / "docs" / name).read_text("utf-8")
        if anchor:
            assert anchor in {_anchor(line.lstrip("# ")) for line in text.splitlines() if line[:1] == "#"}


def test_each_target_has_a_bound_or_a_program_that_measures_it() -> None:
    for target in targets.TARGETS:
        assert bool(target.objectives) != bool(target.command)
        if target.command:
            assert (ROOT / target.command.split()[1]).is_file()


def _result() -> Result:
    """T5 met, T6 missed, one rival of T3 not there."""

    def row(name: str, unit: str, kind: Kind, value: float, *rivals: Entry) -> Measured:
        ours = Entry("sealwire", Role.OURS, "measured", "", "", (made.reading(value),) * 5)
        return Measured(name, name, (Figure("", unit, kind, "figure"),), (ours, *rivals), ())

    away = Entry("BoringSSL, DTLS 1.3", Role.RIVAL, "not present", "no such program", "", ())
    rows = (
        row("handshake.memory.full", "us", Kind.TIME, 910.0),
        row("handshake.rate.full", "1/s", Kind.RATE, 1_147.0),
        row("record.seal.64", "us", Kind.TIME, 0.25, away),
    )
    return dataclasses.replace(made.run("a"), measured=rows)


def test_what_was_measured_is_met_or_missed_and_the_rest_is_neither() -> None:
    found = {(one.target.id, one.wanted): one for one in targets.standings(_result())}
    assert found["T5", "handshake.memory.full: at most 1000 us"].verdict == "met"
    missed = found["T6", "handshake.rate.full: at least 1200 1/s"]
    assert (missed.verdict, missed.found) == ("missed", "1,147 1/s")
    away = found["T3", "record.seal.64: at most 1.3 times BoringSSL, DTLS 1.3"]
    assert away.verdict == "not measured"
    assert "no such program" in away.found
    assert found["T12", ""].verdict == "elsewhere"


def test_the_page_leads_from_what_was_missed_to_what_it_costs() -> None:
    text = report.markdown(_result())
    section = text.partition("## Targets")[2].partition("\n## ")[0]
    assert "| T5 | full handshake in memory, both sides |" in section
    missed = section.partition("Missed")[2]
    assert missed.count("\n- ") == 1
    assert "1,147 1/s. [handshake-cost.md](handshake-cost.md)" in missed
    nothing = dataclasses.replace(_result(), measured=())
    assert "## Targets" not in report.markdown(nothing)
