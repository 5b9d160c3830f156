"""Free lists and the policies that size them, on a clock of the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.drive.buffers import FreeList
from sealwire.drive.sizing import (
    DEFAULT_SIZING,
    POLICIES,
    Aggressive,
    Balanced,
    Conservative,
    Predictive,
    Sizing,
    SizingPolicy,
)
from sealwire.limits import Ledger, Purpose
from sealwire.testing import Leaks, assert_no_leaks

ROOT = Path(__file__).resolve().parents[3]
EVERY = pytest.mark.parametrize("policy", sorted(POLICIES))


class Buffer:
    """What is lent; it can be referred to weakly."""


def run(policy: SizingPolicy, peaks: list[int]) -> list[int]:
    """Sizes after each interval."""
    policy.adapt(0, 0.0)
    sizes = []
    for n, peak in enumerate(peaks, 1):
        assert policy.adapt(peak, n * policy.sizing.every_seconds)
        sizes.append(policy.size)
    return sizes


def test_the_knobs_are_those_that_were_promised() -> None:
    assert (
        Sizing(growth=1.5, shrink=0.3, expand=0.8, least=4, most=256, window_seconds=900, every_seconds=30)
        == DEFAULT_SIZING
    )
    assert set(POLICIES) == {"conservative", "balanced", "aggressive", "predictive"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"growth": 1.0},
        {"shrink": 0.9},
        {"expand": 1.1},
        {"shrink": 0.0},
        {"growth": 3.0},
        {"least": 0},
        {"least": 300},
        {"every_seconds": 0},
        {"every_seconds": 1_000},
    ],
)
def test_knobs_that_contradict_each_other(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its sentence
        Sizing(**wrong)  # type: ignore[arg-type]


@EVERY
@given(st.lists(st.integers(0, 10_000), max_size=100))
def test_sizes_stay_in_bounds_and_depend_on_nothing_else(policy: str, peaks: list[int]) -> None:
    kind = POLICIES[policy]
    sizes = run(kind(), peaks)
    assert all(4 <= size <= 256 for size in sizes)
    assert run(kind(), peaks) == sizes


@EVERY
def test_a_size_changes_only_when_it_is_time(policy: str) -> None:
    one = POLICIES[policy]()
    assert not one.adapt(200, 5.0)
    assert not one.adapt(200, 34.9)
    assert one.adapt(200, 35.0)
    assert not one.adapt(200, 64.9)
    assert one.adapt(200, 1_000.0)
    assert not one.adapt(200, 1_029.0)


@EVERY
def test_steady_demand_is_met_and_idleness_ends_at_the_least(policy: str) -> None:
    busy = run(POLICIES[policy](), [50] * 60)
    assert 50 <= busy[-1] <= 50 * 1.5 / 0.8
    assert busy[-1] == busy[-10]  # it has settled
    idle = run(POLICIES[policy](), [50] * 60 + [0] * 400)
    assert idle[-1] == 4


def test_conservative_grows_by_the_mean_and_shrinks_at_once() -> None:
    # One burst moves nothing much: 4 -> 6 while the mean says so.
    assert run(Conservative(), [0] * 10 + [100]) == [4] * 10 + [6]
    sizes = run(Conservative(), [100] * 12 + [0])
    assert sizes[:3] == [6, 9, 14]
    assert sizes[-1] < sizes[-2]


def test_balanced_follows_the_last_interval_and_shrinks_after_a_third_of_the_window() -> None:
    sizes = run(Balanced(), [100] * 10 + [0] * 12)
    assert sizes[:4] == [6, 9, 14, 21]
    top = sizes[9]
    assert sizes[10 : 10 + 9] == [top] * 9
    assert sizes[10 + 9] < top  # ten idle intervals: a third of thirty


def test_aggressive_jumps_beyond_the_peak_and_keeps_it_for_a_window() -> None:
    sizes = run(Aggressive(), [100] + [0] * 31)
    assert sizes[0] == 150
    assert sizes[1:30] == [150] * 29
    assert sizes[30] == 100


def test_predictive_sees_a_ramp_coming() -> None:
    ramp = [10 * n for n in range(1, 15)]
    sizes = run(Predictive(), ramp)
    # Late in a ramp it is sized for the next peak before that comes.
    assert all(size >= ramp[n + 1] for n, size in list(enumerate(sizes))[6:-1])
    falling = run(Predictive(), [200] * 10 + [0] * 10)
    assert falling[-1] == 4


class Fixed(SizingPolicy):
    """Always so many."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def _choose(self, peak: int) -> float:
        return self.size


