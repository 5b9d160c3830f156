"""Certificate compression (RFC 8879): zlib always, Brotli and Zstandard where their packages are.

A compressed message comes from a stranger and names its own size.  The size is compared with the
limit before anything is unpacked, output is asked for in bounded steps and stops one byte behind
the declared size, and the end of the stream must be the end of the message.  Memory stays below
the limit plus what a format keeps for itself: 32 KiB (zlib), 16 MiB (Brotli), 8 MiB (Zstandard).
"""

from __future__ import annotations

import enum
import importlib
import io
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from sealwire.errors import Alert, CertificateError, CertificateFailure, ConfigurationError, HandshakeError

__all__ = [
    "CompressedForms",
    "CompressionAlgorithm",
    "available_algorithms",
    "compress",
    "decompress",
    "parse_compression_algorithms",
]


class CompressionAlgorithm(enum.IntEnum):
    """CertificateCompressionAlgorithm (RFC 8879 section 7.3).  Unknown 16-bit values survive."""

    ZLIB = 1
    BROTLI = 2
    ZSTD = 3

    # Members are equal to their numbers, so they hash like them; Enum's own hash is a Python call.
    __hash__ = int.__hash__

    @classmethod
    def _missing_(cls, value: object) -> CompressionAlgorithm | None:
        if not isinstance(value, int) or not 0 <= value <= 0xFFFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"COMPRESSION_{value:04X}"
        member._value_ = value
        return member


# RFC 8878 section 3.1.1.1.2: what every decoder supports, and no reason for a certificate to ask for more.
_ZSTD_WINDOW_BYTES: Final = 8 * 1024 * 1024


class _Unpackable(Exception):
    """The data is not what its algorithm makes."""


