"""Reader and Writer: the only code that touches byte offsets in messages.

A Reader is a cursor with an end bound over bytes it never copies until asked; a nested vector is
a :meth:`Reader.sub` whose bound lies inside its parent's, so no parser can run past its length.
Every short read is the same error, decode_error (RFC 8446 section 6.2).  A Writer builds nested
vectors with ``with writer.length16():`` and patches the prefix when the block ends.

Both are compiled where that is possible (`_wire.pyx`): what is here is their twin, and their description.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from sealwire.errors import Alert, ProtocolError

Buffer = bytes | bytearray | memoryview


def decode_error(what: str) -> ProtocolError:
    """The error for bytes that do not have the shape of `what`."""
    return ProtocolError(Alert.DECODE_ERROR, f"{what} is malformed")


class PlainReader:
    """A bounded cursor over `data`; every method raises ProtocolError(decode_error) at the bound.

    `what` names the structure in errors.
    """

    __slots__ = ("_data", "_end", "_position", "what")

    def __init__(self, data: Buffer, what: str = "message", start: int = 0, end: int | None = None) -> None:
        self._data = data
        self._position = start
        self._end = len(data) if end is None else end
        self.what = what

    @property
    def remaining(self) -> int:
        """Bytes left before the bound."""
        return self._end - self._position

    @property
    def position(self) -> int:
        """Offset of the next byte, counted from the start of the underlying buffer."""
        return self._position

    def _advance(self, n: int) -> int:
        start = self._position
        if n > self._end - start:
            raise decode_error(self.what)
        self._position = start + n
        return start

    def u8(self) -> int:
        return self._data[self._advance(1)]

    def u16(self) -> int:
        # Written out: hellos are mostly such numbers.
        start = self._position
        end = start + 2
        if end > self._end:
            raise decode_error(self.what)
        self._position = end
        data = self._data
        return data[start] << 8 | data[start + 1]

    def u24(self) -> int:
        start = self._advance(3)
        data = self._data
        return data[start] << 16 | data[start + 1] << 8 | data[start + 2]

    def u32(self) -> int:
        start = self._advance(4)
        return int.from_bytes(self._data[start : start + 4], "big")

    def u48(self) -> int:
        start = self._advance(6)
        return int.from_bytes(self._data[start : start + 6], "big")

    def u64(self) -> int:
        start = self._advance(8)
        return int.from_bytes(self._data[start : start + 8], "big")

    def u64s(self) -> tuple[int, ...]:
        """Everything left, as numbers of 64 bits; decode_error if that does not come out even."""
        count, rest = divmod(self.remaining, 8)
        if rest:
            raise decode_error(self.what)
        return struct.unpack_from(f">{count}Q", self._data, self._advance(8 * count))

    def take(self, n: int) -> bytes:
        """The next `n` bytes, copied."""
        start = self._advance(n)
        return bytes(self._data[start : start + n])

    def rest(self) -> bytes:
        """All bytes up to the bound, copied."""
        return self.take(self.remaining)

    def sub(self, n: int, what: str | None = None) -> PlainReader:
        """A reader over the next `n` bytes, which this one skips."""
        start = self._advance(n)
        return PlainReader(self._data, what or self.what, start, start + n)

    def sub8(self, what: str | None = None) -> PlainReader:
        return self.sub(self.u8(), what)

    def sub16(self, what: str | None = None) -> PlainReader:
        return self.sub(self.u16(), what)

    def sub24(self, what: str | None = None) -> PlainReader:
        return self.sub(self.u24(), what)

    def vector8(self, low: int = 0, high: int = 0xFF) -> bytes:
        """opaque<low..high> with a one-byte length."""
        return self._vector(self.u8(), low, high)

    def vector16(self, low: int = 0, high: int = 0xFFFF) -> bytes:
        """opaque<low..high> with a two-byte length."""
        return self._vector(self.u16(), low, high)

    def vector24(self, low: int = 0, high: int = 0xFFFFFF) -> bytes:
        """opaque<low..high> with a three-byte length."""
        return self._vector(self.u24(), low, high)

    def _vector(self, n: int, low: int, high: int) -> bytes:
        if not low <= n <= high:
            raise decode_error(self.what)
        return self.take(n)

    def list16_of_u16(self) -> tuple[int, ...]:
        """A non-empty vector of 16-bit values with a two-byte length, as suites and groups are."""
        n = self.u16()
        if n == 0 or n % 2:
            raise decode_error(self.what)
        return struct.unpack(f">{n // 2}H", self.take(n))

    def finish(self) -> None:
        """Raise unless every byte was read: trailing bytes are as wrong as missing ones [8446-NEG-10]."""
        if self.remaining:
            raise decode_error(self.what)


class PlainWriter:
    """Builds a message; integers are big-endian and must fit (OverflowError is our own bug)."""

    __slots__ = ("_hidden", "_out")

    def __init__(self) -> None:
        self._out = bytearray()
        # Where what is put in by finish() belongs.
        self._hidden: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._out)

    def u8(self, value: int) -> None:
        self._out.append(value)

    def u16(self, value: int) -> None:
        self._out += value.to_bytes(2, "big")

    def u24(self, value: int) -> None:
        self._out += value.to_bytes(3, "big")

    def u32(self, value: int) -> None:
        self._out += value.to_bytes(4, "big")

    def u48(self, value: int) -> None:
        self._out += value.to_bytes(6, "big")

    def u64(self, value: int) -> None:
        self._out += value.to_bytes(8, "big")

    def raw(self, value: Buffer) -> None:
        self._out += value

    def vector8(self, value: Buffer) -> None:
        self.u8(len(value))
        self._out += value

    def hidden8(self, secret: bytes) -> None:
        """As :meth:`vector8`, for what must be in nothing but the result of :meth:`finish`."""
        self.u8(len(secret))
        self._hidden.append((len(self._out), secret))
        self._out += bytes(len(secret))

    def vector16(self, value: Buffer) -> None:
        self.u16(len(value))
        self._out += value

    def vector24(self, value: Buffer) -> None:
        self.u24(len(value))
        self._out += value

    def length8(self) -> _Length:
        """``with writer.length8():`` prefixes what the block writes with its one-byte length."""
        return _Length(self._out, 1)

    def length16(self) -> _Length:
        return _Length(self._out, 2)

    def length24(self) -> _Length:
        return _Length(self._out, 3)

    def finish(self) -> bytes:
        """The bytes built so far."""
        if not self._hidden:
            return bytes(self._out)
        pieces: list[Buffer] = []
        at = 0
        for start, secret in self._hidden:
            pieces += self._out[at:start], secret
            at = start + len(secret)
        return b"".join([*pieces, self._out[at:]])


class _Length:
    """A length prefix of `size` bytes, written when its block ends."""

    __slots__ = ("_out", "_size", "_start")

    def __init__(self, out: bytearray, size: int) -> None:
        self._out = out
        self._size = size
        self._start = len(out)
        out += bytes(size)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        body = self._start + self._size
        self._out[self._start : body] = (len(self._out) - body).to_bytes(self._size, "big")


if TYPE_CHECKING:
    Reader = PlainReader
    Writer = PlainWriter
else:

    def _choose():
        """Reader and Writer: the compiled ones where they are built."""
        if os.environ.get("SEALWIRE_PURE") != "1":
            try:
                from sealwire import _wire
            except ImportError as error:
                if os.environ.get("SEALWIRE_REQUIRE_COMPILED") == "1":
                    raise ImportError(f"SEALWIRE_REQUIRE_COMPILED=1, but {error}") from error
            else:
                return _wire.Reader, _wire.Writer
        return PlainReader, PlainWriter

    Reader, Writer = _choose()
