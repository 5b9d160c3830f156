"""The key schedule as stages that are types: Early -> Handshake -> Application.

RFC 8446 section 7.1 with the label prefix of the flavor (RFC 9147 section 5.9 [8446-KS-1,
8446-KS-2]).  A stage holds only what can be derived at that point, and moving on takes what the
next stage needs, so nothing can be derived too early or from the wrong transcript.
"""

from __future__ import annotations

from dataclasses import dataclass

from sealwire.crypto.hkdf import Secret, expand_label
from sealwire.crypto.providers import CryptoProvider
from sealwire.crypto.suites import SuiteSpec


@dataclass(frozen=True, slots=True)
class Deriver:
    """HKDF-Expand-Label and Derive-Secret bound to a suite's hash and a flavor's prefix."""

    provider: CryptoProvider
    spec: SuiteSpec
    prefix: bytes

    def expand(self, secret: bytes, label: bytes, context: bytes, n: int) -> bytes:
        return expand_label(self.provider, self.spec.hash_name, secret, self.prefix, label, context, n)

    def derive(self, secret: bytes, label: bytes, transcript_hash: bytes) -> Secret:
        """Derive-Secret, given the hash of the messages instead of the messages."""
        return Secret.taking(self.expand(secret, label, transcript_hash, self.spec.hash_bytes))

    def empty_hash(self) -> bytes:
        return self.provider.digest(self.spec.hash_name).digest()

    def finished_mac(self, base_secret: Secret, transcript_hash: bytes) -> bytes:
        """verify_data (RFC 8446 section 4.4.4)."""
        key = self.expand(base_secret, b"finished", b"", self.spec.hash_bytes)
        return self.provider.hmac(self.spec.hash_name, key, transcript_hash)


@dataclass(frozen=True, slots=True)
class EarlyStage:
    """Before the key exchange."""

    deriver: Deriver
    secret: Secret

    @classmethod
    def start(cls, deriver: Deriver, psk: bytes = b"") -> EarlyStage:
        """With a pre-shared key; zeros stand in where there is none."""
        secret = psk or bytes(deriver.spec.hash_bytes)
        return cls(deriver, Secret.taking(deriver.provider.hkdf_extract(deriver.spec.hash_name, b"", secret)))

    def client_early_secret(self, hello_hash: bytes) -> Secret:
        """What protects early data, with the transcript up to ClientHello."""
        return self.deriver.derive(self.secret, b"c e traffic", hello_hash)

    def handshake(self, shared_secret: bytes, hello_hash: bytes) -> HandshakeStage:
        """With the (EC)DHE or hybrid secret, and the transcript up to ServerHello."""
        deriver = self.deriver
        salt = deriver.derive(self.secret, b"derived", deriver.empty_hash())
        secret = Secret.taking(deriver.provider.hkdf_extract(deriver.spec.hash_name, salt, shared_secret))
        return HandshakeStage(
            deriver,
            secret,
            client_secret=deriver.derive(secret, b"c hs traffic", hello_hash),
            server_secret=deriver.derive(secret, b"s hs traffic", hello_hash),
        )


@dataclass(frozen=True, slots=True)
class HandshakeStage:
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
        return ApplicationStage(
            deriver,
            main,
            client_secret=deriver.derive(main, b"c ap traffic", server_finished_hash),
            server_secret=deriver.derive(main, b"s ap traffic", server_finished_hash),
            exporter_secret=deriver.derive(main, b"exp master", server_finished_hash),
        )


@dataclass(frozen=True, slots=True)
class ApplicationStage:
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
