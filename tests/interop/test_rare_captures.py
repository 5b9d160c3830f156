"""The dissectors in Python on captures made just now, of whatever servers and clients are installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sealwire.probe import read
from sealwire.probe.dissect.facts import Certainty
from sealwire.probe.settings import Settings
from tests.interop import rare_captures
from tests.vectors.protocols import CONTENT

SETTINGS = Settings(dissect=True).without_timeouts()


@pytest.mark.interop
@pytest.mark.long
@pytest.mark.parametrize("name", sorted(rare_captures.CAPTURES))
def test_a_capture_made_now_is_recognised(tmp_path: Path, name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("absent: permission to make network namespaces (root)")
    if missing := rare_captures.missing(name):
        pytest.skip(f"absent: {', '.join(missing)} (tests/interop/rare_captures.py --install)")
    done = rare_captures.in_namespace(tmp_path, [name])
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-400:]
    found: dict[str, Certainty] = {}
    for flow in read(tmp_path / f"{name}.pcap", settings=SETTINGS):
        if flow.forward_payload_bytes + flow.backward_payload_bytes:
            found[flow.application] = max(
                flow.facts.certainty, found.get(flow.application, Certainty.NOT_MINE)
            )
    if name == "rtp":
        assert found == {"rtp": Certainty.UNSURE, "rtcp": Certainty.CERTAIN}
    else:
        assert found == {CONTENT[f"{name}.pcap"]: Certainty.CERTAIN}
