"""What an opener makes of bytes: entries, reasons for silence, and where it goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.errors import Discard
from sealwire.record.header import MAX_SEQUENCE, reconstruct
from sealwire.record.protect import DISCARDS, CiphertextHeader, parse_ciphertext_header
from sealwire.record.reference import Entry
from sealwire.record.reference import Opener as OpenerInterface
from sealwire.record.reference import Sealer as SealerInterface
from tests.record_layers import PROVIDER, REFERENCE, SPECS, Layer, datagram_keys, each_layer

SPEC = SPECS[0]
KEYS = datagram_keys(SPEC)


def opener(layer: Layer, cid: bytes = b"", window: int = 256, epoch: int = 3) -> OpenerInterface:
    return layer.opener(PROVIDER, SPEC, KEYS, epoch, cid, window)


def sealer(layer: Layer, cid: bytes = b"", sequence: int = 0, epoch: int = 3) -> SealerInterface:
    return layer.sealer(PROVIDER, SPEC, KEYS, epoch, cid, sequence=sequence)


def reasons(entries: list[Entry]) -> list[Discard | int]:
    """Each entry's number, or why it was dropped."""
    return [DISCARDS[-kind] if kind < 0 else sequence for kind, sequence, _ in entries]


def open_all(one: OpenerInterface, *datagrams: bytes) -> list[Discard | int]:
    """Entries of every datagram; none may hold anything the opener leaves to its caller."""
    found: list[Discard | int] = []
    index = offset = 0
    while index < len(datagrams):
        entries, index, offset = one.open_run(datagrams, index, offset)
        assert entries
        found += reasons(entries)
    return found


@pytest.mark.requirement("9147-4-4", "9147-4-6", "9147-4.3-3")
@each_layer
def test_every_header_form_and_mix(layer: Layer) -> None:
    for cid in (b"", b"abc"):
        one, other = sealer(layer, cid), opener(layer, cid)
        datagram = one.seal(23, b"one") + one.seal(23, b"two", 5, short_sequence=True)
        datagram += one.seal(23, b"", with_length=False)
        short = one.seal(23, b"four", short_sequence=True, with_length=False)
        entries, index, offset = other.open_run([datagram, short], 0, 0)
        assert entries == [(23, 0, b"one"), (23, 1, b"two"), (23, 2, b""), (23, 3, b"four")]
        assert (index, offset) == (2, 0)
        assert (other.opened, other.forged, other.highest) == (4, 0, 3)


@pytest.mark.requirement("9147-4-6")
@each_layer
def test_a_record_without_length_takes_the_rest(layer: Layer) -> None:
    one = sealer(layer)
    datagram = one.seal(23, b"a", with_length=False) + one.seal(23, b"b")
    other = opener(layer)
    assert open_all(other, datagram) == [Discard.AUTHENTICATION]
    assert other.forged == 1


@each_layer
@pytest.mark.parametrize("at", [0, 1, 62, 63, 64, 65, 127, 128, 199])
@pytest.mark.parametrize("together", [1, 3, 200])
def test_a_run_ends_behind_a_record_that_may_change_keys(layer: Layer, at: int, together: int) -> None:
    one = sealer(layer)
    records = [one.seal(22 if n == at else 23, b"x" * n) for n in range(200)]
    datagrams = [b"".join(records[n : n + together]) for n in range(0, 200, together)]
    other = opener(layer)
    entries, index, offset = other.open_run(datagrams, 0, 0)
    assert reasons(entries) == list(range(at + 1))
    assert entries[-1] == (22, at, b"x" * at)
    # Nothing behind it was touched: not the counters, not the window.
    assert (other.opened, other.highest) == (at + 1, at)
    if index < len(datagrams):
        assert datagrams[index][offset:].startswith(records[at + 1])
        rest, index, offset = other.open_run(datagrams, index, offset)
        assert reasons(rest) == list(range(at + 1, 200))
    assert (index, offset) == (len(datagrams), 0)


