"""The compiled gate against the plain one: the same datagrams, the same answers, counts and tables."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sealwire import dtls
from sealwire.context import Config
from sealwire.crypto.providers import CryptoProvider
from sealwire.crypto.providers.openssl import OpenSslProvider
from sealwire.dtls.cookie import Address
from sealwire.dtls.gate import Attempt, Gate, OlderVersion, Reply
from sealwire.dtls.header import ContentType, encode_plaintext, fragment_header
from sealwire.errors import Discard
from sealwire.limits import Limits
from sealwire.telemetry import EndpointCounters
from sealwire.tls13 import extensions as ext
from tests import configs
from tests.unit.dtls.hellos import HERE, THERE, Hello, body, hello, pieces

Batch = list[tuple[bytes, Address]]
SIX: Address = ("2001:db8::7", 4433, 0, 0)
PLACES: Sequence[Address] = (
    HERE,
    THERE,
    SIX,
    ("fe80::1", 9, 0, 3),
    ("::ffff:192.0.2.1", 4433, 0, 0),
    ("2001:db8::7", 4433, 7, 1),
    ("fe80::1%3", 9, 0, 3),
    ("no address", 1),
    (),
)
COMPILED = Gate(configs.server_context().config(), Limits(), EndpointCounters(), require_cookie=True).compiled
needs_it = pytest.mark.skipif(not COMPILED, reason="the compiled gate is not built")


class Seeded(OpenSslProvider):
    """OpenSSL with the same random bytes for both gates."""

    def __init__(self) -> None:
        self._source = random.Random(5)

    def random(self, n: int) -> bytes:
        return self._source.randbytes(n)


class Twins:
    """The plain gate and the compiled one, with the same secrets."""

    def __init__(self, config: Config, limits: Limits, *, require_cookie: bool = True) -> None:
        self.config = config
        self.gates = []
        for compiled in (False, True):
            # Keys, salts and what replaces old slots come from here alone.
            provider: CryptoProvider = Seeded()
            gate = Gate(
                _with_provider(config, provider), limits, EndpointCounters(), require_cookie=require_cookie
            )
            if not compiled:
                gate.sieve = None
            self.gates.append(gate)

    def ask(
        self, batch: Batch, now: float, known: tuple[bytes, ...] = (), others: bool = False
    ) -> list[tuple[bytes, Address]]:
        """Give both the batch; what they answer, which must be the same."""
        outcomes = [_run(gate, self.config, batch, now, known, others) for gate in self.gates]
        assert outcomes[0] == outcomes[1]
        plain, compiled = self.gates
        assert plain.counters.snapshot() == compiled.counters.snapshot()
        assert list(plain.strangers.counts) == list(compiled.strangers.counts)
        assert list(plain.strangers.times) == list(compiled.strangers.times)
        assert plain.slab.stamp == compiled.slab.stamp
        assert plain.proved.stamp == compiled.proved.stamp
        return outcomes[1][0]

    def same_tables(self) -> None:
        plain, compiled = self.gates
        assert plain.strangers.rows == compiled.strangers.rows
        assert plain.strangers.bits == compiled.strangers.bits
        for one, other in ((plain.slab, compiled.slab), (plain.proved, compiled.proved)):
            for name in ("tag", "stamp", "length", "received", "record", "ranges", "data"):
                live = [n for n, stamp in enumerate(one.stamp) if stamp != float("-inf")]
                mine, theirs = getattr(one, name), getattr(other, name)
                if name == "data":
                    continue
                width = len(mine) // one.slots
                for n in live:
                    assert mine[n * width : (n + 1) * width] == theirs[n * width : (n + 1) * width], name


def _with_provider(config: Config, provider: CryptoProvider) -> Config:
    import dataclasses

    return dataclasses.replace(config, provider=provider)


def _run(
    gate: Gate, config: Config, batch: Batch, now: float, known: tuple[bytes, ...], others: bool
) -> tuple[list[tuple[bytes, Address]], list[Any]]:
    """As Endpoint.receive does with hellos."""
    replies: list[tuple[bytes, Address]] = []
    passed: list[Any] = []
    index = 0
    while index < len(batch):
        index = gate.sift(batch, index, config, now, replies, known=known, others=others)
        if index == len(batch):
            break
        datagram, address = batch[index]
        index += 1
        answer = gate.receive(datagram, address, config, now, known)
        if isinstance(answer, OlderVersion):
            gate.counters.discard(Discard.OTHER_VERSION)
            if others:
                passed.append((datagram, address))
                continue
            answer = answer.reply
        if isinstance(answer, Reply):
            replies.append((answer.datagram, address))
        elif isinstance(answer, Attempt):
            passed.append(answer)
        else:
            gate.counters.discard(answer)
    return replies, passed


SERVER = configs.server_context().config()
CLIENTS = [
    configs.client_context().config(),
    configs.client_context(groups=["X25519"]).config(),
    configs.client_context(groups=["secp384r1"]).config(),
    configs.client_context(key_shares=["X25519MLKEM768", "X25519"]).config(),
]
FIRST = [body(Hello(config).first) for config in CLIENTS]


# --- hellos as they are -------------------------------------------------------------------------


@needs_it
@pytest.mark.parametrize("content", FIRST, ids=["default", "X25519", "P-384", "hybrid"])
@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.requirement("9147-5.1-1", "9147-5.1-6", "9147-11-1")
def test_first_hellos(content: bytes, place: Address) -> None:
    twins = Twins(SERVER, Limits())
    replies = twins.ask([(hello(content, number=7), place)] * 3, 12.5)
    assert len(replies) == 3
    assert all(len(datagram) <= 3 * len(content) and to == place for datagram, to in replies)


@needs_it
@pytest.mark.requirement("9147-5.1-2", "9147-5.1-5")
def test_cookies_made_in_c_are_good_in_python_and_the_other_way_round() -> None:
    for maker in (0, 1):
        twins = Twins(SERVER, Limits())
        client = Hello()
        [(request, _)], _ = _run(twins.gates[maker], SERVER, [(client.first[0], HERE)], 0.0, (), False)
        second = client.second(request)
        for gate in twins.gates:
            replies, attempts = _run(gate, SERVER, [(one, HERE) for one in second], 1.0, (), False)
            assert replies == []
            assert isinstance(attempts[0], Attempt)
            assert attempts[0].facts is not None


@needs_it
@pytest.mark.requirement("9147-5.1-5", "9147-5.1-10", "9147-11-6")
@pytest.mark.parametrize(
    ("made", "shown"), [(0.0, 299.0), (0.0, 301.0), (3599.0, 3601.0), (3599.0, 7300.0), (10.0, 5.0)]
)
def test_ages_and_rotation(made: float, shown: float) -> None:
    twins = Twins(SERVER, Limits())
    client = Hello()
    [(request, _)] = twins.ask([(client.first[0], HERE)], made)
    second = [(one, HERE) for one in client.second(request)]
    twins.ask(second, shown)


@needs_it
@given(st.integers(0, 1 << 30), st.integers(1, 255), st.sampled_from(PLACES[:3]))
@pytest.mark.requirement("9147-11-2", "9147-5.1-11")
def test_a_damaged_second_hello(at: int, flip: int, place: Address) -> None:
    damaged = bytearray(SECOND[0])
    damaged[at % len(damaged)] ^= flip
    TWINS.ask([(bytes(damaged), place), *((one, place) for one in SECOND[1:])], 0.5)


def _second() -> list[bytes]:
    client = Hello()
    [(request, _)] = TWINS.ask([(client.first[0], HERE)], 0.4)
    return client.second(request)


TWINS = Twins(SERVER, Limits())
SECOND = _second() if COMPILED else []


@needs_it
@given(st.sampled_from(FIRST), st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(1, 255)), max_size=4))
def test_damaged_first_hellos(content: bytes, damages: list[tuple[int, int]]) -> None:
    damaged = bytearray(hello(content))
    for at, flip in damages:
        damaged[at % len(damaged)] ^= flip
    TWINS.ask([(bytes(damaged), HERE)], 0.6)


@needs_it
def test_every_byte_flipped_and_every_length() -> None:
    twins = Twins(
        SERVER, Limits(hello_replies_per_second=1_000_000, hello_replies_per_prefix_per_second=10**6)
    )
    whole = hello(FIRST[0])
    batch: Batch = [(whole[:n], HERE) for n in range(14, len(whole))]
    for at in range(14, len(whole)):
        for flip in (1, 0x80, 0xFF):
            batch.append((whole[:at] + bytes((whole[at] ^ flip,)) + whole[at + 1 :], HERE))
    twins.ask(batch, 1.0)
    twins.same_tables()


# --- hellos put together ------------------------------------------------------------------------

CODES = sorted({one.code for one in ext.known_extensions()})


@st.composite
def vectors(draw: st.DrawFn) -> bytes:
    """Bytes that are often a list of something."""
    found: bytes = draw(
        st.one_of(
            st.binary(max_size=12),
            st.binary(max_size=30).map(lambda b: len(b).to_bytes(2, "big") + b),
            st.binary(max_size=30).map(lambda b: len(b).to_bytes(1, "big") + b),
            st.lists(st.binary(max_size=5), max_size=4).map(
                lambda parts: _vector(b"".join(_vector(one) for one in parts))
            ),
            st.lists(st.binary(max_size=5), max_size=4).map(
                lambda parts: _vector(b"".join(_vector(one, 1) for one in parts))
            ),
            st.tuples(st.integers(0, 40), st.integers(0, 60), st.integers(0, 3)).map(_psks),
        )
    )
    return found


def _psks(numbers: tuple[int, int, int]) -> bytes:
    identity, binder, count = numbers
    one = _vector(bytes(identity)) + bytes(4)
    return _vector(one * count) + _vector(_vector(bytes(binder), 1) * count)


def _vector(content: bytes, n: int = 2) -> bytes:
    return len(content).to_bytes(n, "big") + content


GOOD = {
    43: bytes.fromhex("04fefcfefd"),
    10: _vector(bytes.fromhex("001d00170018")),
    13: _vector(bytes.fromhex("04030804")),
    51: _vector(bytes.fromhex("001d") + _vector(bytes(32))),
    45: bytes.fromhex("0101"),
    0: _vector(b"\0" + _vector(b"localhost")),
    5: bytes.fromhex("0100000000"),
    41: _psks((10, 32, 1)),
    42: b"",
}


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    codes = draw(
        st.lists(
            st.sampled_from([*CODES, *GOOD, *GOOD, 0x2A2A, 21, 999]), max_size=10, unique=draw(st.booleans())
        )
    )
    base = draw(st.sampled_from([[], [43], [43, 10, 13, 51], [43, 10, 13, 51, 45, 0]]))
    out = b""
    for code in [*base, *(one for one in codes if one not in base)]:
        content = draw(vectors()) if code not in GOOD or draw(st.integers(0, 7)) == 0 else GOOD[code]
        out += code.to_bytes(2, "big") + _vector(content)
    return out


@st.composite
def made(draw: st.DrawFn) -> bytes:
    suites = draw(st.lists(st.sampled_from([0x1301, 0x1302, 0x1303, 0x1304, 0xC02B]), min_size=0, max_size=4))
    return (
        bytes.fromhex("fefd")
        + bytes(32)
        + _vector(bytes(draw(st.sampled_from([0, 0, 0, 32, 33]))), 1)
        + _vector(bytes(draw(st.sampled_from([0, 0, 0, 5]))), 1)
        + _vector(b"".join(one.to_bytes(2, "big") for one in suites))
        + _vector(draw(st.sampled_from([b"\0", b"\0", b"\0", b"", b"\1", b"\0\0"])), 1)
        + _vector(draw(blocks()))
        + draw(st.sampled_from([b"", b"", b"", b"x"]))
    )


CONFIGS = [
    (SERVER, True),
    (SERVER, False),
    (configs.server_context(groups=["secp384r1"]).config(), True),
    (configs.server_context(groups=["secp384r1"]).config(), False),
]


@needs_it
@given(st.data(), st.integers(0, len(CONFIGS) - 1), st.integers(0, 1), st.booleans())
def test_hellos_made_of_all_kinds_of_extensions(
    data: st.DataObject, which: int, seq: int, others: bool
) -> None:
    config, require_cookie = CONFIGS[which]
    twins = MANY[which]
    batch = [(hello(data.draw(made()), seq=seq), HERE) for _ in range(3)]
    known = (bytes(32),) if data.draw(st.integers(0, 9)) == 0 else ()
    twins.ask(batch, 1.0, known, others)
    assert require_cookie in (True, False)
    assert config is twins.config


LOOSE = Limits(hello_replies_per_second=10**6, hello_replies_per_prefix_per_second=10**6)
MANY = [Twins(config, LOOSE, require_cookie=require) for config, require in CONFIGS]


# --- pieces -------------------------------------------------------------------------------------


@st.composite
def parts(draw: st.DrawFn) -> bytes:
    """A datagram of fragments, some of which contradict others, in one record or several."""
    records = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        fragments = b""
        for _ in range(draw(st.sampled_from([1, 1, 2, 10]))):
            content = draw(st.sampled_from(FIRST))
            start = draw(st.integers(0, len(content) - 1))
            end = draw(st.sampled_from([start, start + 1, start + 300, start + 1500]))
            data = content[start:end]
            if draw(st.integers(0, 15)) == 0:
                data = bytes(len(data))
            length = len(content) + draw(st.sampled_from([0, 0, 0, 0, 0, 0, 1, 5000]))
            kind = draw(st.sampled_from([1, 1, 1, 1, 1, 1, 1, 2]))
            seq = draw(st.sampled_from([0, 0, 0, 1, 2]))
            fragments += fragment_header(kind, length, seq, start, len(data)) + data
        number = draw(st.sampled_from([0, 1, 1 << 47, 1 << 48, (1 << 48) - 1]))
        made_record = encode_plaintext(ContentType.HANDSHAKE, number & ((1 << 48) - 1), fragments[:16384])
        if number == 1 << 48:
            made_record = made_record[:3] + b"\0\1" + made_record[5:]
        records.append(made_record)
    if draw(st.integers(0, 9)) == 0:
        records.append(draw(st.sampled_from([encode_plaintext(21, 0, b"\2\50"), b"\x16", b"\x2f1", b"\0"])))
    return b"".join(records)


@needs_it
@given(st.lists(st.tuples(parts(), st.sampled_from(PLACES[:4]), st.floats(0, 0.7)), max_size=12))
@pytest.mark.requirement("9147-5.5-3", "9147-5.5-4", "9147-5.5-5")
def test_pieces_of_all_kinds(steps: list[tuple[bytes, Address, float]]) -> None:
    twins = Twins(SERVER, Limits(hello_slots=8, hello_slot_seconds=1.0))
    now = 0.0
    for datagram, place, wait in steps:
        now += wait
        if len(datagram) > 13 and datagram[13] == 1:
            twins.ask([(datagram, place)], now)
    twins.same_tables()


@needs_it
@pytest.mark.requirement("9147-5.5-4", "9147-11-4")
@pytest.mark.parametrize("reverse", [False, True])
def test_split_hellos_with_and_without_cookie(reverse: bool) -> None:
    config = configs.client_context(key_shares=["X25519MLKEM768"], groups=["X25519MLKEM768"]).config()
    twins = Twins(SERVER, Limits())
    client = Hello(config, mtu=600)
    first = client.first[::-1] if reverse else client.first
    assert len(first) > 1
    [(request, to)] = twins.ask([(one, HERE) for one in first], 0.0)
    assert to == HERE
    second = client.second(request)
    assert len(second) > 1
    # Crowded: a flood of pieces fills every slot, and those whose cookie is seen are out of its reach.
    flood = [(pieces(FIRST[3], 600)[0], (f"198.18.{n >> 8}.{n & 255}", 1)) for n in range(9_000)]
    order = second[::-1] if reverse else second
    twins.ask([(order[0], HERE), *flood, *((one, HERE) for one in order[1:])], 0.5)
    twins.same_tables()


# --- under load ---------------------------------------------------------------------------------


def strangers(n: int, source: random.Random) -> list[Address]:
    return [
        (f"198.18.{source.randrange(256)}.{source.randrange(256)}", source.randrange(65536)) for _ in range(n)
    ]


@needs_it
def test_floods_meet_the_same_silence() -> None:
    limits = Limits(
        hello_replies_per_second=200,
        hello_repeats_per_second=150,
        hello_reply_bytes_per_second=20_000,
        hello_replies_per_prefix_per_second=7,
    )
    twins = Twins(SERVER, limits)
    source = random.Random(3)
    first = hello(FIRST[0])
    answered = []
    before: list[Address] = []
    now = 100.0
    for rate in (10, 50, 400, 400, 400, 90, 90, 150, 10, 10, 3000, 10):
        for part in range(4):
            people = strangers(rate // 4, source)
            people += source.choices([*people, *before], k=rate // 2) if people else []
            before = people
            answered.append(len(twins.ask([(first, one) for one in people], now + part / 4)))
        now += 1.0
    now += 5.0
    assert twins.ask([(first, HERE)], now)
    assert max(answered) <= 350
    assert min(answered[:8]) >= 1
    twins.same_tables()


@needs_it
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-3, 5)), max_size=60))
@example([(0, 0.0)] * 20 + [(0, 2.5)] * 20)
def test_any_times_and_places(steps: list[tuple[int, float]]) -> None:
    limits = Limits(
        hello_replies_per_second=4, hello_repeats_per_second=2, hello_replies_per_prefix_per_second=3
    )
    twins = Twins(SERVER, limits)
    now = 10.0
    for place, wait in steps:
        now = max(now + wait, 0.0)
        twins.ask([(hello(FIRST[0]), PLACES[place])], now)


@needs_it
@pytest.mark.requirement("9147-5.1-7")
def test_forced_load_asks_everybody_for_a_cookie() -> None:
    twins = Twins(SERVER, Limits(), require_cookie=False)
    first = hello(FIRST[0])
    assert twins.ask([(first, HERE)], 1.0) == []  # an attempt at once
    for gate in twins.gates:
        gate.force_load(True)
    assert len(twins.ask([(first, HERE), (first, THERE)], 1.1)) == 2
    for gate in twins.gates:
        gate.force_load(False)
    assert twins.ask([(first, THERE)], 1.2) == []


# --- endpoints ----------------------------------------------------------------------------------


@needs_it
def test_endpoints_with_and_without_it_send_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mixed batch, in order: hellos, second hellos, noise, and a hello of a connection that exists."""
    sent = []
    for compiled in (False, True):
        config = _with_provider(SERVER, Seeded())
        endpoint = dtls.Endpoint(lambda config=config: config)  # type: ignore[misc]
        if not compiled:
            endpoint.gate.sieve = None
        client = Hello(mtu=900)
        monkeypatch.setattr(os, "urandom", random.Random(9).randbytes)
        batch: Batch = [(client.first[0], HERE), (b"", HERE), (b"\0noise", HERE), (hello(b"x"), THERE)]
        endpoint.receive(batch, 0.0)
        request = endpoint.transmit(0.0)
        assert [to for _, to in request] == [HERE]
        endpoint.receive([(one, HERE) for one in client.second(request[0][0])] * 2, 0.1)
        sent.append((endpoint.connections, endpoint.counters, len(endpoint.transmit(0.1))))
    # Two hellos of their own: the lengths are the same, the bytes are not.
    assert sent[0][0] == sent[1][0] == 1
    assert sent[0][1].snapshot() == sent[1][1].snapshot()
    assert sent[0][2] == sent[1][2]
