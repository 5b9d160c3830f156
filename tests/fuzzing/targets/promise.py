"""What every target promises, and bytes read as decisions."""

from __future__ import annotations

from collections.abc import Callable

from sealwire.errors import Alert, ConfigurationError, Error, ProtocolError

Target = Callable[[bytes], None]


class Script:
    """Bytes read as decisions; when they are used up, every answer is zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def over(self) -> bool:
        return self._at >= len(self._data)

    def byte(self, below: int = 256) -> int:
        value = self._data[self._at] if not self.over else 0
        self._at += 1
        return value % below

    def word(self) -> int:
        return self.byte() << 8 | self.byte()

    def piece(self) -> bytes:
        n = self.byte()
        taken = self._data[self._at : self._at + n]
        self._at += n
        return taken

    def damaged(self, data: bytes) -> bytes:
        """`data` with one change."""
        changed = bytearray(data or b"\0")
        at = self.word() % len(changed)
        match self.byte(8):
            case 0:
                changed[at] ^= 1 << self.byte(8)
            case 1:
                changed[at] = self.byte()
            case 2:
                del changed[at:]
            case 3:
                del changed[at : at + 1 + self.byte(8)]
            case 4:
                changed[at:at] = self.piece()
            case 5:
                changed[at : at + 2] = self.word().to_bytes(2, "big")
            case 6:
                changed += self.piece()
            case _:
                n = 1 + self.byte(64)
                changed[at:at] = changed[at : at + n]
        return bytes(changed)


def known(error: ProtocolError) -> None:
    assert isinstance(error.alert, Alert)
    assert error.reason


def said(error: ConfigurationError) -> None:
    """A file that cannot be used is refused in words."""
    assert str(error)


def ended_well(error: object) -> None:
    assert error is None or isinstance(error, (Error, TimeoutError)), repr(error)
    if isinstance(error, ProtocolError):
        known(error)


def plain_decoder(function: Callable[[bytes], object]) -> Target:
    """A decoder that may raise nothing but errors of the protocol."""

    def target(data: bytes) -> None:
        try:
            function(data)
        except ProtocolError as error:
            known(error)

    return target
