"""`bench seal`: what sealing costs an event: encoding, hashing, signing apart and together, and verifying.

A pass is one segment of flows that look like those of a network: a third of one packet, the rest with
both directions.  The rival of the compiled encoder is cbor2, given the same numbers.  Rows are
absent where sealing's libraries are.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any, Final

from sealwire.bench.loops import Loop, Repeated
from sealwire.bench.measurement import (
    Absent,
    Bench,
    Body,
    Contender,
    Figure,
    Kind,
    Measurement,
    Present,
    Promise,
    Role,
)

#: Events of a segment: about 512 KiB of leaves.
EVENTS: Final = 3_000
_ENCODING: Final = Promise(0.5, "at most 0.5 us an event to encode")
_SEALING: Final = Promise(10.0, "at least 100,000 events sealed a second on one core")
_OPENING: Final = Promise(3.0, "at most 3 us an event to verify and decode")


class Segment(Repeated):
    """A Task that does one segment's work per pass; its units are events."""

    def __init__(self, function: Callable[[], object], check: Callable[[object], bool]) -> None:
        super().__init__(function, check)
        self.units = EVENTS


def rows(n: int = EVENTS) -> bytes:
    """Rows of flows, the same ones every time."""
    from sealwire.probe.features import FIELDS, row_struct

    chance = random.Random(7)  # noqa: S311 - the same work again, not secrets
    begin, made = 1_750_000_000_000_000_000, []
    for number in range(n):
        values: list[Any] = []
        back = number % 3
        for item in FIELDS:
            name = item.name.removeprefix("forward_").removeprefix("backward_")
            silent = item.name.startswith("backward_") and not back
            if name.endswith("_address"):
                values.append(bytes((10, *chance.randbytes(3))))
            elif name == "history_letters":
                values.append(b"ShADadFf" if back else b"S")
            elif name in ("gap_min", "gap_max", "handshake_server", "handshake_client", "response"):
                values.append(chance.randrange(1 << 24) if back and not silent else -1)
            elif silent:
                values.append(0)
            elif name in ("first", "last", "ended"):
                values.append(begin + number * 1_000 + chance.randrange(1_000))
            elif name == "ip_version":
                values.append(4)
            elif name in ("source_port", "destination_port"):
                values.append(chance.choice((53, 443, chance.randrange(1024, 65536))))
            elif name in ("vlan", "vlan_inner"):
                values.append(65535)
            elif name in ("packets", "end_reason", "protocol", "tcp_flags", "ttl_min", "ttl_max"):
                values.append(chance.randrange(1, 24) if name != "protocol" else 6)
            elif name == "first_packet":
                values.append(number)
            elif (
                (name.endswith("bytes") and item.code == "Q")
                or name.endswith("_sum")
                or name.startswith("size")
            ):
                values.append(chance.randrange(40, 60_000))
            elif name.startswith("gap_square") and back:
                values.append(chance.getrandbits(50))
            elif name.startswith("window"):
                values.append(chance.randrange(65536))
            else:
                values.append(0)
        made.append(row_struct().pack(*values, b"", b""))
    return b"".join(made)


def _framed() -> bytes:
    from sealwire.probe.features import row_struct
    from sealwire.probe.seal import engine

    return engine.encode(rows(), row_struct().size, 0, b"", 0, 1_000_000, EVENTS, 1 << 30).framed


def _encode() -> Segment:
    from sealwire.probe.features import row_struct
    from sealwire.probe.seal import engine

    data, stride = rows(), row_struct().size
    return Segment(
        lambda: engine.encode(data, stride, 0, b"", 0, 1_000_000, EVENTS, 1 << 30),
        lambda last: (
            isinstance(last, tuple) and last[1] == EVENTS and engine.decode(last[0], 1_000_000).rows == data
        ),
    )


