"""Runs of records as trains: what leaves is what single records would be, and comes back as messages."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.errors import Discard
from sealwire.record import bulk_reference, protect
from sealwire.record.reference import DISCARDS
from sealwire.record.train import (
    MOST_BYTES,
    MOST_DATAGRAMS,
    Train,
    bytes_of,
    count_of,
    couple,
    rest_of,
    split_all,
)
from tests.record_layers import COMPILED_LAYER, PROVIDER, SPECS, Layer, datagram_keys, each_layer, each_suite

EPOCH = 3
SPEC = SPECS[0]
SIZES = st.lists(st.sampled_from([0, 1, 5, 64, 64, 64, 65, 1200, 1200, 1200, 1400, 9000]), max_size=150)


def sealer(layer: Layer, spec: Any = SPEC, cid: bytes = b"") -> Any:
    return layer.sealer(PROVIDER, spec, datagram_keys(spec), EPOCH, cid)


def opener(layer: Layer, spec: Any = SPEC, cid: bytes = b"", **keywords: Any) -> Any:
    return layer.opener(PROVIDER, spec, datagram_keys(spec), EPOCH, cid, **keywords)


def messages_of(sizes: list[int]) -> list[bytes]:
    return [bytes([n & 0xFF]) * size for n, size in enumerate(sizes)]


@each_layer
@each_suite
@given(sizes=SIZES, block=st.sampled_from([0, 16, 256]), cid=st.sampled_from([b"", b"id", b"x" * 20]))
def test_trains_hold_the_records_of_a_run(
    layer: Layer, spec: Any, sizes: list[int], block: int, cid: bytes
) -> None:
    messages = messages_of(sizes)
    one_by_one = sealer(layer, spec, cid).seal_run(23, messages, block, 1300)
    together = sealer(layer, spec, cid)
    trains = protect.seal_trains(together, 23, messages, block, 1300)
    assert split_all(trains) == one_by_one
    assert together.sequence == together.sealed == len(messages)
    for train in trains:
        if isinstance(train, Train):
            assert 2 <= train.count <= MOST_DATAGRAMS
            assert len(train.data) <= MOST_BYTES
    assert (count_of(trains), bytes_of(trains)) == (len(messages), sum(map(len, one_by_one)))
    assert trains == couple(one_by_one)


@each_layer
@given(data=st.data())
def test_what_opens_is_the_same_in_trains_and_in_entries(layer: Layer, data: st.DataObject) -> None:
    """Damaged, repeated, of another kind, behind one another: messages, drops and place as in open_run."""
    cid = data.draw(st.sampled_from([b"", b"conn"]))
    seal = sealer(layer, cid=cid)
    datagrams: list[bytes] = []
    for _ in range(data.draw(st.integers(0, 5))):
        records = seal.seal_run(23, messages_of(data.draw(SIZES)))
        kind = data.draw(st.sampled_from(["good", "good", "flip", "repeat", "cut", "ack", "joined", "empty"]))
        if kind == "flip":
            records = [bytes([*record[:-1], record[-1] ^ 1]) for record in records]
        elif kind == "repeat":
            records += records
        elif kind == "cut":
            records = [record[:-3] for record in records]
        elif kind == "ack":
            records.insert(len(records) // 2, seal.seal(26, b"\0\0"))
        elif kind == "joined":
            records = [b"".join(records[:3]), *records[3:]]
        elif kind == "empty":
            records.append(b"")
        datagrams += records
    trains = couple(datagrams)
    assert split_all(trains) == datagrams
    ours, other = opener(layer, cid=cid), opener(COMPILED_LAYER, cid=cid)
    plain = opener(layer, cid=cid)
    entries: list[Any] = []
    index = offset = 0
    while index < len(datagrams):
        got, index, offset = plain.open_run(datagrams, index, offset)
        entries += got
    index = offset = 0
    found: list[bytes] = []
    drops: dict[int, int] = {}
    others: list[Any] = []
    while index < len(trains):
        answer = protect.open_data(ours, trains, index, offset)
        # The twin's function over the other layer's opener is the other implementation.
        assert bulk_reference.open_data(other, trains, index, offset) == answer
        rest = rest_of(trains, answer[4], answer[5]) if answer[4] < len(trains) else []
        assert b"".join(datagrams).endswith(b"".join(bytes(one) for one in rest))
        messages, dropped, record, highest, index, offset = answer
        assert highest <= ours.highest
        found += messages
        others += [record] if record is not None else []
        for number, count in dropped:
            drops[number] = drops.get(number, 0) + count
    assert found == [entry[2] for entry in entries if entry[0] == 23]
    assert others == [entry for entry in entries if entry[0] not in (23,) and entry[0] >= 0]
    assert sum(drops.values()) == sum(entry[0] < 0 for entry in entries)
    for number, count in drops.items():
        assert count == sum(entry[0] == -number for entry in entries)
    for name in ("highest", "opened", "forged"):
        assert getattr(ours, name) == getattr(plain, name) == getattr(other, name)


@each_layer
def test_a_train_of_another_epoch_is_not_touched(layer: Layer) -> None:
    train = couple(layer.sealer(PROVIDER, SPEC, datagram_keys(SPEC), 4).seal_run(23, [b"a", b"b"]))
    assert protect.open_data(opener(layer), train, 0, 0) == ([], [], None, -1, 0, 0)


@each_layer
def test_an_empty_datagram_is_counted_and_what_follows_goes_on(layer: Layer) -> None:
    seal = sealer(layer)
    answer = protect.open_data(opener(layer), [seal.seal(23, b"a"), b"", seal.seal(23, b"b")], 0, 0)
    assert answer[0] == [b"a", b"b"]
    assert answer[1] == [(DISCARDS.index(Discard.EMPTY), 1)]


@each_layer
@each_suite
@pytest.mark.parametrize("forged", [False, True])
def test_messages_are_whole_bytes_objects(layer: Layer, spec: Any, forged: bool) -> None:
    """Opened in place, they end like all bytes objects, and the empty one stays what it was."""
    messages = [b"", b"7", b"12", b"x" * 1200, b"0.5"] * 20
    sealing, opening = sealer(layer, spec), opener(layer, spec)
    runs = [protect.seal_trains(sealing, 23, messages, block, 1300) for block in (0, 256) for _ in range(3)]
    if forged:
        assert protect.open_data(opening, [sealer(layer, spec).seal(23, b"")[:-1] + b"?"], 0, 0)[0] == []
    for run in runs:
        opened = protect.open_data(opening, run, 0, 0)[0]
        assert opened == messages
        for message in opened:
            # As C sees it: its bytes and a zero.
            assert (
                ctypes.string_at(id(message) + bytes.__basicsize__ - 1, len(message) + 1) == message + b"\0"
            )
        assert (int(opened[2]), float(opened[4])) == (12, 0.5)


@given(st.lists(st.binary(max_size=300)))
def test_messages_are_weighed_alike(messages: list[bytes]) -> None:
    odd: list[Any] = [
        (bytes, bytearray, memoryview, lambda one: memoryview(one)[::-1][::-1])[n % 4](one)
        for n, one in enumerate(messages)
    ]
    expected = (messages, sum(map(len, messages)), max(map(len, messages), default=0))
    assert protect.weigh(odd) == bulk_reference.weigh(odd) == expected
    for wrong in ([5], ["text"], [None]):
        for weigh in (protect.weigh, bulk_reference.weigh):
            with pytest.raises(TypeError):
                weigh(wrong)  # type: ignore[arg-type]


def test_positions_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="from 0 on"):
        protect.open_data(opener(COMPILED_LAYER), [], -1, 0)


def test_trains_know_themselves() -> None:
    train = Train(b"ab" * 3 + b"a", 2)
    assert train.count == 4
    assert train.split() == [b"ab", b"ab", b"ab", b"a"]
    assert train.split(3) == [b"b", b"ab", b"a"]
    assert train.split(2) == [b"ab", b"ab", b"a"]
    assert train.starts_alike(1)
    assert not train.starts_alike(2)  # the last has one byte only
    assert not Train(b"abac", 2).starts_alike(2)
    assert Train(b"abab", 2).starts_alike(2)
    assert rest_of([b"xyz", train], 0, 1) == [b"yz", b"ab", b"ab", b"ab", b"a"]
    assert rest_of([train, b"z"], 0, 6) == [b"a", b"z"]
