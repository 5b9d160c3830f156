"""How a probe is: rates, the rules of degradation with their hysteresis, the event."""

from __future__ import annotations

import pytest

from sealwire.monitor import Monitor, Tally
from sealwire.monitor.metrics import of_tally
from sealwire.probe.events import Health, as_json, decode
from sealwire.probe.health import GAUGES, RULES, Degradation, ProbeHealth, Watch
from sealwire.probe.seal import cbor


def test_a_quiet_network_is_healthy() -> None:
    watch = Watch()
    for second in range(400):
        assert watch.note(float(second)) == []
    assert watch.numbers.healthy == 1
    event = watch.event(5)
    assert (event.healthy, event.degraded, event.drops) == (1, "", 0)


def test_rates_are_those_of_the_latest_seconds() -> None:
    watch = Watch()
    for second in range(60):
        watch.numbers.packets_captured = 1000 * second if second < 30 else 29_000 + 50 * (second - 29)
        watch.numbers.events_signed = 7 * second
        watch.note(float(second))
    assert watch.numbers.packets_captured_per_second == pytest.approx(50)
    assert watch.numbers.events_signed_per_second == pytest.approx(7)
    assert watch.numbers.flows_exported_per_second == 0


def test_what_was_dropped() -> None:
    watch = Watch()
    watch.note(0.0)
    watch.numbers.packets_captured, watch.numbers.packets_dropped = 900, 100
    watch.note(1.0)
    assert watch.numbers.drop_ratio == pytest.approx(0.1)
    assert watch.event(1).drops == 100_000
    assert watch.event(2).drops == 0  # since the last one


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_holds_beyond_its_threshold_and_lets_go_below_it(rule: Degradation) -> None:
    watch = Watch()
    now = 0.0
    found: list[tuple[Degradation, bool]] = []

    def pass_(value: float, seconds: int) -> None:
        nonlocal now
        setattr(watch.numbers, rule.number, value)
        for _ in range(seconds):
            now += 1.0
            found.extend(watch.note(now))

    pass_(rule.threshold, 30)
    assert found == []
    pass_(rule.threshold * 1.01, 1)
    assert watch.numbers.healthy == 1  # not for a moment
    pass_(rule.threshold * 1.01, 10)
    assert found == [(rule, True)]
    assert watch.numbers.healthy == 0
    assert watch.event(1).degraded == rule.name
    pass_(rule.threshold * 0.95, 30)
    assert found == [(rule, True)]
    pass_(rule.threshold * 0.89, 2)
    assert found == [(rule, True), (rule, False)]
    assert watch.numbers.healthy == 1
    assert rule.mitigation


def test_the_event_is_sealed_like_others() -> None:
    event = Health(12, 0, "queue_full,buffer_full", 5, 999, 7, 1_000_000)
    assert decode(event.leaf(3)) == event
    shown = as_json(event.leaf(3))
    assert (shown["schema"], shown["event"], shown["degraded"]) == (11, "health", "queue_full,buffer_full")
    right = [11, 0, 1, 0, "", 0, 0, 0, 0]
    for at, value in ((3, "yes"), (4, 5), (5, -1), (8, None)):
        wrong = [*right[:at], value, *right[at + 1 :]]
        with pytest.raises(ValueError, match="should be"):
            decode(cbor.encode(wrong))


def test_metrics_are_the_six_and_active_flows() -> None:
    numbers = ProbeHealth(packets_captured=5, active_flows=3)
    monitor = Monitor()
    monitor.count("probe", Tally("health", lambda: numbers, GAUGES))
    found = {sample.metric.name: sample for sample in of_tally(monitor.tallies["probe", "health"])}
    for name in (
        *("sealwire_health_packets_captured_total", "sealwire_health_flows_exported_total"),
        *("sealwire_health_events_signed_total", "sealwire_health_events_transmitted_total"),
        *("sealwire_health_buffer_utilization", "sealwire_health_drop_ratio", "sealwire_health_active_flows"),
    ):
        assert name in found
    assert found["sealwire_health_packets_captured_total"].value == 5
    assert all(
        sample.metric.kind == ("gauge" if name.removeprefix("sealwire_health_") in GAUGES else "counter")
        for name, sample in found.items()
    )
