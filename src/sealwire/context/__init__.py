"""Context: the verbs of ssl.SSLContext; it freezes into a Config that connections share.

A Context is changed by its owner; :meth:`Context.config` hands out what it says now as an immutable
:class:`Config`, the same object until the next change.  Connections keep the Config they began with
and listeners ask for a fresh one per peer, which is how a certificate is replaced without a restart:
call ``load_cert_chain`` again.
"""

from __future__ import annotations

import enum
import importlib
import os
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sealwire.context.config import Config
from sealwire.context.identity import (
    CERT_NONE,
    CERT_OPTIONAL,
    CERT_REQUIRED,
    STAPLE_NONE,
    STAPLE_OPTIONAL,
    STAPLE_REQUIRED,
    Identity,
)
from sealwire.context.keylog import KeyLog
from sealwire.context.records import RecordSettings
from sealwire.context.resumption import ResumptionSettings
from sealwire.context.sessions import SessionStore
from sealwire.crypto.certificates import Credential
from sealwire.crypto.credentials import PathName
from sealwire.crypto.groups import DEFAULT_GROUPS, Group, parse_groups
from sealwire.crypto.providers import CryptoProvider, default_provider
from sealwire.crypto.psk import ClientCallback, ExternalPsk, PskMode, ServerCallback, parse_psk_modes
from sealwire.crypto.signatures import DEFAULT_SCHEMES, parse_schemes
from sealwire.crypto.suites import DEFAULT_SUITES, parse_suites
from sealwire.errors import Alert, ConfigurationError, HandshakeError, ProtocolError
from sealwire.limits import Limits

__all__ = [
    "CERT_NONE",
    "CERT_OPTIONAL",
    "CERT_REQUIRED",
    "PROTOCOL_CLIENT",
    "PROTOCOL_SERVER",
    "STAPLE_NONE",
    "STAPLE_OPTIONAL",
    "STAPLE_REQUIRED",
    "Config",
    "Context",
    "Credential",
    "ExternalPsk",
    "Protocol",
    "SessionStore",
    "create_default_context",
]


class Protocol(enum.IntEnum):
    """Which side a Context is for.  The values are ssl.PROTOCOL_TLS_CLIENT and ..._SERVER, also accepted."""

    CLIENT = 16
    SERVER = 17


PROTOCOL_CLIENT = Protocol.CLIENT
PROTOCOL_SERVER = Protocol.SERVER

#: Called with the name a client asked for (None without one) and the Context; returns the Context to go on
#: with, or None for the same.  Raising HandshakeError chooses the alert.
ServerNameCallback = Callable[[str | None, "Context"], "Context | None"]


