"""The ledger against what the kernel says this process has: within a tenth, above 50 MB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_the_ledger_says_what_the_process_holds() -> None:
    """Idle peers, half-open ones, and peers whose data nobody reads: each kind, and all together."""
    command = [sys.executable, "-m", "tests.limits.held", "3000", "1500", "500"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    held = json.loads(done.stdout)
    print(done.stdout)
    total = {name: sum(kind[name] for kind in held.values()) for name in ("rss", "ledger")}
    assert total["rss"] > 50 * 1000 * 1000
    for name, kind in (*held.items(), ("together", total)):
        assert 0.9 <= kind["ledger"] / kind["rss"] <= 1.1, (name, kind)
