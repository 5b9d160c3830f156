"""Coverage of requirements does not drop, and the page that shows it is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.specs import register
from tests.specs.register import Coverage, Requirement


@pytest.fixture(scope="module")
def requirements() -> tuple[Requirement, ...]:
    return register.load()


@pytest.fixture(scope="module")
def coverage(requirements: tuple[Requirement, ...]) -> Coverage:
    return register.scan(requirements)


def in_scope(requirements: tuple[Requirement, ...], weight: str, family: str = "") -> list[Requirement]:
    return [
        one
        for one in requirements
        if one.weight == weight and one.id.startswith(family) and not one.out_of_scope
    ]


def test_ids_are_unique_and_levels_known(requirements: tuple[Requirement, ...]) -> None:
    assert len({one.id for one in requirements}) == len(requirements) > 250
    assert {one.weight for one in requirements} == {"MUST", "SHOULD", "MAY", "DEF", "group"}
    assert not [one.id for one in requirements if one.gap and one.out_of_scope]


def test_every_marker_names_a_requirement(requirements: tuple[Requirement, ...], coverage: Coverage) -> None:
    assert coverage.unknown(requirements) == []


def test_every_must_of_dtls_is_held(requirements: tuple[Requirement, ...], coverage: Coverage) -> None:
    lost = [
        one.id for one in in_scope(requirements, "MUST", "9147-") if not coverage.holds(one) and not one.gap
    ]
    assert lost == []


def test_nine_of_ten_shoulds_of_dtls_are_held(
    requirements: tuple[Requirement, ...], coverage: Coverage
) -> None:
    wanted = in_scope(requirements, "SHOULD", "9147-")
    lost = [one.id for one in wanted if not coverage.holds(one)]
    assert len(lost) <= len(wanted) / 10, lost


def test_every_group_is_held(requirements: tuple[Requirement, ...], coverage: Coverage) -> None:
    lost = [one.id for one in in_scope(requirements, "group") if not coverage.holds(one) and not one.gap]
    assert lost == []


def test_a_gap_that_is_closed_is_called_one_no_more(
    requirements: tuple[Requirement, ...], coverage: Coverage
) -> None:
    assert [one.id for one in requirements if one.gap and coverage.holds(one)] == []


def test_the_report_is_up_to_date(requirements: tuple[Requirement, ...], coverage: Coverage) -> None:
    expected = register.report(requirements, coverage)
    assert register.REPORT.read_text() == expected, "run python -m tests.specs.register"


def test_markers_are_found_where_they_are_and_nowhere_else(tmp_path: Path) -> None:
    rows = (
        Requirement("9147-8-2", "MUST", "RFC 9147", "..."),
        Requirement("9146-1", "group", "RFC 9146", "..."),
    )
    (tmp_path / "src").mkdir()
    (tmp_path / "tests").mkdir()
    code = "# as said [9147-8-2, decision A2] and [9146-1], 9147-8-3 is not marked\nx = y[9147 - 8]\n"
    (tmp_path / "src" / "code.py").write_text(code)
    test = 'import pytest\n@pytest.mark.requirement("9147-8-2", "9146-77")\ndef test_x(): "9146-1 in words"\n'
    (tmp_path / "tests" / "test_code.py").write_text(test)
    found = register.scan(rows, tmp_path)
    assert found.code == {"9147-8-2": ("src/code.py",), "9146-1": ("src/code.py",)}
    assert found.tests == {"9147-8-2": ("tests/test_code.py",), "9146-77": ("tests/test_code.py",)}
    assert found.holds(rows[0])
    assert not found.holds(rows[1])
    assert found.unknown(rows) == ["9146-77 in tests/test_code.py"]
