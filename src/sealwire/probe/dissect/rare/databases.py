"""Databases: Redis, PostgreSQL and MySQL."""

from __future__ import annotations

from typing import Final

from sealwire.probe.dissect.facts import Certainty, Protocol
from sealwire.probe.dissect.plugin import Answer, Dissector, Opening, Sign
from sealwire.probe.features import TCP

_TCP: Final = frozenset({TCP})
_CERTAIN, _UNSURE = Certainty.CERTAIN, Certainty.UNSURE


class Redis(Dissector):
    """Redis (RESP): an array of strings is a command, and what comes back begins with a type."""

    application = "redis"
    protocol = Protocol.REDIS
    transports = _TCP
    signs = (Sign(b"*"),)

    def dissect(self, opening: Opening) -> Answer | None:
        first = opening.packets[0]
        lines = first.data.split(b"\r\n")
        if len(lines) < 4 or lines[0][:1] != b"*" or lines[1][:1] != b"$":
            return None
        if not lines[0][1:].isdigit() or not lines[1][1:].isdigit() or len(lines[2]) != int(lines[1][1:]):
            return None
        if not lines[2].isalpha():
            return None
        details = {"command": lines[2].decode("ascii").upper()}
        for packet in opening.packets[1:]:
            if packet.backward != first.backward:
                whole = packet.data[:1] in b"+-:$*%~_,#(=" and b"\r\n" in packet.data
                return Answer(_CERTAIN, details) if whole else None
        return Answer(_UNSURE, details)


class PostgreSql(Dissector):
    """PostgreSQL 3 (its manual, section 55.7): a startup message, or a question about encryption."""

    application = "pgsql"
    protocol = Protocol.PGSQL
    transports = _TCP
    signs = (Sign(b"\0\0\0\x08\x04\xd2\x16", mask=b"\xff" * 7), Sign(b"\0\3\0", at=4))

    def dissect(self, opening: Opening) -> Answer | None:
        details: dict[str, str] = {}
        asked = False
        for packet in opening.packets:
            data = packet.data
            if packet.backward != opening.packets[0].backward:
                if not asked:
                    return None
                if packet.size != 1 or data not in (b"S", b"N", b"G"):
                    return None
                if data != b"N":  # from here on it is TLS or GSSAPI
                    return Answer(_CERTAIN, {"encryption": "tls" if data == b"S" else "gssapi"})
                asked = False
                continue
            if data[:8] in (b"\0\0\0\x08\x04\xd2\x16\x2f", b"\0\0\0\x08\x04\xd2\x16\x30"):
                asked = True
                continue
            if len(data) < 9 or int.from_bytes(data[:4], "big") != packet.size or data[4:7] != b"\0\3\0":
                return None
            words = data[8:].split(b"\0")
            said = dict(zip(words[::2], words[1::2], strict=False))
            if b"user" not in said:
                return None
            for name in ("user", "database"):
                if (value := said.get(name.encode())) is not None:
                    details[name] = value.decode("utf-8", "backslashreplace")
            return Answer(_CERTAIN, details)
        return Answer(_UNSURE) if asked else None


class MySql(Dissector):
    """MySQL and MariaDB (Client/Server Protocol, HandshakeV10): the server speaks first."""

    application = "mysql"
    protocol = Protocol.MYSQL
    transports = _TCP
    signs = (Sign(b"\0\x0a", at=3),)

    def dissect(self, opening: Opening) -> Answer | None:
        first = opening.packets[0]
        data = first.data
        if len(data) < 40 or data[3:5] != b"\0\x0a" or int.from_bytes(data[:3], "little") + 4 != first.size:
            return None
        version, _, rest = data[5:].partition(b"\0")
        # Thread, eight bytes of salt, a zero.
        if not version.isascii() or not version[:1].isdigit() or len(rest) < 13 or rest[12]:
            return None
        details = {"version": version.decode("ascii")}
        for packet in opening.packets[1:]:
            if packet.backward != first.backward:
                # The answer is packet 1.
                return Answer(_CERTAIN, details) if packet.data[3:4] == b"\1" else None
        return Answer(_UNSURE, details)
