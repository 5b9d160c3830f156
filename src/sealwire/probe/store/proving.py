"""The proof of a row: the segment its event was sealed in is found, and the path made again."""

from __future__ import annotations

from dataclasses import dataclass

from sealwire.errors import Error
from sealwire.probe.seal.segment import Segment, prove
from sealwire.probe.store import reading
from sealwire.probe.store.checkpoints import last_checkpoint
from sealwire.probe.store.disk import Disk
from sealwire.probe.store.manifest import Manifest


class NotHere(Error):
    """There is no such row, or no longer."""


@dataclass(frozen=True, slots=True)
class Proved:
    """A proof, and of what."""

    probe: str
    segment: int
    sequence: int
    proof: bytes


def prove_row(disk: Disk, row: int) -> Proved:
    """The proof of the row with this number, as `sealwire query` shows it.  Raises NotHere."""
    place, sequence = reading.row_of(row)
    probes = reading.probes(disk)
    if row < 0 or place >= len(probes):
        raise NotHere(f"there is no row {row}: the store has {len(probes)} probes")
    return prove_event(disk, probes[place], sequence)


def prove_event(disk: Disk, probe: str, sequence: int) -> Proved:
    """The proof of a probe's event.  Raises NotHere."""
    if probe not in reading.probes(disk):
        raise NotHere(f"there is no probe {probe}")
    segment = _find(disk, probe, sequence)
    if segment is None:
        checkpoint = last_checkpoint(disk, probe)
        if checkpoint is not None and sequence <= checkpoint.last.last_event:
            raise NotHere(
                f"event {sequence} was removed by retention, with segments up to {checkpoint.last_segment}"
            )
        raise NotHere(f"there is no event {sequence} of probe {probe}")
    try:
        proof = prove(segment, sequence - segment.header.first_event)
    except (ValueError, IndexError):
        raise NotHere(f"segment {segment.header.segment} is damaged") from None
    return Proved(probe, segment.header.segment, sequence, proof)


def _find(disk: Disk, probe: str, sequence: int) -> Segment | None:
    """The segment with this event: by the manifest where it is compacted, else by a look at what is not."""
    manifest = Manifest.read(disk, probe)
    known = {file.name: file for file in manifest.files}
    names = reading.files(disk, probe)
    for index, name in enumerate(names):
        file = known.get(name)
        if file is not None and not file.first_event <= sequence <= file.last_event:
            continue
        try:
            for found in reading.segments(disk, probe, name, reading.following(names, index)):
                if isinstance(found, reading.Arrived):
                    header = found.segment.header
                    if header.first_event <= sequence <= header.last_event:
                        return found.segment
        except FileNotFoundError:
            continue
    return None
