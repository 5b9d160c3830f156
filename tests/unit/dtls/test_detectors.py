"""The detectors' mechanics: windows, thresholds, hysteresis, the log.  Whether they tell attacks from
use is another matter: tests/adversary/test_detection.py."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sealwire.dtls.detectors import (
    _COLUMN,
    CALM_SECONDS,
    LOG_EVENTS,
    RULES,
    TICK_SECONDS,
    Attack,
    Detectors,
    Rule,
    View,
)
from sealwire.errors import Discard
from sealwire.limits import Ledger, Limits, Purpose
from sealwire.telemetry import EndpointCounters


class Watched:
    """Counters that a test moves, and detectors that look at them."""

    def __init__(self, *rules: Rule, limits: Limits | None = None) -> None:
        self.counters = EndpointCounters()
        self.limits = limits or Limits()
        self.ledger = Ledger(self.limits.total_bytes)
        self.gauges = (0, 0)
        self.detectors = Detectors(
            self.counters, self.ledger, self.limits, lambda: self.gauges, rules or RULES
        )
        self.now = 1000.0

    def second(self, **moves: int) -> frozenset[Attack]:
        """One second in which the counters grow by so much."""
        for name, n in moves.items():
            setattr(self.counters, name, getattr(self.counters, name) + n)
        self.now += TICK_SECONDS
        self.detectors.look(self.now)
        return self.detectors.active


def rule(**changes: Any) -> Rule:
    """A rule over datagrams received: 100 a second for three seconds is too much."""
    made = Rule(
        attack=Attack.PACKET_FLOOD,
        name="test",
        unit="datagrams a second",
        meaning="datagrams",
        value=lambda view: view.grown("datagrams_received", 3) / 3,
        window=3,
        enter=100,
        leave=50,
    )
    return replace(made, **changes)


def test_it_enters_at_the_threshold_and_leaves_after_a_calm() -> None:
    watched = Watched(rule())
    for _ in range(5):
        assert not watched.second(datagrams_received=99)
    assert not watched.second(datagrams_received=100)
    assert not watched.second(datagrams_received=100)
    assert watched.second(datagrams_received=101) == {Attack.PACKET_FLOOD}
    # Between the two thresholds it goes on, and so it does below for a while.
    for _ in range(30):
        assert watched.second(datagrams_received=51)
    calm = 0
    while watched.second(datagrams_received=0):
        calm += 1
    # One second until the value is low, then the calm.
    assert calm == CALM_SECONDS
    began, ended = watched.detectors.log
    assert (began.began, ended.began) == (True, False)
    assert began.value == pytest.approx(100, abs=1)
    assert began.threshold == 100
    assert (ended.value, ended.threshold) == (0, 50)
    assert began.evidence["datagrams_received"] == 301
    assert watched.counters.attacks_detected == 1
    assert json.loads(json.dumps(began.as_dict()))["attack"] == "packet flood"


def test_a_relapse_in_the_calm_begins_the_calm_anew() -> None:
    watched = Watched(rule())
    for _ in range(3):
        watched.second(datagrams_received=100)
    for _ in range(9):
        assert watched.second()
    assert watched.second(datagrams_received=200)
    for _ in range(9):
        assert watched.second()
    assert len(watched.detectors.log) == 1


def test_a_share_keeps_much_use_from_being_an_attack() -> None:
    forged = rule(
        value=lambda view: view.grown("records_forged", 3) / 3,
        of=lambda view: view.grown("datagrams_received", 3) / 3,
        share=0.5,
    )
    watched = Watched(forged)
    for _ in range(5):
        assert not watched.second(records_forged=200, datagrams_received=500)
    for _ in range(3):
        watched.second(records_forged=300, datagrams_received=500)
    assert watched.detectors.active
    # Once it is one, more use does not end it.
    for _ in range(20):
        assert watched.second(records_forged=300, datagrams_received=50_000)


def test_thresholds_follow_the_limits() -> None:
    part = rule(part_of="handshakes", enter=0.05, leave=0.02, least=20)
    assert part.thresholds(Limits(handshakes=1000)) == (50, 20)
    assert part.thresholds(Limits(handshakes=100)) == (20, 8)
    assert rule().thresholds(Limits()) == (100, 50)


def test_looking_early_does_nothing_and_late_misses_nothing() -> None:
    watched = Watched(rule())
    watched.second()
    watched.counters.datagrams_received += 10_000
    watched.detectors.look(watched.now + 0.5)
    assert not watched.detectors.active
    # Nobody looked for 100 seconds; what came meanwhile came in the last tick.
    watched.now += 100
    assert watched.second()
    watched.now += 2
    watched.second()
    assert watched.detectors._view.grown("datagrams_received", 3) == 0


def test_the_log_is_bounded() -> None:
    watched = Watched(*(rule(name=str(n)) for n in range(LOG_EVENTS + 10)))
    for _ in range(3):
        watched.second(datagrams_received=1000)
    assert len(watched.detectors.log) == LOG_EVENTS
    assert watched.detectors.log[-1].rule == str(LOG_EVENTS + 9)
    # They are one attack.
    assert watched.counters.attacks_detected == 1


def test_every_kind_has_rules_and_every_rule_makes_sense() -> None:
    assert {one.attack for one in RULES} == set(Attack)
    assert len({one.name for one in RULES}) == len(RULES)
    for one in RULES:
        assert 0 < one.leave < one.enter, one.name
        assert (one.of is None) == (one.share == 0), one.name
        assert bool(one.least) <= bool(one.part_of), one.name
        assert one.meaning
        enter, leave = one.thresholds(Limits())
        assert 0 < leave < enter
    assert len(Attack) == 8


@pytest.mark.parametrize("one", RULES, ids=lambda one: one.name)
def test_an_idle_endpoint_meets_no_rule(one: Rule) -> None:
    view = View((0,) * len(_COLUMN), Limits())
    value = one.value(view)
    assert value < one.thresholds(Limits())[0]


def test_discards_and_gauges_reach_the_view() -> None:
    watched = Watched()
    watched.counters.discard(Discard.NOT_DTLS)
    watched.counters.discard(Discard.INCOMPLETE_HELLO)
    watched.counters.discard(Discard.OTHER_VERSION)
    watched.ledger.charge(Purpose.REASSEMBLY, 100)
    watched.gauges = (3, 7)
    watched.second()
    view = watched.detectors._view
    assert [view.now(name) for name in ("junk", "pieces", "handshaking", "connections")] == [1, 1, 3, 7]
    assert view.now("held_bytes") == view.now("reassembly_bytes") == 100


def test_memory_is_judged_by_the_ledger() -> None:
    watched = Watched(limits=Limits(total_bytes=1 << 20))
    watched.ledger.charge(Purpose.RECEIVE_QUEUE, 880 << 10)
    assert watched.second() == {Attack.MEMORY_EXHAUSTION}
    watched.ledger.release(Purpose.RECEIVE_QUEUE, 100 << 10)
    for _ in range(20):
        assert watched.second()
    watched.ledger.release(Purpose.RECEIVE_QUEUE, 100 << 10)
    for _ in range(10):
        assert watched.second()
    assert not watched.second()
