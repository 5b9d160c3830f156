"""Fragments in any order, size, overlap and number give the message; nothing else does."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.dtls.header import Fragment
from sealwire.dtls.reassembly import Reassembly
from sealwire.errors import Alert, Discard, ProtocolError
from sealwire.limits import Account, Ledger, Limits, Purpose
from sealwire.tls13.messages import HandshakeType, frame

KIND = HandshakeType.CERTIFICATE
PLAIN, PROTECTED = 0, 2


def reassembly(limits: Limits | None = None, next_seq: int = 0) -> tuple[Reassembly, Ledger]:
    limits = limits or Limits()
    ledger = Ledger(limits)
    return Reassembly(Account(ledger, limits.connection_bytes), limits, next_seq), ledger


def piece(body: bytes, start: int, end: int, seq: int = 0, kind: HandshakeType = KIND) -> Fragment:
    return Fragment(kind, len(body), seq, start, body[start:end])


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[bytes], list[Fragment]]:
    """A few messages, and fragments of them that cover every byte, overlap, repeat and come in any order."""
    bodies = draw(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
    sent: list[Fragment] = []
    for seq, body in enumerate(bodies):
        if not body:
            sent.append(piece(body, 0, 0, seq))
            continue
        cuts = draw(st.lists(st.integers(0, len(body)), max_size=6))
        edges = sorted({0, len(body), *cuts})
        sent += [piece(body, low, high, seq) for low, high in pairwise(edges)]
        for _ in range(draw(st.integers(0, 4))):
            low = draw(st.integers(0, len(body) - 1))
            sent.append(piece(body, low, draw(st.integers(low + 1, len(body))), seq))
    return bodies, draw(st.permutations(sent))


@given(deliveries(), st.sampled_from([PLAIN, PROTECTED]))
@pytest.mark.requirement("9147-5.5-4", "9147-5.5-5", "9147-5.2-3", "9147-5.2-4")
def test_any_fragmentation_order_overlap_and_repetition_gives_the_messages(
    delivery: tuple[list[bytes], list[Fragment]], epoch: int
) -> None:
    bodies, sent = delivery
    incoming, ledger = reassembly()
    out: list[tuple[int, bytes]] = []
    for fragment in sent:
        reason = incoming.offer(fragment, epoch)
        assert reason is (Discard.STALE_MESSAGE if fragment.message_seq < len(out) else None)
        while (ready := incoming.pop()) is not None:
            out.append(ready)
    assert out == [(epoch, frame(KIND, body)) for body in bodies]
    assert incoming.empty
    assert ledger.held == 0


@given(deliveries())
@pytest.mark.requirement("9147-5.2-4")
def test_memory_follows_the_bytes_that_came(delivery: tuple[list[bytes], list[Fragment]]) -> None:
    _, sent = delivery
    incoming, ledger = reassembly()
    covered: dict[int, set[int]] = {}
    for fragment in sent:
        incoming.offer(fragment, PROTECTED)
        covered.setdefault(fragment.message_seq, set()).update(range(fragment.offset, fragment.end))
        n = sum(map(len, covered.values()))
        assert n <= ledger.held <= n + 160 * (len(sent) + len(covered))


@pytest.mark.requirement("9147-5.5-3")
def test_a_declared_length_costs_nothing() -> None:
    limits = Limits(handshake_message_bytes=1 << 20)
    incoming, ledger = reassembly(limits)
    assert incoming.offer(Fragment(KIND, (1 << 20) - 4, 0, 5, b"x"), PROTECTED) is None
    assert ledger.held_for(Purpose.REASSEMBLY) < 500
    assert incoming.pop() is None


# --- contradictions --------------------------------------------------------------------------

BODY = bytes(range(100))
FIRST = piece(BODY, 10, 60)
CONTRADICTIONS = {
    "another byte in an overlap": Fragment(KIND, 100, 0, 50, b"\xff" + BODY[51:70]),
    "another last byte": Fragment(KIND, 100, 0, 0, BODY[:10] + b"\xff"),
    "another length": Fragment(KIND, 101, 0, 70, b"x"),
    "a shorter length": Fragment(KIND, 60, 0, 0, BODY[:10]),
    "another type": piece(BODY, 60, 100, kind=HandshakeType.FINISHED),
}


@pytest.mark.requirement("9147-5.5-3", "9147-5.5-7")
@pytest.mark.parametrize("wrong", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_protected_contradiction_is_the_peers_error(wrong: Fragment) -> None:
    incoming, _ = reassembly()
    incoming.offer(FIRST, PROTECTED)
    with pytest.raises(ProtocolError) as caught:
        incoming.offer(wrong, PROTECTED)
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


@pytest.mark.requirement("9147-5.5-3", "9147-5.5-7", "9147-4.5.2-1")
@pytest.mark.parametrize("wrong", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_plaintext_contradiction_is_dropped(wrong: Fragment) -> None:
    incoming, _ = reassembly()
    incoming.offer(FIRST, PLAIN)
    assert incoming.offer(wrong, PLAIN) is Discard.BAD_FRAGMENT
    # What was kept is untouched, and the message still comes together.
    assert incoming.offer(piece(BODY, 0, 30), PLAIN) is None
    assert incoming.offer(piece(BODY, 40, 100), PLAIN) is None
    assert incoming.pop() == (PLAIN, frame(KIND, BODY))


@pytest.mark.requirement("9147-5.5-7")
def test_what_was_forged_in_plaintext_gives_way_to_what_is_authentic() -> None:
    incoming, ledger = reassembly()
    assert incoming.offer(Fragment(KIND, 7, 0, 0, b"forged"), PLAIN) is None
    assert incoming.offer(piece(BODY, 0, 99), PROTECTED) is None
    # And plaintext does not mix with it afterwards.
    assert incoming.offer(piece(BODY, 99, 100), PLAIN) is Discard.BAD_FRAGMENT
    assert incoming.pop() is None
    assert incoming.offer(piece(BODY, 99, 100), PROTECTED) is None
    assert incoming.pop() == (PROTECTED, frame(KIND, BODY))
    assert ledger.held == 0


# --- bounds ----------------------------------------------------------------------------------


@pytest.mark.requirement("9147-5.2-4", "9147-7-3")
def test_messages_too_far_ahead_are_not_kept() -> None:
    incoming, ledger = reassembly(Limits(future_messages=3), next_seq=5)
    assert incoming.offer(piece(BODY, 0, 100, 8), PROTECTED) is Discard.FUTURE_MESSAGE
    assert incoming.offer(piece(BODY, 0, 100, 0xFFFF), PROTECTED) is Discard.FUTURE_MESSAGE
    assert ledger.held == 0
    assert incoming.offer(piece(BODY, 0, 100, 7), PROTECTED) is None
    assert incoming.offer(piece(BODY, 0, 100, 4), PROTECTED) is Discard.STALE_MESSAGE


@pytest.mark.requirement("9147-5.5-4")
def test_separate_ranges_are_bounded_and_their_cost_with_them() -> None:
    limits = Limits(reassembly_ranges=16)
    incoming, ledger = reassembly(limits)
    body = bytes(2000)
    reasons = [incoming.offer(piece(body, at, at + 1), PROTECTED) for at in range(0, 2000, 2)]
    assert reasons == [None] * 16 + [Discard.OVER_BUDGET] * (1000 - 16)
    assert ledger.held < 16 * 400
    assert incoming.offer(piece(body, 0, 1), PROTECTED) is None


@pytest.mark.requirement("9147-7-2")
def test_what_the_ledger_refuses_is_not_kept() -> None:
    limits = Limits(connection_bytes=1000)
    incoming, ledger = reassembly(limits)
    body = bytes(5000)
    assert incoming.offer(piece(body, 0, 400), PROTECTED) is None
    held = ledger.held
    assert incoming.offer(piece(body, 400, 5000), PROTECTED) is Discard.OVER_BUDGET
    assert ledger.held == held
    assert ledger.refusals == 1
    assert incoming.offer(piece(body, 0, 400), PROTECTED) is None


@pytest.mark.requirement("9147-4.5.2-6")
def test_a_message_above_the_limit() -> None:
    incoming, ledger = reassembly(Limits(handshake_message_bytes=1000))
    assert incoming.offer(Fragment(KIND, 996, 0, 0, b"x"), PLAIN) is None
    assert incoming.offer(Fragment(KIND, 997, 1, 0, b"x"), PLAIN) is Discard.OVERSIZED_RECORD
    with pytest.raises(ProtocolError) as caught:
        incoming.offer(Fragment(KIND, 997, 1, 0, b"x"), PROTECTED)
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER
    assert ledger.held < 500


# --- the wall --------------------------------------------------------------------------------


@pytest.mark.requirement("8446-ALERT-3")
def test_no_protected_message_straddles_a_key_change() -> None:
    incoming, _ = reassembly()
    incoming.offer(piece(BODY, 0, 10, 3), PROTECTED)
    with pytest.raises(ProtocolError) as caught:
        incoming.change_keys(3)
    assert caught.value.alert is Alert.UNEXPECTED_MESSAGE


@pytest.mark.requirement("8446-ALERT-3")
def test_forged_plaintext_is_dropped_at_a_key_change_and_newer_pieces_stay() -> None:
    incoming, ledger = reassembly()
    incoming.offer(piece(BODY, 0, 10, 3), PLAIN)
    incoming.offer(piece(BODY, 0, 10, 1), PROTECTED)
    incoming.change_keys(PROTECTED)
    assert ledger.held > 0
    incoming.offer(piece(BODY, 10, 100, 1), PROTECTED)
    incoming.offer(Fragment(KIND, 0, 0, 0, b""), PROTECTED)
    assert incoming.pop() == (PROTECTED, frame(KIND, b""))
    assert incoming.pop() == (PROTECTED, frame(KIND, BODY))
    assert incoming.empty
    assert ledger.held == 0


@pytest.mark.requirement("9147-5.5-4", "9147-5.5-5")
@pytest.mark.parametrize("order", [1, -1], ids=["in order", "backwards"])
@pytest.mark.parametrize("overlap", [0, 5])
def test_pieces_side_by_side_are_one_range(order: int, overlap: int) -> None:
    """A message cut into more fragments than the bound on ranges still comes together."""
    incoming, ledger = reassembly(Limits(reassembly_ranges=2))
    body = bytes(n % 251 for n in range(3000))
    starts = range(0, 3000, 3)[::order]
    for at in starts:
        assert incoming.offer(piece(body, at, min(at + 3 + overlap, 3000)), PROTECTED) is None
        assert ledger.held <= 3000 + 2 * 160
    assert incoming.pop() == (PROTECTED, frame(KIND, body))
    assert ledger.held == 0


@pytest.mark.requirement("9147-5.5-4")
def test_at_the_bound_of_ranges_gaps_can_still_be_closed() -> None:
    incoming, ledger = reassembly(Limits(reassembly_ranges=4))
    for at in (0, 20, 40, 60):
        assert incoming.offer(piece(BODY, at, at + 10), PROTECTED) is None
    assert incoming.offer(piece(BODY, 80, 90), PROTECTED) is Discard.OVER_BUDGET
    for at in (10, 50, 30, 70, 90, 80):
        assert incoming.offer(piece(BODY, at, at + 10), PROTECTED) is None
    assert incoming.pop() == (PROTECTED, frame(KIND, BODY))
    assert ledger.held == 0
