"""`bench seal.store`: what the receiving end costs an event: verified, decoded, durable, and rows of Parquet.

A pass is one segment as it comes from a probe, a zstd frame.  `seal.store` ends where it may be
acknowledged: signature, root, leaves and place judged, written, fsync done.  `seal.rows` makes its rows, as
compaction does later.  `seal.stored` is both: all that an event costs until it can be asked for.
"""

from __future__ import annotations

import importlib
import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sealwire.bench.loops import Loop
from sealwire.bench.measurement import (
    Absent,
    Bench,
    Body,
    Contender,
    Figure,
    Kind,
    Measurement,
    Present,
    Promise,
    Role,
)
from sealwire.bench.rows.seal import EVENTS, rows

#: Segments that a store takes before the next one is begun.
_SEGMENTS: Final = 24
_STORED: Final = Promise(3.0, "at most 3 us an event to verify, decode and store")


class Receiving:
    """A Task: each pass takes the next segment of a chain, into a store of its own."""

    units = EVENTS

    def __init__(self, algorithm: str, append: bool, made: bool) -> None:
        self._append, self._made = append, made
        self._place = Path(tempfile.mkdtemp(prefix="sealwire-bench-"))
        self._chain, self._key = _chain(algorithm)
        self._stores = itertools.count()
        self._passes = 0
        self._store: Any = None
        self._tables: Any = None
        self._events = 0

    def prepare(self, passes: int) -> None:
        """Nothing is made before."""

    def work(self, passes: int) -> None:
        from sealwire.probe.store import Store, reading, rows
        from sealwire.probe.store.compaction import Tables

        for _ in range(passes):
            number = self._passes % _SEGMENTS
            if number == 0:
                self._end()
                place = self._place / str(next(self._stores))
                self._store = Store(place, {self._key.id: self._key}.get)
                self._tables = Tables(place, "rows")
            frame, segment = self._chain[number]
            if self._append:
                answer = self._store.append(self._key.id, frame, 1)
                self._events += EVENTS * answer.new
            if self._made:
                found = reading.Arrived(segment, 1, 0, len(frame))
                for table, batch in rows.of_segment(found, 0, "file").items():
                    self._tables.add(table, batch)
            self._passes += 1

    def _end(self) -> None:
        if self._store is None:
            return
        self._store.close()
        self._tables.close()
        shutil.rmtree(self._place)
        self._place.mkdir()

    def verify(self) -> None:
        """Every segment was new, and made all its rows."""
        if self._append and self._events != self._passes * EVENTS:
            raise ValueError("a segment was not stored")
        latest = (self._passes - 1) % _SEGMENTS + 1
        if self._made and self._tables.rows.get("flows") != latest * EVENTS:
            raise ValueError("rows are missing")


def _chain(algorithm: str) -> tuple[list[tuple[bytes, Any]], Any]:
    """Segments that follow each other, each with its frame; and the key they are signed with."""
    import os

    from sealwire.probe.features import row_struct
    from sealwire.probe.seal import engine, frames
    from sealwire.probe.seal.keys import generate, load_signing_key
    from sealwire.probe.seal.segment import Header, Moment, seal

    with tempfile.NamedTemporaryFile() as file:
        file.write(generate(algorithm)[0])
        file.flush()
        os.chmod(file.name, 0o600)
        key = load_signing_key(file.name)
    data, stride, previous = rows(EVENTS), row_struct().size, None
    chain: list[tuple[bytes, Any]] = []
    for number in range(_SEGMENTS):
        first = number * EVENTS
        framed, n, _, times = engine.encode(data, stride, 0, b"", 0, first, EVENTS, 1 << 30)
        header = Header(
            *(key.public.algorithm, key.id, key.id, bytes(16), number, first, first + n - 1, previous),
            times=times,
            sealed=Moment(1, 2),
            heartbeat=60,
        )
        segment = seal(header, framed, n, key)
        previous = segment.hash
        chain.append((frames.pack(segment), segment))
    return chain, key.public


def _presence(rows_too: bool) -> Callable[[], Present | Absent]:
    def found() -> Present | Absent:
        try:
            from sealwire.probe.seal import engine

            if rows_too:
                importlib.import_module("pyarrow")
        except (ImportError, OSError, ValueError) as error:
            return Absent(str(error))
        return Present("compiled" if engine.COMPILED else "plain Python")

    return found


def _body(algorithm: str, append: bool, made: bool) -> Callable[[Bench], Body]:
    return lambda bench: Loop(bench, Receiving(algorithm, append, made))


def _row(
    name: str, title: str, algorithm: str, append: bool, made: bool, promised: Promise | None
) -> Measurement:
    ours = Contender("sealwire", Role.OURS, _body(algorithm, append, made), presence=_presence(made))
    figure = Figure("", "us/event", Kind.TIME, "CPU for an event", promised)
    return Measurement(name, title, (figure,), (ours,))


ROWS = (
    _row("seal.store.ed25519", "verified, decoded and durable (Ed25519)", "ed25519", True, False, _STORED),
    _row("seal.store.rsa-4096", "verified, decoded and durable (RSA-4096)", "rsa-4096", True, False, _STORED),
    _row("seal.rows", "rows of Parquet made of segments", "ed25519", False, True, None),
    _row("seal.stored.ed25519", "both, Ed25519: until it can be asked for", "ed25519", True, True, None),
    _row("seal.stored.rsa-4096", "both, RSA-4096: until it can be asked for", "rsa-4096", True, True, None),
)