class Context(Identity, ResumptionSettings, RecordSettings):
    """Settings of one side, with the names and defaults of :class:`ssl.SSLContext`.

    A client's context verifies its peer and the peer's name; a server's asks for no certificate.

    Args:
        protocol: PROTOCOL_CLIENT or PROTOCOL_SERVER.
        provider: cryptography to use; tests pass a deterministic one.

    Raises:
        ValueError: another protocol.
    """

    def __init__(self, protocol: int = PROTOCOL_CLIENT, *, provider: CryptoProvider | None = None) -> None:
        self.protocol = Protocol(protocol)
        Identity.__init__(self, is_client=self.protocol is Protocol.CLIENT)
        self._provider = provider or default_provider()
        self._suites = DEFAULT_SUITES
        self._groups = tuple(group for group in DEFAULT_GROUPS if self._provider.supports(group))
        self._key_shares: tuple[Group, ...] | None = None
        self._schemes = DEFAULT_SCHEMES
        self._alpn: tuple[bytes, ...] = ()
        self._keylog: KeyLog | None = None
        self._sni_callback: ServerNameCallback | None = None
        self._psk_client: ClientCallback | None = None
        self._psk_server: ServerCallback | None = None
        self._psk_modes: tuple[PskMode, ...] = (PskMode.PSK_DHE_KE,)
        self._grease = False
        ResumptionSettings.__init__(self, self._provider)
        RecordSettings.__init__(self)
        self._config: Config | None = None

    def __repr__(self) -> str:
        return f"<Context {self.protocol.name.lower()} verify_mode={self._verify_mode.name}>"

    # What is negotiated.

    def set_alpn_protocols(self, protocols: Sequence[str | bytes]) -> None:
        """Application protocols, best first; an empty list switches ALPN off.

        Raises:
            ConfigurationError: a name that is not 1 to 255 bytes of ASCII, or more names than fit.
        """
        if isinstance(protocols, str | bytes):
            raise ConfigurationError("ALPN protocols come as a list: pass [name]")
        encoded = []
        for name in protocols:
            try:
                wire = name.encode("ascii") if isinstance(name, str) else bytes(name)
            except UnicodeEncodeError:
                wire = b""
            # RFC 7301 section 3.1: opaque ProtocolName<1..2^8-1>, in a list of at most 2^16-1 bytes.
            if not 1 <= len(wire) <= 255:
                raise ConfigurationError(
                    f"ALPN protocol {name!r} is not 1 to 255 ASCII characters: choose another name"
                )
            encoded.append(wire)
        if sum(len(wire) + 1 for wire in encoded) > 0xFFFF:
            raise ConfigurationError("the ALPN protocols do not fit into 65,535 bytes: offer fewer")
        self._changed()
        self._alpn = tuple(encoded)

    def set_ciphersuites(self, names: str | Sequence[str], *, allow_short_tags: bool = False) -> None:
        """Cipher suites, best first; a list, or one string with ``:``.

        Args:
            allow_short_tags: needed for TLS_AES_128_CCM_8_SHA256, whose 8-byte tag stands only 128 forged
                records per key (RFC 9147 section 4.5.3); for devices that can do nothing else.

        Raises:
            ConfigurationError: an unknown suite, or one with short tags that were not allowed.
        """
        suites = parse_suites(names, allow_short_tags=allow_short_tags)
        self._changed()
        self._suites = suites

    def set_groups(self, names: str | Sequence[str]) -> None:
        """Key exchange groups, best first; a list, or one string with ``:``.

        Raises:
            ConfigurationError: an unknown group, or one the installed libraries cannot do.
        """
        groups = parse_groups(names)
        for group in groups:
            if not self._provider.supports(group):
                raise ConfigurationError(
                    f"cryptography, as installed, cannot do {group.name}: leave it out or upgrade"
                )
        self._changed()
        self._groups = groups

    @property
    def grease(self) -> bool:
        """Whether a client offers values that mean nothing among those that do (RFC 8701).  Off at first.

        It keeps servers in the habit of ignoring what they do not know.  The values differ from connection
        to connection, and so does the hello's fingerprint.
        """
        return self._grease

    @grease.setter
    def grease(self, value: bool) -> None:
        self._changed()
        self._grease = bool(value)

    def set_signature_schemes(self, names: str | Sequence[str]) -> None:
        """Signature schemes accepted from peers, best first; a list, or one string with ``:``.

        ``ed448``, ``mldsa44``, ``mldsa65`` and ``mldsa87`` are accepted only if named here.  What our own
        keys sign with follows from the keys.

        Raises:
            ConfigurationError: an unknown scheme, or none that can sign a handshake.
        """
        schemes = parse_schemes(names)
        self._changed()
        self._schemes = schemes

    def set_key_shares(self, names: str | Sequence[str] | None) -> None:
        """Groups a client sends key shares for without being asked.

        Args:
            names: some of the groups; [] to let the server choose first; None for the protocol's default.

        Raises:
            ConfigurationError: an unknown group.  That each is among the groups is checked by config().
        """
        shares = None if names is None else parse_groups(names) if names else ()
        self._changed()
        self._key_shares = shares

    @property
    def sni_callback(self) -> ServerNameCallback | None:
        """Chooses a Context by the name a client asks for: ``(server_name, context) -> Context | None``.

        A datagram server calls it for every hello, also before the client's address is proved: it should
        look something up and return, as anybody can have it called.
        """
        return self._sni_callback

    @sni_callback.setter
    def sni_callback(self, callback: ServerNameCallback | None) -> None:
        _check_callable(callback, "sni_callback")
        self._changed()
        self._sni_callback = callback

    # Keys agreed before.

    def set_psk_client_callback(self, callback: ClientCallback | None) -> None:
        """Offer servers a pre-shared key; ``callback(None) -> (identity, secret)``, as in ssl.

        It may also return an :class:`~sealwire.crypto.psk.ExternalPsk`, or None for no key.  It is called
        once for each connection.

        Raises:
            ConfigurationError: this is a server's context.
        """
        if self.protocol is not Protocol.CLIENT:
            raise ConfigurationError("a server has no PSK client callback: call set_psk_server_callback")
        _check_callable(callback, "a PSK callback")
        self._changed()
        self._psk_client = callback

    def set_psk_server_callback(self, callback: ServerCallback | None) -> None:
        """Accept clients with a pre-shared key; ``callback(identity) -> secret``, as in ssl.

        It may also return an :class:`~sealwire.crypto.psk.ExternalPsk`; None or ``b""`` for an identity it
        does not know.  A server with a callback needs no certificate.

        Raises:
            ConfigurationError: this is a client's context.
        """
        if self.protocol is not Protocol.SERVER:
            raise ConfigurationError("a client has no PSK server callback: call set_psk_client_callback")
        _check_callable(callback, "a PSK callback")
        self._changed()
        self._psk_server = callback

    def set_psk_key_exchange_modes(
        self, names: str | Sequence[str], *, allow_without_forward_secrecy: bool = False
    ) -> None:
        """How pre-shared keys and tickets are used, best first; a list, or one string with ``:``.

        ``psk_dhe_ke``, with a fresh key exchange, is the only one unless this is called.

        Args:
            allow_without_forward_secrecy: needed for ``psk_ke``, which does without: who learns the key later
                reads every connection that was recorded.  For devices that can do nothing else.

        Raises:
            ConfigurationError: an unknown mode, none, or psk_ke that was not allowed.
        """
        modes = parse_psk_modes(names, allow_without_forward_secrecy=allow_without_forward_secrecy)
        self._changed()
        self._psk_modes = modes

    # Debugging.

    @property
    def keylog_filename(self) -> str | None:
        """File to which secrets are appended in the format of RFC 9850, for packet analysers; None for none.

        Setting it opens the file (created for its owner only).  ConfigurationError if that fails.
        """
        return None if self._keylog is None else self._keylog.name

    @keylog_filename.setter
    def keylog_filename(self, name: PathName | None) -> None:
        keylog = None if name is None else KeyLog(name)
        self._changed()
        self._keylog = keylog

    # The result.

    def config(self) -> Config:
        """This context, frozen; the same object until the next change.

        Raises:
            ConfigurationError: a server without a certificate; key shares outside the groups.
        """
        if self._config is None:
            self._config = self._freeze()
        return self._config

    def _freeze(self) -> Config:
        if self.protocol is Protocol.SERVER and not self._credentials and self._psk_server is None:
            raise ConfigurationError("a server needs a certificate: call load_cert_chain first")
        shares = self._key_shares
        if shares is not None:
            for group in shares:
                if group not in self._groups:
                    raise ConfigurationError(
                        f"key share {group.name} is not among the groups: add it with set_groups"
                    )
            # RFC 8446 section 4.2.8: shares come in the order of supported_groups.
            shares = tuple(group for group in self._groups if group in shares)
        limits = Limits()
        return Config(
            provider=self._provider,
            suites=self._suites,
            groups=self._groups,
            key_shares=shares,
            signature_schemes=self._schemes,
            alpn=self._alpn,
            credentials=tuple(self._credentials.values()),
            verify_mode=int(self._verify_mode),
            check_hostname=self._check_hostname,
            verifier=self._make_verifier(),
            max_chain_bytes=limits.certificate_chain_bytes,
            max_chain_length=limits.certificate_chain_length,
            keylog=self._keylog,
            choose=None if self._sni_callback is None else self._chooser(self._sni_callback),
            psk_client=self._psk_client,
            psk_server=self._psk_server,
            **self._resumption(),
            **self._records(),
            certificate_compression=self._compression,
            staple_mode=self._staple_mode,
            certificate_timestamps=self._certificate_timestamps,
            psk_modes=self._psk_modes,
            grease=self._grease,
        )

    def _chooser(self, callback: ServerNameCallback) -> Callable[[str | None], Config | None]:
        def choose(name: str | None) -> Config | None:
            try:
                chosen = callback(name, self)
                return None if chosen is None or chosen is self else chosen.config()
            except ProtocolError:
                raise
            except Exception as error:
                # The application's code failed; its peer learns only that, and it learns the rest.
                raise HandshakeError(Alert.INTERNAL_ERROR, "sni_callback failed") from error

        return choose

    def _changed(self) -> None:
        self._config = None

    def wrap_socket(
        self, sock: Any, server_side: bool = False, server_hostname: str | None = None, **options: Any
    ) -> Any:
        """A secured socket over `sock`: DTLS 1.3 over SOCK_DGRAM, TLS 1.3 over SOCK_STREAM.

        See :func:`sealwire.drive.blocking.wrap_socket`, which does it.
        """
        # Imported when called: settings know nothing of sockets, and must load without them.
        blocking = importlib.import_module("sealwire.drive.blocking")
        return blocking.wrap_socket(
            self, sock, server_side=server_side, server_hostname=server_hostname, **options
        )


