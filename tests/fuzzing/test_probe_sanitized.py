"""The sanitized run of the probe's compiled modules, for a few seconds; `probe_sanitized` runs longer."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_captures_and_damage_leave_the_sanitizers_silent() -> None:
    if shutil.which("gcc") is None or importlib.util.find_spec("Cython") is None:
        pytest.skip("absent: gcc or Cython")
    command = [sys.executable, "-m", "tests.fuzzing.probe_sanitized", "20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "nothing found" in done.stdout
