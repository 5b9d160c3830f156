"""Segments and proofs of all four algorithms; other people's COSE agrees; bad input ends in Malformed."""

from __future__ import annotations

import importlib
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given
from hypothesis import strategies as st

from sealwire.errors import ConfigurationError
from sealwire.probe.dissect.facts import TAGS, Kind, Protocol
from sealwire.probe.events import SCHEMAS, Heartbeat, as_json, decode
from sealwire.probe.features import row_struct
from sealwire.probe.seal import cbor, engine
from sealwire.probe.seal.cose import Malformed, to_be_signed
from sealwire.probe.seal.keys import (
    ALGORITHMS,
    SigningKey,
    generate,
    load_public_key,
    load_signing_key,
    parse_public_key,
)
from sealwire.probe.seal.leaves import COLUMNS, DISSECTED, FLOW, FORWARD, TRANSACTION, TRANSACTION_COLUMNS
from sealwire.probe.seal.segment import (
    Header,
    Proof,
    Segment,
    prove,
    seal,
)
from sealwire.probe.seal.tree import NotInTree, frame, path, root_of_path
from tests.unit.probe import sealing as s

ROOT = Path(__file__).resolve().parents[3]


def sealed(key: SigningKey, n: int = 5) -> Segment:
    framed, count, *_ = engine.encode(s.rows(n, 3), row_struct().size, 0, b"", 0, 100, n, 1 << 30)
    header = Header(
        *(key.public.algorithm, key.id, key.id, bytes(16), 7, 100, 99 + n, bytes(range(32))),
        times=(1, 2),
        sealed=s.moment(1),
        heartbeat=60,
        counters={"packets": 1, "discard.not_ip": 2},
    )
    return seal(header, framed, count, key)


