"""The search for a path's MTU over a cable that carries less than one end says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests import certificates
from tests.interop.namespaces import narrow_behind_a_router, pair

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
SERVER = """
import asyncio, sealwire, sys
async def measure(channel):
    async for data in channel:
        print(channel.path_mtu_estimate, flush=True)
        await channel.send(b"%d" % len(data))
async def main():
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    upkeep = sealwire.Upkeep(max_mtu=int(sys.argv[4]) or None)
    serving = sealwire.start_datagram_server(measure, sys.argv[3], 4433, context=context, upkeep=upkeep)
    async with await serving as server:
        print("ready", flush=True)
        await server.serve_forever()
asyncio.run(main())
"""
CLIENT = """
import asyncio, sealwire, sys
async def main():
    context = sealwire.create_default_context(cafile=sys.argv[1])
    opening = sealwire.open_datagram_channel(
        "192.0.2.2", 4433, context=context, server_hostname="localhost", upkeep=sealwire.Upkeep(max_mtu=1472)
    )
    async with opening as channel:
        largest, end = 0, asyncio.get_running_loop().time() + 45
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.5)
            largest = max(largest, channel.connection.mtu)
            if channel.connection._care._search.complete:
                break
        size = channel.max_message_bytes
        for _ in range(30):
            await channel.send(bytes(size))
            try:
                assert await asyncio.wait_for(channel.recv(), 1) == b"%d" % size
                break
            except TimeoutError:
                continue
        print(channel.connection.mtu, largest)
asyncio.run(main())
"""


@contextmanager
def serving(prefix: list[str], address: str, max_mtu: int) -> Iterator[IO[bytes]]:
    """A server at `address`, where `prefix` runs things; gives what it prints."""
    identity = certificates.server()
    arguments = (str(identity.certfile), str(identity.keyfile), address, str(max_mtu))
    server = subprocess.Popen(
        [*prefix, sys.executable, "-c", SERVER, *arguments], stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == b"ready\n"
        yield server.stdout
    finally:
        server.terminate()
        server.wait(10)
        server.stdout.close()


def found(mtu: int) -> tuple[int, int]:
    """What the client ends with, and the largest it ever used, where frames above `mtu` vanish."""
    identity = certificates.server()
    with pair() as cable:
        # A veth end drops frames above its own MTU in silence; the sender's end says 1500.
        cable.run("right", "ip", "link", "set", "right", "mtu", str(mtu))
        with serving(cable.command("right"), "192.0.2.2", 1472):
            done = cable.run("left", sys.executable, "-c", CLIENT, str(identity.cafile))
    now, largest = map(int, done.stdout.split())
    return now, largest


def test_a_cable_that_carries_all_of_it() -> None:
    assert found(1500) == (1472, 1472)


@pytest.mark.long
def test_a_cable_that_carries_less() -> None:
    now, largest = found(1420)
    # 28 bytes are IPv4 and UDP; the cable lets four more pass, as for a VLAN tag.
    assert 1412 - 40 <= now <= 1420 - 28 + 4
    assert largest == now


# The timer waits so long that ICMP is there before on any machine; each prints what it ends with, and how
# often the timer had something sent again.
PATIENT = """
import functools
from sealwire import dtls
dtls.Connection.client = functools.partial(dtls.Connection.client, initial_timeout=20.0)
"""
TOLD = {
    "asyncio": f"""{PATIENT}
import asyncio, sealwire, sys
async def main():
    context = sealwire.create_default_context(cafile=sys.argv[1])
    async with sealwire.open_datagram_channel(
        "198.51.100.2", 4433, context=context, server_hostname="localhost"
    ) as channel:
        print(channel.connection.mtu, channel.path_mtu_estimate, channel.statistics()["retransmissions"])
        await channel.send(bytes(channel.max_message_bytes))
        print((await channel.recv()).decode(), channel.max_message_bytes)
asyncio.run(main())
""",
    "blocking": f"""{PATIENT}
import sealwire, socket, sys
context = sealwire.create_default_context(cafile=sys.argv[1])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("198.51.100.2", 4433))
with sealwire.wrap_socket(context, sock, server_hostname="localhost") as channel:
    channel.do_handshake()
    print(channel.connection.mtu, channel.path_mtu_estimate, channel.statistics()["retransmissions"])
    channel.send(bytes(channel.max_message_bytes))
    print(channel.recv(100).decode(), channel.max_message_bytes)
""",
}


@pytest.mark.requirement("9147-4.4-2", "9147-4.4-6", "9147-4.4-11")
@pytest.mark.parametrize("driver", TOLD)
def test_a_router_says_that_the_path_is_narrower(driver: str) -> None:
    """The hello is too long for a link behind the router: ICMP comes, and the hello again, cut anew."""
    with narrow_behind_a_router(1000) as (cable, beyond), serving(beyond, "198.51.100.2", 0) as printed:
        done = cable.run("left", sys.executable, "-c", TOLD[driver], str(certificates.server().cafile))
        estimate = printed.readline().strip()
    first, second = done.stdout.decode().splitlines()
    assert first == "972 972 0"
    echoed, longest = second.split()
    assert echoed == longest
    # What its one socket for everybody can be asked about one peer.
    assert estimate == b"972"
