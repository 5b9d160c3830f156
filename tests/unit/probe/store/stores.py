"""What the tests of stores share: a disk with folders, sealed frames of probes, stores on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sealwire.probe.events import Event, Gap, GapReason
from sealwire.probe.features import row_struct
from sealwire.probe.seal import frames
from sealwire.probe.seal.intake import Flows, Transactions
from sealwire.probe.seal.keys import PublicKey
from sealwire.probe.seal.segment import Segment
from sealwire.probe.store import Store, Stored, reading
from sealwire.probe.store.disk import Disk
from tests.unit.probe import sealing as s


class FolderDisk(s.MemoryDisk):
    """A MemoryDisk whose names have a folder in front."""

    def folders(self) -> list[str]:
        return sorted({name.split("/")[0] for name in self.files if "/" in name})

    def within(self, folder: str) -> list[str]:
        inside = folder + "/" if folder else ""
        found = (name.removeprefix(inside) for name in self.files if name.startswith(inside))
        return sorted(name for name in found if "/" not in name)

    def path(self, name: str) -> Path:
        return Path("/memory") / name


def crashed(log: list[tuple[Any, ...]], operations: int, n: int, keep_unsynced: bool) -> FolderDisk:
    """The disk after a power cut, as sealing.crashed."""
    return FolderDisk(s.crashed(log, operations, n, keep_unsynced).files)


def enrolled(*numbers: int) -> Any:
    """Answers with the keys of these probes."""
    known = {s.key(number).id: s.key(number).public for number in numbers or (0, 1, 2)}

    def key_of(probe: bytes) -> PublicKey | None:
        return known.get(probe)

    return key_of


def sealed(count: int = 6, number: int = 0, *, rows: int = 2, **more: Any) -> list[Segment]:
    """The segments of a probe that starts, seals some flows and transactions, and stops."""
    disk = s.MemoryDisk()
    probe = s.recorder(disk, number=number, **more)
    for second in range(1, count + 1):
        data, facts = s.dissected(rows, 1000 * number + second)
        probe.take(Flows(data, row_struct().size, facts), s.moment(second))
        if second % 2:
            probe.take(Transactions(s.transactions(1, second)), s.moment(second))
        probe.flush(s.moment(second))
    probe.close(s.moment(count + 1))
    return s.segments(disk)


def framed(segments: list[Segment]) -> list[tuple[bytes, bytes]]:
    """Segments as a collector hands them in."""
    return [(segment.header.probe, frames.pack(segment)) for segment in segments]


def stored(disk: Disk, probe: bytes) -> list[Segment]:
    """The segments of a probe as a reader finds them."""
    names = reading.files(disk, probe.hex())
    return [
        found.segment
        for index, name in enumerate(names)
        for found in reading.segments(disk, probe.hex(), name, reading.following(names, index))
        if isinstance(found, reading.Arrived)
    ]


def take(store: Store, segments: list[Segment], at: float = 0.0) -> list[Stored]:
    """Store segments that must be taken."""
    answers = store.append_many(framed(segments), s.moment(at).wall)
    found = [answer for answer in answers if isinstance(answer, Stored)]
    assert len(found) == len(answers), answers
    return found


def gap(reason: GapReason = GapReason.QUEUE_FULL) -> Event:
    return Gap(s.BEGIN, reason, None, None, 3, None, None, None, None, None)
