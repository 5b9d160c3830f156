"""History, growth and alerts on a clock of the test's own."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sealwire.monitor import (
    DEFAULT_RULES,
    Alert,
    Alerts,
    History,
    Indicators,
    Monitor,
    Point,
    Process,
    Recorder,
    Rule,
    Severity,
    growing,
    throughput_rules,
)
from tests.unit.monitor.sources import Fixed

ZERO = Point(0.0, 0, 0, 0, 0.0, 0, 0, 0, 0, 0, 0, 0, 1_000, 0, 0.0, 0)


def test_indicators_are_differences_over_time() -> None:
    later = replace(
        ZERO,
        at=10.0,
        handshakes_completed=20,
        handshakes_failed=5,
        handshake_seconds=0.4,
        connections_closed=10,
        bytes_received=500_000,
        bytes_sent=750_000,
        records=100,
        discards=30,
        held_bytes=250,
        cpu_seconds=2.5,
    )
    found = Indicators.between(ZERO, later)
    assert found == Indicators(
        seconds=10.0,
        handshakes_per_second=2.0,
        connections_closed_per_second=1.0,
        success_rate=0.8,
        latency_seconds=0.02,
        throughput_bits_per_second=1e6,
        records_per_second=10.0,
        discards_per_second=3.0,
        cpu_utilization=0.25,
        memory_utilization=0.25,
    )
    idle = Indicators.between(ZERO, replace(ZERO, at=1.0, held_limit_bytes=0))
    assert idle.success_rate is None
    assert idle.latency_seconds is None
    assert idle.memory_utilization == 0
    with pytest.raises(ValueError, match="later"):
        Indicators.between(ZERO, ZERO)


def test_history_is_a_ring() -> None:
    history = History(most=10)
    assert history.indicators(60) is None
    for n in range(1_000):
        history.add(replace(ZERO, at=float(n), bytes_received=n * n))
    assert len(history) == 10
    assert [point.at for point in history.points(993, 995)] == [993, 994, 995]
    found = history.indicators(3.0)
    assert found is not None
    assert found.seconds == 3.0
    last = history.indicators(0.1)
    assert last is not None
    assert last.seconds == 1.0
    whole = history.indicators(1e9)
    assert whole is not None
    assert whole.seconds == 9.0


def hour(quantity: str, values: list[int]) -> list[Point]:
    """Points over an hour and a bit, the values in order."""
    step = 3_700 / (len(values) - 1)
    return [replace(ZERO, at=n * step, **{quantity: value}) for n, value in enumerate(values)]


def test_a_floor_that_only_rises_is_growth() -> None:
    leaking = [1_000 + 2 * n + (500 if n % 7 == 0 else 0) for n in range(200)]
    (found,) = growing(hour("connections", leaking))
    assert found.quantity == "connections"
    assert "never came back" in str(found)


@pytest.mark.parametrize(
    "values",
    [
        [10_000] * 200,  # steady, and much
        [100 + (n % 50) * 100 for n in range(200)],  # bursts that end
        [1_000 + n // 4 for n in range(200)],  # too slowly
        [1_000 + 10 * n if n < 100 else 3_000 - 10 * n for n in range(200)],  # a day's load
        [n // 8 for n in range(200)],  # few
        [1_000 + 100 * n for n in range(8)],  # too few points
    ],
)
def test_what_comes_back_is_no_growth(values: list[int]) -> None:
    assert growing(hour("connections", values)) == []


def test_growth_needs_a_whole_window() -> None:
    points = [replace(ZERO, at=float(n), connections=1_000 * n) for n in range(100)]
    assert growing(points) == []
    assert growing([]) == []
    assert [one.quantity for one in growing(points, window_seconds=80)] == ["connections"]


def quiet(**values: float | None) -> Indicators:
    return replace(Indicators.between(ZERO, replace(ZERO, at=1.0)), **values)  # type: ignore[arg-type]


def test_an_alert_needs_its_window_and_a_margin_to_end() -> None:
    told: list[Alert] = []
    rule = Rule("busy", "cpu_utilization", 0.9, Severity.WARNING, seconds=10, margin=0.1)
    alerts = Alerts(told.append, [rule])
    for now, value in ((0, 0.95), (5, 0.95), (6, 0.85), (7, 0.95), (16, 0.95)):
        alerts.judge(quiet(cpu_utilization=value), now)
    assert told == []  # it came back in between
    alerts.judge(quiet(cpu_utilization=0.95), 17)
    assert [str(alert) for alert in told] == ["busy: cpu_utilization is 0.95, above 0.9 for 10 s"]
    assert [alert.rule for alert in alerts.firing] == [rule]
    alerts.judge(quiet(cpu_utilization=0.85), 18)  # below, but not by the margin
    assert len(told) == 1
    alerts.judge(quiet(cpu_utilization=0.80), 19)
    assert (told[1].firing, str(told[1])) == (False, "busy: over")
    assert alerts.firing == []


def test_rules_that_look_down_and_values_that_are_unknown() -> None:
    told: list[Alert] = []
    low, very_low = throughput_rules(400e6, 200e6)
    alerts = Alerts(told.append, [replace(low, seconds=0), replace(very_low, seconds=0)])
    alerts.judge(quiet(throughput_bits_per_second=300e6), 0)
    assert [alert.rule.severity for alert in told] == [Severity.WARNING]
    alerts.judge(quiet(throughput_bits_per_second=100e6), 1)
    assert [alert.rule.severity for alert in told] == [Severity.WARNING, Severity.CRITICAL]
    alerts = Alerts(told.append, [Rule("slow", "latency_seconds", 0.01, Severity.WARNING, seconds=0)])
    alerts.judge(quiet(latency_seconds=None), 0)
    assert len(told) == 2


def test_rules_are_checked() -> None:
    with pytest.raises(ValueError, match="no indicator"):
        Rule("x", "luck", 1, Severity.WARNING)
    with pytest.raises(ValueError, match="margin"):
        Rule("x", "cpu_utilization", 1, Severity.WARNING, margin=1.0)
    with pytest.raises(ValueError, match="one name"):
        Alerts(print, [DEFAULT_RULES[0], DEFAULT_RULES[0]])


def test_the_recorder_keeps_points_and_warns_once() -> None:
    watch = Monitor()
    source = Fixed()
    watch.watch(source)
    told: list[Alert] = []
    rule = Rule("memory", "memory_utilization", 0.5, Severity.WARNING, seconds=0)
    recorder = Recorder(watch, on_alert=told.append, rules=[rule])
    assert recorder.alerts is not None
    for n in range(100):
        source.connections = 1_000
        recorder.record(n * 36.0)
    assert len(recorder.history) == 100
    with pytest.warns(ResourceWarning, match="connections rose"):  # noqa: PT031
        for n in range(100, 240):
            source.connections = 1_000 * n
            recorder.record(n * 36.0)
    assert told == []

    async def main() -> None:
        async with Recorder(watch, every=0.01) as running:
            await asyncio.sleep(0.1)
            assert len(running.history) > 2

    asyncio.run(main())


def test_the_process_is_read() -> None:
    process = Process.now()
    assert process.resident_bytes > 1_000_000
    assert process.cpu_seconds > 0
    assert process.open_descriptors > 2
