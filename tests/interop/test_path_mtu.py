"""The search for a path's MTU over a cable that carries less than one end says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import certificates
from tests.interop.namespaces import pair

ROOT = Path(__file__).resolve().parents[2]
SERVER = """
import asyncio, sealwire, sys
async def measure(channel):
    async for data in channel:
        await channel.send(b"%d" % len(data))
async def main():
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    upkeep = sealwire.Upkeep(max_mtu=1472)
    serving = sealwire.start_datagram_server(measure, "192.0.2.2", 4433, context=context, upkeep=upkeep)
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


def found(mtu: int) -> tuple[int, int]:
    """What the client ends with, and the largest it ever used, where frames above `mtu` vanish."""
    identity = certificates.server()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with pair() as cable:
        # A veth end drops frames above its own MTU in silence; the sender's end says 1500.
        cable.run("right", "ip", "link", "set", "right", "mtu", str(mtu))
        command = cable.command(
            "right", sys.executable, "-c", SERVER, str(identity.certfile), str(identity.keyfile)
        )
        server = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            done = cable.run("left", sys.executable, "-c", CLIENT, str(identity.cafile), env=environment)
        finally:
            server.terminate()
            server.wait(10)
            assert server.stdout is not None
            server.stdout.close()
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
