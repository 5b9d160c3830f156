"""The alarm on made results: how often it is wrong without a change, and what it sees with one."""

from __future__ import annotations

import dataclasses

import pytest

from sealwire.bench.compare import Thresholds, Verdict, compare
from sealwire.bench.measurement import Kind, Role
from sealwire.bench.results import Measured, UnusableResult
from tests.unit.bench import made
from tests.unit.bench.made import World


@pytest.mark.parametrize(
    "world",
    [
        World(),
        World(between=0.06),
        World(within=0.05),
        World(between=0.15, within=0.03),
        World(rivals=False),
    ],
    ids=["quiet", "runs differ", "turns differ", "a bad machine", "without rivals"],
)
def test_runs_without_a_change_hardly_raise_an_alarm(world: World) -> None:
    families = 40
    wrong = 0
    for n in range(families):
        drift = (0.0, 0.1, -0.08, 0.25)[n % 4]
        old = made.run(f"old {n}", world)
        wrong += bool(compare(old, made.run(f"new {n}", dataclasses.replace(world, drift=drift))).alarms)
    # 5 % of 40 are 2; more than 6 would be seen in fewer than 1 % of all tests of a correct alarm.
    assert wrong <= 6


@pytest.mark.parametrize("drift", [0.0, 0.2])
def test_fifteen_percent_are_caught_and_named(drift: float) -> None:
    world = World(between=0.01, within=0.01)
    slower = {"time.3": 1.15, "rate.5": 1.15, "memory.2": 1.25}
    missed = 0
    for n in range(10):
        new = made.run(f"new {n}", dataclasses.replace(world, drift=drift), slower)
        comparison = compare(made.run(f"old {n}", world), new)
        found = {change.row for change in comparison.alarms}
        assert found <= set(slower)
        missed += len(set(slower) - found)
    assert missed <= 2


def test_a_change_below_its_threshold_is_no_alarm_however_sure() -> None:
    exact = World(within=0.0002, between=0.0001)
    slower = {"time.0": 1.08, "rate.0": 1.04, "memory.0": 1.13}
    comparison = compare(made.run("a", exact), made.run("b", exact, slower))
    assert comparison.alarms == []
    (change,) = (one for one in comparison.changes if one.row == "time.0")
    assert change.p < 0.05
    assert change.change == pytest.approx(0.08, abs=0.005)
    stricter = compare(made.run("a", exact), made.run("b", exact, slower), Thresholds(0.05, 0.02, 0.1))
    assert {change.row for change in stricter.alarms} == set(slower)


def test_what_became_better_is_no_alarm() -> None:
    exact = World(within=0.001, between=0.001)
    comparison = compare(made.run("a", exact), made.run("b", exact, {"time.0": 0.7, "rate.1": 0.7}))
    assert comparison.alarms == []
    assert {one.row for one in comparison.changes if one.verdict == Verdict.BETTER} == {"time.0", "rate.1"}


def test_thresholds_count_in_the_worse_direction() -> None:
    thresholds = Thresholds()
    assert thresholds.log(Kind.TIME) == pytest.approx(0.0953, abs=1e-4)
    assert thresholds.log(Kind.RATE) == pytest.approx(0.0513, abs=1e-4)
    assert thresholds.log(Kind.MEMORY) == pytest.approx(0.1398, abs=1e-4)


def test_a_count_is_known_exactly() -> None:
    """Bytes on the wire do not vary, so a fifth more of them is an alarm without any statistics."""
    old, new = made.run("a"), made.run("b", machine="here")

    def fixed(value: float) -> Measured:
        return dataclasses.replace(old.measured[-1], entries=(made.entry(Role.OURS, *[value] * 5),))

    old = dataclasses.replace(old, measured=(*old.measured[:-1], fixed(70.0)))
    new = dataclasses.replace(new, measured=(*new.measured[:-1], fixed(84.0)))
    (change,) = (one for one in compare(old, new).changes if one.row == old.measured[-1].name)
    assert (change.verdict, change.error, change.p) == (Verdict.WORSE, 0.0, 0.0)


def test_other_machines_and_the_twin_are_refused() -> None:
    with pytest.raises(UnusableResult, match="different machines"):
        compare(made.run("a"), made.run("b", machine="there"))
    twin = made.run("b")
    twin = dataclasses.replace(twin, software={**twin.software, "compiled": False})
    with pytest.raises(UnusableResult, match="twin"):
        compare(made.run("a"), twin)
    with pytest.raises(UnusableResult, match="no rows"):
        compare(made.run("a"), dataclasses.replace(made.run("b"), measured=()))


def test_rows_that_came_or_went_are_named_and_the_others_compared() -> None:
    old, new = made.run("a"), made.run("b")
    renamed = dataclasses.replace(new.measured[0], name="time.new")
    failed = dataclasses.replace(
        new.measured[1], entries=(made.entry(Role.OURS, status="failed", name="sealwire"),)
    )
    new = dataclasses.replace(new, measured=(renamed, failed, *new.measured[2:]))
    comparison = compare(old, new)
    assert len(comparison.changes) == len(old.measured) - 2
    assert len(comparison.skipped) == 3
    assert any(sentence.startswith("time.1: the new result has no figure") for sentence in comparison.skipped)


def test_a_rival_of_another_version_is_no_yardstick() -> None:
    """Its own improvement must not be taken for the machine's."""
    world = World(within=0.002, between=0.002)
    old, new = made.run("a", world), made.run("b", world, {"time.0": 1.15})
    newer = tuple(
        dataclasses.replace(
            one,
            entries=tuple(
                dataclasses.replace(
                    entry,
                    what="rival 2.0",
                    readings=tuple(made.reading(reading.values[""] * 2) for reading in entry.readings),
                )
                if entry.name == "rival"
                else entry
                for entry in one.entries
            ),
        )
        for one in new.measured
    )
    comparison = compare(old, dataclasses.replace(new, measured=newer))
    assert [change.row for change in comparison.alarms] == ["time.0"]
    assert any("assumed" in note for note in comparison.notes)
