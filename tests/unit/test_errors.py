"""Errors: the tree, alerts as the registry has them, classes of certificate failure."""

from __future__ import annotations

import pytest

from sealwire import errors
from sealwire.errors import (
    Alert,
    CertificateError,
    CertificateFailure,
    ConfigurationError,
    ConnectionClosed,
    Discard,
    Error,
    HandshakeError,
    LimitReached,
    PeerAlert,
    ProtocolError,
    Truncated,
)


def test_every_error_is_an_oserror_under_one_root() -> None:
    for name in errors.__all__:
        thing = getattr(errors, name)
        if isinstance(thing, type) and issubclass(thing, Exception):
            assert issubclass(thing, Error)
            assert issubclass(thing, OSError)
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(CertificateError, HandshakeError)
    assert issubclass(HandshakeError, ProtocolError)
    assert issubclass(Truncated, ConnectionClosed)


def test_alerts_have_the_registrys_numbers() -> None:
    # IANA TLS Alerts registry, the ones TLS 1.3 and DTLS 1.3 use.
    registry = {
        0: "close_notify",
        10: "unexpected_message",
        20: "bad_record_mac",
        22: "record_overflow",
        40: "handshake_failure",
        42: "bad_certificate",
        43: "unsupported_certificate",
        44: "certificate_revoked",
        45: "certificate_expired",
        46: "certificate_unknown",
        47: "illegal_parameter",
        48: "unknown_ca",
        49: "access_denied",
        50: "decode_error",
        51: "decrypt_error",
        52: "too_many_cids_requested",
        70: "protocol_version",
        71: "insufficient_security",
        80: "internal_error",
        86: "inappropriate_fallback",
        90: "user_canceled",
        109: "missing_extension",
        110: "unsupported_extension",
        112: "unrecognized_name",
        113: "bad_certificate_status_response",
        115: "unknown_psk_identity",
        116: "certificate_required",
        117: "general_error",
        120: "no_application_protocol",
    }
    assert {alert.value: alert.words for alert in Alert} == registry


def test_an_unknown_alert_survives_one_byte_wide() -> None:
    unknown = Alert(213)
    assert (unknown, unknown.words) == (213, "alert_213")
    assert unknown not in list(Alert)
    for bad in (-1, 256):
        with pytest.raises(ValueError, match="Alert"):
            Alert(bad)


def test_a_protocol_error_knows_its_alert() -> None:
    error = ProtocolError(Alert.DECODE_ERROR, "it is malformed")
    assert (error.alert, error.reason) == (Alert.DECODE_ERROR, "it is malformed")
    assert str(error) == "it is malformed (decode_error)"
    assert str(PeerAlert(Alert.UNKNOWN_CA)) == "the peer sent a fatal alert: unknown_ca"
    assert PeerAlert(Alert(213)).alert == 213


@pytest.mark.parametrize("failure", CertificateFailure)
def test_each_certificate_failure_has_its_alert(failure: CertificateFailure) -> None:
    # RFC 8446 section 6.2: the alerts whose meaning is a certificate.
    expected = {
        "EXPIRED": Alert.CERTIFICATE_EXPIRED,
        "NOT_YET_VALID": Alert.CERTIFICATE_EXPIRED,
        "UNKNOWN_ISSUER": Alert.UNKNOWN_CA,
        "WRONG_NAME": Alert.BAD_CERTIFICATE,
        "BAD_USAGE": Alert.UNSUPPORTED_CERTIFICATE,
        "UNSUPPORTED_ALGORITHM": Alert.UNSUPPORTED_CERTIFICATE,
        "MALFORMED": Alert.BAD_CERTIFICATE,
        "MISSING": Alert.CERTIFICATE_REQUIRED,
        "REVOKED": Alert.CERTIFICATE_REVOKED,
        "REJECTED": Alert.CERTIFICATE_UNKNOWN,
    }
    error = CertificateError(failure, "reason")
    assert (error.failure, error.alert) == (failure, expected[failure.name])
    assert CertificateError(failure, "reason", Alert.ACCESS_DENIED).alert is Alert.ACCESS_DENIED


def test_a_limit_names_itself() -> None:
    error = LimitReached("send_queue_bytes", "the queue is full")
    assert (error.name, str(error)) == ("send_queue_bytes", "the queue is full (limit send_queue_bytes)")


def test_reasons_for_silence_are_distinct_sentences() -> None:
    words = [reason.value for reason in Discard]
    assert len(set(words)) == len(words) == len(Discard.__members__)
    assert all(word.strip() for word in words)
