"""Power cut at any byte: what a spool wrote is replayed up to each byte, and a new boot goes on from there.

Two worlds per byte: everything written so far is there, or only what was synced is.  In each the spool
must open, keep every segment that was durable (it may have been sent), use no number twice that
was, and say by signed gaps what is missing; then the verifier finds nothing wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from sealwire.probe.features import row_struct
from sealwire.probe.seal.intake import Flows
from sealwire.probe.seal.segment import Segment
from tests.unit.probe import sealing as s


@dataclass(frozen=True, slots=True)
class History:
    """A log, and after how many of its operations which segments were durable."""

    log: list[tuple[Any, ...]]
    #: (operations done, segments durable then, oldest segment that was still kept then)
    durable: list[tuple[int, int, int]]
    segments: dict[int, Segment]


def history(most: int, file_bytes: int, count: int) -> History:
    disk = s.MemoryDisk()
    durable: list[tuple[int, int, int]] = []
    sealed: dict[int, Segment] = {}

    def note() -> None:
        committed = probe.committed
        kept = s.segments(disk)
        sealed.update({segment.header.segment: segment for segment in kept})
        assert committed is not None
        durable.append((len(disk.log), committed.segment, kept[0].header.segment))

    probe = s.recorder(disk, most=most, file_bytes=file_bytes)
    note()
    for second in range(1, count + 1):
        probe.take(Flows(s.rows(1 + second % 2, second), row_struct().size), s.moment(second))
        if second % 3 == 0:
            # Two segments under one commit: both may be torn.
            probe._end_segment(s.moment(second))
            probe.take(Flows(s.rows(1, 100 + second), row_struct().size), s.moment(second + 0.01))
        probe.flush(s.moment(second + 0.02))
        note()
    probe.close(s.moment(count + 1))
    note()
    return History(disk.log, durable, sealed)


def go_on(story: History, operations: int, n: int, keep_unsynced: bool) -> None:
    where = (operations, n, keep_unsynced)
    disk = s.crashed(story.log, operations, n, keep_unsynced)
    before = {found.header.segment: found.hash for found in durable_then(story, operations)}
    again = s.recorder(disk, 1000, boot=2)
    again.take(Flows(s.rows(1, 999), row_struct().size), s.moment(1001))
    again.close(s.moment(1001))
    found = s.segments(disk)
    assert s.faults(found, 1001) == [], where
    kept = {segment.header.segment: segment.hash for segment in found}
    for number, known in before.items():
        assert kept.get(number) == known, (where, number)
    assert len(kept) == len(found), where


def durable_then(story: History, operations: int) -> list[Segment]:
    """What had been reported durable, and was not dropped since, when the power went."""
    last, oldest = -1, 0
    for done, segment, kept in story.durable:
        if done <= operations:
            last, oldest = segment, kept
        else:
            oldest = max(oldest, kept)  # the drop may have been under way
            break
    return [segment for number, segment in story.segments.items() if oldest <= number <= last]


def cuts(log: list[tuple[Any, ...]]) -> list[tuple[int, int]]:
    """Every operation not begun, and every byte of every write."""
    found = []
    for number, operation in enumerate(log):
        sizes = range(len(operation[2]) + 1) if operation[0] == "append" else range(1)
        found += [(number, n) for n in sizes]
    return [*found, (len(log), 0)]


PLAIN = (1 << 24, 1 << 20, 5)
#: Small files and a small spool: the oldest files are dropped all the time.
DROPPING = (9000, 900, 24)


@pytest.mark.parametrize(("kind", "stride"), [(PLAIN, 67), (DROPPING, 1009)], ids=["plain", "dropping"])
def test_power_cut_at_some_bytes(kind: tuple[int, int, int], stride: int) -> None:
    story = history(*kind)
    every = cuts(story.log)
    boundaries = {cut for cut in every if cut[1] == 0}
    for number, cut in enumerate(every):
        # Of the long history every third operation, of the writes some bytes.
        if (cut in boundaries and cut[0] % (1 + stride // 500) == 0) or number % stride == 0:
            for keep_unsynced in (True, False):
                go_on(story, *cut, keep_unsynced)


@pytest.mark.long
@pytest.mark.parametrize("kind", [PLAIN, DROPPING], ids=["plain", "dropping"])
def test_power_cut_at_every_byte(kind: tuple[int, int, int]) -> None:
    story = history(*kind)
    every = cuts(story.log)
    for cut in every:
        for keep_unsynced in (True, False):
            go_on(story, *cut, keep_unsynced)
    print(f"{len(every)} cuts, each with and without what was not synced")


def test_the_dropping_history_drops() -> None:
    story = history(*DROPPING)
    assert sum(operation[0] == "remove" for operation in story.log) > 3
    assert story.durable[-1][2] > 0


def test_a_second_power_cut_while_recovering() -> None:
    """What recovery itself writes may be cut too."""
    story = history(*PLAIN)
    torn = next(
        number for number, operation in enumerate(story.log) if operation[0] == "append" and number > 6
    )
    disk = s.crashed(story.log, torn, 50, keep_unsynced=True)
    first = {name: bytes(data) for name, data in disk.files.items()}
    disk.log = [
        step
        for name, data in first.items()
        for step in (("create", name), ("append", name, data), ("sync", name))
    ]
    given = len(disk.log)
    s.recorder(disk, 500, boot=2).close(s.moment(500))
    for operations, n in cuts(disk.log):
        if operations < given or n % 10:
            continue
        for keep_unsynced in (True, False):
            again = s.crashed(disk.log, operations, n, keep_unsynced)
            s.recorder(again, 1000, boot=3).close(s.moment(1000))
            assert s.faults(s.segments(again), 1000) == [], (operations, n, keep_unsynced)
