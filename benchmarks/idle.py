"""T9: what an idle connection of a server takes, awake and asleep, without the application's own part.

    python benchmarks/idle.py [COUNT ...]          by default 1000 10000

What the rows connections.idle and connections.asleep of `sealwire bench` measure, taken apart: growth of
the resident set, the ledger's account and, in a process of its own, tracemalloc's; `lingering` are
connections that still have the keys of their handshake (the first 240 seconds), the others come behind that.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

from sealwire.bench.clocks import rss_bytes
from sealwire.bench.rows.connections import FIRST, KEYS_GONE_SECONDS, Growth


def measure(directory: Path, count: int, idle_seconds: float, traced: bool) -> dict[str, Any]:
    growth = Growth(directory, idle_seconds)
    for _ in range(FIRST):
        growth.one()
    growth.wait(KEYS_GONE_SECONDS)
    gc.collect()
    if traced:
        tracemalloc.start()

    def now() -> tuple[int, int, int]:
        gc.collect()
        return rss_bytes(), growth.endpoint.ledger.held, tracemalloc.get_traced_memory()[0]

    before = now()
    for _ in range(count):
        growth.one()
    growth.wait(min(idle_seconds, 5.0) + 3.0)
    lingering = now()
    growth.wait(KEYS_GONE_SECONDS)
    alone = now()
    found: dict[str, Any] = {"connections": count, "asleep": max(growth.endpoint.asleep - FIRST, 0)}
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
