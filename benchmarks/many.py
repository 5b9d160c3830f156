"""T10 and T11: one server process with many connections, most of them idle.

    python benchmarks/many.py [--steps 100,10000,100000] [--seconds 30] [--rate 1000] [--json FILE]
    python benchmarks/many.py --steps 10000 --everybody --seconds 300          (each echoes, in turn)

The server and the clients of the row connections.echo of `sealwire bench` (sealwire.bench.rows.crowd), for
longer, and one server that gets ever more connections.  After each step of them, one in a hundred (or
everybody, in turn) says something at `rate` messages a second for `seconds`; every answer is compared.

Printed for each step: the server's resident memory and its growth for each connection, what its ledger
says, how many sleep, CPU of the server for each handshake and each echo, answers that were wrong or missing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from sealwire.bench.rows.crowd import Crowd, Server


def run(arguments: argparse.Namespace) -> list[dict[str, float]]:
    rows = []
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        program = Path(sys.executable).with_name("sealwire")
        subprocess.run([program, "cert", "--dir", directory], check=True, capture_output=True)
        with Server(directory, arguments.idle) as server, closing(Crowd(directory, server.port)) as crowd:
            # The first pay for what all share.
            crowd.connect(50)
            first = server.state()
            for step in (int(n) for n in arguments.steps.split(",")):
                rows.append(one_step(crowd, server, first, step, arguments))
                print(json.dumps(rows[-1]), flush=True)
    return rows


def one_step(
    crowd: Crowd, server: Server, first: Mapping[str, float], step: int, arguments: argparse.Namespace
) -> dict[str, float]:
    before, had, begin = server.state(), len(crowd.clients), time.monotonic()
    crowd.connect(step)
    connected, seconds = server.state(), time.monotonic() - begin
    # All that were silent for long enough sleep by then.
    time.sleep(arguments.idle + 3.0 if not arguments.everybody else 0.0)
    idle = server.state()
    crowd.forget()
    chosen = list(range(0, step, 1 if arguments.everybody else 100))
    samples = []
    taken = 0.0
    pieces = max(int(arguments.seconds // 30), 1)
    for _ in range(pieces):
        taken += crowd.talk(chosen, arguments.rate, arguments.seconds / pieces)
        samples.append(server.state()["rss"])
    after = server.state()
    made = step - had
    return {
        "connections": after["connections"],
        "handshakes_per_second": round(made / seconds, 1) if made > 0 else 0,
        "server_us_per_handshake": round((connected["cpu"] - before["cpu"]) / made * 1e6, 1)
        if made > 0
        else 0,
        "rss_mib": round(after["rss"] / 2**20, 1),
        "rss_mib_idle": round(idle["rss"] / 2**20, 1),
        "rss_mib_while_talking": [round(one / 2**20, 1) for one in samples],
        "rss_per_connection": round((idle["rss"] - first["rss"]) / max(step - 50, 1)),
        "ledger_per_connection": round(idle["ledger"] / idle["connections"]),
        "asleep_before": idle["idle"],
        "asleep_after": after["idle"],
        "woken": after["woken"] - idle["woken"],
        "talking": len(chosen),
        "echoes": crowd.right,
        "wrong": crowd.wrong,
        "missing": crowd.missing,
        "late": crowd.late,
        "slowest_ms": round(crowd.slowest * 1e3, 1),
        "server_us_per_echo": round((after["cpu"] - idle["cpu"]) / max(crowd.right, 1) * 1e6, 1),
        "seconds": round(taken, 1),
        "shed": after["shed"],
        "failed": after["failed"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--steps", default="100,10000,100000", help="how many connections, one after the other"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="of talk after each step")
    parser.add_argument("--rate", type=float, default=1000.0, help="messages a second, of all together")
    parser.add_argument("--idle", type=float, default=10.0, help="Limits.idle_seconds of the server")
    parser.add_argument("--everybody", action="store_true", help="all talk in turn, not one in a hundred")
    parser.add_argument("--json", type=Path, help="write the rows there")
    arguments = parser.parse_args()
    rows = run(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if any(row["wrong"] or row["missing"] or row["failed"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
