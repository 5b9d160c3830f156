"""An opener as few bytes, for a connection that sleeps: in plain Python, the twin of `_folding`.

    folded = fold(opener)                                       its keys are in there: a secret
    opener = unfold(provider, spec, folded, cid, window)        as it was, but for `cid`

What is folded is epoch, counts and limits, then key, number key and IV, then which numbers below the
highest the window has not seen: bit n of that, which is little-endian and without zeros at its end,
stands for `highest` - n.  Where nothing was lost or overtaken there are no bits at all.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from sealwire.crypto.hkdf import Secret, TrafficKeys
from sealwire.record.header import Buffer
from sealwire.record.reference import Opener

if TYPE_CHECKING:
    from sealwire.crypto.providers import CryptoProvider
    from sealwire.crypto.suites import SuiteSpec

# Epoch, highest number plus one, opened, forged, forgery_limit, overlong, inner_limit.
_HEAD: Final = Struct(">HQQQQQH")


def fold(opener: Opener) -> bytes:
    """What :func:`unfold` makes such an opener of."""
    gaps = ~opener._seen & ((1 << min(opener.highest + 1, opener._window)) - 1)
    head = _HEAD.pack(
        opener.epoch,
        opener.highest + 1,
        opener.opened,
        opener.forged,
        opener.forgery_limit,
        opener.overlong,
        opener.inner_limit,
    )
    keys = opener._keys
    bits = gaps.to_bytes((gaps.bit_length() + 7) // 8, "little")
    return b"".join((head, keys.key, keys.sn_key, keys.iv, bits))


def unfold(provider: CryptoProvider, spec: SuiteSpec, folded: Buffer, cid: bytes, window: int) -> Opener:
    """The opener that was folded, under the same suite and window, for records with `cid`.

    Raises:
        ValueError: `folded` has a length that nothing :func:`fold` gives under them has.
    """
    n = spec.key_bytes
    start, end = _HEAD.size, _HEAD.size + 2 * n + spec.iv_bytes
    if not end <= len(folded) <= end + window // 8:
        raise ValueError(f"{len(folded)} bytes are no folded opener of {spec.name}")
    key, sn_key = Secret(folded[start : start + n]), Secret(folded[start + n : start + 2 * n])
    keys = TrafficKeys(key, Secret(folded[start + 2 * n : end]), sn_key)
    epoch, above, opened, forged, forgery_limit, overlong, inner_limit = _HEAD.unpack_from(folded)
    opener = Opener(provider, spec, keys, epoch, cid, window, highest=above - 1)
    gaps = int.from_bytes(folded[end:], "little")
    opener._seen = (1 << min(above, window)) - 1 & ~gaps
    opener.opened, opener.forged, opener.overlong = opened, forged, overlong
    opener.forgery_limit, opener.inner_limit = forgery_limit, inner_limit
    return opener
