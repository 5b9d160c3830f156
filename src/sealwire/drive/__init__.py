"""Drivers: the engines on sockets, clocks and event loops."""

from sealwire.drive.aio import (
    DatagramChannel,
    DatagramServer,
    DatagramTransport,
    Proxy,
    ProxySettings,
    StreamReader,
    StreamServer,
    StreamWriter,
    create_datagram_endpoint,
    open_connection,
    open_datagram_channel,
    start_datagram_server,
    start_proxy,
    start_server,
)
from sealwire.drive.blocking import (
    DatagramSocket,
    ListeningSocket,
    SecureSocket,
    StreamSocket,
    ThreadedServer,
    create_connection,
    wrap_socket,
)
from sealwire.drive.facts import Facts, Forked
from sealwire.drive.seat import Seat
from sealwire.drive.workers import WorkerGroup, WorkerNews, run_workers

__all__ = [
    "DatagramChannel",
    "DatagramServer",
    "DatagramSocket",
    "DatagramTransport",
    "Facts",
    "Forked",
    "ListeningSocket",
    "Proxy",
    "ProxySettings",
    "Seat",
    "SecureSocket",
    "StreamReader",
    "StreamServer",
    "StreamSocket",
    "StreamWriter",
    "ThreadedServer",
    "WorkerGroup",
    "WorkerNews",
    "create_connection",
    "create_datagram_endpoint",
    "open_connection",
    "open_datagram_channel",
    "run_workers",
    "start_datagram_server",
    "start_proxy",
    "start_server",
    "wrap_socket",
]
