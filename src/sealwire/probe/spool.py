"""The spool: segments on disk, append-only, bounded, and honest after any end.

A file holds segments as zstd frames and is named by its first one.  What was appended counts only
once `commit` has made it durable; nothing may be sent before.  A write that found no room is taken
back.  A write or fsync that failed poisons its file: what is in there since the last commit is in
doubt for good (a second fsync would succeed and prove nothing), so the file is left and never
touched again.  The oldest files make room.

Opening finds the last whole segment.  What is behind it was cut by a crash and is cut off, unless
whole segments follow: then the file was damaged, and stays as evidence.  Either way the numbers that
the unreadable bytes may have used are never used again.
"""

from __future__ import annotations

import os
import string
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from sealwire.errors import Error
from sealwire.probe import disk
from sealwire.probe.seal import frames
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.delivered import Delivered
from sealwire.probe.seal.segment import SEGMENT_EVENTS, Segment

SUFFIX: Final = ".seal.zst"
#: Names the first segment that should be here, once older ones made room.
BEGIN: Final = "begin"
_LOCK: Final = "lock"
#: No frame of a segment is shorter: four hashes and ids, a boot id and a signature do not compress.
FRAME_MINIMUM_BYTES: Final = 192
#: What tells apart files that begin with the same segment; sorts behind nothing.
_MORE: Final = ("", *string.ascii_lowercase)


class NoRoom(Error):
    """The disk is full; nothing of the segment is in the spool."""


class Poisoned(Error):
    """The file that was being written cannot be trusted any more.

    Attributes:
        lost: the segments whose fate is unknown, oldest first.
    """

    def __init__(self, lost: list[Segment], reason: OSError) -> None:
        super().__init__(f"the spool's disk failed: {reason.strerror or reason}")
        self.lost = lost


