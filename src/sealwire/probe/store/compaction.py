"""Rows as Parquet: made of files of segments that are complete, beside whoever goes on storing.

A *unit* is the tables of some files that follow each other.  It is written under other names, made
durable, given its names, and counts once the manifest says so: whoever is killed before leaves leftovers,
which the next compaction removes, and whoever is killed behind it has nothing left to do.  So no row is
there twice.  Small units that lie side by side are made one.

What is held is a row group of each table.  The last file of a probe is left to who stores, unless `last`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sealwire.probe import spool
from sealwire.probe.batch import pyarrow
from sealwire.probe.disk import UNFINISHED, sync_folder
from sealwire.probe.store import reading, rows
from sealwire.probe.store.disk import Disk
from sealwire.probe.store.manifest import File, Manifest, Unit

SUFFIX: Final = ".parquet"
#: Rows of a table that are held before they are written as one row group.
GROUP_ROWS: Final = 32_768
#: Units below this size are joined with their neighbours, so many at a time.
SMALL_BYTES: Final = 32 << 20
JOIN: Final = 8
#: Columns of few values: a dictionary makes them small, and every other column larger.
_FEW: Final = {
    *("probe", "end_reason", "conn_state", "history", "application", "certainty", "version", "protocol"),
    *("event", "reason", "boot", "key", "file", "clock"),
}
#: Columns whose least and greatest values are kept for each row group, to pass over it.
_BOUNDED: Final = {"row", "sequence", "segment", "ended", "time", "sealed", "received", "not_after"}


@dataclass(slots=True)
class Summary:
    """What a compaction did."""

    files: int = 0
    segments: int = 0
    rows: int = 0
    joined: int = 0
    leftovers: int = 0
    #: Bytes that are no segment, and segments whose events cannot be read.
    damaged_bytes: int = 0
    unreadable: int = 0


class Tables:
    """The tables of a unit while they are written, each under another name."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._parquet = importlib.import_module("pyarrow.parquet")
        self._folder = folder
        self._stem = stem
        self._writers: dict[str, Any] = {}
        self._held: dict[str, list[Any]] = {}
        self.rows: dict[str, int] = {}

    def add(self, table: str, batch: Any) -> None:
        """Take rows of a table."""
        held = self._held.setdefault(table, [])
        held.append(batch)
        self.rows[table] = self.rows.get(table, 0) + batch.num_rows
        if sum(one.num_rows for one in held) >= GROUP_ROWS:
            self._write(table)

    def _write(self, table: str) -> None:
        held = self._held.pop(table)
        whole = pyarrow().Table.from_batches(held)
        if table not in self._writers:
            names = whole.schema.names
            self._writers[table] = self._parquet.ParquetWriter(
                self._path(table, UNFINISHED),
                whole.schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=[name for name in names if name in _FEW],
                write_statistics=[name for name in names if name in _BOUNDED],
            )
        self._writers[table].write_table(whole, row_group_size=len(whole))

    def _path(self, table: str, more: str = "") -> Path:
        return self._folder / f"{self._stem}.{table}{SUFFIX}{more}"

    def close(self) -> None:
        """Write what is held."""
        for table in list(self._held):
            self._write(table)
        for writer in self._writers.values():
            writer.close()

    def finish(self) -> dict[str, str]:
        """Make the tables durable under their names; the name of each."""
        self.close()
        for table in self._writers:
            with self._path(table, UNFINISHED).open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self._path(table, UNFINISHED), self._path(table))
        sync_folder(self._folder)
        return {table: self._path(table).name for table in self._writers}

    def abandon(self) -> None:
        """Leave nothing behind: what there was no room for makes room again."""
        self._held.clear()
        for table, writer in self._writers.items():
            with contextlib.suppress(OSError):
                writer.close()
            with contextlib.suppress(OSError):
                self._path(table, UNFINISHED).unlink()

    def paths(self) -> dict[str, Path]:
        """Where the tables are that were not given their names."""
        return {table: self._path(table, UNFINISHED) for table in self._writers}


@dataclass(slots=True)
class _Range:
    """What the segments of a file have been."""

    first: tuple[int, int] = (-1, -1)
    last: tuple[int, int] = (-1, -1)
    received: int = 0
    segments: int = 0

    def note(self, found: reading.Arrived) -> None:
        header = found.segment.header
        if not self.segments:
            self.first = header.segment, header.first_event
        self.last = header.segment, header.last_event
        self.received = max(self.received, found.received or header.sealed.wall)
        self.segments += 1


def nothing(step: str) -> None:
    """Called at each step; tests raise here."""


