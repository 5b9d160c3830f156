"""Rows of a store: what was sealed, once each, whatever killed compaction or retention, and provable."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sealwire.errors import ConfigurationError
from sealwire.probe.dissect import facts
from sealwire.probe.features import unpack
from sealwire.probe.seal import engine
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.leaves import DISSECTED, FLOW, TRANSACTION
from sealwire.probe.seal.segment import Segment
from sealwire.probe.store import Rejected, Rejection, Store, reading
from sealwire.probe.store.checkpoints import checkpoints
from sealwire.probe.store.compaction import Compaction, compact
from sealwire.probe.store.disk import Folders, locked
from sealwire.probe.store.manifest import Manifest
from sealwire.probe.store.proving import NotHere, prove_row
from sealwire.probe.store.retention import Policy, retain
from sealwire.probe.verify import Fault, Trust, Verifier, verify_proof
from tests.unit.probe import sealing as s
from tests.unit.probe.store import stores

pytest.importorskip("pyarrow")

PROBES = (0, 1)
COLLECTOR = s.key(9)


class Killed(BaseException):
    """What ends a step in the middle."""


def filled(place: Path, count: int = 6, file_bytes: int = 1500) -> dict[int, list[Segment]]:
    """A store of two probes, in several files each."""
    store = Store(place, stores.enrolled(), file_bytes=file_bytes)
    sealed = {number: stores.sealed(count, number=number) for number in PROBES}
    for at in range(len(sealed[0])):
        stores.take(store, [sealed[number][at] for number in PROBES], at)
    store.close()
    return sealed


def everything(place: Path, fresh: bool = True) -> dict[str, list[dict[str, Any]]]:
    """All rows as whoever asks sees them."""
    query = pytest.importorskip("sealwire.probe.store.query")
    pytest.importorskip("duckdb")
    with query.Questions(place, fresh=fresh) as questions:
        found = {}
        for table in ("flows", "transactions", "events", "segments"):
            answer = questions.ask(f"select * from {table}")
            found[table] = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows()]
        return found


def wanted(sealed: dict[int, list[Segment]], begin: dict[int, int] | None = None) -> dict[str, set[int]]:
    """The numbers of the rows of each table."""
    rows: dict[str, set[int]] = {"flows": set(), "transactions": set(), "events": set()}
    for place, segments in enumerate(sealed.values()):
        for segment in segments:
            if begin and segment.header.segment < begin[place]:
                continue
            first = segment.header.first_event
            for sequence, kind in enumerate(engine.decode(segment.framed, first).kinds, first):
                table = {FLOW: "flows", DISSECTED: "flows", TRANSACTION: "transactions"}.get(kind, "events")
                rows[table].add(reading.row_number(place, sequence))
    return rows


def check(place: Path, sealed: dict[int, list[Segment]], begin: dict[int, int] | None = None) -> None:
    """Each row once and no other, in tables and in proofs."""
    found, should = everything(place), wanted(sealed, begin)
    for table, numbers in should.items():
        rows = [row["row"] for row in found[table]]
        assert len(rows) == len(set(rows)), f"{table}: a row twice"
        assert set(rows) == numbers, table
    kept = sum(
        1
        for n, segments in sealed.items()
        for segment in segments
        if not begin or segment.header.segment >= begin[n]
    )
    assert len(found["segments"]) == kept


def test_rows_are_what_was_sealed(tmp_path: Path) -> None:
    sealed = filled(tmp_path / "st")
    check(tmp_path / "st", sealed)
    done = compact(Folders(tmp_path / "st"))
    assert done.files > 2
    check(tmp_path / "st", sealed)
    compact(Folders(tmp_path / "st"), last=True)
    assert everything(tmp_path / "st", fresh=False) == everything(tmp_path / "st")
    check(tmp_path / "st", sealed)
    found = {row["row"]: row for row in everything(tmp_path / "st")["flows"]}
    told = {row["row"]: row for row in everything(tmp_path / "st")["transactions"]}
    names = ("source", "destination", "source_port", "protocol", "forward_bytes", "backward_packets")
    for place, segments in enumerate(sealed.values()):
        for segment in segments:
            first = segment.header.first_event
            decoded = engine.decode(segment.framed, first)
            flows = unpack(decoded.rows, decoded.first_packets, decoded.facts)
            events = facts.events(decoded.transactions)
            for sequence, kind in enumerate(decoded.kinds, first):
                number = reading.row_number(place, sequence)
                if kind in (FLOW, DISSECTED):
                    flow = next(flows)
                    assert [found[number][name] for name in names] == [getattr(flow, name) for name in names]
                    assert found[number]["segment"] == segment.header.segment
                elif kind == TRANSACTION:
                    event = next(events)
                    assert told[number]["source_port"] == event.source_port
                    assert told[number]["application"] == event.facts.application


def test_every_row_is_provable(tmp_path: Path) -> None:
    sealed = filled(tmp_path / "st", 3)
    disk = Folders(tmp_path / "st")
    trust = s.trust(*PROBES)
    for last in (False, True):
        compact(disk, last=last)
        for table, numbers in wanted(sealed).items():
            for number in numbers:
                found = prove_row(disk, number)
                proof = verify_proof(found.proof, trust, s.moment(9).wall)
                assert (
                    reading.row_number(PROBES.index(_probe(proof.header.probe)), found.sequence) == number
                ), table
    for wrong in (10_000, 1 << 60, reading.row_number(5, 0)):
        with pytest.raises(NotHere):
            prove_row(disk, wrong)


def _probe(probe: bytes) -> int:
    return next(number for number in PROBES if s.key(number).id == probe)


def steps(run: Any) -> int:
    """How many steps something takes."""
    seen: list[str] = []
    run(seen.append)
    return len(seen)


def killed(run: Any, at: int) -> bool:
    """Run until step `at`; whether that was reached."""
    left = [at]

    def step(name: str) -> None:
        if left[0] == 0:
            raise Killed(name)
        left[0] -= 1

    try:
        run(step)
    except Killed:
        return True
    return False


@pytest.fixture
def fast_path(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is one: who is killed loses nothing that the kernel was given."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def test_killed_at_every_step_of_compaction(fast_path: Path) -> None:
    """Each step in turn: nothing is missing or twice meanwhile, and the next run has the same end."""
    sealed = filled(fast_path / "st", 4)
    clean = fast_path / "clean"
    shutil.copytree(fast_path / "st", clean)
    total = steps(lambda step: _compaction(clean, step).run())
    end = sorted(path.name for path in clean.rglob("*"))
    assert total > 25
    chance = random.Random(5)
    for at in range(total):
        place = fast_path / f"killed{at}"
        shutil.copytree(fast_path / "st", place)
        assert killed(lambda step, place=place: _compaction(place, step).run(), at)
        check(place, sealed)
        while killed(lambda step, place=place: _compaction(place, step).run(), chance.randrange(40)):
            pass
        check(place, sealed)
        assert sorted(path.name for path in place.rglob("*")) == end
        shutil.rmtree(place)


def _compaction(place: Path, step: Any) -> Compaction:
    return Compaction(Folders(place), step, last=True)


def test_small_units_are_joined(tmp_path: Path) -> None:
    sealed = filled(tmp_path / "st", 20, file_bytes=1)
    done = compact(Folders(tmp_path / "st"), last=True)
    assert done.joined >= 16
    disk = Folders(tmp_path / "st")
    units = Manifest.read(disk, s.key(0).id.hex()).units
    assert len(units) < 8 < len(Manifest.read(disk, s.key(0).id.hex()).files)
    assert [unit.first_segment for unit in units[1:]] == [unit.last_segment + 1 for unit in units[:-1]]
    check(tmp_path / "st", sealed)
    named = {name for unit in units for name in unit.tables.values()}
    assert {path.name for path in (tmp_path / "st" / s.key(0).id.hex()).glob("*.parquet")} == named


def test_stored_while_compacted(tmp_path: Path) -> None:
    """Compaction leaves the file that is written alone, and what comes again is known behind it."""
    place, sealed = tmp_path / "st", stores.sealed(8)
    store = Store(place, stores.enrolled(), file_bytes=900)
    for segment in sealed[:6]:
        stores.take(store, [segment])
        compact(Folders(place))
    assert not any(answer.new for answer in stores.take(store, sealed[:6]))
    store.close()
    compact(Folders(place), last=True)
    store = Store(place, stores.enrolled(), file_bytes=1 << 20)
    stores.take(store, sealed)
    store.close()
    check(place, {0: sealed})
    assert stores.stored(Folders(place), s.key(0).id) == sealed


def unjoined(place: Path, step: Any = lambda _: None) -> None:
    """Compact, and leave units as small as they are."""
    Compaction(Folders(place), step, last=True, file_bytes_joined=0).run()


def verified(place: Path, number: int, believed: bool = True) -> Verifier:
    """The verifier's word on what is left of a probe."""
    disk, probe = Folders(place), s.key(number).id
    verifier = Verifier(Trust({probe: s.key(number).public}), s.moment(100).wall)
    if believed:
        for checkpoint in checkpoints(disk.read(f"{probe.hex()}/checkpoints")):
            verifier.checkpoint("checkpoints", checkpoint, {COLLECTOR.id: COLLECTOR.public})
    for segment in stores.stored(disk, probe):
        verifier.segment("store", segment)
    verifier.finish()
    return verifier


