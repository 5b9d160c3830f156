"""Blocking sockets, as :mod:`ssl` secures them: SOCK_DGRAM becomes DTLS 1.3, SOCK_STREAM TLS 1.3."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict, Unpack, overload

from sealwire import dtls, stcp
from sealwire.drive.addresses import show
from sealwire.drive.blocking.base import SecureSocket
from sealwire.drive.blocking.datagram import ClientDatagramSocket, DatagramSocket, ServerDatagramSocket
from sealwire.drive.blocking.stream import ListeningSocket, StreamSocket
from sealwire.drive.blocking.threaded import ThreadedServer
from sealwire.drive.sessions import Sessions
from sealwire.dtls.connection import DEFAULT_MTU_BYTES
from sealwire.dtls.upkeep import DEFAULT_UPKEEP
from sealwire.errors import Error
from sealwire.limits import DEFAULT_LIMITS, Limits
from sealwire.stcp.frames import protocol_name

if TYPE_CHECKING:
    from sealwire.context import Context

__all__ = [
    "DatagramSocket",
    "ListeningSocket",
    "SecureSocket",
    "StreamSocket",
    "ThreadedServer",
    "create_connection",
    "wrap_socket",
]


def wrap_socket(
    context: Context,
    sock: socket.socket,
    server_side: bool = False,
    server_hostname: str | None = None,
    do_handshake_on_connect: bool = True,
    *,
    limits: Limits | None = None,
    mtu: int = DEFAULT_MTU_BYTES,
    connection_id: bytes = b"",
    cid_bytes: int | None = None,
    upkeep: dtls.Upkeep = DEFAULT_UPKEEP,
    send_replayable: bytes = b"",
    on_early_data: Callable[[Any, bytes], None] | None = None,
    messages: bool | str = False,
    keepalive: stcp.Keepalive | None = None,
) -> DatagramSocket | StreamSocket | ListeningSocket:
    """Secure `sock`, which belongs to the result from here on (as :meth:`ssl.SSLContext.wrap_socket`).

    SOCK_STREAM: connected, or for a server listening, which gives a :class:`ListeningSocket`.
    SOCK_DGRAM: a client's is connected; a server's is bound, and serves the first peer that proves
    its address and finishes its handshake.

    Args:
        server_hostname: whom a client expects.
        do_handshake_on_connect: shake hands now; otherwise in `do_handshake`, `send` or `recv`.
        limits: what the connection may hold.
        mtu: for datagrams, the largest UDP payload to send in bytes.
        connection_id: for a client's datagrams, the id wanted in records to it (RFC 9146).
        cid_bytes: for a server's datagrams, length of the id the peer gets, by which it is followed when
            its address changes; None for none, as only then the kernel turns everybody else away.
        upkeep: for datagrams, what the connection sees to by itself, inside calls.
        send_replayable: for a client, data (one message) to send before the server has said anything; see
            :func:`create_connection`.
        on_early_data: for a server, called with ``(connection, data)`` as early data comes, before the client
            has proved to be there: its answer is ``connection.send_before_finished``.
        messages: for SOCK_STREAM, speak in messages (docs/stcp.md): True, or the name of an application.
        keepalive: in message mode, when to ask whether the peer is there, inside calls; None for never.

    Raises:
        ValueError: the socket is neither kind, or not connected, bound or listening as it must be.
        HandshakeError, CertificateError, PeerAlert: no secure connection came to be.
        TimeoutError: the socket's timeout, or ``limits.handshake_seconds``, passed.
    """
    config = context.config()
    limits = limits or DEFAULT_LIMITS
    if sock.type not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        raise ValueError("only SOCK_STREAM and SOCK_DGRAM sockets can be secured")
    _check_kind(sock.type, messages)
    if server_side and server_hostname is not None:
        raise ValueError("server_hostname can only be specified in client mode")
    connected = _is_connected(sock)
    if sock.type == socket.SOCK_STREAM and server_side and _is_listening(sock):
        return ListeningSocket(
            _take_over(sock),
            context,
            limits=limits,
            do_handshake_on_connect=do_handshake_on_connect,
            on_early_data=on_early_data,
            messages=messages,
            keepalive=keepalive,
        )
    if not connected and not (server_side and sock.type == socket.SOCK_DGRAM):
        raise ValueError("the socket must be connected before it is secured")
    sock = _take_over(sock)
    try:
        secure: DatagramSocket | StreamSocket
        if sock.type == socket.SOCK_STREAM:
            secure = StreamSocket(
                sock,
                config,
                server_side=server_side,
                server_hostname=server_hostname,
                limits=limits,
                replayable=send_replayable,
                on_early_data=on_early_data,
                messages=messages,
                keepalive=keepalive,
            )
        elif server_side:
            secure = ServerDatagramSocket(
                sock,
                context,
                limits=limits,
                mtu=mtu,
                cid_bytes=cid_bytes,
                upkeep=upkeep,
                on_early_data=on_early_data,
            )
        else:
            secure = ClientDatagramSocket(
                sock,
                config,
                server_hostname=server_hostname,
                limits=limits,
                mtu=mtu,
                connection_id=connection_id,
                upkeep=upkeep,
                replayable=send_replayable,
            )
    except BaseException:
        sock.close()
        raise
    if do_handshake_on_connect and secure.gettimeout() != 0:
        _shake_hands(secure)
    return secure


def _check_kind(kind: int, messages: bool | str) -> None:
    """Raise ValueError for what that kind of socket has no use for, ConfigurationError for a bad name."""
    if protocol_name(messages) is not None and kind == socket.SOCK_DGRAM:
        raise ValueError("datagrams are messages already: messages is for SOCK_STREAM")


def _shake_hands(secure: DatagramSocket | StreamSocket) -> None:
    try:
        secure.do_handshake()
    except BaseException:
        secure.close()
        raise


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _is_listening(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _take_over(sock: socket.socket) -> socket.socket:
    timeout = sock.gettimeout()
    own = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
    own.settimeout(timeout)
    return own


class _Options(TypedDict, total=False):
    """What every kind of connection takes."""

    context: Required[Context]
    server_hostname: str | None
    limits: Limits | None
    mtu: int
    connection_id: bytes
    upkeep: dtls.Upkeep
    send_replayable: bytes
    messages: bool | str
    keepalive: stcp.Keepalive | None


@overload
def create_connection(
    address: tuple[str, int],
    timeout: float | None = ...,
    source_address: tuple[str, int] | None = ...,
    *,
    kind: Literal[socket.SocketKind.SOCK_STREAM] = ...,
    **options: Unpack[_Options],
) -> StreamSocket: ...
@overload
def create_connection(
    address: tuple[str, int],
    timeout: float | None = ...,
    source_address: tuple[str, int] | None = ...,
    *,
    kind: Literal[socket.SocketKind.SOCK_DGRAM],
    **options: Unpack[_Options],
) -> DatagramSocket: ...
@overload
def create_connection(
    address: tuple[str, int],
    timeout: float | None = ...,
    source_address: tuple[str, int] | None = ...,
    *,
    kind: socket.SocketKind,
    **options: Unpack[_Options],
) -> StreamSocket | DatagramSocket: ...
def create_connection(
    address: tuple[str, int],
    timeout: float | None = None,
    source_address: tuple[str, int] | None = None,
    *,
    context: Context,
    server_hostname: str | None = None,
    kind: socket.SocketKind = socket.SOCK_STREAM,
    limits: Limits | None = None,
    mtu: int = DEFAULT_MTU_BYTES,
    connection_id: bytes = b"",
    upkeep: dtls.Upkeep = DEFAULT_UPKEEP,
    send_replayable: bytes = b"",
    messages: bool | str = False,
    keepalive: stcp.Keepalive | None = None,
) -> StreamSocket | DatagramSocket:
    """Connect and shake hands, as :func:`socket.create_connection` connects.

    Args:
        address: host and port; every address of the name is tried in turn.
        timeout: seconds for all of it, and then the socket's timeout; None waits as long as
            ``limits.handshake_seconds`` for the handshake.
        kind: ``SOCK_STREAM`` for TLS 1.3 over TCP, ``SOCK_DGRAM`` for DTLS 1.3.
        connection_id: for ``SOCK_DGRAM``, the id wanted in records to us (RFC 9146).
        upkeep: for ``SOCK_DGRAM``, what the connection sees to by itself, inside calls.
        send_replayable: data (for ``SOCK_DGRAM`` one message) to send with the first flight, before the
            server has said anything (0-RTT), if the context's session store has a ticket that allows so much.
            Somebody who records it can send it again, and the server may act on it each time: only what
            does no harm when it is done twice.  It is lost if the server does not accept it: look at
            the socket's ``early_data``.
        messages, keepalive: for ``SOCK_STREAM``, message mode; see :func:`wrap_socket`.

    Raises:
        HandshakeError, CertificateError, PeerAlert: a peer answered and no connection came to be.
        TimeoutError, ConnectionRefusedError, OSError: nobody answered.
    """
    host, port = address
    _check_kind(kind, messages)
    limits = limits or DEFAULT_LIMITS
    config = context.config()
    name = server_hostname or host
    start = time.monotonic()
    infos = socket.getaddrinfo(host, port, type=kind)
    failure: OSError = OSError(f"{host} has no address")
    for n, (family, info_kind, protocol, _, sockaddr) in enumerate(infos):
        left = len(infos) - n
        budget = limits.handshake_seconds if timeout is None else timeout
        share = max(0.001, (start + budget - time.monotonic()) / left)
        sock = socket.socket(family, info_kind, protocol)
        try:
            sock.settimeout(share)
            if source_address is not None:
                sock.bind(source_address)
            sock.connect(sockaddr)
        except OSError as error:
            sock.close()
            failure = error
            continue
        except BaseException:
            sock.close()
            raise
        secure: StreamSocket | DatagramSocket
        try:
            if kind == socket.SOCK_STREAM:
                sessions = Sessions(config, "TLS 1.3", host, port, name)
                secure = StreamSocket(
                    sock,
                    config,
                    server_side=False,
                    server_hostname=name,
                    limits=limits,
                    sessions=sessions,
                    replayable=send_replayable,
                    messages=messages,
                    keepalive=keepalive,
                )
            else:
                secure = ClientDatagramSocket(
                    sock,
                    config,
                    server_hostname=name,
                    limits=limits,
                    mtu=mtu,
                    connection_id=connection_id,
                    sessions=Sessions(config, "DTLS 1.3", host, port, name),
                    upkeep=upkeep,
                    replayable=send_replayable,
                )
                secure.refusals.move_on = left > 1
        except BaseException:
            sock.close()
            raise
        try:
            _shake_hands(secure)
        except Error:
            raise  # the peer answered: no other address is asked
        except TimeoutError as error:
            words = secure.refusals.words if isinstance(secure, ClientDatagramSocket) else ""
            failure = TimeoutError(f"no answer from {show(sockaddr)}: {error}{words}")
            # It may have been acted on where nobody answered.
            send_replayable = b"" if secure.connection.counters.early_messages_sent else send_replayable
            continue
        except OSError as error:
            failure = error
            send_replayable = b"" if secure.connection.counters.early_messages_sent else send_replayable
            continue
        secure.settimeout(timeout)
        return secure
    raise failure
