"""Sealer and Opener for datagrams: the compiled ones where they can be used, else their twin.

The twin (`reference`) is also the interface: the compiled classes have its signatures, attributes
and answers.  Three things decide, at import except for the last:

- SEALWIRE_PURE=1 asks for the twin;
- without the compiled modules, or without a libcrypto that passes their known-answer test, there
  is only the twin (SEALWIRE_REQUIRE_COMPILED=1 turns that into an ImportError);
- a provider with an AEAD or mask of its own is obeyed, which only the twin can do.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sealwire.crypto.providers.openssl import OpenSslProvider
from sealwire.record.header import CiphertextHeader, parse_ciphertext_header
from sealwire.record.reference import DISCARDS, Entry

if TYPE_CHECKING:
    from sealwire.crypto.providers import CryptoProvider

__all__ = [
    "COMPILED",
    "DISCARDS",
    "CiphertextHeader",
    "Entry",
    "Opener",
    "Sealer",
    "describe",
    "fold",
    "open_data",
    "parse_ciphertext_header",
    "seal_trains",
    "unfold",
    "uses_compiled",
    "weigh",
]


def _choose() -> tuple[bool, str]:
    """Whether the compiled record layer is used, and one line saying on what or why not."""
    if os.environ.get("SEALWIRE_PURE") == "1":
        return False, "plain Python (SEALWIRE_PURE=1)"
    try:
        import sealwire.crypto._evp as evp
        import sealwire.record._bulk
        import sealwire.record._folding
        import sealwire.record._record
        import sealwire.record._stream  # noqa: F401 - that they load is the question
    except ModuleNotFoundError:
        reason = "the compiled modules are not built"
    except ImportError as error:
        reason = f"the compiled modules do not load: {error}"
    else:
        try:
            return True, f"compiled, on {evp.describe()}"
        except evp.Unavailable as error:
            reason = str(error)
    if os.environ.get("SEALWIRE_REQUIRE_COMPILED") == "1":
        raise ImportError(f"SEALWIRE_REQUIRE_COMPILED=1, but {reason}")
    return False, f"plain Python ({reason})"


_CHOICE: Final = _choose()

#: Whether OpenSSL's algorithms run in the compiled record layer.
COMPILED: Final[bool] = _CHOICE[0]


def describe() -> str:
    """Which record layer is in use, with which libcrypto or for what reason not, in one line."""
    return _CHOICE[1]


def uses_compiled(provider: CryptoProvider) -> bool:
    """Whether records under keys of `provider` go through the compiled record layer."""
    # The compiled path calls OpenSSL itself and never asks the provider.  That is the same thing
    # exactly if the provider's AEAD and mask are OpenSSL's, which also holds for a subclass that
    # changes other things, as the deterministic one does; its `name` would say less.
    kind = type(provider)
    return (
        COMPILED
        and isinstance(provider, OpenSslProvider)
        and kind.aead is OpenSslProvider.aead
        and kind.mask is OpenSslProvider.mask
    )


if TYPE_CHECKING:
    from sealwire.record.bulk_reference import open_data, seal_trains, weigh
    from sealwire.record.folding_reference import fold, unfold
    from sealwire.record.reference import Opener, Sealer
else:
    from sealwire.record import bulk_reference, folding_reference, reference

    if COMPILED:
        from sealwire.record import _bulk, _folding, _record

    # It has no crypto, so whose the provider is does not matter.
    weigh = (_bulk if COMPILED else bulk_reference).weigh

    def Sealer(provider, *args, **keywords):
        """A sealer for one sending epoch; see :class:`sealwire.record.reference.Sealer`."""
        module = _record if uses_compiled(provider) else reference
        return module.Sealer(provider, *args, **keywords)

    def Opener(provider, *args, **keywords):
        """An opener for one receiving epoch; see :class:`sealwire.record.reference.Opener`."""
        module = _record if uses_compiled(provider) else reference
        return module.Opener(provider, *args, **keywords)

    def seal_trains(sealer, *args):
        """See :func:`sealwire.record.bulk_reference.seal_trains`."""
        compiled = COMPILED and type(sealer) is _record.Sealer
        return (_bulk if compiled else bulk_reference).seal_trains(sealer, *args)

    def open_data(opener, *args):
        """See :func:`sealwire.record.bulk_reference.open_data`."""
        compiled = COMPILED and type(opener) is _record.Opener
        return (_bulk if compiled else bulk_reference).open_data(opener, *args)

    def fold(opener):
        """See :func:`sealwire.record.folding_reference.fold`."""
        compiled = COMPILED and type(opener) is _record.Opener
        return (_folding if compiled else folding_reference).fold(opener)

    def unfold(provider, *args):
        """See :func:`sealwire.record.folding_reference.unfold`."""
        return (_folding if uses_compiled(provider) else folding_reference).unfold(provider, *args)
