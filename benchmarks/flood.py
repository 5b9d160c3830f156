"""T12: a server under a flood of forged hellos, with a peer that is connected and clients that come.

    python benchmarks/flood.py [SECONDS] [RATE] [--picture docs/img/flood.png] [--json FILE]    (as root)

Two network namespaces and a cable.  The server has one core; the flood, the peer (2,000 datagrams a
second) and the clients (a full handshake every 200 ms) share the other.  First 8 s of calm, then SECONDS
of the flood at RATE datagrams a second (0: all the attacker can), then 8 s of calm.  What the server did
is read twice a second.  CPU per hostile datagram is what the server process used above the calm before,
user and system, divided by the hostile datagrams it read.  Exit code 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CALM_SECONDS = 8.0
PACE = 2_000
HANDSHAKE_EVERY = 0.2
HANDSHAKE_SECONDS = 10.0
SAMPLE_SECONDS = 0.5
SERVER, PORT = "192.0.2.2", 4433
#: Name, what it is, whether it is good.
TARGETS = (
    ("goodput", "part of the connected peer's datagrams that arrived, at least 0.95", lambda v: v >= 0.95),
    ("handshakes", "part of the handshakes done within 10 s, at least 0.99", lambda v: v >= 0.99),
    ("cpu_us", "CPU per hostile datagram in us, at most 3", lambda v: v <= 3.0),
    ("memory", "growth of resident memory in MiB, at most 4", lambda v: v <= 4.0),
)


# --- inside the namespaces -----------------------------------------------------------------------


async def serve(cert: str, key: str, steer: bool) -> None:
    """The server; a line of JSON about itself twice a second."""
    import sealwire
    from sealwire.drive import DatagramChannel, start_datagram_server

    received = 0

    async def count(channel: DatagramChannel) -> None:
        nonlocal received
        async for _ in channel:
            received += 1

    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(cert, key)
    server = await start_datagram_server(count, SERVER, PORT, context=context, steer=steer)
    async with server:
        while True:
            used = os.times()
            line = {
                "at": time.monotonic(),
                "cpu": used.user + used.system,
                "rss": _resident(),
                "messages": received,
                "connections": server.connections,
                **server.endpoint_counters().snapshot(),
            }
            print(json.dumps(line), flush=True)
            await asyncio.sleep(SAMPLE_SECONDS)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def peer(cafile: str, seconds: float) -> None:
    """The connected peer: PACE datagrams a second, in runs of what is due."""
    import sealwire

    context = sealwire.create_default_context(cafile=cafile)
    async with sealwire.open_datagram_channel(
        SERVER, PORT, context=context, server_hostname="localhost"
    ) as ours:
        print(json.dumps({"connected": time.monotonic()}), flush=True)
        start, sent = time.monotonic(), 0
        while (now := time.monotonic()) - start < seconds:
            due = int((now - start) * PACE)
            while sent < due:
                await ours.send(b"x" * 200)
                sent += 1
            await asyncio.sleep(0.002)
            if sent % 100 < 5:
                print(json.dumps({"at": time.monotonic(), "sent": sent}), flush=True)


async def clients(cafile: str, seconds: float) -> None:
    """A full handshake every HANDSHAKE_EVERY seconds, each by itself."""
    import sealwire

    context = sealwire.create_default_context(cafile=cafile)
    context.num_tickets = 0

    async def one() -> None:
        start = time.monotonic()
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                async with sealwire.open_datagram_channel(
                    SERVER, PORT, context=context, server_hostname="localhost"
                ):
                    took: float | None = time.monotonic() - start
        except (OSError, TimeoutError):
            took = None
        print(json.dumps({"at": start, "took": took}), flush=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(int(seconds / HANDSHAKE_EVERY)):
            group.create_task(one())
            await asyncio.sleep(HANDSHAKE_EVERY)


# --- outside -------------------------------------------------------------------------------------


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Room:
    """Two namespaces and the cable between them."""

    def __init__(self) -> None:
        tag = uuid.uuid4().hex[:8]
        self.victim, self.attacker = f"victim-{tag}", f"attacker-{tag}"

    def __enter__(self) -> Room:
        for name in (self.victim, self.attacker):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip(
            "-n", self.attacker, "link", "add", "left", "type", "veth", "peer", "name", "right",
            "netns", self.victim,
        )  # fmt: skip
        ip("-n", self.attacker, "addr", "add", "192.0.2.1/24", "dev", "left")
        ip("-n", self.victim, "addr", "add", f"{SERVER}/24", "dev", "right")
        ip("-n", self.attacker, "link", "set", "left", "up")
        ip("-n", self.victim, "link", "set", "right", "up")
        ip("-n", self.victim, "route", "add", "198.18.0.0/15", "via", "192.0.2.1")
        return self

    def __exit__(self, *_: object) -> None:
        for name in (self.victim, self.attacker):
            subprocess.run(["ip", "netns", "del", name], check=False)

    def start(self, where: str, core: int, out: Path, *command: str) -> subprocess.Popen[bytes]:
        # A pipe that nobody reads would fill and stop the one that is measured.
        whole = ["ip", "netns", "exec", where, "taskset", "-c", str(core), *command]
        with out.open("wb") as file:
            return subprocess.Popen(whole, stdout=file)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def measure(seconds: float, rate: int, attack: str, steer: bool) -> dict[str, Any]:
    """Everything that was seen, by process."""
    program = str(Path(sys.executable).with_name("sealwire"))
    me = [sys.executable, str(Path(__file__).resolve())]
    total = seconds + 2 * CALM_SECONDS
    attackers = [program, "attack", attack, f"{SERVER}:{PORT}", "--json"]
    with tempfile.TemporaryDirectory() as directory, Room() as room:
        certificates = [program, "cert", "--dir", directory]
        subprocess.run(certificates, check=True, capture_output=True)
        files = {name: str(Path(directory) / name) for name in ("server.pem", "server.key", "ca.pem")}
        told = {name: Path(directory) / f"{name}.json" for name in ("server", "peer", "clients", "attack")}
        certificate, key, root = files.values()
        serving = [*me, "--role", "serve", certificate, key, str(int(steer))]
        server = room.start(room.victim, 1, told["server"], *serving)
        time.sleep(2.0)
        start = time.monotonic()
        running = [
            room.start(room.attacker, 0, told[role], *me, "--role", role, root, str(total))
            for role in ("peer", "clients")
        ]
        time.sleep(CALM_SECONDS)
        began = time.monotonic()
        flood = [*attackers, "--rate", str(rate), "--seconds", str(seconds)]
        room.start(room.attacker, 0, told["attack"], *flood).wait()
        ended = time.monotonic()
        for process in running:
            process.wait()
        server.terminate()
        server.wait()
        seen = {name: lines(path.read_text()) for name, path in told.items()}
    return {"start": start, "flood": [began, ended], **seen}


def judge(seen: dict[str, Any]) -> dict[str, float]:
    """The numbers of the targets."""
    began, ended = seen["flood"]
    server = seen["server"]

    def at(when: float) -> dict[str, Any]:
        return min(server, key=lambda one: abs(float(one["at"]) - when))

    before, first, last = at(began - 5.0), at(began - 0.5), at(ended)
    calm = (first["cpu"] - before["cpu"]) / (first["at"] - before["at"])
    span = last["at"] - first["at"]
    sent = [one for one in seen["peer"] if "sent" in one]
    rate = (sent[-1]["sent"] - sent[0]["sent"]) / (sent[-1]["at"] - sent[0]["at"])
    sent_in = [one for one in sent if began <= one["at"] <= ended]
    paced = sent_in[-1]["sent"] - sent_in[0]["sent"]
    arrived = at(sent_in[-1]["at"] + 0.3)["messages"] - at(sent_in[0]["at"])["messages"]
    hostile = last["datagrams_received"] - first["datagrams_received"] - paced
    in_flood = [one for one in seen["clients"] if began <= one["at"] <= ended]
    done = [one for one in in_flood if one["took"] is not None]
    took = sorted(one["took"] for one in done)
    return {
        "pace": rate,
        "goodput": min(1.0, arrived / paced),
        "handshakes": len(done) / len(in_flood),
        "handshakes_tried": len(in_flood),
        "handshake_median_s": took[len(took) // 2],
        "handshake_longest_s": took[-1],
        "sent_per_s": seen["attack"][-1]["datagrams"] / seen["attack"][-1]["seconds"],
        "read_per_s": hostile / span,
        "lost_in_kernel": last["hellos_overflowed"] + last["datagrams_overflowed"],
        "lost_of_peers": last["datagrams_overflowed"] - first["datagrams_overflowed"],
        "replies_per_s": (last["hello_retry_requests"] - first["hello_retry_requests"]) / span,
        "cpu_calm": calm,
        "cpu_flood": (last["cpu"] - first["cpu"]) / span,
        "cpu_us": (last["cpu"] - first["cpu"] - calm * span) / hostile * 1e6,
        "memory": (max(one["rss"] for one in server if one["at"] >= began) - first["rss"]) / 2**20,
    }


def draw(seen: dict[str, Any], found: dict[str, float], path: Path) -> None:
    """The whole run over time, one picture above the other."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    zero, (began, ended) = seen["start"], seen["flood"]
    server = [one for one in seen["server"] if one["at"] >= zero]
    steps = list(itertools.pairwise(server))
    x = [b["at"] - zero for _, b in steps]

    def per_second(name: str) -> list[float]:
        return [(b.get(name, 0) - a.get(name, 0)) / (b["at"] - a["at"]) for a, b in steps]

    figure, axes = pyplot.subplots(5, 1, sharex=True, figsize=(9, 11), layout="constrained")
    for one in axes:
        one.axvspan(began - zero, ended - zero, color="#f3d9d9", zorder=0)
        one.grid(alpha=0.3)
        one.margins(x=0.01)
    rows = axes[0]
    rows.plot(x, per_second("datagrams_received"), color="#b03030", label="read by the server")
    lost = [
        a + b
        for a, b in zip(per_second("hellos_overflowed"), per_second("datagrams_overflowed"), strict=True)
    ]
    rows.plot(x, lost, color="#888888", label="dropped by the kernel")
    rows.plot(x, per_second("hello_retry_requests"), color="#306090", label="HelloRetryRequests")
    rows.set_ylabel("datagrams / s")
    rows.legend(loc="upper right", fontsize=8)
    rows.set_title(f"{found['sent_per_s'] / 1000:.0f},000 forged hellos a second")
    axes[1].plot(x, per_second("messages"), color="#207020")
    axes[1].axhline(0.95 * PACE, color="#207020", lw=0.8, ls=":")
    axes[1].set_ylim(0, PACE * 1.3)
    axes[1].set_ylabel("connected peer,\ndatagrams / s")
    good = [(one["at"] - zero, one["took"]) for one in seen["clients"] if one["took"] is not None]
    bad = [one["at"] - zero for one in seen["clients"] if one["took"] is None]
    axes[2].semilogy([a for a, _ in good], [b for _, b in good], ".", color="#604090", label="done")
    axes[2].plot(bad, [HANDSHAKE_SECONDS] * len(bad), "x", color="#b03030", label="not within 10 s")
    axes[2].axhline(HANDSHAKE_SECONDS, color="#b03030", lw=0.8, ls=":")
    axes[2].set_ylim(0.002, 40)
    axes[2].set_ylabel("handshakes of\nnew clients, s")
    axes[2].legend(loc="lower right", fontsize=8)
    axes[3].plot(x, [100 * one for one in per_second("cpu")], color="#a06010")
    axes[3].set_ylabel("server's CPU, %\n(user + system)")
    axes[3].set_ylim(0, 105)
    axes[3].text(
        (began + ended) / 2 - zero,
        92,
        f"{found['cpu_us']:.2f} us per hostile datagram",
        ha="center",
        fontsize=9,
    )
    axes[4].plot(
        [one["at"] - zero for one in server], [one["rss"] / 2**20 for one in server], color="#333333"
    )
    axes[4].set_ylim(0, 1.3 * max(one["rss"] for one in server) / 2**20)
    axes[4].set_ylabel("resident\nmemory, MiB")
    axes[4].set_xlabel("seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("seconds", nargs="?", type=float, default=20.0)
    parser.add_argument("rate", nargs="?", type=int, default=100_000)
    parser.add_argument("--attack", default="hellos", help="a program of `sealwire attack`")
    parser.add_argument(
        "--one-socket", action="store_true", help="do not steer handshakes to a socket of their own"
    )
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.role:
        role, *rest = options.role
        if role == "serve":
            asyncio.run(serve(rest[0], rest[1], rest[2] == "1"))
        elif role == "peer":
            asyncio.run(peer(rest[0], float(rest[1])))
        else:
            asyncio.run(clients(rest[0], float(rest[1])))
        return 0
    seen = measure(options.seconds, options.rate, options.attack, not options.one_socket)
    found = judge(seen)
    for name, value in found.items():
        print(f"{name:22} {value:12.3f}")
    if options.json:
        options.json.write_text(json.dumps({"found": found, "seen": seen}))
    if options.picture:
        draw(seen, found, options.picture)
    missed = [meaning for name, meaning, good in TARGETS if not good(found[name])]
    for one in missed:
        print(f"missed: {one}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
