"""Which message each state takes, where it leads, and that nothing else is taken.

The table lies in tests/snapshots/transitions.txt, generated from the State classes and from watching
handshakes; a change of it is a change of the protocol's state machine and should be read as one.
``SEALWIRE_WRITE_SNAPSHOTS=1`` writes it anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import pytest

from sealwire.context import Config
from sealwire.errors import Alert
from sealwire.tls13 import client, early, server
from sealwire.tls13.early import ExpectEndOfEarlyData
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import HandshakeType, KeyUpdate, frame
from sealwire.tls13.states import Connected, Failed, State
from tests.unit.tls13.early import early_ticket, world
from tests.unit.tls13.engines import (
    Delivery,
    Pair,
    compressing,
    default,
    each_flavor,
    mutual,
    mutual_compressing,
    mutual_retrying,
    optional,
    refused,
    retrying,
)
from tests.unit.tls13.test_key_update import TICKET
from tests.unit.tls13.test_rogue_client_hellos import from_cookie

SNAPSHOT = Path(__file__).resolve().parents[2] / "snapshots" / "transitions.txt"
_KT = HandshakeType
SCENARIOS: dict[str, Callable[[], tuple[Config, Config]]] = {
    make.__name__: make
    for make in (default, retrying, mutual, optional, mutual_retrying, compressing, mutual_compressing)
}


def pair_of(scenario: str, flavor: Flavor) -> Pair:
    if scenario == "early":
        made = world()
        ticket = early_ticket(made, flavor)
        # What comes after a handshake is another matter.
        quiet = replace(made.client, ticket_request=(0, 0))
        return Pair(flavor, (quiet, made.server), early=ticket)
    if scenario == "from_cookie":
        pair, delivery = from_cookie(flavor, None)
        pair.waiting.append(delivery)
        return pair
    return Pair(flavor, SCENARIOS[scenario]())


ALL = (*SCENARIOS, "from_cookie")
WATCHED = (*ALL, "early")


def afterwards() -> list[Delivery]:
    """What may come when the handshake is over."""
    update = KeyUpdate(False).encode()
    return [Delivery(True, 3, update), Delivery(False, 3, TICKET.encode()), Delivery(False, 3, update)]


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """One message that was taken: which state took it, and which state followed."""

    side: str
    state: str
    epoch: int
    kind: HandshakeType
    following: str


@dataclass(frozen=True, slots=True)
class Place:
    """How to get to a state: so many messages into a scenario, and whose state it then is."""

    scenario: str
    steps: int


def _state(engine: Handshake) -> State:
    return engine._state


def _side(delivery: Delivery) -> str:
    return "server" if delivery.to_server else "client"


def _watch(flavor: Flavor) -> Iterator[tuple[Step, Place]]:
    for scenario in WATCHED:
        pair = pair_of(scenario, flavor)
        count = 0
        more = afterwards()
        while pair.waiting or more:
            if not pair.waiting:
                pair.waiting.append(more.pop(0))
            delivery = pair.waiting[0]
            engine = pair.receiver(delivery)
            before = _state(engine)
            epoch = before.epoch
            pair.step()
            step = Step(
                _side(delivery),
                type(before).__name__,
                epoch,
                delivery.kind,
                type(_state(engine)).__name__,
            )
            yield step, Place(scenario, count)
            count += 1


@cache
def watched(flavor: Flavor) -> tuple[frozenset[Step], dict[tuple[str, str], Place]]:
    """Every step seen, and for each state of each side one way to get there."""
    steps: set[Step] = set()
    places: dict[tuple[str, str], Place] = {}
    for step, place in _watch(flavor):
        steps.add(step)
        places.setdefault((step.side, step.state), place)
    return frozenset(steps), places


def classes(base: type[State] = State) -> Iterator[type[State]]:
    """Every state that expects something of its own, and Failed."""
    for cls in base.__subclasses__():
        if "expects" in vars(cls):
            yield cls
        yield from classes(cls)


def table() -> str:
    steps, _ = watched(TLS)
    lines = [
        "What each state of the handshake expects, in which epoch, and where it leads; anything else is",
        "unexpected_message.  Written by tests/unit/tls13/test_transitions.py.",
    ]
    sides = {client.__name__: ["client"], server.__name__: ["server"], early.__name__: ["server"]}
    for cls in sorted(classes(), key=lambda cls: (cls.__module__, cls.__name__)):
        for side in sides.get(cls.__module__, ["client", "server"]):
            here = [step for step in steps if (step.side, step.state) == (side, cls.__name__)]
            epochs = "/".join(sorted({str(step.epoch) for step in here})) or "-"
            lines += ["", f"{side} {cls.__name__} (epoch {epochs})"]
            for kind in cls.expects:
                following = sorted({step.following for step in here if step.kind is kind})
                lines.append(f"    {kind.name} -> {' | '.join(following) or 'refused'}")
            if not cls.expects:
                lines.append("    nothing")
    return "\n".join(lines) + "\n"


def test_the_table_is_the_one_we_know() -> None:
    if os.environ.get("SEALWIRE_WRITE_SNAPSHOTS") == "1":
        SNAPSHOT.write_text(table(), "ascii")
    assert table() == SNAPSHOT.read_text("ascii")


def test_both_protocols_have_one_state_machine() -> None:
    """But for the message that ends early data over a stream."""
    only_streams = {
        step for step in watched(TLS)[0] if ExpectEndOfEarlyData.__name__ in (step.state, step.following)
    }
    assert {step.kind for step in only_streams} == {_KT.CLIENT_HELLO, _KT.END_OF_EARLY_DATA}
    assert watched(TLS)[0] - only_streams == watched(DTLS)[0]


def test_every_state_was_watched() -> None:
    steps, places = watched(TLS)
    states = {(step.side, step.state) for step in steps}
    assert states == set(places)
    named = {cls.__name__ for cls in classes()} - {Failed.__name__}
    assert {state for _, state in states} == named
    for side in ("client", "server"):
        assert (side, Connected.__name__) in states


# --- everything that is not in the table -------------------------------------------------------

STATES = sorted(watched(TLS)[1])
each_state = pytest.mark.parametrize(
    ("side", "state"), STATES, ids=[f"{side} {state}" for side, state in STATES]
)
#: Every type there is, those of older versions, and some nobody knows.
KINDS = [*range(26), 67, 203, 254, 255]


def exists(side: str, state: str, flavor: Flavor) -> bool:
    """Whether the flavor has the state at all: datagrams have none that waits for an end of early data."""
    assert (side, state) in watched(flavor)[1] or (flavor, state) == (DTLS, ExpectEndOfEarlyData.__name__)
    return (side, state) in watched(flavor)[1]


def at(side: str, state: str, flavor: Flavor) -> Pair:
    """A pair in which `side` is in `state` now."""
    place = watched(flavor)[1][side, state]
    pair = pair_of(place.scenario, flavor)
    more = afterwards()
    for _ in range(place.steps):
        if not pair.waiting:
            pair.waiting.append(more.pop(0))
        pair.step()
    assert type(_state(engine(pair, side))).__name__ == state
    return pair


def engine(pair: Pair, side: str) -> Handshake:
    return pair.server if side == "server" else pair.client


@pytest.mark.requirement("8446-POST-1", "8446-POST-5", "8446-AUTH-4")
@each_flavor
@each_state
def test_each_type_that_a_state_does_not_expect(side: str, state: str, flavor: Flavor) -> None:
    if not exists(side, state, flavor):
        return
    expected = _state(engine(at(side, state, flavor), side)).expects
    tried = 0
    for code in KINDS:
        kind = _KT(code)
        if kind in expected:
            continue
        pair = at(side, state, flavor)
        epoch = engine(pair, side).receive_epoch
        delivery = Delivery(side == "server", epoch, frame(kind, b""))
        refused(
            pair,
            Alert.UNEXPECTED_MESSAGE,
            f"got {kind.name}",
            victim=side,
            act=partial(pair.deliver, delivery),
        )
        tried += 1
    assert tried == len(KINDS) - len(expected)


@each_flavor
@each_state
def test_what_a_state_expects_in_any_other_epoch(side: str, state: str, flavor: Flavor) -> None:
    if not exists(side, state, flavor):
        return
    place = watched(flavor)[1][side, state]
    for epoch in range(6):
        pair = at(side, state, flavor)
        right = engine(pair, side).receive_epoch
        if epoch == right:
            continue
        message = (pair.waiting[0] if pair.waiting else afterwards()[place.steps % 3]).message
        if message[0] not in _state(engine(pair, side)).expects:
            message = KeyUpdate(False).encode()
        delivery = Delivery(side == "server", epoch, message)
        refused(
            pair,
            Alert.UNEXPECTED_MESSAGE,
            f"in epoch {epoch} instead of {right}",
            victim=side,
            act=partial(pair.deliver, delivery),
        )


@each_flavor
@pytest.mark.parametrize("scenario", ALL)
def test_no_message_comes_twice(scenario: str, flavor: Flavor) -> None:
    total = len(pair_of(scenario, flavor).run().delivered)
    for number in range(total):
        pair = pair_of(scenario, flavor)
        for _ in range(number + 1):
            pair.step()
        twice = pair.delivered[-1]
        # After a retry a hello is due, and only that it is the same one speaks against it.
        again = twice.kind is _KT.CLIENT_HELLO and pair.delivered == [twice] and "retrying" in scenario
        refused(
            pair,
            Alert.ILLEGAL_PARAMETER if again else Alert.UNEXPECTED_MESSAGE,
            victim=_side(twice),
            act=partial(pair.deliver, twice),
        )


@each_flavor
@pytest.mark.parametrize("scenario", ALL)
def test_no_message_is_left_out(scenario: str, flavor: Flavor) -> None:
    total = len(pair_of(scenario, flavor).run().delivered)
    left_out = 0
    for number in range(total):
        pair = pair_of(scenario, flavor)
        for _ in range(number):
            pair.step()
        missing = pair.waiting.popleft()
        if not pair.waiting or pair.waiting[0].to_server != missing.to_server:
            # The last of its flight: nothing follows, and nothing happens.
            pair.run()
            assert not engine(pair, _side(missing)).complete
            continue
        # A CertificateRequest need not come; that it did shows in the signature over the transcript.
        alert = Alert.DECRYPT_ERROR if missing.kind is _KT.CERTIFICATE_REQUEST else Alert.UNEXPECTED_MESSAGE
        refused(pair, alert, victim=_side(missing))
        left_out += 1
    assert left_out >= 4
