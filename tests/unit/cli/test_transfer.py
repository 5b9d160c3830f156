"""A file over datagrams that are lost, doubled and reordered arrives whole."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.cli import transfer
from sealwire.sim.link import Link


def carry(sender: transfer.Sender, receiver: transfer.Receiver, there: Link, back: Link) -> float:
    """Run a transfer over two links; the virtual time it took."""
    now = 0.0
    while not sender.verdict:
        for message in sender.transmit(now):
            there.send(message, now)
        moments = [there.next_arrival(), back.next_arrival(), sender.deadline()]
        now = max(now, min(moment for moment in moments if moment is not None))
        assert now < 600, "the transfer hangs"
        for message, _ in there.arrivals(now):
            for answer in receiver.receive(message):
                back.send(answer, now)
        for answer, _ in back.arrivals(now):
            sender.receive(answer, now)
    return now


@given(
    size=st.integers(0, 60_000),
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.05, 0.3]),
    reorder=st.sampled_from([0.0, 0.3]),
    duplicate=st.sampled_from([0.0, 0.3]),
)
def test_arrives_whole_whatever_the_network_does(
    size: int, seed: int, loss: float, reorder: float, duplicate: float
) -> None:
    data = random.Random(seed).randbytes(size)
    there, back = (
        Link(f"{seed}-{way}", loss=loss, reorder=reorder, duplicate=duplicate, delay=0.01, jitter=0.002)
        for way in ("there", "back")
    )
    sender, receiver = transfer.Sender(data, 1_000), transfer.Receiver()
    carry(sender, receiver, there, back)
    assert sender.verdict == hashlib.sha256(data).digest()
    assert receiver.intact
    assert receiver.received_bytes == sender.acknowledged_bytes == size
    if loss == reorder == 0.0:
        assert sender.retransmissions == 0


def test_a_narrow_link_slows_the_sender_instead_of_losing_most() -> None:
    """With a queue of 40 datagrams the window settles: under a tenth of the chunks are sent twice."""
    data = bytes(4_000_000)
    there = Link("there", delay=0.001, bandwidth=10_000_000, queue=40 * 1_000)
    back = Link("back", delay=0.001)
    sender, receiver = transfer.Sender(data, 1_000), transfer.Receiver()
    seconds = carry(sender, receiver, there, back)
    assert receiver.intact
    assert sender.retransmissions < 400
    assert seconds < 2 * len(data) / 10_000_000


def test_a_changed_byte_is_noticed() -> None:
    sender, receiver = transfer.Sender(b"some file", 100), transfer.Receiver()
    (opening,) = sender.transmit(0.0)
    for answer in receiver.receive(opening):
        sender.receive(answer, 0.0)
    (chunk,) = sender.transmit(0.0)
    (verdict,) = receiver.receive(chunk[:-1] + b"x")
    sender.receive(verdict, 0.0)
    assert receiver.complete
    assert not receiver.intact
    assert sender.verdict == hashlib.sha256(b"some filx").digest()


@pytest.mark.parametrize("noise", [b"", b"\x00", b"O", b"D\x00\x00", b"D\x00\x00\x00\x00early", b"nonsense"])
def test_noise_is_not_answered(noise: bytes) -> None:
    assert transfer.Receiver().receive(noise) == []


def test_pings_are_answered_at_any_time() -> None:
    assert transfer.Receiver().receive(bytes([transfer.PING]) + b"x") == [bytes([transfer.PONG]) + b"x"]
