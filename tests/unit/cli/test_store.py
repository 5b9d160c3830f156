"""`sealwire store`, `query`, `prove --row`, `verify` of a store: as a new user types them, mistakes too."""

from __future__ import annotations

import csv
import errno
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sealwire import cli
from sealwire.probe.store.disk import Folders
from tests.unit.cli.running import one_sentence, sealwire
from tests.unit.probe import packets as p

pytest.importorskip("duckdb")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture sealed and imported: keys, spool and store."""
    path: Path = tmp_path_factory.mktemp("store")
    steps = [(n / 10, "|>", p.udp(n, 53, b"x" * n)) for n in range(1, 9)]
    (path / "capture.pcap").write_bytes(p.pcap(p.conversation(*steps)))
    for key in ("probe.key", "collector.key"):
        assert cli.main(["keygen", str(path / key)]) == 0
    sealing = [
        "probe",
        "-r",
        str(path / "capture.pcap"),
        "--sign",
        str(path / "probe.key"),
        "-w",
        str(path / "spool"),
    ]
    assert cli.main(sealing) == 0
    assert cli.main(_import(path)) == 0
    return path


def _import(path: Path) -> list[str]:
    return ["store", "import", str(path / "spool"), str(path / "st"), "--key", str(path / "probe.key.pub")]


def objects(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert cli.main(["--json", *arguments]) == code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_from_a_capture_to_a_proved_row(
    made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store, key = str(made / "st"), str(made / "probe.key.pub")
    for compacted in (False, True):
        if compacted:
            (done,) = objects(capsys, "store", "compact", "--all", store)
            assert done["rows"] == 10  # eight flows, a start and a stop
        *rows, answer = objects(capsys, "query", "select row, source_port from flows", "--store", store)
        assert answer["rows"] == 8
        for row in rows:
            out = tmp_path / f"{row['values']['row']}.proof"
            arguments = ("prove", "--row", str(row["values"]["row"]), "--store", store, "-o", str(out))
            (proof,) = objects(capsys, *arguments)
            assert proof["event"] == "proof"
            proved, event = objects(capsys, "verify", str(out), "--key", key)
            assert proved["sequence"] == proof["sequence"]
            assert event["sealed_source_port"] == row["values"]["source_port"]
    (verified,) = objects(capsys, "verify", store, "--key", key)
    assert verified["good"]
    assert verified["flows"] == 8
    (again,) = objects(capsys, *_import(made))
    assert (again["segments"], again["events"]) == (0, 0)
    assert again["known"] > 1
    (probe,) = objects(capsys, "store", "show", store)
    assert probe["rows"] == 10


def test_forms_of_an_answer(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(made / "st")
    ask = ["query", "select source_port, source, null nothing from flows order by 1", "--store", store]
    capsys.readouterr()
    assert cli.main([*ask, "--csv"]) == 0
    table = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert table[0] == ["source_port", "source", "nothing"]
    assert [row[0] for row in table[1:]] == [str(n) for n in range(1, 9)]
    assert cli.main([*ask, "--format", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["source_port"] for line in lines] == list(range(1, 9))
    assert cli.main([*ask, "--rows", "3"]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 4
    assert "the first 3 rows" in shown.err
    assert cli.main(["query", "select chr(27) || '[2J' as name", "--store", store]) == 0
    assert "\\x1b[2J" in capsys.readouterr().out
    tables = objects(capsys, "query", "--tables", "--store", store)
    assert {"flows", "segments", "top_talkers", "late_probes"} <= {table["name"] for table in tables}
    found = objects(capsys, "query", "from gaps", "--store", store)
    assert found == [found[-1]]


def test_retention_is_signed(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store, key = tmp_path / "st", str(made / "probe.key.pub")
    shutil.copytree(made / "st", store)
    objects(capsys, "store", "compact", "--all", str(store))
    sign = ("--sign", str(made / "collector.key"))
    (kept,) = objects(capsys, "store", "retain", str(store), "--days", "1", *sign)
    assert kept["segments"] == 0
    (removed,) = objects(capsys, "store", "retain", str(store), "--days", "0.00000001", *sign)
    assert removed["events"] == 10
    capsys.readouterr()
    assert cli.main(["query", "select count(*) from flows", "--store", str(store)]) == 0
    assert "removed by retention" in capsys.readouterr().err
    assert "was removed by retention" in one_sentence(sealwire("prove", "--row", "3", "--store", str(store)))
    (shown,) = objects(capsys, "store", "show", str(store))
    assert len(shown["removed_hash"]) == 64
    assert key


MISTAKES = [
    (("query",), 2, "a question or --tables"),
    (("query", "from flows"), 2, "no store is named"),
    (("query", "from flows", "--store", "{nowhere}"), 3, "there is no directory"),
    (("query", "from flows", "--store", "{spool}"), 3, "is no store"),
    (("query", "from flow", "--store", "{store}"), 1, "flow does not exist"),
    (("query", "drop table flows", "--store", "{store}"), 1, "a store answers questions"),
    (("query", "from flows", "--store", "{store}", "--csv", "--format", "json"), 2, "different things"),
    (("query", "from flows", "--store", "{store}", "--rows", "0"), 2, "more than 0"),
    (("prove",), 2, "nothing says what to prove"),
    (("prove", "--row", "1"), 2, "no store is named"),
    (("prove", "--row", "99999", "--store", "{store}"), 1, "there is no event 99999"),
    (("prove", "--row", "-1", "--store", "{store}"), 2, ""),
    (("prove", "--row", "999999999999999999", "--store", "{store}"), 1, "there is no row"),
    (("prove", "--row", "1", "--store", "{spool}"), 3, "is no store"),
    (("prove", "{store}", "1"), 2, "is a store"),
    (("prove", "{spool}", "1", "--row", "1"), 2, "--row is a row of a store"),
    (("store", "show", "{nowhere}"), 3, "there is no directory"),
    (("store", "compact", "{spool}"), 3, "is no store"),
    (("store", "retain", "{store}", "--sign", "{key}"), 2, "nothing says what may go"),
    (("store", "retain", "{store}", "--days", "1", "--sign", "{nowhere}"), 3, "No such file"),
    (("store", "retain", "{store}", "--days", "-1", "--sign", "{key}"), 2, "more than 0"),
    (("store", "import", "{spool}", "{store}", "--key", "{other}"), 1, "another probe's segment"),
    (("store", "import", "{spool}", "{spool}", "--key", "{pub}"), 3, "is no store, and not empty"),
    (("store", "import", "{nowhere}", "{store}", "--key", "{pub}"), 3, "No such file"),
    (("store",), 2, ""),
]


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES)
def test_mistakes(
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    monkeypatch.delenv("SEALWIRE_STORE", raising=False)
    places = {
        **{"nowhere": made / "nowhere", "spool": made / "spool", "store": made / "st"},
        **{"key": made / "collector.key", "pub": made / "probe.key.pub", "other": made / "collector.key.pub"},
    }
    capfd.readouterr()
    assert cli.main([word.format(**places) for word in arguments]) == code
    told = capfd.readouterr()
    assert words in told.err + told.out
    assert "Traceback" not in told.err + told.out


def test_a_full_disk(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused in one sentence, nothing half stored, and it goes on where there is room."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    arguments = [*_import(made)]
    arguments[3] = str(tmp_path / "st")
    for method in ("append", "sync", "create"):
        with monkeypatch.context() as patch:
            patch.setattr(Folders, method, full)
            capsys.readouterr()
            assert cli.main(arguments) == 3
            said = capsys.readouterr().err
            assert said == "sealwire: the disk of the store is full; make room and do it again\n"
    assert cli.main(arguments) == 0
    assert cli.main(["verify", str(tmp_path / "st"), "--key", str(made / "probe.key.pub")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr("sealwire.probe.store.compaction.sync_folder", full)
        capsys.readouterr()
        assert cli.main(["store", "compact", "--all", str(tmp_path / "st")]) == 3
        assert "make room" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.new"))
    assert cli.main(["store", "compact", "--all", str(tmp_path / "st")]) == 0
