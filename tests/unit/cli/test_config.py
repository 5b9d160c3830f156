"""Configuration files: what is wrong is named, what is right is used, units and rules are what they say."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sealwire import cli
from sealwire.cli import config, configured
from tests.interop import programs
from tests.unit.probe import packets as p

ROOT = Path(__file__).resolve().parents[3]


def checked(capsys: pytest.CaptureFixture[str], path: Path, text: str, code: int) -> list[dict[str, Any]]:
    path.write_text(text)
    capsys.readouterr()
    assert cli.main(["--json", "config", "check", str(path)]) == code
    *problems, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert last["problems"] == len(problems)
    assert last["good"] is (code == 0)
    return problems


@pytest.fixture
def key(tmp_path: Path) -> Path:
    assert cli.main(["keygen", str(tmp_path / "probe.key")]) == 0
    return tmp_path / "probe.key"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in config.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


def test_a_good_one(tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"""
[probe]
interface = "eth0"
sign = "{key}"
spool = "{tmp_path}/spool"
idle_timeout = 120
active_timeout = "none"
max_flows = 500_000
health = 30
no_dissection = true
when_full = "drop"

[collector]
listen = "[::]:5555"
sign = "{key}"
out = "{tmp_path}/store"
keep_days = 30
"""
    assert checked(capsys, tmp_path / "c.toml", text, 0) == []


WRONG = [
    ("[probe]\nintreface = 'eth0'", "[probe] intreface", "did you mean interface?"),
    ("[probe]\nzzz = 1", "[probe] zzz", "there is no such key"),
    ("[probe]\nmax_flows = 0", "[probe] max_flows", "from 1 to"),
    ("[probe]\nidle_timeout = -4", "[probe] idle_timeout", "above 0"),
    ("[probe]\nhealth = 5", "[probe] health", "from 10 to 3600"),
    ("[probe]\nhealth = 'often'", "[probe] health", "a number"),
    ("[probe]\nheartbeat = true", "[probe] heartbeat", "no value"),
    ("[probe]\nno_dissection = 'yes'", "[probe] no_dissection", "true or false"),
    ("[probe]\nwhen_full = 'panic'", "[probe] when_full", "one of wait, drop"),
    ("[probe]\nto = 'nowhere'", "[probe] to", ""),
    ("[probe]\nto = ['a:1', 'b:2']", "[probe] to", "one value"),
    ("[probe]\nread = 'x.pcap'", "[probe] read", "there is no such key"),
    ("[probe]\nsign = 'probe.key'", "[probe] sign", "no absolute path"),
    ("[probe]\nsign = '/nowhere/probe.key'", "[probe] sign", "there is no"),
    ("[probe]\nspool = '/proc/spool'", "[probe] spool", "cannot be written"),
    ("[collector]\nkeep_days = 0", "[collector] keep_days", "from 0.001"),
    ("[collector]\nmemory = 0", "[collector] memory", "from 1"),
    ("[collectors]\nmemory = 1", "c.toml", "is no table of a configuration"),
    ("memory = 1", "c.toml", "is no table of a configuration"),
]


@pytest.mark.parametrize(("text", "where", "words"), WRONG)
def test_what_is_wrong_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, where: str, words: str
) -> None:
    (problem,) = checked(capsys, tmp_path / "c.toml", text, 1)
    assert problem["where"].endswith(where)
    assert words in problem["message"]


def test_several_are_all_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = checked(capsys, tmp_path / "c.toml", "[probe]\na = 1\nhealth = 1\n[collector]\nb = 2\n", 1)
    assert [problem["where"] for problem in problems] == ["[probe] a", "[probe] health", "[collector] b"]


def test_a_signing_key_that_others_can_read(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key.chmod(0o644)
    (problem,) = checked(capsys, tmp_path / "c.toml", f"[probe]\nsign = '{key}'", 1)
    assert "chmod 600" in problem["message"]


ENVIRONMENT = [
    ("MAX_BUFFER_SIZE_MB", "0", "from 1 to 10000"),
    ("MAX_BUFFER_SIZE_MB", "much", "no number"),
    ("HEALTH_REPORT_INTERVAL_SECONDS", "9", "from 10 to 3600"),
    ("FLOW_TIMEOUT_SECONDS", "30", "from 60 to 3600"),
    ("BUFFER_DIR", "spool", "no absolute path"),
]


@pytest.mark.parametrize(("name", "value", "words"), ENVIRONMENT)
def test_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    assert cli.main(["config", "check"]) == 1
    said = capsys.readouterr().out
    assert f"${name}" in said
    assert words in said


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("config",), 2),
        (("config", "check", "/nowhere.toml"), 3),
        (("config", "units", "/nowhere/at/all"), 3),
        (("config", "rules", "-o", "/nowhere/at/all"), 3),
        (("--json", "config", "rules"), 2),
        (("probe", "--config", "/nowhere.toml"), 3),
        (("collect", "--config", "/nowhere.toml"), 3),
    ],
)
def test_mistakes(arguments: tuple[str, ...], code: int) -> None:
    assert cli.main(arguments) == code


def test_no_toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data in (b"[probe\n", b"\xff\xfe"):
        (tmp_path / "c.toml").write_bytes(data)
        assert cli.main(["config", "check", str(tmp_path / "c.toml")]) == 2
    assert "is no TOML" in capsys.readouterr().err


def test_a_file_configures_the_probe_and_options_win(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture = tmp_path / "capture.pcap"
    steps = [(n / 10, "|>", p.udp(n, 53, b"x" * n)) for n in range(1, 9)]
    capture.write_bytes(p.pcap(p.conversation(*steps)))
    file = tmp_path / "probe.toml"
    file.write_text(
        f"[probe]\ninterface = 'nowhere0'\nsign = '{key}'\nspool = '{tmp_path}/spool'\nmax_flows = 4\n"
    )
    capsys.readouterr()
    assert cli.main(["--json", "probe", "--config", str(file), "-r", str(capture)]) == 0
    said = {line["event"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert said["summary"]["peak"] == 4
    assert said["sealed"]["head"]
    assert cli.main(["--json", "probe", "--config", str(file), "-r", str(capture), "--max-flows", "6"]) == 0
    said = {line["event"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert said["summary"]["peak"] == 6
    file.write_text("[probe]\nmax_flow = 4\n")
    assert cli.main(["probe", "--config", str(file), "-r", str(capture)]) == 2
    assert "did you mean max_flows?" in capsys.readouterr().err


def test_words_before_the_users_own() -> None:
    assert configured.expanded(["--json", "verify", "--config", "x"]) == ["--json", "verify", "--config", "x"]
    assert configured.expanded([]) == []
    assert configured.expanded(["probe", "-r", "x"]) == ["probe", "-r", "x"]


def test_units_are_what_systemd_understands(tmp_path: Path) -> None:
    assert cli.main(["config", "units", str(tmp_path)]) == 0
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd here")
    probe = tmp_path / "sealwire-probe@eth0.service"
    shutil.copy(tmp_path / "sealwire-probe@.service", probe)
    for unit in (probe, tmp_path / "sealwire-collect.service"):
        # The program need not be installed where systemd looks for it.
        unit.write_text(
            unit.read_text().replace("=sealwire ", "=/bin/true ").replace("=kill ", "=/bin/true ")
        )
        done = subprocess.run([program, "verify", unit], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr
        command = [program, "security", "--offline=true", "--threshold=25", str(unit)]
        judged = subprocess.run(command, capture_output=True, text=True, check=False)
        assert judged.returncode == 0, judged.stdout[-400:]


def test_a_unit_names_options_that_there_are(tmp_path: Path) -> None:
    assert cli.main(["config", "units", str(tmp_path)]) == 0
    for name, verb in (("sealwire-probe@.service", "probe"), ("sealwire-collect.service", "collect")):
        options = {o for action in configured.actions(verb).values() for o in action.option_strings}
        for line in (tmp_path / name).read_text().splitlines():
            if line.startswith("ExecStart="):
                words = [word for word in line.split() if word.startswith("--") and word != "--config"]
                assert words
                assert set(words) <= options


def test_rules_for_prometheus(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    out = tmp_path / "rules.yml"
    assert cli.main(["config", "rules", "-o", str(out)]) == 0
    text = out.read_text()
    assert text.count("- alert:") == 5
    assert "mitigation" in text
    promtool = programs.prometheus("promtool")
    done = subprocess.run([promtool, "check", "rules", out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="captures on the loopback interface")
def test_signals_of_a_service_manager(tmp_path: Path, key: Path) -> None:
    """SIGHUP: an orderly end, and the process begins again with its configuration; SIGTERM: an end."""
    file, log = tmp_path / "probe.toml", tmp_path / "log"
    lines = f"[probe]\ninterface = 'lo'\nsign = '{key}'\nspool = '{tmp_path}/spool'\nfilter = 'udp port 9'\n"
    file.write_text(lines + "health = 60\n")
    program = [sys.executable, "-m", "sealwire.cli", "--json"]
    with log.open("wb") as out:
        process = subprocess.Popen([*program, "probe", "--config", str(file)], stdout=out, stderr=out)
    try:
        if not _until(log, "capturing", 1):
            pytest.skip("nothing may be captured here")
        file.write_text(lines + "max_flows = 7\nhealth = 10\n")
        process.send_signal(signal.SIGHUP)
        assert _until(log, "capturing", 2), log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    ended = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert ended == ["capturing", "summary", "sealed"] * 2
    verify = ["verify", str(tmp_path / "spool"), "--key", f"{key}.pub"]
    done = subprocess.run([*program, *verify], capture_output=True, check=False)
    verified = json.loads(done.stdout.splitlines()[-1])
    assert verified["good"]
    assert (verified["boots"], verified["gaps"]) == (2, 0)


def _until(log: Path, event: str, times: int) -> bool:
    """Wait until a log has an event so often; False if the program ends with an error instead."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = [json.loads(line)["event"] for line in log.read_text().splitlines() if line.startswith("{")]
        if found.count(event) >= times:
            return True
        if "error" in found:
            return False
        time.sleep(0.1)
    return False
