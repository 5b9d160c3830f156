"""Pre-shared keys: binders of other stacks, importing as RFC 9258 writes it, and what callbacks may say."""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.hkdf import DTLS13_PREFIX, TLS13_PREFIX
from sealwire.crypto.providers import default_provider
from sealwire.crypto.psk import (
    ExternalPsk,
    ImportedIdentity,
    Psk,
    PskKind,
    ask_client,
    ask_server,
    binder,
    binder_fits,
    early_secret,
    find_psk,
    psks_to_offer,
)
from sealwire.errors import Alert, ConfigurationError, HandshakeError, ProtocolError

PROVIDER = default_provider()
KATS = Path(__file__).resolve().parents[2] / "data" / "dtls13" / "kats.json"
BINDERS: list[dict[str, Any]] = json.loads(KATS.read_text("ascii"))["psk_binders"]
SECRET = bytes(range(32))
each_prefix = pytest.mark.parametrize(
    ("prefix", "protocol"), [(TLS13_PREFIX, 0x0304), (DTLS13_PREFIX, 0xFEFC)]
)


# --- an HKDF of the test's own, from RFC 5869 and RFC 8446 section 7.1 ------------------------------


def extract(hash_name: str, salt: bytes, secret: bytes) -> bytes:
    return hmac.new(salt or bytes(hashlib.new(hash_name).digest_size), secret, hash_name).digest()