@pytest.fixture(scope="module", params=list(ALGORITHMS))
def key(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    private, public, _ = generate(request.param)
    file = tmp_path_factory.mktemp("keys") / "key"
    file.touch(0o600)
    file.write_bytes(private)
    found = load_signing_key(file)
    file.with_suffix(".pub").write_bytes(public)
    assert load_public_key(file.with_suffix(".pub")).id == found.id
    assert found.public.algorithm == ALGORITHMS[request.param]
    return found


def test_a_segment_is_read_as_it_was_sealed(key: SigningKey) -> None:
    segment = sealed(key)
    again = Segment.decode(segment.encode())
    assert again == segment
    assert again.authentic(key.public)
    assert not replace(again, root=bytes(32)).authentic(key.public)
    assert not replace(again, protected=again.protected[:-1] + b"\7").authentic(key.public)
    assert not again.authentic(s.key(9).public)


def test_every_proof_leads_to_the_root(key: SigningKey) -> None:
    for n in (1, 2, 3, 5, 8):
        segment = sealed(key, n)
        for index in range(n):
            proof = Proof.decode(prove(segment, index))
            assert proof.authentic(key.public)
            assert not replace(proof, index=(index + 1) % 9).authentic(key.public)
            assert not replace(proof, size=n + 1).authentic(key.public)
            assert not replace(proof, leaf=proof.leaf + b"\0").authentic(key.public)


# pycose knows no ML-DSA.
@pytest.mark.parametrize("key", [name for name, code in ALGORITHMS.items() if code != -49], indirect=True)
def test_other_peoples_cose_verifies_it(key: SigningKey) -> None:
    """pycose: the COSE_Sign1 as it stands, and the receipt with its root put back."""
    pytest.importorskip("pycose", reason="absent: pycose")
    keys: Any = importlib.import_module("pycose.keys")
    messages: Any = importlib.import_module("pycose.messages")
    public: Any = load_der_public_key(key.public.spki)
    if key.public.algorithm == -8:
        cose = keys.OKPKey(crv="ED25519", x=public.public_bytes_raw())
    elif key.public.algorithm == -7:
        numbers = public.public_numbers()
        cose = keys.EC2Key(crv="P_256", x=numbers.x.to_bytes(32, "big"), y=numbers.y.to_bytes(32, "big"))
    else:
        numbers = public.public_numbers()
        cose = keys.RSAKey(n=numbers.n.to_bytes(512, "big"), e=numbers.e.to_bytes(3, "big"))
    segment = sealed(key)

    def read(tagged: Any) -> Any:
        # pycose 1.1 wants lists and dicts where cbor2 6 makes what cannot be changed.
        protected, unprotected, payload, signature = tagged.value
        message = messages.Sign1Message.from_cose_obj(
            [protected, dict(unprotected), payload, signature], True
        )
        message.key = cose
        return message

    message = read(cbor2.loads(segment.signed))
    assert message.verify_signature()
    assert message.payload == segment.root
    receipt = cbor2.loads(prove(segment, 2))[1]
    assert receipt.value[2] is None
    message = read(receipt)
    message.payload = segment.root
    assert message.verify_signature()
    message.payload = bytes(32)
    assert not message.verify_signature()


def test_the_signed_bytes_are_those_of_rfc_9052() -> None:
    """RFC 9052 section 4.4, by cbor2 from its words."""
    segment = sealed(s.key())
    assert to_be_signed(segment.protected, segment.root) == cbor2.dumps(
        ["Signature1", segment.protected, b"", segment.root]
    )
    header = cbor2.loads(segment.protected)
    assert (header[1], header[4], header[395]) == (-8, s.key().id, 1)
    whole = cbor2.loads(segment.encode())
    assert whole[0].tag == 18
    assert whole[0].value[1] == {}
    assert [len(leaf) > 40 for leaf in whole[1]] == [True] * 5


def test_paths_are_those_of_rfc_9162() -> None:
    """RFC 9162 section 2.1.3.1 and 2.1.5: seven leaves, the paths of leaves 0, 3, 4 and 6."""
    import hashlib

    def node(a: bytes, b: bytes) -> bytes:
        return hashlib.sha256(b"\1" + a + b).digest()

    entries = [bytes([i]) for i in range(7)]
    a, b, c, d, e, f, j = (hashlib.sha256(b"\0" + entry).digest() for entry in entries)
    g, h, i = node(a, b), node(c, d), node(e, f)
    k, l_ = node(g, h), node(i, j)
    hashes = engine.leaf_hashes(b"".join(map(frame, entries)))
    assert path(hashes, 0) == [b, h, l_]
    assert path(hashes, 3) == [c, g, l_]
    assert path(hashes, 4) == [f, j, k]
    assert path(hashes, 6) == [i, k]
    assert engine.root(hashes) == node(k, l_)


@given(st.integers(1, 200), st.integers(0, 1 << 30))
def test_no_other_path_leads_there(size: int, seed: int) -> None:
    chance = random.Random(seed)
    entries = [chance.randbytes(4) for _ in range(size)]
    hashes = engine.leaf_hashes(b"".join(map(frame, entries)))
    index = chance.randrange(size)
    proof = path(hashes, index)
    root = engine.root(hashes)
    assert root_of_path(entries[index], index, size, proof) == root
    for wrong in (proof[:-1] if proof else [bytes(32)], [*proof, bytes(32)]):
        with pytest.raises(NotInTree):
            root_of_path(entries[index], index, size, wrong)
    other = (index + 1) % size
    if other != index:
        try:
            assert root_of_path(entries[index], other, size, proof) != root
        except NotInTree:
            pass
    with pytest.raises(NotInTree):
        root_of_path(entries[index], size, size, proof)


def test_every_cut_and_flipped_segment_is_malformed_or_not_authentic() -> None:
    whole = sealed(s.key(), 2).encode()
    for n in range(len(whole)):
        cut_or_flipped(whole[:n])
        cut_or_flipped(whole[:n] + bytes([whole[n] ^ 1 << n % 8]) + whole[n + 1 :])


def cut_or_flipped(data: bytes) -> None:
    try:
        segment = Segment.decode(data)
    except Malformed:
        return
    assert segment.encode() == data, "what is read is the one way to write it"
    assert s.faults([segment], 2)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_malformed(data: bytes) -> None:
    for begin in (b"", b"\x82\xd2\x84", b"\x82\x41\x80\xd2\x84\x40"):
        for read in (Segment.decode, Proof.decode, Header.decode):
            try:
                read(begin + data)
            except Malformed:
                pass
    try:
        cbor.decode(data)
    except ValueError:
        pass
    try:
        decode(data)
    except ValueError:
        pass


@pytest.mark.parametrize(
    "text",
    [
        "1800",  # 0 in two bytes
        "1900ff",  # 255 in three
        "5f4100ff",  # indefinite bytes
        "9fff",  # an indefinite array
        "fb3ff0000000000000",  # 1.0
        "c11a514b67b0",  # a date
        "c249010000000000000000",  # a bignum
        "d81c80",  # a shared value
        "f7",  # undefined
        "a2020001f6",  # keys not in order
        "a2010001f6",  # a key twice
        "9b7fffffffffffffff",  # an array that says it is long
        "5b7fffffffffffffff",  # a byte string that says so
        "818181818181818181818180",  # too deep
        "61ff",  # no UTF-8
        "0000",  # two items
        "",
    ],
)
def test_cbor_of_other_kinds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"CBOR|cut|kind|behind|shortest"):
        cbor.decode(bytes.fromhex(text))


