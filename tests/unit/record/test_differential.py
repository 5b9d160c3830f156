"""The compiled record layer against its twin: the same answers to the same bytes, whatever they are.

A script is drawn: records sealed in every form, then cut, flipped, joined and mixed with noise.
Both openers get the same datagrams from the same place; entries, resume points, counters and the
state of the window must agree after every run.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sealwire.crypto.suites import SuiteSpec
from sealwire.errors import ProtocolError
from sealwire.record.header import Buffer
from sealwire.record.reference import Opener as OpenerInterface
from tests.record_layers import (
    COMPILED_LAYER,
    PROVIDER,
    REFERENCE,
    SPECS,
    datagram_keys,
    needs_compiled,
    stream_keys,
)

pytestmark = needs_compiled

EPOCH = 3
CIDS = [b"", b"\x01", b"connection id"]
# Where a window of 64 ends, and where two completions of an 8- or 16-bit number are equally close.
EDGES = [0, 1, 2, 63, 64, 65, 127, 128, 129, 130, 191, 192, 193, 32766, 32767, 32768, 32769, 65535, 65536]


@dataclass(frozen=True, slots=True)
class Plan:
    """One record to seal."""

    content_type: int
    content: bytes
    padding: int
    sequence: int
    short_sequence: bool
    with_length: bool
    epoch: int
    cid: bytes


# Close together, so that a receiver can follow most of them, and now and then anywhere.
NUMBERS = st.one_of(
    *[st.sampled_from(EDGES[:13])] * 3,
    *[st.integers(0, 300)] * 3,
    st.sampled_from(EDGES),
    st.integers(0, (1 << 48) - 1),
)


def plans(cid: bytes) -> st.SearchStrategy[Plan]:
    return st.builds(
        Plan,
        content_type=st.sampled_from([23, 23, 23, 23, 22, 21, 26, 1, 255]),
        content=st.one_of(st.binary(max_size=40), st.integers(0, 2000).map(bytes)),
        padding=st.sampled_from([0, 0, 0, 1, 17, 300]),
        sequence=NUMBERS,
        short_sequence=st.booleans(),
        with_length=st.sampled_from([True, True, True, False]),
        epoch=st.sampled_from([EPOCH] * 8 + [EPOCH + 4, EPOCH + 1]),
        cid=st.sampled_from([cid] * 8 + [b"", b"\x02"]),
    )


def seal(spec: SuiteSpec, plan: Plan) -> bytes:
    """The record, made by both layers and found equal."""
    records = {
        layer.sealer(PROVIDER, spec, datagram_keys(spec), plan.epoch, plan.cid, sequence=plan.sequence).seal(
            plan.content_type,
            plan.content,
            plan.padding,
            short_sequence=plan.short_sequence,
            with_length=plan.with_length,
        )
        for layer in (REFERENCE, COMPILED_LAYER)
    }
    assert len(records) == 1
    return records.pop()


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """`data`, now and then damaged."""
    changed = bytearray(data)
    for kind in draw(st.lists(st.sampled_from(["flip", "cut", "grow", "head", "set"]), max_size=2)):
        if kind == "grow":
            changed += draw(st.binary(max_size=40))
        elif changed and kind == "cut":
            del changed[draw(st.integers(0, len(changed) - 1)) :]
        elif changed and kind == "head":
            changed[0] = draw(st.integers(0x20, 0x3F))
        elif changed:
            # Headers are where the decisions are, so that is where most of the damage is done.
            at = draw(st.one_of(st.integers(0, min(24, len(changed) - 1)), st.integers(0, len(changed) - 1)))
            changed[at] = (
                draw(st.integers(0, 255)) if kind == "set" else changed[at] ^ 1 << draw(st.integers(0, 7))
            )
    return bytes(changed)


@st.composite
def scripts(draw: st.DrawFn) -> tuple[SuiteSpec, bytes, int, list[Buffer]]:
    """Suite, connection id, window, datagrams."""
    spec = draw(st.sampled_from(SPECS))
    cid = draw(st.sampled_from(CIDS))
    pool = [seal(spec, plan) for plan in draw(st.lists(plans(cid), min_size=4, max_size=12))]
    datagrams: list[Buffer] = []
    for chosen in draw(st.lists(st.lists(st.sampled_from(pool), max_size=5), min_size=3, max_size=12)):
        # Half of them whole, because a window moves only for what authenticates.
        data = b"".join(chosen) if draw(st.booleans()) else draw(mutated(b"".join(chosen)))
        datagrams.append(draw(st.sampled_from([bytes, bytearray, memoryview]))(data))
    if draw(st.booleans()):
        datagrams.append(draw(st.binary(max_size=80)))
    if draw(st.booleans()):
        datagrams.append(b"".join(pool * 6))
    return spec, cid, draw(st.sampled_from([64, 64, 128, 256])), datagrams


def state(opener: OpenerInterface) -> tuple[int, int, int]:
    return opener.highest, opener.opened, opener.forged


@pytest.mark.requirement("9147-4.5.2-1")
@given(script=scripts(), data=st.data())
def test_both_open_alike(script: tuple[SuiteSpec, bytes, int, list[Buffer]], data: st.DataObject) -> None:
    spec, cid, window, datagrams = script
    keys = datagram_keys(spec)
    one, other = (
        layer.opener(PROVIDER, spec, keys, EPOCH, cid, window) for layer in (REFERENCE, COMPILED_LAYER)
    )
    index, offset = 0, data.draw(st.sampled_from([0, 0, 0, 1, 30]))
    while index < len(datagrams):
        expected = one.open_run(datagrams, index, offset)
        assert other.open_run(datagrams, index, offset) == expected
        assert state(one) == state(other)
        entries, following, at = expected
        if (following, at) == (index, offset):
            # In front of something that is for others; the next datagram may be for this opener.
            assert entries == []
            following, at = index + 1, 0
        index, offset = following, at
    # The windows agree too: everything once more gives the same refusals.
    assert one.open_run(datagrams, 0, 0) == other.open_run(datagrams, 0, 0)


@pytest.mark.requirement("9147-4.2.2-1", "9147-4.5.1-3")
@given(
    window=st.sampled_from([64, 128, 192]),
    base=st.sampled_from([-1, 0, 65_500, (1 << 48) - 70_000]),
    # Few of them, often close together: one far ahead would leave the others behind the window.
    numbers=st.sampled_from([EDGES[:7], EDGES[:13], EDGES, range(400)]).flatmap(
        lambda pool: st.lists(st.tuples(st.sampled_from(pool), st.booleans()), min_size=8, max_size=60)
    ),
)
def test_both_follow_numbers_alike(window: int, base: int, numbers: list[tuple[int, bool]]) -> None:
    """Good records only, in any order: here the window and the completion of numbers do the work."""
    keys = datagram_keys(SPECS[0])
    one, other = (
        layer.opener(PROVIDER, SPECS[0], keys, EPOCH, b"", window, highest=base)
        for layer in (REFERENCE, COMPILED_LAYER)
    )
    for number, short in numbers:
        sealer = COMPILED_LAYER.sealer(PROVIDER, SPECS[0], keys, EPOCH, sequence=max(base, 0) + number)
        record = sealer.seal(23, b"", short_sequence=short)
        assert one.open_run([record], 0, 0) == other.open_run([record], 0, 0)
        assert state(one) == state(other)


@given(
    spec=st.sampled_from(SPECS),
    messages=st.lists(st.one_of(st.binary(max_size=100), st.integers(0, 16384).map(bytes)), max_size=100),
)
@example(spec=SPECS[0], messages=[b""] * 65)
def test_both_seal_runs_alike(spec: SuiteSpec, messages: list[bytes]) -> None:
    one, other = (
        layer.sealer(PROVIDER, spec, datagram_keys(spec), EPOCH, b"cid")
        for layer in (REFERENCE, COMPILED_LAYER)
    )
    records = one.seal_run(23, messages)
    assert other.seal_run(23, messages) == records
    assert (one.sequence, one.sealed) == (other.sequence, other.sealed) == (len(messages), len(messages))
    both = [
        layer.opener(PROVIDER, spec, datagram_keys(spec), EPOCH, b"cid").open_run(records, 0, 0)
        for layer in (REFERENCE, COMPILED_LAYER)
    ]
    assert both[0] == both[1] == ([(23, n, message) for n, message in enumerate(messages)], len(messages), 0)


@given(
    spec=st.sampled_from(SPECS),
    content=st.one_of(st.binary(max_size=50), st.integers(0, 40_000).map(bytes)),
    limit=st.integers(1, 16384),
    padding=st.integers(0, 300),
    data=st.data(),
)
def test_both_do_streams_alike(
    spec: SuiteSpec, content: bytes, limit: int, padding: int, data: st.DataObject
) -> None:
    layers = (REFERENCE, COMPILED_LAYER)
    keys = stream_keys(spec)
    sealers = [layer.stream_sealer(PROVIDER, spec, keys, EPOCH) for layer in layers]
    limit = max(limit, len(content) // 100 + 1)
    runs = {sealer.seal_run(23, content, limit) for sealer in sealers}
    singles = {sealer.seal(22, content[:16000], padding) for sealer in sealers}
    assert len(runs) == len(singles) == 1
    assert sealers[0].sequence == sealers[1].sequence
    wire = runs.pop() + singles.pop()
    damage = data.draw(st.none() | st.integers(0, len(wire) - 1))
    if damage is not None:
        wire = wire[:damage] + bytes((wire[damage] ^ 1 << damage % 8,)) + wire[damage + 1 :]
    outcomes = []
    for layer in layers:
        opener = layer.stream_opener(PROVIDER, spec, keys, EPOCH)
        outcome: list[object] = []
        rest = wire
        while rest:
            n = 5 + int.from_bytes(rest[3:5], "big")
            try:
                outcome.append(opener.open(rest[:n]))
            except ProtocolError as error:
                outcome.append(str(error))
            outcome.append((opener.sequence, opener.opened))
            rest = rest[n:]
        outcomes.append(outcome)
    assert outcomes[0] == outcomes[1]
