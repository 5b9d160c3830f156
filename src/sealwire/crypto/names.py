"""Names of peers: what the application asked for, what a certificate says, and whether they agree.

RFC 9525: a reference name is an IP address or a DNS name in A-label form; a certificate presents
subjectAltName entries, in which ``*`` may stand for the whole leftmost label and nothing else.
The common name counts only under the legacy profile, for certificates without any subjectAltName.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import NameOID

from sealwire.crypto.keys import DECODE_ERRORS
from sealwire.errors import ConfigurationError

__all__ = ["certificate_names", "common_name", "matches", "reference_name", "server_name_indication"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# Letters, digits, hyphen; underscore because hosts with one exist.  RFC 1035 section 2.3.4 for lengths.
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_DNS_NAME_MAXIMUM_CHARACTERS = 253


@lru_cache(maxsize=128)
def reference_name(name: str) -> str | IPAddress:
    """What a certificate will be compared with: an address, or a lower-case DNS name in A-label form.

    Args:
        name: DNS name (U-labels allowed, a final dot dropped) or IP address (brackets and scope dropped).

    Raises:
        ConfigurationError: neither of the two, or U-labels whose A-labels are in doubt.
    """
    try:
        return ipaddress.ip_address(name.strip("[]").partition("%")[0])
    except ValueError:
        pass
    dns = name.removesuffix(".").lower()
    # The length comes first: converting to A-labels is slow on long text, and servers are sent names too.
    if not dns.isascii() and len(dns) <= _DNS_NAME_MAXIMUM_CHARACTERS:
        dns = _to_a_labels(dns)
    labels = dns.split(".")
    if len(dns) > _DNS_NAME_MAXIMUM_CHARACTERS or not all(_LABEL.fullmatch(label) for label in labels):
        raise ConfigurationError(
            f"{name!r} is neither a host name nor an IP address: pass what a URL would hold"
        )
    if labels[-1].isdigit():
        # "127.0.0.256" or "1.2.3" is a mistyped address; no top-level domain is all digits.
        raise ConfigurationError(f"{name!r} looks like an IP address but is none: check its four numbers")
    return dns


def _to_a_labels(name: str) -> str:
    # The standard library speaks IDNA 2003, which maps characters that IDNA 2008 keeps (sharp s, final
    # sigma, joiners).  Where the way back does not lead home the two may differ, and we do not guess.
    try:
        encoded = name.encode("idna")
        if encoded.decode("idna") == name:
            return encoded.decode("ascii")
    except UnicodeError:
        pass
    raise ConfigurationError(f"host name {name!r} has no certain ASCII form: pass its A-labels (xn--...)")


def server_name_indication(name: str | None) -> str | None:
    """What server_name carries for `name`: its A-label form; None without a name or for an IP address.

    RFC 6066 section 3: literal addresses are not permitted there.

    Raises:
        ConfigurationError: as :func:`reference_name`.
    """
    if name is None:
        return None
    reference = reference_name(name)
    return reference if isinstance(reference, str) else None


def certificate_names(certificate: x509.Certificate) -> tuple[str | IPAddress, ...]:
    """DNS names (lower case) and addresses of a certificate's subjectAltName, in order.

    Empty for a certificate without the extension, or whose extensions cannot be decoded.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *DECODE_ERRORS):
        return ()
    result: list[str | IPAddress] = []
    for name in names:
        if isinstance(name, x509.DNSName):
            result.append(name.value.lower())
        elif isinstance(name, x509.IPAddress) and isinstance(
            name.value, ipaddress.IPv4Address | ipaddress.IPv6Address
        ):
            result.append(name.value)
    return tuple(result)


def common_name(certificate: x509.Certificate) -> str:
    """The subject's last common name, lower case; "" where there is none."""
    try:
        found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except DECODE_ERRORS:
        return ""
    value = found[-1].value if found else ""
    return value.lower() if isinstance(value, str) else ""


def matches(presented: str | IPAddress, reference: str | IPAddress) -> bool:
    """Whether a certificate's name stands for `reference` (RFC 9525 section 6.3)."""
    if not isinstance(presented, str) or not isinstance(reference, str):
        return presented == reference
    presented = presented.removesuffix(".").lower()
    if not presented.startswith("*."):
        return presented == reference
    label, _, rest = reference.partition(".")
    # RFC 9525 section 6.3: the wildcard is the whole leftmost label, and stands for exactly one.
    return bool(label) and rest == presented[2:] and "." in rest