@dataclass(slots=True)
class Compaction:
    """One pass over a store.  `step` is called with a name before each thing that counts."""

    disk: Disk
    step: Callable[[str], None] = nothing
    #: The last file of each probe, too: for a store that nobody writes to.
    last: bool = False
    file_bytes_joined: int = SMALL_BYTES
    summary: Summary = field(default_factory=Summary)

    def run(self) -> Summary:
        """Compact what is complete.  Raises OSError, ConfigurationError, and whatever `step` raises."""
        for place, probe in enumerate(reading.probes(self.disk)):
            self._sweep(probe)
            for name, below in complete(self.disk, probe, self.last):
                self._compact(place, probe, name, below)
            self._join(probe)
        return self.summary

    def _sweep(self, probe: str) -> None:
        """Remove what nothing names: work that was cut off, and what was removed but is still there."""
        manifest = Manifest.read(self.disk, probe)
        named = {table for unit in manifest.units for table in unit.tables.values()}
        for name in self.disk.within(probe):
            gone = name.endswith(spool.SUFFIX) and 0 <= reading.first_of(name) <= manifest.removed
            if name.endswith(UNFINISHED) or (name.endswith(SUFFIX) and name not in named) or gone:
                self.step("sweep")
                self.disk.remove(f"{probe}/{name}")
                self.summary.leftovers += 1

    def _compact(self, place: int, probe: str, name: str, below: int | None) -> None:
        """Make the unit of one file."""
        self.step("begin")
        seen = _Range()
        tables = Tables(self.disk.path(probe), name.removesuffix(spool.SUFFIX))
        try:
            self._rows(place, probe, name, below, seen, tables)
            self.step("write")
            named = tables.finish()
        except OSError:
            tables.abandon()
            raise
        self.step("named")
        manifest = Manifest.read(self.disk, probe)
        size = self.disk.size(f"{probe}/{name}")
        if seen.segments:
            manifest.files.append(File(name, seen.first[0], seen.last[0], seen.first[1], seen.last[1], size))
            manifest.units.append(
                self._unit(probe, seen.first[0], seen.last[0], seen.received, named, tables.rows)
            )
        else:
            # Damaged from end to end: it stays as evidence, and is not looked at again.
            number = reading.first_of(name)
            manifest.files.append(File(name, number, number - 1, 0, -1, size))
        self.step("manifest")
        manifest.write(self.disk, probe)
        self.step("done")
        self.summary.files += 1
        self.summary.segments += seen.segments
        self.summary.rows += sum(n for table, n in tables.rows.items() if table != "segments")

    def _rows(
        self, place: int, probe: str, name: str, below: int | None, seen: _Range, tables: Tables
    ) -> None:
        """The rows of one file into tables."""
        for found in reading.segments(self.disk, probe, name, below):
            if isinstance(found, reading.Damage):
                self.summary.damaged_bytes += found.end - found.begin
                continue
            self.step("segment")
            seen.note(found)
            for table, batch in rows.of_segment(found, place, name).items():
                if table == "segments" and batch["unreadable"][0].as_py():
                    self.summary.unreadable += 1
                tables.add(table, batch)

    def _unit(
        self, probe: str, first: int, last: int, received: int, named: dict[str, str], count: dict[str, int]
    ) -> Unit:
        size = sum(self.disk.size(f"{probe}/{file}") for file in named.values())
        return Unit(first, last, received, named, dict(count), size)

    def _join(self, probe: str) -> None:
        """Make one of small units that lie side by side, until there are few."""
        while run := self._small(Manifest.read(self.disk, probe).units):
            self.step("join")
            stem = f"{run[0].first_segment:016d}-{run[-1].last_segment:016d}"
            tables = Tables(self.disk.path(probe), stem)
            for unit in run:
                for table, file in unit.tables.items():
                    for batch in _batches(self.disk.path(f"{probe}/{file}"), rows.schemas()[table]):
                        tables.add(table, batch)
            named = tables.finish()
            self.step("joined")
            manifest = Manifest.read(self.disk, probe)
            at = manifest.units.index(run[0])
            received = max(unit.received for unit in run)
            manifest.units[at : at + len(run)] = [
                self._unit(probe, run[0].first_segment, run[-1].last_segment, received, named, tables.rows)
            ]
            manifest.write(self.disk, probe)
            self.step("swept")
            kept = set(named.values())
            for old in (file for unit in run for file in unit.tables.values() if file not in kept):
                self.disk.remove(f"{probe}/{old}")
            self.summary.joined += len(run)

    def _small(self, units: list[Unit]) -> list[Unit]:
        """Small units side by side, of about one size, so that rows move seldom."""
        for at in range(len(units) - JOIN + 1):
            run = units[at : at + JOIN]
            if all(unit.bytes < self.file_bytes_joined for unit in run) and (
                max(unit.bytes for unit in run) <= 2 * sum(unit.bytes for unit in run) // JOIN + (1 << 16)
            ):
                return run
        return []


def complete(disk: Disk, probe: str, last: bool) -> Iterator[tuple[str, int | None]]:
    """Files that have no tables yet and get no more segments, with where the next one begins."""
    manifest = Manifest.read(disk, probe)
    done = {file.name for file in manifest.files}
    names = [name for name in reading.files(disk, probe) if reading.first_of(name) > manifest.removed]
    for index, name in enumerate(names):
        below = reading.following(names, index)
        if name not in done and (below is not None or last):
            yield name, below


def _batches(path: Path, schema: Any) -> Iterable[Any]:
    parquet = importlib.import_module("pyarrow.parquet")
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=GROUP_ROWS):
            yield batch.cast(schema)


def compact(disk: Disk, *, last: bool = False, step: Callable[[str], None] = nothing) -> Summary:
    """Compact a store; its lock is the caller's to hold."""
    return Compaction(disk, step, last).run()