def test_events_are_read_as_they_were_written() -> None:
    for kind in SCHEMAS.values():
        assert kind.SCHEMA >= 2
    leaf = Heartbeat(12).leaf(5)
    assert decode(leaf) == Heartbeat(12)
    assert as_json(leaf) == {"schema": 4, "event": "heartbeat", "sequence": 5, "time": 12}
    assert decode(cbor.encode([77, 5, "new"])) is None
    assert as_json(cbor.encode([77, 5, b"\1"])) == {"schema": 77, "sequence": 5, "fields": ["01"]}
    damaged: list[Any] = [
        [4, 5],
        [4, 5, -1],
        [4, 5, "x"],
        [4, 5, 1, 2],
        [2, 5, 1, 1, b""],
        [5, 0, *[None] * 10],
        {},
        4,
    ]
    for wrong in damaged:
        with pytest.raises(ValueError, match=r"element|should|array"):
            decode(cbor.encode(wrong))


def test_cddl_and_code_agree_on_schemas() -> None:
    text = (ROOT / "docs/probe/events.cddl").read_text("utf-8")
    for kind in SCHEMAS.values():
        assert f"{kind.__name__.lower()} = [{kind.SCHEMA}, " in text.replace("[\n  ", "[")
    for name, schema in (("flow", FLOW), ("dissected-flow", DISSECTED), ("transaction", TRANSACTION)):
        assert f"\n{name} = [{schema}, " in text.replace("[\n  ", "[")
    for names in (COLUMNS, FORWARD, TRANSACTION_COLUMNS):
        shown = [name.removesuffix("_address").removesuffix("_letters") for name in names]
        words = [name.removeprefix("forward_").replace("_", "-") for name in shown]
        assert re.search(r":.*?[\s,(]".join(re.escape(word) for word in words), text, re.DOTALL), names


def test_every_fact_is_in_the_table() -> None:
    text = (ROOT / "docs/probe/sealing.md").read_text("utf-8")
    for tag in TAGS.values():
        listed = f"| {tag.number} | `{tag.name}` | {tag.kind.value} |" in text
        assert listed is (tag.kind is not Kind.HEAD), tag
    for protocol in Protocol:
        assert f"{int(protocol)} `{protocol.label}`" in " ".join(text.split()), protocol


def test_keys_of_other_kinds_are_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    for private in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 1024)):
        spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(ConfigurationError):
            parse_public_key(spki)
    with pytest.raises(ConfigurationError):
        parse_public_key(b"")
    with pytest.raises(ConfigurationError, match="regular"):
        load_signing_key("/dev/null")
