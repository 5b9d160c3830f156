"""Questions to a store in SQL: DuckDB over its tables, which can read them and nothing else.

DuckDB is given the tables as Arrow data sets that this module opened; then its access to files,
extensions and Python's variables is switched off and the switches are locked.  So whatever the question
says, it cannot write to the store, nor read anything beside it.  Rows that were not compacted yet are
made into tables in a temporary directory first, so an answer is as fresh as what is durable.
"""

from __future__ import annotations

import datetime
import importlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sealwire.errors import ConfigurationError, Error
from sealwire.probe.batch import pyarrow
from sealwire.probe.store import reading, rows
from sealwire.probe.store.compaction import Tables
from sealwire.probe.store.disk import Folders
from sealwire.probe.store.manifest import Manifest
from sealwire.probe.store.views import VIEWS

__all__ = ["Answer", "NoAnswer", "Questions"]

#: How often files may vanish under a reader (compaction joins units, retention removes) before it gives up.
_ATTEMPTS: Final = 5
_BATCH_ROWS: Final = 4096
_MEMORY: Final = "1GB"


class NoAnswer(Error):
    """The question is wrong, or cannot be answered."""


@dataclass(slots=True)
class Answer:
    """Rows of an answer as they come: names of its columns, and batches of pyarrow."""

    columns: list[str]
    batches: Iterator[Any]

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Row by row, as Python values; times are pyarrow's or Python's."""
        for batch in self.batches:
            yield from zip(*(plain(column) for column in batch.columns), strict=True)


def plain(column: Any) -> list[Any]:
    """A column's values; times with all their digits, as text in UTC."""
    pa = pyarrow()
    kind = column.type
    if pa.types.is_timestamp(kind):
        per_second = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[kind.unit]
        return [None if n is None else _time(n, per_second) for n in column.cast(pa.int64()).to_pylist()]
    if pa.types.is_decimal(kind) and kind.scale == 0:
        return [None if value is None else int(value) for value in column.to_pylist()]
    found: list[Any] = column.to_pylist()
    return found


def _time(n: int, per_second: int) -> str:
    seconds, rest = divmod(n, per_second)
    try:
        text = (
            datetime.datetime.fromtimestamp(seconds, datetime.UTC)
            .strftime("%Y-%m-%d %H:%M:%S")
            .rjust(19, "0")
        )
    except (ValueError, OverflowError, OSError):
        return str(n)
    digits = f"{rest:0{len(str(per_second)) - 1}d}".rstrip("0") if per_second > 1 else ""
    return f"{text}.{digits}" if digits else text


@dataclass(slots=True)
class _Files:
    """The files of each table, and what is only in segments yet."""

    tables: dict[str, list[Path]] = field(default_factory=lambda: {name: [] for name in rows.TABLES})
    #: Probe's place, its name, file, where the next one begins.
    fresh: list[tuple[int, str, str, int | None]] = field(default_factory=list)
    fresh_bytes: int = 0