def _facts() -> bytes:
    """What dissection says of an HTTPS flow."""
    from sealwire.probe.dissect.facts import Certainty, Fact, Protocol, facts_block

    values = [
        *((Fact.OFFERED, b"\x04\x03"), (Fact.NAME, b"www.example.com"), (Fact.ALPN, b"\x02h2\x08http/1.1")),
        *((Fact.JA3, bytes(range(16))), (Fact.JA4, b"t13d1516h2_8daaf6152771_02713d6af862")),
        *((Fact.VERSION, b"\x04\x03"), (Fact.CIPHER, b"\x01\x13"), (Fact.GROUP, b"\x1d\0")),
        (Fact.JA3S, bytes(16)),
    ]
    return facts_block(Protocol.TLS, Certainty.CERTAIN, [(int(tag), value) for tag, value in values])


def _dissected() -> Segment:
    import struct

    from sealwire.probe.batch import OFFSETS
    from sealwire.probe.features import row_struct
    from sealwire.probe.seal import engine

    known, stride, data = _facts(), row_struct().size, bytearray(rows())
    for at in range(OFFSETS["facts_bytes"][0], len(data), stride):
        struct.pack_into("<I", data, at, len(known))
    plain, facts = bytes(data), known * EVENTS
    return Segment(
        lambda: engine.encode(plain, stride, 0, facts, 0, 1_000_000, EVENTS, 1 << 30),
        lambda last: isinstance(last, tuple) and engine.decode(last[0], 1_000_000).facts == facts,
    )


def _transactions() -> Segment:
    from sealwire.probe.dissect.facts import EVENT_HEAD
    from sealwire.probe.seal import engine

    known, begin = _facts(), 1_750_000_000_000_000_000
    told = b"".join(
        EVENT_HEAD.pack(
            *(EVENT_HEAD.size + len(known), begin + n, bytes((10, 0, n >> 8, n & 255)), b"\x0a\1\1\1"),
            *(40_000 + n, 443, 4, 6, 0, begin, n, 65535, 65535),
        )
        + known
        for n in range(EVENTS)
    )
    return Segment(
        lambda: engine.encode_transactions(told, 0, 1_000_000, EVENTS, 1 << 30),
        lambda last: isinstance(last, tuple) and engine.decode(last[0], 1_000_000).transactions == told,
    )


def _cbor2() -> Segment:
    import importlib

    from sealwire.probe.seal.tree import split

    cbor2: Any = importlib.import_module("cbor2")
    leaves = split(_framed())
    numbers = [cbor2.loads(leaf) for leaf in leaves]
    return Segment(
        lambda: [cbor2.dumps(leaf, canonical=True) for leaf in numbers], lambda last: last == leaves
    )


def _hash() -> Segment:
    from sealwire.probe.seal import engine

    framed = _framed()
    return Segment(lambda: engine.root(engine.leaf_hashes(framed)), lambda last: last == _root(framed))


def _hashlib() -> Segment:
    framed = _framed()
    return Segment(lambda: _root(framed), lambda last: isinstance(last, bytes) and len(last) == 32)


def _root(framed: bytes) -> bytes:
    """The root by hashlib, leaf by leaf and level by level."""
    from sealwire.probe.seal.tree import split

    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in split(framed)]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [hashlib.sha256(b"\1" + a + b).digest() for a, b in pairs] + level[len(level) & ~1 :]
    return level[0]


def _seal(algorithm: str, sign_only: bool = False) -> Callable[[], Segment]:
    def prepare() -> Segment:
        import os
        import tempfile

        from sealwire.probe.features import row_struct
        from sealwire.probe.seal import engine
        from sealwire.probe.seal.keys import generate, load_signing_key
        from sealwire.probe.seal.segment import Header, Moment, seal

        with tempfile.NamedTemporaryFile() as file:
            file.write(generate(algorithm)[0])
            file.flush()
            os.chmod(file.name, 0o600)
            key = load_signing_key(file.name)
        if sign_only:
            content = bytes(300)
            return Segment(
                lambda: key.sign(content),
                lambda last: isinstance(last, bytes) and key.public.verify(last, content),
            )
        data, stride = rows(), row_struct().size
        header = Header(
            *(key.public.algorithm, key.id, key.id, bytes(16), 5, 1_000_000, 999_999 + EVENTS, bytes(32)),
            times=(1, 2),
            sealed=Moment(1, 2),
            heartbeat=60,
            counters={"packets": 10_000_000},
        )

        def whole() -> object:
            framed, n, *_ = engine.encode(data, stride, 0, b"", 0, 1_000_000, EVENTS, 1 << 30)
            return seal(header, framed, n, key).encode()

        def right(last: object) -> bool:
            from sealwire.probe.seal.segment import Segment as Sealed

            assert isinstance(last, bytes)
            segment = Sealed.decode(last)
            return segment.authentic(key.public) and segment.root == _root(segment.framed)

        return Segment(whole, right)

    return prepare


