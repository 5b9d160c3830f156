"""The list of mutants fits the source; what they are is shown by `make mutate`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutation.mutant import Mutant
from tests.mutation.mutants import MUTANTS
from tests.mutation.run import BEGIN, END, ROOT, Verdict, mutated, write_report

ONE = Mutant("a check", "wire.py", "a", "b", "harm", ("tests/unit/test_wire.py",))


# Not in every run: whoever changes such a line need not know of it before the next `make mutate`.
@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.check)
def test_each_is_one_change_that_compiles(mutant: Mutant) -> None:
    text = (ROOT / "src/sealwire" / mutant.file).read_text()
    changed = mutated(text, mutant)
    assert changed != text
    ast.parse(changed)
    assert all((ROOT / name).is_file() for name in mutant.tests)


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    assert len({mutant.check for mutant in MUTANTS}) == len(MUTANTS) >= 40


@pytest.mark.parametrize("text", ["", "b", "a and a"])
def test_what_is_not_there_once_is_an_error(text: str) -> None:
    with pytest.raises(LookupError, match="a check"):
        mutated(text, ONE)


def test_the_report_replaces_the_one_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    verdicts = [Verdict(ONE, "tests/unit/test_x.py::test_y[1-2]", ""), Verdict(ONE, "", "")]
    write_report(page, verdicts)
    write_report(page, verdicts)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("| a check | `wire.py` | harm | `unit/test_x.py::test_y` |") == 1
    assert text.count("`nobody`") == 1
    assert "1 of 2 mutants are noticed." in text
