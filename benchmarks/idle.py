"""T9: what an idle connection of a server takes, awake and asleep, without the application's own part.

    python benchmarks/idle.py [COUNT ...]          by default 1000 10000

An Endpoint without sockets in this process; the clients live here too, but each for its handshake only.
Time is virtual: a handshake every 5 ms, so that what falls asleep makes room for who comes.  Growth of the
resident set, the ledger's account and, in a process of its own, tracemalloc's; `lingering` are connections
that still have the keys of their handshake (the first 240 seconds), the others come behind that.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

HANDSHAKE_SECONDS = 0.005
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * PAGE


class Growth:
    """An endpoint that gets ever more peers."""

    def __init__(self, directory: Path, idle_seconds: float) -> None:
        import sealwire
        from sealwire import dtls

        many = 1 << 20
        server, client = (
            sealwire.Context(sealwire.PROTOCOL_SERVER),
            sealwire.Context(sealwire.PROTOCOL_CLIENT),
        )
        server.load_cert_chain(directory / "server.pem", directory / "server.key")
        client.load_verify_locations(cafile=directory / "ca.pem")
        for context in (server, client):
            context.set_groups("x25519")
        limits = sealwire.Limits(
            total_bytes=8 << 30, connections=many, prefixes=many, idle_seconds=idle_seconds
        )
        self.endpoint = dtls.Endpoint(server.config, limits=limits)
        self._connect = dtls.Connection.client
        self._config = client.config()
        self.now = 0.0
        self._number = 0

    def one(self) -> None:
        self._number += 1
        self.now += HANDSHAKE_SECONDS
        address = ("127." + ".".join(map(str, self._number.to_bytes(3, "big"))), 4433)
        client = self._connect(self._config, now=self.now, server_name="localhost")
        for _ in range(8):
            self.endpoint.receive([(one, address) for one in client.transmit(self.now)], self.now)
            answers = self.endpoint.transmit(self.now)
            self.endpoint.events()
            client.receive_run([one for one, _ in answers], self.now)
            if client.was_connected and not answers:
                break
        assert client.was_connected
        client.abort()
        self.turn()

    def turn(self) -> None:
        due = self.endpoint.deadline()
        if due is not None and due <= self.now:
            self.endpoint.wake(self.now)
            self.endpoint.transmit(self.now)
            self.endpoint.events()

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.endpoint.deadline()) is not None and due <= end:
            self.now = max(due, self.now)
            self.turn()
        self.now = end


def measure(directory: Path, count: int, idle_seconds: float, traced: bool) -> dict[str, Any]:
    growth = Growth(directory, idle_seconds)
    for _ in range(300):
        growth.one()
    growth.wait(300.0)
    gc.collect()
    if traced:
        tracemalloc.start()

    def now() -> tuple[int, int, int]:
        gc.collect()
        return resident(), growth.endpoint.ledger.held, tracemalloc.get_traced_memory()[0]

    before = now()
    for _ in range(count):
        growth.one()
    growth.wait(min(idle_seconds, 5.0) + 3.0)
    lingering = now()
    growth.wait(300.0)
    alone = now()
    found: dict[str, Any] = {"connections": count, "asleep": sum(one.asleep for one in growth.endpoint) - 300}
    for name, after in (("lingering", lingering), ("alone", alone)):
        figures = [round((b - a) / count) for a, b in zip(before, after, strict=True)]
        found[name] = {"traced": figures[2]} if traced else {"rss": figures[0], "ledger": figures[1]}
    return found


def main() -> int:
    if len(sys.argv) > 1 and sys.argv[1] == "--measure":
        directory, count, idle_seconds, traced = sys.argv[2:6]
        print(json.dumps(measure(Path(directory), int(count), float(idle_seconds), traced == "1")))
        return 0
    with tempfile.TemporaryDirectory() as directory:
        program = Path(sys.executable).with_name("sealwire")
        subprocess.run([program, "cert", "--dir", directory], check=True, capture_output=True)
        for count in sys.argv[1:] or ("1000", "10000"):
            for state, idle_seconds in (("awake", "inf"), ("asleep", "1")):
                for traced in ("0", "1"):
                    command = [sys.executable, __file__, "--measure", directory, count, idle_seconds, traced]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    print(state, done.stdout.strip(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
