"""Key exchange: both sides agree, and every bad share is illegal_parameter on either side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM1024PrivateKey
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.groups import DEFAULT_GROUPS, GROUPS, HYBRID_GROUPS, HYBRID_SPECS, Group, parse_groups
from sealwire.crypto.hkdf import Secret
from sealwire.crypto.providers import CryptoProvider, default_provider, openssl
from sealwire.crypto.providers.deterministic import DeterministicProvider
from sealwire.crypto.providers.openssl import OpenSslProvider
from sealwire.errors import Alert, ConfigurationError, ProtocolError

PROVIDER = default_provider()
every_group = pytest.mark.parametrize("group", list(GROUPS), ids=lambda group: group.name)
every_hybrid = pytest.mark.parametrize("group", list(HYBRID_SPECS), ids=lambda group: group.name)
CURVES: dict[Group, ec.EllipticCurve] = {
    Group.SECP256R1: ec.SECP256R1(),
    Group.SECP384R1: ec.SECP384R1(),
    Group.SECP521R1: ec.SECP521R1(),
}


def refused(finish: Callable[[], object]) -> None:
    with pytest.raises(ProtocolError) as caught:
        finish()
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


def refused_by_both_sides(group: Group, share: bytes) -> None:
    refused(lambda: PROVIDER.respond(group, share))
    refused(lambda: PROVIDER.key_share(group).finish(share))


@every_group
@pytest.mark.parametrize("provider", [PROVIDER, DeterministicProvider(7)], ids=lambda one: one.name)
def test_both_sides_agree(group: Group, provider: CryptoProvider) -> None:
    spec = GROUPS[group]
    offer = provider.key_share(group)
    answer, secret = provider.respond(group, offer.public)
    assert offer.finish(answer) == secret
    assert offer.group is group
    assert (len(offer.public), len(answer), len(secret)) == (
        spec.offer_bytes,
        spec.answer_bytes,
        spec.secret_bytes,
    )
    assert isinstance(secret, Secret)
    assert isinstance(offer.finish(answer), Secret)


@every_group
def test_shares_are_fresh(group: Group) -> None:
    assert PROVIDER.key_share(group).public != PROVIDER.key_share(group).public


@every_group
def test_every_wrong_length_is_refused(group: Group) -> None:
    offer = PROVIDER.key_share(group)
    answer, _ = PROVIDER.respond(group, offer.public)
    for n in {0, 1, 31, 33, 64, 66, len(offer.public) - 1, len(offer.public) + 1} - {len(offer.public)}:
        refused(lambda n=n: PROVIDER.respond(group, (offer.public * 2)[:n]))  # type: ignore[misc]
    for n in {0, 1, 31, 33, 64, 66, len(answer) - 1, len(answer) + 1} - {len(answer)}:
        refused(lambda n=n: offer.finish((answer * 2)[:n]))  # type: ignore[misc]


@pytest.mark.parametrize("group", list(CURVES))
def test_points_must_be_uncompressed_and_on_the_curve(group: Group) -> None:
    share = PROVIDER.key_share(group).public
    compressed = ec.EllipticCurvePublicKey.from_encoded_point(CURVES[group], share).public_bytes(
        Encoding.X962, PublicFormat.CompressedPoint
    )
    refused_by_both_sides(group, compressed)
    # The same length with the tags of compressed, hybrid and infinite points.
    for tag in (0, 2, 3, 5, 6, 7):
        refused_by_both_sides(group, bytes([tag]) + share[1:])
    refused_by_both_sides(group, share[:-1] + bytes([share[-1] ^ 1]))
    refused_by_both_sides(group, b"\x04" + bytes(len(share) - 1))
    refused_by_both_sides(group, b"\x04" + b"\xff" * (len(share) - 1))


@pytest.mark.requirement("8446-KS-5")
@pytest.mark.parametrize(
    "point",
    [
        bytes(32),
        b"\x01" + bytes(31),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ],
    ids=["zero", "one", "order 8", "minus one"],
)
def test_an_x25519_point_of_small_order_is_refused_in_both_groups(point: bytes) -> None:
    refused_by_both_sides(Group.X25519, point)
    offer = PROVIDER.key_share(Group.X25519MLKEM768)
    refused(lambda: PROVIDER.respond(Group.X25519MLKEM768, offer.public[:1184] + point))
    answer, _ = PROVIDER.respond(Group.X25519MLKEM768, offer.public)
    refused(lambda: offer.finish(answer[:1088] + point))


X448_PRIME = 2**448 - 2**224 - 1


@pytest.mark.requirement("8446-KS-5")
@pytest.mark.parametrize("point", [0, 1, X448_PRIME - 1, X448_PRIME, X448_PRIME + 1])
def test_an_x448_point_of_small_order_is_refused(point: int) -> None:
    refused_by_both_sides(Group.X448, point.to_bytes(56, "little"))


@pytest.mark.requirement("8446-KS-6", "MLKEM-1")
@pytest.mark.parametrize("group", [Group.SECP256R1MLKEM768, Group.SECP384R1MLKEM1024])
def test_the_curve_part_of_a_hybrid_share_is_checked_too(group: Group) -> None:
    n = GROUPS[HYBRID_SPECS[group].curve].offer_bytes
    offer = PROVIDER.key_share(group)
    answer, _ = PROVIDER.respond(group, offer.public)
    for point in (b"\x02" + offer.public[1:n], bytes(n), b"\x04" + bytes(n - 1)):
        refused(lambda point=point: PROVIDER.respond(group, point + offer.public[n:]))  # type: ignore[misc]
        refused(lambda point=point: offer.finish(point + answer[n:]))  # type: ignore[misc]


@pytest.mark.requirement("MLKEM-1")
@every_hybrid
@pytest.mark.parametrize("coefficient", [0xFFF, 3329])
@pytest.mark.parametrize("place", [0, 3 * 200])
def test_an_encapsulation_key_that_is_not_reduced_is_refused(
    group: Group, coefficient: int, place: int
) -> None:
    # FIPS 203 section 7.2: each 12-bit coefficient is below 3329, or the key is no key.
    share = bytearray(PROVIDER.key_share(group).public)
    if HYBRID_SPECS[group].curve_first:
        place += len(share) - HYBRID_SPECS[group].key_bytes
    share[place] = coefficient & 0xFF
    share[place + 1] = share[place + 1] & 0xF0 | coefficient >> 8
    refused(lambda: PROVIDER.respond(group, bytes(share)))


@pytest.mark.requirement("MLKEM-1")
@pytest.mark.parametrize(
    ("group", "curve_first", "sizes"),
    [
        # draft-ietf-tls-ecdhe-mlkem section 4: offer, answer, secret.
        (Group.X25519MLKEM768, False, (1216, 1120, 64)),
        (Group.SECP256R1MLKEM768, True, (1249, 1153, 64)),
        (Group.SECP384R1MLKEM1024, True, (1665, 1665, 80)),
    ],
)
def test_which_part_comes_first(group: Group, curve_first: bool, sizes: tuple[int, int, int]) -> None:
    offer = PROVIDER.key_share(group)
    answer, secret = PROVIDER.respond(group, offer.public)
    assert (len(offer.public), len(answer), len(secret)) == sizes
    # A changed ciphertext yields, by implicit rejection, another secret in ML-KEM's 32 bytes only.
    if curve_first:
        other = offer.finish(answer[:-1] + bytes([answer[-1] ^ 1]))
        assert other[:-32] == secret[:-32]
        assert other[-32:] != secret[-32:]
    else:
        other = offer.finish(bytes([answer[0] ^ 1]) + answer[1:])
        assert other[32:] == secret[32:]
        assert other[:32] != secret[:32]


class Fixed(OpenSslProvider):
    """A provider whose private keys are given."""

    scalar = 0
    x448 = b""

    def curve_key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(self.scalar, curve)

    def x448_key(self) -> X448PrivateKey:
        return X448PrivateKey.from_private_bytes(self.x448)

    def mlkem768_key(self) -> MLKEM768PrivateKey:
        return MLKEM768PrivateKey.from_seed_bytes(bytes(range(64)))

    def mlkem1024_key(self) -> MLKEM1024PrivateKey:
        return MLKEM1024PrivateKey.from_seed_bytes(bytes(range(64)))


@pytest.mark.requirement("MLKEM-1")
@pytest.mark.parametrize("group", [Group.SECP256R1MLKEM768, Group.SECP384R1MLKEM1024])
def test_a_hybrid_share_is_its_parts_done_with_the_library_alone(group: Group) -> None:
    curve = CURVES[HYBRID_SPECS[group].curve]
    provider = Fixed()
    provider.scalar = 12345
    mine = ec.derive_private_key(12345, curve)
    kem = provider.mlkem768_key() if HYBRID_SPECS[group].parameter_set == 768 else provider.mlkem1024_key()

    def point(key: ec.EllipticCurvePrivateKey) -> bytes:
        return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    share = provider.key_share(group)
    assert share.public == point(mine) + kem.public_key().public_bytes_raw()
    theirs = ec.generate_private_key(curve)
    kem_secret, ciphertext = kem.public_key().encapsulate()
    expected = theirs.exchange(ec.ECDH(), mine.public_key()) + kem_secret
    assert share.finish(point(theirs) + ciphertext) == expected


def test_p521_of_rfc_5903() -> None:
    # Section 8.3.  Shares are x and y of 66 bytes each, the secret is x, leading zeros kept (RFC 8446 7.4.2).
    one, other = Fixed(), Fixed()
    one.scalar = int(
        "0037ADE9319A89F4DABDB3EF411AACCCA5123C61ACAB57B5393DCE47608172A095AA85A30FE1C2952C6771D937BA9777"
        "F5957B2639BAB072462F68C27A57382D4A52",
        16,
    )
    other.scalar = int(
        "0145BA99A847AF43793FDD0E872E7CDFA16BE30FDC780F97BCCC3F078380201E9C677D600B343757A3BDBF2A3163E4C2"
        "F869CCA7458AA4A4EFFC311F5CB151685EB9",
        16,
    )
    share = one.key_share(Group.SECP521R1)
    assert share.public.hex().startswith(
        "0400" + "15417e84dbf28c0ad3c278713349dc7df153c897a1891bd98bab4357c9ecbe"
    )
    answer, secret = other.respond(Group.SECP521R1, share.public)
    assert answer.hex().startswith(
        "0400" + "d0b3975ac4b799f5bea16d5e13e9af971d5e9b984c9f39728b5e5739735a219b97"
    )
    assert share.finish(answer) == secret
    assert secret.hex() == (
        "01144c7d79ae6956bc8edb8e7c787c4521cb086fa64407f97894e5e6b2d79b04d1427e73ca4baa240a34786859810c06"
        "b3c715a3a8cc3151f2bee417996d19f3ddea"
    )


def test_x448_of_rfc_7748() -> None:
    # Section 6.2.
    alice, bob = Fixed(), Fixed()
    alice.x448 = bytes.fromhex(
        "9a8f4925d1519f5775cf46b04b5800d4ee9ee8bae8bc5565d498c28dd9c9baf574a9419744897391006382a6f127ab1d"
        "9ac2d8c0a598726b"
    )
    bob.x448 = bytes.fromhex(
        "1c306a7ac2a0e2e0990b294470cba339e6453772b075811d8fad0d1d6927c120bb5ee8972b0d3e21374c9c921b09d1b0"
        "366f10b65173992d"
    )
    share = alice.key_share(Group.X448)
    assert share.public.hex() == (
        "9b08f7cc31b7e3e67d22d5aea121074a273bd2b83de09c63faa73d2c22c5d9bbc836647241d953d40c5b12da88120d53"
        "177f80e532c41fa0"
    )
    answer, secret = bob.respond(Group.X448, share.public)
    assert secret.hex() == (
        "07fff4181ac6cc95ec1c16a94a0f74d12da232ce40a77552281d282bb60c0b56fd2464c335543936521c24403085d59a"
        "449a5037514a879d"
    )
    assert share.finish(answer) == secret


@every_group
@given(data=st.data())
def test_noise_as_a_share_is_a_secret_or_illegal_parameter(group: Group, data: st.DataObject) -> None:
    spec = GROUPS[group]
    offer = PROVIDER.key_share(group)
    for length, use in (
        (spec.answer_bytes, offer.finish),
        (spec.offer_bytes, lambda share: PROVIDER.respond(group, share)[1]),
    ):
        noise = data.draw(st.binary(min_size=length, max_size=length))
        try:
            secret = use(noise)
        except ProtocolError as error:
            assert error.alert is Alert.ILLEGAL_PARAMETER  # noqa: PT017
        else:
            assert len(secret) == spec.secret_bytes


def test_an_unknown_group_is_no_group() -> None:
    unknown = Group(0x6A6A)
    assert (unknown, unknown.name) == (0x6A6A, "GROUP_6A6A")
    assert not PROVIDER.supports(unknown)
    with pytest.raises(ConfigurationError, match="GROUP_6A6A"):
        PROVIDER.key_share(unknown)
    with pytest.raises(ConfigurationError, match="GROUP_6A6A"):
        PROVIDER.respond(unknown, b"")
    with pytest.raises(ValueError, match="Group"):
        Group(0x10000)


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        ("X25519MLKEM768:x25519", (Group.X25519MLKEM768, Group.X25519)),
        (["P-256", "P-384"], (Group.SECP256R1, Group.SECP384R1)),
        ("P-521:X448", (Group.SECP521R1, Group.X448)),
        ("SecP256r1MLKEM768:secp384r1mlkem1024", (Group.SECP256R1MLKEM768, Group.SECP384R1MLKEM1024)),
        ("prime256v1", (Group.SECP256R1,)),
        ("SECP384R1:secp256r1:X25519", (Group.SECP384R1, Group.SECP256R1, Group.X25519)),
    ],
)
def test_names(names: str | list[str], groups: tuple[Group, ...]) -> None:
    assert parse_groups(names) == groups


@pytest.mark.parametrize("names", ["", [], "P-192", "ffdhe2048", "x25519:", ["x25519,P-256"]])
def test_a_wrong_name_is_answered_with_the_right_ones(names: str | list[str]) -> None:
    with pytest.raises(ConfigurationError, match="X25519MLKEM768, x25519, secp256r1, secp384r1"):
        parse_groups(names)


def test_a_group_twice_is_refused_under_any_names() -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        parse_groups("P-256:prime256v1")


def test_the_default_order() -> None:
    assert DEFAULT_GROUPS == (Group.X25519MLKEM768, Group.X25519, Group.SECP256R1, Group.SECP384R1)
    assert tuple(GROUPS)[:4] == DEFAULT_GROUPS
    assert {group for group in GROUPS if "MLKEM" in group.name} == HYBRID_GROUPS


def test_code_points() -> None:
    assert {group: int(group) for group in GROUPS} == {
        Group.SECP256R1: 0x0017,
        Group.SECP384R1: 0x0018,
        Group.SECP521R1: 0x0019,
        Group.X25519: 0x001D,
        Group.X448: 0x001E,
        Group.SECP256R1MLKEM768: 0x11EB,
        Group.X25519MLKEM768: 0x11EC,
        Group.SECP384R1MLKEM1024: 0x11ED,
    }


def test_what_the_library_lacks_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: bytes) -> None:
        raise UnsupportedAlgorithm("not in this build")

    for kind, method, groups in (
        (X448PrivateKey, "from_private_bytes", {Group.X448}),
        (MLKEM768PrivateKey, "from_seed_bytes", {Group.X25519MLKEM768, Group.SECP256R1MLKEM768}),
        (MLKEM1024PrivateKey, "from_seed_bytes", {Group.SECP384R1MLKEM1024}),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(openssl, kind.__name__, type("Lacking", (), {method: staticmethod(refuse)}))
            openssl._available.cache_clear()
            provider = OpenSslProvider()
            assert {group for group in GROUPS if not provider.supports(group)} == groups
            for group in groups:
                with pytest.raises(ConfigurationError, match="not supported"):
                    provider.key_share(group)
                with pytest.raises(ConfigurationError, match="not supported"):
                    provider.respond(group, b"")
    openssl._available.cache_clear()