@pytest.mark.requirement("9147-4.1-2", "9147-4.2.2-3")
@each_layer
@pytest.mark.parametrize("epoch", [0, 1, 2, 3])
def test_a_run_ends_before_what_is_not_of_this_epoch(layer: Layer, epoch: int) -> None:
    mine = sealer(layer, epoch=4 + epoch).seal(23, b"mine")
    for first in range(256):
        foreign = bytes((first,)) + bytes(60)
        is_mine = first & 0xE0 == 0x20 and first & 3 == epoch
        for datagrams, stop in (([mine, foreign], (1, 0)), ([mine + foreign], (0, len(mine)))):
            entries, index, offset = opener(layer, epoch=4 + epoch).open_run(datagrams, 0, 0)
            assert entries[0] == (23, 0, b"mine")
            assert ((index, offset) == stop) != is_mine
            assert len(entries) == 1 or is_mine


@pytest.mark.requirement("9147-4-9")
@each_layer
def test_connection_ids_must_be_the_agreed_one(layer: Layer) -> None:
    good = sealer(layer, b"ab", 1).seal(23, b"good")
    foreign = sealer(layer, b"ax").seal(23, b"foreign")
    without = sealer(layer).seal(23, b"without")
    other = opener(layer, b"ab")
    for bad in (foreign, without):
        assert open_all(other, bad + good) == [Discard.UNKNOWN_CID]
    assert open_all(opener(layer), good + without) == [Discard.UNKNOWN_CID]
    # What came before the foreign record stands.
    assert open_all(other, good + foreign + sealer(layer, b"ab", 2).seal(23, b"later")) == [
        1,
        Discard.UNKNOWN_CID,
    ]
    assert other.forged == 0


@pytest.mark.requirement("9147-4.2.3-3", "9147-4.3-5", "9147-4.5.2-1")
@each_layer
def test_every_truncation_is_one_reason(layer: Layer) -> None:
    record = sealer(layer, b"ab").seal(23, b"hello")
    for n in range(1, len(record)):
        expected = Discard.TRUNCATED_HEADER if n < 7 else Discard.TRUNCATED_RECORD
        other = opener(layer, b"ab")
        assert open_all(other, record[:n]) == [expected]
        assert (other.opened, other.forged, other.highest) == (0, 0, -1)
    for n in range(16):
        short = b"\x27\x00" + n.to_bytes(2, "big") + bytes(n)
        other = opener(layer)
        follower = sealer(layer).seal(23, b"after")
        # A record too short to unmask is dropped alone; its length says where the next one is.
        assert open_all(other, short + follower) == [Discard.SHORT_CIPHERTEXT, 0]
        assert open_all(other, b"\x23\x00" + bytes(n)) == [Discard.SHORT_CIPHERTEXT]
        assert other.forged == 0
    assert open_all(opener(layer), b"", record) == [Discard.EMPTY, Discard.UNKNOWN_CID]


@each_layer
def test_sizes_above_the_protocol_s(layer: Layer) -> None:
    largest = sealer(layer).seal(23, bytes(1 << 14))
    assert open_all(opener(layer), largest) == [0]
    header = largest[:3] + (len(largest) - 5 + 1).to_bytes(2, "big")
    other = opener(layer)
    assert open_all(other, header + largest[5:] + b"\0") == [Discard.OVERSIZED_RECORD]
    assert open_all(other, largest[:1] + b"\0\0\xff\xff" + bytes(0xFFFF)) == [Discard.OVERSIZED_RECORD]
    assert other.forged == 0


@pytest.mark.requirement("9147-4.1-4")
@each_layer
def test_a_record_of_zeros_only_is_dropped(layer: Layer) -> None:
    aead, mask = PROVIDER.aead(SPEC, KEYS.key), PROVIDER.mask(SPEC, KEYS.sn_key)
    for n in range(4):
        header = b"\x2f\x00\x00" + (n + 16).to_bytes(2, "big")
        body = aead.seal(KEYS.iv, bytes(n), header)
        record = header[:1] + mask(body[:16])[:2] + header[3:] + body
        other = opener(layer)
        assert open_all(other, record, record) == [Discard.EMPTY_CONTENT, Discard.REPLAY]
        assert (other.opened, other.forged) == (2, 0)


