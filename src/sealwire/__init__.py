"""Secure transport for Python: DTLS 1.3 over datagrams and TLS 1.3 over byte streams.

The paved path, and nothing else: every name below lives in the module the table names and is
imported when it is first used.  So a program that needs only the engines never loads asyncio,
and importing one room does not pull in the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sealwire import dtls, presets, stcp
    from sealwire.context import (
        CERT_NONE,
        CERT_OPTIONAL,
        CERT_REQUIRED,
        PROTOCOL_CLIENT,
        PROTOCOL_SERVER,
        STAPLE_NONE,
        STAPLE_OPTIONAL,
        STAPLE_REQUIRED,
        Config,
        Context,
        Credential,
        ExternalPsk,
        SessionStore,
        create_default_context,
    )
    from sealwire.drive import (
        ThreadedServer,
        create_connection,
        create_datagram_endpoint,
        open_connection,
        open_datagram_channel,
        run_workers,
        start_datagram_server,
        start_server,
        wrap_socket,
    )
    from sealwire.dtls import Upkeep
    from sealwire.errors import (
        Alert,
        CertificateError,
        CertificateFailure,
        ConfigurationError,
        ConnectionClosed,
        Discard,
        Error,
        HandshakeError,
        KeysExhausted,
        LimitReached,
        PeerAlert,
        ProtocolError,
        Truncated,
    )
    from sealwire.limits import Limits

__version__ = "0.1.0"

_HOMES = {
    "sealwire.context": (
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
        "SessionStore",
        "create_default_context",
    ),
    "sealwire.drive": (
        "ThreadedServer",
        "create_connection",
        "create_datagram_endpoint",
        "open_connection",
        "open_datagram_channel",
        "run_workers",
        "start_datagram_server",
        "start_server",
        "wrap_socket",
    ),
    "sealwire.dtls": ("Upkeep",),
    "sealwire.errors": (
        "Alert",
        "CertificateError",
        "CertificateFailure",
        "ConfigurationError",
        "ConnectionClosed",
        "Discard",
        "Error",
        "HandshakeError",
        "KeysExhausted",
        "LimitReached",
        "PeerAlert",
        "ProtocolError",
        "Truncated",
    ),
    "sealwire.limits": ("Limits",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CERT_NONE",
    "CERT_OPTIONAL",
    "CERT_REQUIRED",
    "PROTOCOL_CLIENT",
    "PROTOCOL_SERVER",
    "STAPLE_NONE",
    "STAPLE_OPTIONAL",
    "STAPLE_REQUIRED",
    "Alert",
    "CertificateError",
    "CertificateFailure",
    "Config",
    "ConfigurationError",
    "ConnectionClosed",
    "Context",
    "Credential",
    "Discard",
    "Error",
    "ExternalPsk",
    "HandshakeError",
    "KeysExhausted",
    "LimitReached",
    "Limits",
    "PeerAlert",
    "ProtocolError",
    "SessionStore",
    "ThreadedServer",
    "Truncated",
    "Upkeep",
    "create_connection",
    "create_datagram_endpoint",
    "create_default_context",
    "dtls",
    "open_connection",
    "open_datagram_channel",
    "presets",
    "run_workers",
    "start_datagram_server",
    "start_server",
    "stcp",
    "wrap_socket",
]


def __getattr__(name: str) -> object:
    import importlib

    if name in ("dtls", "presets", "stcp"):
        return importlib.import_module(f"sealwire.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'sealwire' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # asked once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
