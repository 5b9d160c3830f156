"""Questions: what they may not do, what they say when they fail, and the ready views."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from sealwire.errors import ConfigurationError
from sealwire.probe.batch import OFFSETS
from sealwire.probe.dissect.facts import Certainty, Fact, Protocol, facts_block
from sealwire.probe.features import row_struct
from sealwire.probe.seal.intake import Flows
from sealwire.probe.store import Store
from sealwire.probe.store.compaction import compact
from sealwire.probe.store.disk import Folders
from tests.unit.probe import sealing as s
from tests.unit.probe.store import stores

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")

from sealwire.probe.store.query import NoAnswer, Questions


def certificate(days: int, name: str) -> bytes:
    """A server's certificate that ends so many days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=400))
    return (
        builder.not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, SHA256())
        .public_bytes(Encoding.DER)
    )


def https(seconds: float, name: str, ja4: str, der: bytes) -> tuple[bytes, bytes]:
    """A flow with what dissection says of it."""
    values = [(Fact.NAME, name.encode()), (Fact.JA4, ja4.encode()), (Fact.CERTIFICATE, der)]
    block = facts_block(Protocol.TLS, Certainty.CERTAIN, [(int(tag), value) for tag, value in values])
    row = bytearray(s.row(int(seconds)))
    for column, value, width in (("ended", s.moment(seconds).wall, 8), ("facts_bytes", len(block), 4)):
        at = OFFSETS[column][0]
        row[at : at + width] = value.to_bytes(width, "little")
    return bytes(row), block


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with flows of which something is known; half of it compacted."""
    directory: Path = tmp_path_factory.mktemp("query") / "st"
    disk = s.MemoryDisk()
    probe = s.recorder(disk)
    ends, later = certificate(10, "old.example"), certificate(300, "new.example")
    day = 24 * 3600.0
    flows = [
        https(1, "old.example", "t13d1516h2_8daaf6152771_02713d6af862", ends),
        https(2, "old.example", "t13d1516h2_8daaf6152771_02713d6af862", ends),
        https(3 * day, "new.example", "t12d0000_aaaaaaaaaaaa_bbbbbbbbbbbb", later),
    ]
    for number, (row, block) in enumerate(flows, 1):
        probe.take(Flows(row, row_struct().size, block), s.moment(number))
        probe.flush(s.moment(number))
    probe.event(stores.gap(), s.moment(4))
    probe.flush(s.moment(4))
    store = Store(directory, stores.enrolled(), file_bytes=1)
    for segment in s.segments(disk):
        stores.take(store, [segment], segment.header.segment)
    stores.take(store, stores.sealed(2, number=1))
    store.close()
    compact(Folders(directory))
    return directory


def rows(place: Path, sql: str) -> list[dict[str, object]]:
    with Questions(place) as questions:
        answer = questions.ask(sql)
        return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows()]


def test_ready_views(place: Path) -> None:
    (expiring,) = rows(place, "from expiring")
    assert expiring["subject"] == "CN=old.example"
    assert expiring["days_left"] in (9, 10)
    assert expiring["seen"] == 2
    (ja4,) = rows(place, "from new_ja4")
    assert ja4["ja4"] == "t12d0000_aaaaaaaaaaaa_bbbbbbbbbbbb"
    assert ja4["server_name"] == "new.example"
    (gap,) = rows(place, "from gaps")
    assert (gap["reason"], gap["lost_events"]) == ("queue_full", 3)
    assert {row["application"] for row in rows(place, "from protocols")} >= {"tls"}
    talkers = rows(place, "from top_talkers")
    assert talkers == sorted(talkers, key=lambda row: -row["sent_bytes"] - row["received_bytes"])  # type: ignore[operator]
    probes = {row["probe"]: row for row in rows(place, "from probes")}
    assert probes[s.key(0).id.hex()]["late"]  # it did not say that it stopped, and that is long ago
    assert probes[s.key(1).id.hex()]["stopped"]
    assert [row["probe"] for row in rows(place, "from late_probes")] == [s.key(0).id.hex()]


def test_what_is_not_compacted_is_in_the_answer_or_said_to_be_missing(place: Path) -> None:
    with Questions(place) as fresh, Questions(place, fresh=False) as stale:
        both = [
            next(questions.ask("select count(*) from segments").rows())[0] for questions in (fresh, stale)
        ]
        assert both[0] > both[1]
        assert stale.uncompacted_bytes == fresh.uncompacted_bytes > 0


def test_times_keep_their_nanoseconds(place: Path) -> None:
    found = rows(
        place, "select epoch_ns(ended) n, ended from flows where ended < timestamp '2026-01-01' limit 1"
    )
    assert isinstance(found[0]["n"], int)
    text = str(found[0]["ended"])
    whole, _, digits = text.partition(".")
    seconds = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.UTC).timestamp()
    assert int(seconds) * 1_000_000_000 + int(digits.ljust(9, "0") or "0") == found[0]["n"]


FORBIDDEN = [
    "copy flows to '{secret}.out'",
    "copy (select 1) to '{store}/store'",
    "attach '{secret}.db'",
    "attach '{store}/x.db' as x",
    "install httpfs",
    "load httpfs",
    "export database '{secret}.d'",
    "create table x as select 1",
    "create secret (type s3)",
    "drop view flows",
    "delete from flows",
    "insert into flows select * from flows",
    "update flows set row = 1",
    "set memory_limit = '90GB'",
    "set enable_external_access = true",
    "reset enable_external_access",
    "pragma database_list",
    "call pragma_version()",
    "prepare x as select 1",
    "begin",
    "checkpoint",
    "use memory",
    "select 1; copy flows to '{secret}.out'",
    "explain analyze copy flows to '{secret}.out'",
    "select * from '{secret}'",
    "select * from read_csv('{secret}')",
    "select * from read_text('{secret}')",
    "select * from read_blob('/proc/self/environ')",
    "select * from read_json('{secret}')",
    "select * from read_parquet('{store}/*/*.parquet')",
    "select * from parquet_metadata('{store}/x.parquet')",
    "select * from glob('/etc/*')",
    "select * from sniff_csv('{secret}')",
    "from query('copy flows to ''{secret}.out''')",
    "from query_table('{secret}')",
    "select * from sealed",
    "select getenv('HOME')",
    "select * from duckdb_secrets()",
    "",
    ";",
    "-- nothing",
]


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_a_question_reads_the_store_and_nothing_else(place: Path, tmp_path: Path, sql: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a,b\n1,2\n")
    sealed = __import__("pyarrow").table({"a": [1]})  # a variable that is not the question's to see
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    with Questions(place) as questions:
        with pytest.raises(NoAnswer) as refused:
            list(questions.ask(sql.format(secret=secret, store=place)).rows())
        assert "\n" not in str(refused.value)
        # It goes on answering.
        assert next(questions.ask("select count(*) from segments").rows())[0] > 0
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert sealed is not None


@pytest.mark.parametrize(
    "sql", ["selec 1", "select x from flows", "from nothing", "select 1/'a'", "select '", "\0"]
)
def test_wrong_questions_get_one_sentence(place: Path, sql: str) -> None:
    with Questions(place) as questions, pytest.raises(NoAnswer) as refused:
        list(questions.ask(sql).rows())
    assert str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_long_question_can_be_ended(place: Path) -> None:
    import threading

    with Questions(place) as questions:
        timer = threading.Timer(0.3, questions.interrupt)
        timer.start()
        with pytest.raises(NoAnswer):
            list(
                questions.ask(
                    "select count(*) from range(1000000000) a, range(1000000) b where a.range*b.range%7=3"
                ).rows()
            )
        timer.join()


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no store"):
        Questions(tmp_path)


def test_files_that_vanish_meanwhile(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction joined what a reader had found: it looks again."""
    real, left = Questions._dataset, [2]

    def vanishing(self: Questions, table: str, paths: object) -> object:
        if left[0]:
            left[0] -= 1
            raise FileNotFoundError(table)
        return real(self, table, paths)  # type: ignore[arg-type]

    monkeypatch.setattr(Questions, "_dataset", vanishing)
    assert rows(place, "select count(*) n from segments")[0]["n"]
    left[0] = 100
    with pytest.raises(FileNotFoundError):
        Questions(place)
