"""Columns made by compiled code are those of the flows, to the bit: on captures and on any numbers."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sealwire.probe import Batch, engine, read
from sealwire.probe.dissect.facts import Fact, facts_block
from sealwire.probe.features import FIELDS, HISTORY_BYTES, row_struct
from sealwire.probe.settings import Settings
from tests.vectors.test_probe_captures import LISTED

pytestmark = pytest.mark.skipif(not engine.COMPILED, reason="the compiled modules are not built")


def plain(batch: Batch) -> list[list[bytes]]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "COMPILED", False)
        return batch.columns()


@pytest.mark.parametrize("name", LISTED)
def test_columns_of_captures(shared_data: Path, name: str) -> None:
    for settings in (Settings(dissect=True, tunnels=True), Settings(first_packets=3, active_timeout=1)):
        for batch in read(shared_data / "probe" / name, settings=settings).batches():
            assert batch.columns() == plain(batch)


NUMBER = st.one_of(
    st.integers(0, 20),
    st.integers(0, 2**64 - 1),
    st.sampled_from((2**31, 2**32, 2**32 - 1, 2**53 + 1, 2**63, 2**64 - 1)),
    st.builds(
        lambda shift, more: min((1 << shift) + more, 2**64 - 1), st.integers(0, 63), st.integers(-1, 1)
    ),
)
LETTERS = st.lists(st.sampled_from("SsHhAaDdTtWwGgFfRrIi"), unique=True, max_size=20).map("".join)


def row(numbers: list[int], history: str, protocol: int, version: int) -> bytes:
    left = iter(numbers)
    values: list[int | bytes] = []
    for field in FIELDS:
        if field.code.endswith("s"):
            text = history.encode().ljust(HISTORY_BYTES, b"\0") if field.name == "history_letters" else b""
            values.append(text.ljust(int(field.code[:-1]), b"\x01"))
        elif field.name in ("end_reason", "ip_version", "protocol", "facts_bytes"):
            fixed = {"end_reason": 1, "ip_version": version, "protocol": protocol, "facts_bytes": 0}
            values.append(fixed[field.name])
        else:
            bits = 8 * struct.calcsize("<" + field.code) - field.code.islower()
            values.append(next(left) & ((1 << bits) - 1))
    return row_struct().pack(*values, b"", b"")


ROW = st.builds(
    row,
    st.lists(NUMBER, min_size=len(FIELDS), max_size=len(FIELDS)),
    LETTERS,
    st.sampled_from((1, 6, 17, 47, 58, 132)),
    st.sampled_from((4, 6)),
)


@given(st.lists(ROW, max_size=3))
@example([row([2**64 - 1] * len(FIELDS), "ShR", 6, 4)])
@example([row([3] * len(FIELDS), "", 17, 6)])
def test_columns_of_any_rows(rows: list[bytes]) -> None:
    batch = Batch(b"".join(rows))
    assert batch.columns() == plain(batch)


FACT = st.tuples(
    st.sampled_from([int(fact) for fact in Fact if fact is not Fact.HEAD]), st.binary(max_size=9)
)
BLOCK = st.one_of(
    st.just(b""),
    st.builds(
        facts_block,
        st.sampled_from((0, 1, 2, 5, 32, 0xFFFF)),
        st.sampled_from((0, 1, 2)),
        st.lists(FACT, max_size=6, unique_by=lambda fact: fact[0]),
    ),
)


@given(st.lists(BLOCK, max_size=5))
def test_columns_of_any_facts(blocks: list[bytes]) -> None:
    from sealwire.probe.dissect.table import dissected_columns

    sizes, facts = struct.pack(f"<{len(blocks)}I", *map(len, blocks)), b"".join(blocks)
    compiled = dissected_columns(sizes, facts)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "COMPILED", False)
        try:
            expected = dissected_columns(sizes, facts)
        except struct.error:
            return  # a number wider than its column is nothing the table writes
    assert compiled == expected


def test_without_a_libcrypto_python_dissects_and_names(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealwire.probe import flows

    path = shared_data / "probe/tls-handshake.pcapng"
    compiled = [(batch.columns(), batch.event_data) for batch in read(path, dissect=True).batches()]
    monkeypatch.setattr(engine, "_hashes", lambda: False)
    assert engine.table_for(Settings(dissect=True)) is flows.Table
    assert engine.table_for(Settings()) is engine.Table
    assert [(batch.columns(), batch.event_data) for batch in read(path, dissect=True).batches()] == compiled
