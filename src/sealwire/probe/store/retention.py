"""What a store may forget: the oldest of a probe, by age or size, never in silence.

A unit (some files of segments and their tables) goes as a whole, oldest first.  In this order: a checkpoint
signed by the collector says what was removed up to where; the manifest stops naming it; the files go.
Whoever is killed in between leaves a store that says more than it lost, and the next time goes on.
What is left of the chain is verified from the checkpoint on.  What was not compacted yet always stays.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from sealwire.errors import ConfigurationError
from sealwire.probe.seal.keys import PublicKey, SigningKey, parse_public_key
from sealwire.probe.store import reading
from sealwire.probe.store.chain import key_after, own_events
from sealwire.probe.store.checkpoints import Why, add, last_checkpoint, make
from sealwire.probe.store.compaction import nothing
from sealwire.probe.store.disk import Disk
from sealwire.probe.store.manifest import File, Manifest, Unit


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be kept.  None is no limit."""

    #: Nanoseconds since a unit's last segment came.
    age: int | None = None
    #: Bytes of all files that are compacted, and their tables.
    most_bytes: int | None = None


@dataclass(slots=True)
class Removed:
    """What was removed."""

    units: int = 0
    segments: int = 0
    events: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Candidate:
    probe: str
    unit: Unit
    files: tuple[File, ...]
    #: When the last of it came, and of everything before it.
    age: int

    @property
    def bytes(self) -> int:
        return self.unit.bytes + sum(file.bytes for file in self.files)


def retain(
    disk: Disk, policy: Policy, now: int, key: SigningKey, step: Callable[[str], None] = nothing
) -> Removed:
    """Remove what the policy lets go; the compaction lock is the caller's to hold.

    Raises OSError, and ConfigurationError where what is to be removed cannot be read.
    """
    removed = Removed()
    candidates = [found for probe in reading.probes(disk) for found in _candidates(disk, probe)]
    held = sum(found.bytes for found in candidates)
    blocked: set[str] = set()
    for found in sorted(candidates, key=lambda one: one.age):
        old = policy.age is not None and now - found.age > policy.age
        large = policy.most_bytes is not None and held > policy.most_bytes
        if found.probe in blocked or not (old or large):
            # Of a probe only the beginning goes.
            blocked.add(found.probe)
            continue
        _remove(disk, found, Why.AGE if old else Why.SIZE, now, key, step)
        held -= found.bytes
        removed.units += 1
        removed.segments += sum(file.last_segment - file.first_segment + 1 for file in found.files)
        removed.events += sum(file.last_event - file.first_event + 1 for file in found.files)
        removed.bytes += found.bytes
    return removed


def _candidates(disk: Disk, probe: str) -> list[_Candidate]:
    """A probe's units in their order."""
    manifest = Manifest.read(disk, probe)
    ages = itertools.accumulate((unit.received for unit in manifest.units), max)
    found = []
    for unit, age in zip(manifest.units, ages, strict=True):
        inside = range(unit.first_segment, unit.last_segment + 1)
        files = tuple(file for file in manifest.files if file.first_segment in inside)
        found.append(_Candidate(probe, unit, files, age))
    return found


def _remove(
    disk: Disk, found: _Candidate, why: Why, now: int, key: SigningKey, step: Callable[[str], None]
) -> None:
    probe, unit = found.probe, found.unit
    known = last_checkpoint(disk, probe)
    if known is None or known.last_segment < unit.last_segment:
        last = _last(disk, probe, unit)
        step("checkpoint")
        checkpoint = make(
            *(last.segment, _next_key(disk, probe, last)),
            first_segment=unit.first_segment,
            removed=now,
            why=why,
            key=key,
        )
        add(disk, probe, checkpoint)
    step("forget")
    manifest = Manifest.read(disk, probe)
    manifest.units = [one for one in manifest.units if one.last_segment > unit.last_segment]
    gone = {file.name for file in manifest.files if file.first_segment <= unit.last_segment}
    manifest.files = [file for file in manifest.files if file.name not in gone]
    manifest.removed = unit.last_segment
    manifest.write(disk, probe)
    for name in sorted({*gone, *unit.tables.values()} & set(disk.within(probe))):
        step("remove")
        disk.remove(f"{probe}/{name}")


def _last(disk: Disk, probe: str, unit: Unit) -> reading.Arrived:
    """The last segment of a unit, which its checkpoint keeps the header of."""
    names = reading.files(disk, probe)
    for index in reversed(range(len(names))):
        if not unit.first_segment <= reading.first_of(names[index]) <= unit.last_segment:
            continue
        for found in reading.segments(disk, probe, names[index], reading.following(names, index)):
            if isinstance(found, reading.Arrived) and found.segment.header.segment == unit.last_segment:
                return found
    raise ConfigurationError(
        f"{disk.path(probe)}: segment {unit.last_segment} cannot be read, so nothing is removed"
    )


def _next_key(disk: Disk, probe: str, last: reading.Arrived) -> PublicKey:
    key_id = last.segment.header.key.hex()
    try:
        key = parse_public_key(disk.read(f"{probe}/{reading.KEY_PREFIX}{key_id}"))
    except (OSError, ValueError):
        raise ConfigurationError(f"{disk.path(probe)}: the key {key_id} is missing") from None
    return key_after(own_events(last.segment), key)
