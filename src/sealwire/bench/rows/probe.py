"""`bench probe`: flows from capture files, beside softflowd and NFStream, in CPU of the whole process tree.

The files are made before, by `sealwire bench probe --make DIR`, and found by SEALWIRE_PROBE_FILES=DIR;
without that there are no such rows.  Every turn is a process of its own from start to end, read
from the page cache, so the interpreter's start is in our figure and in NFStream's.  NFStream is
looked for in SEALWIRE_NFSTREAM_PYTHON, an interpreter that has it, or in ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from sealwire.bench.measurement import (
    Absent,
    Bench,
    Body,
    Contender,
    Figure,
    Kind,
    Measurement,
    Present,
    Reading,
    Role,
)

_OURS: Final = """
import json, sys
from sealwire.probe import COMPILED, read
reading = read(sys.argv[1])
flows = sum(map(len, reading.batches()))
print(json.dumps({"packets": reading.counters.packets, "flows": flows, "compiled": COMPILED}))
"""
_DISSECTED: Final = """
import json, sys
from sealwire.probe import COMPILED, read
reading = read(sys.argv[1], dissect=True)
flows = sum(map(len, reading.batches()))
print(json.dumps({"packets": reading.counters.packets, "flows": flows, "compiled": COMPILED}))
"""
# The table is at its cap, so that eviction is in the figure; flows leave as Arrow columns.
_ARROW: Final = """
import json, sys
from sealwire.probe import COMPILED, read
reading = read(sys.argv[1], dissect=True, max_flows=30_000)
flows = 0
for batch in reading.batches():
    if len(batch):
        batch.__arrow_c_array__()
        flows += len(batch)
print(json.dumps({"packets": reading.counters.packets, "flows": flows, "compiled": COMPILED}))
"""
# Thirty seconds of the profile from a pipe: the table reaches its cap, and flows expire and are evicted.
_THIRTY: Final = """
import json, sys
from sealwire.probe import COMPILED, read
reading = read("-", dissect=True, max_dissection_bytes=1 << 30)
flows = 0
for batch in reading.batches():
    if len(batch):
        batch.__arrow_c_array__()
        flows += len(batch)
counters = reading.counters
print(json.dumps({
    "packets": counters.packets, "flows": flows, "compiled": COMPILED, "peak": counters.peak,
    "evicted": counters.ends.get(6, 0), "undissected": counters.undissected, "shown": reading.shown,
    "python": reading.spent_in_python,
}))
"""
_ROUNDS, _PERIOD = 60, 0.5
#: Thirty seconds of packets take minutes of a busy machine, and so does NFStream.
_PATIENCE_SECONDS = 900.0
_ITERATOR: Final = """
import json, sys
from sealwire.probe import read
reading = read(sys.argv[1])
total = flows = 0
for flow in reading:
    flows += 1
    total += flow.forward_packets + flow.backward_packets
assert total == reading.counters.flow_packets
print(json.dumps({"packets": reading.counters.packets, "flows": flows}))
"""
_EVE: Final = """
import io, json, sys
from sealwire.probe import read
from sealwire.probe.write import EveSink
reading = read(sys.argv[1])
flows = 0
with open("/dev/null", "wb") as out:
    sink = EveSink(out)
    for batch in reading.batches():
        sink.write(batch)
        flows += len(batch)
print(json.dumps({"packets": reading.counters.packets, "flows": flows}))
"""
_NFSTREAM: Final = """
import json, sys
from nfstream import NFStreamer
if __name__ == "__main__":
    flows = packets = 0
    options = {"n_dissections": DISSECTIONS, "statistical_analysis": True, "n_meters": 1}
    for flow in NFStreamer(source=sys.argv[1], **options):
        flows += 1
        packets += flow.bidirectional_packets
    print(json.dumps({"packets": packets, "flows": flows}))
