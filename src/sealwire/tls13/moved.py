"""What is left of a handshake when it is over, as bytes: for a connection that moves to another process.

Nothing of a handshake in progress can be written down.  What is written holds every secret of the
connection, so whoever stores it seals it first (dtls/handover.py).
"""

from __future__ import annotations

import struct

from sealwire.crypto.groups import Group
from sealwire.crypto.hkdf import Secret
from sealwire.crypto.signatures import SignatureScheme
from sealwire.crypto.srtp import SrtpProfile
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.tls13.agreements import Agreements
from sealwire.tls13.contract import ConnectionIds, EarlyData, Exchange, Session, Settings
from sealwire.tls13.flavor import Flavor
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.peers import decode_peer, encode_peer
from sealwire.tls13.states import Connected, Remains
from sealwire.wire import Reader, Writer, decode_error

_EARLY = tuple(EarlyData)


def encode_engine(writer: Writer, engine: Handshake) -> None:
    """Write down an engine whose handshake is complete; Error if it is not."""
    session, remains = engine.session, engine.remains()
    _encode_session(writer, session)
    writer.u8(remains.is_client)
    for epoch, secret in (remains.send, remains.receive):
        writer.u16(epoch)
        writer.hidden8(secret)
    writer.hidden8(remains.exporter_secret)
    writer.hidden8(remains.resumption_secret)
    writer.u32(remains.handles)
    writer.u32(remains.update_handle)
    writer.u8(remains.update_follows | remains.following_asks << 1 | remains.asked << 2)


def decode_engine(reader: Reader, settings: Settings, flavor: Flavor) -> Handshake:
    """The engine that was written down, under the settings of this process.

    Raises:
        ProtocolError: decode_error, this is nothing that :func:`encode_engine` wrote.
    """
    session = _decode_session(reader)
    is_client = bool(reader.u8())
    (send, receive) = ((reader.u16(), Secret.taking(reader.vector8(low=1))) for _ in range(2))
    exporter, resumption = Secret.taking(reader.vector8()), Secret.taking(reader.vector8())
    handles, update_handle, flags = reader.u32(), reader.u32(), reader.u8()
    remains = Remains(
        is_client=is_client,
        send=send,
        receive=receive,
        exporter_secret=exporter,
        resumption_secret=resumption,
        handles=handles,
        update_handle=update_handle,
        update_follows=bool(flags & 1),
        following_asks=bool(flags & 2),
        asked=bool(flags & 4),
    )
    exchange = Exchange(settings, flavor)
    exchange.connection_ids = session.connection_ids
    exchange.early.outcome = session.early_data
    exchange.settle(session)
    return Handshake(exchange, Connected.again(exchange, session, remains))


def _encode_session(writer: Writer, session: Session) -> None:
    writer.vector8(session.version.encode())
    writer.u16(session.suite.suite)
    writer.u16(session.group or 0)
    _encode_optional(writer, session.alpn)
    _encode_optional(writer, None if session.server_name is None else session.server_name.encode())
    encode_peer(writer, session.peer)
    writer.u16(session.peer_scheme or 0)
    _encode_optional(writer, session.psk_identity)
    writer.u8(session.resumed | session.retried << 1)
    ids = session.connection_ids
    writer.u8(ids.negotiated | ids.return_routability << 1)
    writer.vector8(ids.ours)
    writer.vector8(ids.theirs)
    writer.u8(_EARLY.index(session.early_data))
    agreed = session.agreed
    writer.u16(agreed.send_limit)
    writer.u16(agreed.receive_limit)
    writer.u8(agreed.record_size_limit)
    writer.u16(agreed.srtp_profile or 0)
    writer.vector8(agreed.srtp_mki)
    skew = session.ticket_age_skew
    _encode_optional(writer, None if skew is None else struct.pack(">d", skew))


def _decode_session(reader: Reader) -> Session:
    version = _text(reader.vector8())
    suite = SUITES.get(CipherSuite(reader.u16()))
    if suite is None:
        raise decode_error("moved session")
    group = reader.u16()
    alpn, server_name = _decode_optional(reader), _decode_optional(reader)
    peer = decode_peer(reader)
    scheme = reader.u16()
    psk_identity = _decode_optional(reader)
    flags = reader.u8()
    id_flags = reader.u8()
    ids = ConnectionIds(bool(id_flags & 1), reader.vector8(), reader.vector8(), bool(id_flags & 2))
    early = reader.u8()
    if early >= len(_EARLY):
        raise decode_error("moved session")
    agreed = Agreements()
    agreed.send_limit, agreed.receive_limit = reader.u16(), reader.u16()
    agreed.record_size_limit = bool(reader.u8())
    profile = reader.u16()
    agreed.srtp_profile = SrtpProfile(profile) if profile else None
    agreed.srtp_mki = reader.vector8()
    agreed = agreed.settled()
    skew = _decode_optional(reader)
    if skew is not None and len(skew) != struct.calcsize(">d"):
        raise decode_error("moved session")
    return Session(
        version=version,
        suite=suite,
        group=Group(group) if group else None,
        alpn=alpn,
        server_name=None if server_name is None else _text(server_name),
        peer=peer,
        peer_scheme=SignatureScheme(scheme) if scheme else None,
        psk_identity=psk_identity,
        resumed=bool(flags & 1),
        retried=bool(flags & 2),
        connection_ids=ids,
        early_data=_EARLY[early],
        agreed=agreed,
        ticket_age_skew=None if skew is None else struct.unpack(">d", skew)[0],
    )


def _encode_optional(writer: Writer, value: bytes | None) -> None:
    writer.u8(value is not None)
    writer.vector16(value or b"")


def _decode_optional(reader: Reader) -> bytes | None:
    there, value = reader.u8(), reader.vector16()
    return value if there else None


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise decode_error("moved session") from None
