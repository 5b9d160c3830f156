"""The vectors of docs/wire-stcp.md: the page has what the script makes, and sealwire writes and reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealwire.crypto.hkdf import TLS13_PREFIX, Secret, next_traffic_secret, traffic_keys
from sealwire.crypto.providers import default_provider
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.limits import Account, Ledger, Limits
from sealwire.stcp.frames import Control, control_frame
from sealwire.stcp.lane import FrameReader
from sealwire.stcp.messages import MessageMode
from sealwire.telemetry import ConnectionCounters
from tests.record_layers import Layer, each_layer
from tests.vectors.stcp import APPLICATION_DATA, BEGIN, END, FIRST, TOKEN, Keys, Vector, page, vectors

PAGE = Path(__file__).parents[2] / "docs" / "wire-stcp.md"
SPEC = SUITES[CipherSuite.TLS_AES_128_GCM_SHA256]


def test_the_page_says_what_the_script_makes() -> None:
    _, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    assert rest.partition(END)[0].strip() == page(), (
        "python -m tests.vectors.stcp docs/wire-stcp.md renews it"
    )


@each_layer
def test_records(layer: Layer) -> None:
    provider = default_provider()
    for vector in vectors():
        keys = traffic_keys(provider, SPEC, Secret(vector.keys.secret), TLS13_PREFIX)
        assert (keys.key, keys.iv) == (vector.keys.key, vector.keys.iv)
        sealer = layer.stream_sealer(provider, SPEC, keys, 3, sequence=vector.sequence)
        assert sealer.seal(vector.content_type, vector.content) == vector.record
        opener = layer.stream_opener(provider, SPEC, keys, 3, sequence=vector.sequence)
        assert opener.open(vector.record) == (vector.content_type, vector.content)


def test_new_keys() -> None:
    following = next_traffic_secret(default_provider(), SPEC, Secret(FIRST.secret), TLS13_PREFIX)
    assert Keys(bytes(following)) == FIRST.next() == vectors()[-1].keys


def test_frames_are_read() -> None:
    reader = FrameReader(100)
    controls = []
    for vector in vectors():
        if vector.content_type == APPLICATION_DATA:
            controls += reader.feed(vector.content)
    assert list(reader.messages) == [b"hello", b"", b"a", b"bc", b"x", b"in two records"]
    assert controls == [(Control.PING, TOKEN), (Control.PONG, TOKEN), (Control.GO_AWAY, b"")]


@pytest.mark.parametrize("vector", vectors()[:3], ids=lambda vector: str(vector.says))
def test_messages_are_written(vector: Vector) -> None:
    mode = MessageMode(Account(Ledger(Limits()), 1 << 20), ConnectionCounters(), Limits(), None, 0.0)
    reader = FrameReader(100)
    reader.feed(vector.content)
    for message in reader.messages:
        mode.write(message)
    assert mode.run()[0] == vector.content


def test_control_frames_are_written() -> None:
    contents = b"".join(vector.content for vector in vectors())
    for frame in (
        control_frame(Control.PING, TOKEN),
        control_frame(Control.PONG, TOKEN),
        control_frame(Control.GO_AWAY),
    ):
        assert frame in contents