def _check_callable(callback: object, name: str) -> None:
    if callback is not None and not callable(callback):
        raise TypeError(f"{name} must be callable or None")


def create_default_context(
    purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH,
    *,
    cafile: PathName | None = None,
    capath: PathName | None = None,
    cadata: str | bytes | bytearray | memoryview | None = None,
) -> Context:
    """A Context with the settings one should want, as :func:`ssl.create_default_context`.

    Args:
        purpose: SERVER_AUTH makes a client's context, CLIENT_AUTH a server's.
        cafile, capath, cadata: whom to trust; the system's store if none is given and peers are verified.

    Raises:
        ConfigurationError: a certificate file, or the one named by SSLKEYLOGFILE, cannot be used.
    """
    if not isinstance(purpose, ssl.Purpose):
        raise TypeError(f"purpose is an ssl.Purpose, not {type(purpose).__name__}")
    context = Context(PROTOCOL_CLIENT if purpose is ssl.Purpose.SERVER_AUTH else PROTOCOL_SERVER)
    if cafile is not None or capath is not None or cadata is not None:
        context.load_verify_locations(cafile, capath, cadata)
    elif context.verify_mode is not CERT_NONE:
        context.load_default_certs(purpose)
    keylog = os.environ.get("SSLKEYLOGFILE")
    if keylog and not sys.flags.ignore_environment:
        context.keylog_filename = keylog
    return context