@pytest.mark.requirement("9147-4.5.2-1", "9147-4.5.3-3")
@each_layer
def test_every_flipped_bit_is_silence(layer: Layer) -> None:
    one, other = sealer(layer, b"c"), opener(layer, b"c")
    record = one.seal(23, b"hello")
    forged = 0
    for at in range(len(record)):
        for bit in range(8):
            bad = bytearray(record)
            bad[at] ^= 1 << bit
            entries = other.open_run([bad], 0, 0)[0]
            assert all(entry[0] < 0 for entry in entries)
            forged += reasons(entries).count(Discard.AUTHENTICATION)
            assert (other.forged, other.opened, other.highest) == (forged, 0, -1)
    assert forged > 8 * 16
    assert open_all(other, record) == [0]


@each_layer
def test_a_forgery_leaves_nothing_behind(layer: Layer) -> None:
    other = opener(layer)
    entries = other.open_run([b"\x2b" + bytes(50)] * 3, 0, 0)[0]
    assert entries[0] is entries[1] is entries[2]
    assert other.forged == 3


@pytest.mark.requirement("9147-4.5.1-1", "9147-4.5.1-2", "9147-4.5.1-3")
@each_layer
@pytest.mark.parametrize("window", [64, 128, 192, 1024])
def test_the_replay_window_is_exactly_as_wide_as_asked(layer: Layer, window: int) -> None:
    one = sealer(layer)
    records = one.seal_run(23, [b""] * (3 * window))
    other = opener(layer, window=window)
    assert open_all(other, records[0], records[0]) == [0, Discard.REPLAY]
    newest = 2 * window
    assert open_all(other, records[newest]) == [newest]
    assert open_all(other, records[newest - window]) == [Discard.TOO_OLD]
    # The oldest place first: it must neither be lost nor count for a number a window away.
    for n in range(newest - window + 1, newest):
        assert open_all(other, records[n], records[n]) == [n, Discard.REPLAY]
    assert open_all(other, records[newest + 3]) == [newest + 3]
    assert open_all(other, *records[newest + 1 : newest + 3]) == [newest + 1, newest + 2]
    assert open_all(other, *records[newest - window + 4 : newest + 4]) == [Discard.REPLAY] * window


@pytest.mark.requirement("9147-4.5.1-3", "9147-4.5.1-5")
@each_layer
@given(data=st.data())
def test_no_number_is_accepted_twice(layer: Layer, data: st.DataObject) -> None:
    records = sealer(layer).seal_run(23, [b""] * 400)
    order = data.draw(st.lists(st.integers(0, 399), min_size=1, max_size=300))
    other = opener(layer, window=64)
    seen: set[int] = set()
    highest = -1
    for n, result in zip(order, open_all(other, *(records[n] for n in order)), strict=True):
        if n <= highest - 64:
            assert result is Discard.TOO_OLD
        elif n in seen:
            assert result is Discard.REPLAY
        else:
            assert result == n
        seen.add(n)
        highest = max(highest, n)
    assert other.highest == highest


@pytest.mark.requirement("9147-4.5.1-6")
@each_layer
def test_a_forged_number_moves_nothing(layer: Layer) -> None:
    """Otherwise one forged record with a high number would shut out the good ones (CVE-2016-2181)."""
    other = opener(layer, window=64)
    records = sealer(layer).seal_run(23, [b"x"] * 70)
    assert open_all(other, records[0]) == [0]
    forged = bytearray(sealer(layer, sequence=30_000).seal(23, b"x"))
    forged[-1] ^= 1
    assert open_all(other, bytes(forged)) == [Discard.AUTHENTICATION]
    assert other.highest == 0
    assert open_all(other, *records[1:]) == list(range(1, 70))


@pytest.mark.requirement("9147-4.5.1-4")
@each_layer
def test_a_replay_is_told_from_a_forgery_only_by_authentication(layer: Layer) -> None:
    """A replayed number with a broken tag is a forgery: the window is asked after the AEAD."""
    other = opener(layer)
    record = bytearray(sealer(layer).seal(23, b"x"))
    assert open_all(other, bytes(record)) == [0]
    record[-1] ^= 1
    assert open_all(other, bytes(record)) == [Discard.AUTHENTICATION]


