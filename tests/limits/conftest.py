"""A test named after a limit must see that limit counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import pytest

from sealwire.limits import Ledger, Limits

# Those counted under their own name in Ledger.reached; for the others their tests look themselves.
NAMES = {f.name for f in fields(Limits) if "counter" in f.metadata and not f.metadata["counter"]}


@pytest.fixture(autouse=True)
def counted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    reached = set()
    note = Ledger.note

    def noting(self: Ledger, name: str) -> None:
        assert name in NAMES, f"{name} is no limit that is counted so"
        reached.add(name)
        note(self, name)

    monkeypatch.setattr(Ledger, "note", noting)
    yield
    name = request.function.__name__.removeprefix("test_")
    if name in NAMES:
        assert name in reached, f"{name} was not counted"
