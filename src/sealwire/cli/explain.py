"""From an exception of the API to one sentence, the next step, and an exit code."""

from __future__ import annotations

import socket

from sealwire.cli.say import Exit, Failure
from sealwire.errors import (
    Alert,
    CertificateError,
    CertificateFailure,
    ConfigurationError,
    ConnectionClosed,
    LimitReached,
    PeerAlert,
    ProtocolError,
)

_CERTIFICATE_STEPS = {
    CertificateFailure.EXPIRED: "renew it, or check this machine's clock",
    CertificateFailure.NOT_YET_VALID: "check this machine's clock and the peer's",
    CertificateFailure.UNKNOWN_ISSUER: "name the CA that issued it with --cafile (--client-ca when serving)",
    CertificateFailure.WRONG_NAME: "connect by a name in the certificate, or say it with --servername",
    CertificateFailure.BAD_USAGE: "the peer needs a certificate made for its role",
    CertificateFailure.UNSUPPORTED_ALGORITHM: "the peer needs an ECDSA, RSA or Ed25519 certificate",
    CertificateFailure.MALFORMED: "look at it with: openssl x509 -text",
    CertificateFailure.MISSING: "the peer must present a certificate",
    CertificateFailure.REVOKED: "the peer needs a new certificate",
    CertificateFailure.REJECTED: "see docs/certificates.md for what certificates need",
}

# Where the alert says more than the class of failure.
_CERTIFICATE_ALERT_STEPS = {
    Alert.BAD_CERTIFICATE_STATUS_RESPONSE: (
        "the peer must staple a fresh OCSP response (serve --status-file); --status none does without"
    ),
    Alert.UNSUPPORTED_CERTIFICATE: "give --cafile for a certificate, or ask for a raw public key there",
}

_ALERT_STEPS = {
    Alert.BAD_CERTIFICATE: "it did not accept our certificate; check --cert",
    Alert.CERTIFICATE_EXPIRED: "it finds our certificate expired; renew it, or check both clocks",
    Alert.CERTIFICATE_REVOKED: "our certificate was revoked; get a new one",
    Alert.BAD_CERTIFICATE_STATUS_RESPONSE: "it wants a good OCSP response; check --status-file",
    Alert.CERTIFICATE_REQUIRED: "it asks for a client certificate; give --cert and --key",
    Alert.CERTIFICATE_UNKNOWN: "it did not accept our certificate; check --cert",
    Alert.UNKNOWN_CA: "it does not know the CA of our certificate; check --cert",
    Alert.UNSUPPORTED_CERTIFICATE: "it cannot use our certificate; check --cert",
    Alert.ACCESS_DENIED: "it turned us away; ask who runs it",
    Alert.HANDSHAKE_FAILURE: (
        "it may speak only an older version, such as DTLS 1.2, or share none of our suites and groups;"
        " compare --ciphersuites and --groups"
    ),
    Alert.INSUFFICIENT_SECURITY: "it asks for other suites or groups; compare --ciphersuites and --groups",
    Alert.PROTOCOL_VERSION: "it speaks only older versions and must be updated or configured to speak 1.3",
    Alert.NO_APPLICATION_PROTOCOL: "it speaks none of our application protocols; compare --alpn",
    Alert.UNRECOGNIZED_NAME: "it serves no such name; check --servername",
    Alert.UNKNOWN_PSK_IDENTITY: "it does not know our pre-shared key; check --psk-identity",
    Alert.DECRYPT_ERROR: "with a pre-shared key, compare --psk of both sides",
}

_PROTOCOL_STEPS = {
    Alert.PROTOCOL_VERSION: "its program or its configuration must be newer",
    Alert.HANDSHAKE_FAILURE: "compare --ciphersuites and --groups of both sides",
    Alert.NO_APPLICATION_PROTOCOL: "compare --alpn of both sides",
    Alert.UNKNOWN_PSK_IDENTITY: "compare --psk-identity of both sides",
    Alert.DECRYPT_ERROR: "with a pre-shared key, compare --psk of both sides",
}


def _certificate_step(error: CertificateError) -> str:
    if error.failure is CertificateFailure.REJECTED and error.alert in _CERTIFICATE_ALERT_STEPS:
        return _CERTIFICATE_ALERT_STEPS[error.alert]
    return _CERTIFICATE_STEPS[error.failure]


def not_tls(error: ProtocolError) -> bool:
    """Whether the first byte that came belongs to another protocol, such as HTTP."""
    return "record cannot have type" in error.reason


def explain(error: BaseException, where: str = "the peer") -> Failure:
    """The sentence for `error`; `where` names the other side, such as ``host:4433``."""
    match error:
        case CertificateError():
            return Failure(
                Exit.NO,
                f"{where}: {error.reason}",
                _certificate_step(error),
                alert=error.alert.words,
                failure=error.failure.value,
            )
        case PeerAlert():
            step = _ALERT_STEPS.get(error.alert, "look for the reason in its log")
            return Failure(
                Exit.NO, f"{where} refused with the alert {error.alert.words}", step, alert=error.alert.words
            )
        case ProtocolError():
            step = _PROTOCOL_STEPS.get(error.alert, f"is the peer at {where} what it should be?")
            if not_tls(error):
                step = "what came is not TLS; check the port, and that TLS is spoken there"
            return Failure(
                Exit.NO, f"no connection with {where}: {error.reason}", step, alert=error.alert.words
            )
        case ConfigurationError():
            return Failure(Exit.USAGE, str(error), "")
        case LimitReached():
            return Failure(
                Exit.ENVIRONMENT, str(error), "raise that limit or send less at once", limit=error.name
            )
        case ConnectionClosed():
            return Failure(
                Exit.NO, f"the connection with {where} ended, {error}", "look for the reason in its log"
            )
        case ConnectionRefusedError():
            return Failure(
                Exit.ENVIRONMENT,
                f"nothing listens at {where}",
                "start the server there, or check host, port and --stream",
            )
        case TimeoutError():
            return Failure(
                Exit.ENVIRONMENT,
                str(error) or f"no answer from {where}",
                "check host and port, whether a firewall drops it, and that it speaks this protocol there",
            )
        case socket.gaierror():
            return Failure(
                Exit.ENVIRONMENT, f"{where} is not a known host ({error.strerror})", "check its name"
            )
        case OSError():
            reason = error.strerror or str(error) or type(error).__name__
            return Failure(
                Exit.ENVIRONMENT,
                f"{error.filename or where}, {reason.lower()}",
                "check host, port and network",
            )
        case _:
            return Failure(
                Exit.ENVIRONMENT,
                f"sealwire failed in a way it should not ({type(error).__name__}: {error})",
                "run it again with --debug and report what it prints",
            )
