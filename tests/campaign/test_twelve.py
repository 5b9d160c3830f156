"""Twelve faults of a seeded campaign, as CI runs them; `make campaign` does two hundred."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaign.__main__ import conduct, table

_SEED = 12


def test_twelve_faults_lose_nothing_that_was_acknowledged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = conduct(tmp_path / "campaign", _SEED, 12, 500, lambda _: None)
    with capsys.disabled():
        print("\n" + table(campaign, 0.0))
    assert campaign.verdict.good
    assert sum(tally.count for tally in campaign.tallies.values()) == 12
    assert campaign.verdict.acknowledged > 12
