"""What a mutant is: a security check, and how it is taken away."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One check.

    Attributes:
        check: what is checked, in a few words.
        file: below src/sealwire.
        old: text that is there exactly once.
        new: what replaces it.
        effect: what an attacker or a broken peer could do then.
        tests: files that are to notice.
        twin: the plain-Python twin is what is changed and used.
    """

    check: str
    file: str
    old: str
    new: str
    effect: str
    tests: tuple[str, ...]
    twin: bool = False


def unit(room: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/{room}/test_{name}.py" for name in names)
