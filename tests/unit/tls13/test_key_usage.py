"""A key that may not sign proves nothing, whoever it belongs to (RFC 8446 section 4.4.2.2)."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from sealwire.context import CERT_NONE, CERT_OPTIONAL, Config
from sealwire.crypto.certificates import Credential, check_may_sign
from sealwire.crypto.signatures import sign
from sealwire.errors import Alert, CertificateError, CertificateFailure
from sealwire.tls13.flavor import Flavor
from tests import certificates, configs
from tests.unit.crypto.authority import DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, Issued, issue
from tests.unit.tls13.engines import Pair, client, default, each_flavor, refused, server

FORBIDDEN = issue("server", names=["localhost"], key_usage=KEY_ENCIPHERMENT)
ALLOWED = issue("server", names=["localhost"], key_usage=DIGITAL_SIGNATURE)
SILENT = issue("server", names=["localhost"])


def credential(issued: Issued) -> Credential:
    return Credential.from_callable(issued.der, lambda scheme, content: sign(issued.key, scheme, content))


def unverified(config: Config) -> Config:
    return replace(config, verify_mode=int(CERT_NONE), check_hostname=False)


@pytest.mark.requirement("8446-AUTH-1")
@each_flavor
def test_also_where_nobody_asks_whose_certificate_it_is(flavor: Flavor) -> None:
    ours, theirs = default()
    for issued in (ALLOWED, SILENT):
        pair = Pair(flavor, (unverified(ours), replace(theirs, credentials=(credential(issued),))), run=True)
        assert pair.connected
    pair = Pair(flavor, (unverified(ours), replace(theirs, credentials=(credential(FORBIDDEN),))))
    refused(pair, Alert.UNSUPPORTED_CERTIFICATE, "key usage", victim="client")


@pytest.mark.requirement("8446-AUTH-1")
@each_flavor
def test_a_clients_key_neither(flavor: Flavor) -> None:
    """It is looked at before trust is, which it would not have."""
    theirs = replace(server(client_roots=certificates.client().cafile), verify_mode=int(CERT_OPTIONAL))
    pair = Pair(flavor, (replace(client(), credentials=(credential(FORBIDDEN),)), theirs))
    refused(pair, Alert.UNSUPPORTED_CERTIFICATE, "key usage", victim="server")


@pytest.mark.requirement("8446-AUTH-1")
@each_flavor
def test_nor_one_that_is_trusted_by_itself(flavor: Flavor) -> None:
    for issued in (FORBIDDEN, ALLOWED):
        context = configs.client_context()
        context.check_hostname = False
        context.set_pinned_fingerprints([hashlib.sha256(issued.der).hexdigest()])
        pair = Pair(flavor, (context.config(), replace(server(), credentials=(credential(issued),))))
        if issued is ALLOWED:
            pair.run()
            assert pair.connected
        else:
            refused(pair, Alert.UNSUPPORTED_CERTIFICATE, "key usage", victim="client")


def test_what_cannot_be_decoded_may_not_sign() -> None:
    with pytest.raises(CertificateError) as caught:
        check_may_sign(FORBIDDEN.der)
    assert caught.value.failure is CertificateFailure.BAD_USAGE
    check_may_sign(ALLOWED.der)
    check_may_sign(SILENT.der)
    # The extension's content is no KeyUsage any more.
    usage = bytes.fromhex("0603551d0f")
    at = FORBIDDEN.der.index(usage)
    broken = FORBIDDEN.der[: at + len(usage)] + FORBIDDEN.der[at + len(usage) :].replace(
        b"\x03\x02", b"\x04\x02", 1
    )
    with pytest.raises(CertificateError) as caught:
        check_may_sign(broken)
    assert caught.value.failure is CertificateFailure.MALFORMED
    with pytest.raises(CertificateError):
        check_may_sign(b"no certificate")
