"""The certificates that tests are made with are what they claim: openssl verifies every chain."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests import certificates
from tests.certificates import Identity, Kind


def verify(openssl: str, identity: Identity, purpose: str) -> None:
    subprocess.run(
        [openssl, "verify", "-purpose", purpose, "-CAfile", identity.cafile, "-untrusted",
         identity.certfile, "-x509_strict", identity.certfile],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_verifies(kind: Kind, program: Callable[[str], str]) -> None:
    verify(program("openssl"), certificates.server(kind), "sslserver")
    verify(program("openssl"), certificates.client(kind), "sslclient")
    certificates.private_key(certificates.server(kind))


def test_chains_with_intermediates_and_bulk_verify(program: Callable[[str], str]) -> None:
    identity = certificates.server(Kind.RSA_2048, intermediates=2)
    assert len(identity.chain) == 3
    verify(program("openssl"), identity, "sslserver")
    large = certificates.large_server(20_000)
    assert 20_000 <= large.chain_bytes < 21_500
    verify(program("openssl"), large, "sslserver")


def test_an_identity_is_made_once() -> None:
    assert certificates.server() is certificates.server()
    assert certificates.server().certfile.read_bytes().count(b"BEGIN CERTIFICATE") == 1
    assert certificates.server() is certificates.server(Kind.ECDSA_P256)
