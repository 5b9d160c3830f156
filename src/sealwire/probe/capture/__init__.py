"""Where packets come from: capture files, standard input, and (in `live`) an interface.

A `Reading` walks its input once and hands on flows as they end, in the order of (ended,
first_packet).  Files are mapped, not read; a file must not be made shorter while it is read.
"""

from __future__ import annotations

import functools
import heapq
import mmap
import os
import queue
import stat
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from sealwire.errors import ConfigurationError
from sealwire.probe import files
from sealwire.probe.batch import OFFSETS, Batch
from sealwire.probe.counters import ProbeCounters
from sealwire.probe.dissect.inspector import Inspector
from sealwire.probe.dissect.plugin import Dissector
from sealwire.probe.engine import Settings, table_for
from sealwire.probe.features import Flow

if TYPE_CHECKING:
    from sealwire.probe.capture.bpf import Program
from sealwire.probe.files import CaptureError, Stop

__all__ = ["CaptureError", "Reading", "read"]

#: Packets walked in one call: enough to make the call disappear, few enough to show progress.
_BUDGET = 65_536
#: Read at once from a stream; stays in a cache.
_STREAM_BYTES = 1 << 18
#: Flows of a stream are handed on after so many bytes of it, or so many seconds.
_STREAM_TURN_BYTES = 1 << 25
_STREAM_TURN_SECONDS = 0.05
#: Entry points of dissectors in Python.
PLUGINS = "sealwire.probe.dissectors"
#: Batches of one worker that may wait for the others.
_WAITING = 8
_ORDER = struct.Struct("<Qq")
_ORDER_AT = 48  # first_packet and ended in a row
_FACTS = struct.Struct("<I")
_FACTS_AT = OFFSETS["facts_bytes"][0]

Source = str | os.PathLike[str] | BinaryIO


class _Window:
    """The input's bytes: all of them for a mapped file, a piece that moves along for a stream."""

    def __init__(self, source: Source) -> None:
        self._owned: BinaryIO | None = None
        if isinstance(source, (str, os.PathLike)):
            stream: BinaryIO = sys.stdin.buffer if source == "-" else Path(source).open("rb")  # noqa: SIM115
            self._owned = None if source == "-" else stream
        else:
            stream = source
        self._stream = stream
        self._map: mmap.mmap | None = None
        self.data = memoryview(b"")
        self._buffer = bytearray()
        self.base = 0
        self.final = False
        self.size: int | None = None
        size = _regular_size(stream)
        if size:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            self._map.madvise(mmap.MADV_SEQUENTIAL)
            self.data = memoryview(self._map)
            self.final = True
            self.size = size

    def more(self, at: int) -> int:
        """Forget what is before `at`, get more; returns where `at` is now."""
        rest = len(self.data) - at
        # A record that fills the room needs more of it.
        room = max(_STREAM_BYTES, 2 * rest)
        buffer = self._buffer
        if room > len(buffer):
            buffer = bytearray(room)
        buffer[:rest] = self.data[at:]
        self.data.release()
        self._buffer = buffer
        whole = memoryview(buffer)
        # What a pipe has, at once, where the stream can say it.
        into = getattr(self._stream, "readinto1", None)
        if into is not None:
            n = into(whole[rest:])
        else:
            piece = self._stream.read(room - rest)
            n = len(piece)
            whole[rest : rest + n] = piece
        self.final = not n
        self.data = whole[: rest + n]
        self.base += at
        return 0

    def close(self) -> None:
        self.data.release()
        if self._map is not None:
            self._map.close()
        if self._owned is not None:
            self._owned.close()


def _regular_size(stream: BinaryIO) -> int:
    """Bytes of a file that can be mapped, else 0."""
    try:
        status = os.fstat(stream.fileno())
        at_start = stream.tell() == 0
    except (OSError, ValueError, AttributeError):
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) and at_start else 0


def _program(expression: str, link: int) -> Program:
    from sealwire.probe.capture.bpf import Program  # ctypes takes longer to load than a small file

    return Program(expression, link)


