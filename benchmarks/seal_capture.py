"""A capture sealed and verified, beside the same flows written as CSV by sealwire and by NFStream.

    python benchmarks/seal_capture.py capture.pcap [interpreter that has nfstream]

Wall time and CPU of all processes of each step, in turn, from the capture's file (in the page cache) to
what is durable or written.  The signer is a process of its own, so wall time can be less than CPU.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEALWIRE = [sys.executable, "-m", "sealwire.cli"]
NFSTREAM = """
import sys
from nfstream import NFStreamer
if __name__ == "__main__":
    NFStreamer(source=sys.argv[1], n_dissections=0, statistical_analysis=True).to_csv(sys.argv[2])
"""


def step(name: str, command: list[str], *, shell: bool = False) -> None:
    """Run it, and say what it took."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command[0] if shell else command, shell=shell, capture_output=True, check=False)
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode:
        sys.exit(f"{name}: {(done.stderr or done.stdout).decode()}")
    print(f"{name:45} {wall:8.1f} s {cpu:8.1f} s CPU", flush=True)


def main(capture: str, nfstream: str | None) -> None:
    print(f"load {os.getloadavg()[0]:.1f} before, {os.cpu_count()} CPUs")
    Path(capture).read_bytes()
    with tempfile.TemporaryDirectory() as place:
        for algorithm in ("ed25519", "rsa-4096"):
            key = f"{place}/{algorithm}.key"
            subprocess.run(
                [*SEALWIRE, "keygen", key, "--algorithm", algorithm], check=True, capture_output=True
            )
            for more in ([], ["--no-dissection"]):
                events = f"{place}/{algorithm}{len(more)}"
                read = [*SEALWIRE, "probe", "-r", capture, *more]
                step(f"sealed, {algorithm} {' '.join(more)}", [*read, "--sign", key, "-w", events])
                step(f"verified, {algorithm}", [*SEALWIRE, "verify", events, "--key", f"{key}.pub"])
            files = sum(entry.stat().st_size for entry in os.scandir(events))
            print(f"{'':45} {files:,} bytes")
        alone = f"zstd -dc {events}/*.seal.zst | {sys.executable} {ROOT}/docs/verify.py {key}.pub"
        step("verified, rsa-4096, by docs/verify.py", [alone], shell=True)
        for more in ([], ["--no-dissection"]):
            step(
                f"CSV {' '.join(more)}",
                [*SEALWIRE, "probe", "-r", capture, *more, "-w", f"{place}/flows.csv"],
            )
        if nfstream is not None:
            step(
                "CSV, NFStream without dissection",
                [nfstream, "-c", NFSTREAM, capture, f"{place}/nfstream.csv"],
            )
    print(f"load {os.getloadavg()[0]:.1f} behind")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
