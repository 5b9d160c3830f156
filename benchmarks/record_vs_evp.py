"""Sealing and opening DTLS 1.3 records, beside a bare C loop of the same libcrypto calls.

Both sides use the same library, key sizes and run length and are measured in turns (A B A B), so
the ratio holds on a machine that is busy with other things.  Times are CPU time per record; the
median of the rounds is shown.  What was opened is compared with what was sealed, after the clock.

    python benchmarks/record_vs_evp.py [--json] [--suite NAME] [--rounds N]

Exit code 3: there is nothing to compare (no compiled record layer, or no C compiler).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sealwire.crypto.hkdf import DTLS13_PREFIX, traffic_keys
from sealwire.crypto.providers import default_provider
from sealwire.crypto.suites import SUITES, SuiteSpec, parse_suites
from sealwire.record import protect

RUN = 64  # records of one call, as a batch of datagrams has
SIZES = (64, 1200)
ROUND_SECONDS = 0.02
PROVIDER = default_provider()
CIPHERS = {
    "TLS_AES_128_GCM_SHA256": (b"AES-128-GCM", b"AES-128-ECB"),
    "TLS_AES_256_GCM_SHA384": (b"AES-256-GCM", b"AES-256-ECB"),
}


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table; times in nanoseconds of CPU per record."""

    suite: str
    operation: str
    content_bytes: int
    sealwire_ns: float
    bare_ns: float
    ratio: float
    one_by_one_ns: float


class BareLoop:
    """evp_loop.c, compiled here and now, on the library the record layer uses."""

    def __init__(self, directory: str) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise OSError("no C compiler")
        built = os.path.join(directory, "evp_loop.so")
        source = Path(__file__).with_name("evp_loop.c")
        subprocess.run([compiler, "-O2", "-fPIC", "-shared", "-o", built, source], check=True)
        # PyDLL keeps the GIL, as the record layer does for short runs.
        self.loop = ctypes.PyDLL(built)
        self.crypto = ctypes.CDLL(protect.describe().rpartition(", ")[2])
        names = [
            f"EVP_{way}{step}"
            for way in ("Encrypt", "Decrypt")
            for step in ("Init_ex2", "Update", "Final_ex")
        ]
        names += ["EVP_CIPHER_CTX_set_params", "EVP_CIPHER_CTX_get_params"]
        addresses = [ctypes.cast(getattr(self.crypto, name), ctypes.c_void_p).value for name in names]
        self.table = (ctypes.c_void_p * len(names))(*addresses)

    def context(self, cipher: bytes, key: bytes, sealing: bool) -> ctypes.c_void_p:
        """A context with `key`, which lives as long as the process."""
        fetch, new = self.crypto.EVP_CIPHER_fetch, self.crypto.EVP_CIPHER_CTX_new
        fetch.restype = new.restype = ctypes.c_void_p
        context = ctypes.c_void_p(new())
        init = self.crypto.EVP_EncryptInit_ex2 if sealing else self.crypto.EVP_DecryptInit_ex2
        if init(context, ctypes.c_void_p(fetch(None, cipher, None)), key, None, None) != 1:
            raise OSError(f"libcrypto refused {cipher.decode()}")
        return context


def cpu_ns(work: Callable[[int], None]) -> float:
    """CPU nanoseconds per record of `work(times)`, which handles RUN records each time."""
    times = 1
    while True:
        start = time.process_time()
        work(times)
        spent = time.process_time() - start
        if spent >= ROUND_SECONDS:
            return spent / times / RUN * 1e9
        times = max(times * 2, int(times * ROUND_SECONDS * 1.2 / spent) if spent > 0.001 else 0)


def in_turns(rounds: int, works: Sequence[Callable[[int], None]]) -> list[float]:
    """The median for each of `works`, measured in turns; the first turn warms up."""
    samples: list[list[float]] = [[] for _ in works]
    for number in range(rounds + 1):
        for sample, work in zip(samples, works, strict=True):
            value = cpu_ns(work)
            if number:
                sample.append(value)
    return [statistics.median(sample) for sample in samples]


