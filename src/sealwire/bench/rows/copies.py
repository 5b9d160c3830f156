"""`bench copies`: how often a byte of bulk is copied between the application and the kernel, counted.

Sender and receiver of `bench bulk` with memcpy and memmove replaced by ones that count
(benchmarks/copies.c, preloaded).  The figure is bytes copied for each byte of messages, whatever copies
them: the interpreter, the record layer, libcrypto where it copies instead of ciphering.  The kernel's own
copy, one on each side, is not in it, nor what a cipher writes.
"""

from __future__ import annotations

import atexit
import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Final

from sealwire.bench.measurement import (
    Absent,
    Bench,
    Body,
    Contender,
    Figure,
    Kind,
    Measurement,
    Peer,
    Present,
    Reading,
    Role,
)
from sealwire.bench.rows import bulk

_SOURCE: Final = Path(__file__).resolve().parents[4] / "benchmarks" / "copies.c"
# Far below what the receiver takes: what is lost is copied by one side only.
_RATE: Final = 3_000.0
_LEAST_SECONDS: Final = 0.3


@cache
def _counter() -> str:
    """The library to preload, built once for a process and gone with it."""
    place = tempfile.mkdtemp(prefix="sealwire-bench-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    built = f"{place}/copies.so"
    compiler = _compiler()
    assert compiler is not None
    command = [compiler, "-O2", "-fPIC", "-shared", "-fno-builtin", "-o", built, str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own source
    return built


def _compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def presence() -> Present | Absent:
    """Whether copies can be counted here."""
    if _compiler() is None:
        return Absent("needs a C compiler")
    if not _SOURCE.exists():
        return Absent("needs benchmarks/copies.c of the source tree")
    return Present("memcpy and memmove of 32 bytes and more, counted")


def _environment() -> Mapping[str, str]:
    return {"LD_PRELOAD": _counter()}


def _copied() -> float:
    count = ctypes.CDLL(None).sealwire_copied
    count.restype = ctypes.c_ulong
    return float(count())


class Receiver(bulk.Receiver):
    """The Peer: says what it copied as well."""

    def answer(self, question: str) -> Mapping[str, float]:
        said = super().answer(question)
        return {**said, "copied": _copied()}


class Sender(bulk.Sender):
    """A Body: sends at a rate nobody has trouble with."""

    def __init__(self, bench: Bench, size: int) -> None:
        super().__init__(bench, batched=True, size=size)
        self._size = size

    def run(self, seconds: float) -> Reading:
        watch = self._bench.stopwatch
        before, mine = self._bench.ask_peer("count"), _copied()
        watch.start()
        sent = self.send(_RATE, max(seconds, _LEAST_SECONDS))
        wall = watch.stop()
        mine = _copied() - mine
        after = self._bench.ask_peer("settled")
        if after["count"] - before["count"] != sent:
            raise OSError(f"{sent} messages were sent, and {after['count'] - before['count']:.0f} came")
        sender = mine / (sent * self._size)
        receiver = (after["copied"] - before["copied"]) / (sent * self._size)
        return Reading(
            values={"": sender + receiver, "sender": sender, "receiver": receiver},
            units=sent,
            wall_seconds=wall,
            cpu_seconds=watch.cpu_seconds,
        )


def _row(size: int) -> Measurement:
    open_: Callable[[Bench], Body] = partial(Sender, size=size)
    peer: Callable[[Bench], Peer] = partial(Receiver, batched=True)
    return Measurement(
        f"copies.{size}",
        f"copies in bulk of messages of {size:,} B, bytes for each byte of a message",
        (
            Figure("", "B/B", Kind.TIME, "both sides"),
            Figure("sender", "B/B", Kind.TIME, "sender"),
            Figure("receiver", "B/B", Kind.TIME, "receiver"),
        ),
        (Contender("sealwire", Role.OURS, open_, peer=peer, presence=presence, environment=_environment),),
    )


ROWS: Final = (_row(1200), _row(64))
