"""What a live connection says about itself, in the words of :mod:`ssl`; and that a fork ends it.

A forked child has a copy of its parent's keys and record numbers.  Whatever it sealed would use a
nonce the parent uses too, which gives both plaintexts and the authentication key away.  So every
object of the drivers remembers in which process it was made and refuses to work in another.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal, overload

from sealwire.errors import ConnectionClosed, Error

if TYPE_CHECKING:
    from sealwire import dtls, stcp
    from sealwire.dtls import EarlyData
    from sealwire.telemetry import KeyUsage

_generation = 0


def _count_fork() -> None:
    global _generation  # noqa: PLW0603
    _generation += 1


# Cheaper to compare than os.getpid() at every call, and not fooled by a process id used again.
os.register_at_fork(after_in_child=_count_fork)


class Forked(Error):
    """The connection belongs to the process that forked this one; it cannot be used here."""


class ProcessBound:
    """Base of what must not be used in a forked child."""

    def __init__(self) -> None:
        self._born_in = _generation

    def _check_process(self) -> None:
        """Raise :class:`Forked` in any process but the one that made this object."""
        if self._born_in != _generation:
            message = (
                "this connection was made before a fork and belongs to the parent; open one of its own here"
            )
            raise Forked(message)


class Facts(ProcessBound, ABC):
    """The facts of an established connection.  Before that they raise Error."""

    @property
    @abstractmethod
    def connection(self) -> dtls.Connection | stcp.Connection:
        """The engine."""

    def version(self) -> str:
        """``"DTLSv1.3"`` or ``"TLSv1.3"``."""
        return self.connection.session.version.replace(" ", "v")

    def cipher(self) -> tuple[str, str, int]:
        """Suite, protocol and key size in bits, as :meth:`ssl.SSLSocket.cipher`."""
        session = self.connection.session
        return session.suite.name, self.version(), session.suite.key_bytes * 8

    def group(self) -> str | None:
        """The key exchange group, such as ``"X25519MLKEM768"``; None with a pre-shared key alone (psk_ke)."""
        group = self.connection.session.group
        return None if group is None else group.name

    def selected_alpn_protocol(self) -> str | None:
        """The application protocol agreed on; None if none was."""
        alpn = self.connection.session.alpn
        return None if alpn is None else alpn.decode("utf-8", "backslashreplace")

    def server_name(self) -> str | None:
        """The name the client asked for."""
        return self.connection.session.server_name

    @property
    def session_reused(self) -> bool:
        """Whether a ticket of an earlier connection stood for certificates, as in :mod:`ssl`."""
        return self.connection.session.resumed

    @property
    def early_data(self) -> EarlyData:
        """Whether early data was offered and accepted; what was not accepted is lost."""
        return self.connection.session.early_data

    @property
    def ticket_age_skew(self) -> float | None:
        """A server's: by how many seconds the client takes its ticket for older than it is; None without one.

        Early data is taken within ``Context.set_early_data_window`` of 0 (RFC 8446 section 8.3).
        """
        return self.connection.session.ticket_age_skew

    def psk_identity(self) -> str | None:
        """Whose pre-shared key it is, as a server's callback is asked; None where certificates were used."""
        identity = self.connection.session.psk_identity
        return None if identity is None else identity.decode("utf-8", "surrogateescape")

    @overload
    def getpeercert(self, binary_form: Literal[False] = False) -> dict[str, Any] | None: ...
    @overload
    def getpeercert(self, binary_form: Literal[True]) -> bytes | None: ...
    @overload
    def getpeercert(self, binary_form: bool) -> dict[str, Any] | bytes | None: ...
    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        """The peer's certificate: None if it showed none, a dict as :mod:`ssl` makes it, or DER.

        With a pre-shared key nobody shows one; see :meth:`psk_identity`.  A raw public key is none; see
        :meth:`get_peer_raw_public_key`.
        """
        peer = self.connection.session.peer_certificate
        if peer is None:
            return None
        return peer.chain[0] if binary_form else peer.as_dict()

    def get_peer_raw_public_key(self) -> bytes | None:
        """The peer's raw public key, DER SubjectPublicKeyInfo (RFC 7250); None if it showed none."""
        key = self.connection.session.peer_raw_public_key
        return None if key is None else key.spki

    def get_ocsp_response(self) -> bytes | None:
        """The OCSP response, DER, that came with the peer's certificate; None if none came.

        It was found good, unless ``verify_mode`` is CERT_NONE or the certificate is trusted by itself.
        """
        peer = self.connection.session.peer_certificate
        return None if peer is None else peer.ocsp_response or None

    def get_certificate_timestamps(self) -> tuple[bytes, ...]:
        """The signed certificate timestamps that came with the peer's certificate (RFC 6962), as they came.

        Empty where none came.  Nobody has judged them: docs/certificate-timestamps.md.
        """
        peer = self.connection.session.peer_certificate
        return () if peer is None else peer.timestamps

    def export_keying_material(self, label: bytes, n: int, context: bytes = b"") -> bytes:
        """`n` bytes both sides can derive and nobody else (RFC 8446 section 7.5)."""
        self._check_process()
        return self.connection.export(label, context, n)

    def get_channel_binding(self, cb_type: str = "tls-exporter") -> bytes:
        """Channel binding data (RFC 9266).  ValueError for any type but ``"tls-exporter"``."""
        if cb_type != "tls-exporter":
            # RFC 9266 section 3: tls-unique is not defined for TLS 1.3.
            raise ValueError(f"channel binding {cb_type!r} does not exist in version 1.3: use 'tls-exporter'")
        return self.export_keying_material(b"EXPORTER-Channel-Binding", 32)

    def record_limits(self) -> tuple[int, int] | None:
        """The longest records sent and received, content, type and padding in bytes; None where the two sides
        did not speak of them (RFC 8449).
        """
        return self.connection.session.record_limits

    def key_usage(self) -> KeyUsage:
        """What the keys in use have done, and what they may (docs/keys-over-time.md)."""
        return self.connection.key_usage

    def statistics(self) -> dict[str, int]:
        """The connection's counters by name."""
        return self.connection.counters.snapshot()


class StreamFacts(Facts):
    """The facts of a connection over a byte stream, which may be in message mode (docs/stcp.md)."""

    @property
    @abstractmethod
    def connection(self) -> stcp.Connection:
        """The engine."""

    @property
    def message_mode(self) -> bool:
        """Whether both sides agreed to speak in messages."""
        return self.connection.message_mode

    @property
    def application(self) -> str | None:
        """The application agreed on with message mode; None without one."""
        return self.connection.application

    @property
    def peer_going_away(self) -> bool:
        """In message mode, whether the peer said that it means to close before long."""
        return self.connection.peer_going_away


def is_end(error: BaseException, facts: Facts) -> bool:
    """Whether `error`, which a handler let through, only says that its connection ended.

    That is nothing to report: a peer must not be able to write our log.
    """
    return isinstance(error, (ConnectionClosed, EOFError)) or error is facts.connection.error
