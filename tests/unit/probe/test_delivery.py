"""Delivery without sockets or clocks: messages, both ends, and what happens between them over time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealwire.errors import ConfigurationError
from sealwire.probe import delivery
from sealwire.probe.delivery import (
    FRAME_MAXIMUM_BYTES,
    Ask,
    BadMessage,
    Credit,
    Enrol,
    Hello,
    Message,
    Reason,
    Receipt,
    Refused,
    Welcome,
)
from sealwire.probe.enrolled import Enrolled, Probe
from sealwire.probe.receiving import Budget, CollectLimits, Receiver, Refusal, Settled
from sealwire.probe.seal.receipts import acknowledge
from sealwire.probe.sending import Backoff, Denied, Outgoing, Sender
from tests.unit.probe import sealing as s

COLLECTOR = s.key(7)
PROBE = s.key(0)
IDENTITY = bytes(range(32))

number = st.integers(0, (1 << 64) - 1)
text = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=("C", "Z")), max_size=60
)
hash_ = st.binary(min_size=32, max_size=32)
MESSAGES = st.one_of(
    st.builds(Hello, st.integers(0, 255), hash_, text),
    st.builds(
        Welcome,
        *(st.integers(0, 255), st.binary(min_size=1, max_size=600)),
        *(st.none() | st.tuples(number, hash_), number, number),
    ),
    st.builds(delivery.Segment, st.binary(min_size=1, max_size=600)),
    st.builds(Receipt, st.binary(min_size=1, max_size=600)),
    st.builds(Credit, number, number),
    st.builds(Refused, st.sampled_from(Reason), st.none() | number, text),
    st.builds(
        Enrol,
        *(st.integers(0, 255), st.binary(min_size=16, max_size=16)),
        *(st.binary(min_size=1, max_size=600), st.binary(min_size=1, max_size=600), text),
    ),
    st.builds(delivery.Enrolled, st.binary(min_size=1, max_size=600)),
    st.just(Ask()),
)


@given(MESSAGES)
def test_messages_come_back(message: Message) -> None:
    data = delivery.encode(message)
    assert delivery.decode(data) == message
    assert delivery.encode(delivery.decode(data)) == data


@given(MESSAGES, st.data())
def test_every_cut_and_addition_is_refused(message: Message, data: st.DataObject) -> None:
    whole = delivery.encode(message)
    cut = data.draw(st.integers(0, len(whole) - 1))
    if isinstance(message, delivery.Segment | Receipt) and cut > 1:
        return  # they reach to the end of their message, and know inside where they end
    with pytest.raises(BadMessage):
        delivery.decode(whole[:cut])
    if not isinstance(message, delivery.Segment | Receipt):
        with pytest.raises(BadMessage):
            delivery.decode(whole + b"\0")


@settings(max_examples=500)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_are_refused(data: bytes) -> None:
    try:
        message = delivery.decode(data)
    except BadMessage:
        return
    assert delivery.decode(delivery.encode(message)) == message


def test_lengths_are_bounded_before_anything_is_unpacked() -> None:
    for kind, most in ((3, FRAME_MAXIMUM_BYTES), (4, delivery.RECEIPT_MAXIMUM_BYTES)):
        delivery.decode(bytes((kind,)) + bytes(most))
        with pytest.raises(BadMessage):
            delivery.decode(bytes((kind,)) + bytes(most + 1))


def test_words_of_strangers_do_not_move_the_cursor() -> None:
    message = delivery.decode(delivery.encode(Refused(Reason.OTHER, None, "a\x1b[2Jb\nc")))
    assert isinstance(message, Refused)
    assert message.words == "a?[2Jb?c"


def test_reasons_of_later_versions_are_taken() -> None:
    data = bytearray(delivery.encode(Refused(Reason.BUSY, 5, "later")))
    data[1] = 200
    assert delivery.decode(bytes(data)) == Refused(Reason.OTHER, 5, "later")


# Both ends.


@dataclass(slots=True)
class Listed:
    """A list of enrolled probes that tests change."""

    probes: dict[bytes, Probe] = field(default_factory=dict)

    def __call__(self, id_: bytes) -> Probe | None:
        return self.probes.get(id_)


def listed() -> Listed:
    return Listed({PROBE.id: Probe("one", PROBE.public, IDENTITY, 0)})


def refuse_enrolment(message: Enrol, exported: bytes, identity: bytes) -> None:
    raise Refusal(Reason.BAD_TOKEN, "no token here")


def receiver(
    known: Listed | None = None,
    *,
    limits: CollectLimits | None = None,
    budget: Budget | None = None,
    identity: bytes = IDENTITY,
    now: float = 0.0,
) -> Receiver:
    return Receiver(
        *(identity, bytes(32)),
        key=COLLECTOR,
        budget=budget or Budget(limits or CollectLimits()),
        lookup=known or listed(),
        last=lambda _: None,
        enrol=refuse_enrolment,
        now=now,
    )


def sender(now: float = 0.0) -> Sender:
    return Sender(PROBE.id, "test", COLLECTOR.public, now)


def hello(probe: bytes = PROBE.id, version: int = delivery.VERSION) -> bytes:
    return delivery.encode(Hello(version, probe, "test"))


def outgoing(n: int, size: int = 100) -> Outgoing:
    return Outgoing(n, bytes([n % 256]) * 32, bytes([n % 256]) * size, 3, None, 0)


def heard(one: Receiver) -> list[Message]:
    return [delivery.decode(data) for data in one.transmit()]


def meet(now: float = 0.0, limits: CollectLimits | None = None) -> tuple[Sender, Receiver]:
    """Both ends of a connection, introduced."""
    one, other = sender(now), receiver(limits=limits, now=now)
    exchange(one, other, now)
    assert one.welcomed
    return one, other


def exchange(one: Sender, other: Receiver, now: float) -> None:
    for message in one.transmit():
        other.receive(message, now)
    for message in other.transmit():
        one.receive(message, now)


def settle(other: Receiver, segments: list[Outgoing], now: float) -> None:
    assert other.frames() == [segment.frame for segment in segments]
    other.settle([Settled(segment.number, segment.hash) for segment in segments], 1000, now)


def test_segments_are_held_until_a_receipt_names_them() -> None:
    one, other = meet()
    sent = [outgoing(0), outgoing(1), outgoing(5)]
    for segment in sent:
        one.send(segment, 1.0)
    exchange(one, other, 1.0)
    assert (one.flying, one.delivered(), other.owing, other.held_bytes) == (3, [], 3, 300)
    settle(other, sent, 1.1)
    exchange(one, other, 1.2)
    (delivered,) = one.delivered()
    assert [segment for segment, _ in delivered.segments] == sent
    assert (one.flying, other.owing) == (0, 0)
    assert one.credit == (256, CollectLimits().window_bytes)


def test_credit_is_never_exceeded_and_comes_back_with_receipts() -> None:
    limits = CollectLimits(window_segments=3)
    one, other = meet(limits=limits)
    sent: list[Outgoing] = []
    while one.may_send(100):
        sent.append(outgoing(len(sent)))
        one.send(sent[-1], 0.0)
    assert len(sent) == 3
    exchange(one, other, 0.0)
    assert other.refusal is None
    settle(other, sent[:3], 0.5)
    exchange(one, other, 0.5)
    assert one.credit[0] == 3


def test_bytes_are_credit_too() -> None:
    one, _ = meet(limits=CollectLimits(window_bytes=FRAME_MAXIMUM_BYTES))
    one.send(outgoing(0, FRAME_MAXIMUM_BYTES - 10), 0.0)
    assert not one.may_send(11)
    assert one.may_send(10)


@pytest.mark.parametrize("kind", ["segments", "bytes"])
def test_a_probe_that_floods_is_cut_off(kind: str) -> None:
    limits = CollectLimits(window_segments=4, window_bytes=FRAME_MAXIMUM_BYTES)
    _, other = meet(limits=limits)
    size = 10 if kind == "segments" else FRAME_MAXIMUM_BYTES // 2
    most = 0
    for n in range(20):
        other.receive(delivery.encode(delivery.Segment(bytes([n]) * size)), 0.0)
        most = max(most, other.held_bytes)
    assert other.refusal is not None
    assert other.refusal.reason is Reason.FLOOD
    assert most <= limits.window_bytes
    assert other.frames() == []


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (hello(version=9), Reason.VERSION),
        (hello(probe=bytes(32)), Reason.UNKNOWN_PROBE),
        (delivery.encode(delivery.Segment(b"x")), Reason.OTHER),
        (delivery.encode(Credit(1, 1)), Reason.OTHER),
        (delivery.encode(Enrol(1, bytes(16), b"key", b"signature", "")), Reason.BAD_TOKEN),
        (delivery.encode(Enrol(9, bytes(16), b"key", b"signature", "")), Reason.VERSION),
        (b"", Reason.OTHER),
        (b"\xff", Reason.OTHER),
        (b"\x01\x01", Reason.OTHER),
    ],
)
def test_who_is_not_let_in_is_told_why(first: bytes, reason: Reason) -> None:
    one = receiver()
    one.receive(first, 0.0)
    (answer,) = heard(one)
    assert isinstance(answer, Refused)
    assert answer.reason is reason
    one.receive(hello(), 0.0)
    assert heard(one) == []


def test_another_identity_cannot_speak_for_a_probe() -> None:
    one = receiver(identity=bytes(32))
    one.receive(hello(), 0.0)
    (answer,) = heard(one)
    assert isinstance(answer, Refused)
    assert answer.reason is Reason.OTHER_IDENTITY


def test_a_revoked_probe_is_not_let_in_and_is_cut_off() -> None:
    known = listed()
    one = receiver(known)
    one.receive(hello(), 0.0)
    heard(one)
    one.receive(delivery.encode(delivery.Segment(b"x")), 0.0)
    known.probes[PROBE.id] = replace(known.probes[PROBE.id], revoked=5)
    one.review()
    (answer,) = heard(one)
    assert isinstance(answer, Refused)
    assert answer.reason is Reason.REVOKED
    assert one.frames() == []  # what it sent before is not stored either
    later = receiver(known)
    later.receive(hello(), 0.0)
    assert later.refusal is not None
    assert later.refusal.reason is Reason.REVOKED


def test_a_probe_enrolled_anew_under_another_identity_is_cut_off() -> None:
    known = listed()
    one = receiver(known)
    one.receive(hello(), 0.0)
    known.probes[PROBE.id] = replace(known.probes[PROBE.id], identity=bytes(32))
    one.review()
    assert one.refusal is not None
    assert one.refusal.reason is Reason.OTHER_IDENTITY


def test_memory_is_lent_out_of_one_budget() -> None:
    limits = CollectLimits(total_bytes=10 * FRAME_MAXIMUM_BYTES, window_bytes=4 * FRAME_MAXIMUM_BYTES)
    budget = Budget(limits)
    seated = []
    for _ in range(30):
        one = receiver(budget=budget)
        one.receive(hello(), 0.0)
        if one.refusal is None:
            seated.append(one)
        else:
            assert one.refusal.reason is Reason.BUSY
        assert budget.lent <= limits.total_bytes
    assert 5 < len(seated) < 30
    assert budget.refused == 30 - len(seated)
    for one in seated:
        one.close()
        one.close()
    assert (budget.lent, budget.probes) == (0, 0)


def test_only_so_many_probes_at_once() -> None:
    budget = Budget(CollectLimits(probes=2))
    states = []
    for _ in range(3):
        one = receiver(budget=budget)
        one.receive(hello(), 0.0)
        states.append(one.refusal is None)
    assert states == [True, True, False]


def test_a_forged_segment_ends_the_connection_behind_the_receipts_of_the_others() -> None:
    one, other = meet()
    sent = [outgoing(n) for n in range(4)]
    for segment in sent:
        one.send(segment, 0.0)
    exchange(one, other, 0.0)
    other.frames()
    refusal = Refused(Reason.BAD_SEGMENT, 2, "the signature does not belong to it")
    outcomes = [Settled(0, sent[0].hash), Settled(1, sent[1].hash), Settled(None, b"", refusal)]
    other.settle(outcomes, 1000, 0.0)
    messages = other.transmit()
    one.receive(messages[0], 0.0)
    assert [segment.number for segment, _ in one.delivered()[0].segments] == [0, 1]
    with pytest.raises(Denied, match="segment 2") as denied:
        one.receive(messages[1], 0.0)
    assert not denied.value.temporary
    other.settle([Settled(3, sent[3].hash)], 1000, 0.0)
    assert other.transmit() == []


def test_who_says_nothing_is_let_go() -> None:
    one = receiver(now=100.0)
    one.wake(109.0)
    assert one.refusal is None
    one.wake(110.0)
    assert one.refusal is not None


def test_a_probe_that_asks_is_answered_and_one_that_does_not_is_let_go() -> None:
    one, other = meet(0.0)
    assert one.deadline() == 15.0
    one.wake(15.0)
    exchange(one, other, 15.0)
    one.wake(29.0)
    assert one.transmit() == []
    other.wake(74.0)
    assert other.refusal is None
    other.wake(75.0)
    assert other.refusal is not None


def test_a_full_disk_at_the_collector_is_waited_for() -> None:
    """It owes receipts for ten minutes, and says so: the probe neither leaves nor sends more."""
    one, other = meet()
    sent = [outgoing(0)]
    one.send(sent[0], 0.0)
    exchange(one, other, 0.0)
    frames = other.frames()
    now = 0.0
    while now < 600.0:
        now = min(one.deadline(), other.deadline())
        other.wake(now)
        one.wake(now)
        exchange(one, other, now)
    assert (len(frames), one.flying, other.owing) == (1, 1, 1)
    other.settle([Settled(0, sent[0].hash)], 1000, now)
    exchange(one, other, now)
    assert one.flying == 0


def test_a_collector_that_stops_reading_is_left() -> None:
    one, _ = meet()
    one.send(outgoing(0), 10.0)
    assert one.deadline() == 40.0
    one.wake(39.9)
    with pytest.raises(TimeoutError):
        one.wake(40.0)
    silent = sender(0.0)
    with pytest.raises(TimeoutError):
        silent.wake(30.0)
    idle, _ = meet()
    idle.wake(15.0)
    with pytest.raises(TimeoutError):
        idle.wake(30.0)


def welcome(**more: object) -> bytes:
    facts = {"version": 1, "key": COLLECTOR.public.spki, "last": None, "segments": 9, "bytes": 9999}
    return delivery.encode(Welcome(**{**facts, **more}))  # type: ignore[arg-type]


def receipt(segments: list[tuple[int, bytes]], probe: bytes = PROBE.id, key: int = 7) -> bytes:
    return delivery.encode(Receipt(acknowledge(probe, segments, 1000, s.key(key))))


HASH = bytes([3]) * 32


@pytest.mark.parametrize(
    "lies",
    [
        [welcome(key=s.key(8).public.spki)],
        [welcome(key=b"no key")],
        [welcome(version=2)],
        [welcome(), welcome()],
        [receipt([(3, HASH)])],
        [delivery.encode(Credit(10, 10))],
        [welcome(), delivery.encode(Credit(8, 9999))],
        [welcome(), receipt([(3, bytes(32))])],
        [welcome(), receipt([(4, HASH)])],
        [welcome(), receipt([(3, HASH), (3, HASH)])],
        [welcome(), receipt([(3, HASH)], probe=bytes(32))],
        [welcome(), receipt([(3, HASH)], key=8)],
        [welcome(), receipt([(3, HASH)]) + receipt([(3, HASH)])[1:]],
        [welcome(), receipt([(3, HASH)])[:-1]],
        [welcome(), hello()],
        [welcome(), b"\x03x"],
        [welcome(), b"\x09"],
        [welcome(), b"\x63"],
    ],
)
def test_a_collector_that_lies_is_left(lies: list[bytes]) -> None:
    one = sender()

    def hear() -> None:
        for lie in lies:
            one.receive(lie, 0.0)
            if one.welcomed and not one.flying:
                one.send(outgoing(3), 0.0)

    with pytest.raises(BadMessage):
        hear()
    assert one.delivered() == []


def test_the_first_collector_may_name_its_key_and_what_it_holds() -> None:
    one = Sender(PROBE.id, "test", None, 0.0)
    one.receive(welcome(last=(41, HASH)), 0.0)
    assert one.collector is not None
    assert one.collector.id == COLLECTOR.id
    assert one.last == (41, HASH)


@settings(max_examples=300)
@given(st.lists(MESSAGES.map(delivery.encode) | st.binary(max_size=80), max_size=12), st.booleans())
def test_whatever_a_collector_says_is_taken_or_ends_the_connection(said: list[bytes], met: bool) -> None:
    one = meet()[0] if met else sender()
    try:
        for data in said:
            one.receive(data, 0.0)
            one.delivered()
    except (BadMessage, Denied):
        pass


@settings(max_examples=300)
@given(st.lists(MESSAGES.map(delivery.encode) | st.binary(max_size=80), max_size=30), st.booleans())
def test_whatever_a_probe_says_is_taken_or_refused(said: list[bytes], met: bool) -> None:
    limits = CollectLimits(window_segments=5)
    other = meet(limits=limits)[1] if met else receiver(limits=limits)
    for data in said:
        other.receive(data, 0.0)
        assert other.owing <= 5
        assert other.held_bytes <= limits.window_bytes
    other.wake(1e9)
    heard(other)


def test_waits_double_up_to_thirty_seconds_and_differ() -> None:
    longest = Backoff(lambda: 0.0)
    waits = [longest.wait() for _ in range(12)]
    assert waits[:9] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6]
    assert waits[9:] == [30.0, 30.0, 30.0]
    longest.reset()
    assert longest.wait() == 0.1
    chance = random.Random(1)
    jittered = Backoff(chance.random)
    for longest_wait in waits:
        assert longest_wait / 2 <= jittered.wait() <= longest_wait


# Over time: connections that break anywhere, and a collector that stops.


class World:
    """One probe's backlog and a store, and connections between them that chance breaks."""

    def __init__(self, seed: int, count: int) -> None:
        self.chance = random.Random(seed)
        self.now = 0.0
        self.segments = [outgoing(n, self.chance.randrange(1, 2000)) for n in range(count)]
        self.acknowledged: set[int] = set()
        self.stored: list[int] = []
        self.connections = 0

    def cut(self) -> bool:
        return self.chance.random() < 0.03

    def run(self) -> None:
        backoff = Backoff(self.chance.random)
        while len(self.acknowledged) < len(self.segments):
            before = len(self.acknowledged)
            self.connections += 1
            self.connection()
            if len(self.acknowledged) > before:
                backoff.reset()
            self.now += backoff.wait()

    def connection(self) -> None:
        one = sender(self.now)
        other = receiver(limits=CollectLimits(window_segments=8), now=self.now)
        coming = iter([segment for segment in self.segments if segment.number not in self.acknowledged])
        waiting = next(coming, None)
        stalled = 600.0 if self.chance.random() < 0.1 else 0.0
        while True:
            while waiting is not None and one.may_send(len(waiting.frame)):
                one.send(waiting, self.now)
                waiting = next(coming, None)
            for message in one.transmit():
                if self.cut():
                    return  # in the middle of it: the other side sees none of it
                other.receive(message, self.now)
            assert other.refusal is None
            if stalled:
                try:
                    while True:
                        self.now = one.deadline()
                        one.wake(self.now)
                        one.transmit()
                except TimeoutError:
                    return
            self.store(other)
            for message in other.transmit():
                if self.cut():
                    return
                one.receive(message, self.now)
            for delivered in one.delivered():
                self.acknowledged |= {segment.number for segment, _ in delivered.segments}
            self.now += 0.05
            if not one.flying and waiting is None:
                return

    def store(self, other: Receiver) -> None:
        """Store what is new; the frames tell their number by their content here."""
        outcomes = []
        for frame in other.frames():
            segment = next(one for one in self.segments if one.frame == frame)
            if segment.number not in self.stored:
                self.stored.append(segment.number)
            outcomes.append(Settled(segment.number, segment.hash))
        other.settle(outcomes, 1000, self.now)


