"""The runner's invented ways to compress a certificate (cert_compression_tests.go of BoringSSL's runner).

They stand in place of zlib and its like for the process of the shim alone; what surrounds them, from the
offer to the bounds on what is unpacked, is the engine's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from sealwire.crypto.compression import CompressionAlgorithm
from tests.bogo.flags import Flags

Codec = tuple[Callable[[bytes], bytes], Callable[[bytes, int], bytes]]

# A Certificate message to a server begins so: no context, and a list shorter than 64 KiB.
_SHRINKING_PREFIX: Final = b"\0\0"
_EXPANDING_PREFIX: Final = b"\1\2\3\4"


def _shrink(message: bytes) -> bytes:
    assert message.startswith(_SHRINKING_PREFIX)
    return message.removeprefix(_SHRINKING_PREFIX)


#: In the order of the shim's preference.
CODECS: Final[dict[CompressionAlgorithm, Codec]] = {
    CompressionAlgorithm(0xFF02): (
        lambda message: _EXPANDING_PREFIX + message,
        lambda data, size: data.removeprefix(_EXPANDING_PREFIX),
    ),
    CompressionAlgorithm(0xFF01): (_shrink, lambda data, size: _SHRINKING_PREFIX + data),
    CompressionAlgorithm(0xFF03): (
        lambda message: os.urandom(1) + message,
        lambda data, size: data[1:],
    ),
}


def installed(flags: Flags) -> tuple[CompressionAlgorithm, ...]:
    """Those a test wants, best first; none if it does not speak of any."""
    if "-install-cert-compression-algs" in flags:
        return tuple(CODECS)
    one = flags.number("-install-one-cert-compression-alg")
    return (CompressionAlgorithm(one),) if one else ()
