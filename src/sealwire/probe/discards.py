"""Why packets are in no flow."""

from __future__ import annotations

import enum


class PacketDiscard(enum.IntEnum):
    """Why a packet is in no flow.  Each reason is a counter."""

    FILTERED = 0  #: the filter left it out
    UNSUPPORTED_LINK = 1  #: link layer of a kind not known here
    TRUNCATED_LINK = 2  #: cut inside the link header
    NOT_IP = 3  #: another protocol, such as ARP
    TRUNCATED_IP = 4  #: cut inside the IP header
    BAD_IP = 5  #: IP header that contradicts itself
    BAD_EXTENSIONS = 6  #: IPv6 extension headers too many or cut
    TRUNCATED_TRANSPORT = 7  #: cut before the ports
    STRAY_FRAGMENT = 8  #: later fragment whose first one was not seen
    UNKNOWN_INTERFACE = 9  #: pcapng packet of an interface the file does not describe
