"""The key schedule as stages that are types: Early -> Handshake -> Application.

RFC 8446 section 7.1 with the label prefix of the flavor (RFC 9147 section 5.9 [8446-KS-1,
8446-KS-2]).  A stage holds only what can be derived at that point, and moving on takes what the
next stage needs, so nothing can be derived too early or from the wrong transcript.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from sealwire.crypto.hkdf import Secret, expand_label, expand_labels
from sealwire.crypto.providers import CryptoProvider
from sealwire.crypto.suites import SuiteSpec


@lru_cache(maxsize=8)
def _empty_hash(provider: CryptoProvider, hash_name: str) -> bytes:
    return provider.digest(hash_name).digest()


@lru_cache(maxsize=8)
def _without_key(
    provider: CryptoProvider, hash_name: str, hash_bytes: int, prefix: bytes
) -> tuple[Secret, Secret]:
    """Early secret, and salt of the handshake's, where there is no pre-shared key: everybody knows them."""
    early = Secret(provider.hkdf_extract(hash_name, b"", bytes(hash_bytes)))
    empty = _empty_hash(provider, hash_name)
    return early, expand_labels(provider, hash_name, early, prefix, (b"derived",), empty, hash_bytes)[0]


class Deriver(NamedTuple):
    """HKDF-Expand-Label and Derive-Secret bound to a suite's hash and a flavor's prefix."""

    provider: CryptoProvider
    spec: SuiteSpec
    prefix: bytes

    def expand(self, secret: bytes, label: bytes, context: bytes, n: int) -> bytes:
        return expand_label(self.provider, self.spec.hash_name, secret, self.prefix, label, context, n)

    def derive(self, secret: bytes, label: bytes, transcript_hash: bytes) -> Secret:
        """Derive-Secret, given the hash of the messages instead of the messages."""
        return self.derive_all(secret, (label,), transcript_hash)[0]

    def derive_all(self, secret: bytes, labels: tuple[bytes, ...], transcript_hash: bytes) -> list[Secret]:
        """:meth:`derive` with each of `labels`."""
        provider, spec, prefix = self
        return expand_labels(
            provider, spec.hash_name, secret, prefix, labels, transcript_hash, spec.hash_bytes
        )

    def empty_hash(self) -> bytes:
        return _empty_hash(self.provider, self.spec.hash_name)

    def finished_mac(self, base_secret: Secret, transcript_hash: bytes) -> bytes:
        """verify_data (RFC 8446 section 4.4.4)."""
        key = self.derive(base_secret, b"finished", b"")
        return self.provider.hmac(self.spec.hash_name, key, transcript_hash)


@lru_cache(maxsize=16)
def deriver_of(provider: CryptoProvider, spec: SuiteSpec, prefix: bytes) -> Deriver:
    """The Deriver, one object for all connections that derive alike."""
    return Deriver(provider, spec, prefix)


class EarlyStage(NamedTuple):
    """Before the key exchange."""

    deriver: Deriver
    secret: Secret
    #: Salt of the next stage, where it is known already.
    salt: Secret | None = None

    @classmethod
    def start(cls, deriver: Deriver, psk: bytes = b"") -> EarlyStage:
        """With a pre-shared key; zeros stand in where there is none."""
        if not psk:
            provider, spec, prefix = deriver
            return cls(deriver, *_without_key(provider, spec.hash_name, spec.hash_bytes, prefix))
        return cls(deriver, Secret.taking(deriver.provider.hkdf_extract(deriver.spec.hash_name, b"", psk)))

    def client_early_secret(self, hello_hash: bytes) -> Secret:
        """What protects early data, with the transcript up to ClientHello."""
        return self.deriver.derive(self.secret, b"c e traffic", hello_hash)

    def handshake(self, shared_secret: bytes, hello_hash: bytes) -> HandshakeStage:
        """With the (EC)DHE or hybrid secret, and the transcript up to ServerHello."""
        deriver = self.deriver
        provider, spec = deriver.provider, deriver.spec
        salt = self.salt or deriver.derive(self.secret, b"derived", deriver.empty_hash())
        secret = Secret.taking(provider.hkdf_extract(spec.hash_name, salt, shared_secret))
        return HandshakeStage(
            deriver, secret, *deriver.derive_all(secret, (b"c hs traffic", b"s hs traffic"), hello_hash)
        )


class HandshakeStage(NamedTuple):
    """From ServerHello to Finished."""

    deriver: Deriver
    secret: Secret
    client_secret: Secret
    server_secret: Secret

    def application(self, server_finished_hash: bytes) -> ApplicationStage:
        """With the transcript up to the server's Finished."""
        deriver = self.deriver
        salt = deriver.derive(self.secret, b"derived", deriver.empty_hash())
        zeros = bytes(deriver.spec.hash_bytes)
        main = Secret.taking(deriver.provider.hkdf_extract(deriver.spec.hash_name, salt, zeros))
        labels = (b"c ap traffic", b"s ap traffic", b"exp master")
        return ApplicationStage(deriver, main, *deriver.derive_all(main, labels, server_finished_hash))


class ApplicationStage(NamedTuple):
    """From the server's Finished on."""

    deriver: Deriver
    secret: Secret
    client_secret: Secret
    server_secret: Secret
    exporter_secret: Secret

    def resumption_secret(self, client_finished_hash: bytes) -> Secret:
        """With the transcript up to the client's Finished."""
        return self.deriver.derive(self.secret, b"res master", client_finished_hash)


def export(deriver: Deriver, exporter_secret: Secret, label: bytes, context: bytes, n: int) -> bytes:
    """Exported keying material of `n` bytes (RFC 8446 section 7.5 [8446-KS-8, 5705-1])."""
    derived = deriver.derive(exporter_secret, label, deriver.empty_hash())
    digest = deriver.provider.digest(deriver.spec.hash_name)
    digest.update(context)
    return deriver.expand(derived, b"exporter", digest.digest(), n)