class Reading:
    """A capture being read, once: iterate for flows, or use `batches`.

    `counters` and `note` (a sentence if the input was damaged, else "") are complete at the end.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        *,
        bpf: str = "",
        key: bytes | None = None,
        shard: int = 0,
        shards: int = 1,
        dissectors: Sequence[Dissector] | None = (),
    ) -> None:
        if bpf:
            _program(bpf, 1)  # wrong filters are said at once, not at the first packet
        self.settings = settings
        self.note = ""
        self._bpf = bpf
        self._programs: dict[int, Program] = {}
        self._window = _Window(source)
        self._table = table_for(settings)(
            settings, os.urandom(16) if key is None else key, shard=shard, shards=shards
        )
        # Several workers have one inspector, behind them.
        inspected = settings.dissect and dissectors is not None
        self._inspector = inspector(settings, dissectors or ()) if inspected else None
        self._position = 0
        #: A stream: what position was when flows were last handed on, and when.
        self._handed = (0, 0.0)
        self._used = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the input; reading to the end does it, too."""
        self._window.close()

    @property
    def counters(self) -> ProbeCounters:
        """What was counted so far."""
        return self._table.counters()

    @property
    def plugin_refusals(self) -> int:
        """Flows a plugin was not shown because its time was up, or for which it raised."""
        return 0 if self._inspector is None else self._inspector.plugin_refusals

    @property
    def ambiguous_links(self) -> int:
        """Flows whose connection ids fit several connections, and which were linked to none."""
        return 0 if self._inspector is None else self._inspector.ambiguous

    @property
    def shown(self) -> int:
        """Flows dissectors in Python were shown."""
        return 0 if self._inspector is None else self._inspector.shown

    @property
    def spent_in_python(self) -> float:
        """Seconds of CPU that dissection in Python took: rare protocols, plugins, links, errors cited."""
        return 0.0 if self._inspector is None else self._inspector.spent / 1e9

    def live_counters(self) -> dict[str, int]:
        """What only a live capture counts; nothing for a file."""
        return {}

    @property
    def position(self) -> tuple[int, int | None]:
        """Bytes of the input walked so far, and how many there are, if known."""
        return self._position, self._window.size

    def __iter__(self) -> Iterator[Flow]:
        for batch in self.batches():
            yield from batch

    def batches(self) -> Iterator[Batch]:
        """Finished flows in rows; each batch may also be empty, as a sign of progress.

        Raises CaptureError for an input that is no capture file.
        """
        if self._used:
            raise ValueError("a capture is read once; read() it again")
        self._used = True
        try:
            yield from self._batches()
        finally:
            self.close()

    def _taken(self) -> Batch:
        """What the table has ready."""
        settings, table = self.settings, self._table
        rows = table.take()
        facts, told = table.take_facts(), table.take_events()
        if self._inspector is not None:
            return self._inspector.batch(rows, facts, told)
        return Batch(rows, settings.first_packets, facts, told, settings.dissect)

    def _batches(self) -> Iterator[Batch]:
        window, table = self._window, self._table
        while (begun := files.begin(window.data, window.final)) is None:
            window.more(0)
        layout, at = begun
        while True:
            filters = [self._program(face.link) for face in layout.interfaces] if self._bpf else None
            at, stop = table.feed(layout, window.data, at, _BUDGET, filters)
            self._position = window.base + at
            if stop is not Stop.MORE or window.final or self._due():
                yield self._taken()
            if stop is Stop.CORRUPT:
                self.note = (
                    f"damaged: what is at byte {window.base + at} cannot be a record; the rest was not read"
                )
                break
            behind: int | None = at
            if stop is Stop.CONTROL:
                try:
                    behind = files.control(layout, window.data, at)
                except CaptureError as error:
                    self.note = f"{error}; the rest was not read"
                    break
            if stop is Stop.MORE or behind is None:
                if window.final:
                    if at < len(window.data):
                        self.note = f"cut short: the last {len(window.data) - at} bytes are part of a record"
                    break
                at = window.more(at)
            else:
                at = behind
        self._position = window.base + at
        while table.finish():
            yield self._taken()
        if self.settings.dissect:  # the last events wait for the end
            yield self._taken()

    def _due(self) -> bool:
        """Whether a stream has brought enough, or taken long enough, for flows to be handed on."""
        now = time.monotonic()
        position, since = self._handed
        if self._position - position < _STREAM_TURN_BYTES and now - since < _STREAM_TURN_SECONDS:
            return False
        self._handed = (self._position, now)
        return True

    def _program(self, link: int) -> Program | None:
        if link not in self._programs:
            self._programs[link] = _program(self._bpf, link)
        return self._programs[link]


