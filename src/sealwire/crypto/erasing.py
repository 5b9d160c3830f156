"""Overwriting secrets that are about to go, as far as Python allows.

Traffic keys live in contexts of libcrypto, which wipes them when they are freed.  On their way there,
and as the secrets they are derived from, they are bytes objects of ours: with the compiled modules
those are overwritten in place, through OPENSSL_cleanse.  In plain Python nothing can be overwritten.
docs/security.md says what stays out of reach either way.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["ERASES", "erase"]


def _nothing(secret: bytes, start: int = 0, end: int | None = None) -> None:
    """There is no way without the compiled modules."""


erase = _nothing

if os.environ.get("SEALWIRE_PURE") != "1":
    try:
        from sealwire.crypto import _evp
    except ImportError:
        pass
    else:
        try:
            _evp.describe()
            erase = _evp.erase
        except _evp.Unavailable:
            pass

#: Whether `erase` does anything here.
ERASES: Final = erase is not _nothing
