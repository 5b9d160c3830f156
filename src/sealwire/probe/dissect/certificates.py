"""Certificates seen in the clear, parsed when somebody looks and remembered by their SHA-256.

Bounded: the last CACHED certificates.  Whatever bytes a server sent give a dictionary; those that are
no certificate have a fingerprint only.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import OrderedDict
from typing import Final

from cryptography import x509

#: Certificates remembered.
CACHED: Final = 4_096
#: Names of one certificate that are told.
MAX_NAMES: Final = 64

_known: OrderedDict[bytes, dict[str, object]] = OrderedDict()


def describe(der: bytes) -> dict[str, object]:
    """What can be read of subject, issuer, names, validity (seconds since 1970); SHA-256 fingerprint."""
    digest = hashlib.sha256(der).digest()
    found = _known.get(digest)
    if found is None:
        found = _known[digest] = {"fingerprint_sha256": digest.hex(), **_parse(der)}
        if len(_known) > CACHED:
            _known.popitem(last=False)
    else:
        _known.move_to_end(digest)
    return found


def _parse(der: bytes) -> dict[str, object]:
    found: dict[str, object] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd in other people's certificates
            certificate = x509.load_der_x509_certificate(der)
            found["subject"] = _ascii(certificate.subject.rfc4514_string())
            found["issuer"] = _ascii(certificate.issuer.rfc4514_string())
            found["not_before"] = int(certificate.not_valid_before_utc.timestamp())
            found["not_after"] = int(certificate.not_valid_after_utc.timestamp())
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            listed = names.get_values_for_type(x509.DNSName)
            found["names"] = [_ascii(name) for name in listed[:MAX_NAMES]]
    except Exception:
        # Whatever the library finds wrong, and with however many kinds of exception, the rest stands.
        return found
    return found


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")
