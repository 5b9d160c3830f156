"""Objectives: what is met, what is not, what was not measured, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealwire.bench import slo
from sealwire.bench.rows import ROWS
from sealwire.record import protect
from tests.unit.bench import made

ROOT = Path(__file__).resolve().parents[3]


def outcome(tmp_path: Path, text: str) -> slo.Outcome:
    path = tmp_path / "slo.toml"
    path.write_text(f"[[objective]]\n{text}\n")
    (objective,) = slo.load(path)
    return slo.judge(made.run("a"), objective)


@pytest.mark.parametrize(
    ("text", "met", "words"),
    [
        ('row = "time.0"\nat_most = 6.0\nunit = "us"', True, "time.0: at most 6 us: "),
        ('row = "time.0"\nat_most = 4.0', False, "time.0: at most 4: "),
        ('row = "rate.0"\nat_least = 8000', True, "rate.0: at least 8000: "),
        ('row = "rate.0"\nat_least = 10000', False, "rate.0: at least 10000: "),
        ('row = "time.0"\nthan = "rival"\nat_most = 0.5', True, "at most 0.5 times rival: 0.3"),
        ('row = "time.0"\nthan = "rival"\nat_most = 0.2', False, "at most 0.2 times rival: 0.3"),
        ('row = "time.0"\nthan = "nobody"\nat_most = 0.2', False, "nobody has no figure"),
        ('row = "time.99"\nat_most = 1', False, "not measured"),
        ('row = "time.0"\nat_most = 6.0\nunit = "ms"', False, "the row is in us"),
    ],
)
def test_outcomes(tmp_path: Path, text: str, met: bool, words: str) -> None:
    found = outcome(tmp_path, text)
    assert found.met is met
    assert words in found.sentence


def test_a_bound_inside_the_interval_is_said_to_be_doubtful(tmp_path: Path) -> None:
    row = next(row for row in made.run("a").rows() if row.name == "time.0")
    summary = row.summary(row.ours)
    assert summary is not None
    bound = (summary.median + summary.high) / 2
    assert "reaches over the bound" in outcome(tmp_path, f'row = "time.0"\nat_most = {bound}').sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no"),
        ("objective = 3", "has no"),
        ("[[objective]\n", "is no TOML"),
        ("[[objective]]\nat_most = 1", "row is needed"),
        ('[[objective]]\nrow = "a"', "needs one number"),
        ('[[objective]]\nrow = "a"\nat_most = 1\nat_least = 1', "needs one number"),
        ('[[objective]]\nrow = "a"\nat_most = "1"', "needs one number"),
        ('[[objective]]\nrow = "a"\nat_most = true', "needs one number"),
        ('[[objective]]\nrow = "a"\natmost = 1', "there is no 'atmost'"),
    ],
)
def test_unusable_files(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "slo.toml"
    path.write_text(text)
    with pytest.raises(slo.UnusableObjectives, match=sentence):
        slo.load(path)
    with pytest.raises(slo.UnusableObjectives, match="cannot read"):
        slo.load(tmp_path / "none")


def test_our_own_objectives_name_rows_that_exist() -> None:
    units = {one.row_name(figure): figure.unit for one in ROWS for figure in one.figures}
    contenders = {one.row_name(one.figures[0]): {c.name for c in one.contenders} for one in ROWS}
    for objective in slo.load(ROOT / "benchmarks" / "slo.toml"):
        assert objective.unit in ("", units[objective.row])
        # The twin is measured beside other things.
        if protect.COMPILED:
            assert not objective.than or objective.than in contenders[objective.row]
