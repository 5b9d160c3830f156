"""Segments as zstd frames (RFC 8878), one each: what a spool's files are made of.

`zstd -dc` of a file is its segments one after another.  A frame's end is found by walking its block
headers, so that reading is bounded before anything is unpacked: a frame says how long its content
is, and one that says more than a segment may have is refused.

A *note* may stand in front of a segment, in a skippable frame (RFC 8878 section 3.1.2): what the file's
writer has to say of it.  It is no part of the segment, and zstd passes over it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sealwire.errors import ConfigurationError
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.segment import SEGMENT_MAXIMUM_BYTES, Segment

MAGIC: Final = b"\x28\xb5\x2f\xfd"
#: RFC 8878 section 3.1.2: the first of the sixteen magic numbers of skippable frames.
NOTE_MAGIC: Final = b"\x50\x2a\x4d\x18"
NOTE_MAXIMUM_BYTES: Final = 64
_NOTE_HEAD: Final = 8
_LEVEL: Final = 1  # 24 of 106 bytes of a one-packet flow stay, at 0.15 us; level 3 saves a byte or two
_BLOCK_MAXIMUM: Final = 128 * 1024


def _library() -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        raise ConfigurationError("sealed events need zstandard: pip install 'sealwire[probe]'") from None


_zstandard: Final = _library()
_compress: Final = _zstandard.ZstdCompressor(
    level=_LEVEL, write_checksum=True, write_content_size=True
).compress


def pack(segment: Segment) -> bytes:
    """A segment as one frame, with the checksum of its content."""
    packed: bytes = _compress(segment.encode())
    return packed


@dataclass(frozen=True, slots=True)
class Found:
    """A segment in a file, and the bytes it takes there."""

    segment: Segment
    #: Where it begins, its note included.
    begin: int
    end: int
    note: bytes = b""


def note(content: bytes) -> bytes:
    """A note, to be put in front of a segment."""
    assert len(content) <= NOTE_MAXIMUM_BYTES, "a note is short"
    return NOTE_MAGIC + len(content).to_bytes(4, "little") + content


def unpack(data: bytes | memoryview, at: int = 0) -> Iterator[Found]:
    """The segments of a file from `at` on.  Raises Malformed at the first byte that is no frame's."""
    while at < len(data):
        behind, said = _note(data, at)
        end = frame_end(data, behind)
        yield Found(_segment(data, behind, end), at, end, said)
        at = end


def _note(data: bytes | memoryview, at: int) -> tuple[int, bytes]:
    """Where the note at `at` ends, and what it says; as it is where there is none."""
    if data[at : at + 4] != NOTE_MAGIC:
        return at, b""
    length = int.from_bytes(data[at + 4 : at + _NOTE_HEAD], "little")
    if length > NOTE_MAXIMUM_BYTES or len(data) - at < _NOTE_HEAD + length:
        raise Malformed("a note that is cut short or too long")
    at += _NOTE_HEAD + length
    return at, bytes(data[at - length : at])


def unpack_one(frame: bytes) -> Segment:
    """The segment of one frame, which must be all of `frame`.  Raises Malformed."""
    if frame_end(frame, 0) != len(frame):
        raise Malformed("more than one zstd frame")
    return _segment(frame, 0, len(frame))


def _segment(data: bytes | memoryview, at: int, end: int) -> Segment:
    frame = bytes(data[at:end])
    try:
        size = _zstandard.frame_content_size(frame)
        if not 0 < size <= SEGMENT_MAXIMUM_BYTES:
            raise Malformed("a frame that is longer than a segment may be, or does not say")
        content: bytes = _zstandard.ZstdDecompressor(max_window_size=1 << 23).decompress(frame)
    except _zstandard.ZstdError as error:
        raise Malformed(f"a damaged zstd frame ({error})") from None
    return Segment.decode(content)


def frame_end(data: bytes | memoryview, at: int) -> int:
    """Where the zstd frame at `at` ends (RFC 8878 section 3.1.1).  Raises Malformed."""
    total = len(data)
    if total - at < 6 or data[at : at + 4] != MAGIC:
        raise Malformed("no zstd frame begins here")
    descriptor = data[at + 4]
    single, dictionary, size = descriptor >> 5 & 1, (0, 1, 2, 4)[descriptor & 3], descriptor >> 6
    at += 5 + (0 if single else 1) + dictionary + (single if size == 0 else 1 << size)
    last = False
    while not last:
        if total - at < 3:
            raise Malformed("a zstd frame that is cut short")
        block = int.from_bytes(data[at : at + 3], "little")
        last, kind, length = bool(block & 1), block >> 1 & 3, block >> 3
        if kind == 3 or length > _BLOCK_MAXIMUM:
            raise Malformed("a damaged zstd frame")
        at += 3 + (1 if kind == 1 else length)  # RFC 8878 section 3.1.1.2: type 1 repeats one byte
    at += 4 if descriptor & 4 else 0
    if at > total:
        raise Malformed("a zstd frame that is cut short")
    return at
