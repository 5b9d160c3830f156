"""sealwire on asyncio: datagram channels, datagram servers and protocols, streams and stream servers.

Sockets are driven with ``add_reader``, so any event loop with readiness callbacks will do.
"""

from sealwire.drive.aio.reader_writer import StreamReader, StreamWriter
from sealwire.drive.aio.streams import StreamServer, open_connection, start_server

__all__ = [
    "StreamReader",
    "StreamServer",
    "StreamWriter",
    "open_connection",
    "start_server",
]
