"""The running hash over all handshake messages (RFC 8446 section 4.4.1).

Messages enter whole, in TLS form, also for DTLS: message_seq and fragments are no part of the
transcript (RFC 9147 section 5.2 [9147-5.2-1]).
"""

from __future__ import annotations

from sealwire.crypto.providers import CryptoProvider, Digest
from sealwire.crypto.suites import SuiteSpec
from sealwire.tls13.messages import HandshakeType, frame


class Transcript:
    """Hash of the messages so far.  It exists once the suite, and so the hash, is known."""

    __slots__ = ("_digest",)

    def __init__(self, provider: CryptoProvider, spec: SuiteSpec) -> None:
        self._digest: Digest = provider.digest(spec.hash_name)

    @classmethod
    def after_retry(
        cls, provider: CryptoProvider, spec: SuiteSpec, client_hello_1_hash: bytes, retry_request: bytes
    ) -> Transcript:
        """The transcript of a handshake that was sent back once: a stand-in for the first hello.

        RFC 8446 section 4.4.1, RFC 9147 section 5.1 [9147-5.1-14, 8446-KS-3].
        """
        transcript = cls(provider, spec)
        transcript.add(frame(HandshakeType.MESSAGE_HASH, client_hello_1_hash))
        transcript.add(retry_request)
        return transcript

    def add(self, message: bytes) -> None:
        """Append one whole message in TLS form."""
        self._digest.update(message)

    def hash_with(self, message: bytes) -> bytes:
        """The hash as it would be with `message` added."""
        digest = self._digest.copy()
        digest.update(message)
        return digest.digest()

    def hash(self) -> bytes:
        """The hash over everything added so far."""
        return self._digest.copy().digest()


def message_hash(provider: CryptoProvider, spec: SuiteSpec, message: bytes) -> bytes:
    """Hash of a single message, as a cookie and message_hash need of the first ClientHello."""
    digest = provider.digest(spec.hash_name)
    digest.update(message)
    return digest.digest()