def test_what_is_given_back_is_lent_again() -> None:
    pool = FreeList(Buffer, 1_000, Fixed(4))
    first, second = pool.lend(), pool.lend()
    pool.give_back(first)
    assert pool.lend() is first
    pool.give_back(first)
    pool.give_back(second)
    found = pool.statistics()
    assert (found.hits, found.misses, found.lent, found.spare) == (1, 2, 0, 2)
    assert found.hit_rate == pytest.approx(1 / 3)
    assert (found.high_water, found.held_bytes, found.discarded) == (2, 2_000, 0)
    assert FreeList(Buffer, 1, Fixed(4)).statistics().hit_rate == 0.0


def test_the_list_is_bounded() -> None:
    pool = FreeList(Buffer, 1_000, Fixed(4))
    out = [pool.lend() for _ in range(10)]
    for buffer in out:
        pool.give_back(buffer)
    found = pool.statistics()
    assert (found.spare, found.discarded, found.high_water) == (4, 6, 10)
    with pytest.raises(AssertionError, match="more was given back"):
        pool.give_back(Buffer())
    kept = pool.lend()
    pool.keep()
    assert pool.statistics().lent == 0
    assert kept is not None


def test_waiting_buffers_are_charged_and_a_full_ledger_keeps_none() -> None:
    ledger = Ledger(2_500)
    pool = FreeList(Buffer, 1_000, Fixed(8), ledger)
    out = [pool.lend() for _ in range(4)]
    assert ledger.held == 0  # who borrows has charged what is in it
    for buffer in out:
        pool.give_back(buffer)
    assert ledger.held_for(Purpose.TABLES) == 2_000
    assert pool.statistics().discarded == 2
    pool.lend()
    assert ledger.held == 1_000
    pool.clear()
    assert ledger.held == 0


def test_a_smaller_size_drops_what_waits() -> None:
    sizing = Sizing(every_seconds=1, window_seconds=10)
    pool = FreeList(Buffer, 1_000, Balanced(sizing))
    pool.adapt(0.0)
    for now in range(1, 10):
        out = [pool.lend() for _ in range(40)]
        pool.adapt(float(now))
        for buffer in out:
            pool.give_back(buffer)
    busy = pool.statistics().spare
    assert busy == 40
    for now in range(10, 60):
        pool.adapt(float(now))
    assert pool.statistics().spare == 4


def test_a_buffer_nobody_gives_back_is_a_leak() -> None:
    pool = FreeList(Buffer, 1_000, Fixed(4))
    with assert_no_leaks():
        pool.give_back(pool.lend())
    kept = []
    with pytest.raises(Leaks, match="1 buffers"), assert_no_leaks():
        kept.append(pool.lend())


@EVERY
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=200))
def test_accounts_hold_whatever_happens(policy: str, steps: list[tuple[bool, int]]) -> None:
    ledger = Ledger(20_000)
    pool = FreeList(Buffer, 1_000, POLICIES[policy](Sizing(every_seconds=5, window_seconds=50)), ledger)
    out: list[Buffer] = []
    now = 0.0
    for lend, seconds in steps:
        now += seconds
        pool.adapt(now)
        if lend:
            out.append(pool.lend())
        elif out:
            pool.give_back(out.pop())
        found = pool.statistics()
        assert found.lent == len(out)
        assert found.held_bytes == ledger.held == 1_000 * found.spare
        assert found.spare <= 256


def replayer() -> Callable[[list[list[int]], str], dict[str, float]]:
    import importlib.util

    spec = importlib.util.spec_from_file_location("buffers_benchmark", ROOT / "benchmarks" / "buffers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    replay: Callable[[list[list[int]], str], dict[str, float]] = module.replay
    return replay


@pytest.mark.parametrize(
    "trace", sorted((ROOT / "benchmarks" / "traces").glob("*.json")), ids=lambda path: path.stem
)
def test_the_manual_has_what_the_recorded_traces_give(trace: Path) -> None:
    events = json.loads(trace.read_text())
    assert len(events) > 50
    manual = (ROOT / "docs" / "buffers.md").read_text()
    replay = replayer()
    for policy in POLICIES:
        found = replay(events, policy)
        assert f"| {trace.stem} | {policy} | {100 * found['hit rate']:.1f} % |" in manual
