"""Others read what the probe writes: jq, DuckDB, pandas, Polars."""

from __future__ import annotations

import importlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealwire.probe import Batch, Flow, read, to_arrow
from sealwire.probe.write import SINKS
from tests.unit.probe.test_outputs import mixed

Captured = tuple[Path, list[Flow]]


def module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"absent: {name}")


@pytest.fixture
def captured(tmp_path: Path) -> Captured:
    path = tmp_path / "capture.pcap"
    path.write_bytes(mixed())
    return path, list(read(path))


def written(captured: Captured, form: str) -> Path:
    out = captured[0].with_suffix(f".{form}")
    with out.open("wb") as file:
        sink = SINKS[form](file)
        for batch in read(captured[0]).batches():
            sink.write(batch)
        sink.close()
    return out


def test_jq_reads_our_lines(captured: Captured, program: Callable[[str], str]) -> None:
    command = [
        program("jq"),
        "-c",
        "[.flow_id, .src_ip, .flow.pkts_toserver, .community_id, .sealwire.first_packet]",
    ]
    out = subprocess.run([*command, str(written(captured, "eve"))], capture_output=True, check=True).stdout
    assert [json.loads(line) for line in out.splitlines()] == [
        [flow.flow_id, flow.source, flow.forward_packets, flow.community_id, flow.first_packet]
        for flow in captured[1]
    ]


def test_duckdb_reads_our_parquet(captured: Captured) -> None:
    module("pyarrow")
    duckdb = module("duckdb")
    path = written(captured, "parquet")
    query = (
        "select source, destination_port, forward_bytes, epoch_ns(forward_first), gap, history from"
        f" (select *, forward_gap_variance as gap from read_parquet('{path}')) order by first_packet"
    )
    expected = [
        (
            flow.source,
            flow.destination_port,
            flow.forward_bytes,
            flow.first,
            flow.gap_variance(),
            flow.history,
        )
        for flow in sorted(captured[1], key=lambda flow: flow.first_packet)
    ]
    assert duckdb.sql(query).fetchall() == expected


def test_duckdb_reads_our_columns(captured: Captured) -> None:
    module("pyarrow")
    duckdb = module("duckdb")
    table = to_arrow(read(captured[0]).batches())
    found = duckdb.from_arrow(table).aggregate("sum(forward_packets + backward_packets)").fetchall()
    assert found == [(sum(flow.packets for flow in captured[1]),)]


def test_polars_takes_a_batch(captured: Captured) -> None:
    polars = module("polars")
    frames = [polars.DataFrame(batch) for batch in read(captured[0]).batches() if len(batch)]
    frame = polars.concat(frames)
    assert frame["community_id"].to_list() == [flow.community_id for flow in captured[1]]
    assert frame["forward_bytes"].to_list() == [flow.forward_bytes for flow in captured[1]]
    assert polars.DataFrame(Batch(b"")).height == 0


def test_pandas_takes_our_arrow(captured: Captured) -> None:
    module("pyarrow")
    module("pandas")
    frame = to_arrow(read(captured[0]).batches()).to_pandas()
    assert list(frame["source"]) == [flow.source for flow in captured[1]]
    assert list(frame["forward_first"].astype("int64")) == [flow.first for flow in captured[1]]


def test_pyarrow_reads_our_stream(captured: Captured) -> None:
    pyarrow = module("pyarrow")
    with written(captured, "arrow").open("rb") as file:
        table = pyarrow.ipc.open_stream(file).read_all()
    table.validate(full=True)
    assert table.column("first_packet").to_pylist() == [flow.first_packet for flow in captured[1]]
