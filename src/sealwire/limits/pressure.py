"""How full an account is, in levels: reached at 70, 80, 90 and 95 % of the cap, left five points lower.

The gap keeps an account that sways around a threshold from telling it each time.  What to do at a
level is its listener's affair; the levels themselves cost a comparison per charge.
"""

from __future__ import annotations

import enum
from typing import Final


class Pressure(enum.IntEnum):
    """How full a ledger is."""

    NONE = 0
    LOW = 1  # 70 %
    MEDIUM = 2  # 80 %
    HIGH = 3  # 90 %
    CRITICAL = 4  # 95 %: who holds most and does least has to go


#: Percent of the cap at which each level above NONE begins.
THRESHOLDS: Final = {Pressure.LOW: 70, Pressure.MEDIUM: 80, Pressure.HIGH: 90, Pressure.CRITICAL: 95}
#: A level is left so many points below where it begins.
HYSTERESIS_POINTS: Final = 5


def begins_at(level: Pressure, limit: int) -> int:
    """Bytes of `limit` at which `level` begins."""
    return limit * THRESHOLDS[level] // 100 if level else 0


def ends_at(level: Pressure, limit: int) -> int:
    """Bytes of `limit` below which `level` ends."""
    return limit * (THRESHOLDS[level] - HYSTERESIS_POINTS) // 100 if level else 0


def level_of(held: int, limit: int, before: Pressure) -> Pressure:
    """The level of an account that was at `before`."""
    level = before
    while level < Pressure.CRITICAL and held >= begins_at(Pressure(level + 1), limit):
        level = Pressure(level + 1)
    while level and held < ends_at(level, limit):
        level = Pressure(level - 1)
    return level
