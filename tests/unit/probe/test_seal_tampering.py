"""Every kind of tampering is found, by `verify` and by the independent docs/verify.py.

What an outsider can do works on the bytes of a sealed spool; what only someone with the key can do
(or a probe that is wrong about itself) seals lies.  `pytest -s` prints the table.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sealwire.probe.events import Event, Gap, GapReason, Heartbeat, Key, Start, Stop
from sealwire.probe.features import row_struct
from sealwire.probe.seal import cbor, engine
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.intake import Flows, Transactions
from sealwire.probe.seal.leaves import DISSECTED, FLOW, TRANSACTION
from sealwire.probe.seal.segment import Header, Segment, seal
from sealwire.probe.seal.tree import frame, split
from sealwire.probe.verify import Trust
from tests.unit.probe import sealing as s

ROOT = Path(__file__).resolve().parents[3]


def independent() -> ModuleType:
    spec = importlib.util.spec_from_file_location("independent_verify", ROOT / "docs" / "verify.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


INDEPENDENT = independent()


def honest() -> list[Segment]:
    """Two boots of one probe: flows, transactions, a declared loss, a clock set and said so, two stops."""
    disk = s.MemoryDisk()
    probe = s.recorder(disk)
    for minute in range(1, 5):
        probe.counters = {"packets": 100 * minute, "queue_dropped": minute // 3}
        rows, facts = s.dissected(4, minute)
        probe.take(Flows(rows, row_struct().size, facts), s.moment(10 * minute))
        probe.take(Transactions(s.transactions(2, minute)), s.moment(10 * minute))
        probe.flush(s.moment(10 * minute))
    lost = Gap(s.moment(41).wall, GapReason.QUEUE_FULL, 1, 2, 17, None, None, None, None, None)
    probe.event(lost, s.moment(41))
    probe.flush(s.moment(41))
    probe.event(Heartbeat(s.moment(50).wall), s.moment(50, step=-7.0))
    probe.close(s.moment(51, step=-7.0))
    again = s.recorder(disk, 60, boot=2)
    again.take(Flows(s.rows(3, 77), row_struct().size), s.moment(61))
    again.flush(s.moment(61))
    again.take(Flows(s.rows(3, 78), row_struct().size), s.moment(62))
    again.close(s.moment(62))
    return s.segments(disk)


BASE = honest()
TWO = 2  # a segment of four flows, three of them with facts, and two transactions, in the middle
REST = list(range(3, len(BASE)))
FIRST_BOOT = [segment for segment in BASE if segment.header.boot == BASE[0].header.boot]
STOPPED = FIRST_BOOT[-1]


def sealed(before: Segment, leaves: list[bytes], number: int = 0, **changes: Any) -> Segment:
    """A segment that continues `before` with these leaves, really signed, with lies in its header."""
    header = before.header
    decoded = engine.decode(b"".join(map(frame, leaves)), leaf_sequence(leaves[0]))
    told = Header(
        algorithm=-8,
        key=s.key(number).id,
        probe=header.probe,
        boot=header.boot,
        segment=header.segment + 1,
        first_event=header.last_event + 1,
        last_event=header.last_event + len(leaves),
        previous=before.hash,
        times=decoded.times,
        sealed=replace(
            header.sealed, wall=header.sealed.wall + s.SECOND, uptime=header.sealed.uptime + s.SECOND
        ),
        heartbeat=header.heartbeat,
        counters=header.counters,
    )
    return seal(replace(told, **changes), b"".join(map(frame, leaves)), len(leaves), s.key(number))


def leaf_sequence(leaf: bytes) -> int:
    return int(cbor.decode(leaf)[1])


def open_end() -> list[Segment]:
    """The first boot without its stop: where lies are sealed behind."""
    return BASE[:4]


def following(*events: Event, **changes: Any) -> list[Segment]:
    """An open end, and behind it a sealed segment of these events."""
    chain = open_end()
    first = chain[-1].header.last_event + 1 if "first_event" not in changes else changes["first_event"]
    return [*chain, sealed(chain[-1], [event.leaf(first + i) for i, event in enumerate(events)], **changes)]


def beat() -> Event:
    return Heartbeat(s.moment(45).wall)


def stop() -> Event:
    return Stop(s.moment(45).wall)


def bytes_of(chain: list[Segment]) -> list[bytes]:
    return [segment.encode() for segment in chain]


def with_leaves(change: Callable[[list[bytes]], list[bytes]]) -> list[bytes]:
    """The base with other leaves in one segment, whose count is made to fit."""
    leaves = change(split(BASE[TWO].framed))
    other = replace(BASE[TWO], framed=b"".join(map(frame, leaves)), count=len(leaves))
    return bytes_of([*BASE[:TWO], other, *BASE[TWO + 1 :]])


def with_segment(change: Callable[[Segment], Segment]) -> list[bytes]:
    return bytes_of([*BASE[:TWO], change(BASE[TWO]), *BASE[TWO + 1 :]])


def flipped(data: bytes, at: int, bit: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def with_header(**changes: Any) -> list[bytes]:
    """The base with one header rewritten, and the signature left as it was."""
    return with_segment(lambda old: replace(old, protected=replace(old.header, **changes).encode()))


def moved(order: list[int]) -> list[bytes]:
    return bytes_of([BASE[i] for i in order])


def other_run() -> list[Segment]:
    """The same key, the same numbers, other events."""
    disk = s.MemoryDisk()
    probe = s.recorder(disk)
    for minute in range(1, 5):
        probe.take(Flows(s.rows(4, 100 + minute), row_struct().size), s.moment(10 * minute))
        probe.flush(s.moment(10 * minute))
    return s.segments(disk)


def other_probe() -> list[Segment]:
    disk = s.MemoryDisk()
    probe = s.recorder(disk, number=1)
    for minute in range(1, 5):
        probe.take(Flows(s.rows(4, 200 + minute), row_struct().size), s.moment(10 * minute))
        probe.flush(s.moment(10 * minute))
    return s.segments(disk)


def rotated() -> list[Segment]:
    """A chain whose key was changed by the book."""
    chain = following(Key(s.moment(45).wall, s.key(2).public.spki))
    last = chain[-1]
    return [*chain, sealed(last, [stop().leaf(last.header.last_event + 1)], number=2)]


def old_key_goes_on() -> list[Segment]:
    chain = following(Key(s.moment(45).wall, s.key(2).public.spki))
    return [*chain, sealed(chain[-1], [stop().leaf(chain[-1].header.last_event + 1)])]


def gap_of(**changes: Any) -> Gap:
    fields: dict[str, Any] = dict.fromkeys(
        ("since", "until", "events", "first_event", "last_event", "first_segment", "last_segment", "hash")
    )
    return Gap(s.moment(45).wall, GapReason.SPOOL_FULL, **{**fields, **changes})


def dropped_with(gap: Gap) -> list[Segment]:
    """The base from segment 2 on, with a gap sealed behind it."""
    chain = BASE[TWO:4]
    first = chain[-1].header.last_event + 1
    return [*chain, sealed(chain[-1], [gap.leaf(first), stop().leaf(first + 1)])]


def good_drop() -> Gap:
    before = BASE[TWO - 1]
    return gap_of(
        first_event=0,
        last_event=before.header.last_event,
        first_segment=0,
        last_segment=before.header.segment,
        hash=before.hash,
    )


def twice(leaves: list[bytes]) -> list[bytes]:
    return [leaves[0], leaves[1], leaves[1], *leaves[3:]]


def resealed(index: int, change: Callable[[list[Any]], list[Any]], **changes: Any) -> list[Segment]:
    """An event of the base in another form, under a true root and signature."""
    chain = open_end()
    last = chain[-1]
    event = cbor.decode(split(BASE[TWO].framed)[index])
    event[1] = last.header.last_event + 1
    header = sealed(last, [beat().leaf(event[1])]).header
    leaf = frame(cbor.encode(change(event)))
    changes = {"times": (event[2], event[2]), **changes}
    return [*chain, seal(replace(header, **changes), leaf, 1, s.key())]


def with_facts(change: Callable[[list[list[Any]]], None]) -> list[bytes]:
    """The base with other facts of the flows and transactions of one segment."""

    def changed(leaves: list[bytes]) -> list[bytes]:
        events = [cbor.decode(leaf) for leaf in leaves]
        change([event[-1] for event in events if event[0] in (DISSECTED, TRANSACTION)])
        return [cbor.encode(event) for event in events]

    return with_leaves(changed)


def exchanged(facts: list[list[Any]]) -> None:
    facts[0][:], facts[1][:] = [*facts[1]], [*facts[0]]


def taken(facts: list[list[Any]]) -> None:
    del max(facts, key=len)[3:5]


def forgotten(leaf: bytes) -> bytes:
    """A dissected flow as one of which nothing is known."""
    event = cbor.decode(leaf)
    assert event[0] == DISSECTED
    return cbor.encode([FLOW, *event[1:-1]])


def same_sequence(chain: list[Segment]) -> list[Segment]:
    last = chain[-1].header
    leaves = [beat().leaf(last.last_event + 1)] * 2
    header = sealed(chain[-1], [beat().leaf(last.last_event + 1 + i) for i in range(2)]).header
    return [*chain, seal(header, b"".join(map(frame, leaves)), 2, s.key())]


@dataclass(frozen=True, slots=True)
class Kind:
    words: str
    spool: Callable[[], list[bytes]]
    trust: Trust | None = None
    #: Arguments of the independent verifier that correspond to the trust.
    more: dict[str, Any] | None = None
    now: float = 62.0


HEAD = BASE[-1].hash
NEXT = open_end()[-1].header.last_event + 1

KINDS = [
    Kind("a bit of an event flipped", lambda: with_leaves(lambda ls: [ls[0], flipped(ls[1], 40), *ls[2:]])),
    Kind("an event's text altered", lambda: with_leaves(lambda ls: [flipped(ls[0], 20, 32), *ls[1:]])),
    Kind(
        "a bit of the signature flipped",
        lambda: with_segment(lambda o: replace(o, signature=flipped(o.signature, 9))),
    ),
    Kind("a bit of the root flipped", lambda: with_segment(lambda o: replace(o, root=flipped(o.root, 3)))),
    Kind("a counter made smaller", lambda: with_header(counters={"packets": 100, "queue_dropped": 0})),
    Kind("the segment's number altered", lambda: with_header(segment=9)),
    Kind("the time of sealing altered", lambda: with_header(sealed=s.moment(21))),
    Kind("the boot id altered", lambda: with_header(boot=bytes(16))),
    Kind("the key id altered", lambda: with_header(key=s.key(1).id), s.trust(0, 1), {"keys": (0, 1)}),
    Kind("the algorithm altered", lambda: with_header(algorithm=-7)),
    Kind("the hash of the segment before altered", lambda: with_header(previous=bytes(32))),
    Kind(
        "a signature moved to another segment",
        lambda: with_segment(lambda o: replace(o, signature=BASE[1].signature)),
    ),
    Kind(
        "something put into the unprotected header",
        lambda: [
            data.replace(b"\xa0\x58\x20", b"\xa1\x01\x02\x58\x20", 1) if i == TWO else data
            for i, data in enumerate(bytes_of(BASE))
        ],
    ),
    Kind("the first event of a segment removed", lambda: with_leaves(lambda ls: ls[1:])),
    Kind("the last event of a segment removed", lambda: with_leaves(lambda ls: ls[:-1])),
    Kind("an event in the middle removed", lambda: with_leaves(lambda ls: [*ls[:1], *ls[2:]])),
    Kind("an event repeated in place of another", lambda: with_leaves(twice)),
    Kind("an event repeated beside itself", lambda: with_leaves(lambda ls: [*ls, ls[-1]])),
    Kind("two events exchanged", lambda: with_leaves(lambda ls: [ls[1], ls[0], *ls[2:]])),
    Kind("an event invented", lambda: with_leaves(lambda ls: [*ls, beat().leaf(NEXT)])),
    Kind(
        "an event replaced by one of another segment",
        lambda: with_leaves(lambda ls: [split(BASE[1].framed)[0], *ls[1:]]),
    ),
    Kind(
        "an event encoded in another way",
        lambda: with_leaves(lambda ls: [ls[0][:1] + b"\x18\x01" + ls[0][2:], *ls[1:]]),
    ),
    Kind("a segment removed", lambda: moved([0, 1, *REST])),
    Kind("the first segment removed", lambda: moved([1, 2, *REST])),
    Kind("the last segment removed", lambda: moved([0, 1, 2, *REST[:-1]]), now=1000),
    Kind(
        "a whole boot removed from the end",
        lambda: bytes_of(FIRST_BOOT),
        s.trust(head=HEAD),
        {"head": HEAD.hex()},
    ),
    Kind("a segment repeated beside itself", lambda: moved([0, 1, 2, 2, *REST])),
    Kind("a segment replayed later", lambda: moved([0, 1, 2, 3, 4, 5, 1, *REST[3:]])),
    Kind("two segments exchanged", lambda: moved([0, 1, 3, 2, *REST[1:]])),
    Kind("the boots exchanged", lambda: bytes_of(BASE[len(FIRST_BOOT) :] + FIRST_BOOT)),
    Kind(
        "a segment of another run under the same key put in place",
        lambda: bytes_of([*BASE[:2], other_run()[2], *BASE[3:]]),
    ),
    Kind("the end of another run put in place", lambda: bytes_of([*BASE[:2], *other_run()[2:]])),
    Kind(
        "another trusted probe's segment put in place",
        lambda: bytes_of([*BASE[:2], other_probe()[2], *BASE[3:]]),
        s.trust(0, 1),
        {"keys": (0, 1)},
    ),
    Kind(
        "a segment invented under an unknown key",
        lambda: bytes_of([*open_end(), sealed(BASE[3], [beat().leaf(NEXT)], 1)]),
    ),
    Kind(
        "a segment under another trusted key, without the old one's word",
        lambda: bytes_of([*open_end(), sealed(BASE[3], [stop().leaf(NEXT)], 2)]),
        s.trust(0, 2),
        {"keys": (0, 2)},
    ),
    Kind("a segment under the old key behind a change of keys", lambda: bytes_of(old_key_goes_on())),
    Kind(
        "a revoked key's segment",
        lambda: bytes_of(BASE),
        s.trust(revoked={s.key().id: s.BEGIN}),
        {"revoked": [s.key().id.hex()]},
    ),
    Kind("the file cut inside a segment", lambda: [*bytes_of(BASE[:-1]), bytes_of(BASE)[-1][:100]]),
    Kind("rubbish behind the end", lambda: [*bytes_of(BASE), b"\0\0\0\0"]),
    Kind(
        "sealed: events left out without a gap",
        lambda: bytes_of(following(beat(), stop(), first_event=NEXT + 5, last_event=NEXT + 6)),
    ),
    Kind("sealed: a segment number left out without a gap", lambda: bytes_of(following(stop(), segment=7))),
    Kind(
        "sealed: a gap that does not cover what is missing",
        lambda: bytes_of(
            following(
                gap_of(first_segment=4, last_segment=4, first_event=NEXT, last_event=NEXT + 1),
                stop(),
                segment=6,
                first_event=NEXT + 9,
                last_event=NEXT + 10,
            )
        ),
    ),
    Kind(
        "sealed: a gap whose hash links to something else",
        lambda: bytes_of(dropped_with(replace(good_drop(), hash=bytes(32)))),
    ),
    Kind(
        "sealed: a restart that hides how the last boot ended",
        lambda: bytes_of(following(Start(1, "x", b"k"), stop(), boot=b"b" * 16)),
    ),
    Kind(
        "sealed: another boot without a start",
        lambda: bytes_of(
            [*FIRST_BOOT, sealed(STOPPED, [stop().leaf(STOPPED.header.last_event + 1)], boot=b"b" * 16)]
        ),
    ),
    Kind(
        "sealed: events behind a stop",
        lambda: bytes_of([*FIRST_BOOT, sealed(STOPPED, [beat().leaf(STOPPED.header.last_event + 1)])]),
    ),
    Kind(
        "sealed: a clock set back in silence",
        lambda: bytes_of(following(stop(), sealed=s.moment(50, step=-3600))),
    ),
    Kind("sealed: uptime going back", lambda: bytes_of(following(stop(), sealed=s.moment(3)))),
    Kind("sealed: counters going back", lambda: bytes_of(following(stop(), counters={"packets": 1}))),
    Kind("sealed: times that are not the events'", lambda: bytes_of(following(stop(), times=(1, 2)))),
    Kind("what a flow is altered: its protocol", lambda: with_facts(lambda fs: fs[0].__setitem__(0, 5))),
    Kind("what a flow is altered: how sure that is", lambda: with_facts(lambda fs: fs[0].__setitem__(1, 9))),
    Kind("a fact put to a flow", lambda: with_facts(lambda fs: fs[0].extend([2, b"www.example.com"]))),
    Kind(
        "a fact taken from a flow", lambda: with_facts(lambda fs: max(fs, key=len).__delitem__(slice(3, 5)))
    ),
    Kind("what two flows are exchanged", lambda: with_facts(exchanged)),
    Kind("what a flow is forgotten", lambda: with_leaves(lambda ls: [forgotten(ls[0]), *ls[1:]])),
    Kind("a transaction removed", lambda: with_leaves(lambda ls: ls[:4] + ls[5:])),
    Kind(
        "a transaction repeated in place of another", lambda: with_leaves(lambda ls: [*ls[:4], ls[4], ls[4]])
    ),
    Kind("a transaction's facts altered", lambda: with_facts(lambda fs: fs[-1].__setitem__(2, 7))),
    Kind("sealed: a flow that is not its schema's", lambda: bytes_of(resealed(2, lambda e: e[:-1]))),
    Kind("sealed: a dissected flow without facts", lambda: bytes_of(resealed(0, lambda e: e[:-1]))),
    Kind("sealed: a transaction without facts", lambda: bytes_of(resealed(4, lambda e: e[:-1]))),
    Kind("sealed: a transaction outside the times", lambda: bytes_of(resealed(4, list, times=None))),
    Kind("sealed: two events of one sequence", lambda: bytes_of(same_sequence(open_end()))),
]


def ours(kind: Kind) -> str:
    """What `sealwire verify` says first; empty if it finds nothing wrong."""
    from sealwire.probe.verify import Verifier

    verifier = Verifier(kind.trust or s.trust(), s.moment(kind.now).wall)
    for data in kind.spool():
        try:
            verifier.segment("spool", Segment.decode(data))
        except Malformed as wrong:
            verifier.malformed("spool", str(wrong))
    broken = [finding for finding in verifier.finish() if finding.fault is not None]
    return str(broken[0]) if broken else ""


def theirs(kind: Kind) -> str:
    more = dict(kind.more or {})
    keys = [s.key(n).public.spki for n in more.pop("keys", (0,))]
    try:
        INDEPENDENT.verify(b"".join(kind.spool()), keys, s.moment(kind.now).wall, **more)
    except INDEPENDENT.Broken as wrong:
        return str(wrong)
    return ""


def test_the_spool_as_it_was_sealed_is_good() -> None:
    for chain in (BASE, rotated(), dropped_with(good_drop())):
        kind = Kind("", lambda chain=chain: bytes_of(chain))  # type: ignore[misc]
        assert ours(kind) == ""
        assert theirs(kind) == ""
    good = Kind("", lambda: bytes_of(BASE), s.trust(head=HEAD), {"head": HEAD.hex()}, now=9999)
    assert (ours(good), theirs(good)) == ("", "")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.words)
def test_tampering_is_found_by_both(kind: Kind) -> None:
    if not kind.words.startswith("sealed") and kind.trust is None:
        assert kind.spool() != bytes_of(BASE)
    found, independently = ours(kind), theirs(kind)
    print(f"{kind.words:68} | {found[:90]:90} | {independently[:90]}")
    assert found, "sealwire verify finds nothing wrong"
    assert independently, "docs/verify.py finds nothing wrong"


def test_there_are_enough_kinds() -> None:
    assert len({kind.words for kind in KINDS}) == len(KINDS) >= 25


def test_a_revoked_key_is_believed_for_what_was_received_before() -> None:
    """The time in a header is the signer's word; only when a segment was received counts."""
    revoked = {s.key().id: s.BEGIN + s.MINUTE}
    received = {segment.hash: s.BEGIN + s.SECOND for segment in BASE}
    assert s.faults(BASE, 62, s.trust(revoked=revoked, received=received)) == []
    del received[BASE[-1].hash]
    found = s.faults(BASE, 62, s.trust(revoked=revoked, received=received))
    assert [fault.name for fault in found] == ["REVOKED_KEY", "OPEN_END"] or found[0].name == "REVOKED_KEY"


def test_every_flipped_bit_of_a_spool_is_found() -> None:
    """One bit of every byte of what is stored, whatever it means."""
    whole = b"".join(bytes_of(BASE[:3]))
    ends = [len(data) for data in bytes_of(BASE[:3])]
    for at in range(len(whole)):
        damaged = flipped(whole, at, 1 << at % 8)
        pieces, begin = [], 0
        for n in ends:
            pieces.append(damaged[begin : begin + n])
            begin += n
        kind = Kind("", lambda pieces=pieces: pieces)  # type: ignore[misc]
        assert ours(kind), at
        assert theirs(kind), at
