"""What the trial counts: false alarms, and slowed rows that nobody reported."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sealwire.bench import runner, trial
from sealwire.bench.compare import compare
from sealwire.bench.measurement import QUICK, Measurement
from sealwire.bench.results import Result
from sealwire.bench.runner import Plan
from tests.unit.bench import made
from tests.unit.bench.made import World

PLAN = Plan(location="", directory=Path(), scale=QUICK)


def test_a_trial_runs_everything_and_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(rows=3, within=0.005, between=0.005)
    plans: list[Plan] = []

    def pretend(measurements: list[Measurement], plan: Plan) -> Result:
        plans.append(plan)
        slower = {f"time.{n}": 1 + plan.slow_down for n in range(3)}
        return made.run(len(plans), world, slower if plan.slow_down else None)

    monkeypatch.setattr(runner, "run", pretend)
    kept: list[str] = []
    told: list[str] = []
    outcome = trial.trial(
        [], PLAN, runs=3, slow_down=0.15, tell=told.append, keep=lambda name, result: kept.append(name)
    )
    assert [plan.slow_down for plan in plans] == [0.0] * 4 + [0.15]
    assert kept == ["baseline", "unchanged-1", "unchanged-2", "unchanged-3", "slowed"]
    assert outcome.false_alarms == 0
    assert outcome.missed == []
    assert told[1:] == [f"run {n} of 3 without a change: no alarm" for n in (1, 2, 3)]


def test_what_was_not_reported_is_missed_or_hidden() -> None:
    quiet = World(rows=6, within=0.002, between=0.002)
    same = compare(made.run("a", quiet), made.run("b", quiet))
    outcome = trial.Trial((same,), same, 0.15)
    assert outcome.missed == [f"time.{n}" for n in range(6)]
    assert outcome.hidden == []
    loud = dataclasses.replace(quiet, within=0.3)
    outcome = trial.Trial((), compare(made.run("a", loud), made.run("b", loud)), 0.15)
    assert outcome.missed == []
    assert outcome.hidden == [f"time.{n}" for n in range(6)]


def test_alarms_of_unchanged_runs_are_false() -> None:
    quiet = World(within=0.002, between=0.002)
    worse = compare(made.run("a", quiet), made.run("b", quiet, {"time.0": 1.3, "memory.1": 1.4}))
    assert trial.Trial((worse, worse), worse, 0.15).false_alarms == 4
