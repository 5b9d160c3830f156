"""A pytest plugin that writes docs/interop.md from a run of this directory's tests.

    python -m pytest -p tests.interop.report --interop-report docs/interop.md tests/interop

`make interop` does that, after fetching the peers.  A cell is what the run showed: every test
that shows a feature has passed ("yes"), one failed ("FAILED"), all were skipped ("not run"); or what
tests.interop.features says the peer lacks; or nothing, which is a gap.  Worker processes of
pytest-xdist carry what a test shows in its report, so it does not matter where it ran.
"""

from __future__ import annotations

import datetime
import platform
import ssl
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import sealwire
from tests.interop.features import (
    DATAGRAM_PEERS,
    FEATURES,
    LACKS,
    ONLY_AS,
    ONLY_DATAGRAMS,
    ROLES,
    STREAM_PEERS,
    Role,
)
from tests.interop.programs import peers_directory


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--interop-report", type=Path, metavar="FILE", help="write what was shown with whom")


def pytest_configure(config: pytest.Config) -> None:
    file = config.getoption("--interop-report")
    # Workers report to the process that started them, which alone writes.
    if file is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Report(file), "interop-report")


class Report:
    """Collects outcomes and writes the page at the end."""

    def __init__(self, file: Path) -> None:
        self.file = file
        #: (Peer, feature, their role): outcomes of the tests that show it.
        self.outcomes: defaultdict[tuple[str, str, Role], set[str]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # A skip is reported where it happens, a result after the call; teardown adds failures only.
        if report.when == "call" or report.outcome != "passed":
            for name, value in report.user_properties:
                if name == "shows":
                    peer, feature, role = str(value).split("|")
                    self.outcomes[peer, feature, role].add(report.outcome)

    def pytest_sessionfinish(self) -> None:
        self.file.write_text(render(self.outcomes, versions(), _today()))


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def versions() -> dict[str, str]:
    """What ran, by the name the page gives it."""
    found = {"sealwire": sealwire.__version__}
    for name, directory in (("wolfSSL", "wolfssl"), ("NSS", "nss")):
        complete = peers_directory() / directory / "complete"
        package = complete.read_text().strip() if complete.is_file() else "absent"
        found[name] = f"{package.split(':')[-1]} (Debian's package)"
    try:
        said = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True, timeout=30)
        found["OpenSSL"] = f"{said.stdout.split()[1]} (s_client, s_server)"
        newer = peers_directory() / "openssl" / "complete"
        if newer.is_file():
            package = newer.read_text().strip()
            found["OpenSSL"] += f"; raw public keys and compression with {package} (Debian's package)"
    except (OSError, subprocess.SubprocessError):
        found["OpenSSL"] = "absent"
    found["Python ssl"] = f"{platform.python_version()}, on {ssl.OPENSSL_VERSION.rsplit(' ', 3)[0]}"
    return found


def render(outcomes: dict[tuple[str, str, Role], set[str]], versions: dict[str, str], date: str) -> str:
    """The page; the same outcomes, versions and date give the same bytes."""
    notes: dict[str, int] = {}
    body = [
        *_table("DTLS 1.3 over UDP", DATAGRAM_PEERS, outcomes, notes),
        *_table("TLS 1.3 over TCP (STCP's wire)", STREAM_PEERS, outcomes, notes),
    ]
    lines = [
        "# Interoperability",
        "",
        "What was shown live with software nobody here wrote. `make interop` makes this page: it fetches the",
        "peers, runs `tests/interop` and writes down what passed; nothing on it is written by hand.",
        "",
        f"Run on {date} with:",
        "",
        *(f"- {name} {version}" for name, version in versions.items()),
        "",
        "Columns say which side the *other* program was; sealwire was the other one. *yes*: every test of it",
        "passed; *-*: no test shows it; a number: the peer lacks it, and the note says how that is known.",
        "",
        *body,
    ]
    if notes:
        lines += ["## What peers lack", ""]
        lines += [f"{number}. {note}" for note, number in notes.items()]
        lines += [""]
    return "\n".join(lines)


def _table(
    title: str,
    peers: tuple[str, ...],
    outcomes: dict[tuple[str, str, Role], set[str]],
    notes: dict[str, int],
) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    columns = [(peer, role) for peer in peers for role in ROLES]
    yield "| | " + " | ".join(f"{peer}, {role}" for peer, role in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for section, names in FEATURES.items():
        rows = [name for name in names if peers is DATAGRAM_PEERS or name not in ONLY_DATAGRAMS]
        if rows:
            yield f"| **{section}** |" + " |" * len(columns)
        for name in rows:
            cells = [
                _cell(outcomes.get((peer, name, role), set()), (peer, name, role), notes)
                for peer, role in columns
            ]
            yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""


def _cell(seen: set[str], key: tuple[str, str, Role], notes: dict[str, int]) -> str:
    if "failed" in seen:
        return "FAILED"
    if "passed" in seen:
        return "yes"
    if "skipped" in seen:
        return "not run"
    if ONLY_AS.get(key[1], key[2]) != key[2]:
        return ""
    if key in LACKS:
        note = f"{key[0]}: {LACKS[key]}"
        return str(notes.setdefault(note, len(notes) + 1))
    return "-"
