"""A peer's certificate chain as the application sees it, verified or not."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from sealwire.crypto.keys import DECODE_ERRORS, load_certificate, malformed
from sealwire.crypto.names import certificate_names

__all__ = ["PeerCertificate"]

# The long names OpenSSL, and so ssl.getpeercert(), gives to the attributes people use.
_ATTRIBUTES = {
    NameOID.COMMON_NAME: "commonName",
    NameOID.COUNTRY_NAME: "countryName",
    NameOID.DN_QUALIFIER: "dnQualifier",
    NameOID.DOMAIN_COMPONENT: "domainComponent",
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.GIVEN_NAME: "givenName",
    NameOID.LOCALITY_NAME: "localityName",
    NameOID.ORGANIZATION_NAME: "organizationName",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "organizationalUnitName",
    NameOID.ORGANIZATION_IDENTIFIER: "organizationIdentifier",
    NameOID.BUSINESS_CATEGORY: "businessCategory",
    NameOID.JURISDICTION_COUNTRY_NAME: "jurisdictionCountryName",
    NameOID.JURISDICTION_LOCALITY_NAME: "jurisdictionLocalityName",
    NameOID.JURISDICTION_STATE_OR_PROVINCE_NAME: "jurisdictionStateOrProvinceName",
    NameOID.POSTAL_CODE: "postalCode",
    NameOID.PSEUDONYM: "pseudonym",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.STATE_OR_PROVINCE_NAME: "stateOrProvinceName",
    NameOID.STREET_ADDRESS: "streetAddress",
    NameOID.SURNAME: "surname",
    NameOID.TITLE: "title",
    NameOID.USER_ID: "userId",
}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class PeerCertificate:
    """The certificates a peer showed, leaf first.  Having one says nothing about trust.

    Attributes:
        chain: DER, as received.
        ocsp_response: DER, as it was stapled to the leaf (RFC 6066 section 8); b"" for none.
        timestamps: signed certificate timestamps that came with the leaf (RFC 6962 section 3.3.1), as they
            came; nobody has judged them.
    """

    __slots__ = ("_leaf", "chain", "ocsp_response", "timestamps")

    def __init__(
        self, chain: Sequence[bytes], ocsp_response: bytes = b"", timestamps: Sequence[bytes] = ()
    ) -> None:
        if not chain:
            raise ValueError("a peer certificate has at least its leaf")
        self.chain = tuple(chain)
        self.ocsp_response = ocsp_response
        self.timestamps = tuple(timestamps)
        self._leaf: x509.Certificate | None = None

    @property
    def leaf(self) -> x509.Certificate:
        """The end-entity certificate, decoded at first use.  CertificateError if that cannot be done."""
        if self._leaf is None:
            self._leaf = load_certificate(self.chain[0])
        return self._leaf

    @property
    def size_bytes(self) -> int:
        """What of it the peer chose the size of."""
        return sum(map(len, self.chain)) + len(self.ocsp_response) + sum(map(len, self.timestamps))

    @property
    def names(self) -> tuple[str, ...]:
        """DNS names and IP addresses of the leaf's subjectAltName, as text."""
        return tuple(str(name) for name in certificate_names(self.leaf))

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the leaf's DER."""
        return hashlib.sha256(self.chain[0]).digest()

    def as_dict(self) -> dict[str, Any]:
        """The leaf in the shape of :meth:`ssl.SSLSocket.getpeercert`.  CertificateError if malformed."""
        try:
            return _as_dict(self.leaf)
        except DECODE_ERRORS:
            raise malformed("the peer's certificate cannot be decoded") from None

    def __eq__(self, other: object) -> bool:
        return self.chain == other.chain if isinstance(other, PeerCertificate) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.chain)

    def __repr__(self) -> str:
        return f"<PeerCertificate sha256={self.fingerprint.hex()} chain of {len(self.chain)}>"


def _as_dict(leaf: x509.Certificate) -> dict[str, Any]:
    serial = f"{leaf.serial_number:X}"
    result: dict[str, Any] = {
        "subject": _name(leaf.subject),
        "issuer": _name(leaf.issuer),
        "version": leaf.version.value + 1,
        "serialNumber": serial if len(serial) % 2 == 0 else "0" + serial,
        "notBefore": _time(leaf.not_valid_before_utc),
        "notAfter": _time(leaf.not_valid_after_utc),
    }
    for extension in leaf.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            result["subjectAltName"] = tuple(_general_name(name) for name in value)
        elif isinstance(value, x509.AuthorityInformationAccess):
            for key, method in (
                ("OCSP", AuthorityInformationAccessOID.OCSP),
                ("caIssuers", AuthorityInformationAccessOID.CA_ISSUERS),
            ):
                found = tuple(
                    _uris(entry.access_location for entry in value if entry.access_method == method)
                )
                if found:
                    result[key] = found
        elif isinstance(value, x509.CRLDistributionPoints):
            found = tuple(_uris(name for point in value for name in point.full_name or ()))
            if found:
                result["crlDistributionPoints"] = found
    return result


def _uris(names: Iterable[x509.GeneralName]) -> Iterator[str]:
    return (name.value for name in names if isinstance(name, x509.UniformResourceIdentifier))


def _name(name: x509.Name) -> tuple[tuple[tuple[str, str], ...], ...]:
    return tuple(
        tuple((_ATTRIBUTES.get(one.oid, one.oid.dotted_string), _text(one.value)) for one in rdn)
        for rdn in name.rdns
    )


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()


def _time(when: datetime.datetime) -> str:
    # Written out because strftime's month names follow the locale.
    return f"{_MONTHS[when.month - 1]} {when.day:2d} {when:%H:%M:%S} {when.year} GMT"


def _general_name(name: x509.GeneralName) -> tuple[str, Any]:
    match name:
        case x509.DNSName():
            return "DNS", name.value
        case x509.IPAddress():
            address = name.value
            if isinstance(address, ipaddress.IPv6Address):
                # OpenSSL writes all eight groups, in capitals, without leading zeros.
                return "IP Address", ":".join(f"{int(group, 16):X}" for group in address.exploded.split(":"))
            return "IP Address", str(address)
        case x509.RFC822Name():
            return "email", name.value
        case x509.UniformResourceIdentifier():
            return "URI", name.value
        case x509.DirectoryName():
            return "DirName", _name(name.value)
        case x509.RegisteredID():
            return "Registered ID", name.value.dotted_string
        case _:
            return "othername", "<unsupported>"
