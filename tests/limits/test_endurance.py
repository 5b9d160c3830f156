"""Each row of the grid for as long as was promised, and ten minutes of connections that come and go.

No request fails, and neither side holds more memory or descriptors at the end than in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from sealwire.bench.grid import GRID, Cell
from sealwire.bench.grid.clients import Load, Mode
from sealwire.bench.grid.session import Outcome, Sample, Setting, measure, slope
from sealwire.cli import authority

SECONDS = 70.0
CHURN_SECONDS = 600.0
# What an interpreter's arenas move by without anything being held.
NOISE_BYTES = 512 * 1024


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificates")
    authority.write(path, authority.make(("localhost",), (), days=1, key_type="ec"))
    return path


def flat(outcome: Outcome, seconds: float) -> None:
    """Over the second half, when everything that is made once was made."""
    for name, samples in (("clients", outcome.client_samples), ("server", outcome.server_samples)):
        half: Sequence[Sample] = samples[len(samples) // 2 :]
        assert len(half) > 10
        grown = slope(half, lambda one: one.rss_bytes) * seconds / 2
        opened = slope(half, lambda one: one.descriptors) * seconds / 2
        print(f"{name}: {half[-1].rss_bytes} bytes, {grown:+.0f}; {half[-1].descriptors}, {opened:+.1f}")
        assert grown < NOISE_BYTES, name
        assert abs(opened) < 3, name


@pytest.mark.long
@pytest.mark.parametrize("cell", GRID, ids=lambda cell: str(cell.size))
def test_a_row_for_seventy_seconds(directory: Path, cell: Cell) -> None:
    setting = Setting("stcp", "asyncio", Load(cell.clients, cell.size), SECONDS, warm_up=2.0, every=1.0)
    outcome = measure(setting, directory, lambda report: None)
    print(f"\n{cell.size}: {outcome.requests} requests, {outcome.rate:.0f} a second")
    assert not outcome.errors
    assert outcome.in_flight == pytest.approx(cell.clients, rel=0.1)
    flat(outcome, SECONDS)


@pytest.mark.long
def test_connections_come_and_go_for_ten_minutes(directory: Path) -> None:
    load = Load(20, 1_000, Mode.CHURN, messages_per_connection=10)
    setting = Setting("stcp", "asyncio", load, CHURN_SECONDS, warm_up=5.0, every=2.0)
    outcome = measure(setting, directory, lambda report: None)
    print(f"\n{outcome.connections} connections, {outcome.requests} requests")
    assert not outcome.errors
    assert outcome.connections > 1_000
    # Connections that are being made and closed are counted as they happen to be.
    for samples in (outcome.client_samples, outcome.server_samples):
        half = samples[len(samples) // 2 :]
        assert slope(half, lambda one: one.rss_bytes) * CHURN_SECONDS / 2 < 2 * NOISE_BYTES
        assert abs(slope(half, lambda one: one.descriptors)) * CHURN_SECONDS / 2 < 20
