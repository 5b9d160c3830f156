"""Round trips of message mode by hypothesis: any messages, written and cut any way, with keys that change."""

from __future__ import annotations

import functools

from hypothesis import given, settings
from hypothesis import strategies as st

from sealwire import stcp
from sealwire.context import Config
from sealwire.limits import Ledger, Limits
from sealwire.stcp.frames import word_of
from sealwire.stcp.lane import FrameReader
from tests import psks
from tests.fuzzing.targets.of_frames import LIMIT, as_the_page_says, read

SIZES = st.one_of(
    st.integers(0, 20), st.sampled_from([16_379, 16_380, 16_381, 16_384, 65_532, 65_536, 70_000])
)
LIMITS = Limits(records_per_key=16, send_queue_bytes=1 << 20)


@functools.cache
def contexts() -> tuple[Config, Config]:
    groups = ("X25519",)
    client = psks.client_context(psks.DEVICE, groups=groups)
    return client.config(), psks.server_context(psks.DEVICE, groups=groups).config()


@settings(deadline=None)
@given(
    turns=st.lists(st.tuples(st.booleans(), st.lists(SIZES, max_size=4), st.booleans()), max_size=5),
    steps=st.lists(st.integers(1, 40_000), min_size=1, max_size=5),
)
def test_messages_through_a_connection(turns: list[tuple[bool, list[int], bool]], steps: list[int]) -> None:
    ledger = Ledger(LIMITS)
    client = stcp.Connection.client(
        contexts()[0], now=0.0, server_name="localhost", limits=LIMITS, ledger=ledger, messages="x"
    )
    server = stcp.Connection.server(contexts()[1], now=0.0, limits=LIMITS, ledger=ledger, messages="x")
    ends = (client, server)
    written: tuple[list[bytes], list[bytes]] = ([], [])
    received: tuple[list[bytes], list[bytes]] = ([], [])
    carried = 0

    def carry() -> None:
        nonlocal carried
        moved = True
        while moved:
            moved = False
            for here in (0, 1):
                data = ends[here].data_to_send()
                moved = moved or bool(data)
                while data:
                    step = steps[carried % len(steps)]
                    carried += 1
                    ends[1 - here].receive_data(data[:step], 0.0)
                    data = data[step:]
                received[1 - here].extend(ends[1 - here].read_messages())

    while client.state != "connected" or server.state != "connected":
        server.receive_data(client.data_to_send(), 0.0)
        client.receive_data(server.data_to_send(), 0.0)
    for from_server, sizes, new_keys in turns:
        here = int(from_server)
        if new_keys:
            ends[here].update_keys(request_peer=True)
        for size in sizes:
            message = bytes([len(written[here]) & 0xFF]) * size
            ends[here].write_message(message)
            written[here].append(message)
        carry()
    client.close()
    server.close()
    carry()
    assert received == (written[1], written[0])
    assert client.error is server.error is None
    assert client.state == server.state == "closed"
    assert ledger.held == 0


@given(
    messages=st.lists(st.binary(max_size=50), max_size=20),
    cuts=st.lists(st.integers(1, 30), max_size=30),
)
def test_frames_cut_anywhere(messages: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(word_of(len(message)) + message for message in messages)
    (found, controls, alert), reader = read(stream, cuts)
    assert found == messages
    assert not controls
    assert alert is None
    assert not reader.cut
    assert reader.take_all() == messages
    assert reader.held == 0


@given(stream=st.binary(max_size=60), cuts=st.lists(st.integers(1, 9), max_size=30))
def test_any_bytes_are_what_the_page_says(stream: bytes, cuts: list[int]) -> None:
    wanted, _ = as_the_page_says(stream)
    found, _ = read(stream, cuts)
    assert (found[0], found[2]) == (wanted[0], wanted[2])


@given(st.integers(0, (1 << 32) - 1))
def test_every_word_is_judged(word: int) -> None:
    stream = word.to_bytes(4, "big")
    (_, _, wanted), _ = as_the_page_says(stream)
    (_, _, found), reader = read(stream, [])
    assert found is wanted
    reader.take_all()
    assert reader.held == 0, "a declared length costs nothing"
    assert FrameReader(1 << 30).limit == 32 * 1024 * 1024
    assert read(b"", [])[1].limit == LIMIT
