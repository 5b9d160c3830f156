"""The corpus, replayed: what fuzzing once needed to get far, and what it found."""

from __future__ import annotations

import importlib.util
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzzing import fuzz
from tests.fuzzing.targets import GROUPS, Script, run

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for path in fuzz.CORPUS.rglob("*") if path.is_file())


def test_every_group_has_a_corpus_and_an_entry() -> None:
    assert set(GROUPS) == set(fuzz.GROUPS) == {path.parent.name for path in FILES}
    assert sum(path.stat().st_size for path in FILES) < 200_000
    assert all(path.stat().st_size <= fuzz.LONGEST for path in FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_replayed(path: Path) -> None:
    run(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("group", GROUPS)
def test_a_few_changes_of_it(group: str) -> None:
    """What `fuzz --blind` does, a little of it, with the same changes every time."""
    chance, corpus = random.Random(group), fuzz.seeds(group)
    for _ in range(100):
        run(group, fuzz.change(chance, chance.choice(corpus), corpus))


def test_a_script_that_is_used_up_says_zero() -> None:
    script = Script(b"\x02\x02ab")
    assert script.byte() == 2
    assert script.piece() == b"ab"
    assert script.over
    assert (script.byte(), script.word(), script.piece()) == (0, 0, b"")


def test_a_finding_is_kept_and_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(data: bytes) -> None:
        raise AssertionError("a promise is broken")

    monkeypatch.setitem(GROUPS, "messages", (broken,))
    monkeypatch.setattr(fuzz, "FOUND", tmp_path)
    assert fuzz.fuzz_blind("messages", 5.0) == 1
    [kept] = tmp_path.iterdir()
    with pytest.raises(AssertionError, match="a promise is broken"):
        run("messages", kept.read_bytes())
    assert str(kept) in capsys.readouterr().out


@pytest.mark.long
def test_the_record_layer_leaves_the_sanitizers_silent() -> None:
    if shutil.which("gcc") is None or importlib.util.find_spec("Cython") is None:
        pytest.skip("absent: gcc or Cython")
    command = [sys.executable, "-m", "tests.fuzzing.records_sanitized", "20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "nothing found" in done.stdout
