"""What things weigh, measured: the constants charges and predictions are made of.

`sealwire bench memory` measures them (the growth of a server's resident set over many peers), and a long
test holds the ledger to the process's resident set within a tenth (tests/limits/test_ledger_against_rss.py).
They were taken on Linux x86-64 with Python 3.11 and OpenSSL 3, a P-256 certificate, the hybrid group and
AES-128-GCM.
"""

from __future__ import annotations

from typing import Final

#: A DTLS server's connection in its handshake, without the flight, which is charged as it is.
HALF_OPEN_BYTES: Final = 9728
#: The same once the handshake is complete.
CONNECTION_BYTES: Final = 5888
#: The same while it sleeps (dtls/hibernation.py).
ASLEEP_BYTES: Final = 2048
#: A TLS connection over TCP.
STREAM_BYTES: Final = 8 * 1024
#: Bytes of a peer's certificates that are in these already: an ordinary chain.
PEER_BYTES_INCLUDED: Final = 2 * 1024
#: A process with sealwire's server in it, before any peer.
PROCESS_BYTES: Final = 48 * 1024 * 1024
#: A session ticket beside its identity.
TICKET_BYTES: Final = 512
#: Bytes of a slot for split hellos, beside those of the hello.
SLOT_OVERHEAD_BYTES: Final = 96
