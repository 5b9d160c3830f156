"""Events go on while the collector is away: how many were lost, and whether the signed gaps say just that.

    python benchmarks/collect_away.py [--rate 10000] [--away 60] [--spool-max 1024]     (as root)

A sender in one network namespace offers `rate` flows of one packet a second to a probe that captures
live in another; the collector is killed a few seconds later and comes back after `away` seconds, or
stays (0), and then the latency while packets come is what counts (T34).  In the end every packet sent
is a flow in the store, or an event that a gap counts; anything else ends with 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

SENDER = Path(__file__).with_name("send_frames.py")
FRAME_BYTES = 70
_MARGIN_SECONDS = 5.0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def inside(name: str, *words: object) -> list[str]:
    """A command in a namespace."""
    return ["ip", "netns", "exec", name, *map(str, words)]


def sealwire(*words: object) -> list[object]:
    return [sys.executable, "-m", "sealwire.cli", "--json", *words]


def run(*words: object) -> None:
    subprocess.run([str(word) for word in sealwire(*words)], check=True, capture_output=True)


class Collector:
    """The collector's process."""

    def __init__(self, where: str, place: Path) -> None:
        words = (
            *("collect", "--listen", "127.0.0.1:5555", "--client-ca", place / "ca.pem"),
            *("--cert", place / "server.pem", "--key", place / "server.key", "--sign", place / "c.key"),
            *("--enrolled", place / "enrolled", "--out", place / "store"),
        )
        self.process = subprocess.Popen(inside(where, *sealwire(*words)), stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None, "it is a pipe"
        self.process.stdout.readline()  # it listens

    def stop(self, number: int) -> None:
        # `ip netns exec` becomes the program itself.
        self.process.send_signal(number)
        self.process.wait()


def measure(args: argparse.Namespace, place: Path, left: str, right: str) -> int:
    run("cert", "--dir", place)
    run("keygen", place / "p.key")
    run("keygen", place / "c.key")
    run(
        "enroll",
        "--enrolled",
        place / "enrolled",
        "--key",
        place / "p.key.pub",
        "--identity",
        place / "client.pem",
    )
    collector = Collector(right, place)
    seconds = args.away + 2 * _MARGIN_SECONDS if args.away else 4 * _MARGIN_SECONDS
    words = (
        *("probe", "-i", "right", "-f", "udp and dst host 192.0.2.99", "--timeouts", "idle=1"),
        *("--seconds", seconds + 6, "--sign", place / "p.key", "--spool", place / "spool"),
        *("--spool-max", args.spool_max, "--to", "127.0.0.1:5555", "--server-name", "localhost"),
        *("--cafile", place / "ca.pem", "--cert", place / "client.pem", "--tls-key", place / "client.key"),
        *("--drain", 120),
    )
    probe = subprocess.Popen(inside(right, *sealwire(*words)), stdout=subprocess.PIPE, text=True)
    assert probe.stdout is not None, "it is a pipe"
    probe.stdout.readline()  # its filter is in place
    command = inside(left, sys.executable, SENDER, "left", seconds, FRAME_BYTES, args.rate)
    sender = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    time.sleep(_MARGIN_SECONDS)
    if args.away:
        collector.stop(signal.SIGKILL)
        time.sleep(args.away)
    before = _facts(place / "spool" / "export.json")
    if args.away:
        collector = Collector(right, place)
    sent, took = sender.communicate()[0].split()
    during = _facts(place / "spool" / "export.json")
    lines = [json.loads(line) for line in probe.communicate()[0].splitlines()]
    collector.stop(signal.SIGTERM)
    (folder,) = (path for path in (place / "store").iterdir() if path.is_dir())
    verified = subprocess.run(
        [str(word) for word in sealwire("verify", folder, "--key", place / "p.key.pub")],
        capture_output=True,
        text=True,
        check=False,
    )
    verdict = json.loads(verified.stdout.splitlines()[-1])
    return report(args, int(sent), float(took), lines, before, during, verdict)


def _facts(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def report(
    args: argparse.Namespace,
    sent: int,
    took: float,
    lines: list[dict[str, Any]],
    before: dict[str, Any],
    after: dict[str, Any],
    verdict: dict[str, Any],
) -> int:
    summary = next(line for line in lines if line.get("event") == "summary")
    sealed = next(line for line in lines if line.get("event") == "sealed")
    flows, lost = verdict["flows"], verdict["lost_events"]
    print(
        f"sent {sent:,} flows in {took:.0f} s, {sent / took:,.0f} a second; collector away {args.away:.0f} s"
    )
    print(f"capture: kernel took {summary['kernel_packets']:,}, dropped {summary['kernel_drops']:,}")
    print(f"in flows {summary['flow_packets']:,}; exported {summary['exported']:,}")
    print(f"undelivered in the spool when it came back: {before['undelivered_bytes']:,} bytes")
    print(
        f"stored {flows:,} flows; gaps say {lost:,} events; the probe counted {sealed['dropped']:,} dropped"
    )
    print(f"verify: good {verdict['good']}, {verdict['gaps']} gaps, {verdict['faults']} faults")
    print(
        f"from sealing to sending: {quantiles(after['send_seconds'])}; "
        f"to the receipt: {quantiles(after['receipt_seconds'])}"
    )
    if not args.away:
        packets = {**after["packet_seconds"]}
        pairs = zip(packets["counts"], before["packet_seconds"]["counts"], strict=True)
        packets["counts"] = [late - early for late, early in pairs]
        print(f"from a segment's earliest packet to its receipt: {quantiles(packets)}, {packets['counts']}")
    unexplained = sent - summary["kernel_drops"] - flows - lost
    print(f"unexplained: {unexplained}")
    return int(unexplained != 0 or not verdict["good"] or summary["kernel_drops"] != 0)


def quantiles(histogram: dict[str, Any]) -> str:
    """Median and P99 as the bucket that holds them."""
    total, bounds = sum(histogram["counts"]), [*histogram["bounds"], float("inf")]
    found = []
    for part in (0.5, 0.99):
        seen = 0
        for bound, count in zip(bounds, histogram["counts"], strict=True):
            seen += count
            if seen >= part * total:
                found.append(f"P{part * 100:.0f} <= {bound:g} s")
                break
    return ", ".join(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=10_000, help="flows a second")
    parser.add_argument(
        "--away", type=float, default=60.0, help="seconds without a collector; 0: how soon receipts come"
    )
    parser.add_argument("--spool-max", type=int, default=1024, help="MiB")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("not measured: network namespaces need root")
        return 0
    tag = uuid.uuid4().hex[:6]
    left, right = f"sw-l-{tag}", f"sw-r-{tag}"
    with tempfile.TemporaryDirectory(prefix="sealwire-away-") as place:
        try:
            ip("netns", "add", left)
            ip("netns", "add", right)
            ip("-n", left, "link", "add", "left", "type", "veth", "peer", "name", "right", "netns", right)
            for name, end in ((left, "left"), (right, "right"), (right, "lo")):
                ip("-n", name, "link", "set", end, "up")
            return measure(args, Path(place), left, right)
        finally:
            for name in (left, right):
                with contextlib.suppress(OSError):
                    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
