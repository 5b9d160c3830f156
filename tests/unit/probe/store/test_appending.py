"""Segments into a store: what is refused, what a failing disk and a power cut leave."""

from __future__ import annotations

import errno
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from sealwire.errors import ConfigurationError
from sealwire.probe.seal import frames
from sealwire.probe.seal.segment import Segment, seal
from sealwire.probe.seal.tree import frame
from sealwire.probe.store import Rejected, Rejection, Store, Stored, StoreFull, reading
from tests.unit.probe import sealing as s
from tests.unit.probe.store import stores

PROBE = s.key(0).id


def refused(store: Store, segment: Segment | bytes, probe: bytes = PROBE) -> Rejection:
    frame = segment if isinstance(segment, bytes) else frames.pack(segment)
    answer = store.append(probe, frame, 1)
    assert isinstance(answer, Rejected), answer
    return answer.reason


def test_what_is_stored_is_what_came() -> None:
    disk, sealed = stores.FolderDisk(), stores.sealed()
    answers = stores.take(Store(disk, stores.enrolled()), sealed, 3)
    assert [(a.segment, a.hash, a.new) for a in answers] == [
        (segment.header.segment, segment.hash, True) for segment in sealed
    ]
    assert stores.stored(disk, PROBE) == sealed
    assert s.faults(stores.stored(disk, PROBE), 8) == []
    data = disk.read(f"{PROBE.hex()}/{'0' * 16}.seal.zst")
    assert {found.received for found in reading.walk(data) if isinstance(found, reading.Arrived)} == {
        s.moment(3).wall
    }


