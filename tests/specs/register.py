"""The register of requirements, and who holds each: markers in code and tests, read and counted.

`specs/requirements.toml` names every requirement of RFC 9147 and of its neighbours that matters here, in
our words.  Code says ``[9147-8-2]`` above the line that obeys one, a test carries
``@pytest.mark.requirement("9147-8-2")`` or, where a table makes the tests, the id as a string.  This
module puts them side by side and writes `specs/coverage.md`:

    python -m tests.specs.register          # write it
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
REGISTER = ROOT / "specs" / "requirements.toml"
REPORT = ROOT / "specs" / "coverage.md"
_SUFFIXES = (".py", ".pyx", ".pxd")
Finder = Callable[[str], Iterator[str]]
_BRACKETS = re.compile(r"\[([^\[\]]+)\]")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One row.

    Attributes:
        level: the keyword of its RFC; "group" for a bundle of rules, "DEF" for a definition.
        source: the RFC it is of, and the section where the id names one.
        out_of_scope: why it is none of ours; empty if it is.
        gap: what is missing where it is not held yet; empty if nothing is.
    """

    id: str
    level: str
    source: str
    text: str
    out_of_scope: str = ""
    gap: str = ""

    @property
    def weight(self) -> str:
        """MUST, SHOULD, MAY, DEF or group, whatever else its keyword says."""
        for weight in ("MUST", "SHALL", "SHOULD", "RECOMMENDED", "MAY"):
            if weight in self.level:
                return {"SHALL": "MUST", "RECOMMENDED": "SHOULD"}.get(weight, weight)
        return self.level


@dataclass(frozen=True, slots=True)
class Coverage:
    """Where requirements are held: files with a marker, by id."""

    code: Mapping[str, tuple[str, ...]]
    tests: Mapping[str, tuple[str, ...]]

    def holds(self, requirement: Requirement) -> bool:
        """Whether code and a test name it."""
        return requirement.id in self.code and requirement.id in self.tests

    def unknown(self, register: Iterable[Requirement]) -> list[str]:
        """Markers nobody knows, with a file each."""
        known = {requirement.id for requirement in register}
        found = {**self.code, **self.tests}
        return [f"{id_} in {found[id_][0]}" for id_ in sorted(found.keys() - known)]


def load() -> tuple[Requirement, ...]:
    """The register, in its order."""
    data = tomllib.loads(REGISTER.read_text())
    return tuple(Requirement(**row) for row in data["requirement"])


def scan(register: Iterable[Requirement], root: Path = ROOT) -> Coverage:
    """Read every marker under src and tests."""
    sources = "|".join(sorted({re.escape(requirement.id.split("-")[0]) for requirement in register}))
    pattern = re.compile(rf"(?:{sources})-(?:[A-Za-z0-9.]+-)?\d+")
    return Coverage(
        _by_id(root / "src", root, lambda text: _in_comments(text, pattern)),
        _by_id(root / "tests", root, lambda text: _in_strings(text, pattern)),
    )


def _by_id(directory: Path, root: Path, find: Finder) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for path in sorted(directory.rglob("*")):
        # What is beside this file speaks of markers and proves nothing.
        if path.suffix in _SUFFIXES and path.is_file() and path.parent != HERE:
            for id_ in find(path.read_text()):
                found.setdefault(id_, set()).add(str(path.relative_to(root)))
    return {id_: tuple(sorted(paths)) for id_, paths in found.items()}


def _in_comments(text: str, pattern: re.Pattern[str]) -> Iterator[str]:
    for brackets in _BRACKETS.finditer(text):
        for word in brackets[1].split(","):
            if pattern.fullmatch(word.strip()):
                yield word.strip()


def _in_strings(text: str, pattern: re.Pattern[str]) -> Iterator[str]:
    if not pattern.search(text):
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and pattern.fullmatch(node.value):
            yield node.value


def report(register: tuple[Requirement, ...], coverage: Coverage) -> str:
    """The page: counts, gaps, what is out of scope, and a table of every requirement."""
    lines = [
        "# Requirements: who holds them",
        "",
        "Written by `python -m tests.specs.register` from `requirements.toml` and the markers in code and",
        "tests; `tests/specs/test_register.py` fails when it is out of date or something in it gets worse.",
        "",
        "| source | level | in scope | code and test | out of scope |",
        "|---|---|---:|---:|---:|",
    ]
    for source in dict.fromkeys(_family(one) for one in register):
        rows = [one for one in register if _family(one) == source]
        for weight in dict.fromkeys(one.weight for one in rows):
            mine = [one for one in rows if one.weight == weight]
            ours = [one for one in mine if not one.out_of_scope]
            held = [one for one in ours if coverage.holds(one)]
            lines.append(f"| {source} | {weight} | {len(ours)} | {len(held)} | {len(mine) - len(ours)} |")
    lines += ["", "## Not held yet", ""]
    open_ = [one for one in register if not one.out_of_scope and not coverage.holds(one)]
    lines += [f"- {one.id} ({one.level}): {one.text} {_missing(one, coverage)}" for one in open_] or [
        "Nothing."
    ]
    lines += ["", "## Out of scope", ""]
    lines += [f"- {one.id} ({one.level}): {one.out_of_scope}" for one in register if one.out_of_scope]
    lines += ["", "## All", "", "| id | level | requirement | code | tests |", "|---|---|---|---|---|"]
    for one in register:
        text = one.text.replace("|", "\\|")
        code, tests = coverage.code.get(one.id, ()), coverage.tests.get(one.id, ())
        lines.append(f"| {one.id} | {one.level} | {text} | {_files(code)} | {_files(tests)} |")
    return "\n".join(lines) + "\n"


def _family(requirement: Requirement) -> str:
    return requirement.source.split(",")[0]


def _missing(requirement: Requirement, coverage: Coverage) -> str:
    parts = [
        name
        for name, found in (("code", coverage.code), ("a test", coverage.tests))
        if requirement.id not in found
    ]
    reason = requirement.gap and f": {requirement.gap}"
    return f"Without {' and '.join(parts)}{reason}"


def _files(paths: tuple[str, ...]) -> str:
    return "<br>".join(path.removeprefix("src/sealwire/").removeprefix("tests/") for path in paths)


def main() -> None:
    """Write the report."""
    register = load()
    REPORT.write_text(report(register, scan(register)))


if __name__ == "__main__":
    main()
