"""Files: what is written is read back; what is damaged or foreign is one sentence."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.bench import results
from sealwire.bench.results import UnusableResult
from tests.unit.bench import made


def test_round_trip(tmp_path: Path) -> None:
    result = made.run("a")
    results.save(result, tmp_path / "new" / "r.json")
    assert results.load(tmp_path / "new" / "r.json") == result
    assert not list((tmp_path / "new").glob("*.new"))


def test_medians_are_there_for_other_readers(tmp_path: Path) -> None:
    results.save(made.run("a"), tmp_path / "r.json")
    value = json.loads((tmp_path / "r.json").read_text())
    first = value["measured"][0]["contenders"][0]
    assert first["summary"][""]["low"] <= first["summary"][""]["median"] <= first["summary"][""]["high"]
    assert value["measured"][0]["figures"][0]["direction"] == "lower"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is no JSON, or not all of it is there"),
        ("[" * 100_000, "is no JSON, or not all of it is there"),
        ("\x00\xff", "is no JSON, or not all of it is there"),
        ("{}", "is not a result of sealwire bench"),
        ("[1, 2]", "is not a result of sealwire bench"),
        ('{"benchmarks": [], "machine_info": {}}', "is not a result of sealwire bench"),
        ('{"format": "sealwire bench", "version": 99}', "has format version 99, not 1"),
        ('{"format": "sealwire bench", "version": 1}', "is damaged"),
    ],
)
def test_foreign_files(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text, "latin-1")
    with pytest.raises(UnusableResult, match=sentence) as caught:
        results.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnusableResult, match=r"cannot read .*, no such file"):
        results.load(tmp_path / "none.json")


@pytest.fixture(scope="module")
def encoded() -> str:
    return json.dumps(results.encode(made.run("a", made.World(rows=1, turns=2))))


def test_every_truncation_is_refused(tmp_path: Path, encoded: str) -> None:
    path = tmp_path / "r.json"
    for length in range(0, len(encoded), 97):
        path.write_text(encoded[:length])
        with pytest.raises(UnusableResult):
            results.load(path)


@given(st.data())
def test_a_value_replaced_by_nonsense_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, encoded: str, data: st.DataObject
) -> None:
    value = json.loads(encoded)
    spot, key = value, "measured"
    for _ in range(data.draw(st.integers(1, 8))):
        inner = spot[key]
        if not isinstance(inner, dict | list) or not inner:
            break
        spot = inner
        key = data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
    spot[key] = data.draw(st.sampled_from([None, [], {}, "x", -1, True, [None], {"a": 1}]))
    path = tmp_path_factory.mktemp("damaged") / "r.json"
    path.write_text(json.dumps(value))
    try:
        result = results.load(path)
    except UnusableResult:
        return
    for row in result.rows():
        for entry in row.entries:
            row.summary(entry)


def test_baselines_by_machine_and_commit(tmp_path: Path) -> None:
    def at(seed: str, created: str, machine: str = "here") -> results.Result:
        made_ = dataclasses.replace(made.run(seed, machine=machine), created=created)
        return dataclasses.replace(made_, software={**made_.software, "commit": seed * 40})

    for result in (at("a", "2026-01-01"), at("b", "2026-02-01"), at("c", "2026-03-01", machine="there")):
        results.save(result, tmp_path / results.baseline_name(result))
    (tmp_path / "here-cut.json").write_text("{")
    assert (tmp_path / f"here-{'a' * 12}.json").exists()
    assert results.baseline(tmp_path, at("d", "2026-04-01")).created == "2026-02-01"
    assert results.baseline(tmp_path, at("b", "2026-02-01")).created == "2026-01-01"
    with pytest.raises(UnusableResult, match="no result of this machine"):
        results.baseline(tmp_path, at("d", "2026-04-01", machine="elsewhere"))
