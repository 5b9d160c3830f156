"""The recorder on disks that fill, fail and lie: what is lost is said, and what is said can be verified."""

from __future__ import annotations

import errno
import itertools
from typing import Any

import pytest

from sealwire.errors import ConfigurationError
from sealwire.probe.events import Clock, Event, Gap, GapReason, Heartbeat, Key, Stop, decode
from sealwire.probe.features import row_struct
from sealwire.probe.seal import frames
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.intake import Flows
from sealwire.probe.seal.recorder import Recorder, SpoolFailed
from sealwire.probe.seal.segment import SEGMENT_BYTES, SEGMENT_EVENTS, Segment
from sealwire.probe.spool import BEGIN, Directory, Spool
from tests.unit.probe import sealing as s

STRIDE = row_struct().size


def events(found: list[Segment]) -> list[Event]:
    """The probe's own events."""
    leaves = [leaf for segment in found for leaf in segment.leaves() if leaf[1] != 1]
    return [event for event in map(decode, leaves) if event is not None]


def gaps(disk: s.MemoryDisk) -> list[Gap]:
    return [event for event in events(s.segments(disk)) if isinstance(event, Gap)]


def feed(probe: Recorder, second: float, n: int = 2) -> None:
    assert probe.take(Flows(s.rows(n, int(second)), STRIDE), s.moment(second)) == n
    probe.flush(s.moment(second))


def test_a_segment_ends_with_its_events_or_bytes_or_time() -> None:
    disk = s.MemoryDisk()
    probe = s.recorder(disk)
    row = s.row(1)
    probe.take(Flows(row * (SEGMENT_EVENTS + 10), STRIDE), s.moment(1))
    assert probe.deadline() == s.moment(1).uptime + 50_000_000
    probe.wake(s.moment(1.04))
    sizes = [segment.header.events for segment in s.segments(disk)]
    assert all(len(segment.framed) <= SEGMENT_BYTES + 1000 for segment in s.segments(disk))
    assert max(sizes) < SEGMENT_EVENTS  # this row is long: bytes came first
    probe.wake(s.moment(1.05))
    assert sum(segment.header.events for segment in s.segments(disk)) == 1 + SEGMENT_EVENTS + 10
    disk = s.MemoryDisk()
    probe = s.recorder(disk)
    for _ in range(SEGMENT_EVENTS):
        probe.event(Heartbeat(1), s.moment(1))
    assert [segment.header.events for segment in s.segments(disk)] == [1, SEGMENT_EVENTS]


def test_a_quiet_probe_beats_and_a_clock_that_is_set_is_said() -> None:
    disk = s.MemoryDisk()
    probe = s.recorder(disk, heartbeat=10)
    for second in range(1, 40):
        probe.wake(s.moment(second, step=-100 if second > 25 else 0))
    found = events(s.segments(disk))
    assert sum(isinstance(event, Heartbeat) for event in found) == 3
    (clock,) = [event for event in found if isinstance(event, Clock)]
    assert clock.step == -100 * s.SECOND
    assert s.faults(s.segments(disk), -60) == []
    # Nothing for longer than two heartbeats: the end is missing.
    assert [fault.name for fault in s.faults(s.segments(disk), 100)] == ["OPEN_END"]


def test_sequences_go_on_over_clean_restarts() -> None:
    disk = s.MemoryDisk()
    for boot in range(5):
        probe = s.recorder(disk, 10 * boot, boot=boot)
        feed(probe, 10 * boot + 1)
        probe.close(s.moment(10 * boot + 2))
    found = s.segments(disk)
    assert [segment.header.segment for segment in found] == list(range(len(found)))
    ranges = [(segment.header.first_event, segment.header.last_event) for segment in found]
    assert all(before[1] + 1 == after[0] for before, after in itertools.pairwise(ranges))
    assert gaps(disk) == []
    verdict = s.judge(found, 42)
    assert (verdict.totals.faults, verdict.totals.boots) == (0, 5)


def test_an_unclean_restart_is_a_gap_with_its_interval() -> None:
    disk = s.MemoryDisk()
    feed(s.recorder(disk), 7)
    s.recorder(disk, 90, boot=2).close(s.moment(91))
    (gap,) = gaps(disk)
    assert (gap.reason, gap.since, gap.until) == (
        GapReason.UNCLEAN_RESTART,
        s.moment(7).wall,
        s.moment(90).wall,
    )
    assert gap.first_segment is None
    assert s.faults(s.segments(disk), 91) == []


def test_numbers_behind_torn_bytes_are_never_used_again() -> None:
    disk = s.MemoryDisk()
    feed(s.recorder(disk), 1)
    name = s.files(disk)[-1]
    disk.files[name] += b"\x28\xb5\x2f\xfd torn"
    s.recorder(disk, 90, boot=2).close(s.moment(91))
    (gap,) = gaps(disk)
    assert (gap.first_segment, gap.last_segment) == (2, 2)
    assert gap.first_event == 3
    assert s.segments(disk)[2].header.segment == 3
    assert b"torn" not in disk.files[name]
    assert s.faults(s.segments(disk), 91) == []


def test_a_file_that_was_damaged_stays_as_evidence() -> None:
    disk = s.MemoryDisk()
    probe = s.recorder(disk)
    for second in range(1, 6):
        feed(probe, second)
    probe.close(s.moment(6))
    name = s.files(disk)[0]
    disk.files[name][len(disk.files[name]) // 2] ^= 4
    before = bytes(disk.files[name])
    s.recorder(disk, 90, boot=2).close(s.moment(91))
    assert bytes(disk.files[name]) == before
    new = [found.segment.header.segment for found in frames.unpack(bytes(disk.files[s.files(disk)[1]]))]
    assert new[0] > 6, "numbers that were used are used again"


def test_the_oldest_make_room_and_the_chain_links_again() -> None:
    disk = s.MemoryDisk()
    most = 12_000
    probe = s.recorder(disk, most=most, file_bytes=1_500)
    for second in range(1, 80):
        feed(probe, second, 3)
        assert sum(map(len, disk.files.values())) <= most
    probe.close(s.moment(80))
    found = s.segments(disk)
    assert found[0].header.segment > 20
    dropped = [gap for gap in gaps(disk) if gap.reason == GapReason.SPOOL_FULL]
    assert dropped[-1].last_segment == found[0].header.segment - 1
    assert dropped[-1].hash == found[0].header.previous
    assert dropped[-1].last_event == found[0].header.first_event - 1
    verdict = s.judge(found, 80)
    assert verdict.totals.faults == 0
    assert verdict.totals.lost_events == found[0].header.first_event
    # Recovery finds nothing to say of it: this loss is declared.
    s.recorder(disk, 100, boot=2, most=most, file_bytes=1_500).close(s.moment(101))
    assert [gap.reason for gap in gaps(disk)][-1] != GapReason.MISSING
    assert s.faults(s.segments(disk), 101) == []


def test_files_that_vanish_while_the_probe_is_off_are_said_to_be_missing() -> None:
    disk = s.MemoryDisk()
    probe = s.recorder(disk, file_bytes=1_000)
    for second in range(1, 12):
        feed(probe, second)
    probe.close(s.moment(12))
    del disk.files[s.files(disk)[0]]
    assert s.faults(s.segments(disk), 12)[0].name == "MISSING"
    first = s.segments(disk)[0]
    s.recorder(disk, 90, boot=2).close(s.moment(91))
    (gap,) = gaps(disk)
    assert (gap.reason, gap.last_segment, gap.hash) == (
        *(GapReason.MISSING, first.header.segment - 1, first.header.previous),
    )


def test_a_full_disk_drops_the_oldest_file() -> None:
    disk = s.MemoryDisk(room=8_000)
    probe = s.recorder(disk, file_bytes=1_500)
    for second in range(1, 60):
        feed(probe, second, 3)
    probe.close(s.moment(60))
    assert gaps(disk)
    assert {gap.reason for gap in gaps(disk)} == {GapReason.SPOOL_FULL}
    assert s.faults(s.segments(disk), 60) == []


def test_a_full_disk_without_anything_to_drop_stalls_until_there_is_room() -> None:
    disk = s.MemoryDisk(room=1_500)
    probe = s.recorder(disk)
    intake, second = Flows(s.rows(60, 5), STRIDE), 1
    while not probe.stalled:
        probe.take(intake, s.moment(second))
        probe.flush(s.moment(second))
        second += 1
        intake = Flows(s.rows(10, second), STRIDE)
    assert probe.take(intake, s.moment(second)) == 0, "a stalled recorder takes nothing"
    assert intake.left
    with pytest.raises(SpoolFailed):
        probe.close(s.moment(second))
    disk.room = 100_000
    probe.wake(s.moment(second + 1))
    probe.flush(s.moment(second + 2))
    assert isinstance(events(s.segments(disk))[-1], Stop)
    assert gaps(disk) == []
    assert [fault.name for fault in s.faults(s.segments(disk), second + 2)] == []


def test_a_failed_fsync_poisons_the_file_and_is_never_tried_again() -> None:
    disk = s.MemoryDisk()
    probe = s.recorder(disk)
    feed(probe, 1)
    (poisoned,) = s.files(disk)
    disk.errors["sync"] = [errno.EIO]
    feed(probe, 2, 3)
    size = len(disk.files[poisoned])
    synced = sum(step == ("sync", poisoned) for step in disk.log)
    feed(probe, 3)
    probe.close(s.moment(4))
    assert len(disk.files[poisoned]) == size
    assert sum(step == ("sync", poisoned) for step in disk.log) == synced
    (gap,) = gaps(disk)
    assert (gap.reason, gap.first_segment, gap.last_segment) == (GapReason.WRITE_FAILED, 2, 2)
    assert (gap.first_event, gap.last_event) == (3, 5)
    # Whether the doubtful segment is there or not, everything is accounted for.
    assert s.faults(s.segments(disk), 4) == []
    assert s.faults([segment for segment in s.segments(disk) if segment.header.segment != 2], 4) == []


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EFBIG])
def test_a_failed_write_goes_on_in_another_file(code: int) -> None:
    disk = s.MemoryDisk()
    probe = s.recorder(disk)
    feed(probe, 1)
    disk.errors["append"] = [code]
    feed(probe, 2)
    probe.close(s.moment(3))
    assert len(s.files(disk)) == 2
    assert [gap.reason for gap in gaps(disk)] == [GapReason.WRITE_FAILED]


