"""Records and handshake messages come out whole, wherever the stream was cut, and never too large."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.errors import Alert, ProtocolError
from sealwire.stcp.deframe import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    CIPHERTEXT_LIMIT_BYTES,
    HANDSHAKE,
    HEADER_BYTES,
    PLAINTEXT_LIMIT_BYTES,
    Deframer,
    MessageJoiner,
)

TYPES = (CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA)


def record(content_type: int, body: bytes) -> bytes:
    return bytes((content_type, 3, 3)) + len(body).to_bytes(2, "big") + body


def cut(deframer: Deframer, data: bytes) -> Iterator[memoryview]:
    """The records that `data` completes."""
    view, at = memoryview(data), 0
    while at < len(view):
        record, at = deframer.take(view, at)
        if record is not None:
            yield record


records = st.lists(
    st.builds(record, st.sampled_from(TYPES), st.binary(max_size=60) | st.just(bytes(3_000))), max_size=8
)


@given(records, st.lists(st.integers(1, 4_000), min_size=1, max_size=12))
def test_every_cut_gives_the_same_records(expected: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(expected)
    deframer = Deframer()
    found: list[bytes] = []
    at = 0
    turn = 0
    while at < len(stream):
        piece = stream[at : at + cuts[turn % len(cuts)]]
        found.extend(bytes(view) for view in cut(deframer, piece))
        at += len(piece)
        turn += 1
        assert sum(map(len, found)) + deframer.held == at
    assert found == expected
    assert deframer.held == 0


def test_one_byte_at_a_time() -> None:
    expected = [record(HANDSHAKE, b"abc"), record(ALERT, b""), record(APPLICATION_DATA, bytes(300))]
    deframer = Deframer()
    found = [bytes(view) for n in b"".join(expected) for view in cut(deframer, bytes((n,)))]
    assert found == expected


@pytest.mark.requirement("8446-ALERT-5")
@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("step", [HEADER_BYTES, 1])
def test_a_length_is_judged_with_its_header(content_type: int, step: int) -> None:
    limit = CIPHERTEXT_LIMIT_BYTES if content_type == APPLICATION_DATA else PLAINTEXT_LIMIT_BYTES

    def feed(length: int) -> Deframer:
        header = bytes((content_type, 3, 3)) + length.to_bytes(2, "big")
        deframer = Deframer()
        for at in range(0, HEADER_BYTES, step):
            assert list(cut(deframer, header[at : at + step])) == []
        return deframer

    assert feed(limit).held == HEADER_BYTES
    with pytest.raises(ProtocolError) as caught:
        feed(limit + 1)
    assert caught.value.alert is Alert.RECORD_OVERFLOW


@pytest.mark.parametrize("behind", [b"", record(HANDSHAKE, b"x")])
@pytest.mark.parametrize("first_byte", [b"G", b"\x00", b"\x80", b"\xff", b"\x18", b"\x1a"])
def test_the_first_byte_of_something_else_is_refused(first_byte: bytes, behind: bytes) -> None:
    deframer = Deframer()
    with pytest.raises(ProtocolError) as caught:
        list(cut(deframer, behind + first_byte))
    assert caught.value.alert is Alert.UNEXPECTED_MESSAGE


def test_what_is_held_grows_with_what_came_not_with_what_was_declared() -> None:
    deframer = Deframer()
    assert list(cut(deframer, record(APPLICATION_DATA, bytes(16_000))[:700])) == []
    assert deframer.held == 700


def test_reading_record_by_record_never_reads_beyond() -> None:
    expected = [record(HANDSHAKE, b"abc"), record(ALERT, b""), record(APPLICATION_DATA, bytes(300))]
    stream = b"".join(expected)
    deframer = Deframer()
    found: list[bytes] = []
    while stream:
        n = deframer.missing
        read = [bytes(view) for view in cut(deframer, stream[:n])]
        assert len(read) <= 1
        found += read
        stream = stream[n:]
    assert found == expected


def test_complete_records_are_not_copied() -> None:
    stream = record(APPLICATION_DATA, b"abc") * 2
    views = list(cut(Deframer(), stream))
    assert [view.obj is stream for view in views] == [True, True]


messages = st.lists(
    st.builds(lambda kind, body: bytes((kind,)) + len(body).to_bytes(3, "big") + body,
              st.integers(0, 255), st.binary(max_size=80)),
    max_size=8,
)  # fmt: skip


@given(messages, st.integers(1, 100))
def test_messages_may_share_records_or_be_split(expected: list[bytes], size: int) -> None:
    stream = b"".join(expected)
    joiner = MessageJoiner(1_000)
    found: list[bytes] = []
    for at in range(0, len(stream), size):
        joiner.feed(stream[at : at + size])
        while (message := joiner.message()) is not None:
            found.append(message)
    assert found == expected
    assert joiner.held == 0


def test_a_message_above_the_limit_is_refused_when_its_header_is_there() -> None:
    joiner = MessageJoiner(100)
    joiner.feed(b"\x0b\x00\x00\x60")  # 96 and the header: exactly the limit
    assert joiner.message() is None
    joiner = MessageJoiner(100)
    joiner.feed(b"\x0b\x00\x00")
    assert joiner.message() is None
    joiner.feed(b"\x61")
    with pytest.raises(ProtocolError, match="handshake_message_bytes") as caught:
        joiner.message()
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER
