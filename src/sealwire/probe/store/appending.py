"""Sealed segments into a store: verified, written, made durable, and only then said to be stored.

A batch is judged segment by segment against what is there and what it brings itself; then each probe's
file gets its part in one write, and each file one fsync.  Where that fails nothing of the batch is
stored: what was written is cut off again, and a file that cannot be trusted any more is never written
again.  The same segments may come again at any time; each number is stored once.

One call at a time.  What is held for a probe is bounded: its place in the chain and the hashes of its
latest segments; older ones are looked up in its files.
"""

from __future__ import annotations

import os
import string
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sealwire.errors import ConfigurationError, Error
from sealwire.probe.disk import NO_ROOM, Lock
from sealwire.probe.seal import frames
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.keys import PublicKey, parse_public_key
from sealwire.probe.seal.segment import SEGMENT_MAXIMUM_BYTES, Segment
from sealwire.probe.spool import SUFFIX
from sealwire.probe.store import reading
from sealwire.probe.store.chain import (
    Place,
    Refused,
    Rejected,
    Rejection,
    follow,
    key_after,
    opened,
    own_events,
)
from sealwire.probe.store.checkpoints import last_checkpoint
from sealwire.probe.store.disk import Disk, Folders, checked, locked
from sealwire.probe.store.manifest import Manifest

__all__ = ["Store", "StoreFull", "Stored"]

#: A file of segments gets no further ones from this size on: what can be compacted or removed in one go.
FILE_BYTES: Final = 8 << 20
#: Nor from this age on, so that a quiet probe's rows are compacted within a day.
FILE_NANOSECONDS: Final = 24 * 3600 * 1_000_000_000
#: Hashes of a probe's latest segments that are held, so that what comes again is known at once.
_RECENT: Final = 256
_LOCKS: Final = ("lock", "compact.lock")
_MORE: Final = ("", *string.ascii_lowercase)

KeyOf = Callable[[bytes], "PublicKey | None"]


class StoreFull(Error):
    """There is no room; nothing of what was handed in is stored."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A segment that is durable here."""

    probe: bytes
    boot: bytes
    segment: int
    hash: bytes
    first_event: int
    last_event: int
    #: False: it was here already.
    new: bool


@dataclass(slots=True)
class _Probe:
    """What is known of a probe."""

    place: Place | None = None
    #: The file that is being written, and how much of it is durable; "" before the first.
    file: str = ""
    size: int = 0
    #: When its first segment came.
    since: int = 0
    recent: OrderedDict[int, bytes] = field(default_factory=OrderedDict)


@dataclass(slots=True)
class _Batch:
    """What a call is about to store."""

    #: Where each probe's chain gets to.
    places: dict[str, Place] = field(default_factory=dict)
    written: dict[str, list[tuple[Segment, bytes]]] = field(default_factory=dict)
    hashes: dict[tuple[str, int], bytes] = field(default_factory=dict)
    #: Keys that sign, or may sign from here on.
    keys: dict[str, dict[bytes, PublicKey]] = field(default_factory=dict)
    #: Probes of which a segment was refused: behind a hole nothing is stored.
    broken: set[bytes] = field(default_factory=set)


class Store:
    """The writer of a store.  `key_of` gives an enrolled probe's first key, and is asked at each segment.

    Raises ConfigurationError for a directory that is another version's, somebody else's, or in use.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | Disk,
        key_of: KeyOf,
        *,
        file_bytes: int = FILE_BYTES,
        file_nanoseconds: int = FILE_NANOSECONDS,
    ) -> None:
        self._lock: Lock | None = None
        if isinstance(directory, str | os.PathLike):
            place = checked(directory)
            self._lock = locked(place, "lock", "a collector stores")
            self._disk: Disk = Folders(place)
        else:
            self._disk = directory
        self._key_of = key_of
        self._file_bytes = file_bytes
        self._file_nanoseconds = file_nanoseconds
        try:
            if reading.STORE not in self._disk.within(""):
                there = [*self._disk.folders(), *self._disk.within("")]
                if found := [name for name in there if name not in _LOCKS]:
                    raise ConfigurationError(
                        f"{self._disk.path('')} is no store, and not empty: it has {found[0]!r}"
                    )
                self._disk.replace(reading.STORE, reading.described([]))
            self._order = reading.probes(self._disk)
        except BaseException:
            self.close()
            raise
        self._probes: dict[str, _Probe] = {}
        #: Keys that are known to be kept, by probe.
        self._kept: set[tuple[str, bytes]] = set()
        #: Bytes cut off files that a crash had torn.
        self.cut_bytes = 0

    def close(self) -> None:
        """Let another process store.  May be called twice."""
        if isinstance(self._disk, Folders):
            self._disk.leave()
        if self._lock is not None:
            self._lock.release()

    def last(self, probe: bytes) -> tuple[int, bytes] | None:
        """Number and hash of the last segment of a probe that is or was stored."""
        place = self._known(probe.hex()).place
        return None if place is None else (place.segment, place.hash)

    def append(self, probe: bytes, frame: bytes, received: int) -> Stored | Rejected:
        """Store one segment; as `append_many`."""
        return self.append_many([(probe, frame)], received)[0]

    def append_many(self, frames_of: Sequence[tuple[bytes, bytes]], received: int) -> list[Stored | Rejected]:
        """Store segments, each a probe's id and the zstd frame as its spool has it, that came at `received`.

        What is returned as Stored is durable.  `received` is in nanoseconds since 1970.

        Raises StoreFull, or OSError where the disk failed: then nothing of this call is stored.
        """
        batch = _Batch()
        answers: list[Stored | Rejected] = []
        for probe, frame in frames_of:
            segment = None
            try:
                segment = _unpacked(frame)
                if probe in batch.broken:
                    raise Refused(Rejection.BEHIND)
                answers.append(self._judge(batch, probe, segment, frame))
            except Refused as wrong:
                number = None if segment is None else segment.header.segment
                answers.append(Rejected(wrong.reason, str(wrong), number))
                if wrong.reason is not Rejection.REMOVED:
                    batch.broken.add(probe)
        self._write(batch, received)
        return answers

    def _judge(self, batch: _Batch, probe: bytes, segment: Segment, frame: bytes) -> Stored:
        """Take a segment into the batch, or know it.  Raises Refused."""
        header, name = segment.header, probe.hex()
        enrolled = self._key_of(probe)
        if enrolled is None:
            raise Refused(Rejection.UNKNOWN_PROBE)
        if header.probe != probe:
            raise Refused(Rejection.WRONG_PROBE)
        place = batch.places.get(name) or self._known(name).place
        new = place is None or header.segment > place.segment
        key = enrolled if place is None else place.key
        if not new:
            self._known_already(batch, name, segment)
        else:
            if header.key != key.id:
                raise Refused(Rejection.OTHER_KEY, f"key id {header.key.hex()}")
            events = opened(segment, key)[1]
            if place is not None:
                follow(place, segment)
            after = key_after(events, key)
            batch.keys.setdefault(name, {}).update({key.id: key, after.id: after})
            batch.places[name] = Place(header.segment, header.last_event, segment.hash, after)
            batch.written.setdefault(name, []).append((segment, frame))
            batch.hashes[name, header.segment] = segment.hash
        return Stored(
            *(probe, header.boot, header.segment, segment.hash, header.first_event, header.last_event, new)
        )

    def _known_already(self, batch: _Batch, name: str, segment: Segment) -> None:
        """A number that the chain has passed: fine if this very segment is here.  Raises Refused."""
        number = segment.header.segment
        known = batch.hashes.get((name, number)) or self._hash_of(name, number)
        if known is None:
            checkpoint = last_checkpoint(self._disk, name)
            removed = checkpoint is not None and number <= checkpoint.last_segment
            raise Refused(Rejection.REMOVED if removed else Rejection.ORDER)
        if known != segment.hash:
            raise Refused(Rejection.FORK)

    def _hash_of(self, name: str, number: int) -> bytes | None:
        """The hash of a stored segment, from its file where it is an old one."""
        probe = self._probes[name]
        if number in probe.recent:
            return probe.recent[number]
        names = reading.files(self._disk, name)
        candidates = [index for index, file in enumerate(names) if reading.first_of(file) <= number]
        # Files that begin with the same number: what a failed disk left stands before what counts.
        for index in reversed(candidates[-len(_MORE) :]):
            try:
                found_there = list(
                    reading.segments(self._disk, name, names[index], reading.following(names, index))
                )
            except FileNotFoundError:  # retention was here in between
                continue
            for found in found_there:
                if isinstance(found, reading.Arrived):
                    if found.segment.header.segment == number:
                        return found.segment.hash
                    if found.segment.header.segment > number:
                        break
        return None

    def _write(self, batch: _Batch, received: int) -> None:
        """Make a batch durable, all of it.  Raises StoreFull or OSError."""
        begun: list[tuple[_Probe, str]] = []
        try:
            for name, written in batch.written.items():
                self._announce(name)
                probe = self._known(name)
                self._enter(probe, name, written, received)
                begun.append((probe, name))
                self._keep_keys(name, batch.keys[name])
                note = reading.note(received)
                self._disk.append(f"{name}/{probe.file}", b"".join(note + frame for _, frame in written))
            for probe, name in begun:
                self._disk.sync(f"{name}/{probe.file}")
        except OSError as error:
            for probe, name in begun:
                self._take_back(probe, name)
            if error.errno in NO_ROOM:
                raise StoreFull("the disk of the store is full") from None
            raise
        for probe, name in begun:
            probe.place = batch.places[name]
            probe.size += sum(len(frame) + len(note) for _, frame in batch.written[name])
            for segment, _ in batch.written[name]:
                probe.recent[segment.header.segment] = batch.hashes[name, segment.header.segment]
            while len(probe.recent) > _RECENT:
                probe.recent.popitem(last=False)

    def _announce(self, name: str) -> None:
        """Give a probe its place in the store before there is a first segment of it."""
        if name not in self._order:
            self._disk.replace(reading.STORE, reading.described([*self._order, name]))
            self._order.append(name)

    def _keep_keys(self, name: str, keys: dict[bytes, PublicKey]) -> None:
        """Keep the keys that sign: a chain can be followed where it left the enrolled one."""
        for key_id, key in keys.items():
            file = f"{reading.KEY_PREFIX}{key_id.hex()}"
            if (name, key_id) not in self._kept:
                if file not in self._disk.within(name):
                    self._disk.replace(f"{name}/{file}", key.spki)
                self._kept.add((name, key_id))

    def _enter(self, probe: _Probe, name: str, written: list[tuple[Segment, bytes]], received: int) -> None:
        """See to the file that a probe's segments go to."""
        more = sum(len(frame) for _, frame in written)
        old = received - probe.since > self._file_nanoseconds
        if probe.file and probe.size and not old and probe.size + more <= self._file_bytes:
            return
        if probe.file and not probe.size:
            return
        first = written[0][0].header.segment
        taken = self._disk.within(name)
        file = next(file for file in (f"{first:016d}{more}{SUFFIX}" for more in _MORE) if file not in taken)
        self._disk.create(f"{name}/{file}")
        probe.file, probe.size, probe.since = file, 0, received

    def _take_back(self, probe: _Probe, name: str) -> None:
        """After a failure: the file as it was; where that fails, too, never again."""
        try:
            self._disk.truncate(f"{name}/{probe.file}", probe.size)
            self._disk.sync(f"{name}/{probe.file}")
        except OSError:
            probe.file, probe.size = "", 0

    def _known(self, name: str) -> _Probe:
        """A probe as its files have it; torn ends are cut off."""
        found = self._probes.get(name)
        if found is None:
            found = self._probes[name] = self._recovered(name)
        return found

    def _recovered(self, name: str) -> _Probe:
        probe = _Probe()
        checkpoint = last_checkpoint(self._disk, name)
        if checkpoint is not None:
            probe.place = checkpoint.place()
        names = reading.files(self._disk, name)
        below: int | None = None
        last = ""
        for file in reversed(names):
            size, ends = self._mended(name, file, below)
            below = reading.first_of(file)
            if size == 0:
                self._disk.remove(f"{name}/{file}")
            elif not last:
                last, probe.size = file, size
                self._resume(probe, name, ends)
            elif ends and size:
                break
        if last and last not in {file.name for file in Manifest.read(self._disk, name).files}:
            probe.file = last
        else:
            probe.size = 0
        return probe

    def _mended(self, name: str, file: str, below: int | None) -> tuple[int, list[reading.Arrived]]:
        """Cut off what a crash tore and what the next file has again; the size that is left, and the ends."""
        path = f"{name}/{file}"
        size = self._disk.size(path)
        ends: list[reading.Arrived] = []
        keep = size
        for found in reading.walk(self._disk.read(path)):
            if isinstance(found, reading.Damage):
                keep = found.begin if found.tail else keep
            elif below is not None and found.segment.header.segment >= below:
                keep = found.begin
                break
            else:
                ends = [*ends[-_RECENT:], found]
        if keep < size:
            self.cut_bytes += size - keep
            self._disk.truncate(path, keep)
            self._disk.sync(path)
        return keep, ends

    def _resume(self, probe: _Probe, name: str, ends: list[reading.Arrived]) -> None:
        """Go on behind the last segments of a file."""
        if not ends:
            return
        for found in ends:
            probe.recent[found.segment.header.segment] = found.segment.hash
        last = ends[-1].segment
        header = last.header
        probe.since = ends[0].received
        key = key_after(own_events(last), self._key(name, header.key))
        probe.place = Place(header.segment, header.last_event, last.hash, key)

    def _key(self, name: str, key_id: bytes) -> PublicKey:
        """A key by which a stored segment was verified.  Raises ConfigurationError where it is gone."""
        try:
            return parse_public_key(self._disk.read(f"{name}/{reading.KEY_PREFIX}{key_id.hex()}"))
        except (OSError, ValueError):
            raise ConfigurationError(f"{self._disk.path(name)}: the key {key_id.hex()} is missing") from None


def _unpacked(frame: bytes) -> Segment:
    """The segment of a frame.  Raises Refused."""
    if len(frame) > SEGMENT_MAXIMUM_BYTES:
        raise Refused(Rejection.MALFORMED, "it is too long")
    try:
        return frames.unpack_one(frame)
    except Malformed as wrong:
        raise Refused(Rejection.MALFORMED, str(wrong)) from None
