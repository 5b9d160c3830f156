"""`sealwire status`: what a running server does, on one page."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any, Final

from sealwire.cli import watching
from sealwire.cli.say import Exit, Say

# Reasons for dropping that are named; the others are in --json.
_MOST_REASONS: Final = 5


def options(parser: argparse.ArgumentParser) -> None:
    watching.control_option(parser)


def run(args: argparse.Namespace, say: Say) -> Exit:
    status: Any = watching.ask(args, {"ask": "status"})
    say.record("status", **status)
    for line in _of_process(status):
        say.words(line)
    for name, server in status["servers"].items():
        say.words("")
        for line in _of_server(name, server):
            say.words(line)
    for counted in status["counted"]:
        say.words("")
        for line in _of_counters(counted):
            say.words(line)
    return Exit.OK if status["ready"] else Exit.NO


def _of_process(status: dict[str, Any]) -> list[str]:
    process = status["process"]
    lines = [
        f"{'ready' if status['ready'] else 'not ready: ' + status['reason']}; "
        f"up for {_span(status['uptime_seconds'])}, {watching.size(process['resident_bytes'])} of memory, "
        f"{process['cpu_seconds']:.1f} s of processor time, {process['open_descriptors']} descriptors"
    ]
    recent = status["last_minute"]
    if recent is not None:
        latency = recent["latency_seconds"]
        each = "" if latency is None else f" of {latency * 1000:.1f} ms"
        lines.append(
            f"last {recent['seconds']:.0f} s: {recent['handshakes_per_second']:.1f} handshakes/s{each}, "
            f"{recent['throughput_bits_per_second'] / 1e6:.1f} Mbit/s, "
            f"{recent['discards_per_second']:.1f} discards/s, "
            f"processor {100 * recent['cpu_utilization']:.0f} %"
        )
    return lines


def _of_server(name: str, server: dict[str, Any]) -> list[str]:
    endpoint, connection = server["endpoint"], server["connection"]
    held, limit, peak = (server[f"held_{which}bytes"] for which in ("", "limit_", "peak_"))
    rows = [
        [
            "connections",
            f"{server['connections']} now, {server['handshaking']} of them shaking hands; "
            f"{endpoint['connections_opened']} opened, {endpoint['handshakes_failed']} failed, "
            f"{endpoint['admissions_refused']} turned away",
        ],
        [
            "memory",
            f"{watching.size(held)} of {watching.size(limit)} held for peers, "
            f"{watching.size(peak)} at most; refused {server['charges_refused']} times",
        ],
        [
            "received",
            f"{watching.size(connection['bytes_received'])} in {connection['records_opened']} records, "
            f"{connection['messages_received']} messages",
        ],
        [
            "sent",
            f"{watching.size(connection['bytes_sent'])} in {connection['records_sealed']} records, "
            f"{connection['messages_sent']} messages, {connection['retransmissions']} retransmissions",
        ],
    ]
    dropped: Counter[str] = Counter()
    for counters in (endpoint, connection):
        for counted, n in counters.items():
            if counted.startswith("discard."):
                dropped[counted.removeprefix("discard.").replace("_", " ")] += n
    if dropped:
        most = dropped.most_common(_MOST_REASONS)
        rows.append(["dropped", ", ".join(f"{n} {reason}" for reason, n in most)])
    reached = [one for one in server["limits"] if one["reached"]]
    if reached:
        rows.append(["limits", ", ".join(f"{one['name']} reached {one['reached']} times" for one in reached)])
    state = server["transport"] + ("" if server["serving"] else ", closing")
    return [f"{name} ({state})", *(f"  {line}" for line in watching.columns(rows))]


def _of_counters(counted: dict[str, Any]) -> list[str]:
    rows = [
        [
            name.replace("_", " ").replace(".", ": "),
            watching.size(n) if "bytes" in name.split("_") else f"{n:,}",
        ]
        for name, n in counted["counters"].items()
        if n
    ]
    lines = watching.columns(rows, right=frozenset((1,))) if rows else ["nothing yet"]
    return [f"{counted['part']} ({counted['server']})", *(f"  {line}" for line in lines)]


def _span(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
