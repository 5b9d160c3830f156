"""Drivers: the engines on sockets, clocks and event loops."""

from sealwire.drive.aio import (
    create_datagram_endpoint,
    open_connection,
    open_datagram_channel,
    start_datagram_server,
    start_server,
)

__all__ = [
    "create_datagram_endpoint",
    "open_connection",
    "open_datagram_channel",
    "start_datagram_server",
    "start_server",
]
