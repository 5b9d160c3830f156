"""What a server reads in a ClientHello before any secret is made: is it one, and what fits of it.

Over datagrams this happens before any state exists (`dtls/gate.py`), so nothing here looks keys up or
calls the application.
"""

from __future__ import annotations

from dataclasses import dataclass

from sealwire.crypto.groups import Group
from sealwire.crypto.psk import PskMode
from sealwire.crypto.suites import SUITES, CipherSuite, SuiteSpec
from sealwire.errors import Alert, HandshakeError
from sealwire.tls13 import extensions as ext
from sealwire.tls13 import psk
from sealwire.tls13.contract import Settings
from sealwire.tls13.extensions import Extensions, Where
from sealwire.tls13.flavor import Flavor
from sealwire.tls13.messages import HELLO_RETRY_RANDOM, ClientHello, ServerHello


@dataclass(frozen=True, slots=True)
class Selection:
    """What a server picks from a ClientHello before any secret is made."""

    spec: SuiteSpec
    #: None where none is shared, and a pre-shared key may do without.
    group: Group | None
    #: The client's share for `group`; b"" where it sent none and must be asked.
    share: bytes
    #: How a pre-shared key would be used.
    psk_mode: PskMode | None

    @property
    def usable(self) -> bool:
        """Whether this hello can be answered without a retry, if a key without exchange does."""
        return bool(self.share) or self.psk_mode is PskMode.PSK_KE


def check_hello(flavor: Flavor, hello: ClientHello) -> None:
    """What every ClientHello must satisfy whatever we are configured for."""
    versions = hello.extensions.get(ext.SUPPORTED_VERSIONS)
    if versions is None:
        # RFC 8446 section 4.2.1 [8446-NEG-1]: whatever legacy_version says, it does not say 1.3.
        if hello.legacy_version not in flavor.older_versions:
            raise HandshakeError(
                Alert.PROTOCOL_VERSION, f"ClientHello without supported_versions offers no {flavor.name}"
            )
        versions = (hello.legacy_version,)
    if flavor.version not in versions:
        spoken = next((code for code in versions if code in flavor.older_versions), versions[0])
        raise HandshakeError(
            Alert.PROTOCOL_VERSION,
            f"the client speaks only {flavor.version_name(spoken)}; {flavor.name} is required",
        )
    if hello.compression_methods != b"\0":
        # RFC 8446 section 4.1.2
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "ClientHello offers compression")
    if hello.legacy_cookie:
        # RFC 9147 section 5.3 [9147-5.3-7]
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "ClientHello has a legacy_cookie")
    if ext.PRE_SHARED_KEYS.code not in hello.extensions:
        # RFC 8446 section 9.2 [8446-NEG-7]
        hello.extensions.require(ext.SIGNATURE_ALGORITHMS)
    elif not (ext.SUPPORTED_GROUPS.code in hello.extensions or ext.KEY_SHARES.code in hello.extensions):
        # RFC 8446 section 9.2: a client that wants its pre-shared key alone sends neither.
        return
    groups = hello.extensions.require(ext.SUPPORTED_GROUPS)
    shares = hello.extensions.require(ext.KEY_SHARES)
    offered = [entry.group for entry in shares]
    if len(set(offered)) != len(offered) or not set(groups).issuperset(offered):
        # RFC 8446 section 4.2.8 [8446-NEG-6]
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "key shares repeat or are not in supported_groups")


def select(settings: Settings, hello: ClientHello, *, retry_anyway: bool = False) -> Selection:
    """Pick suite and group, by our order of preference; handshake_failure if nothing is shared.

    A group the client sent a share for saves a round trip and wins over a better one it only
    supports, unless a retry goes out in any case (the cookie's), which makes the better one free.
    """
    suite = _first_common(_suites_for_keys(settings, hello), hello.suites)
    if suite is None:
        raise HandshakeError(Alert.HANDSHAKE_FAILURE, "no cipher suite is supported by both sides")
    shares = {entry.group: entry.share for entry in hello.extensions.get(ext.KEY_SHARES) or ()}
    supported = hello.extensions.get(ext.SUPPORTED_GROUPS) or ()
    group = None
    if not retry_anyway:
        group = _first_common(settings.groups, tuple(shares))
    if group is None:
        group = _first_common(settings.groups, supported)
    spec, mode = SUITES[CipherSuite(suite)], psk.agreed_mode(settings, hello, can_exchange=group is not None)
    if group is not None:
        return Selection(spec, Group(group), shares.get(Group(group), b""), mode)
    if mode is None or ext.PRE_SHARED_KEYS.code not in hello.extensions:
        raise HandshakeError(Alert.HANDSHAKE_FAILURE, "no key exchange group is supported by both sides")
    return Selection(spec, None, b"", mode)


def _suites_for_keys(settings: Settings, hello: ClientHello) -> tuple[CipherSuite, ...]:
    """Our suites, first those that go with a pre-shared key the client offers.

    RFC 8446 section 4.2.11 [8446-PSK-3]: key and suite must have one hash.  A binder is as long as its
    key's hash, so nothing is looked up for a client whose address is not proved yet.
    """
    offered = hello.extensions.get(ext.PRE_SHARED_KEYS)
    if offered is None or (settings.psk_server is None and not settings.num_tickets):
        return settings.suites
    lengths = {len(one) for one in offered.binders}
    return tuple(sorted(settings.suites, key=lambda suite: SUITES[suite].hash_bytes not in lengths))


def _first_common(ours: tuple[int, ...], theirs: tuple[int, ...]) -> int | None:
    return next((code for code in ours if code in theirs), None)


def retry_request(
    flavor: Flavor, session_id: bytes, suite: CipherSuite, group: Group | None, cookie: bytes
) -> bytes:
    """A HelloRetryRequest that asks for a share of `group`, for `cookie` (unless b""), or both."""
    block = Extensions(Where.HELLO_RETRY_REQUEST)
    block.add(ext.SELECTED_VERSION, flavor.version)
    if group is not None:
        block.add(ext.KEY_SHARE_REQUEST, group)
    if cookie:
        block.add(ext.COOKIE, cookie)
    return ServerHello(flavor.legacy_version, HELLO_RETRY_RANDOM, session_id, suite, 0, block).encode()
