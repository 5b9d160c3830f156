"""Gives the gate hostile datagrams of one kind; run under callgrind by test_instructions.py.

python hostile_datagrams.py KIND COUNT CERTIFICATE KEY
"""

from __future__ import annotations

import random
import sys

from sealwire import dtls
from sealwire.attack import hellos
from sealwire.context import PROTOCOL_SERVER, Context
from sealwire.dtls.cookie import Address
from sealwire.limits import Limits

BATCH = 64


def cookies() -> hellos.Payload:
    """Second hellos with cookies of the right length and key generation, so that the MAC is computed."""
    body = hellos.hello_body()
    return lambda source: hellos.whole(hellos.with_cookie(body, b"\0" + source.randbytes(58)), 1, 1)


def main(kind: str, count: int, certfile: str, keyfile: str) -> None:
    context = Context(PROTOCOL_SERVER)
    context.load_cert_chain(certfile, keyfile)
    # Everybody is answered in the first case, and nobody in the second.
    limits = Limits(
        hello_replies_per_second=10**9 if kind == "answered" else 1,
        hello_replies_per_prefix_per_second=10**9,
        hello_reply_bytes_per_second=10**12,
    )
    endpoint = dtls.Endpoint(context.config, limits=limits)
    made = {"cookies": cookies, "pieces": hellos.first_pieces}.get(kind, hellos.first_hellos)()
    source = random.Random(1)

    def somebody() -> Address:
        return (f"198.18.{source.randrange(256)}.{source.randrange(256)}", source.randrange(1024, 65_536))

    batch = [(made(source), somebody()) for _ in range(count)]
    if kind == "garbage":
        batch = [(b"\x16" + one[1:13] + b"\x01" + source.randbytes(100), address) for one, address in batch]
    for start in range(0, count, BATCH):
        now = 1.0 + start / 100_000
        endpoint.receive(batch[start : start + BATCH], now)
        endpoint.transmit(now)
    assert endpoint.counters.datagrams_received == count


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