def test_retention_by_age(tmp_path: Path) -> None:
    place, sealed = tmp_path / "st", filled(tmp_path / "st", 8)
    unjoined(place)
    removed = retain(Folders(place), Policy(age=4 * s.SECOND), s.moment(8.5).wall, COLLECTOR)
    assert removed.units > 1
    begin = {n: Manifest.read(Folders(place), s.key(n).id.hex()).removed + 1 for n in PROBES}
    assert all(begin.values())
    check(place, sealed, begin)
    for number in PROBES:
        judged = verified(place, number)
        assert judged.totals.faults == 0, judged.finish()
        assert judged.totals.removed_events == sealed[number][begin[number]].header.first_event
        assert verified(place, number, believed=False).totals.faults == 1
    with pytest.raises(NotHere, match="removed by retention"):
        prove_row(Folders(place), 0)
    store = Store(place, stores.enrolled())
    answer = store.append(*stores.framed(sealed[0][:1])[0], 1)
    assert isinstance(answer, Rejected)
    assert answer.reason is Rejection.REMOVED
    assert store.last(s.key(0).id) == (sealed[0][-1].header.segment, sealed[0][-1].hash)
    store.close()


def test_retention_by_size_takes_the_oldest_of_all(tmp_path: Path) -> None:
    place, sealed = tmp_path / "st", filled(tmp_path / "st", 8)
    unjoined(place)
    manifests = [Manifest.read(Folders(place), s.key(n).id.hex()) for n in PROBES]
    held = sum(unit.bytes for m in manifests for unit in m.units)
    held += sum(file.bytes for m in manifests for file in m.files)
    retain(Folders(place), Policy(most_bytes=held // 2), s.moment(9).wall, COLLECTOR)
    begin = {n: Manifest.read(Folders(place), s.key(n).id.hex()).removed + 1 for n in PROBES}
    assert abs(begin[0] - begin[1]) <= 3, begin
    check(place, sealed, begin)
    left = sum(path.stat().st_size for path in place.rglob("0*"))
    assert left <= held // 2
    retain(Folders(place), Policy(most_bytes=1), s.moment(9).wall, COLLECTOR)
    assert [row for rows in everything(place).values() for row in rows] == []
    # Everything gone: the chain still goes on where it was.
    store = Store(place, stores.enrolled())
    assert store.last(s.key(0).id) == (sealed[0][-1].header.segment, sealed[0][-1].hash)
    store.close()


def test_killed_at_every_step_of_retention(fast_path: Path) -> None:
    sealed = filled(fast_path / "st", 6)
    unjoined(fast_path / "st")
    now, policy = s.moment(6.5).wall, Policy(age=3 * s.SECOND)

    def run(place: Path, step: Any) -> None:
        unjoined(place, step)
        retain(Folders(place), policy, now, COLLECTOR, step)

    clean = fast_path / "clean"
    shutil.copytree(fast_path / "st", clean)
    total = steps(lambda step: run(clean, step))
    end = sorted(path.name for path in clean.rglob("*"))
    assert total > 8
    for at in range(total):
        place = fast_path / f"killed{at}"
        shutil.copytree(fast_path / "st", place)
        assert killed(lambda step, place=place: run(place, step), at)
        begin = {n: Manifest.read(Folders(place), s.key(n).id.hex()).removed + 1 for n in PROBES}
        check(place, sealed, begin)
        store = Store(place, stores.enrolled())
        for number in PROBES:
            assert store.last(s.key(number).id) == (
                sealed[number][-1].header.segment,
                sealed[number][-1].hash,
            )
            if (place / s.key(number).id.hex() / "checkpoints").exists():
                assert verified(place, number).totals.faults == 0
        store.close()
        run(place, lambda _: None)
        assert sorted(path.name for path in place.rglob("*")) == end
        check(
            place, sealed, {n: Manifest.read(Folders(place), s.key(n).id.hex()).removed + 1 for n in PROBES}
        )
        shutil.rmtree(place)


def test_a_checkpoint_is_only_believed_from_its_collector(tmp_path: Path) -> None:
    place = tmp_path / "st"
    filled(place, 8)
    unjoined(place)
    retain(Folders(place), Policy(age=4 * s.SECOND), s.moment(8.5).wall, s.key(7))
    name = f"{s.key(0).id.hex()}/checkpoints"
    disk = Folders(place)
    whole = disk.read(name)
    original = list(checkpoints(whole))
    assert verified(place, 0).totals.faults == len(original) + 1  # each of them, and then the beginning
    for at in range(0, len(whole), 3):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        try:
            found = list(checkpoints(bytes(flipped)))
        except Malformed:
            continue
        assert any(not one.authentic(s.key(7).public) for one in found), at
    for end in range(1, len(whole)):
        try:
            cut = list(checkpoints(whole[:end]))
        except Malformed:
            continue
        assert cut == original[: len(cut)]
        assert len(cut) < len(original)


def test_another_probes_checkpoint_helps_nobody(tmp_path: Path) -> None:
    place = tmp_path / "st"
    filled(place, 8)
    unjoined(place)
    retain(Folders(place), Policy(age=4 * s.SECOND), s.moment(8.5).wall, COLLECTOR)
    disk = Folders(place)
    disk.replace(f"{s.key(1).id.hex()}/checkpoints", disk.read(f"{s.key(0).id.hex()}/checkpoints"))
    judged = verified(place, 1)
    assert {found.fault for found in judged.finish()} & {Fault.OTHER_PROBE, Fault.OTHER_KEY}


def test_damage_and_what_cannot_be_read_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, sealed = tmp_path / "st", filled(tmp_path / "st", 5)
    name = place / s.key(0).id.hex() / f"{'0' * 16}.seal.zst"
    data = bytearray(name.read_bytes())
    data[60] ^= 1
    name.write_bytes(data)
    done = compact(Folders(place), last=True)
    assert done.damaged_bytes > 0
    assert 0 not in {
        row["segment"] for row in everything(place)["segments"] if row["probe"] == s.key(0).id.hex()
    }
    assert sealed


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"version": 2}',
        b'{"version": 1, "removed": 0, "files": [{}], "units": []}',
        b'{"version": 1, "removed": "x", "files": [], "units": []}',
        b'{"version":1,"removed":-1,"files":[],"units":[{"first_segment":0,"last_segment":1,"received":1,'
        b'"tables":{"flows":"../../../etc/passwd"},"rows":{},"bytes":1}]}',
    ],
)
def test_a_manifest_that_is_none(tmp_path: Path, content: bytes) -> None:
    filled(tmp_path / "st", 3)
    (tmp_path / "st" / s.key(0).id.hex() / "manifest").write_bytes(content)
    with pytest.raises(ConfigurationError, match="damaged; remove it"):
        compact(Folders(tmp_path / "st"))
    (tmp_path / "st" / s.key(0).id.hex() / "manifest").unlink()
    compact(Folders(tmp_path / "st"), last=True)


def test_one_compaction_at_a_time(tmp_path: Path) -> None:
    lock = locked(tmp_path, "compact.lock", "compaction works")
    with pytest.raises(ConfigurationError, match="compaction works at"):
        locked(tmp_path, "compact.lock", "compaction works")
    lock.release()
    locked(tmp_path, "compact.lock", "compaction works").release()
