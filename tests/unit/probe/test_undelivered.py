"""What is not delivered yet: the spool that keeps it, what reads it, and what happens as it fills up."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.probe.backlog import Backlog
from sealwire.probe.batch import OFFSETS
from sealwire.probe.events import GapReason
from sealwire.probe.features import row_struct
from sealwire.probe.pressure import PATIENCE_SECONDS, Pressure, Sampler, Step
from sealwire.probe.seal import frames
from sealwire.probe.seal.delivered import DELIVERED, RECEIPTS, Delivered, Numbers
from sealwire.probe.seal.intake import Flows
from sealwire.probe.seal.receipts import acknowledge, receipts
from sealwire.probe.seal.recorder import Recorder
from sealwire.probe.seal.segment import Segment
from sealwire.probe.spool import BEGIN, Spool
from sealwire.probe.verify import Fault
from tests.unit.probe import sealing as s

COLLECTOR = 7
ANSWERED_AT = OFFSETS["backward_packets"][0]

# Numbers.

small = st.integers(0, 60)


@given(st.lists(st.tuples(small, small).map(lambda pair: (min(pair), max(pair)))), small, small)
def test_ranges_are_the_set_of_their_numbers(added: list[tuple[int, int]], first: int, last: int) -> None:
    numbers, plain = Numbers(), set[int]()
    for begin, end in added:
        numbers.add(begin, end)
        plain |= set(range(begin, end + 1))
    first, last = min(first, last), max(first, last)
    asked = set(range(first, last + 1))
    assert numbers.within(first, last) == len(asked & plain)
    assert numbers.covers(first, last) == (asked <= plain)
    apart = numbers.ranges
    assert all(one[1] + 1 < other[0] for one, other in itertools.pairwise(apart))
    assert Numbers(apart).ranges == apart


# The spool.


def keeping(disk: s.MemoryDisk, most: int, second: float = 0.0, boot: int = 1) -> tuple[Recorder, Spool]:
    spool = Spool(disk, most, most // 8, Delivered(disk))
    probe = Recorder(*(spool, s.key(), s.moment(second)), boot=boot.to_bytes(16, "big"), software="test")
    return probe, spool


def feed(probe: Recorder, second: float, n: int = 20) -> None:
    probe.take(Flows(s.rows(n, round(second * 100)), row_struct().size), s.moment(second))
    probe.flush(s.moment(second))


def is_stalled(probe: Recorder) -> bool:
    return probe.stalled


def receipt(segments: list[Segment], key: int = COLLECTOR) -> bytes:
    named = [(segment.header.segment, segment.hash) for segment in segments]
    return acknowledge(s.key(0).id, named, 1000, s.key(key))


def deliver(spool: Spool, segments: list[Segment]) -> None:
    assert spool.delivered is not None
    assert spool.delivered.take(receipt(segments), s.key(0).id, s.key(COLLECTOR).public)


def test_nothing_undelivered_makes_room() -> None:
    disk = s.MemoryDisk()
    probe, spool = keeping(disk, 60_000)
    second = 0.0
    while not is_stalled(probe):
        second += 1.0
        feed(probe, second)
    found = s.segments(disk)
    assert found[0].header.segment == 0
    assert 50_000 < spool.held <= 60_000
    assert spool.undelivered == spool.held
    deliver(spool, found[: len(found) // 2])
    assert spool.undelivered < 40_000
    probe.wake(s.moment(second + 1))
    assert not is_stalled(probe)
    for extra in range(4):
        feed(probe, second + 2 + extra)
    left = s.segments(disk)
    assert left[0].header.segment > 0
    assert disk.files[BEGIN] == b"%d\n" % left[0].header.segment
    # Delivered and gone is no loss: no Gap says so, and the receipts say where they went.
    probe.close(s.moment(second + 9))
    everything = {segment.header.segment: segment for segment in [*found, *s.segments(disk)]}
    assert s.faults(everything.values(), second + 9) == []
    assert s.judge(everything.values(), second + 9).totals.gaps == 0
    kept = b"".join(bytes(disk.files[name]) for name in sorted(disk.files) if name.startswith(RECEIPTS))
    named = {number: known for one in receipts(kept) for number, known in one.segments}
    given = s.trust(acknowledged={s.key(0).id: named})
    assert s.faults(s.segments(disk), second + 9, given) == []
    assert s.faults(s.segments(disk), second + 9) == [Fault.MISSING]


def test_a_receipt_that_is_not_the_collectors_frees_nothing() -> None:
    disk = s.MemoryDisk()
    probe, spool = keeping(disk, 60_000)
    feed(probe, 1.0)
    found = s.segments(disk)
    assert spool.delivered is not None
    good, collector = receipt(found), s.key(COLLECTOR).public
    for data, key, of in (
        (receipt(found, key=8), collector, s.key(0).id),
        (good, s.key(8).public, s.key(0).id),
        (good, collector, bytes(32)),
        (good[:-1], collector, s.key(0).id),
        (good + good, collector, s.key(0).id),
        (b"", collector, s.key(0).id),
    ):
        assert not spool.delivered.take(data, of, key)
    assert spool.undelivered == spool.held
    assert not any(name.startswith(RECEIPTS) for name in disk.files)


def test_what_was_delivered_is_known_after_a_restart() -> None:
    disk = s.MemoryDisk()
    probe, spool = keeping(disk, 60_000)
    for second in range(12):
        feed(probe, second + 1.0)
    found = s.segments(disk)
    deliver(spool, found[:6])
    assert spool.delivered is not None
    spool.delivered.write()
    before = spool.undelivered
    deliver(spool, found[6:8])  # not written down: it will be sent again
    again = Spool(disk, 60_000, 60_000 // 8, Delivered(disk))
    assert again.undelivered == before
    assert again.delivered is not None
    assert again.delivered.numbers.ranges == [(0, 5)]
    disk.files[DELIVERED] = bytearray(b"[[")
    assert Delivered(disk).numbers.ranges == []


def test_a_beginning_that_was_delivered_is_not_said_to_be_missing() -> None:
    """The disk was too full to write down that the file would go."""
    disk = s.MemoryDisk()
    probe, spool = keeping(disk, 60_000)
    for second in range(20):
        feed(probe, second + 1.0)
    deliver(spool, s.segments(disk))
    disk.errors["replace"] = [0, 28]
    assert spool.drop_delivered()
    assert BEGIN not in disk.files
    probe.close(s.moment(50.0))
    assert spool.delivered is not None
    spool.delivered.write()
    again, _ = keeping(disk, 60_000, 60.0, 2)
    again.close(s.moment(61.0))
    assert [event for segment in s.segments(disk) for event in _gaps(segment)] == []


def _gaps(segment: Segment) -> list[bytes]:
    return [leaf for leaf in segment.leaves() if leaf[1] == 5]


def test_old_receipts_go_with_what_they_name() -> None:
    disk = s.MemoryDisk()
    delivered = Delivered(disk)
    key = s.key(COLLECTOR)
    for n in range(3000):
        data = acknowledge(s.key(0).id, [(n, bytes(32))], 1000, key)
        assert delivered.take(data, s.key(0).id, key.public)
    names = sorted(name for name in disk.files if name.startswith(RECEIPTS))
    assert len(names) > 2
    delivered.forget(2999)
    (left,) = (name for name in disk.files if name.startswith(RECEIPTS))
    assert 2999 in [number for one in receipts(bytes(disk.files[left])) for number, _ in one.segments]


def test_receipts_that_find_no_room_still_count() -> None:
    disk = s.MemoryDisk(room=100)
    delivered, key = Delivered(disk), s.key(COLLECTOR)
    for n in range(4):
        data = acknowledge(s.key(0).id, [(n, bytes(32))], 1000, key)
        assert delivered.take(data, s.key(0).id, key.public)
    assert delivered.numbers.ranges == [(0, 3)]


# What reads it.


def spooled(path: Path, count: int = 40) -> list[Segment]:
    disk = s.MemoryDisk()
    probe, _ = keeping(disk, 1 << 20)
    spool_files = 0
    for second in range(count):
        feed(probe, second + 1.0, 5)
        if second % 10 == 9:
            probe.close(s.moment(second + 1.5))
            spool_files += 1
            probe, _ = keeping(disk, 1 << 20, second + 1.6, second + 2)
    for name in s.files(disk):
        (path / name).write_bytes(disk.files[name])
    return s.segments(disk)


def listed(path: Path) -> list[tuple[str, int]]:
    return [(one.name, one.stat().st_size) for one in sorted(path.iterdir())]


def read(backlog: Backlog) -> list[int]:
    found = []
    while (segment := backlog.peek()) is not None:
        found.append(segment.number)
        backlog.taken()
    return found


def test_segments_are_read_in_order_as_far_as_is_durable(tmp_path: Path) -> None:
    found = spooled(tmp_path)
    files = listed(tmp_path)
    assert len(files) > 3
    backlog = Backlog(tmp_path)
    assert read(backlog) == []
    name, size = files[0]
    first = next(frames.unpack((tmp_path / name).read_bytes()))
    backlog.update([(name, first.end)])
    backlog.restart([], None)
    one = backlog.peek()
    assert one is not None
    assert (one.number, one.hash, one.events) == (0, found[0].hash, found[0].header.events)
    assert one.frame == (tmp_path / name).read_bytes()[: first.end]
    backlog.taken()
    assert read(backlog) == []
    backlog.update([(name, size)])
    backlog.update(files)
    assert read(backlog) == [segment.header.segment for segment in found[1:]]
    assert backlog.damaged == 0


def test_what_is_delivered_is_not_read_again(tmp_path: Path) -> None:
    found = [segment.header.segment for segment in spooled(tmp_path)]
    backlog = Backlog(tmp_path)
    backlog.update(listed(tmp_path))
    backlog.restart([(0, 14), (20, 22)], 22)
    assert read(backlog) == [n for n in found if n > 14 and not 20 <= n <= 22]
    # The collector lost what it had acknowledged, and all is still here.
    backlog.restart([(0, 30)], 9)
    assert read(backlog) == [n for n in found if n > 9]
    backlog.restart([(0, 30)], None)
    assert read(backlog) == found
    backlog.restart([], None)
    backlog.took(0)
    backlog.took(2)
    assert read(backlog)[:2] == [1, 3]


def test_files_may_vanish_as_they_are_read(tmp_path: Path) -> None:
    found = [segment.header.segment for segment in spooled(tmp_path)]
    files = listed(tmp_path)
    backlog = Backlog(tmp_path)
    backlog.update(files)
    backlog.restart([], None)
    (tmp_path / files[0][0]).unlink()
    second = int(files[1][0][:16])
    assert read(backlog) == [n for n in found if n >= second]


@pytest.mark.parametrize("seed", range(6))
def test_damaged_bytes_are_stepped_over(tmp_path: Path, seed: int) -> None:
    found = [segment.header.segment for segment in spooled(tmp_path)]
    chance = random.Random(seed)
    name, size = listed(tmp_path)[1]
    data = bytearray((tmp_path / name).read_bytes())
    at = chance.randrange(size - 40)
    data[at : at + 40] = chance.randbytes(40)
    (tmp_path / name).write_bytes(data)
    backlog = Backlog(tmp_path)
    backlog.update(listed(tmp_path))
    backlog.restart([], None)
    got = read(backlog)
    assert backlog.damaged > 0
    assert len(found) - 3 <= len(got) < len(found)
    assert set(got) < set(found)
    assert got == sorted(got)


# As it fills up.


def note(pressure: Pressure, fill: float, waiting: bool = False, now: float = 0.0) -> Step:
    pressure.note(fill, waiting, now)
    return pressure.step


def test_steps_come_and_go_at_different_marks() -> None:
    pressure = Pressure()
    rise = [note(pressure, fill / 100) for fill in range(101)]
    assert [rise.index(step) for step in (Step.SAMPLE, Step.LOWEST)] == [80, 90]
    fall = [note(pressure, fill / 100) for fill in range(100, -1, -1)]
    assert fall.index(Step.SAMPLE) == 100 - 65 + 1
    assert fall.index(Step.DELIVER) == 100 - 50 + 1


def test_a_full_queue_stays_full_until_there_is_room() -> None:
    pressure = Pressure()
    note(pressure, 0.95)
    assert pressure.full()
    assert not pressure.full()
    assert note(pressure, 0.93) is Step.FULL
    assert note(pressure, 0.89) is Step.LOWEST
    assert pressure.full()
    assert note(pressure, 0.1) is Step.DELIVER


def test_a_collector_may_be_slow_for_a_moment() -> None:
    pressure = Pressure()
    assert note(pressure, 0.1, True, 5.0) is Step.DELIVER
    assert note(pressure, 0.1, True, 5.0 + PATIENCE_SECONDS) is Step.SPOOL
    assert note(pressure, 0.85, True, 9.0) is Step.SAMPLE
    assert note(pressure, 0.4, True, 9.0) is Step.SPOOL
    assert note(pressure, 0.4, False, 9.0) is Step.DELIVER
    assert note(pressure, 0.4, True, 9.5) is Step.DELIVER


@given(st.lists(st.floats(0, 1), max_size=50), st.floats(0.1, 1))
def test_no_step_flutters(fills: list[float], threshold: float) -> None:
    """Between two changes of a step its mark is crossed: three eighths of the threshold lie between."""
    pressure = Pressure(threshold)
    for fill in fills:
        before = pressure.step
        after = note(pressure, fill)
        if before < Step.SAMPLE <= after:
            assert fill >= threshold
        if after < Step.SAMPLE <= before:
            assert fill < threshold * 5 / 8


@pytest.mark.parametrize("first_packets", [0, 3])
def test_sampling_keeps_one_of_n_and_counts_the_others(first_packets: int) -> None:
    stride = row_struct(first_packets).size
    sampler = Sampler(4)
    kept = left = 0
    for number in range(10):
        rows, facts = s.dissected(30, number, first_packets)
        found = sampler.rows(rows, stride, facts, Step.SAMPLE)
        kept += found.events
        left += found.left_out[GapReason.SAMPLED]
        assert found.left_out.keys() == {GapReason.SAMPLED}
        assert len(found.data) == found.events * stride
        assert _facts_fit(found.data, stride, found.facts)
        for at in range(0, len(found.data), stride):
            assert found.data[at : at + stride] in rows
    assert (kept, left) == (75, 225)


def _facts_fit(rows: bytes, stride: int, facts: bytes) -> bool:
    at = s.FACTS_BYTES_AT
    sizes = [int.from_bytes(rows[row + at : row + at + 4], "little") for row in range(0, len(rows), stride)]
    return sum(sizes) == len(facts)


def test_the_lowest_class_goes_first() -> None:
    stride = row_struct().size
    rows, facts = s.dissected(600, 1)
    found = Sampler(4).rows(rows, stride, facts, Step.LOWEST)
    lowest = 0
    for at in range(0, len(rows), stride):
        known, answered = (
            any(rows[at + begin : at + begin + n]) for begin, n in ((s.FACTS_BYTES_AT, 4), (ANSWERED_AT, 8))
        )
        lowest += not known and not answered
    assert 0 < lowest < 200
    assert found.left_out == {
        GapReason.LOWEST_CLASS: lowest,
        GapReason.SAMPLED: 600 - lowest - found.events,
    }
    assert found.events == (600 - lowest) // 4


def test_transactions_are_sampled_whole() -> None:
    events = s.transactions(40)
    found = Sampler(10).transactions(events)
    assert (found.events, found.left_out) == (4, {GapReason.SAMPLED: 36})
    assert found.data == b"".join(s.transaction(n) for n in (9, 19, 29, 39))


def test_facts_are_written_for_people(tmp_path: Path) -> None:
    from sealwire.probe.export.exporter import ExportCounters

    counters = ExportCounters()
    counters.receipt_seconds.observe(0.04)
    found: dict[str, Any] = json.loads(json.dumps(counters.snapshot()))
    assert found["receipt_seconds"]["counts"][6] == 1
    assert found["segments_sent"] == 0
