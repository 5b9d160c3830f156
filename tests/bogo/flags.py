"""The flags of a BoGo shim, as BoringSSL's runner writes them (ssl/test/PORTING.md of BoringSSL).

A flag stands for all connections of a test, or with ``-on-initial``, ``-on-resume`` or ``-on-retry``
for one of them.  Flags after ``-new-x509-credential`` and its like describe that credential.  A flag
that is not in the tables says that the test needs something this shim does not have.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Value = bool | int | str | bytes
_SCOPES = ("initial", "resume", "retry")


class UnknownFlag(Exception):
    """The test needs what this shim does not have."""


_BOOLS = frozenset(
    {
        "-allow-unknown-alpn-protos",
        "-async",
        "-check-close-notify",
        "-decline-alpn",
        "-dtls",
        "-enable-early-data",
        "-enable-grease",
        "-enable-ocsp-stapling",
        "-enable-signed-cert-timestamps",
        "-expect-extended-master-secret",
        "-expect-secure-renegotiation",
        "-expect-accept-early-data",
        "-expect-hrr",
        "-expect-no-hrr",
        "-expect-no-offer-early-data",
        "-expect-no-peer-cert",
        "-expect-no-session",
        "-expect-no-session-id",
        "-expect-reject-early-data",
        "-expect-session-id",
        "-expect-session-miss",
        "-expect-ticket-supports-early-data",
        "-expect-verify-result",
        "-fail-cert-callback",
        "-fail-ddos-callback",
        "-implicit-handshake",
        "-install-cert-compression-algs",
        "-install-ddos-callback",
        "-ipv6",
        "-key-update",
        "-key-update-before-read",
        "-no-key-shares",
        "-no-ticket",
        "-no-tls1",
        "-no-tls11",
        "-no-tls12",
        "-no-tls13",
        "-read-with-unfinished-write",
        "-reject-alpn",
        "-renegotiate-freely",
        "-renew-ticket",
        "-require-any-client-certificate",
        "-reverify-on-resume",
        "-select-empty-alpn",
        "-send-alert",
        "-server",
        "-server-preference",
        "-shim-shuts-down",
        "-shim-writes-first",
        "-skip-ticket",
        "-use-custom-verify-callback",
        "-use-export-context",
        "-use-old-client-cert-callback",
        "-use-early-callback",
        "-use-ticket-aead-callback",
        "-use-ticket-callback",
        "-verify-fail",
        "-verify-peer",
    }
)
_NUMBERS = frozenset(
    {
        "-expect-cipher",
        "-expect-cipher-aes",
        "-expect-cipher-no-aes",
        "-expect-curve-id",
        "-expect-peer-certificate-type",
        "-expect-peer-signature-algorithm",
        "-expect-selected-credential",
        "-expect-ticket-age-skew",
        "-expect-version",
        "-export-keying-material",
        "-initial-timeout-duration-ms",
        "-max-cert-list",
        "-max-version",
        "-min-version",
        "-install-one-cert-compression-alg",
        "-mtu",
        "-port",
        "-private-key-delay-ms",
        "-read-size",
        "-repeat-shim-initial-write",
        "-resume-count",
        "-resumption-delay",
        "-shim-id",
    }
)
_OCTETS = frozenset(
    {
        "-advertise-alpn",
        "-expect-advertised-alpn",
        "-expect-alpn",
        "-expect-server-name",
        "-export-context",
        "-export-label",
        "-host-name",
        "-select-alpn",
        "-shim-initial-write",
    }
)
_TEXTS = frozenset(
    {
        "-expect-early-data-reason",
        "-expect-peer-cert-file",
        "-srtp-profiles",
        "-trust-cert",
        "-use-client-ca-list",
    }
)
_BASE64 = frozenset({"-expect-ocsp-response", "-expect-peer-rpk-sha256", "-expect-signed-cert-timestamps"})
_LISTS = (
    "-accepted-peer-cert-types",
    "-available-client-cert-types",
    "-curves",
    "-key-shares",
    "-verify-prefs",
    "-expect-peer-verify-pref",
)
_NEW_CREDENTIAL = {"-new-x509-credential": "x509", "-new-rpk-credential": "rpk"}


@dataclass(slots=True)
class CredentialFlags:
    """One credential: its kind, files and limits."""

    kind: str = "x509"
    cert_file: str = ""
    key_file: str = ""
    signing_prefs: list[int] = field(default_factory=list)
    must_match_issuer: bool = False
    ocsp_response: bytes = b""
    #: A SignedCertificateTimestampList.
    timestamps: bytes = b""


@dataclass(slots=True)
class Flags:
    """What holds for one connection."""

    values: dict[str, Value] = field(default_factory=dict)
    lists: dict[str, list[int]] = field(default_factory=dict)
    default_credential: CredentialFlags = field(default_factory=CredentialFlags)
    credentials: list[CredentialFlags] = field(default_factory=list)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def number(self, name: str, default: int = 0) -> int:
        value = self.values.get(name, default)
        assert isinstance(value, int)
        return value

    def text(self, name: str) -> str:
        value = self.values.get(name, "")
        assert isinstance(value, str)
        return value

    def octets(self, name: str) -> bytes:
        value = self.values.get(name, b"")
        assert isinstance(value, bytes)
        return value


def parse(arguments: Sequence[str]) -> dict[str, Flags]:
    """The flags of the first connection, of resumptions and of retries.

    Raises:
        UnknownFlag: for one that is in no table.
    """
    flags = {scope: Flags() for scope in _SCOPES}
    words = iter(arguments)
    for word in words:
        scopes, name = _scopes(word)
        for found in _take(name, words, [flags[scope] for scope in scopes]):
            raise UnknownFlag(found)
    return flags


def _scopes(word: str) -> tuple[tuple[str, ...], str]:
    if word.startswith("-on-shim-"):
        word = word.removeprefix("-on-shim")
    for scope in _SCOPES:
        prefix = f"-on-{scope}-"
        if word.startswith(prefix):
            return (scope,), "-" + word.removeprefix(prefix)
    return _SCOPES, word


def _take(name: str, words: Iterable[str], targets: list[Flags]) -> list[str]:
    """Note one flag in `targets`; returns it if nobody knows it."""
    parameters = iter(words)
    if name in _BOOLS:
        for target in targets:
            target.values[name] = True
    elif name in _NUMBERS | _OCTETS | _TEXTS:
        parameter = next(parameters)
        value: Value = parameter
        if name not in _TEXTS:
            # The bytes of an argument need not be text.
            value = int(parameter) if name in _NUMBERS else os.fsencode(parameter)
        for target in targets:
            target.values[name] = value
    elif name in _BASE64:
        octets = base64.b64decode(next(parameters))
        for target in targets:
            target.values[name] = octets
    elif name in _LISTS:
        number = int(next(parameters))
        for target in targets:
            target.lists.setdefault(name, []).append(number)
    elif name in _NEW_CREDENTIAL:
        for target in targets:
            target.credentials.append(CredentialFlags(_NEW_CREDENTIAL[name]))
    else:
        return _describe_credential(name, parameters, targets)
    return []


def _describe_credential(name: str, parameters: Iterable[str], targets: list[Flags]) -> list[str]:
    def described(target: Flags) -> CredentialFlags:
        return target.credentials[-1] if target.credentials else target.default_credential

    if name == "-must-match-issuer":
        for target in targets:
            described(target).must_match_issuer = True
        return []
    if name not in ("-cert-file", "-key-file", "-signing-prefs", "-ocsp-response", "-signed-cert-timestamps"):
        return [name]
    parameter = next(iter(parameters))
    for target in targets:
        credential = described(target)
        if name == "-cert-file":
            credential.cert_file = parameter
        elif name == "-key-file":
            credential.key_file = parameter
        elif name == "-signing-prefs":
            credential.signing_prefs.append(int(parameter))
        elif name == "-ocsp-response":
            credential.ocsp_response = base64.b64decode(parameter)
        else:
            credential.timestamps = base64.b64decode(parameter)
    return []