@pytest.mark.requirement("9147-4.2.2-1", "9147-4.2.2-2")
@given(
    highest=st.one_of(
        st.integers(-1, 1 << 17),
        st.integers(MAX_SEQUENCE - (1 << 17), MAX_SEQUENCE),
        st.integers(-1, MAX_SEQUENCE),
    ),
    bits=st.sampled_from([8, 16]),
    distance=st.integers(-(1 << 16), 1 << 16),
)
def test_numbers_are_completed_to_the_closest(highest: int, bits: int, distance: int) -> None:
    expected, half = highest + 1, 1 << bits - 1
    true = expected + distance % half * (1 if distance >= 0 else -1)
    if 0 <= true <= MAX_SEQUENCE:
        assert reconstruct(true & (2 * half - 1), bits, highest) == true
    for low in (0, half - 1, half, 2 * half - 1):
        number = reconstruct(low, bits, highest)
        assert 0 <= number <= MAX_SEQUENCE
        assert number & (2 * half - 1) == low
        others = [number + 2 * half, number - 2 * half]
        assert all(
            abs(number - expected) <= abs(other - expected) for other in others if 0 <= other <= MAX_SEQUENCE
        )


@pytest.mark.requirement("9147-4.2.2-2")
@each_layer
@pytest.mark.parametrize("short", [False, True])
def test_numbers_are_followed_over_their_wrap(layer: Layer, short: bool) -> None:
    span = 256 if short else 65536
    one = sealer(layer, sequence=span - 3)
    other = layer.opener(PROVIDER, SPEC, KEYS, 3, highest=span - 4)
    records = [one.seal(23, b"", short_sequence=short) for _ in range(6)]
    late = records.pop(1)
    assert open_all(other, *records) == [span - 3, *range(span - 1, span + 3)]
    # `highest` given at the start stands for everything below, so a late one is what it says.
    assert open_all(other, late, late) == [span - 2, Discard.REPLAY]


@each_layer
def test_the_last_number_opens(layer: Layer) -> None:
    other = layer.opener(PROVIDER, SPEC, KEYS, 3, highest=MAX_SEQUENCE - 300)
    one = sealer(layer, sequence=MAX_SEQUENCE - 200)
    records = one.seal_run(23, [b""] * 201)
    assert open_all(other, records[200], records[0], records[200]) == [
        MAX_SEQUENCE,
        MAX_SEQUENCE - 200,
        Discard.REPLAY,
    ]


@each_layer
def test_where_a_run_may_start(layer: Layer) -> None:
    record = sealer(layer).seal(23, b"x")
    assert opener(layer).open_run([record], 1, 0) == ([], 1, 0)
    assert opener(layer).open_run([record], 0, len(record)) == ([], 1, 0)
    assert opener(layer).open_run([record], 0, 10**9) == ([], 1, 0)
    assert opener(layer).open_run([], 0, 0) == ([], 0, 0)
    for index, offset in ((-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="from 0 on"):
            opener(layer).open_run([record], index, offset)
    for window in (0, -64, 100):
        with pytest.raises(ValueError, match="multiple of 64"):
            opener(layer, window=window)


def test_headers_for_people() -> None:
    record = sealer(REFERENCE, b"ab").seal(23, b"hello", short_sequence=True)
    assert parse_ciphertext_header(b"??" + record, 2, 2) == CiphertextHeader(
        epoch_bits=3,
        cid=b"ab",
        sequence_offset=5,
        sequence_bytes=1,
        with_length=True,
        body_offset=8,
        end=2 + len(record),
    )
    assert parse_ciphertext_header(record, 0, 0) is Discard.UNKNOWN_CID
    assert parse_ciphertext_header(record[:4], 0, 2) is Discard.TRUNCATED_HEADER
    assert parse_ciphertext_header(record[:-1], 0, 2) is Discard.TRUNCATED_RECORD
