"""sealwire on asyncio: datagram channels, datagram servers and protocols, streams and stream servers.

Sockets are driven with ``add_reader``, so any event loop with readiness callbacks will do.
"""

from sealwire.drive.aio.batcher import Batcher
from sealwire.drive.aio.channel import DatagramChannel
from sealwire.drive.aio.client import open_datagram_channel
from sealwire.drive.aio.passage import ProxySettings
from sealwire.drive.aio.protocol import DatagramTransport, create_datagram_endpoint
from sealwire.drive.aio.proxy import Proxy, start_proxy
from sealwire.drive.aio.reader_writer import StreamReader, StreamWriter
from sealwire.drive.aio.server import DatagramServer, start_datagram_server
from sealwire.drive.aio.streams import StreamServer, open_connection, start_server

__all__ = [
    "Batcher",
    "DatagramChannel",
    "DatagramServer",
    "DatagramTransport",
    "Proxy",
    "ProxySettings",
    "StreamReader",
    "StreamServer",
    "StreamWriter",
    "create_datagram_endpoint",
    "open_connection",
    "open_datagram_channel",
    "start_datagram_server",
    "start_proxy",
    "start_server",
]
