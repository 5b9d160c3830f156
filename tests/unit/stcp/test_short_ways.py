"""The compiled short ways of data against the long ones in Python: one script, played both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealwire import stcp
from sealwire.errors import ConfigurationError, Error
from sealwire.limits import Ledger, Limits, Purpose
from sealwire.limits.charging import (
    PURPOSE_LIMITS,
    AccountSums,
    LedgerSums,
    PlainAccountSums,
    PlainLedgerSums,
    PlainPrefixSums,
)
from sealwire.limits.charging import PrefixSums as ChosenPrefixSums
from sealwire.stcp.frames import PlainFrameReader
from sealwire.stcp.lane import FrameReader, Lane, PlainLane
from tests.configs import client_context, server_context

needs_compiled = pytest.mark.skipif(Lane is PlainLane, reason="the compiled short ways are not built")


class LongWay(stcp.Connection):
    """A connection that never goes the short way."""

    def receive_shortly(self, data: Any, now: float | None) -> bool:
        return False

    def write_shortly(self, data: Any) -> bool:
        return False

    def send_shortly(self, data: Any, write: Callable[[bytes], int]) -> bool:
        return False


class Conversation:
    """Two ends, and everything that can be seen of them."""

    def __init__(self, kind: type[stcp.Connection], limits: Limits, messages: bool) -> None:
        self.limits = limits
        self.ledger = Ledger(limits)
        self.seen: list[object] = []
        self.messages = messages
        self.ends = (
            kind.client(
                client_context().config(),
                now=0.0,
                server_name="localhost",
                limits=limits,
                ledger=self.ledger,
                messages=messages,
            ),
            kind.server(
                server_context().config(), now=0.0, limits=limits, ledger=self.ledger, messages=messages
            ),
        )
        self.wires = [bytearray(), bytearray()]
        for _ in range(4):
            for one, other in (self.ends, self.ends[::-1]):
                other.receive_data(one.data_to_send(), 0.0)
        assert [one.state for one in self.ends] == ["connected", "connected"]
        self.look()

    def look(self) -> None:
        """Note what both ends show; ciphertext is told by its length."""
        for one, wire in zip(self.ends, self.wires, strict=True):
            counters = one.counters.snapshot()
            for name in ("bytes_received", "bytes_sent"):
                counters.pop(name)  # certificates' signatures differ in length
            self.seen.append(
                (
                    one.state,
                    _error(one.error),
                    one.peer_closed,
                    one.buffered,
                    one.queued,
                    one.want_read,
                    one.flows(),
                    one.has(1),
                    one.messages_ready,
                    one.peer_going_away,
                    one._deframer.held,
                    one._account.held_for(Purpose.RECEIVE_QUEUE),
                    one._account.held_for(Purpose.SEND_QUEUE),
                    one._account.held_for(Purpose.REASSEMBLY),
                    counters,
                    len(wire),
                    dict(self.ledger.reached),
                )
            )

    def do(self, side: int, action: str, n: int, room: int) -> None:
        one, wire = self.ends[side], self.wires[side]

        def write(data: bytes) -> int:
            taken = min(room, len(data))
            wire.extend(data[:taken])
            return taken

        try:
            match action:
                case "write" if self.messages:
                    one.write_message(bytes(index & 0xFF for index in range(n)))
                case "view" if self.messages:
                    one.write_message(memoryview(bytearray(n)))
                case "through" if self.messages:
                    self.seen.append(one.send_through(b"", write))
                case "through":
                    self.seen.append(one.send_through(bytes(index & 0xFF for index in range(n)), write))
                case "write" | "view":
                    one.send(bytes(n))
                case "pending":
                    pending = bytes(one.pending()[:room])
                    wire.extend(pending)
                    one.sent(len(pending))
                case "carry":
                    part = bytes(wire[: n + 1])
                    del wire[: n + 1]
                    self.ends[1 - side].receive_data(part, 1.0)
                case "damage" if wire:
                    wire[n % len(wire)] ^= 1
                case "take" if self.messages:
                    self.seen.append(one.read_message())
                case "take":
                    self.seen.append(one.read(n))
                case "all" if self.messages:
                    self.seen.append(one.read_messages())
                case "keys":
                    one.update_keys(request_peer=bool(n & 1))
                case "ping" if self.messages:
                    one.ping(1.0)
                case "away" if self.messages:
                    one.go_away()
                case "close":
                    one.close()
                case "events":
                    self.seen.append([type(event) for event in one.events()])
        except (Error, ConfigurationError) as error:
            self.seen.append(_error(error))
        self.look()


def _error(error: BaseException | None) -> object:
    return None if error is None else (type(error), str(error))


ACTIONS = (
    "write",
    "write",
    "view",
    "through",
    "through",
    "pending",
    "carry",
    "carry",
    "carry",
    "take",
    "all",
)
RARE = ("damage", "keys", "ping", "away", "close", "events")
SIZES = st.one_of(st.integers(0, 400), st.integers(16_300, 16_420), st.integers(60_000, 70_000))
STEPS = st.tuples(
    st.integers(0, 1), st.one_of(*[st.sampled_from(ACTIONS)] * 4, st.sampled_from(RARE)), SIZES, SIZES
)
LIMITS = st.sampled_from(
    (
        Limits(),
        Limits(receive_queue_bytes=20_000, send_queue_bytes=20_000, message_bytes=66_000),
        Limits(connection_bytes=90_000),
        Limits(records_per_key=16),
        Limits(message_bytes=300),
    )
)


@needs_compiled
@pytest.mark.parametrize("messages", [True, False], ids=["messages", "bytes"])
@given(limits=LIMITS, steps=st.lists(STEPS, max_size=40))
@settings(max_examples=60, deadline=None)
def test_both_ways_lead_to_the_same(
    messages: bool, limits: Limits, steps: list[tuple[int, str, int, int]]
) -> None:
    short = Conversation(stcp.Connection, limits, messages)
    long = Conversation(LongWay, limits, messages)
    for step in steps:
        short.do(*step)
        long.do(*step)
        assert short.seen == long.seen, step
        short.seen.clear()
        long.seen.clear()
    for conversation in (short, long):
        for one in conversation.ends:
            one.release()
        assert conversation.ledger.held == 0


@needs_compiled
@pytest.mark.parametrize("messages", [True, False], ids=["messages", "bytes"])
def test_the_short_ways_are_gone(messages: bool) -> None:
    """Data is not sent the long way for some reason nobody noticed."""

    class Watched(stcp.Connection):
        def _receive_records(self, view: memoryview) -> None:
            assert self.state != "connected"
            super()._receive_records(view)

        def _seal(self, data: memoryview) -> None:
            raise AssertionError("sealed the long way")

    conversation = Conversation(stcp.Connection, Limits(), messages)
    for one in conversation.ends:
        one.__class__ = Watched
    for _ in range(3):
        for side in (0, 1):
            conversation.do(side, "write" if messages else "none", 70_000 - 6_000, 1 << 20)
            conversation.do(side, "through", 64_000, 1 << 20)
            while conversation.wires[side]:
                conversation.do(side, "carry", 40_000, 0)
            conversation.do(1 - side, "take", 1 << 20, 0)
            assert conversation.ends[1 - side].error is None
            assert conversation.ends[1 - side].counters.messages_received


class _Told:
    """What sums tell their owner."""

    told: list[str]

    def refuse(self, name: str) -> None:
        self.told.append(name)

    def _change_level(self) -> None:
        self.told.append("level")


class _PlainLedger(_Told, PlainLedgerSums):
    pass


class _ChosenLedger(_Told, LedgerSums):
    pass


class _PlainPrefix(PlainPrefixSums):
    bytes_name = "prefix"


class _ChosenPrefix(ChosenPrefixSums):
    bytes_name = "prefix"


# A purpose without a limit of its own has that over all.
CAPS = {
    purpose: 3_000 + 100 * n if purpose in PURPOSE_LIMITS else 10_000 for n, purpose in enumerate(Purpose)
}


class _Sums:
    def __init__(self, ledger: Any, account: Any, prefix: Any) -> None:
        self.ledger = ledger(10_000, dict(CAPS))
        self.ledger.told = []
        self.ledger._rises_at, self.ledger._falls_at = 5_000, 2_000
        self.prefix = prefix(7_000)
        self.accounts = [account(self.ledger, 4_000, True), account(self.ledger, 6_000, False)]
        self.accounts[0]._prefixes = (self.prefix,)

    def do(self, which: int, what: str, purpose: Purpose, n: int) -> object:
        target = self.ledger if which == 2 else self.accounts[which]
        try:
            answer = getattr(target, what)(purpose, n)
        except AssertionError as error:
            answer = str(error)
        except AttributeError:
            answer = "ledgers are not asked"
        return (
            answer,
            self.ledger.told,
            self.ledger.held,
            self.ledger.peak,
            self.prefix.held,
            [one.held for one in self.accounts],
            [[one.held_for(each) for each in Purpose] for one in (self.ledger, *self.accounts)],
        )


@needs_compiled
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(("charge", "charge", "fits", "release")),
            st.sampled_from(Purpose),
            st.integers(0, 3_500),
        ),
        max_size=60,
    )
)
def test_sums_are_the_same(steps: list[tuple[int, str, Purpose, int]]) -> None:
    plain = _Sums(_PlainLedger, PlainAccountSums, _PlainPrefix)
    chosen = _Sums(_ChosenLedger, AccountSums, _ChosenPrefix)
    for which, what, purpose, n in steps:
        if what == "release" and which == 2:
            continue  # it belongs to accounts here
        assert plain.do(which, what, purpose, n) == chosen.do(which, what, purpose, n)


@needs_compiled
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=8),
            st.integers(0, 3_100).map(lambda n: n.to_bytes(4, "big") + bytes(n)),
            st.sampled_from((b"\x80\0\0\x01\x03", b"\x80\0\0\x09\x01" + bytes(8), b"\x80\0\0\x02\x03\x03")),
        ),
        max_size=12,
    ),
    st.lists(st.integers(1, 2_000), max_size=12),
)
def test_frames_are_the_same(pieces: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(pieces)
    seen: list[list[object]] = []
    for reader in (PlainFrameReader(3_000), FrameReader(3_000)):
        found: list[object] = []
        at = 0
        try:
            for size in [*cuts, len(stream) + 1]:
                found.append(reader.feed(stream[at : at + size]))
                at += size
                found.append((reader.held, reader.ready, reader.cut, list(reader.messages)))
                if size % 3 == 0:
                    found.append((reader.take(), reader.held, reader.ready))
        except Error as error:
            found.append(_error(error))
        reader.drop_newest(1_500)
        found.append((reader.held, reader.ready))
        reader.drop_partial()
        found.append((reader.take_all(), reader.held, reader.ready))
        seen.append(found)
    assert seen[0] == seen[1]
