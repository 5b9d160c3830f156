"""The verb `bench`: what it lists, refuses and says; measuring itself is tested in tests/unit/bench."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sealwire import cli
from sealwire.bench import results
from sealwire.bench.rows import ROWS
from sealwire.cli.say import Exit
from sealwire.record import protect
from tests.unit.bench import made
from tests.unit.cli.running import started


@pytest.fixture
def old(tmp_path: Path) -> str:
    path = tmp_path / "old.json"
    results.save(made.run("old", made.World(within=0.002, between=0.002)), path)
    return str(path)


def saved(path: Path, seed: str, slower: dict[str, float] | None = None, machine: str = "here") -> str:
    results.save(made.run(seed, made.World(within=0.002, between=0.002), slower, machine), path)
    return str(path)


def test_list_names_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--json", "bench", "list"]) == Exit.OK
    listed = [json.loads(line)["row"] for line in capsys.readouterr().out.splitlines()]
    assert listed == [one.row_name(figure) for one in ROWS for figure in one.figures]


def test_compare_without_a_change(old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "compare", old, saved(tmp_path / "new.json", "new")]) == Exit.OK
    assert "No row is worse" in capsys.readouterr().out


def test_compare_with_one(old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = saved(tmp_path / "new.json", "new", {"time.4": 1.3})
    written = tmp_path / "compared.md"
    assert cli.main(["bench", "compare", old, new, "--markdown", str(written)]) == Exit.NO
    assert "1 row is WORSE." in capsys.readouterr().out
    assert "| time.4 |" in written.read_text("utf-8")
    assert cli.main(["bench", "compare", old, new, "--time", "0.5"]) == Exit.OK


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["compare", "OLD", "OTHER"], Exit.ENVIRONMENT, "different machines"),
        (["compare", "OLD", "CUT"], Exit.ENVIRONMENT, "not all of it is there"),
        (["compare", "OLD", "FOREIGN"], Exit.ENVIRONMENT, "not a result of sealwire bench"),
        (["compare", "OLD", "NONE"], Exit.ENVIRONMENT, "cannot read"),
        (["compare", "OLD"], Exit.USAGE, "two results"),
        (["compare", "OLD", "OLD", "--time", "15"], Exit.USAGE, "no part between 0 and 1"),
        (["compare", "OLD", "OLD", "--full"], Exit.USAGE, "bench compare has no --full"),
        (["report"], Exit.USAGE, "at least one result"),
        (["report", "CUT"], Exit.ENVIRONMENT, "not all of it is there"),
        (["report", "OTHER", "OLD"], Exit.ENVIRONMENT, "different machines"),
        (["slo", "CUT", "OLD"], Exit.ENVIRONMENT, "no TOML"),
        (["slo", "OLD"], Exit.USAGE, "a file of objectives and a result"),
        (["nonsense"], Exit.USAGE, "no group or row 'nonsense'"),
        (["trial", "record.seal.99"], Exit.USAGE, "no group or row 'record.seal.99'"),
        (["trial", "udp"], Exit.USAGE, "nothing of ours to slow down"),
    ],
)
def test_bad_input_is_one_sentence(
    old: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: Exit,
    words: str,
) -> None:
    files = {"OLD": old, "OTHER": saved(tmp_path / "other.json", "other", machine="there")}
    files |= {name: str(tmp_path / name) for name in ("CUT", "FOREIGN", "NONE")}
    Path(files["CUT"]).write_text(Path(old).read_text("utf-8")[:-200])
    Path(files["FOREIGN"]).write_text('{"machine_info": {}, "benchmarks": []}')
    assert cli.main(["bench", *(files.get(one, one) for one in arguments)]) == code
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["record", "--runs", "3"], "says nothing about noise"), (["record", "--seconds", "0"], "not between")],
)
def test_too_little_to_measure(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *arguments, "--pure-ok"]) == Exit.USAGE
    assert words in capsys.readouterr().err


@pytest.mark.skipif(not protect.COMPILED, reason="the twin is in use everywhere")
def test_the_twin_is_refused_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(protect, "COMPILED", False)
    assert cli.main(["bench", "record"]) == Exit.ENVIRONMENT
    assert "--pure-ok" in capsys.readouterr().err


def test_an_unknown_row_does_not_keep_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["record.seal.64", "record.seal.99", "--no-rivals", "--seconds", "0.01", "--pure-ok"]
    out = tmp_path / "r.json"
    assert cli.main(["bench", *arguments, "--out", str(out)]) == Exit.NO
    said = capsys.readouterr().out
    assert "no group or row 'record.seal.99'" in said
    assert "record.seal.64.wire" in said
    assert [one.name for one in results.load(out).measured] == ["record.seal.64"]


def test_slo_says_what_is_met(old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objectives = tmp_path / "slo.toml"
    objectives.write_text('[[objective]]\nrow = "time.0"\nat_most = 6\n')
    assert cli.main(["bench", "slo", str(objectives), old]) == Exit.OK
    objectives.write_text('[[objective]]\nrow = "time.0"\nat_most = 1\n')
    assert cli.main(["bench", "slo", str(objectives), old]) == Exit.NO
    assert "NOT MET" in capsys.readouterr().out


def test_report_writes_both(old: str, tmp_path: Path) -> None:
    page, text = tmp_path / "r.html", tmp_path / "r.md"
    assert cli.main(["bench", "report", old, "--html", str(page), "--markdown", str(text)]) == Exit.OK
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert text.read_text("utf-8").startswith("# Performance")
    assert cli.main(["bench", "report", old, "--html", str(tmp_path / "no" / "r.html")]) == Exit.ENVIRONMENT


def test_requests_and_answers_beside_rivals(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--size", "64", "--clients", "2", "--duration", "0.3", "--warm-up", "0.1", "--report-every", "0.1"]
    assert cli.main(["--json", "bench", "stcp", "--pure-ok", *few]) == Exit.OK
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    turns = {one["transport"]: one for one in said if one["event"] == "turn"}
    assert set(turns) == {"tcp", "ssl", "stcp"}
    for one in turns.values():
        assert one["errors"] == {}
        assert one["two_way_mb_per_second"] == 2 * one["one_way_mb_per_second"]
    assert any(one["event"] == "report" for one in said)


@pytest.mark.parametrize(
    "wrong",
    [
        ("stcp", "--size", "4"),
        ("stcp", "--clients", "0"),
        ("stcp", "--duration", "0"),
        ("stcp", "--runs", "0"),
        ("stcp", "--messages-per-connection", "0"),
        ("stcp", "--messages-per-connection", "5"),
        ("stcp", "--proto", "tcp", "--no-rivals"),
        ("stcp", "--out", "x.json"),
        ("stcp", "--full"),
        ("stcp", "--seconds", "1"),
        ("stcp", "-p", "1"),
        ("stcp", "-s"),
        ("stcp", "-s", "-c", "localhost", "--certificates", "."),
        ("stcp", "-s", "--certificates", ".", "--proto", "tcp", "--proto", "ssl"),
        ("stcp", "-s", "--certificates", ".", "-p", "65536"),
        ("stcp", "-s", "-t", "5"),
        ("record.seal.64", "--clients", "3"),
    ],
)
def test_requests_that_cannot_be_made(wrong: tuple[str, ...]) -> None:
    assert cli.main(["bench", *wrong, "--pure-ok"]) == Exit.USAGE


@pytest.mark.parametrize("server", ["asyncio", "threaded"])
def test_a_server_on_another_machine(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Here it is this one: certificates made once, a server alone, clients that ask it twice."""
    assert cli.main(["cert", "--dir", str(tmp_path)]) == Exit.OK
    shared = ("--certificates", str(tmp_path))
    with started("bench", "stcp", "-s", "--pure-ok", "-p", "0", "--server", server, *shared) as alone:
        where = ["-c", "localhost", "-p", str(alone.port), *shared]
        few = ["--size", "64", "--clients", "2", "--duration", "0.3", "--warm-up", "0.1"]
        capsys.readouterr()
        for mode in ("steady", "churn"):
            assert cli.main(["--json", "bench", "stcp", "--pure-ok", *where, *few, "--mode", mode]) == Exit.OK
            (turn,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            assert (turn["transport"], turn["errors"], turn["server_cpu"]) == ("stcp", {}, None)
            assert turn["requests"] > 10
        assert alone.stop().code == Exit.OK
    nobody = ["bench", "stcp", "--pure-ok", *where, *few]
    assert cli.main(nobody) == Exit.NO
    assert "only 0 of 2 connections could be made" in capsys.readouterr().err
    assert cli.main(["bench", "stcp", "-s", "--pure-ok", "--certificates", str(tmp_path / "no")]) == 3
    assert "there is no server.pem in" in capsys.readouterr().err


def test_connections_that_do_not_come_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--size", "64", "--clients", "2", "--duration", "0.3", "--proto", "stcp", "--timeout", "0.000001"]
    assert cli.main(["bench", "stcp", "--pure-ok", *few]) == Exit.NO
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("sealwire: STCP: ")
    assert "only 0 of 2 connections could be made: the next one took more than 1e-06 seconds" in said
    assert "use fewer --clients" in said
