"""A process that shakes hands, hides what it saw of the secrets, and looks for them in its own memory.

Run by test_secrets.py.  Secrets are remembered with every byte changed, so that what is found is not
what was remembered; the memory is read through a mapping that is itself left out.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import mmap
import sys
from typing import Any

from sealwire import dtls, stcp
from sealwire.crypto import hkdf
from sealwire.sim import Link, Pair
from tests.configs import client_context, server_context

CHANGE = 0x5A
WINDOW = 1 << 20

hidden: dict[str, list[bytes]] = {"keys": [], "ivs": [], "secrets": []}


def watch_secrets() -> None:
    """Remember each traffic secret and what is derived from it, changed."""
    derive = hkdf.traffic_keys

    def spy(provider, spec, secret, prefix):  # type: ignore[no-untyped-def]
        keys = derive(provider, spec, secret, prefix)
        for kind, values in (
            ("keys", (keys.key, keys.sn_key)),
            ("ivs", (keys.iv,)),
            ("secrets", (secret,)),
        ):
            hidden[kind] += [bytes(byte ^ CHANGE for byte in value) for value in values if value]
        return keys

    for user in ("sealwire.dtls.epochs", "sealwire.stcp.association"):
        module: Any = importlib.import_module(user)
        module.traffic_keys = spy


class Memory:
    """Everything this process can write to, searched a megabyte at a time."""

    def __init__(self) -> None:
        self._window = mmap.mmap(-1, WINDOW)
        self._view = memoryview(self._window)
        self._start = ctypes.addressof((ctypes.c_char * WINDOW).from_buffer(self._window))

    def count(self, changed: bytes) -> int:
        """How often what `changed` stands for is there."""
        wanted = bytearray(byte ^ CHANGE for byte in changed)
        own = ctypes.addressof((ctypes.c_char * len(wanted)).from_buffer(wanted))
        found = 0
        with open("/proc/self/maps") as maps:
            regions = [line.split()[:2] for line in maps if "[v" not in line]
        with open("/proc/self/mem", "rb", 0) as memory:
            for region, permissions in regions:
                if "w" not in permissions:
                    continue
                at, end = (int(part, 16) for part in region.split("-"))
                while at < end:
                    if self._start <= at < self._start + WINDOW:
                        at = self._start + WINDOW
                        continue
                    size = min(WINDOW, end - at)
                    if at < self._start < at + size:
                        size = self._start - at
                    memory.seek(at)
                    try:
                        size = memory.readinto(self._view[:size]) or 0
                    except OSError:
                        break
                    place = self._window.find(wanted, 0, size)
                    while place >= 0:
                        found += at + place != own
                        place = self._window.find(wanted, place + 1, size)
                    # What lies across two windows is seen in the next one.
                    at += size if size <= len(wanted) or at + size >= end else size - len(wanted)
        for n in range(len(wanted)):
            wanted[n] = 0
        return found

    def look(self) -> dict[str, int]:
        """How many copies there are of all keys, of all secrets."""
        gc.collect()
        return {kind: sum(map(self.count, set(values))) for kind, values in hidden.items()}


def datagrams(memory: Memory, *, asleep: bool = False) -> dict[str, dict[str, int]]:
    client = dtls.Connection.client(client_context().config(), now=0.0, server_name="localhost")
    server = dtls.Connection.server(server_context().config(), now=0.0)
    pair = Pair(client, server, Link(1), Link(2))
    assert pair.run_until(lambda: client.was_connected and server.was_connected, 10.0)
    client.update_keys(pair.now)
    client.send(b"hello")
    pair.run_for(2.0)
    assert client.sending_epoch == 4
    for side in (client, server) if asleep else ():
        # To sleep, awake once more, and to sleep again: what was written down on the way must go as well.
        assert side.hibernate(pair.now)
        side.rise()
        assert side.hibernate(pair.now)
    live = memory.look()
    for side in (client, server):
        side.close(pair.now)
        side.transmit(pair.now)
        side.events()
    return {"live": live, "closed": memory.look()}


def streams(memory: Memory) -> dict[str, dict[str, int]]:
    client = stcp.Connection.client(client_context().config(), now=0.0, server_name="localhost")
    server = stcp.Connection.server(server_context().config(), now=0.0)
    for _ in range(6):
        server.receive_data(client.data_to_send())
        client.receive_data(server.data_to_send())
    client.send(b"hello")
    live = memory.look()
    client.close()
    server.receive_data(client.data_to_send())
    server.close()
    client.receive_data(server.data_to_send())
    return {"live": live, "closed": memory.look()}


def main() -> None:
    watch_secrets()
    memory = Memory()
    found = streams(memory) if sys.argv[1] == "streams" else datagrams(memory, asleep=sys.argv[1] == "asleep")
    found["gone"] = memory.look()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
