"""Known values, and that intervals and corrections keep what they promise on seeded data."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.bench.clocks import quantiles
from sealwire.bench.statistics import holm, student_tail, summarize


@pytest.mark.parametrize(
    ("t", "freedom", "tail"),
    [
        # Upper quantiles of Student's t as every table has them.
        (6.314, 1, 0.05),
        (2.015, 5, 0.05),
        (3.365, 5, 0.01),
        (1.812, 10, 0.05),
        (4.144, 10, 0.001),
        (1.645, 1e6, 0.05),
        (0.0, 7, 0.5),
        (-2.015, 5, 0.95),
    ],
)
def test_tail_of_students_t(t: float, freedom: float, tail: float) -> None:
    assert student_tail(t, freedom) == pytest.approx(tail, rel=2e-3)


def test_far_tails_stay_numbers() -> None:
    assert 0 < student_tail(40.0, 8) < 1e-9
    assert student_tail(1e9, 8) >= 0


def test_holm_by_hand() -> None:
    # 4 x 0.01, 3 x 0.02, then never less than before: 2 x 0.03 and 0.5.
    assert holm([0.02, 0.01, 0.5, 0.03]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_holm_never_helps_a_row_and_keeps_the_order(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(new >= old for new, old in zip(adjusted, values, strict=True))
    ordered = [new for _, new in sorted(zip(values, adjusted, strict=True))]
    assert ordered == sorted(ordered)


def test_holm_keeps_the_error_of_the_family() -> None:
    chance = random.Random(7)
    families = [[chance.random() for _ in range(30)] for _ in range(2_000)]
    wrong = sum(min(holm(family)) < 0.05 for family in families)
    assert wrong / len(families) < 0.065


def test_intervals_hold_the_median_as_often_as_they_say() -> None:
    chance = random.Random(11)
    held = 0
    for n in range(300):
        summary = summarize([chance.gauss(100, 5) for _ in range(15)], seed=n)
        held += summary.low <= 100 <= summary.high
    assert held / 300 > 0.88


def test_summary_of_few_and_of_equal_values() -> None:
    summary = summarize([3.0, 1.0, 2.0])
    assert summary.median == 2.0
    assert summary.low >= 1.0
    assert summary.high <= 3.0
    assert summary.spread == pytest.approx(1.4826 / 2)
    assert summarize([4.0] * 5) == summarize([4.0])
    assert summarize([0.0, 0.0]).spread == 0.0


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300))
def test_quantiles_are_values_that_occurred(values: list[float]) -> None:
    found = quantiles(values)
    assert set(found.values()) <= set(values)
    assert found["0"] == min(values)
    assert found["100"] == max(values)
    assert list(found.values()) == sorted(found.values())


def test_quantiles_of_a_hundred() -> None:
    found = quantiles([float(n) for n in range(1, 101)])
    assert (found["50"], found["95"], found["99"], found["99.9"]) == (50.0, 95.0, 99.0, 100.0)
    assert statistics.median(range(1, 101)) == 50.5
