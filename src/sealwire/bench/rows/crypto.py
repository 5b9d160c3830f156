"""`bench crypto`: the primitives as this package calls them, beside what was promised of them.

Every call goes through the provider or the module connections use, so the price of Python is in it.
What was computed is checked after each turn, with `cryptography` itself where that is another way.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from sealwire.bench.loops import Loop, Repeated
from sealwire.bench.measurement import Bench, Body, Contender, Figure, Kind, Measurement, Promise, Role
from sealwire.crypto.groups import Group
from sealwire.crypto.hkdf import DTLS13_PREFIX, expand_label, traffic_keys
from sealwire.crypto.providers import default_provider
from sealwire.crypto.signatures import SignatureScheme, sign, verify
from sealwire.crypto.suites import SUITES, AeadKind, CipherSuite, SuiteSpec
from sealwire.tls13.schedule import Deriver, EarlyStage

_AEAD = Promise(10.0, "AEAD below 10 us")
_DERIVATION = Promise(100.0, "key derivation below 100 us")
_SIGNATURE = Promise(1000.0, "signatures below 1 ms")
_RANDOM = Promise(2.09, "random numbers in 2.09 us")
_RECORD_BYTES = 1200
_RANDOM_BYTES = 32
_SECRET = bytes(range(32))
_SUITE = SUITES[CipherSuite.TLS_AES_128_GCM_SHA256]

Prepare = Callable[[], Repeated]


def _aead(spec: SuiteSpec, sealing: bool) -> Prepare:
    def prepare() -> Repeated:
        key, nonce, data, header = bytes(spec.key_bytes), bytes(12), bytes(_RECORD_BYTES), bytes(5)
        aead = default_provider().aead(spec, key)
        other = AESGCM(key) if spec.aead is AeadKind.AES_GCM else ChaCha20Poly1305(key)
        sealed = other.encrypt(nonce, data, header)
        if sealing:
            return Repeated(lambda: aead.seal(nonce, data, header), lambda last: last == sealed)
        return Repeated(lambda: aead.open(nonce, sealed, header), lambda last: last == data)

    return prepare


def _label() -> Repeated:
    provider = default_provider()
    return Repeated(
        lambda: expand_label(provider, "sha256", _SECRET, DTLS13_PREFIX, b"key", b"", 16),
        lambda last: isinstance(last, bytes) and len(last) == 16 and any(last),
    )


def _keys() -> Repeated:
    provider = default_provider()
    right = traffic_keys(provider, _SUITE, _SECRET, DTLS13_PREFIX)
    return Repeated(
        lambda: traffic_keys(provider, _SUITE, _SECRET, DTLS13_PREFIX),
        lambda last: last == right and len(right.key) == 16 and right.key != right.sn_key,
    )


def _schedule() -> Repeated:
    deriver = Deriver(default_provider(), _SUITE, DTLS13_PREFIX)

    def whole() -> object:
        application = EarlyStage.start(deriver).handshake(_SECRET, _SECRET).application(_SECRET)
        return application.resumption_secret(_SECRET)

    return Repeated(whole, lambda last: isinstance(last, bytes) and len(last) == 32 and any(last))


def _random() -> Repeated:
    random = default_provider().random
    return Repeated(
        lambda: random(_RANDOM_BYTES), lambda last: isinstance(last, bytes) and last != random(_RANDOM_BYTES)
    )


_PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

_KEYS: dict[str, tuple[SignatureScheme, Callable[[], _PrivateKey], str]] = {
    "ecdsa-p256": (
        SignatureScheme.ECDSA_SECP256R1_SHA256,
        lambda: ec.generate_private_key(ec.SECP256R1()),
        "ECDSA P-256",
    ),
    "ed25519": (SignatureScheme.ED25519, ed25519.Ed25519PrivateKey.generate, "Ed25519"),
    "rsa-2048": (
        SignatureScheme.RSA_PSS_RSAE_SHA256,
        lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "RSA-2048 PSS",
    ),
}


def _signing(kind: str) -> Prepare:
    def prepare() -> Repeated:
        scheme, make, _ = _KEYS[kind]
        key, content = make(), bytes(130)

        def right(last: object) -> bool:
            assert isinstance(last, bytes)
            verify(key.public_key(), scheme, last, content)
            return True

        return Repeated(lambda: sign(key, scheme, content), right)

    return prepare


def _verifying(kind: str) -> Prepare:
    def prepare() -> Repeated:
        scheme, make, _ = _KEYS[kind]
        key, content = make(), bytes(130)
        public, signature = key.public_key(), sign(key, scheme, content)

        def refuses_another(last: object) -> bool:
            try:
                verify(public, scheme, signature, content + b"!")
            except Exception:
                return True
            return False

        return Repeated(lambda: verify(public, scheme, signature, content), refuses_another)

    return prepare


def _exchange(group: Group) -> Prepare:
    """Both sides of a key exchange: offer, answer, finish."""

    def prepare() -> Repeated:
        provider = default_provider()

        def both() -> object:
            offer = provider.key_share(group)
            answer, secret = provider.respond(group, offer.public)
            return offer.finish(answer), secret

        return Repeated(both, lambda last: isinstance(last, tuple) and last[0] == last[1] and any(last[0]))

    return prepare


def _row(name: str, title: str, prepare: Prepare, promised: Promise | None) -> Measurement:
    def open_(bench: Bench) -> Body:
        return Loop(bench, prepare())

    return Measurement(
        f"crypto.{name}",
        title,
        (Figure("", "us", Kind.TIME, "CPU per operation", promised),),
        (Contender("sealwire", Role.OURS, open_),),
    )


_AEADS = tuple(
    _row(
        f"{'seal' if sealing else 'open'}.{name}",
        f"{'seal' if sealing else 'open'} {_RECORD_BYTES:,} B with {title}, one call",
        _aead(SUITES[suite], sealing),
        _AEAD,
    )
    for suite, name, title in (
        (CipherSuite.TLS_AES_128_GCM_SHA256, "aes-128-gcm", "AES-128-GCM"),
        (CipherSuite.TLS_AES_256_GCM_SHA384, "aes-256-gcm", "AES-256-GCM"),
        (CipherSuite.TLS_CHACHA20_POLY1305_SHA256, "chacha20-poly1305", "ChaCha20-Poly1305"),
    )
    for sealing in (True, False)
)

ROWS = (
    *_AEADS,
    _row("expand-label", "HKDF-Expand-Label, one block", _label, _DERIVATION),
    _row("traffic-keys", "key, IV and record number key of an epoch", _keys, _DERIVATION),
    _row("key-schedule", "every secret of a connection", _schedule, _DERIVATION),
    _row("random", f"{_RANDOM_BYTES} random bytes", _random, _RANDOM),
    *(_row(f"sign.{kind}", f"sign with {_KEYS[kind][2]}", _signing(kind), _SIGNATURE) for kind in _KEYS),
    *(_row(f"verify.{kind}", f"verify {_KEYS[kind][2]}", _verifying(kind), _SIGNATURE) for kind in _KEYS),
    _row("exchange.x25519", "X25519, both sides", _exchange(Group.X25519), None),
    _row("exchange.secp256r1", "P-256, both sides", _exchange(Group.SECP256R1), None),
    _row("exchange.x25519mlkem768", "X25519MLKEM768, both sides", _exchange(Group.X25519MLKEM768), None),
)