def _zlib_unpack(data: bytes, size: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        # One byte more than declared tells a stream that goes on from one that ends.
        unpacked = unpacker.decompress(data, size + 1)
    except zlib.error as error:
        raise _Unpackable(str(error)) from None
    if len(unpacked) <= size and (not unpacker.eof or unpacker.unused_data):
        raise _Unpackable("the stream ends too early or too late")
    return unpacked


def _zlib_pack(data: bytes) -> bytes:
    return zlib.compress(data, 9)


def _brotli() -> tuple[Callable[[bytes], bytes], Callable[[bytes, int], bytes]] | None:
    try:
        brotli = importlib.import_module("brotli")
    except ImportError:
        return None
    # Before 1.2 there was no way to bound what comes out, so an older one is not used.
    if not hasattr(brotli.Decompressor, "can_accept_more_data"):
        return None

    def unpack(data: bytes, size: int) -> bytes:
        unpacker = brotli.Decompressor()
        unpacked = bytearray()
        try:
            # The package rounds the limit up, by 32 KiB at most.
            unpacked += unpacker.process(data, output_buffer_limit=size + 1)
            while len(unpacked) <= size and not unpacker.is_finished():
                more = unpacker.process(b"", output_buffer_limit=size + 1 - len(unpacked))
                if not more:
                    raise _Unpackable("the stream ends too early")
                unpacked += more
        except brotli.error as error:
            # Bytes behind the end are an error of the package, too.
            raise _Unpackable(str(error)) from None
        return bytes(unpacked)

    return brotli.compress, unpack


def _zstd() -> tuple[Callable[[bytes], bytes], Callable[[bytes, int], bytes]] | None:
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError:
        return None

    def unpack(data: bytes, size: int) -> bytes:
        unpacker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        try:
            unpacked: bytes = unpacker.stream_reader(io.BytesIO(data)).read(size + 1)
            if len(unpacked) <= size:
                # Now that the frame is known to be small: does it end, and with it the message?
                whole = unpacker.decompressobj()
                whole.decompress(data)
                if not whole.eof or whole.unused_data:
                    raise _Unpackable("the stream ends too early or too late")
        except zstandard.ZstdError as error:
            raise _Unpackable(str(error)) from None
        return unpacked

    return zstandard.ZstdCompressor(level=19).compress, unpack


@lru_cache(maxsize=1)
def _codecs() -> dict[CompressionAlgorithm, tuple[Callable[[bytes], bytes], Callable[[bytes, int], bytes]]]:
    """What can be used here, best first.  Packages do not appear while a process runs."""
    found: dict[CompressionAlgorithm, Any] = {
        CompressionAlgorithm.BROTLI: _brotli(),
        CompressionAlgorithm.ZSTD: _zstd(),
        CompressionAlgorithm.ZLIB: (_zlib_pack, _zlib_unpack),
    }
    return {algorithm: codec for algorithm, codec in found.items() if codec is not None}


def available_algorithms() -> tuple[CompressionAlgorithm, ...]:
    """The algorithms that can be used, best first; zlib is always among them."""
    return tuple(_codecs())


def parse_compression_algorithms(names: str | Sequence[str]) -> tuple[CompressionAlgorithm, ...]:
    """Algorithms by name (``"zlib"``, ``"brotli"``, ``"zstd"``), in the order given.

    Raises:
        ConfigurationError: an unknown name, one twice, or one whose package is not installed.
    """
    known = {algorithm.name.lower(): algorithm for algorithm in CompressionAlgorithm}
    result: list[CompressionAlgorithm] = []
    for name in (word.strip() for word in (names.split(":") if isinstance(names, str) else names)):
        algorithm = known.get(name.lower())
        if algorithm is None:
            raise ConfigurationError(
                f"unknown certificate compression {name!r}: choose from {', '.join(known)}"
            )
        if algorithm not in _codecs():
            raise ConfigurationError(
                f"certificate compression {name!r} needs a package: pip install 'sealwire[compression]'"
            )
        if algorithm in result:
            raise ConfigurationError(f"certificate compression {name!r} is listed twice: name each once")
        result.append(algorithm)
    return tuple(result)


def compress(algorithm: CompressionAlgorithm, message: bytes) -> bytes:
    """`message` packed, as small as the algorithm makes it: slow, so pack a certificate once."""
    return bytes(_codecs()[algorithm][0](message))


class CompressedForms:
    """Messages packed before: a credential's certificate goes out in few forms, to many peers.

    Forms differ by algorithm and staple.  Peers choose among them, so all that are in use are kept.
    """

    __slots__ = ("_forms",)

    # Three algorithms, with and without a staple; room for a staple that changes.
    MOST: Final = 8

    def __init__(self) -> None:
        self._forms: dict[tuple[CompressionAlgorithm, bytes], bytes] = {}

    def __len__(self) -> int:
        return len(self._forms)

    def get(self, algorithm: CompressionAlgorithm, message: bytes) -> bytes:
        """:func:`compress`, done once."""
        packed = self._forms.get((algorithm, message))
        if packed is None:
            packed = compress(algorithm, message)
            # Other threads may do the same at this moment; then something is packed twice.
            for oldest in list(self._forms)[: max(len(self._forms) - self.MOST + 1, 0)]:
                self._forms.pop(oldest, None)
            self._forms[algorithm, message] = packed
        return packed


def decompress(algorithm: CompressionAlgorithm, data: bytes, uncompressed_length: int, limit: int) -> bytes:
    """The message in `data`, of exactly `uncompressed_length` bytes.

    Args:
        algorithm: one of those we offered; that is for the caller to have checked.
        uncompressed_length: what the peer declared.
        limit: the most we unpack, whatever was declared; at its cost, not at that of the declaration.

    Raises:
        CertificateError: bad_certificate; it declares too much, cannot be unpacked, or has another length.
        HandshakeError: illegal_parameter; an algorithm that cannot be used here.
    """
    codec = _codecs().get(algorithm)
    if codec is None:
        # RFC 8879 section 4 [8879-1]: only what was offered may be used.
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, f"the certificate is compressed with {algorithm!r}")
    # RFC 8879 section 4 [8879-1]: compared before a byte is unpacked, so that a claim costs nothing.
    if uncompressed_length > limit:
        raise _bad(f"declares {uncompressed_length} bytes, more than {limit}")
    # An empty message is no Certificate, and to the packages a limit of zero means none.
    if uncompressed_length < 1 or not data:
        raise _bad("is empty")
    try:
        unpacked = codec[1](data, uncompressed_length)
    except _Unpackable as error:
        raise _bad(f"cannot be unpacked: {error}") from None
    if len(unpacked) != uncompressed_length:
        more = "more" if len(unpacked) > uncompressed_length else "less"
        raise _bad(f"unpacks to {more} than the {uncompressed_length} bytes it declares")
    return unpacked


def _bad(what: str) -> CertificateError:
    # RFC 8879 section 4: the alert of every failure is bad_certificate.
    return CertificateError(
        CertificateFailure.MALFORMED, f"the peer's compressed certificate {what}", Alert.BAD_CERTIFICATE
    )
