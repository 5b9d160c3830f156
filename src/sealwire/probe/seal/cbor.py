"""Deterministic CBOR (RFC 8949 section 4.2.1), by cbor2; strict where bytes are a stranger's.

cbor2 decodes far more than events need: tags that make dates and regular expressions, floats,
indefinite lengths.  So a walk over the heads comes first and admits integers, strings, arrays,
maps, booleans and null, in their shortest form, with every length inside the data; the library
decodes what is left, and encoding it again must give the same bytes.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from sealwire.errors import ConfigurationError

_DEEPEST: Final = 8
_SIMPLE: Final = {20, 21, 22}  # false, true, null


def _library() -> Any:
    try:
        return importlib.import_module("cbor2")
    except ImportError:
        raise ConfigurationError("sealed events need cbor2: pip install 'sealwire[probe]'") from None


_cbor2: Final = _library()
_LIBRARY_ERRORS: Final = (_cbor2.CBORError, ValueError, TypeError, OverflowError)


def encode(value: Any) -> bytes:
    """`value` as deterministic CBOR; a map's keys are small integers, text or both.

    RFC 8949 section 4.2.1 sorts keys by their bytes, cbor2 by length first: for the keys used here
    that is one order.
    """
    encoded: bytes = _cbor2.dumps(value, canonical=True)
    return encoded


def decode(data: bytes) -> Any:
    """The one deterministic item that is all of `data`.  Raises ValueError for anything else."""
    if _walk(data, 0, 0) != len(data):
        raise ValueError("bytes behind the CBOR item")
    try:
        value = _cbor2.loads(data, allow_indefinite=False, allow_duplicate_keys=False, max_depth=_DEEPEST + 2)
        again = encode(value)
    except _LIBRARY_ERRORS as error:
        raise ValueError(f"not CBOR: {error}") from None
    if again != data:
        raise ValueError("not deterministic CBOR")
    return value


def head(major: int, n: int) -> bytes:
    """The shortest head of an item of major type `major` with argument `n`."""
    if n < 24:
        return bytes((major << 5 | n,))
    for more, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if n >> (8 * width) == 0:
            return bytes((major << 5 | more,)) + n.to_bytes(width, "big")
    raise ValueError("the argument of a CBOR head has 64 bits")


def read_head(data: bytes | memoryview, at: int) -> tuple[int, int, int]:
    """Major type and argument of the head at `at`, and where it ends.

    Raises ValueError for heads that are cut, not the shortest, indefinite or of floating point.
    """
    if at >= len(data):
        raise ValueError("CBOR is cut short")
    major, more = data[at] >> 5, data[at] & 31
    at += 1
    if more < 24:
        return major, more, at
    if more > 27 or major == 7:
        raise ValueError("a kind of CBOR that events do not have")
    width = 1 << (more - 24)
    if at + width > len(data):
        raise ValueError("CBOR is cut short")
    n = int.from_bytes(data[at : at + width], "big")
    if n < 24 or (width > 1 and n >> (4 * width) == 0):
        raise ValueError("a CBOR head is not the shortest")
    return major, n, at + width


def _walk(data: bytes, at: int, depth: int) -> int:
    """Where the item at `at` ends; ValueError unless it is one that events may hold."""
    major, n, at = read_head(data, at)
    if major in (2, 3):
        if n > len(data) - at:
            raise ValueError("CBOR is cut short")
        return at + n
    if major in (4, 5):
        # Every element takes a byte, so a declared count costs nothing before its bytes are there.
        if depth >= _DEEPEST or n > len(data) - at:
            raise ValueError("CBOR is cut short or too deep")
        for _ in range(n * (major - 3)):
            at = _walk(data, at, depth + 1)
        return at
    if major == 6 or (major == 7 and n not in _SIMPLE):
        raise ValueError("a kind of CBOR that events do not have")
    return at


def skip(data: bytes, at: int) -> int:
    """Where the item at `at` ends.  Raises ValueError for what `decode` would refuse by its kind."""
    return _walk(data, at, 0)