def _open() -> Segment:
    """What a verifier does with a segment: decode, signature, root, every event."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from sealwire.probe.features import row_struct
    from sealwire.probe.seal import engine
    from sealwire.probe.seal.keys import SigningKey
    from sealwire.probe.seal.segment import Header, Moment, seal
    from sealwire.probe.seal.segment import Segment as Sealed

    private = Ed25519PrivateKey.generate()
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key = SigningKey.behind(spki, private.sign)
    data = rows()
    framed, n, *_ = engine.encode(data, row_struct().size, 0, b"", 0, 1_000_000, EVENTS, 1 << 30)
    header = Header(
        *(-8, key.id, key.id, bytes(16), 5, 1_000_000, 999_999 + n, bytes(32)),
        times=(1, 2),
        sealed=Moment(1, 2),
        heartbeat=60,
    )
    sealed = seal(header, framed, n, key).encode()

    def whole() -> object:
        segment = Sealed.decode(sealed)
        if (
            not segment.authentic(key.public)
            or engine.root(engine.leaf_hashes(segment.framed)) != segment.root
        ):
            raise ValueError("a good segment was refused")
        return engine.decode(segment.framed, segment.header.first_event).rows

    return Segment(whole, lambda last: last == data)


def _presence() -> Present | Absent:
    try:
        from sealwire.probe.seal import engine
    except ImportError as error:
        return Absent(str(error))
    except OSError as error:
        return Absent(str(error))
    return Present("compiled" if engine.COMPILED else "plain Python")


def _rival(name: str) -> Present | Absent:
    import importlib.metadata

    ours = _presence()
    if isinstance(ours, Absent) or name == "hashlib":
        return ours if isinstance(ours, Absent) else Present("hashlib of the interpreter, leaf by leaf")
    return Present(f"cbor2 {importlib.metadata.version('cbor2')}, canonical, of numbers already in lists")


def _body(prepare: Callable[[], Segment]) -> Callable[[Bench], Body]:
    return lambda bench: Loop(bench, prepare())


def _row(
    name: str,
    title: str,
    ours: Callable[[], Segment],
    promised: Promise | None = None,
    rival: tuple[str, Callable[[], Segment]] | None = None,
) -> Measurement:
    contenders = [Contender("sealwire", Role.OURS, _body(ours), presence=_presence)]
    if rival is not None:
        name_of_rival, prepare = rival
        contenders.append(
            Contender(name_of_rival, Role.RIVAL, _body(prepare), presence=lambda: _rival(name_of_rival))
        )
    figure = Figure("", "us/event", Kind.TIME, "CPU for an event", promised)
    return Measurement(name, title, (figure,), tuple(contenders))


ROWS = (
    _row("seal.encode", "flows as deterministic CBOR", _encode, _ENCODING, ("cbor2", _cbor2)),
    _row("seal.encode.dissected", "the same with the facts of a TLS handshake each", _dissected, _ENCODING),
    _row("seal.encode.transactions", "transactions of as many facts", _transactions, _ENCODING),
    _row("seal.hash", "leaf hashes and Merkle root", _hash, None, ("hashlib", _hashlib)),
    _row("seal.sign.ed25519", "Ed25519 signature, shared by a segment", _seal("ed25519", True)),
    _row("seal.sign.rsa-4096", "RSA-4096 PSS signature, shared by a segment", _seal("rsa-4096", True)),
    _row("seal.whole.ed25519", "encoded, hashed, signed with Ed25519", _seal("ed25519"), _SEALING),
    _row("seal.whole.rsa-4096", "encoded, hashed, signed with RSA-4096 PSS", _seal("rsa-4096"), _SEALING),
    _row("seal.open", "verified and decoded to rows", _open, _OPENING),
)
