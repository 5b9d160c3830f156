"""Sealed events as a stranger left them: leaves, segments, proofs, receipts, files."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, Final

from sealwire.probe.events import decode, leaves_json
from sealwire.probe.features import row_struct
from sealwire.probe.seal import cbor, engine, frames, leaves, tree
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.intake import Flows, Transactions
from sealwire.probe.seal.leaves import BadLeaf, Decoded
from sealwire.probe.seal.receipts import acknowledge, receipts
from sealwire.probe.seal.segment import Header, Proof, Segment, prove
from sealwire.probe.verify import Trust, Verifier, verify_proof
from tests.fuzzing.targets.promise import Script, Target
from tests.unit.probe import sealing as s

_MOST: Final = 1 << 40


def _outcome(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except BadLeaf as wrong:
        return wrong.index
    except ValueError:
        return "malformed"


def _printed(found: Decoded) -> None:
    for event in leaves_json(found, 0):
        json.dumps(event)


def _read_leaves(framed: bytes, sequence: int) -> None:
    """Both twins read the same, and what they accept can be printed and is written the same way again."""
    found = _outcome(lambda: engine.decode(framed, sequence))
    assert found == _outcome(lambda: leaves.decode(framed, sequence)), "the twins differ"
    hashes = _outcome(lambda: engine.leaf_hashes(framed))
    assert hashes == _outcome(lambda: tree.leaf_hashes(framed)), "the twins differ"
    if not isinstance(found, Decoded):
        return
    for _, leaf in found.others:
        try:
            decode(leaf)
        except ValueError:
            return
    _printed(found)
    list(found.batch().records())
    if not found.others and found.kinds == bytes(sorted(found.kinds, key=leaves.TRANSACTION.__eq__)):
        stride = row_struct(found.first_packets).size
        flows = engine.encode(found.rows, stride, 0, found.facts, 0, sequence, _MOST, _MOST)
        told = engine.encode_transactions(found.transactions, 0, sequence + flows.leaves, _MOST, _MOST)
        assert flows.framed + told.framed == framed, "it was not the one way to write it"


def _leaves(data: bytes) -> None:
    script = Script(data)
    firsts, seed = script.byte(4), script.word()
    rows, facts = s.dissected(1 + script.byte(3), seed, firsts)
    framed = engine.encode(rows, row_struct(firsts).size, 0, facts, 0, 5, _MOST, _MOST).framed
    count = len(rows) // row_struct(firsts).size
    framed += engine.encode_transactions(
        s.transactions(script.byte(3), seed), 0, 5 + count, _MOST, _MOST
    ).framed
    for _ in range(script.byte(5)):
        framed = script.damaged(framed)
    _read_leaves(framed, 5)


def _any_leaf(data: bytes) -> None:
    for framed in (
        data,
        tree.frame(data),
        tree.frame(b"\x96\x08\0" + data),
        tree.frame(b"\x8e\x09\0" + data),
    ):
        _read_leaves(framed, 0)


def _rows(data: bytes) -> None:
    """Rows, facts and events that the table never made: refused by both, or written alike."""
    script = Script(data)
    rows, facts = s.dissected(2, script.word(), 1)
    told = s.transactions(2, script.word())
    for _ in range(script.byte(4)):
        rows, facts, told = script.damaged(rows), script.damaged(facts), script.damaged(told)
    stride = row_struct(1).size
    first, cuts = script.byte(3), (1 + script.byte(3), script.word())
    for name, given in (
        ("encode", (rows, stride, first, facts, 0, 5, *cuts)),
        ("encode_transactions", (told, 0, 5, *cuts)),
    ):
        found = [_outcome(functools.partial(getattr(twin, name), *given)) for twin in (engine, leaves)]
        assert found[0] == found[1], "the twins differ"


@functools.cache
def _spool() -> tuple[Segment, ...]:
    disk = s.MemoryDisk()
    probe = s.recorder(disk)
    rows, facts = s.dissected(3, 1)
    probe.take(Transactions(s.transactions(2, 1)), s.moment(1))
    probe.take(Flows(rows, row_struct().size, facts), s.moment(1))
    probe.flush(s.moment(1))
    probe.close(s.moment(2))
    return tuple(s.segments(disk))


def _segment(data: bytes) -> None:
    """Whatever becomes of a spool's segments, only the whole is good."""
    script, given = Script(data), [segment.encode() for segment in _spool()]
    whole = list(given)
    for _ in range(1 + script.byte(4)):
        at = script.byte(len(given)) if given else 0
        match script.byte(5):
            case 0 if len(given) > 1:
                del given[at]
            case 1:
                given.insert(at, given[script.byte(len(given))])
            case _:
                given[at] = script.damaged(given[at])
    # Long behind the stop: a spool that has none is cut short.
    verifier = Verifier(s.trust(), s.moment(9999).wall, lambda _, decoded: _printed(decoded))
    for one in given:
        try:
            segment = Segment.decode(one)
        except Malformed as wrong:
            verifier.malformed("fuzz", str(wrong))
        else:
            assert segment.encode() == one
            verifier.segment("fuzz", segment)
    verifier.finish()
    assert bool(verifier.totals.faults) == (given != whole), "what was changed is good, or the whole is bad"


def _proof(data: bytes) -> None:
    script = Script(data)
    segment = _spool()[script.byte(len(_spool()))]
    whole = proof = prove(segment, script.byte(segment.header.events))
    for _ in range(script.byte(4)):
        proof = script.damaged(proof)
    try:
        verify_proof(proof, s.trust(), s.moment(2).wall)
    except Malformed:
        assert proof != whole
    else:
        assert proof == whole


def _receipt(data: bytes) -> None:
    script = Script(data)
    named = [(n, bytes([n]) * 32) for n in range(1 + script.byte(3))]
    whole = receipt = acknowledge(bytes(32), named, 7, s.key(3))
    for _ in range(script.byte(4)):
        receipt = script.damaged(receipt)
    try:
        believed = [one for one in receipts(receipt) if one.authentic(s.key(3).public)]
    except Malformed:
        assert receipt != whole
    else:
        assert (not believed) == (receipt != whole) or receipt == whole * 2 or receipt.startswith(whole)


def _file(data: bytes) -> None:
    script = Script(data)
    file = b"".join(map(frames.pack, _spool()))
    for _ in range(script.byte(4)):
        file = script.damaged(file)
    trust: Trust = s.trust()
    verifier = Verifier(trust, s.moment(2).wall)
    try:
        for found in frames.unpack(file):
            verifier.segment("fuzz", found.segment)
    except Malformed:
        pass
    verifier.finish()


def _anything(data: bytes) -> None:
    readers: tuple[Callable[[bytes], object], ...] = (
        *(Segment.decode, Proof.decode, Header.decode, cbor.decode, decode),
        *(lambda given: list(receipts(given)), lambda given: list(frames.unpack(frames.MAGIC + given))),
    )
    for begin in (b"", b"\x82", b"\x82\xd2\x84", b"\xd2\x84\x40\xa0"):
        for read in readers:
            try:
                read(begin + data)
            except ValueError:
                pass


SEALED: Final[tuple[Target, ...]] = (
    *(_leaves, _any_leaf, _rows, _segment, _proof, _receipt, _file, _anything),
)
