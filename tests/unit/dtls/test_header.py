"""Plaintext records, handshake fragments, ACKs and alerts: what is written is read, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.dtls.header import (
    MAX_CONTENT_BYTES,
    MAX_SEQUENCE,
    PLAINTEXT_HEADER_BYTES,
    ContentType,
    Fragment,
    PlaintextRecord,
    RecordNumber,
    decode_ack,
    decode_alert,
    decode_fragments,
    decode_plaintext,
    encode_ack,
    encode_plaintext,
    fragment_header,
    is_ciphertext,
)
from sealwire.errors import Alert, Discard, ProtocolError
from sealwire.tls13.messages import HandshakeType

PLAINTEXT_TYPES = (ContentType.ALERT, ContentType.HANDSHAKE, ContentType.ACK)
sequences = st.integers(0, MAX_SEQUENCE)


@given(st.sampled_from(PLAINTEXT_TYPES), sequences, st.binary(max_size=300), st.binary(max_size=40))
@pytest.mark.requirement("9147-4.1-1", "9147-4-2", "9147-4.2.3-6")
def test_a_plaintext_record_is_read_as_it_was_written(
    kind: ContentType, sequence: int, content: bytes, behind: bytes
) -> None:
    record = encode_plaintext(kind, sequence, content)
    assert record[1:3] == b"\xfe\xfd"
    # Epoch 0, and the number as it is: nothing is masked.
    assert record[3:11] == sequence.to_bytes(8, "big")
    found = decode_plaintext(record + behind, 0)
    assert found == PlaintextRecord(kind, sequence, content, len(record))


@given(st.integers(0, 0xFFFF), st.sampled_from(PLAINTEXT_TYPES), sequences, st.binary(max_size=50))
@pytest.mark.requirement("9147-4-3")
def test_the_version_of_a_record_means_nothing(
    version: int, kind: ContentType, sequence: int, content: bytes
) -> None:
    record = bytearray(encode_plaintext(kind, sequence, content))
    record[1:3] = version.to_bytes(2, "big")
    assert decode_plaintext(record, 0) == PlaintextRecord(kind, sequence, content, len(record))


@pytest.mark.requirement("9147-4.3-5")
def test_every_prefix_of_a_record_is_dropped() -> None:
    record = encode_plaintext(ContentType.HANDSHAKE, 7, bytes(40))
    for n in range(1, len(record)):
        expected = Discard.TRUNCATED_HEADER if n < PLAINTEXT_HEADER_BYTES else Discard.TRUNCATED_RECORD
        assert decode_plaintext(record[:n], 0) is expected


@given(st.binary(min_size=1, max_size=60), st.integers(0, 20))
@pytest.mark.requirement("9147-4.1-1", "9147-4.1-3")
def test_any_bytes_are_a_record_or_a_reason(data: bytes, offset: int) -> None:
    offset %= len(data)
    found = decode_plaintext(data, offset)
    if data[offset] not in PLAINTEXT_TYPES:
        assert found is Discard.NOT_DTLS
    elif isinstance(found, PlaintextRecord):
        assert offset + PLAINTEXT_HEADER_BYTES + len(found.content) == found.end <= len(data)


@pytest.mark.requirement("9147-4.1-2", "9147-4-11")
def test_three_bits_make_a_ciphertext() -> None:
    assert [first for first in range(256) if is_ciphertext(first)] == list(range(0x20, 0x40))


@pytest.mark.requirement("9147-4.3-5", "8446-ALERT-5")
def test_a_record_is_not_longer_than_the_protocol_allows() -> None:
    fits = encode_plaintext(ContentType.HANDSHAKE, 0, bytes(MAX_CONTENT_BYTES))
    assert isinstance(decode_plaintext(fits, 0), PlaintextRecord)
    above = encode_plaintext(ContentType.HANDSHAKE, 0, bytes(MAX_CONTENT_BYTES + 1))
    assert decode_plaintext(above, 0) is Discard.OVERSIZED_RECORD


@pytest.mark.requirement("9147-4-1", "9147-6.1-1")
@pytest.mark.parametrize("epoch", [1, 2, 3, 0xFFFF])
def test_a_plaintext_record_of_another_epoch_is_dropped(epoch: int) -> None:
    record = bytearray(encode_plaintext(ContentType.HANDSHAKE, 0, b"x"))
    record[3:5] = epoch.to_bytes(2, "big")
    assert decode_plaintext(record, 0) is Discard.UNKNOWN_EPOCH


# --- fragments -----------------------------------------------------------------------------


@st.composite
def fragments(draw: st.DrawFn) -> Fragment:
    length = draw(st.integers(0, 2000))
    offset = draw(st.integers(0, max(length - 1, 0)))
    n = draw(st.integers(min(1, length), length - offset))
    kind = HandshakeType(draw(st.integers(0, 255)))
    return Fragment(
        kind, length, draw(st.integers(0, 0xFFFF)), offset, draw(st.binary(min_size=n, max_size=n))
    )


def encode(fragment: Fragment) -> bytes:
    return (
        fragment_header(
            fragment.kind, fragment.length, fragment.message_seq, fragment.offset, len(fragment.data)
        )
        + fragment.data
    )


@given(st.lists(fragments(), min_size=1, max_size=4))
@pytest.mark.requirement("9147-5.5-8", "9147-5.5-3")
def test_fragments_are_read_as_they_were_written(several: list[Fragment]) -> None:
    content = b"".join(map(encode, several))
    assert decode_fragments(content) == several
    for fragment in several:
        assert fragment.end == fragment.offset + len(fragment.data)
        assert fragment.whole == (len(fragment.data) == fragment.length)
    # Every proper prefix that does not end between two fragments is malformed.
    ends = {len(b"".join(map(encode, several[:n]))) for n in range(1, len(several))}
    for n in range(len(content)):
        if n in ends:
            continue
        with pytest.raises(ProtocolError) as caught:
            decode_fragments(content[:n])
        assert caught.value.alert is Alert.DECODE_ERROR


@pytest.mark.requirement("8446-ALERT-4", "9147-5.5-3")
@pytest.mark.parametrize(
    ("length", "offset", "data"),
    [
        (5, 0, b"sixsix"),  # longer than its message
        (5, 4, b"ab"),  # ends behind it
        (5, 6, b"a"),  # begins behind it
        ((1 << 24) - 1, (1 << 24) - 1, b"a"),  # would wrap 24 bits
        (5, 0, b""),  # nothing of something
        (5, 5, b""),
        (0, 1, b""),
        (0, 0, b"a"),
    ],
)
def test_a_fragment_outside_its_message_is_malformed(length: int, offset: int, data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_fragments(fragment_header(1, length, 0, offset, len(data)) + data)
    assert caught.value.alert is Alert.DECODE_ERROR


# --- ACKs and alerts -----------------------------------------------------------------------

numbers = st.builds(RecordNumber, st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))


@given(st.lists(numbers, max_size=30))
@pytest.mark.requirement("9147-7-1", "9147-7.1-9")
def test_an_ack_names_records_in_increasing_order(several: list[RecordNumber]) -> None:
    content = encode_ack(several)
    assert len(content) == 2 + 16 * len(several)
    assert decode_ack(content) == sorted(several)


@given(st.lists(numbers, max_size=5), st.integers(1, 40))
@pytest.mark.requirement("9147-7-1")
def test_an_ack_cut_or_stretched_is_malformed(several: list[RecordNumber], n: int) -> None:
    content = encode_ack(several)
    for wrong in (content[:-n] if n <= len(content) else b"", content + bytes(n)):
        with pytest.raises(ProtocolError) as caught:
            decode_ack(wrong)
        assert caught.value.alert is Alert.DECODE_ERROR


@pytest.mark.requirement("9147-7-1")
@pytest.mark.parametrize("n", [1, 8, 15, 17, 24])
def test_the_list_of_an_ack_holds_whole_numbers(n: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_ack(n.to_bytes(2, "big") + bytes(n))
    assert caught.value.alert is Alert.DECODE_ERROR


@given(st.binary(max_size=5))
@pytest.mark.requirement("8446-ALERT-1")
def test_an_alert_has_two_bytes(content: bytes) -> None:
    if len(content) == 2:
        assert decode_alert(content) == (content[0], content[1])
        return
    with pytest.raises(ProtocolError) as caught:
        decode_alert(content)
    assert caught.value.alert is Alert.DECODE_ERROR
