"""GREASE (RFC 8701): a client offers values that mean nothing, so that servers go on ignoring what is new.

Servers that choke on what they do not know are found while it is cheap, and not on the day a new suite
or group is offered in earnest.  The values differ from connection to connection.  Whoever answers with one
is refused as if it had not been offered: no suite, group or version of ours has such a number, and
:meth:`Extensions.asks_for` knows the extensions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sealwire.crypto.groups import Group
from sealwire.crypto.providers import CryptoProvider
from sealwire.crypto.signatures import SignatureScheme
from sealwire.crypto.suites import CipherSuite
from sealwire.tls13 import extensions as ext
from sealwire.tls13.extensions import GREASE_VALUES, Extensions, Where
from sealwire.tls13.messages import ClientHello
from sealwire.tls13.values import KeyShareEntry

_VALUES: Final = tuple(sorted(GREASE_VALUES))


def greased(provider: CryptoProvider, hello: ClientHello) -> ClientHello:
    """A first ClientHello with a value of nobody's at the head of each list, and two such extensions."""
    # RFC 8701 section 3.1 [8701-1]
    chances = provider.random(6)
    suite, version, group, scheme, empty = (_VALUES[byte & 15] for byte in chances[:5])
    # Two extensions are not one twice.
    other = _VALUES[((chances[4] & 15) + 1 + chances[5] % 15) & 15]
    old = hello.extensions
    block = Extensions(Where.CLIENT_HELLO)
    # What must lie in the first fragment of a split hello stays ahead of everything long.
    block.add(ext.SUPPORTED_VERSIONS, (version, *old.require(ext.SUPPORTED_VERSIONS)))
    block.add_reserved(empty, b"")
    groups, shares = old.get(ext.SUPPORTED_GROUPS), old.get(ext.KEY_SHARES)
    if groups is not None and shares is not None:
        block.add(ext.SUPPORTED_GROUPS, (Group(group), *groups))
        # RFC 8446 section 4.2.8: shares stand in the order of the groups; one byte is as short as they get.
        block.add(ext.KEY_SHARES, (KeyShareEntry(Group(group), b"\0"), *shares))
    schemes = old.get(ext.SIGNATURE_ALGORITHMS)
    if schemes is not None:
        block.add(ext.SIGNATURE_ALGORITHMS, (SignatureScheme(scheme), *schemes))
    last = frozenset((ext.PRE_SHARED_KEYS.code,))
    block.copy_from(old, but=frozenset(block) | last)
    block.add_reserved(other, b"\0")
    if ext.PRE_SHARED_KEYS.code in old:
        # RFC 8446 section 4.2.11: at the very end.
        block.add(ext.PRE_SHARED_KEYS, old.require(ext.PRE_SHARED_KEYS))
    return replace(hello, suites=(CipherSuite(suite), *hello.suites), extensions=block)
