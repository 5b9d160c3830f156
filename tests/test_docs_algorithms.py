"""docs/algorithms.md has every algorithm, and is right about which are on by default."""

from __future__ import annotations

import re
from pathlib import Path

from sealwire.crypto.groups import DEFAULT_GROUPS, GROUPS, parse_groups
from sealwire.crypto.signatures import DEFAULT_SCHEMES, HANDSHAKE_SCHEMES
from sealwire.crypto.suites import DEFAULT_SUITES, SUITES

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "algorithms.md").read_text("utf-8")


def rows(section: str) -> list[list[str]]:
    """Cells of the section's table, without its head."""
    found = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found
    lines = [line for line in found[1].splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def power(text: str) -> float:
    """``"2^24.5"`` as a number."""
    return (1 << 48) if text == "all numbers" else 2 ** float(text.removeprefix("2^"))


def test_suites() -> None:
    table = rows("Cipher suites")
    assert [row[0].strip("`") for row in table] == [spec.name for spec in SUITES.values()]
    for row, spec in zip(table, SUITES.values(), strict=True):
        assert (row[1] == "default") is (spec.suite in DEFAULT_SUITES)
        assert ("allow_short_tags" in row[1]) is spec.has_short_tag
        assert abs(power(row[2]) / spec.seal_limit - 1) < 1e-6
        assert abs(power(row[3]) / spec.forgery_limit - 1) < 1e-6


def test_groups() -> None:
    table = rows("Key exchange groups")
    groups = [parse_groups(re.findall(r"`([^`]+)`", row[0])[:1])[0] for row in table]
    assert groups == list(GROUPS)
    for row, group in zip(table, groups, strict=True):
        assert (row[1] == "default") is (group in DEFAULT_GROUPS)
        sizes = {int(n) for n in row[2].replace(",", "").split(" and ")}
        assert sizes == {GROUPS[group].offer_bytes, GROUPS[group].answer_bytes}
        names = re.findall(r"`([^`]+)`", row[0])
        assert {parse_groups([name])[0] for name in names} == {group}


def test_schemes() -> None:
    documented: dict[str, bool] = {}
    for cell, state in rows("Signatures"):
        stem = ""
        for name in re.findall(r"`([^`]+)`", cell):
            stem = name.rpartition("_")[0] if not name.startswith("...") else stem
            documented[name.replace("...", stem)] = state.startswith("default")
    assert set(documented) == {one.name.lower() for one in {*HANDSHAKE_SCHEMES, *DEFAULT_SCHEMES}}
    assert {name for name, on in documented.items() if on} == {one.name.lower() for one in DEFAULT_SCHEMES}
