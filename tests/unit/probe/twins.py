"""Walking a capture with a table of one's choice, as read() does, and comparing the two tables."""

from __future__ import annotations

from dataclasses import dataclass

from sealwire.probe import files
from sealwire.probe.files import CaptureError, Stop
from sealwire.probe.flows import Table
from sealwire.probe.settings import Settings
from tests.unit.probe.packets import TABLES


@dataclass(frozen=True)
class Walked:
    """What a table made of a capture."""

    rows: bytes
    counters: dict[str, int]
    end: tuple[str, int]
    facts: bytes = b""
    events: bytes = b""


def walk(
    kind: type[Table], capture: bytes, settings: Settings, *, budget: int = 5000, key: bytes = bytes(16)
) -> Walked:
    data = memoryview(capture)
    try:
        begun = files.begin(data, True)
    except CaptureError as error:
        return Walked(b"", {}, (str(error), 0))
    assert begun is not None
    layout, at = begun
    table = kind(settings, key)
    rows: list[bytes] = []
    facts: list[bytes] = []
    events: list[bytes] = []

    def take() -> None:
        rows.append(table.take())
        facts.append(table.take_facts())
        events.append(table.take_events())

    while True:
        at, stop = table.feed(layout, data, at, budget)
        take()
        if stop in (Stop.MORE, Stop.CORRUPT):
            break
        if stop is Stop.CONTROL:
            try:
                behind = files.control(layout, data, at)
            except CaptureError:
                break
            if behind is None:
                break
            at = behind
    while table.finish():
        take()
    take()
    counters = table.counters().snapshot()
    return Walked(b"".join(rows), counters, (stop.name, at), b"".join(facts), b"".join(events))


def same(capture: bytes, settings: Settings, *, key: bytes = bytes(16)) -> Walked:
    """What both tables make of a capture; they must agree byte for byte."""
    first, *others = [walk(kind, capture, settings, key=key) for kind in TABLES]
    for other in others:
        assert other == first
    return first
