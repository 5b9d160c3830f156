"""Many connections to one server process over sockets, by benchmarks/many.py: every echo comes, and right.

Here some hundred; for the figures of docs/idle.md and T10, as that benchmark says, 10,000 and 100,000.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sealwire.limits.weights import ASLEEP_BYTES, CONNECTION_BYTES

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "many.py"
# What a task, a coroutine and a channel of an asyncio server's take beside each connection, generously.
APPLICATION_BYTES = 6 * 1024


def rows(tmp_path: Path, *options: str) -> list[dict[str, Any]]:
    out = tmp_path / "rows.json"
    command = [sys.executable, str(BENCHMARK), *options, "--json", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    found: list[dict[str, Any]] = json.loads(out.read_text("utf-8"))
    print(*map(json.dumps, found), sep="\n")
    for row in found:
        assert (row["wrong"], row["missing"], row["late"], row["failed"], row["shed"]) == (0, 0, 0, 0, 0)
        assert row["echoes"] > 0
    return found


@pytest.mark.long
def test_each_of_many_echoes_and_memory_is_flat(tmp_path: Path) -> None:
    options = ("--steps", "300", "--everybody", "--seconds", "60", "--rate", "200", "--idle", "3600")
    (row,) = rows(tmp_path, *options)
    assert row["connections"] == row["talking"] == 300
    first, *_, last = row["rss_mib_while_talking"]
    assert last - first < 2.0


@pytest.mark.long
def test_most_of_many_sleep_while_some_echo(tmp_path: Path) -> None:
    small, large = rows(tmp_path, "--steps", "200,1500", "--seconds", "30", "--rate", "200", "--idle", "2")
    assert large["asleep_before"] == large["connections"] == 1500
    # Who spoke is awake at the end, nobody else.
    assert large["asleep_after"] >= large["connections"] - large["talking"]
    assert large["woken"] >= large["talking"]
    assert large["ledger_per_connection"] <= ASLEEP_BYTES + 64 < CONNECTION_BYTES
    grown = (large["rss_mib_idle"] - small["rss_mib"]) * 2**20 / (1500 - 200)
    assert grown < CONNECTION_BYTES + APPLICATION_BYTES
