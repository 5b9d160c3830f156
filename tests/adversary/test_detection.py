"""The detectors tell attacks from use: a few seeded episodes of each kind, played with real engines.

`sealwire attack trial --seeds N` plays as many as one likes; docs/attacks.md has the table of hundreds.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from sealwire.attack.episodes import ATTACKS, HONEST, play
from sealwire.attack.town import Kit
from sealwire.dtls.detectors import RULES
from sealwire.limits import Limits

kit = functools.cache(Kit.make)


@pytest.mark.parametrize("kind", [*(one.value for one in ATTACKS), *HONEST])
def test_one_episode_of_each_kind(kind: str) -> None:
    outcome = play(kind, 1, kit())
    assert outcome.right, outcome.said
    assert outcome.calm, "still under load long after"


@pytest.mark.long
@pytest.mark.parametrize("seed", [8, 9, 11])
@pytest.mark.parametrize("kind", [*(one.value for one in ATTACKS), *HONEST])
def test_more_episodes_of_each_kind(kind: str, seed: int) -> None:
    outcome = play(kind, seed, kit())
    assert outcome.right, outcome.said
    assert outcome.calm


def test_the_page_has_every_rule_with_its_numbers() -> None:
    page = (Path(__file__).parents[2] / "docs" / "attacks.md").read_text("utf-8")
    for rule in RULES:
        enter, leave = rule.thresholds(Limits())
        line = next(line for line in page.splitlines() if line.startswith("|") and rule.meaning in line)
        assert f"| {rule.attack.value} |" in line
        assert f"{enter:,.0f} {rule.unit}" in line
        assert f"| {leave:,.0f} |" in line
