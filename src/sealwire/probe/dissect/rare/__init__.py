"""Protocols that are rare in most networks, in plain Python: ROWS says which, and what each is proved on.

Certain is what has a magic no other protocol has, or what both directions confirm; ports alone make
nothing certain.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sealwire.probe.dissect.plugin import Dissector
from sealwire.probe.dissect.rare.calls import Rtcp, Rtp, Sip
from sealwire.probe.dissect.rare.databases import MySql, PostgreSql, Redis
from sealwire.probe.dissect.rare.desktops import NetBios, Rdp, Smb
from sealwire.probe.dissect.rare.directories import Kerberos, Ldap
from sealwire.probe.dissect.rare.swarms import BitTorrent
from sealwire.probe.dissect.rare.things import Coap, Dnp3, Modbus, Mqtt
from sealwire.probe.dissect.rare.tunnels import OpenVpn, WireGuard
from sealwire.probe.dissect.rare.upkeep import Dhcp, Ntp, Snmp

#: In the order in which they are asked; the first that is certain wins, else the first that is unsure.
DISSECTORS: Final[tuple[Dissector, ...]] = (
    *(Mqtt(), Smb(), Rdp(), Modbus(), Dnp3(), WireGuard(), OpenVpn(), Coap(), Sip(), Dhcp(), Ntp(), Snmp()),
    *(NetBios(), Redis(), PostgreSql(), MySql(), Ldap(), Kerberos(), BitTorrent(), Rtcp(), Rtp()),
)


class Row(NamedTuple):
    """What a dissector tells, and the captures that prove it: of other projects, or tests/data/probe."""

    protocol: str
    details: str
    captures: tuple[str, ...]


#: docs/probe/dissectors.md has it.
ROWS: Final[tuple[Row, ...]] = (
    Row("mqtt", "level", ("mqtt.pcap", "coap_mqtt.pcap")),
    Row("coap", "code, path", ("coap_mqtt.pcap",)),
    Row("wireguard", "", ("wireguard.pcap",)),
    Row("rdp", "requested_protocols", ("rdp.pcap",)),
    Row("smb", "dialect", ("smb_deletefile.pcap",)),
    Row("modbus", "function", ("modbus.pcap",)),
    Row("dhcp", "message_type", ("fuzz-2006-06-26-2594.pcap",)),
    Row("netbios", "name", ("fuzz-2006-06-26-2594.pcap",)),
    Row("sip", "method, status", ("fuzz-2006-06-26-2594.pcap", "sip.pcap")),
    Row("rtp", "payload_type", ("rtp.pcap",)),
    Row("rtcp", "ssrc", ("rtp.pcap",)),
    Row("ntp", "version, mode, stratum", ("ntp.pcap",)),
    Row("snmp", "version, pdu", ("snmp.pcap",)),
    Row("redis", "command", ("redis.pcap",)),
    Row("pgsql", "user, database, encryption", ("postgresql.pcap",)),
    Row("mysql", "version", ("mysql.pcap",)),
    Row("krb5", "message_type", ("kerberos.pcap",)),
    Row("ldap", "operation", ("ldap.pcap",)),
    Row("dnp3", "destination, source", ("dnp3.pcap",)),
    Row("openvpn", "wrapped", ("openvpn.pcap",)),
    Row("bittorrent", "info_hash, query", ("bittorrent.pcap",)),
)