class Questions:
    """A store opened for questions.

    `fresh` includes what is durable and not compacted yet.

    Raises ConfigurationError for a directory that is no store, and where DuckDB or pyarrow is missing.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        fresh: bool = True,
        memory: str = _MEMORY,
        threads: int | None = None,
    ) -> None:
        try:
            self._duckdb = importlib.import_module("duckdb")
        except ImportError:
            raise ConfigurationError("questions need duckdb: pip install 'sealwire[query]'") from None
        pyarrow()
        self._disk = Folders(Path(directory))
        self._fresh = fresh
        self._settings: dict[str, Any] = {"memory_limit": memory}
        if threads is not None:
            self._settings["threads"] = threads
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._connection: Any = None
        #: Bytes of segments that no table has; not in the answers unless `fresh`.
        self.uncompacted_bytes = 0
        #: Segments whose rows cannot be made.
        self.unreadable = 0
        #: The last segment that retention removed, of each probe of which it removed some.
        self.removed: dict[str, int] = {}
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of everything.  May be called twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="sealwire-query-")
        for attempt in range(_ATTEMPTS):
            try:
                files = self._files()
                self._make_fresh(files)
                datasets = {table: self._dataset(table, paths) for table, paths in files.tables.items()}
            except FileNotFoundError:
                # Compaction or retention replaced it since the manifest was read.
                if attempt + 1 == _ATTEMPTS:
                    raise
                continue
            break
        self._connection = self._connect(datasets)

    def _files(self) -> _Files:
        found = _Files()
        for place, probe in enumerate(reading.probes(self._disk)):
            manifest = Manifest.read(self._disk, probe)
            if manifest.removed >= 0:
                self.removed[probe] = manifest.removed
            for unit in manifest.units:
                for table, name in unit.tables.items():
                    if table in found.tables:
                        found.tables[table].append(self._disk.path(f"{probe}/{name}"))
            done = {file.name for file in manifest.files}
            names = reading.files(self._disk, probe)
            for index, name in enumerate(names):
                if name not in done and reading.first_of(name) > manifest.removed:
                    found.fresh.append((place, probe, name, reading.following(names, index)))
                    found.fresh_bytes += self._disk.size(f"{probe}/{name}")
        return found

    def _make_fresh(self, files: _Files) -> None:
        """Tables of what was not compacted, where they go when the questions do."""
        self.uncompacted_bytes = files.fresh_bytes
        self.unreadable = 0
        if not self._fresh or not files.fresh:
            return
        assert self._scratch is not None
        tables = Tables(Path(self._scratch.name), "fresh")
        for place, probe, name, below in files.fresh:
            for found in reading.segments(self._disk, probe, name, below):
                if isinstance(found, reading.Arrived):
                    for table, batch in rows.of_segment(found, place, name).items():
                        if table == "segments" and batch["unreadable"][0].as_py():
                            self.unreadable += 1
                        tables.add(table, batch)
        tables.close()
        for table, path in tables.paths().items():
            files.tables[table].append(path)

    def _dataset(self, table: str, paths: Sequence[Path]) -> Any:
        schema = rows.schemas()[table]
        if not paths:
            return schema.empty_table()
        for path in paths:
            path.stat()
        dataset = importlib.import_module("pyarrow.dataset")
        return dataset.dataset([os.fspath(path) for path in paths], schema=schema, format="parquet")

    def _connect(self, datasets: dict[str, Any]) -> Any:
        connection = self._duckdb.connect(":memory:")
        for table, data in datasets.items():
            connection.register(table, data)
        assert self._scratch is not None
        settings = {**self._settings, "TimeZone": "UTC", "temp_directory": self._scratch.name}
        for name, value in settings.items():
            self._tell(connection, f"set {name} = {_quoted(value)}")
        self._tell(connection, "create macro ago(since) as now()::timestamp - since")
        for name, (_, sql) in VIEWS.items():
            self._tell(connection, f"create view {name} as {sql}")
        # From here on only what was registered can be read, and nothing can be written.
        for name in ("enable_external_access", "python_enable_replacements"):
            self._tell(connection, f"set {name} = false")
        self._tell(connection, "set lock_configuration = true")
        return connection

    @staticmethod
    def _tell(connection: Any, sql: str) -> None:
        connection.execute(sql).fetchall()

    def ask(self, sql: str) -> Answer:
        """The answer to one question.  Raises NoAnswer with the sentence that says why there is none."""
        self._check(sql)
        try:
            relation = self._connection.sql(sql)
            read = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader
            reader = read(_BATCH_ROWS)
        except Exception as error:
            raise _no_answer(error) from None
        return Answer(list(reader.schema.names), _batches(reader))

    def interrupt(self) -> None:
        """End the question that is being answered; for another thread."""
        if self._connection is not None:
            self._connection.interrupt()

    def _check(self, sql: str) -> None:
        try:
            statements = self._connection.extract_statements(sql)
        except Exception as error:
            raise _no_answer(error) from None
        if len(statements) != 1:
            raise NoAnswer(f"one question at a time, not {len(statements)}")
        kind = statements[0].type
        if kind not in (self._duckdb.StatementType.SELECT, self._duckdb.StatementType.EXPLAIN):
            raise NoAnswer(f"a store answers questions (select); {_name(kind)} is none")

    def describe(self) -> list[tuple[str, str, list[tuple[str, str]]]]:
        """Tables and views: name, what they show, columns and their types."""
        what = {name: words for name, (words, _) in VIEWS.items()}
        what |= {name: _SAID[name] for name in rows.TABLES}
        found = []
        for name in (*rows.TABLES, *VIEWS):
            answer = self.ask(f"describe {name}")
            columns = [(str(row[0]), str(row[1]).lower()) for row in answer.rows()]
            found.append((name, what[name], columns))
        return found


_SAID: Final = {
    "flows": "finished flows",
    "transactions": "handshakes, queries and answers of flows",
    "certificates": "servers' certificates seen in the clear",
    "events": "what probes say of themselves",
    "segments": "what was sealed, when it came, where it lies",
}


def _batches(reader: Any) -> Iterator[Any]:
    try:
        yield from reader
    except Exception as error:
        raise _no_answer(error) from None


def _no_answer(error: Exception) -> NoAnswer:
    """DuckDB's words, in one line."""
    if type(error).__name__ == "InterruptException":
        return NoAnswer("it was interrupted")
    words = []
    for line in str(error).splitlines():
        if line.startswith("LINE "):
            break
        words.append(line.strip())
    return NoAnswer(" ".join(filter(None, words)) or type(error).__name__)


def _quoted(value: object) -> str:
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


def _name(kind: object) -> str:
    return str(kind).rpartition(".")[2].lower()