def expand_label(hash_name: str, secret: bytes, label: bytes, context: bytes, n: int) -> bytes:
    info = struct.pack(">HB", n, len(label)) + label + struct.pack(">B", len(context)) + context
    output, block = b"", b""
    for counter in range(1, 1 + -(-n // hashlib.new(hash_name).digest_size)):
        block = hmac.new(secret, block + info + bytes([counter]), hash_name).digest()
        output += block
    return output[:n]


def binder_by_hand(psk: Psk, prefix: bytes, transcript_hash: bytes) -> bytes:
    name, n = psk.hash_name, hashlib.new(psk.hash_name).digest_size
    early = extract(name, b"", psk.secret)
    key = expand_label(name, early, prefix + psk.kind.value, hashlib.new(name).digest(), n)
    return hmac.new(expand_label(name, key, prefix + b"finished", b"", n), transcript_hash, name).digest()


# --- binders ---------------------------------------------------------------------------------------


@pytest.mark.requirement("8446-KS-2", "8446-PSK-2", "9147-5.9-1")
@pytest.mark.parametrize("answer", BINDERS, ids=lambda answer: f"{answer['case']}")
def test_binders_of_other_stacks(answer: dict[str, Any]) -> None:
    psk = ExternalPsk(
        bytes.fromhex(answer["identity"]), bytes.fromhex(answer["psk"]), hash_name=answer["hash"]
    ).as_it_is()
    assert early_secret(PROVIDER, psk).hex() == answer["early_secret"]
    heard = bytes.fromhex(answer["transcript_prefix"] + answer["truncated_client_hello"])
    digest = hashlib.new(answer["hash"], heard).digest()
    sent = bytes.fromhex(answer["binder"])
    assert binder(PROVIDER, DTLS13_PREFIX, psk, digest) == sent
    assert binder_fits(PROVIDER, DTLS13_PREFIX, psk, digest, sent)
    for at in range(len(sent)):
        assert not binder_fits(
            PROVIDER, DTLS13_PREFIX, psk, digest, sent[:at] + bytes([sent[at] ^ 1]) + sent[at + 1 :]
        )
    for wrong in (b"", sent[:-1], sent + b"\0"):
        assert not binder_fits(PROVIDER, DTLS13_PREFIX, psk, digest, wrong)
    assert not binder_fits(PROVIDER, TLS13_PREFIX, psk, digest, sent)


@pytest.mark.requirement("8446-KS-2", "9258-1")
@each_prefix
@pytest.mark.parametrize("hash_name", ["sha256", "sha384"])
def test_a_key_of_one_kind_is_no_key_of_another(prefix: bytes, protocol: int, hash_name: str) -> None:
    digest = hashlib.new(hash_name, b"hello").digest()
    binders = {}
    for kind in PskKind:
        psk = Psk(b"name", ExternalPsk("name", SECRET).secret, hash_name, kind)
        binders[kind] = binder(PROVIDER, prefix, psk, digest)
        assert binders[kind] == binder_by_hand(psk, prefix, digest)
    assert len(set(binders.values())) == 3
    assert {kind.value[:3] for kind in PskKind} == {b"ext", b"res", b"imp"}


# --- importing -------------------------------------------------------------------------------------


@pytest.mark.requirement("9258-1")
@each_prefix
@pytest.mark.parametrize("own_hash", ["sha256", "sha384"])
@pytest.mark.parametrize(("target", "kdf", "n"), [("sha256", 1, 32), ("sha384", 2, 48)])
def test_importing_as_rfc_9258_writes_it(
    prefix: bytes, protocol: int, own_hash: str, target: str, kdf: int, n: int
) -> None:
    external = ExternalPsk("device 7", SECRET, hash_name=own_hash, imported=True, context=b"who is who")
    imported = external.import_for(PROVIDER, prefix, target)
    identity = b"\x00\x08device 7" + b"\x00\x0awho is who" + struct.pack(">HH", protocol, kdf)
    assert imported.identity == identity
    assert (imported.hash_name, imported.kind) == (target, PskKind.IMPORTED)
    # Section 5.1: the hash of the external key inside, the length of the target's outside; A20: our prefix.
    epskx = extract(own_hash, b"", SECRET)
    digest = hashlib.new(own_hash, identity).digest()
    assert imported.secret == expand_label(own_hash, epskx, prefix + b"derived psk", digest, n)


@pytest.mark.requirement("9258-1")
def test_every_hash_protocol_and_context_has_a_key_of_its_own() -> None:
    secrets = {
        ExternalPsk("x", SECRET, imported=True, context=context).import_for(PROVIDER, prefix, name).secret
        for prefix in (TLS13_PREFIX, DTLS13_PREFIX)
        for name in ("sha256", "sha384")
        for context in (b"", b"a", b"b")
    }
    assert len(secrets) == 12


@given(
    st.binary(min_size=1, max_size=40), st.binary(max_size=40), st.integers(0, 65535), st.integers(0, 65535)
)
def test_imported_identities_round_trip(identity: bytes, context: bytes, protocol: int, kdf: int) -> None:
    one = ImportedIdentity(identity, context, protocol, kdf)
    encoded = one.encode()
    assert ImportedIdentity.decode(encoded) == one
    for n in range(len(encoded)):
        with pytest.raises(ProtocolError):
            ImportedIdentity.decode(encoded[:n])
    with pytest.raises(ProtocolError):
        ImportedIdentity.decode(encoded + b"\0")


# --- what a client offers and a server finds -------------------------------------------------------


@each_prefix
def test_offers(prefix: bytes, protocol: int) -> None:
    plain = ExternalPsk("a", SECRET)
    both = ["sha256", "sha384", "sha256"]
    assert psks_to_offer(PROVIDER, prefix, plain, both) == (plain.as_it_is(),)
    assert psks_to_offer(PROVIDER, prefix, plain, ["sha384"]) == ()
    imported = ExternalPsk("a", SECRET, imported=True)
    offers = psks_to_offer(PROVIDER, prefix, imported, reversed(both))
    assert [psk.hash_name for psk in offers] == ["sha256", "sha384"]
    assert len({psk.identity for psk in offers}) == 2
    assert psks_to_offer(PROVIDER, prefix, imported, ["sha384"]) == offers[1:]


@pytest.mark.requirement("9258-1", "8446-PSK-2")
@each_prefix
def test_a_server_finds_what_was_offered_and_nothing_else(prefix: bytes, protocol: int) -> None:
    keys = {
        b"plain": ExternalPsk("plain", SECRET, hash_name="sha384"),
        b"imported": ExternalPsk("imported", SECRET, imported=True, context=b"ctx"),
    }
    asked: list[bytes] = []

    def find(identity: bytes) -> Psk | None:
        asked.clear()

        def lookup(name: bytes) -> ExternalPsk | None:
            asked.append(name)
            return keys.get(name)

        return find_psk(PROVIDER, prefix, identity, lookup)

    assert find(b"plain") == keys[b"plain"].as_it_is()
    assert asked == [b"plain"]
    for offer in psks_to_offer(PROVIDER, prefix, keys[b"imported"], ["sha256", "sha384"]):
        assert find(offer.identity) == offer
        assert asked == [b"imported"]
    good = ImportedIdentity(b"imported", b"ctx", protocol, 1)
    assert find(good.encode()) is not None
    # Never mixed: an imported key is not taken as it is, a plain one is not imported.
    assert find(b"imported") is None
    assert find(ImportedIdentity(b"plain", b"", protocol, 2).encode()) is None
    for other in (
        ImportedIdentity(b"imported", b"", protocol, 1),
        ImportedIdentity(b"imported", b"ctx", 0x0303, 1),
        ImportedIdentity(b"imported", b"ctx", 0x0304 + 0xFEFC - protocol, 1),
        ImportedIdentity(b"imported", b"ctx", protocol, 3),
        ImportedIdentity(b"nobody", b"ctx", protocol, 1),
    ):
        assert find(other.encode()) is None
        assert len(asked) <= 2
    # What looks like an imported identity may be an ordinary one.
    strange = ImportedIdentity(b"x", b"", protocol, 1).encode()
    keys[strange] = ExternalPsk(strange, SECRET)
    assert find(strange) == keys[strange].as_it_is()


# --- what an application may hand over ---------------------------------------------------------------


def test_secrets_are_not_shown() -> None:
    external = ExternalPsk("device", b"\x42" * 32, imported=True, context=b"c")
    shown = repr(external) + repr(external.import_for(PROVIDER, DTLS13_PREFIX, "sha256")) + repr([external])
    assert "device" in shown
    for form in (repr(b"\x42" * 32), "42" * 8, "B" * 8):
        assert form not in shown


@pytest.mark.parametrize(
    ("identity", "secret", "options", "complaint"),
    [
        ("", SECRET, {}, "1 to 65535 bytes, not 0"),
        (b"x" * 65536, SECRET, {}, "not 65536"),
        (b"x" * 65520, SECRET, {"imported": True, "context": b"12345678"}, "1 to 65519 bytes"),
        ("x", b"short", {}, "5 bytes can be guessed"),
        ("x", SECRET, {"hash_name": "md5"}, "sha256, sha384"),
        ("x", SECRET, {"context": b"c"}, "imported=True"),
    ],
)
def test_what_is_no_key(
    identity: str | bytes, secret: bytes, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        ExternalPsk(identity, secret, **options)


def test_the_longest_imported_identity_fits() -> None:
    external = ExternalPsk(b"x" * 65519, SECRET, imported=True, context=b"12345678")
    assert len(external.import_for(PROVIDER, TLS13_PREFIX, "sha256").identity) == 0xFFFF


def test_client_callbacks() -> None:
    made = ExternalPsk("m", SECRET)
    heard: list[None] = []

    def pair(hint: None) -> tuple[str, bytes]:
        heard.append(hint)
        return "näme", SECRET

    psk = ask_client(pair)
    assert psk is not None
    assert (psk.identity, psk.secret, psk.hash_name, psk.imported) == (
        "näme".encode(),
        SECRET,
        "sha256",
        False,
    )
    assert heard == [None]
    assert ask_client(lambda hint: made) is made
    assert ask_client(lambda hint: None) is None
    assert ask_client(lambda hint: (None, b"")) is None


def test_server_callbacks_see_text_and_any_bytes_survive() -> None:
    names: list[str] = []

    def know(identity: str) -> bytes:
        names.append(identity)
        return SECRET

    for identity in ("näme".encode(), b"\xff\x00raw"):
        psk = ask_server(know, identity)
        assert psk is not None
        assert psk.identity == identity
        assert ExternalPsk(names[-1], SECRET).identity == identity
    assert names[0] == "näme"
    assert ask_server(lambda identity: None, b"x") is None
    assert ask_server(lambda identity: b"", b"x") is None
    made = ExternalPsk("x", SECRET, imported=True)
    assert ask_server(lambda identity: made, b"x") is made


@pytest.mark.parametrize(
    "answer", [b"short", "text", ("a", SECRET), ExternalPsk("other", SECRET), 5, ZeroDivisionError()]
)
def test_a_failing_callback_is_an_internal_error(answer: Any) -> None:
    def callback(_: object) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(HandshakeError, match="callback failed") as caught:
        ask_server(callback, b"x")
    assert caught.value.alert is Alert.INTERNAL_ERROR
    assert caught.value.__cause__ is not None
    if answer != ("a", SECRET) and not isinstance(answer, ExternalPsk):
        with pytest.raises(HandshakeError, match="callback failed"):
            ask_client(callback)


def test_a_callback_may_choose_its_own_alert() -> None:
    def callback(_: object) -> Any:
        raise HandshakeError(Alert.UNKNOWN_PSK_IDENTITY, "blocked")

    with pytest.raises(HandshakeError, match="blocked"):
        ask_server(callback, b"x")
    with pytest.raises(HandshakeError, match="blocked"):
        ask_client(callback)
