"""`sealwire probe`: a summary that adds up, forms, sources of settings, one sentence for what goes wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from sealwire import cli
from sealwire.cli import probe
from sealwire.cli.say import Exit
from sealwire.errors import ConfigurationError
from sealwire.probe.settings import Settings, from_environment, from_mapping
from tests.unit.cli import running
from tests.unit.cli.running import one_sentence, sealwire
from tests.unit.probe import packets as p


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "capture.pcap"
    steps = [(n / 10, "|>", p.udp(n, 53, b"x" * n)) for n in range(1, 9)]
    path.write_bytes(p.pcap([*p.conversation(*steps), (p.START, p.ethernet(bytes(30), 0x0806))]))
    return path


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_summary_adds_up(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--json", "probe", "-r", str(capture), "--top", "2"]) == 0
    summary, *top = objects(capsys)
    assert summary["event"] == "summary"
    assert summary["packets"] == 9 == summary["flow_packets"] + summary["discard.not_ip"]
    assert summary["flows"] == summary["exported"] == summary["end.input_end"] == 8
    assert [flow["source_port"] for flow in top] == [8, 7]
    assert cli.main(["probe", "-r", str(capture)]) == 0
    text = capsys.readouterr().out
    assert "8  packets in flows" in text
    assert "1  packets in no flow: not ip" in text
    assert "8  flows ended: input end" in text


@pytest.mark.parametrize("form", ["eve", "csv"])
def test_flows_go_to_a_file_or_to_standard_output(capture: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / f"flows.{form}"
    assert cli.main(["probe", "-r", str(capture), "-w", str(out)]) == 0
    assert out.read_bytes().count(b"\n") == (8 if form == "eve" else 9)
    ended = sealwire("probe", "-r", capture, "--format", form)
    assert ended.code == 0
    assert ended.out == out.read_bytes()
    assert "packets in flows" in ended.err


def test_a_stream_from_standard_input(capture: Path) -> None:
    ended = sealwire("probe", "-r", "-", "--format", "eve", given=capture.read_bytes())
    assert ended.out.count(b"\n") == 8


def test_a_cut_file_gives_what_was_there_and_the_answer_no(
    capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture.write_bytes(capture.read_bytes()[:-3])
    assert cli.main(["--json", "probe", "-r", str(capture)]) == 1
    (summary,) = objects(capsys)
    assert summary["packets"] == 8
    assert summary["note"].startswith("cut short")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-r", "/nonexistent"], 3, "/nonexistent"),
        (["-r", __file__], 3, "neither a pcap nor a pcapng"),
        ([], 2, "nothing to read"),
        (["-i", "no-such-interface"], 3, "no interface 'no-such-interface'"),
        (["-r", "x", "--timeouts", "idle"], 2, "'idle' is not understood"),
        (["-r", "x", "--timeouts", "idle=-1"], 2, "idle_timeout must be above 0"),
        (["-r", "x", "--max-flows", "0"], 2, "max_flows must be from 1"),
        (["-r", "x", "--config", "/nonexistent"], 3, "/nonexistent"),
        (["-r", "x", "--pseudonyms", "/nonexistent"], 3, "/nonexistent"),
        (["-r", "x", "--pseudonyms", "/dev/null"], 2, "16 to 64"),
        (["-r", __file__, "-w", "/nonexistent/flows"], 3, "/nonexistent/flows"),
        (["-r", "-", "--workers", "2"], 2, "only a file"),
        (["-r", "x", "--workers", "0"], 2, "workers must be"),
    ],
)
def test_what_goes_wrong_is_one_sentence(arguments: list[str], code: int, words: str) -> None:
    ended = sealwire("probe", *arguments)
    assert ended.code == code
    assert words in one_sentence(ended)


def test_settings_come_from_toml_the_environment_and_options_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import argparse

    config = tmp_path / "probe.toml"
    config.write_text('[probe]\nidle_timeout = 100\nactive_timeout = "none"\nmax_flows = 5\ntunnels = true\n')
    parser = argparse.ArgumentParser()
    probe.options(parser)
    monkeypatch.setenv("FLOW_TIMEOUT_SECONDS", "200")
    monkeypatch.setenv("DPI_MAX_FLOWS", "6")
    args = parser.parse_args(["--config", str(config), "--max-flows", "7", "--timeouts", "linger=none"])
    import os

    assert probe._settings(args, os.environ) == Settings(
        idle_timeout=200.0, active_timeout=None, linger=None, max_flows=7, tunnels=True, dissect=True
    )


@pytest.mark.parametrize(
    "environment",
    [
        {"FLOW_TIMEOUT_SECONDS": "59"},
        {"FLOW_TIMEOUT_SECONDS": "3601"},
        {"FLOW_TIMEOUT_SECONDS": "soon"},
        {"DPI_MAX_FLOWS": "0"},
        {"MAX_FLOW_TABLE_MB": "1.5"},
        {"FLOW_DECODE_TUNNELS": "maybe"},
    ],
)
def test_the_environment_is_checked_and_named(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(environment))):
        from_environment(environment)


@pytest.mark.parametrize(
    "table", [{"idle": 5}, {"tunnels": 1}, {"max_flows": "many"}, {"max_flows": True}, {"first_packets": 256}]
)
def test_toml_is_checked(table: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        from_mapping(table)


def test_watched_while_it_reads(capture: Path, tmp_path: Path) -> None:
    """What comes on standard input has no end yet, and is counted already."""
    pytest.importorskip("prometheus_client")
    control = tmp_path / "control"
    command = ["--json", "probe", "-r", "-", "--metrics", "127.0.0.1:0", "--control", str(control)]
    process = subprocess.Popen(
        running.command(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        metrics = json.loads(process.stdout.readline())
        assert json.loads(process.stdout.readline())["path"] == str(control)
        process.stdin.write(capture.read_bytes())
        process.stdin.flush()
        page = f"http://127.0.0.1:{metrics['port']}/metrics"
        end = time.monotonic() + running.PATIENCE_SECONDS
        while 'sealwire_probe_packets_total{server="probe"} 9.0' not in (said := _fetched(page)):
            assert time.monotonic() < end, said
            time.sleep(0.05)
        assert 'sealwire_probe_discards_total{reason="not_ip",server="probe"} 1.0' in said
        assert "# TYPE sealwire_probe_active gauge" in said
        assert "sealwire_capture" not in said  # no kernel gave it
        assert _fetched(page.replace("metrics", "readyz")) == "ready\n"
        words = sealwire("status", "--control", control).out.decode()
        assert "probe (probe)" in words
        assert "flow packets" in words
        out, errors = process.communicate(timeout=running.PATIENCE_SECONDS)
        assert (process.returncode, errors) == (0, b"")
        assert json.loads(out)["event"] == "summary"
    assert not control.exists()


def _fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        text: str = answer.read().decode()
        return text


def test_metrics_that_cannot_be_had_end_it(capture: Path) -> None:
    pytest.importorskip("prometheus_client")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = sealwire("probe", "-r", capture, "--metrics", where)
    assert ended.code == Exit.ENVIRONMENT
    assert f"--metrics cannot listen on {where}" in one_sentence(ended)