@pytest.mark.parametrize("seed", range(8))
def test_everything_arrives_once_over_connections_that_break(seed: int) -> None:
    world = World(seed, 200)
    world.run()
    assert world.connections > 3
    assert world.stored == list(range(200))
    assert world.acknowledged == set(range(200))


# Who is enrolled.


def probe(n: int, **more: object) -> Probe:
    return replace(Probe(f"probe {n}", s.key(n).public, bytes([n]) * 32, 1000 + n), **more)  # type: ignore[arg-type]


def test_probes_are_enrolled_looked_up_and_revoked_while_it_runs(tmp_path: Path) -> None:
    running = Enrolled(tmp_path)
    tool = Enrolled(tmp_path)
    tool.add(probe(1))
    tool.add(probe(2, raw_key=b"a key"))
    assert running.probe(s.key(1).id) is None
    assert running.refresh()
    assert not running.refresh()
    assert running.probes() == [probe(1), probe(2, raw_key=b"a key")]
    assert running.key_of(s.key(1).id) == s.key(1).public
    assert running.raw_keys() == [b"a key"]
    tool.revoke(s.key(2).id, 77)
    assert running.refresh()
    assert running.key_of(s.key(2).id) is None
    assert running.raw_keys() == []
    revoked = running.probe(s.key(2).id)
    assert revoked is not None
    assert revoked.revoked == 77
    with pytest.raises(ConfigurationError, match="revoked"):
        tool.add(probe(2))
    with pytest.raises(ConfigurationError, match="another identity"):
        tool.add(probe(1, identity=bytes(32)))
    tool.add(probe(1))  # the same again is no harm
    (tmp_path / f"{s.key(1).id.hex()}.json").unlink()
    assert running.refresh()
    assert running.probe(s.key(1).id) is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"name": 1}', b'{"name": "x", "key": "AAAA"}', b"\xff", b"null"]
)
def test_half_a_file_opens_and_closes_no_door(tmp_path: Path, content: bytes) -> None:
    running = Enrolled(tmp_path)
    running.add(probe(1))
    running.refresh()
    path = tmp_path / f"{s.key(1).id.hex()}.json"
    good = path.read_bytes()
    path.write_bytes(content)
    running.refresh()
    assert running.key_of(s.key(1).id) is not None
    assert list(running.bad) == [path.name]
    with pytest.raises(ConfigurationError):
        Enrolled(tmp_path)
    path.write_bytes(good)
    assert running.refresh()
    assert running.bad == {}
    (tmp_path / f"{s.key(2).id.hex()}.json").write_bytes(good)
    running.refresh()
    assert running.probe(s.key(2).id) is None  # another probe's file under its name


def test_a_token_is_good_once_and_not_for_long(tmp_path: Path) -> None:
    one, other = Enrolled(tmp_path), Enrolled(tmp_path)
    token = bytes(range(16))
    one.offer(token, "the new one", 500)
    assert token.hex() not in "".join(path.name + path.read_text() for path in tmp_path.iterdir())
    assert other.redeem(bytes(16), 100) is None
    assert other.redeem(token, 100) == "the new one"
    assert one.redeem(token, 100) is None
    one.offer(token, "late", 500)
    assert one.redeem(token, 500) is None
    assert one.redeem(token, 100) is None
    assert list(_tokens(tmp_path)) == []


def _tokens(directory: Path) -> Iterator[Path]:
    return directory.glob("*.token*")