def measure(bare: BareLoop, spec: SuiteSpec, n: int, rounds: int) -> list[Result]:
    """Seal and open records of `n` bytes."""
    keys = traffic_keys(PROVIDER, spec, b"k" * spec.hash_bytes, DTLS13_PREFIX)
    messages = [os.urandom(n) for _ in range(RUN)]
    aead, ecb = CIPHERS[spec.name]
    sealing, opening = (bare.context(aead, keys.key, way) for way in (True, False))
    mask = bare.context(ecb, keys.sn_key, True)
    text = b"".join(message + b"\x17" for message in messages)
    wire = ctypes.create_string_buffer(RUN * (5 + n + 17))
    back = ctypes.create_string_buffer(RUN * (n + 1))
    sealer = protect.Sealer(PROVIDER, spec, keys, 3)

    def bare_seal(times: int) -> None:
        for _ in range(times):
            if not bare.loop.seal_loop(bare.table, sealing, mask, text, n + 1, RUN, wire):
                raise OSError("the bare loop failed to seal")

    def bare_open(times: int) -> None:
        for _ in range(times):
            if not bare.loop.open_loop(bare.table, opening, mask, wire, n + 1, RUN, back):
                raise OSError("the bare loop failed to open")

    def run_seal(times: int) -> None:
        for _ in range(times):
            sealer.seal_run(23, messages)

    def single_seal(times: int) -> None:
        for _ in range(times):
            for message in messages:
                sealer.seal(23, message)

    fresh = protect.Sealer(PROVIDER, spec, keys, 3)
    # As much as stays in cache, because a receiver's buffers do.
    runs = [fresh.seal_run(23, messages) for _ in range(8)]

    def per_record(work: Callable[[protect.Opener], int]) -> float:
        """As cpu_ns, with a new opener for each pass over `runs`: a replay costs less than a record."""
        spent = 0.0
        opened = 0
        while spent < ROUND_SECONDS:
            opener = protect.Opener(PROVIDER, spec, keys, 3)
            start = time.process_time()
            entries = work(opener)
            spent += time.process_time() - start
            if entries != len(runs) * RUN or opener.opened != entries:
                raise OSError("records did not open")
            opened += entries
        return spent / opened * 1e9

    def run_open(opener: protect.Opener) -> int:
        return sum(len(opener.open_run(run, 0, 0)[0]) for run in runs)

    def single_open(opener: protect.Opener) -> int:
        return sum(len(opener.open_run((record,), 0, 0)[0]) for run in runs for record in run)

    entries = protect.Opener(PROVIDER, spec, keys, 3).open_run(runs[0], 0, 0)[0]
    if [content for _, _, content in entries] != messages:
        raise OSError("what was opened is not what was sealed")
    ours, theirs, single = in_turns(rounds, [run_seal, bare_seal, single_seal])
    results = [Result(spec.name, "seal", n, ours, theirs, ours / theirs, single)]
    samples: list[tuple[float, float, float]] = []
    for number in range(rounds + 1):
        turn = per_record(run_open), cpu_ns(bare_open), per_record(single_open)
        if number:
            samples.append(turn)
    if back.raw != text:
        raise OSError("the bare loop did not open what it sealed")
    ours, theirs, single = (statistics.median(column) for column in zip(*samples, strict=True))
    results.append(Result(spec.name, "open", n, ours, theirs, ours / theirs, single))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description="DTLS 1.3 records beside a bare loop of libcrypto calls")
    parser.add_argument("--json", action="store_true", help="one object per line")
    parser.add_argument("--suite", choices=CIPHERS, action="append", help="default: both AES suites")
    parser.add_argument("--rounds", type=int, default=15, help="turns per measurement (default 15)")
    arguments = parser.parse_args()
    if not protect.COMPILED:
        print(f"record_vs_evp: nothing to compare, the record layer is {protect.describe()}", file=sys.stderr)
        return 3
    suites = parse_suites(arguments.suite or list(CIPHERS))
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as directory:
        try:
            bare = BareLoop(directory)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"record_vs_evp: the bare loop is not present: {error}", file=sys.stderr)
            return 3
        for suite in suites:
            for n in SIZES:
                results += measure(bare, SUITES[suite], n, arguments.rounds)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    if arguments.json:
        for result in results:
            facts = {"benchmark": "record_vs_evp", "machine": machine, "library": protect.describe()}
            print(json.dumps({**facts, "run": RUN, "rounds": arguments.rounds, **asdict(result)}))
        return 0
    print(f"{machine}; {protect.describe()}")
    print(f"CPU ns per record, runs of {RUN}, median of {arguments.rounds} turns\n")
    print(f"{'suite':24}{'':6}{'bytes':>6}{'sealwire':>10}{'bare loop':>11}{'ratio':>7}{'one by one':>12}")
    for r in results:
        print(
            f"{r.suite:24}{r.operation:6}{r.content_bytes:6}{r.sealwire_ns:10.0f}{r.bare_ns:11.0f}"
            f"{r.ratio:7.2f}{r.one_by_one_ns:12.0f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