def test_a_disk_that_fails_for_good_ends_the_sealing() -> None:
    disk = s.MemoryDisk()
    probe = s.recorder(disk)
    disk.errors["sync"] = [errno.EIO] * 100
    with pytest.raises(SpoolFailed):
        feed(probe, 2)
    disk = s.MemoryDisk()
    probe = s.recorder(disk)
    disk.errors["append"] = [errno.EIO] * 100
    with pytest.raises(SpoolFailed):
        feed(probe, 2)


def test_nothing_is_reported_durable_before_it_was_synced() -> None:
    disk = s.MemoryDisk()
    probe = s.recorder(disk)
    probe.take(Flows(s.rows(3), STRIDE), s.moment(1))
    assert probe.committed is not None
    assert probe.committed.segment == 0
    disk.errors["sync"] = [0, errno.EIO]
    probe.flush(s.moment(2))
    assert probe.committed.segment == 1
    probe.take(Flows(s.rows(3), STRIDE), s.moment(3))
    probe.flush(s.moment(3))
    durable = crashed_segments(disk)
    assert probe.committed.segment in durable


def crashed_segments(disk: s.MemoryDisk) -> set[int]:
    after = s.crashed(disk.log, len(disk.log), 0, keep_unsynced=False)
    return {segment.header.segment for segment in s.segments(after)}


# Keys.


