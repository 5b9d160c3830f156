"""Debian's Prometheus scrapes a server of ours, and promtool has nothing to say against the metrics."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import certificates
from tests.interop import programs
from tests.unit.drive.harness import free_port

ROOT = Path(__file__).resolve().parents[2]


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def checked(promtool: str, text: str) -> tuple[int, str]:
    """Exit code and words of `promtool check metrics`."""
    command = [promtool, "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def metrics() -> Iterator[str]:
    """``host:port`` of the metrics of a server in a process of its own, which has met a client."""
    pytest.importorskip("prometheus_client")
    identity = certificates.server()
    command = [sys.executable, "-m", "sealwire.cli", "--json", "serve", "--listen", "127.0.0.1:0", "--echo"]
    command += ["--cert", str(identity.certfile), "--key", str(identity.keyfile), "--metrics", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            listening = json.loads(process.stdout.readline())
            told = json.loads(process.stdout.readline())
            assert told["event"] == "metrics"
            client = [sys.executable, "-m", "sealwire.cli", "connect", f"127.0.0.1:{listening['port']}"]
            client += ["--cafile", str(identity.cafile), "--servername", "localhost"]
            done = subprocess.run(client, input=b"hello", capture_output=True, timeout=60, check=True)
            assert done.stdout == b"hello"
            yield f"127.0.0.1:{told['port']}"
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
            assert process.returncode == 0
        finally:
            process.kill()


def test_promtool_finds_nothing(metrics: str) -> None:
    promtool = programs.prometheus("promtool")
    text = fetched(f"http://{metrics}/metrics")
    assert 'sealwire_endpoint_handshakes_completed_total{server="dtls"} 1.0' in text
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_promtool_would_find_something(metrics: str) -> None:
    """The check above can fail."""
    bad = "# TYPE latency_milliseconds counter\nlatency_milliseconds 1\n"
    promtool = programs.prometheus("promtool")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=bad, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0


def test_prometheus_scrapes(metrics: str, tmp_path: Path) -> None:
    port = free_port(1)
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "scrape_configs:\n  - job_name: sealwire\n    scrape_interval: 1s\n"
        f'    static_configs:\n      - targets: ["{metrics}"]\n'
    )
    command = [
        programs.prometheus("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
    ]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            end = time.monotonic() + 60
            found: list[Any] = []
            query = f"http://127.0.0.1:{port}/api/v1/query?query="
            while time.monotonic() < end and not found:
                time.sleep(0.5)
                try:
                    answer = json.loads(fetched(query + "sealwire_endpoint_handshakes_completed_total"))
                except (urllib.error.URLError, ConnectionError):
                    continue  # it is starting
                found = answer["data"]["result"]
            (series,) = found
            assert series["value"][1] == "1"
            assert series["metric"]["server"] == "dtls"
            buckets = json.loads(
                fetched(query + "histogram_quantile(0.5,sealwire_endpoint_handshake_seconds_bucket)")
            )
            (median,) = buckets["data"]["result"]
            assert 0 < float(median["value"][1]) < 60
            (up,) = json.loads(fetched(f"{query}up"))["data"]["result"]
            assert up["value"][1] == "1"
        finally:
            process.terminate()
            process.communicate(timeout=30)
