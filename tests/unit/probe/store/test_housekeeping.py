"""A collector's housekeeping: compaction and retention in a child, which may be killed, and may fail."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sealwire import cli
from sealwire.probe.seal.keys import load_public_key
from sealwire.probe.store import Store
from sealwire.probe.store.checkpoints import last_checkpoint
from sealwire.probe.store.disk import Folders, locked
from sealwire.probe.store.housekeeping import Housekeeping
from sealwire.probe.store.manifest import Manifest
from tests.unit.probe import sealing as s
from tests.unit.probe.store import stores

pytest.importorskip("pyarrow")

PROBE = s.key(0).id.hex()


def filled(place: Path) -> None:
    store = Store(place, stores.enrolled(), file_bytes=1)
    for segment in stores.sealed(5):
        stores.take(store, [segment], 1)
    store.close()


def until(house: Housekeeping, done: str, seconds: float = 60.0) -> float:
    """Poll until a counter of its state rises; the time of its clock."""
    now, end = 0.0, time.monotonic() + seconds
    while not getattr(house.state, done):
        assert time.monotonic() < end, house.state
        house.poll(now)
        time.sleep(0.05)
        now += 1.0
    return now


def test_compaction_and_retention(tmp_path: Path) -> None:
    place = tmp_path / "st"
    filled(place)
    assert cli.main(["keygen", str(tmp_path / "collector.key")]) == 0
    store = Store(place, stores.enrolled())  # the collector goes on meanwhile
    house = Housekeeping(place, age=1, sign=tmp_path / "collector.key")
    try:
        until(house, "compactions")
        assert house.state.rows > 10
        assert len(Manifest.read(Folders(place), PROBE).files) == 6
        house._retain_at = 0.0
        until(house, "removed_events")
    finally:
        house.close()
        store.close()
    checkpoint = last_checkpoint(Folders(place), PROBE)
    assert checkpoint is not None
    assert checkpoint.authentic(load_public_key(tmp_path / "collector.key.pub"))
    assert not house.state.trouble


def test_a_child_that_fails_is_told_and_tried_again_later(tmp_path: Path) -> None:
    place = tmp_path / "st"
    filled(place)
    lock = locked(place, "compact.lock", "compaction works")
    house = Housekeeping(place)
    now = until(house, "failures")
    assert "already" in house.state.trouble
    house.poll(now)
    assert not house.busy  # it waits
    lock.release()
    while not house.state.compactions:
        now += 10.0
        house.poll(now)
        time.sleep(0.05)
    house.close()


def test_a_child_that_is_killed(tmp_path: Path) -> None:
    place = tmp_path / "st"
    filled(place)
    house = Housekeeping(place)
    house.poll(0.0)
    assert house.busy
    child = house._child
    assert child is not None
    os.kill(child.pid, 9)
    until(house, "failures")
    house.close()
    house = Housekeeping(place)
    until(house, "compactions")
    house.close()
    assert not house.busy


def test_nothing_to_do(tmp_path: Path) -> None:
    Store(tmp_path / "st", stores.enrolled()).close()
    house = Housekeeping(tmp_path / "st")
    for second in range(100):
        house.poll(float(second))
        assert not house.busy
    house.close()