def test_a_new_key_is_introduced_by_the_old_one() -> None:
    disk = s.MemoryDisk()
    probe = s.recorder(disk)
    feed(probe, 1)
    probe.close(s.moment(2))
    after = s.recorder(disk, 10, boot=2, number=1, old_key=s.key(0))
    feed(after, 11)
    after.close(s.moment(12))
    found = s.segments(disk)
    assert any(isinstance(event, Key) for event in events(found))
    assert s.faults(found, 12, s.trust(0)) == [], "the old key is all one must trust"
    assert {segment.header.key for segment in found} == {s.key(0).id, s.key(1).id}
    assert len({segment.header.probe for segment in found}) == 1, "the probe stays the same one"
    # From then on the new key alone will do, and the old one will not.
    s.recorder(disk, 20, boot=3, number=1).close(s.moment(21))
    with pytest.raises(ConfigurationError, match="another key"):
        s.recorder(disk, 30, boot=4, number=0)
    assert s.faults(s.segments(disk), 21, s.trust(0)) == []
    # Trusting only the new key is not enough for what the old one signed.
    assert s.faults(s.segments(disk), 21, s.trust(1))[0].name == "UNKNOWN_KEY"


def test_another_key_alone_is_refused() -> None:
    disk = s.MemoryDisk()
    s.recorder(disk).close(s.moment(1))
    with pytest.raises(ConfigurationError, match="another key"):
        s.recorder(disk, 10, number=1)
    with pytest.raises(ConfigurationError, match="another key"):
        s.recorder(disk, 10, number=1, old_key=s.key(2))


def test_the_stop_is_the_last_event() -> None:
    disk = s.MemoryDisk()
    probe = s.recorder(disk)
    probe.close(s.moment(1), Gap(1, GapReason.PROBE_ENDED, None, 1, None, None, None, None, None, None))
    found = events(s.segments(disk))
    assert [type(event) for event in found[-2:]] == [Gap, Stop]


# Frames and directories.


def test_frames_are_bounded_before_they_are_unpacked() -> None:
    import zstandard

    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    with pytest.raises(Malformed, match="longer than a segment"):
        list(frames.unpack(bomb))
    for n in range(40):
        with pytest.raises(Malformed):
            list(frames.unpack(bomb[: n + 1]))
    untold = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 1000)
    with pytest.raises(Malformed, match="does not say"):
        list(frames.unpack(untold))
    two = zstandard.ZstdCompressor().compress(b"x") + b"junk"
    assert frames.frame_end(two, 0) == len(two) - 4


@pytest.mark.parametrize("size", [0, 1, 100, 300_000])
def test_the_end_of_a_frame_is_found_by_its_blocks(size: int) -> None:
    import zstandard

    for data in (bytes(size), s.rows(size // 400 + 1)[:size]):
        for level, checksum in itertools.product((1, 19), (True, False)):
            compressor = zstandard.ZstdCompressor(level=level, write_checksum=checksum)
            frame = compressor.compress(data)
            assert frames.frame_end(frame + b"\x28\xb5", 0) == len(frame)


def test_two_signers_cannot_write_one_spool(tmp_path: Any) -> None:
    first = Directory(tmp_path / "events")
    with pytest.raises(ConfigurationError, match="another signer"):
        Directory(tmp_path / "events")
    first.close()
    Directory(tmp_path / "events").close()


def test_a_directory_is_a_disk(tmp_path: Any) -> None:
    disk = Directory(tmp_path)
    probe = Recorder(
        Spool(disk, 20_000, 2_000), s.key(), s.moment(0), boot=bytes(16), software="test", heartbeat=60
    )
    for second in range(1, 80):
        feed(probe, second)
    probe.close(s.moment(80))
    assert (tmp_path / BEGIN).exists()
    disk.close()
    again = Directory(tmp_path)
    spool = Spool(again, 20_000, 2_000)
    assert spool.found.last is not None
    assert spool.found.doubtful_segments == 0
    assert spool.found.missing_before is None
    again.close()
