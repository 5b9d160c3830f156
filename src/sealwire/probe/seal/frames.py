"""Segments as zstd frames (RFC 8878), one each: what a spool's files are made of.

`zstd -dc` of a file is its segments one after another.  A frame's end is found by walking its block
headers, so that reading is bounded before anything is unpacked: a frame says how long its content
is, and one that says more than a segment may have is refused.
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
    begin: int
    end: int


def unpack(data: bytes | memoryview, at: int = 0) -> Iterator[Found]:
    """The segments of a file from `at` on.  Raises Malformed at the first byte that is no frame's."""
    while at < len(data):
        end = frame_end(data, at)
        yield Found(_segment(data, at, end), at, end)
        at = end


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