class ParallelReading(Reading):
    """A file read by several threads, each with a share of the flows; the same flows in the same order."""

    def __init__(
        self,
        source: Source,
        settings: Settings,
        workers: int,
        *,
        bpf: str = "",
        dissectors: Sequence[Dissector] = (),
    ) -> None:
        if source == "-" or not isinstance(source, (str, os.PathLike)):
            raise ConfigurationError("only a file can be read by several workers: each walks all of it")
        key = os.urandom(16)
        share = replace(
            settings,
            max_flows=max(settings.max_flows // workers, 1),
            max_bytes=max(settings.max_bytes // workers, 65_536),
            max_dissection_bytes=max(settings.max_dissection_bytes // workers, 65_536),
        )
        self._parts = [
            Reading(*(source, share), bpf=bpf, key=key, shard=number, shards=workers, dissectors=None)
            for number in range(workers)
        ]
        super().__init__(source, settings, bpf=bpf, key=key, dissectors=dissectors)

    def close(self) -> None:
        """Let go of the input, all parts."""
        super().close()
        for part in self._parts:
            part.close()

    @property
    def counters(self) -> ProbeCounters:
        """The parts' counters together."""
        return ProbeCounters.of_shards([part.counters for part in self._parts])

    def _batches(self) -> Iterator[Batch]:
        stopped = threading.Event()
        lanes: list[queue.Queue[Batch | BaseException | None]] = [queue.Queue(_WAITING) for _ in self._parts]
        threads = [
            threading.Thread(target=_pump, args=(part, lane, stopped), daemon=True)
            for part, lane in zip(self._parts, lanes, strict=True)
        ]
        for thread in threads:
            thread.start()
        size = self._table.row_bytes
        try:
            pending: list[_Item] = []
            for _, item in heapq.merge(*(_items(lane, size) for lane in lanes), key=_item_order):
                pending.append(item)
                if len(pending) == 4096:
                    yield self._joined(pending)
                    pending.clear()
                    self._position = min(part.position[0] for part in self._parts)
            yield self._joined(pending)
        finally:
            stopped.set()
            for thread in threads:
                thread.join()
        self.note = self._parts[0].note

    def _joined(self, items: list[_Item]) -> Batch:
        rows, facts, told = (b"".join(item[index] for item in items) for index in range(3))
        if self._inspector is not None:
            return self._inspector.batch(rows, facts, told)
        return Batch(rows, self.settings.first_packets)


#: A row, its facts block, an event: a row and its block, or an event.
_Item = tuple[bytes, bytes, bytes]
#: Time, whether it is a row, first packet.
_Moment = tuple[int, int, int]


def _item_order(item: tuple[_Moment, _Item]) -> _Moment:
    return item[0]


def inspector(settings: Settings, dissectors: Sequence[Dissector] = ()) -> Inspector:
    """The last stage of dissection, with the plugins that are installed and others."""
    return Inspector(settings, (*plugins(), *dissectors), time.process_time_ns)


@functools.cache
def plugins() -> tuple[Dissector, ...]:
    """Dissectors of the entry point group; ConfigurationError names one that cannot be used."""
    from importlib import metadata  # takes longer to load than a small file to read

    found = []
    for entry in metadata.entry_points(group=PLUGINS):
        try:
            made = entry.load()()
        except Exception as error:
            raise ConfigurationError(f"the dissector {entry.name} cannot be used: {error}") from error
        if not isinstance(made, Dissector) or not made.application:
            raise ConfigurationError(f"the dissector {entry.name} is no Dissector with an application")
        found.append(made)
    return tuple(found)


def _pump(part: Reading, lane: queue.Queue[Any], stopped: threading.Event) -> None:
    """One worker: rows into its lane until the end, which is None, or an exception."""

    def put(item: Batch | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                lane.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    try:
        for batch in part.batches():
            if (batch.rows or batch.event_data) and not put(batch):
                return
        put(None)
    except Exception as error:
        put(error)


def _items(lane: queue.Queue[Any], size: int) -> Iterator[tuple[_Moment, _Item]]:
    """Rows and events of one worker in order of time."""
    while (batch := lane.get()) is not None:
        if isinstance(batch, BaseException):
            raise batch
        found = [((event.time, 0, event.first_packet), (b"", b"", data)) for event, data in batch.told()]
        rows, here = batch.rows, 0
        for at in range(0, len(rows), size):
            first_packet, ended = _ORDER.unpack_from(rows, at + _ORDER_AT)
            (n,) = _FACTS.unpack_from(rows, at + _FACTS_AT)
            found.append(
                ((ended, 1, first_packet), (rows[at : at + size], batch.facts[here : here + n], b""))
            )
            here += n
        yield from sorted(found, key=_item_order)


def read(
    source: Source,
    *,
    bpf: str = "",
    settings: Settings | None = None,
    workers: int = 1,
    dissectors: Sequence[Dissector] = (),
    **changes: Any,
) -> Reading:
    """The flows of a capture file (a path, "-" for standard input, or an open binary file).

    `changes` are fields of Settings, such as ``dissect=True``; `bpf` is a filter in tcpdump's language;
    `dissectors` are asked beside those that are installed.  Raises OSError for a file
    that cannot be opened, ConfigurationError for settings or a filter that make no sense, and, once
    iterated, CaptureError for bytes that are no capture.
    """
    chosen = replace(settings or Settings(), **changes)
    if workers < 1:
        raise ConfigurationError(f"workers must be at least 1, not {workers}")
    if workers > 1:
        return ParallelReading(source, chosen, workers, bpf=bpf, dissectors=dissectors)
    return Reading(source, chosen, bpf=bpf, dissectors=dissectors)
