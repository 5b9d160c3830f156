"""What libFuzzer found worth keeping (`python -m tests.fuzzing.libfuzzer`), given to both twins."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from sealwire.probe import read
from sealwire.probe.files import CaptureError
from sealwire.probe.settings import Settings
from tests.fuzzing.libfuzzer.layout import FIRST_FORTH, SMALL_LIMIT, encoded, steps
from tests.unit.probe.dissect import hellos
from tests.unit.probe.packets import TABLES
from tests.unit.probe.twins import same

CORPUS = Path(__file__).parent / "libfuzzer/corpus"
SMALL = Settings(dissect=True, max_dissection_bytes=65_536)


def files(*groups: str) -> list[Path]:
    return [path for group in groups for path in sorted((CORPUS / group).iterdir())]


def capture_of(data: bytes) -> bytes:
    protocol, port, packets = steps(data)
    if protocol == 6:
        return hellos.tcp_stream([(way, max(at, 0), payload) for way, at, payload in packets], port=port)
    return hellos.datagrams([(way, payload) for way, _, payload in packets], port=port)


def test_a_corpus_file_is_read_as_it_is_written() -> None:
    packets = [(False, b"one"), (True, b"two"), (False, b"three")]
    assert steps(encoded(6, 80, packets)) == (
        *(6, 80),
        [(">", 0, b"one"), ("<", 0, b"two"), (">", 3, b"three")],
    )
    assert FIRST_FORTH > 3 > SMALL_LIMIT / 1_000


@pytest.mark.skipif(len(TABLES) == 1, reason="the compiled modules are not built")
@pytest.mark.parametrize("group", ["hellos", "messages"])
def test_both_desks_agree_on_the_corpus(group: str) -> None:
    assert len(files(group)) > 20
    for path in files(group):
        walked = same(capture_of(path.read_bytes()), SMALL)
        assert walked.counters["dissection_bytes"] == 0, path.name


@pytest.mark.skipif(len(TABLES) == 1, reason="the compiled modules are not built")
def test_both_tables_agree_on_the_corpus_of_captures() -> None:
    assert len(files("walk")) > 20
    for path in files("walk"):
        data = path.read_bytes()[1:]
        same(data, Settings(dissect=True, tunnels=True).without_timeouts())
        try:
            for batch in read(io.BytesIO(data), dissect=True).batches():
                batch.columns()
        except CaptureError:
            continue
