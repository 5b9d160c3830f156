"""Whether a row can be believed: the sabotage test, and the checks its turns brought along.

With its crypto turned off a secured row must get cheaper by about what the crypto costs alone,
called directly.  A row that does not is measuring something else; one that gets cheaper by far more
has lost more than its crypto.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sealwire.bench.measurement import Check, Measurement, Role
from sealwire.bench.results import Entry
from sealwire.bench.statistics import summarize

_LEAST_SAVED: Final = 0.2


def sabotage(measurement: Measurement, entries: Sequence[Entry]) -> Check | None:
    """The verdict on `measurement`; None where there is no crypto to turn off."""
    wanted = (Role.OURS, Role.WITHOUT_CRYPTO, Role.CRYPTO_ALONE)
    if not {contender.role for contender in measurement.contenders} >= set(wanted):
        return None
    judged = measurement.crypto_figure
    unit = next(figure.unit for figure in measurement.figures if figure.name == judged)
    medians: dict[Role, float] = {}
    for entry in entries:
        if entry.role in wanted and entry.readings:
            medians[entry.role] = summarize(entry.values(judged)).median
    missing = [role for role in wanted if role not in medians]
    unknown = [entry for entry in entries if entry.role in missing and entry.status != "not present"]
    if unknown or not {Role.OURS, Role.WITHOUT_CRYPTO} <= medians.keys():
        names = " and ".join(role.value for role in missing)
        return Check("sabotage", False, f"not tested, because {names} gave no figure")
    ours, without = medians[Role.OURS], medians[Role.WITHOUT_CRYPTO]
    saved = ours - without
    sentence = f"without crypto {without:.3g} {unit} instead of {ours:.3g}"
    if Role.CRYPTO_ALONE not in medians:
        # Nothing here can say what the crypto costs; that it costs something can still be seen.
        sentence = f"{sentence} (what the crypto costs alone cannot be measured here)"
        return Check("sabotage", saved >= _LEAST_SAVED * ours, sentence)
    alone = medians[Role.CRYPTO_ALONE]
    low, high = measurement.crypto_part
    sentence = f"{sentence}; it saves {saved:.3g}, and the crypto alone costs {alone:.3g}"
    if saved < low * alone:
        return Check("sabotage", False, f"{sentence}: the row does not measure its crypto")
    if saved > high * alone:
        return Check("sabotage", False, f"{sentence}: turning the crypto off removes more than crypto")
    return Check("sabotage", True, sentence)


def merge(entries: Sequence[Entry]) -> list[Check]:
    """The checks of all turns of all contenders: one of each name and contender, failed if any failed."""
    merged: list[Check] = []
    for entry in entries:
        by_name: dict[str, Check] = {}
        for reading in entry.readings:
            for check in reading.checks:
                known = by_name.get(check.name)
                if known is None or known.passed:
                    by_name[check.name] = check
        merged += [
            Check(f"{check.name}, {entry.name}", check.passed, check.sentence) for check in by_name.values()
        ]
    return merged
