"""What every test may ask for: shared data, other programs, and an honest count of what was absent.

A test that needs something this machine may not have asks for it here, so that the reason for a
skip always begins with "absent:" and the last lines of a run say how many tests did not run for
that reason.  With SEALWIRE_REQUIRE_PEERS=1 (continuous integration) an absent program fails.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

# No deadline: the machines that run these tests are shared, and time is measured elsewhere.
hypothesis.settings.register_profile("test", deadline=None, max_examples=60)
hypothesis.settings.register_profile("long", deadline=None, max_examples=1_000)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=5_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Directory of third-party captures and vectors: $SEALWIRE_SHARED/data or ../shared/data."""
    shared = Path(os.environ.get("SEALWIRE_SHARED") or ROOT.parent / "shared")
    if not (shared / "data").is_dir():
        pytest.skip("absent: shared data (set SEALWIRE_SHARED or place it beside the repository)")
    return shared / "data"


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Path of another program, such as ``program("openssl")``; skips where it is not installed."""

    def find(name: str) -> str:
        found = shutil.which(name)
        if found is None:
            if os.environ.get("SEALWIRE_REQUIRE_PEERS") == "1":
                pytest.fail(f"{name} is not installed and SEALWIRE_REQUIRE_PEERS=1")
            pytest.skip(f"absent: {name}")
        return found

    return find


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons: Counter[str] = Counter()
    for report in terminalreporter.getreports("skipped"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if "absent" in reason:
            reasons[reason.removeprefix("Skipped: ").removeprefix("absent: ")] += 1
    if reasons:
        terminalreporter.write_sep("-", f"{reasons.total()} tests did not run: data or a peer is absent")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5}  {reason}")
    else:
        terminalreporter.write_line("0 tests skipped for absent data or peers")
