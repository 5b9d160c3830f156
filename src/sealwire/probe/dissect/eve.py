"""Events and facts as EVE has them: a record for each transaction or handshake, beside the flow's own.

Field names are Suricata's where it has one.  All text is ASCII.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.probe.dissect import certificates
from sealwire.probe.dissect.facts import Event, Fact, Facts, Flag, Protocol, endpoint, rrtype
from sealwire.probe.features import address

_VERSIONS: Final = {
    **{0x0300: "SSLv3", 0x0301: "TLSv1", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2", 0x0304: "TLS 1.3"},
    **{0xFEFF: "DTLS 1.0", 0xFEFD: "DTLS 1.2", 0xFEFC: "DTLS 1.3"},
}
_QUIC_VERSIONS: Final = {0x00000001: "1", 0x6B3343CF: "2"}
_RCODES: Final = (
    *("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET"),
    *("NOTAUTH", "NOTZONE", "DSOTYPENI"),
)
_SUITES: Final = {int(suite): spec.name for suite, spec in SUITES.items()}


def version_name(version: int) -> str:
    """TLS and DTLS versions as Suricata writes them."""
    return _VERSIONS.get(version) or f"0x{version:04x}"


def cipher_name(code: int) -> str:
    """Name of a cipher suite of TLS 1.3; others in hexadecimal."""
    return _SUITES.get(CipherSuite(code)) or f"0x{code:04x}"


def transaction(event: Event) -> dict[str, Any]:
    """What an event says, under the name of its protocol."""
    facts = event.facts
    match facts.protocol:
        case Protocol.TLS | Protocol.DTLS:
            return tls(facts)
        case Protocol.QUIC:
            return quic(facts)
        case Protocol.DNS | Protocol.MDNS:
            return dns(facts)
        case Protocol.HTTP:
            return http(facts)
        case Protocol.SSH:
            return ssh(facts)
        case _:
            return facts.as_dict()


def path(event: Event) -> dict[str, Any]:
    """A connection that was seen on other addresses than those it began on."""
    facts = event.facts
    found: dict[str, Any] = {"association_id": facts.number(Fact.ASSOCIATION)}
    before = facts.raw(Fact.PATH)
    if before is not None:
        found["src_ip_before"], found["src_port_before"] = endpoint(before)
    return found


def tls(facts: Facts) -> dict[str, Any]:
    found: dict[str, Any] = {}
    known = facts.as_dict()
    if (name := known.get("server_name")) is not None:
        found["sni"] = name
    if facts.version is not None:
        found["version"] = version_name(facts.version)
    _suite(found, facts)
    for ours, theirs in (("ja3", "ja3"), ("ja3s", "ja3s")):
        if ours in known:
            found[theirs] = {"hash": known[ours]}
    for ours, theirs in (("ja4", "ja4"), ("alpn_offered", "client_alpns"), ("client_id", "client_id")):
        if ours in known:
            found[theirs] = known[ours]
    if "server_id" in known:
        found["server_id"] = known["server_id"]
    if "alpn" in known:
        found["server_alpns"] = [known["alpn"]]
    if "alert" in known:
        found["alert"] = known["alert"]
    for name in ("ech", "retry"):
        if name in known:
            found[name] = True
    der = facts.raw(Fact.CERTIFICATE)
    if der is not None:
        certificate = certificates.describe(der)
        for ours, theirs in (("subject", "subject"), ("issuer", "issuerdn"), ("names", "subjectaltname")):
            if ours in certificate:
                found[theirs] = certificate[ours]
        for name in ("not_before", "not_after"):
            if name in certificate:
                found[name.replace("_", "")] = _second(certificate[name])
        found["fingerprint_sha256"] = certificate["fingerprint_sha256"]
    return found


def _second(seconds: object) -> str:
    """A certificate's time as Suricata writes it."""
    assert isinstance(seconds, int)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def _suite(found: dict[str, Any], facts: Facts) -> None:
    if (cipher := facts.number(Fact.CIPHER)) is not None:
        found["cipher"] = cipher_name(cipher)
    if (group := facts.number(Fact.GROUP)) is not None:
        found["group"] = group


def quic(facts: Facts) -> dict[str, Any]:
    known = facts.as_dict()
    found: dict[str, Any] = {}
    if (version := facts.number(Fact.QUIC_VERSION)) is not None:
        found["version"] = _QUIC_VERSIONS.get(version) or f"0x{version:08x}"
    if "server_name" in known:
        found["sni"] = known["server_name"]
    _suite(found, facts)
    for name in ("ja3", "ja3s"):
        if name in known:
            found[name] = {"hash": known[name]}
    for ours, theirs in (
        *(("ja4", "ja4"), ("alpn_offered", "client_alpns")),
        *(("client_id", "client_id"), ("server_id", "server_id")),
    ):
        if ours in known:
            found[theirs] = known[ours]
    for name in ("ech", "retry"):
        if name in known:
            found[name] = True
    return found


def dns(facts: Facts) -> dict[str, Any]:
    known = facts.as_dict()
    flags = facts.number(Fact.DNS_FLAGS) or 0
    response = bool(flags & 0x8000)
    found: dict[str, Any] = {"version": 2, "type": "answer" if response else "query"}
    if "id" in known:
        found["id"] = known["id"]
    found["rrname"] = facts.server_name
    found["rrtype"] = rrtype(facts.number(Fact.DNS_TYPE) or 0)
    if response:
        code = flags & 0xF
        found["flags"] = f"{flags:04x}"
        found["qr"] = True
        found["rcode"] = _RCODES[code] if code < len(_RCODES) else f"RCODE{code}"
        if "answers" in known:
            found["answers"] = known["answers"]
    if facts.flags & Flag.MALFORMED:
        found["malformed"] = True
    return found


def http(facts: Facts) -> dict[str, Any]:
    known = facts.as_dict()
    names = {"server_name": "hostname"}
    return {names.get(name, name): value for name, value in known.items()}


def ssh(facts: Facts) -> dict[str, Any]:
    known = facts.as_dict()
    found: dict[str, Any] = {}
    for side, software, fingerprint in (
        ("client", "client_software", "hassh"),
        ("server", "server_software", "hassh_server"),
    ):
        said: dict[str, Any] = {}
        line = known.get(software)
        if isinstance(line, str):
            _, _, rest = line.partition("-")
            said["proto_version"], _, said["software_version"] = rest.partition("-")
        if fingerprint in known:
            said["hassh"] = {"hash": known[fingerprint]}
        if said:
            found[side] = said
    return found


def ends(event: Event) -> tuple[str, str]:
    """Both addresses as text."""
    version = event.ip_version
    return address(event.source_address, version), address(event.destination_address, version)
