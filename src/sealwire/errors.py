"""What can go wrong, once each: alerts, exceptions that know their alert, and reasons for silence.

Bytes from the network have three possible answers: a value; a :class:`Discard` (DTLS drops the
bytes, counts the reason and says nothing); or a :class:`ProtocolError`, which is fatal and knows
the alert its peer should be sent.  The application sees the tree below :class:`Error`, which is
an :class:`OSError` just as :class:`ssl.SSLError` is.
"""

from __future__ import annotations

import enum

__all__ = [
    "Alert",
    "CertificateError",
    "CertificateFailure",
    "ConfigurationError",
    "ConnectionClosed",
    "Discard",
    "Error",
    "HandshakeError",
    "KeysExhausted",
    "LimitReached",
    "PeerAlert",
    "ProtocolError",
    "Truncated",
]


class Alert(enum.IntEnum):
    """AlertDescription (RFC 8446 section 6, RFC 9147 section 9).  Unknown codes survive."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    TOO_MANY_CIDS_REQUESTED = 52
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    USER_CANCELED = 90
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    UNRECOGNIZED_NAME = 112
    BAD_CERTIFICATE_STATUS_RESPONSE = 113
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    GENERAL_ERROR = 117  # RFC 9846 [8446-ALERT-7]
    NO_APPLICATION_PROTOCOL = 120

    # Members are equal to their numbers, so they hash like them; Enum's own hash is a Python call.
    __hash__ = int.__hash__

    @classmethod
    def _missing_(cls, value: object) -> Alert | None:
        if not isinstance(value, int) or not 0 <= value <= 0xFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"ALERT_{value}"
        member._value_ = value
        return member

    @property
    def words(self) -> str:
        """The name as RFC 8446 writes it, for messages: ``"handshake_failure"``."""
        return self.name.lower()


class Discard(enum.Enum):
    """Why received bytes were dropped in silence.  Each reason is a counter.

    RFC 9147 section 4.5.2: an invalid record is dropped and the association lives on.
    """

    EMPTY = "empty datagram"
    NOT_DTLS = "first byte belongs to no DTLS record"
    TRUNCATED_HEADER = "record header is cut short"
    TRUNCATED_RECORD = "record is longer than its datagram"
    SHORT_CIPHERTEXT = "ciphertext below 16 bytes"
    OVERSIZED_RECORD = "record is longer than the protocol allows"
    UNKNOWN_EPOCH = "no keys for the record's epoch"
    UNKNOWN_CID = "connection id is missing, wrong or was never negotiated"
    AUTHENTICATION = "record failed authentication"
    REPLAY = "record number was seen before"
    TOO_OLD = "record number lies behind the replay window"
    EMPTY_CONTENT = "opened record holds only padding"
    UNEXPECTED_TYPE = "content type is not legal here"
    UNEXPECTED_PLAINTEXT = "plaintext record after keys exist"
    EARLY_APPLICATION_DATA = "application data before the handshake finished"
    AFTER_CLOSE = "record after the peer's close_notify"
    CLOSED = "connection is closed"
    STALE_MESSAGE = "handshake message was already processed"
    FUTURE_MESSAGE = "handshake message is too far ahead"
    BAD_FRAGMENT = "handshake fragment contradicts itself or an earlier one"
    OVER_BUDGET = "memory limit reached"
    INCOMPLETE_HELLO = "part of a ClientHello; the rest is awaited"
    UNKNOWN_PEER = "no connection and no ClientHello"
    MALFORMED_HELLO = "ClientHello cannot be decoded"
    UNDER_LOAD = "first hello while there are more than are answered"
    BAD_COOKIE = "cookie is forged, foreign or expired"
    OTHER_VERSION = "ClientHello offers no DTLS 1.3"
    OTHER_PROTOCOL = "datagram belongs to another protocol (RFC 7983)"
    REFUSED = "admission refused the peer"
    OVER_QUOTA = "the prefix of a proved address has had its share of this second"
    EARLY_ACK = "ACK before DTLS 1.3 was selected"
    MALFORMED_ACK = "unauthenticated ACK cannot be decoded"
    PLAINTEXT_ALERT = "plaintext alert after keys exist"
    PATH_MESSAGE = "return routability message is malformed, stale or one too many"
    RECEIVE_QUEUE_FULL = "application reads too slowly"

    # Members are singletons; Enum's own hash is a Python call, and floods are counted by reason.
    __hash__ = object.__hash__

    # Members are singletons; Enum's own hash is a Python call.
    __hash__ = object.__hash__


class Error(OSError):
    """Base of every error sealwire raises on its own account."""


class ConfigurationError(Error, ValueError):
    """The application asked for something impossible (unknown suite, key that does not match)."""


class ProtocolError(Error):
    """The peer broke the protocol, or we cannot go on with it.  Fatal; the peer is sent ``alert``.

    Attributes:
        alert: the alert that tells the peer.
        reason: one sentence for people.
        limit: the field of :class:`sealwire.Limits` that was reached, "" if it was none.
    """

    def __init__(self, alert: Alert, reason: str, limit: str = "") -> None:
        super().__init__(f"{reason} ({alert.words})")
        self.alert = alert
        self.reason = reason
        self.limit = limit


class HandshakeError(ProtocolError):
    """The handshake failed and no connection came to be."""


class CertificateFailure(enum.Enum):
    """Classes of certificate failure, so that a program can decide without reading text."""

    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    UNKNOWN_ISSUER = "unknown issuer"
    WRONG_NAME = "wrong name"
    BAD_USAGE = "bad usage"
    UNSUPPORTED_ALGORITHM = "unsupported algorithm"
    MALFORMED = "malformed"
    MISSING = "missing"
    REVOKED = "revoked"
    REJECTED = "rejected by policy"


class CertificateError(HandshakeError):
    """The peer's certificate was refused.

    Attributes:
        failure: the class of failure.
    """

    def __init__(
        self, failure: CertificateFailure, reason: str, alert: Alert | None = None, limit: str = ""
    ) -> None:
        super().__init__(_CERTIFICATE_ALERTS[failure] if alert is None else alert, reason, limit)
        self.failure = failure


_CERTIFICATE_ALERTS = {
    CertificateFailure.EXPIRED: Alert.CERTIFICATE_EXPIRED,
    CertificateFailure.NOT_YET_VALID: Alert.CERTIFICATE_EXPIRED,
    CertificateFailure.UNKNOWN_ISSUER: Alert.UNKNOWN_CA,
    CertificateFailure.WRONG_NAME: Alert.BAD_CERTIFICATE,
    CertificateFailure.BAD_USAGE: Alert.UNSUPPORTED_CERTIFICATE,
    CertificateFailure.UNSUPPORTED_ALGORITHM: Alert.UNSUPPORTED_CERTIFICATE,
    CertificateFailure.MALFORMED: Alert.BAD_CERTIFICATE,
    CertificateFailure.MISSING: Alert.CERTIFICATE_REQUIRED,
    CertificateFailure.REVOKED: Alert.CERTIFICATE_REVOKED,
    CertificateFailure.REJECTED: Alert.CERTIFICATE_UNKNOWN,
}


class PeerAlert(Error):
    """The peer ended the connection with a fatal alert.

    Attributes:
        alert: what it said.
    """

    def __init__(self, alert: Alert) -> None:
        super().__init__(f"the peer sent a fatal alert: {alert.words}")
        self.alert = alert


class ConnectionClosed(Error):
    """The connection is closed, so the operation cannot be done."""


class KeysExhausted(Error):
    """No new keys can come any more: epochs or handshake message numbers are nearly used up.

    The connection is closed in order, or goes on under the keys it has; a new one is needed before long.
    """


class Truncated(ConnectionClosed):
    """A byte stream ended without close_notify: its end cannot be trusted (RFC 8446 section 6.1)."""


class LimitReached(Error):
    """A configured limit refused the operation.

    Attributes:
        name: the field of :class:`sealwire.Limits` that was reached.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{reason} (limit {name})")
        self.name = name
