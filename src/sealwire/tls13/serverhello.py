"""What a client checks in every ServerHello and HelloRetryRequest before it goes by what they say."""

from __future__ import annotations

from sealwire.crypto.suites import SUITES, SuiteSpec
from sealwire.errors import Alert, HandshakeError
from sealwire.tls13 import extensions as ext
from sealwire.tls13.contract import Exchange
from sealwire.tls13.messages import DOWNGRADE_SENTINELS, ClientHello, ServerHello


def older_version(exchange: Exchange, spoken: str) -> HandshakeError:
    return HandshakeError(
        Alert.PROTOCOL_VERSION, f"the server speaks only {spoken}; {exchange.flavor.name} is required"
    )


def check_hello(exchange: Exchange, offered: ClientHello, hello: ServerHello) -> SuiteSpec:
    """What holds for ServerHello and HelloRetryRequest alike (RFC 8446 section 4.1.3, 4.1.4)."""
    flavor = exchange.flavor
    version = hello.extensions.get(ext.SELECTED_VERSION)
    if version is None:
        if hello.random[-8:] in DOWNGRADE_SENTINELS:
            # RFC 8446 section 4.1.3 [8446-NEG-8]: it knows 1.3, so our offer did not reach it whole.
            raise HandshakeError(
                Alert.ILLEGAL_PARAMETER,
                f"the server knows {flavor.name} but chose an older version: the hello was tampered with",
            )
        raise older_version(exchange, flavor.version_name(hello.legacy_version))
    hello.extensions.refuse_misplaced()
    if version != flavor.version:
        raise HandshakeError(
            Alert.ILLEGAL_PARAMETER,
            f"the server selected {flavor.version_name(version)}, which was not offered",
        )
    if hello.legacy_version != flavor.legacy_version:
        # RFC 8446 section 4.1.3, RFC 9147 section 5.4 [9147-5.4-1]
        raise HandshakeError(
            Alert.ILLEGAL_PARAMETER, f"ServerHello has legacy_version {hello.legacy_version:#06x}"
        )
    # RFC 9147 section 5 [9147-5-1]: DTLS has no echo; over a stream it must be exact.
    if hello.legacy_session_id_echo != offered.legacy_session_id:
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "ServerHello echoes another session id")
    if hello.compression_method != 0:
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "ServerHello selects compression")
    if hello.suite not in offered.suites or hello.suite not in SUITES:
        raise HandshakeError(
            Alert.ILLEGAL_PARAMETER, f"ServerHello selects {hello.suite.name}, which was not offered"
        )
    for code in hello.extensions:
        # The cookie is the one extension a HelloRetryRequest may hold unasked.
        if not offered.extensions.asks_for(code) and not (hello.is_retry_request and code == ext.COOKIE.code):
            raise HandshakeError(
                Alert.UNSUPPORTED_EXTENSION, f"ServerHello answers extension {code}, which was not offered"
            )
    return SUITES[hello.suite]
