"""The writer of leaves in use: the compiled one where it can be loaded, else its plain-Python twin.

The compiled one needs a libcrypto it can reach (see sealwire.crypto); where there is none, hashlib
of the twin does the same more slowly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sealwire.probe import engine

__all__ = ["COMPILED", "decode", "encode", "encode_transactions", "leaf_hashes", "root"]


def _choose() -> bool:
    if not engine.COMPILED:
        return False
    try:
        from sealwire.crypto._evp import Unavailable
        from sealwire.probe.seal import _leaves, _tree  # noqa: F401 - that both load is the question
    except ImportError:
        return False
    try:
        _tree.leaf_hashes(b"\x40")
    except Unavailable:
        return False
    return True


#: Whether leaves are written and hashed by compiled code.
COMPILED: Final[bool] = _choose()

if TYPE_CHECKING or not COMPILED:
    from sealwire.probe.seal.leaves import decode, encode, encode_transactions
    from sealwire.probe.seal.tree import leaf_hashes, root
else:
    from sealwire.probe.seal._leaves import decode, encode, encode_transactions
    from sealwire.probe.seal._tree import leaf_hashes, root
