"""What ClientHello and EncryptedExtensions agree on for what the connection carries.

record_size_limit (RFC 8449): each side says how long records to it may be; in force for one that heard
it.  use_srtp (RFC 5764): the client offers profiles, the server picks one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sealwire.crypto.srtp import SrtpProfile
from sealwire.errors import Alert, HandshakeError
from sealwire.tls13 import extensions as ext
from sealwire.tls13.extensions import Extensions
from sealwire.tls13.values import SrtpOffer
from sealwire.wire import decode_error

if TYPE_CHECKING:
    from sealwire.tls13.contract import Exchange

#: RFC 8449 section 4: content, type and padding of a record; TLS 1.3 allows 2^14 and the type.
MAX_RECORD_BYTES: Final = (1 << 14) + 1
_MIN_RECORD_BYTES: Final = 64


class Agreements:
    """What was agreed so far.

    Attributes:
        send_limit, receive_limit: longest content, type and padding of a protected record each way, in bytes.
        record_size_limit: whether both sides know the extension.
        srtp_profile, srtp_mki: for media beside the connection; None and b"" where nothing was agreed.
    """

    __slots__ = ("receive_limit", "record_size_limit", "send_limit", "srtp_mki", "srtp_profile")

    def __init__(self) -> None:
        self.send_limit = self.receive_limit = MAX_RECORD_BYTES
        self.record_size_limit = False
        self.srtp_profile: SrtpProfile | None = None
        self.srtp_mki = b""

    def settled(self) -> Agreements:
        """What stays of it: one object for all connections that agreed on nothing."""
        nothing = not self.record_size_limit and self.srtp_profile is None
        return NOTHING_AGREED if nothing else self

    @property
    def record_limits(self) -> tuple[int, int] | None:
        """The limits, sent and received, where both sides spoke of them."""
        return (self.send_limit, self.receive_limit) if self.record_size_limit else None


NOTHING_AGREED: Final = Agreements()


def offer(exchange: Exchange, hello: Extensions) -> None:
    """Client: what goes into its ClientHello."""
    settings = exchange.settings
    if settings.record_size_limit is not None:
        hello.add(ext.RECORD_SIZE_LIMIT, settings.record_size_limit)
    if settings.srtp_profiles and exchange.flavor.has_srtp:
        hello.add(ext.USE_SRTP, SrtpOffer(tuple(settings.srtp_profiles), settings.srtp_mki))


def answer(exchange: Exchange, hello: Extensions, encrypted: Extensions) -> None:
    """Server: take what the client offers, and answer it."""
    settings, agreed = exchange.settings, exchange.agreed
    limit = hello.get(ext.RECORD_SIZE_LIMIT)
    if limit is not None:
        _check_least(limit)
        # RFC 8449 section 4 [8449-1]: a client may know of longer records than we do.
        agreed.send_limit = min(limit, MAX_RECORD_BYTES)
        agreed.receive_limit = settings.record_size_limit or MAX_RECORD_BYTES
        agreed.record_size_limit = True
        encrypted.add(ext.RECORD_SIZE_LIMIT, agreed.receive_limit)
    offered = hello.get(ext.USE_SRTP)
    if offered is None or not exchange.flavor.has_srtp:
        return
    profile = next((one for one in settings.srtp_profiles if one in offered.profiles), None)
    if profile is not None:
        # RFC 5764 section 4.1.1 [5764-1]: one of theirs, and their identifier or none.
        agreed.srtp_profile = profile
        agreed.srtp_mki = offered.mki if offered.mki == settings.srtp_mki else b""
        encrypted.add(ext.USE_SRTP, SrtpOffer((profile,), agreed.srtp_mki))


def accept(exchange: Exchange, encrypted: Extensions) -> None:
    """Client: take the server's answer.  That it was asked for was looked at before."""
    settings, agreed = exchange.settings, exchange.agreed
    limit = encrypted.get(ext.RECORD_SIZE_LIMIT)
    if limit is not None:
        _check_least(limit)
        if limit > MAX_RECORD_BYTES:
            # RFC 8449 section 4: a server knows which version it chose.
            raise HandshakeError(
                Alert.ILLEGAL_PARAMETER, f"record_size_limit of {limit} in a server's answer"
            )
        agreed.send_limit = limit
        agreed.receive_limit = settings.record_size_limit or MAX_RECORD_BYTES
        agreed.record_size_limit = True
    chosen = encrypted.get(ext.USE_SRTP)
    if chosen is None:
        return
    # RFC 5764 section 4.1.1 [5764-1]
    if len(chosen.profiles) != 1 or chosen.profiles[0] not in settings.srtp_profiles:
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "the server chose no SRTP profile that was offered")
    if chosen.mki and chosen.mki != settings.srtp_mki:
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "the server answers another SRTP key identifier")
    agreed.srtp_profile = SrtpProfile(chosen.profiles[0])
    agreed.srtp_mki = chosen.mki


def chosen_protocol(exchange: Exchange, block: Extensions) -> bytes | None:
    """Client: the application protocol the server chose, None if it chose none."""
    protocols = block.get(ext.ALPN)
    if protocols is None:
        return None
    if len(protocols) != 1:
        # RFC 7301 section 3.1
        raise decode_error("application_layer_protocol_negotiation")
    if protocols[0] not in exchange.settings.alpn:
        raise HandshakeError(
            Alert.ILLEGAL_PARAMETER, "the server chose an application protocol that was not offered"
        )
    return protocols[0]


def _check_least(limit: int) -> None:
    if limit < _MIN_RECORD_BYTES:
        # RFC 8449 section 4 [8449-1]
        raise HandshakeError(
            Alert.ILLEGAL_PARAMETER, f"record_size_limit is {limit}, below {_MIN_RECORD_BYTES}"
        )
