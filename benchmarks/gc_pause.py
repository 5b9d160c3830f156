"""What a full collection of the garbage collector costs beside live connections, with gc.freeze and without.

    python benchmarks/gc_pause.py 500       # connections of a server and of its clients, in one process

Processor time, the least of five.  docs/leaks.md has what follows from it.
"""

from __future__ import annotations

import gc
import sys
import time

from sealwire import dtls
from sealwire.sim import EndpointPair, Link
from tests.configs import client_context, server_context


def pause() -> str:
    """Objects the collector walks, and what that takes."""
    took = []
    for _ in range(5):
        start = time.process_time()
        gc.collect()
        took.append(time.process_time() - start)
    return f"{len(gc.get_objects())} objects, {min(took) * 1e3:.1f} ms"


def main(clients: int) -> None:
    print(f"before any connection: {pause()}")
    config = client_context().config()
    world = EndpointPair(dtls.Endpoint(server_context().config), Link(1), Link(2))
    held = []
    for n in range(clients):
        client = dtls.Connection.client(config, now=world.now, server_name="localhost")
        held.append(client)
        world.add(client, (f"10.0.{n >> 8}.{n & 255}", 1_000))
        assert world.run_until(lambda: held[-1].was_connected, world.now + 10)
    print(f"{2 * clients} connections: {pause()}")
    gc.freeze()
    print(f"after gc.freeze(): {pause()}")


if __name__ == "__main__":
    main(int(sys.argv[1]) // 2 if sys.argv[1:] else 250)
