"""The little statistics the bench needs, on the standard library alone.

Medians because a busy machine makes outliers on one side only; bootstrap intervals because the
distribution of a run's figure is nobody's normal; Student's t on logarithms for the question
whether two sets of runs differ, because factors are what changes a figure; Holm's procedure because
many rows are asked at once.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Summary:
    """Several runs of one figure.  `low` and `high` bound the median with 95 % confidence.

    `spread` is the robust standard deviation (1.4826 x the median absolute deviation) as a part of
    the median.
    """

    median: float
    low: float
    high: float
    spread: float


def summarize(values: Sequence[float], seed: int = 1) -> Summary:
    """Median, bootstrap interval and spread of at least one value."""
    return _summarize(tuple(values), seed)


@lru_cache(maxsize=4096)  # tables, plots and objectives all ask for the same ones
def _summarize(values: tuple[float, ...], seed: int) -> Summary:
    middle = statistics.median(values)
    chance = random.Random(seed)  # noqa: S311 - resampling keeps no secrets
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    low, high = medians[int(0.025 * _RESAMPLES)], medians[int(0.975 * _RESAMPLES) - 1]
    deviation = 1.4826 * statistics.median(abs(value - middle) for value in values)
    return Summary(middle, low, high, deviation / abs(middle) if middle else 0.0)


def student_tail(t: float, freedom: float) -> float:
    """The probability that Student's t with `freedom` degrees of freedom is above `t`."""
    x = freedom / (freedom + t * t)
    tail = 0.5 * _incomplete_beta(x, freedom / 2, 0.5)
    return tail if t >= 0 else 1 - tail


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: rejecting those below 5 % errs anywhere in 5 % of all families."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = worst
    return adjusted


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by its continued fraction."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    # The fraction converges fast on this side of the mean only; the other side is its complement.
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(1 - x)
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 300):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        step = 1.0
        for term in (even, odd):
            d = 1 + term * d
            d = 1 / (d if abs(d) > tiny else tiny)
            c = 1 + term / c
            c = c if abs(c) > tiny else tiny
            step = c * d
            fraction *= step
        if abs(step - 1) < 1e-14:
            break
    return math.exp(log_front) * fraction / a