def test_zstd_passes_over_the_notes(tmp_path: Path) -> None:
    """Files stay what `zstd -dc` and docs/verify.py read."""
    sealed = stores.sealed()
    store = Store(tmp_path / "store", stores.enrolled())
    stores.take(store, sealed)
    store.close()
    file = tmp_path / "store" / PROBE.hex() / f"{'0' * 16}.seal.zst"
    try:
        plain = subprocess.run(["zstd", "-dc", file], capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("no zstd here")
    assert plain == b"".join(segment.encode() for segment in sealed)


def test_what_comes_again_is_stored_once_and_acknowledged_again() -> None:
    disk, sealed = stores.FolderDisk(), stores.sealed()
    store = Store(disk, stores.enrolled(), file_bytes=1)
    stores.take(store, sealed[:4])
    again = stores.take(store, [*sealed[1:], *sealed])
    assert [answer.new for answer in again] == [False] * 3 + [True] * (len(sealed) - 4) + [False] * len(
        sealed
    )
    assert stores.stored(disk, PROBE) == sealed
    later = Store(disk, stores.enrolled())
    assert not any(answer.new for answer in stores.take(later, sealed))
    assert later.last(PROBE) == (sealed[-1].header.segment, sealed[-1].hash)


def test_old_ones_are_known_by_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealwire.probe.store.appending._RECENT", 1)
    disk, sealed = stores.FolderDisk(), stores.sealed()
    store = Store(disk, stores.enrolled(), file_bytes=900)
    for segment in sealed:
        stores.take(store, [segment])
    assert len(reading.files(disk, PROBE.hex())) > 2
    assert not any(answer.new for answer in stores.take(store, sealed))
    forged = seal(replace(sealed[1].header, sealed=s.moment(0.5)), sealed[1].framed, sealed[1].count, s.key())
    assert refused(store, forged) is Rejection.FORK


def test_what_is_refused() -> None:
    disk, sealed = stores.FolderDisk(), stores.sealed()
    store = Store(disk, stores.enrolled(0))
    stores.take(store, sealed[:3])
    foreign = stores.sealed(number=1)
    assert refused(store, foreign[0], s.key(1).id) is Rejection.UNKNOWN_PROBE
    assert refused(store, foreign[0]) is Rejection.WRONG_PROBE
    four = sealed[3]
    assert refused(store, replace(four, signature=bytes(64))) is Rejection.BAD_SIGNATURE
    assert refused(store, replace(four, root=bytes(32))) is Rejection.BAD_SIGNATURE
    assert refused(store, replace(four, framed=sealed[4].framed)) is Rejection.BAD_EVENTS
    header = four.header
    stranger = seal(replace(header, key=s.key(2).id), four.framed, four.count, s.key(2))
    assert refused(store, stranger) is Rejection.OTHER_KEY
    unlinked = seal(replace(header, previous=bytes(32)), four.framed, four.count, s.key())
    assert refused(store, unlinked) is Rejection.BROKEN_CHAIN
    overlap = replace(header, segment=9, first_event=1, last_event=header.events)
    # Its leaves have other sequences, so make the header claim only what can be signed: refused as no events.
    assert refused(store, seal(overlap, four.framed, four.count, s.key())) is Rejection.BAD_EVENTS
    times = seal(replace(header, times=None), four.framed, four.count, s.key())
    assert refused(store, times) is Rejection.BAD_EVENTS
    stores.take(store, sealed[4:5])  # a jump: the gap may come later
    assert refused(store, sealed[3]) is Rejection.ORDER
    assert stores.stored(disk, PROBE) == [*sealed[:3], sealed[4]]


def test_behind_a_refused_one_nothing_of_the_batch_is_stored() -> None:
    """So that a forged frame leaves no hole in the chain."""
    disk, sealed, other = stores.FolderDisk(), stores.sealed(), stores.sealed(number=1)
    store = Store(disk, stores.enrolled())
    batch = [sealed[0], replace(sealed[1], signature=bytes(64)), other[0], sealed[2], other[1]]
    answers = store.append_many(stores.framed(batch), 1)
    reasons = [answer.reason if isinstance(answer, Rejected) else None for answer in answers]
    assert reasons == [None, Rejection.BAD_SIGNATURE, None, Rejection.BEHIND, None]
    stores.take(store, sealed)
    assert stores.stored(disk, PROBE) == sealed


def test_a_beginning_in_the_middle() -> None:
    sealed = stores.sealed()
    store = Store(stores.FolderDisk(), stores.enrolled())
    stores.take(store, sealed[2:])
    assert refused(store, sealed[0]) is Rejection.ORDER


@pytest.mark.parametrize("damage", range(0, 400, 7))
def test_frames_that_are_none(damage: int) -> None:
    """Cut anywhere, flipped anywhere, doubled, endless."""
    disk, sealed = stores.FolderDisk(), stores.sealed(2)
    store = Store(disk, stores.enrolled())
    frame = frames.pack(sealed[0])
    flipped = bytearray(frame)
    flipped[damage % len(frame)] ^= 1 << damage % 8
    cut = frame[: damage % len(frame)]
    for bad in (bytes(flipped), cut, frame + frame, frame + b"\0", b"", bytes(2 << 20)):
        answer = store.append(PROBE, bad, 1)
        assert isinstance(answer, Rejected) or answer.hash == sealed[0].hash
        if isinstance(answer, Rejected):
            assert answer.reason in (
                Rejection.MALFORMED,
                Rejection.BAD_SIGNATURE,
                Rejection.WRONG_PROBE,
                Rejection.BAD_EVENTS,
                Rejection.OTHER_KEY,
            ), answer
    stores.take(store, sealed)
    assert stores.stored(disk, PROBE) == sealed


def test_many_probes_in_one_batch() -> None:
    disk = stores.FolderDisk()
    store = Store(disk, stores.enrolled(0, 1, 2))
    all_sealed = [stores.sealed(number=number) for number in range(3)]
    mixed = [segment for together in zip(*all_sealed, strict=True) for segment in together]
    before = len([1 for operation in disk.log if operation[0] == "sync"])
    stores.take(store, mixed)
    syncs = len([1 for operation in disk.log if operation[0] == "sync"]) - before
    assert syncs == 3
    for number, sealed in enumerate(all_sealed):
        assert stores.stored(disk, s.key(number).id) == sealed
    assert reading.probes(disk) == [s.key(number).id.hex() for number in range(3)]


def test_a_key_that_follows_another() -> None:
    disk = s.MemoryDisk()
    s.recorder(disk).close(s.moment(1))
    s.recorder(disk, 10, boot=2, number=5, old_key=s.key(0)).close(s.moment(11))
    sealed = s.segments(disk)
    kept = stores.FolderDisk()
    for segment in sealed:  # each by a store that begins anew
        stores.take(Store(kept, stores.enrolled()), [segment])
    assert stores.stored(kept, PROBE) == sealed
    header = sealed[-1].header
    behind = replace(
        header,
        segment=header.segment + 1,
        first_event=header.last_event + 1,
        previous=sealed[-1].hash,
        last_event=header.last_event + 1,
        times=None,
    )
    framed = frame(stores.gap().leaf(behind.first_event))
    old = seal(replace(behind, key=s.key(0).id), framed, 1, s.key(0))
    store = Store(kept, stores.enrolled())
    assert refused(store, old) is Rejection.OTHER_KEY
    stores.take(store, [seal(behind, framed, 1, s.key(5))])


def test_a_revocation_counts_at_once() -> None:
    known = {PROBE: s.key(0).public}
    store = Store(stores.FolderDisk(), known.get)
    sealed = stores.sealed()
    stores.take(store, sealed[:2])
    del known[PROBE]
    assert refused(store, sealed[2]) is Rejection.UNKNOWN_PROBE


@pytest.mark.parametrize("failure", ["append", "sync", "create", "replace"])
@pytest.mark.parametrize("truncate", [0, errno.EIO])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("at", range(4))
def test_a_failing_disk_stores_nothing_of_a_batch(failure: str, truncate: int, code: int, at: int) -> None:
    """Each operation of a batch fails in turn; what is handed in again is stored, once."""
    disk = stores.FolderDisk()
    first, second = stores.sealed(6), stores.sealed(6, number=1)
    store = Store(disk, stores.enrolled())
    stores.take(store, first[:2])
    disk.errors = {failure: [0] * at + [code], "truncate": [truncate] * 2}
    batch = [*first[2:], *second]
    raised = 0
    try:
        answers = stores.take(store, batch)
        assert disk.errors[failure], "the error was never met"
        assert all(answer.new for answer in answers)
    except StoreFull:
        raised = errno.ENOSPC
    except OSError as error:
        raised = error.errno or -1
    assert raised in (0, code)
    disk.errors = {}
    for again in (store, Store(disk, stores.enrolled())):
        stores.take(again, batch)
        for sealed in (first, second):
            assert stores.stored(disk, sealed[0].header.probe) == sealed
            assert s.faults(stores.stored(disk, sealed[0].header.probe), 8, s.trust(0, 1)) == []


def test_a_full_disk_is_no_loss() -> None:
    """At every amount of room: refused as a whole or stored as a whole, and stored once there is room."""
    sealed = stores.sealed(4)
    for room in range(0, 3000, 41):
        disk = stores.FolderDisk()
        store = Store(disk, stores.enrolled())
        disk.room = room
        try:
            stores.take(store, sealed)
        except StoreFull:
            assert stores.stored(disk, PROBE) == []
        disk.room = None
        stores.take(store, sealed)
        assert stores.stored(disk, PROBE) == sealed, room


def cut_at(log: list[tuple[object, ...]], stride: int) -> list[tuple[int, int]]:
    found = []
    for number, operation in enumerate(log):
        data = operation[2] if operation[0] == "append" else b""
        assert isinstance(data, bytes)
        found += [(number, n) for n in range(0, len(data) + 1, stride)]
    return [*found, (len(log), 0)]


def power_cuts(stride: int) -> int:
    """What was said to be stored before a power cut is there after it, and the rest comes again."""
    disk = stores.FolderDisk()
    first, second = stores.sealed(5), stores.sealed(5, number=1)
    store = Store(disk, stores.enrolled(), file_bytes=1500)
    acknowledged: list[tuple[int, list[Stored]]] = []
    for at in range(0, len(first), 2):
        answers = stores.take(store, [*first[at : at + 2], *second[at : at + 2]])
        acknowledged.append((len(disk.log), answers))
    everything = cut_at(disk.log, stride)
    for operations, n in everything:
        for keep in (True, False):
            after = stores.crashed(disk.log, operations, n, keep)
            where = (operations, n, keep)
            again = Store(after, stores.enrolled(), file_bytes=1500)
            for done, answers in acknowledged:
                if done <= operations:
                    for answer in answers:
                        last = again.last(answer.probe)
                        assert last is not None, where
                        assert last[0] >= answer.segment, where
            stores.take(again, [*first, *second])
            for sealed in (first, second):
                assert stores.stored(after, sealed[0].header.probe) == sealed, where
    return len(everything)


def test_a_power_cut_at_some_bytes() -> None:
    assert power_cuts(61) > 60


@pytest.mark.long
def test_a_power_cut_at_every_byte() -> None:
    print(f"{power_cuts(1)} cuts, each with and without what was not synced")


def test_damage_in_the_middle_hides_nothing_behind_it() -> None:
    disk, sealed = stores.FolderDisk(), stores.sealed()
    stores.take(Store(disk, stores.enrolled()), sealed[:-1])
    name = f"{PROBE.hex()}/{'0' * 16}.seal.zst"
    walked = list(reading.walk(bytes(disk.files[name])))
    third = walked[2]
    disk.files[name][third.begin + 40] ^= 1
    found = list(reading.walk(bytes(disk.files[name])))
    assert [type(one).__name__ for one in found].count("Damage") == 1
    assert stores.stored(disk, PROBE) == [*sealed[:2], *sealed[3:-1]]
    store = Store(disk, stores.enrolled())
    assert store.last(PROBE) == (sealed[-2].header.segment, sealed[-2].hash)
    assert refused(store, sealed[2]) is Rejection.ORDER
    stores.take(store, sealed[-1:])


def test_directories_that_are_no_store(tmp_path: Path) -> None:
    key_of = stores.enrolled()
    other = tmp_path / "other"
    other.mkdir()
    (other / "store").write_text('{"sealwire-store": 2, "probes": []}')
    with pytest.raises(ConfigurationError, match="version 2, and this program knows version 1"):
        Store(other, key_of)
    (other / "store").write_text("no json")
    with pytest.raises(ConfigurationError, match="damaged"):
        Store(other, key_of)
    (other / "store").write_text('{"sealwire-store": 1, "probes": ["../../etc"]}')
    with pytest.raises(ConfigurationError, match="damaged"):
        Store(other, key_of)
    spool = tmp_path / "spool"
    (spool / "something").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="is no store, and not empty"):
        Store(spool, key_of)
    mine = tmp_path / "mine"
    Store(mine, key_of).close()
    mine.chmod(0o770)
    with pytest.raises(ConfigurationError, match="chmod go-w"):
        Store(mine, key_of)
    mine.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(mine, 1, -1)
        with pytest.raises(ConfigurationError, match="belongs to user 1"):
            Store(mine, key_of)
        os.chown(mine, 0, -1)
    held = Store(mine, key_of)
    with pytest.raises(ConfigurationError, match=r"a collector stores at .* already"):
        Store(mine, key_of)
    held.close()
    Store(mine, key_of).close()
