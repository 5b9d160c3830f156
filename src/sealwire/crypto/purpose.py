"""What a certificate is to be used for, as TLS names its two sides."""

from __future__ import annotations

import enum

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

__all__ = ["Purpose"]


class Purpose(enum.Enum):
    """Whose certificate is judged: a SERVER's (extended key usage serverAuth) or a CLIENT's (clientAuth)."""

    SERVER = "server"
    CLIENT = "client"

    @property
    def key_usage(self) -> x509.ObjectIdentifier:
        """The extendedKeyUsage the certificate must allow, where it has that extension."""
        return ExtendedKeyUsageOID.SERVER_AUTH if self is Purpose.SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