class Disk(disk.Disk, Protocol):
    """What a spool asks of a directory."""

    def names(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Range:
    """Segments one after another, as a Gap names them."""

    first_segment: int
    last_segment: int
    first_event: int
    last_event: int
    hash: bytes

    @classmethod
    def of(cls, segment: Segment) -> Range:
        header = segment.header
        return cls(header.segment, header.segment, header.first_event, header.last_event, segment.hash)

    def to(self, last: Segment) -> Range:
        """The same up to a later segment."""
        return replace(
            self, last_segment=last.header.segment, last_event=last.header.last_event, hash=last.hash
        )


@dataclass(slots=True)
class Found:
    """What opening a spool found."""

    #: The last whole segment; None in an empty spool.
    last: Segment | None = None
    #: Segment and event numbers behind `last` that may have been used.
    doubtful_segments: int = 0
    doubtful_events: int = 0
    #: The first segment here, if those before it are not known to have made room.
    missing_before: Segment | None = None


@dataclass(slots=True)
class _File:
    name: str
    size: int
    #: What was written to it; None where that is not known, or in doubt.
    holds: Range | None = None
    #: How much of it is durable, and which segments that is; None where that is not known.
    durable: int = 0
    keeps: Range | None = None


@dataclass(slots=True)
class _Walk:
    """What walking a file found: its first and last whole segments, where they end, how long it is."""

    first: Segment | None
    last: Segment | None
    good: int
    data: bytes


@dataclass(slots=True)
class Spool:
    """Segments on a disk, at most `most_bytes` of them, in files of about `file_bytes`.

    With `delivered`, they stay until they are: only then the oldest may make room.
    """

    disk: Disk
    most_bytes: int
    file_bytes: int = 0
    delivered: Delivered | None = None
    found: Found = field(default_factory=Found)
    _files: list[_File] = field(default_factory=list)
    _open: bool = False
    _uncommitted: list[Segment] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.file_bytes = self.file_bytes or max(self.most_bytes // 16, 1)
        self._recover()

    @property
    def held(self) -> int:
        """What the spool's files take now."""
        return sum(file.size for file in self._files)

    @property
    def undelivered(self) -> int:
        """Bytes of what no collector has, as well as can be told without looking; 0 where none is asked."""
        if self.delivered is None:
            return 0
        left = 0
        for file in self._files:
            if (keeps := self._keeps(file)) is not None:
                n = keeps.last_segment - keeps.first_segment + 1
                there = self.delivered.numbers.within(keeps.first_segment, keeps.last_segment)
                left += file.size * (n - there) // n
        return left

    def readable(self) -> list[tuple[str, int]]:
        """The files, oldest first, and how much of each is durable: what may be sent."""
        return [(file.name, file.durable) for file in self._files if file.durable]

    def drop_delivered(self) -> bool:
        """Remove the oldest file if a collector has all of it; whether that was so.  Raises OSError."""
        if self.delivered is None or not self._files or (self._open and len(self._files) == 1):
            return False
        keeps = self._keeps(self._files[0])
        if keeps is None:
            # Nothing in it was ever durable: what it may hold was said to be in doubt.
            self.remove_oldest()
            return True
        if not self.delivered.numbers.covers(keeps.first_segment, keeps.last_segment):
            return False
        self.delivered.write()
        self.drop_oldest(keeps.last_segment + 1)
        self.delivered.forget(keeps.last_segment)
        return True

    def _keeps(self, file: _File) -> Range | None:
        """The durable segments of a file."""
        if file.keeps is None and file.durable:
            walk = self._walk(file.name)
            if walk.first is not None and walk.last is not None:
                file.keeps = Range.of(walk.first).to(walk.last)
        return file.keeps

    @property
    def crowded(self) -> bool:
        """Whether the oldest file should make room now: above three quarters of what is allowed."""
        return 4 * self.held > 3 * self.most_bytes

    def append(self, segment: Segment) -> None:
        """Write a segment; not durable before commit().  Raises NoRoom or Poisoned."""
        frame = frames.pack(segment)
        if self.held + len(frame) > self.most_bytes:
            raise NoRoom("the spool is as large as it may be")
        if not self._open or self._files[-1].size + len(frame) > self.file_bytes:
            self.commit()
            self._create(segment)
        file = self._files[-1]
        try:
            self.disk.append(file.name, frame)
        except OSError as error:
            self._take_back(file, error)
        file.holds = Range.of(segment) if file.size == 0 else file.holds and file.holds.to(segment)
        file.size += len(frame)
        self._uncommitted.append(segment)

    def _create(self, segment: Segment) -> None:
        self._open = False
        # A file of this name is there if it failed before its first segment was whole.
        names = (f"{segment.header.segment:016d}{more}{SUFFIX}" for more in _MORE)
        name = next(name for name in names if all(name != file.name for file in self._files))
        try:
            self.disk.create(name)
        except OSError as error:
            if error.errno in disk.NO_ROOM:
                raise NoRoom("the disk is full") from None
            raise Poisoned([], error) from error
        self._files.append(_File(name, 0))
        self._open = True

    def _take_back(self, file: _File, error: OSError) -> None:
        """After a failed write: the file as it was, or never again."""
        if error.errno in disk.NO_ROOM:
            try:
                self.disk.truncate(file.name, file.size)
            except OSError:
                pass
            else:
                raise NoRoom("the disk is full") from None
        raise self._poisoned(error) from error

    def commit(self) -> None:
        """Make everything appended durable.  Raises Poisoned; the file is then left for good."""
        if not self._uncommitted:
            return
        try:
            self.disk.sync(self._files[-1].name)
        except OSError as error:
            raise self._poisoned(error) from error
        self._uncommitted.clear()
        file = self._files[-1]
        file.durable, file.keeps = file.size, file.holds

    def _poisoned(self, error: OSError) -> Poisoned:
        lost, self._uncommitted = self._uncommitted, []
        self._open = False
        self._files[-1].holds = None
        return Poisoned(lost, error)

    def oldest(self) -> Range | None:
        """What the oldest file holds; None if it is the one being written, or cannot be read."""
        if len(self._files) < 2 and (self._open or not self._files):
            return None
        file = self._files[0]
        if file.holds is None:
            walk = self._walk(file.name)
            if walk.first is not None and walk.last is not None:
                file.holds = Range.of(walk.first).to(walk.last)
        return file.holds

    def drop_oldest(self, begin: int) -> None:
        """Remove the oldest file; `begin` is the first segment that should be here from now on."""
        try:
            self.disk.replace(BEGIN, b"%d\n" % begin)
        except OSError:
            pass  # then the next start says that the beginning is missing, which is true
        self.remove_oldest()

    def remove_oldest(self) -> None:
        """Remove the oldest file without a word: for a full disk, where words would find no room."""
        self.disk.remove(self._files[0].name)
        del self._files[0]

    def _walk(self, name: str) -> _Walk:
        """The whole segments a file begins with, of which only the ends are kept."""
        walk = _Walk(None, None, 0, self.disk.read(name))
        try:
            for found in frames.unpack(walk.data):
                walk.first = walk.first or found.segment
                walk.last, walk.good = found.segment, found.end
        except Malformed:
            pass
        return walk

    def _first(self, name: str) -> Segment | None:
        """The first segment of a file."""
        try:
            return next((found.segment for found in frames.unpack(self.disk.read(name))), None)
        except Malformed:
            return None

    def _recover(self) -> None:
        names = sorted(name for name in self.disk.names() if name.endswith(SUFFIX))
        self._files = [_File(name, self.disk.size(name)) for name in names]
        begin = self._begin()
        # A drop that was announced but not finished: every file before the one that holds `begin`.
        while len(self._files) > 1 and _first_segment(self._files[1].name) <= begin:
            self.remove_oldest()
        unreadable = 0
        for file in reversed(list(self._files)):
            walk = self._walk(file.name)
            unreadable += len(walk.data) - walk.good
            if walk.good < len(walk.data) and not _holds_segments(walk.data, walk.good):
                self.disk.truncate(file.name, walk.good)
                self.disk.sync(file.name)
                file.size = walk.good
            if walk.last is not None:
                self.found.last = walk.last
                # A signer that was killed may have written it and not made it durable.
                self.disk.sync(file.name)
                break
            if file.size == 0:
                self.disk.remove(file.name)
                self._files.remove(file)
        if unreadable:
            self.found.doubtful_segments = unreadable // FRAME_MINIMUM_BYTES + 1
            self.found.doubtful_events = self.found.doubtful_segments * SEGMENT_EVENTS
        if self.found.last is not None:
            first = next(filter(None, (self._first(file.name) for file in self._files)), None)
            if first is not None and first.header.segment > begin and not self._went(first.header.segment):
                self.found.missing_before = first
        for file in self._files:
            file.durable = file.size

    def _went(self, first: int) -> bool:
        """Whether what came before segment `first` was delivered."""
        return self.delivered is not None and self.delivered.numbers.covers(first - 1, first - 1)

    def _begin(self) -> int:
        try:
            return int(self.disk.read(BEGIN))
        except (OSError, ValueError):
            return 0


def _holds_segments(data: bytes, at: int) -> bool:
    """Whether a whole segment lies somewhere behind damaged bytes."""
    while (at := data.find(frames.MAGIC, at)) >= 0:
        try:
            next(frames.unpack(data, at))
        except (Malformed, StopIteration):
            at += 1
        else:
            return True
    return False


def _first_segment(name: str) -> int:
    digits = name.removesuffix(SUFFIX).rstrip(string.ascii_lowercase)
    return int(digits) if digits.isdecimal() else 0


class Directory(disk.Files):
    """A directory as a Disk.  It is locked, so that no two signers write the same spool."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = disk.Lock(self._path / _LOCK, f"another signer writes to {self._path}")

    @property
    def path(self) -> Path:
        return self._path

    def close(self) -> None:
        """Give up the lock.  May be called twice."""
        self.leave()
        self._lock.release()

    def names(self) -> list[str]:
        return [entry.name for entry in os.scandir(self._path) if entry.is_file()]
