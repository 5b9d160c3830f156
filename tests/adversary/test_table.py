"""Every attack has its tests, and they are there; or it says why it is none of ours."""

from __future__ import annotations

import ast
import functools
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ATTACKS: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "attacks.toml").read_text())["attack"]
#: How many there are of each kind.
FAMILIES = {"AMP": 9, "DOS": 18, "FRG": 14, "REC": 15, "HS": 21, "REL": 17}


def test_no_attack_is_left_out() -> None:
    ids = [attack["id"] for attack in ATTACKS]
    assert ids == [f"{family}-{n}" for family, count in FAMILIES.items() for n in range(1, count + 1)]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack["id"])
def test_an_attack_has_its_tests(attack: dict[str, Any]) -> None:
    if "out_of_scope" in attack:
        assert attack["out_of_scope"]
        assert "tests" not in attack
        return
    assert attack["expected"]
    assert attack["tests"]
    for name in attack["tests"]:
        file, _, function = name.partition("::")
        assert not function or function in named_in(file), name
        assert named_in(file), name


@functools.cache
def named_in(file: str) -> frozenset[str]:
    """The test functions of a file."""
    tree = ast.parse((ROOT / file).read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )
