"""`sealwire doctor`: words, objects and exit codes."""

from __future__ import annotations

import json

import pytest

from sealwire.cli import doctor, main
from sealwire.drive.fitness import Finding, Grade

FINDINGS = {
    0: [Finding("a", Grade.GOOD, "fine"), Finding("b", Grade.ADVICE, "small", "make it larger")],
    1: [Finding("a", Grade.GOOD, "fine"), Finding("c", Grade.LACKING, "not there", "install it")],
}


@pytest.mark.parametrize("code", [0, 1])
def test_the_exit_code_says_whether_something_is_lacking(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda *_: FINDINGS[code])
    assert main(["doctor"]) == code
    words = capsys.readouterr().out
    assert "ok  fine" in words
    assert f"2 things looked at: {code} lacking, advice on {1 - code}" in words
    assert main(["doctor", "--json"]) == code
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["finding", "finding", "summary"]
    assert events[1]["step"] == FINDINGS[code][1].step
    assert events[2]["lacking"] == code


def test_on_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) in (0, 1)
    assert "things looked at" in capsys.readouterr().out
