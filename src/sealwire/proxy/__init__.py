"""What a proxy in front of, or behind, a secure connection has to say and to choose, without socket or clock.

:mod:`~sealwire.proxy.header` is the PROXY protocol, by which one proxy tells the next who the client is;
:mod:`~sealwire.proxy.routes` chooses a backend by what a client asked for.  The sockets, and the pump
between them, are in :mod:`sealwire.drive.aio`.
"""

from sealwire.proxy.header import Header, HeaderError, TlsFacts
from sealwire.proxy.routes import NoRoute, Routes, Target

__all__ = ["Header", "HeaderError", "NoRoute", "Routes", "Target", "TlsFacts"]
