"""Where a message of bulk spends its CPU: perf's samples of sender and receiver, by part and by function.

    python benchmarks/bulk_profile.py [--size 1200] [--seconds 5] [--functions 12] [--json]

One connection over loopback, sender and receiver in a process each, pinned to a CPU each, `send_many` of
159 messages and `batches()`, flat out; needs Linux's `perf` and the right to use it.  A part's figure is its
share of the samples times the CPU of a message that arrived (receiver) or was sent (sender).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import sealwire

RUN = 159
MTU = 1472
#: What a line of `perf report` is counted as, the first that fits.
PARTS = (
    ("kernel", r"kernel|\[unknown\]|vmlinux|\.ko"),
    ("libcrypto", r"libcrypto"),
    ("record layer", r"_record|_bulk|_evp|_lending"),
    ("socket batches", r"_udp\."),
    ("C library", r"libc\.|ld-linux|vdso"),
    ("interpreter and Python code", r""),
)


async def serve(certificates: Path, count_file: Path) -> None:
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")

    async def take(channel: sealwire.drive.DatagramChannel) -> None:
        count = 0
        async for messages in channel.batches():
            count += len(messages)
        count_file.write_text(json.dumps({"count": count, "cpu": time.process_time() - began}))

    async with await sealwire.start_datagram_server(take, "127.0.0.1", 0, context=context, mtu=MTU) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        began = time.process_time()
        await server.serve_forever()


async def pour(certificates: Path, port: int, size: int, seconds: float) -> None:
    context = sealwire.create_default_context(cafile=str(certificates / "ca.pem"))
    messages = [os.urandom(size) for _ in range(RUN)]
    async with sealwire.open_datagram_channel(
        "127.0.0.1", port, context=context, server_hostname="localhost", mtu=MTU
    ) as channel:
        await asyncio.sleep(0.3)  # perf is being attached
        sent, cpu = 0, time.process_time()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await channel.send_many(messages)
            sent += RUN
            await asyncio.sleep(0)
        print(json.dumps({"count": sent, "cpu": time.process_time() - cpu}), flush=True)


def parts(data: Path, functions: int) -> tuple[Counter[str], list[tuple[float, str]]]:
    """Shares by part, and the largest functions."""
    command = [
        "perf",
        "report",
        "-i",
        str(data),
        "--stdio",
        "--no-children",
        "-s",
        "dso,symbol",
        "-w",
        "0,200",
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    shares: Counter[str] = Counter()
    found: list[tuple[float, str]] = []
    for line in text.splitlines():
        match = re.match(r"\s*([\d.]+)%\s+(\S+)\s+\[(.)\]\s+(.*)", line)
        if match is None:
            continue
        share, dso, where, symbol = float(match[1]), match[2], match[3], match[4].strip()
        label = "kernel" if where == "k" else dso
        shares[next(part for part, pattern in PARTS if re.search(pattern, label))] += share
        if not symbol.startswith("0x"):
            found.append((share, f"{Path(dso).name.partition('.cpython')[0]}: {symbol}"))
    return shares, sorted(found, reverse=True)[:functions]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=1200)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--functions", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", choices=("serve", "pour"), help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "serve":
        asyncio.run(serve(options.place, options.place / "received.json"))
        return 0
    if options.role == "pour":
        asyncio.run(pour(options.place, options.port, options.size, options.seconds))
        return 0

    with tempfile.TemporaryDirectory(prefix="sealwire-") as temporary:
        place = Path(temporary)
        subprocess.run(
            [sys.executable, "-m", "sealwire.cli", "cert", "--dir", temporary],
            check=True,
            capture_output=True,
        )
        cpus = sorted(os.sched_getaffinity(0))
        again = [sys.executable, __file__, "--place", temporary, "--size", str(options.size)]

        def start(role: str, cpu: int, *more: str) -> subprocess.Popen[str]:
            pinned = [
                "taskset",
                "-c",
                str(cpu),
                *again,
                "--seconds",
                str(options.seconds),
                "--role",
                role,
                *more,
            ]
            return subprocess.Popen(pinned, stdout=subprocess.PIPE, text=True)

        def watch(process: subprocess.Popen[str], data: Path) -> subprocess.Popen[bytes]:
            command = ["perf", "record", "-q", "-F", "4000", "-o", str(data), "-p", str(process.pid)]
            return subprocess.Popen(command, stderr=subprocess.DEVNULL)

        receiver = start("serve", cpus[-1])
        assert receiver.stdout is not None
        port = receiver.stdout.readline().strip()
        watching = [watch(receiver, place / "receiver.data")]
        sender = start("pour", cpus[0], "--port", port)
        watching.append(watch(sender, place / "sender.data"))
        assert sender.stdout is not None
        said = {"sender": json.loads(sender.stdout.readline())}
        sender.wait()
        while not (place / "received.json").exists():
            time.sleep(0.05)
        said["receiver"] = json.loads((place / "received.json").read_text())
        receiver.kill()
        for one in watching:
            one.wait()
        result: dict[str, object] = {"size": options.size}
        for side in ("sender", "receiver"):
            micros = said[side]["cpu"] / said[side]["count"] * 1e6
            shares, largest = parts(place / f"{side}.data", options.functions)
            result[side] = {
                "messages": said[side]["count"],
                "micros": micros,
                "parts": {part: micros * shares[part] / 100 for part, _ in PARTS},
                "functions": [{"micros": micros * share / 100, "name": name} for share, name in largest],
            }
            if not options.json:
                print(f"{side}: {said[side]['count']:,} messages of {options.size} B, {micros:.3f} us of CPU")
                for part, _ in PARTS:
                    print(f"    {micros * shares[part] / 100:7.3f} us  {part}")
                for share, name in largest:
                    print(f"        {micros * share / 100:7.3f} us  {name}")
        if options.json:
            print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
