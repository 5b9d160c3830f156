"""What must get across: passes over the ranges not acknowledged, bursts, back-off, round trips."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.dtls import flight as flight_module
from sealwire.dtls.flight import MAX_TIMEOUT_SECONDS, RECORDS_PER_TRANSMISSION, Flight, timeout_after
from sealwire.dtls.header import Fragment, RecordNumber, decode_fragments
from sealwire.tls13.messages import HandshakeType, frame

ROOM = 100
BODY_PER_RECORD = ROOM - 12
KIND = HandshakeType.CERTIFICATE


class Sender:
    """A flight, and the records it put on the wire."""

    def __init__(self, *sizes: int, timeout: float = 1.0, epoch: int = 2) -> None:
        self.flight = Flight(timeout)
        self.bodies: list[bytes] = []
        self.wire: dict[RecordNumber, list[Fragment]] = {}
        self.again: dict[RecordNumber, bool] = {}
        for handle, size in enumerate(sizes, start=1):
            self.add(size, epoch, handle)

    def add(self, size: int, epoch: int, handle: int) -> None:
        body = bytes((len(self.bodies) * 7 + n) % 256 for n in range(size))
        self.bodies.append(body)
        self.flight.add(epoch, frame(KIND, body), handle)

    def transmit(self, now: float, room: int = ROOM) -> list[RecordNumber]:
        """Everything the flight wants to send now."""
        sent = []
        while (epoch := self.flight.pending_epoch()) is not None:
            content = self.flight.next_content(room, epoch)
            assert content is not None
            assert content.epoch == epoch
            assert len(content.data) <= room
            number = RecordNumber(epoch, len(self.wire))
            self.wire[number] = decode_fragments(content.data)
            self.again[number] = self.flight.sent(content, number, now)
            sent.append(number)
        return sent

    def ranges(self, numbers: list[RecordNumber]) -> list[tuple[int, int, int]]:
        return [(f.message_seq, f.offset, f.end) for number in numbers for f in self.wire[number]]

    def expire(self) -> float:
        """Let the timer run out; returns when."""
        now = self.flight.deadline
        assert now is not None
        self.flight.expire(now)
        return now


@given(st.lists(st.integers(1, 700), min_size=1, max_size=5), st.integers(40, 300))
@pytest.mark.requirement("9147-5.5-1", "9147-5.5-2", "9147-5.5-3", "9147-5.2-2")
def test_one_pass_carries_every_byte_once(sizes: list[int], room: int) -> None:
    sender = Sender(*sizes)
    covered: dict[int, bytearray] = {seq: bytearray() for seq in range(len(sizes))}
    now = 0.0
    sent: list[RecordNumber] = []
    while len(sent) * (room - 12) < 2 * sum(sizes) + room:
        burst = sender.transmit(now, room)
        assert len(burst) <= RECORDS_PER_TRANSMISSION
        sent += burst
        if sum(end - start for _, start, end in sender.ranges(sent)) >= sum(sizes):
            break
        now = sender.expire()
    for number in sent:
        for fragment in sender.wire[number]:
            assert (fragment.kind, fragment.length) == (KIND, sizes[fragment.message_seq])
            assert fragment.offset == len(covered[fragment.message_seq])
            covered[fragment.message_seq] += fragment.data
    assert [bytes(body) for body in covered.values()] == sender.bodies


@pytest.mark.requirement("9147-5.8.3-1")
def test_ten_records_at_a_time_and_more_after_an_ack() -> None:
    sender = Sender(25 * BODY_PER_RECORD)
    first = sender.transmit(0.0)
    assert len(first) == RECORDS_PER_TRANSMISSION == 10
    assert sender.transmit(0.0) == []
    assert sender.flight.acknowledge(first, 0.1) == []
    second = sender.transmit(0.1)
    assert len(second) == 10
    sender.flight.acknowledge(second, 0.2)
    assert len(third := sender.transmit(0.2)) == 5
    assert sender.flight.acknowledge(third, 0.3) == [1]
    # No byte twice: nothing was lost.
    assert len(set(sender.ranges(first + second + third))) == 25


@pytest.mark.requirement("9147-5.8.2-1", "9147-5.8.1-2")
def test_the_timer_doubles_up_to_sixty_seconds() -> None:
    sender = Sender(50)
    now, waits = 0.0, []
    sender.transmit(now)
    for _ in range(9):
        before, now = now, sender.expire()
        waits.append(now - before)
        assert sender.transmit(now) != []
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert MAX_TIMEOUT_SECONDS == 60
    assert sender.flight.expiries == 9


@pytest.mark.requirement("9147-5.8.1-1", "9147-7.2-1", "9147-7.2-2", "9147-7.2-4")
def test_only_what_is_missing_is_sent_again() -> None:
    sender = Sender(3 * BODY_PER_RECORD, BODY_PER_RECORD - 12, 2 * BODY_PER_RECORD)
    sent = sender.transmit(0.0)
    assert len(sent) > 4
    lost = [sent[1], sent[4]]
    there = [number for number in sent if number not in lost]
    # Two ACKs with different lists count together.
    sender.flight.acknowledge(there[::2], 0.2)
    sender.flight.acknowledge(there[1::2], 0.2)
    now = 0.2
    if not (again := sender.transmit(now)):
        now = sender.expire()
        again = sender.transmit(now)
    assert sorted(sender.ranges(again)) == sorted(sender.ranges(lost))
    assert all(sender.again[number] for number in again)
    assert sender.flight.acknowledge(again, now) == [1, 2, 3]


@pytest.mark.requirement("9147-7.2-2")
def test_a_partial_ack_brings_the_rest_at_once() -> None:
    sender = Sender(4 * BODY_PER_RECORD)
    sent = sender.transmit(0.0)
    sender.flight.acknowledge([sent[0], sent[3]], 0.25)
    again = sender.transmit(0.25)
    assert sender.ranges(again) == sender.ranges(sent[1:3])
    # Another ACK right behind it does not send them once more.
    sender.flight.acknowledge([sent[2]], 0.26)
    assert sender.transmit(0.26) == []


@pytest.mark.requirement("9147-7.2-4")
def test_a_late_ack_of_an_old_record_counts() -> None:
    sender = Sender(2 * BODY_PER_RECORD)
    first = sender.transmit(0.0)
    now = sender.expire()
    second = sender.transmit(now)
    assert set(first).isdisjoint(second)
    assert sender.flight.acknowledge([first[0], second[1]], now + 0.1) == [1]


@pytest.mark.requirement("9147-7.2-3", "9147-5.8.1-2")
def test_nothing_is_sent_once_everything_is_acknowledged() -> None:
    sender = Sender(3 * BODY_PER_RECORD)
    sent = sender.transmit(0.0)
    assert sender.flight.acknowledge(sent, 0.3) == [1]
    assert not sender.flight.outstanding
    assert sender.flight.outstanding_bytes == 0
    assert sender.flight.deadline is None
    assert sender.transmit(100.0) == []
    sender.flight.prompt(100.0)
    assert sender.transmit(100.0) == []


@pytest.mark.requirement("9147-7.2-5")
def test_an_answer_acknowledges_the_whole_flight() -> None:
    sender = Sender(30 * BODY_PER_RECORD, 40)
    sender.transmit(0.0)
    assert sender.flight.acknowledge_all(0.2) == [1, 2]
    assert sender.flight.deadline is None
    assert sender.transmit(1.0) == []


@pytest.mark.requirement("9147-8-2")
def test_a_handle_is_reported_only_after_everything_before_it() -> None:
    sender = Sender(BODY_PER_RECORD, BODY_PER_RECORD, BODY_PER_RECORD)
    one, two, three = sender.transmit(0.0)
    assert sender.flight.acknowledge([three], 0.1) == []
    assert sender.flight.acknowledge([two], 0.1) == []
    assert sender.flight.acknowledge([one], 0.1) == [1, 2, 3]


@pytest.mark.requirement("9147-7-1")
def test_numbers_that_were_never_sent_change_nothing() -> None:
    sender = Sender(2 * BODY_PER_RECORD)
    sender.transmit(0.0)
    deadline, timeout = sender.flight.deadline, sender.flight.timeout
    strange = [RecordNumber(2, 99), RecordNumber(0, 0), RecordNumber(3, 1)]
    assert sender.flight.acknowledge(strange, 0.5) == []
    assert (sender.flight.deadline, sender.flight.timeout) == (deadline, timeout)
    assert sender.transmit(0.5) == []


@pytest.mark.requirement("9147-5.8.2-5", "9147-5.8.2-3")
def test_the_timer_follows_the_measured_round_trip() -> None:
    sender = Sender(BODY_PER_RECORD)
    sent = sender.transmit(0.0)
    sender.flight.acknowledge(sent, 0.4)
    assert sender.flight.timeout == pytest.approx(0.6)
    sender.add(BODY_PER_RECORD, 2, 2)
    sender.transmit(10.0)
    assert sender.flight.deadline == pytest.approx(10.6)


@pytest.mark.requirement("9147-5.8.2-3")
def test_the_bounds_of_a_measured_timer() -> None:
    assert timeout_after(0.4, 1.0) == pytest.approx(0.6)
    # A peer's signature takes longer than a round trip on a local network.
    assert timeout_after(0.0001, 1.0) == 0.2
    assert timeout_after(50.0, 1.0) == 1.0


@pytest.mark.requirement("9147-5.8.2-4")
def test_the_back_off_stays_until_something_came_across_unrepeated() -> None:
    sender = Sender(BODY_PER_RECORD)
    sender.transmit(0.0)
    now = sender.expire()
    sender.transmit(now)
    # The answer does not say which of the two transmissions it answers.
    sender.flight.acknowledge_all(now + 0.1)
    assert sender.flight.timeout == 2.0
    sender.add(BODY_PER_RECORD, 2, 2)
    sender.transmit(20.0)
    assert sender.flight.deadline == 22.0
    sender.flight.acknowledge_all(20.2)
    assert sender.flight.timeout == pytest.approx(0.3)


@pytest.mark.requirement("9147-5.8.1-3")
def test_a_repeated_flight_of_the_peer_moves_the_timer_forward_once() -> None:
    sender = Sender(BODY_PER_RECORD)
    sender.transmit(0.0)
    # Too early: it crossed ours on the way.
    sender.flight.prompt(0.01)
    assert sender.transmit(0.01) == []
    sender.flight.prompt(0.5)
    assert len(sender.transmit(0.5)) == 1
    # Whoever forges a thousand more gets nothing more.
    for n in range(1000):
        sender.flight.prompt(0.5 + n / 100)
        assert sender.transmit(0.5 + n / 100) == []
    now = sender.expire()
    assert len(sender.transmit(now)) == 1
    sender.flight.prompt(now + 1.0)
    assert len(sender.transmit(now + 1.0)) == 1


@pytest.mark.requirement("9147-5.8.1-2", "9147-5.8.3-1")
def test_passes_go_round_for_a_peer_that_never_acknowledges_a_part() -> None:
    """Every byte of a flight of 35 records leaves within four transmissions, and again in the next four."""
    sender = Sender(35 * BODY_PER_RECORD)
    now = 0.0
    for _ in range(3):
        seen = set(sender.ranges(sender.transmit(now)))
        for _ in range(3):
            now = sender.expire()
            seen |= set(sender.ranges(sender.transmit(now)))
        assert len(seen) == 35
        now = sender.expire()


@pytest.mark.requirement("9147-5.8.1-1")
def test_remembered_records_do_not_grow_without_end() -> None:
    sender = Sender(9 * BODY_PER_RECORD)
    now = 0.0
    for _ in range(200):
        sender.transmit(now)
        now = sender.expire()
    assert len(sender.wire) == 1800
    assert sender.flight._sent is not None
    assert len(sender.flight._sent) <= flight_module._MAX_SENT_RECORDS
    # Forgotten ones are ignored, remembered ones count.
    assert sender.flight.acknowledge(list(sender.wire)[:9], now) == []
    assert sender.flight.acknowledge(list(sender.wire)[-9:], now) == [1]


@pytest.mark.requirement("9147-4.2.1-5")
def test_messages_of_two_epochs_share_no_record() -> None:
    sender = Sender(30, epoch=0)
    sender.add(30, 2, 2)
    sender.add(30, 2, 3)
    sent = sender.transmit(0.0, room=1000)
    assert [number.epoch for number in sent] == [0, 2]
    assert [len(sender.wire[number]) for number in sent] == [1, 2]
    assert sender.flight.epochs == {0, 2}
    now = sender.expire()
    assert [number.epoch for number in sender.transmit(now, room=1000)] == [0, 2]


@pytest.mark.requirement("9147-5.5-6")
def test_another_mtu_cuts_the_same_bytes_elsewhere() -> None:
    sender = Sender(500)
    first = sender.transmit(0.0, room=212)
    now = sender.expire()
    second = sender.transmit(now, room=92)
    assert sender.ranges(first) != sender.ranges(second)
    for numbers in (first, second):
        body = b"".join(fragment.data for number in numbers for fragment in sender.wire[number])
        assert body == sender.bodies[0]


@given(st.data())
@pytest.mark.requirement("9147-5.8.1-2", "9147-7.2-1", "9147-5.5-6")
def test_any_loss_of_records_and_acks_ends_with_everything_across(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 900), min_size=1, max_size=4))
    sender = Sender(*sizes)
    got = [bytearray(size) for size in sizes]
    have: list[set[int]] = [set() for _ in sizes]
    reported: list[int] = []
    now = 0.0
    for turn in range(200):
        arrived = []
        for number in sender.transmit(now):
            # The network gives in after a while.
            if turn > 30 or data.draw(st.booleans()):
                arrived.append(number)
                for fragment in sender.wire[number]:
                    got[fragment.message_seq][fragment.offset : fragment.end] = fragment.data
                    have[fragment.message_seq].update(range(fragment.offset, fragment.end))
        if arrived and (turn > 30 or data.draw(st.booleans())):
            reported += sender.flight.acknowledge(arrived, now + 0.1)
        if not sender.flight.outstanding:
            break
        if sender.flight.pending_epoch() is None:
            now = sender.expire()
    assert reported == list(range(1, len(sizes) + 1))
    assert [bytes(body) for body in got] == sender.bodies
    assert [len(one) for one in have] == sizes