"""


def directory() -> Path | None:
    """Where the files are, if they were made."""
    name = os.environ.get("SEALWIRE_PROBE_FILES")
    return Path(name) if name else None


class Run:
    """A Body whose turn is one run of a program over one file."""

    def __init__(self, file: str, command: Callable[[Path], Sequence[str]], per_flow: bool) -> None:
        self._file = _path(file)
        self._command = command
        self._per_flow = per_flow
        self._counts = counts(self._file)
        self._said: dict[str, Any] = {}

    def run(self, seconds: float) -> Reading:
        started = time.perf_counter()
        with tempfile.TemporaryFile() as out:
            process = subprocess.Popen(self._command(self._file), stdout=out, stderr=subprocess.DEVNULL)  # noqa: S603
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            text = out.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        wall = time.perf_counter() - started
        if process.returncode:
            raise ValueError(f"the program ended with {process.returncode}")
        self._said = json.loads(text) if text.startswith("{") else {}
        units = self._counts["flows" if self._per_flow else "packets"]
        cpu = used.ru_utime + used.ru_stime
        values = {"": 1e6 * cpu / units, "memory": used.ru_maxrss / 1024}
        return Reading(
            *(values, units, wall, cpu), user_seconds=used.ru_utime, system_seconds=used.ru_stime, rss_bytes=0
        )

    def verify(self) -> None:
        if self._said and self._said["packets"] < self._counts["packets"] * 0.99:
            raise ValueError(f"{self._said['packets']} packets, but the file has {self._counts['packets']}")

    def close(self) -> None:
        pass


class Fed(Run):
    """A Run that is fed _ROUNDS rounds of a file through a pipe; CPU is that of the program alone."""

    def run(self, seconds: float) -> Reading:
        feed = [
            sys.executable,
            "-m",
            "sealwire.bench.probe_feed",
            str(self._file),
            str(_ROUNDS),
            str(_PERIOD),
        ]
        started = time.perf_counter()
        with tempfile.TemporaryFile() as out, subprocess.Popen(feed, stdout=subprocess.PIPE) as feeder:  # noqa: S603
            command = self._command(self._file)
            process = subprocess.Popen(command, stdin=feeder.stdout, stdout=out, stderr=subprocess.DEVNULL)  # noqa: S603
            assert feeder.stdout is not None
            feeder.stdout.close()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            text = out.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        wall = time.perf_counter() - started
        if process.returncode:
            raise ValueError(f"the program ended with {process.returncode}")
        self._said = json.loads(text) if text.startswith("{") else {}
        cpu = used.ru_utime + used.ru_stime
        units = _ROUNDS * self._counts["packets"]
        values = {
            **{"": 1e6 * cpu / units, "cores": cpu / (_ROUNDS * _PERIOD)},
            "python": 100 * self._said.get("python", 0.0) / cpu,
            "memory": used.ru_maxrss / 1024,
        }
        return Reading(
            *(values, units, wall, cpu), user_seconds=used.ru_utime, system_seconds=used.ru_stime, rss_bytes=0
        )

    def verify(self) -> None:
        if self._said and self._said["packets"] != _ROUNDS * self._counts["packets"]:
            raise ValueError(f"{self._said['packets']} packets of {_ROUNDS * self._counts['packets']}")
        if self._said and (not self._said["evicted"] or self._said["undissected"]):
            raise ValueError(f"the table was not at its cap, or flows were not dissected: {self._said}")


def counts(file: Path) -> dict[str, int]:
    """Packets and flows of a file.  Counted, and brought into the page cache, by a process of its own:
    a large parent would be in the memory figure of each child it starts."""
    done = subprocess.run([sys.executable, "-c", _OURS, str(file)], capture_output=True, check=True)  # noqa: S603
    found = json.loads(done.stdout)
    return {"packets": int(found["packets"]), "flows": int(found["flows"])}


def _path(file: str) -> Path:
    made = directory()
    assert made is not None
    return made / f"{file}.pcap"


def _presence(file: str, program: Callable[[], Present | Absent]) -> Callable[[], Present | Absent]:
    def presence() -> Present | Absent:
        if not _path(file).exists():
            return Absent(f"no {file}.pcap: sealwire bench probe --make $SEALWIRE_PROBE_FILES")
        return program()

    return presence


def _here() -> Present | Absent:
    from sealwire.probe import describe

    return Present(describe())


def _softflowd() -> Present | Absent:
    found = shutil.which("softflowd") or shutil.which("softflowd", path="/usr/sbin:/sbin")
    return (
        Present("softflowd, IPFIX")
        if found
        else Absent("softflowd is not installed: apt-get install softflowd")
    )


def _nfstream_python() -> str:
    return os.environ.get("SEALWIRE_NFSTREAM_PYTHON") or sys.executable


def _nfstream() -> Present | Absent:
    command = [_nfstream_python(), "-c", "import nfstream; print(nfstream.__version__)"]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=30)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return Absent("NFStream is not installed: pip install nfstream, SEALWIRE_NFSTREAM_PYTHON=its python")
    return Present(f"NFStream {done.stdout.decode().strip()}, statistics on")


def _script(text: str, python: Callable[[], str]) -> Callable[[Path], Sequence[str]]:
    def command(file: Path) -> Sequence[str]:
        if python is _nfstream_python:  # it starts processes, which need a file to start from
            name = hashlib.sha256(text.encode()).hexdigest()[:8]
            script = Path(tempfile.gettempdir()) / f"sealwire-bench-nfstream-{os.getuid()}-{name}.py"
            script.write_text(text, "utf-8")
            return [python(), str(script), str(file)]
        return [python(), "-c", text, str(file)]

    return command


def _ours_python() -> str:
    return sys.executable


def _softflowd_command(file: Path) -> Sequence[str]:
    found = shutil.which("softflowd") or "/usr/sbin/softflowd"
    # The discard port of this machine: nobody listens, as nobody takes ours.
    return [found, "-d", "-r", str(file), "-m", "4000000", "-n", "127.0.0.1:9", "-v", "10"]


def _softflowd_thirty(file: Path) -> Sequence[str]:
    found = shutil.which("softflowd") or "/usr/sbin/softflowd"
    # The same cap as ours.
    return [found, "-d", "-r", "-", "-m", "1000000", "-n", "127.0.0.1:9", "-v", "10"]


def _contenders(file: str, per_flow: bool, ours: str, *rivals: str) -> tuple[Contender, ...]:
    def opening(command: Callable[[Path], Sequence[str]]) -> Callable[[Bench], Body]:
        return lambda bench: Run(file, command, per_flow)

    kinds = {
        "softflowd": (_softflowd_command, _softflowd),
        "NFStream": (_script(_NFSTREAM.replace("DISSECTIONS", "0"), _nfstream_python), _nfstream),
        "NFStream 20": (_script(_NFSTREAM.replace("DISSECTIONS", "20"), _nfstream_python), _nfstream),
    }
    script = _script(ours, _ours_python)
    return (
        Contender("sealwire", Role.OURS, opening(script), presence=_presence(file, _here)),
        *(
            Contender(
                *(name, Role.RIVAL, opening(kinds[name][0])),
                presence=_presence(file, kinds[name][1]),
                patience_seconds=_PATIENCE_SECONDS,
            )
            for name in rivals
        ),
    )


def _fed(command: Callable[[Path], Sequence[str]]) -> Callable[[Bench], Body]:
    return lambda bench: Fed("10g", command, False)


def _figures(unit: str) -> tuple[Figure, ...]:
    return (
        Figure("", f"us/{unit}", Kind.TIME, f"CPU of the process tree for a {unit}"),
        Figure("memory", "MiB", Kind.MEMORY, "largest resident set, mapped file included"),
    )


def rows() -> tuple[Measurement, ...]:
    """The rows, where their files are."""
    if directory() is None:
        return ()
    both, dissecting = ("softflowd", "NFStream"), ("softflowd", "NFStream 20")
    packet, flow = _figures("packet"), _figures("flow")
    cores = Figure(
        "cores", "cores", Kind.TIME, "CPU for each second of the profile, 10 Gbit/s and 100,000 new flows/s"
    )
    share = Figure("python", "%", Kind.TIME, "of its CPU in dissectors in Python")
    thirty = (*packet, cores, share)
    return (
        Measurement("probe.mix", "flows of real protocols", packet, _contenders("mix", False, _OURS, *both)),
        Measurement("probe.10g", "flows of the 10G profile", packet, _contenders("10g", False, _OURS, *both)),
        Measurement(
            *("probe.mix.dissected", "flows of real protocols and what they are", packet),
            _contenders("mix", False, _DISSECTED, *dissecting),
        ),
        Measurement(
            *("probe.10g.dissected", "the 10G profile, dissected, as Arrow, the table at its cap", packet),
            _contenders("10g", False, _ARROW, *dissecting),
        ),
        Measurement(
            *("probe.10g.thirty", "30 seconds of the 10G profile from a pipe, dissected, as Arrow", thirty),
            (
                Contender(
                    "sealwire",
                    Role.OURS,
                    _fed(_script(_THIRTY, _ours_python)),
                    presence=_presence("10g", _here),
                    patience_seconds=_PATIENCE_SECONDS,
                ),
                Contender(
                    *("softflowd", Role.RIVAL, _fed(_softflowd_thirty)),
                    presence=_presence("10g", _softflowd),
                    patience_seconds=_PATIENCE_SECONDS,
                ),
            ),
        ),
        # NFStream takes minutes for a million flows.
        Measurement(
            *("probe.million", "a million flows of one packet", flow),
            _contenders("million", True, _OURS, "softflowd"),
        ),
        Measurement(
            *("probe.chosen", "a million flows whose keys an attacker chose", flow),
            _contenders("million-chosen", True, _OURS, "softflowd"),
        ),
        Measurement(
            *("probe.iterator", "a Python object for each flow", flow),
            _contenders("million", True, _ITERATOR),
        ),
        Measurement("probe.eve", "a JSON line for each flow", flow, _contenders("10g", True, _EVE)),
    )
