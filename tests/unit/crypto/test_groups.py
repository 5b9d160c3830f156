"""Key exchange: both sides agree, and every bad share is illegal_parameter on either side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.groups import DEFAULT_GROUPS, GROUPS, Group, parse_groups
from sealwire.crypto.hkdf import Secret
from sealwire.crypto.providers import CryptoProvider, default_provider
from sealwire.crypto.providers.deterministic import DeterministicProvider
from sealwire.errors import Alert, ConfigurationError, ProtocolError

PROVIDER = default_provider()
every_group = pytest.mark.parametrize("group", list(GROUPS), ids=lambda group: group.name)


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


@pytest.mark.parametrize("group", [Group.SECP256R1, Group.SECP384R1])
def test_points_must_be_uncompressed_and_on_the_curve(group: Group) -> None:
    share = PROVIDER.key_share(group).public
    curve = ec.SECP256R1() if group is Group.SECP256R1 else ec.SECP384R1()
    compressed = ec.EllipticCurvePublicKey.from_encoded_point(curve, share).public_bytes(
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


@pytest.mark.requirement("MLKEM-1")
@pytest.mark.parametrize("coefficient", [0xFFF, 3329])
@pytest.mark.parametrize("place", [0, 3 * 200])
def test_an_encapsulation_key_that_is_not_reduced_is_refused(coefficient: int, place: int) -> None:
    # FIPS 203 section 7.2: each 12-bit coefficient is below 3329, or the key is no key.
    share = bytearray(PROVIDER.key_share(Group.X25519MLKEM768).public)
    share[place] = coefficient & 0xFF
    share[place + 1] = share[place + 1] & 0xF0 | coefficient >> 8
    refused(lambda: PROVIDER.respond(Group.X25519MLKEM768, bytes(share)))


@pytest.mark.requirement("MLKEM-1")
def test_the_ml_kem_part_comes_first() -> None:
    offer = PROVIDER.key_share(Group.X25519MLKEM768)
    answer, secret = PROVIDER.respond(Group.X25519MLKEM768, offer.public)
    # A changed ciphertext yields, by implicit rejection, another secret in the first half only.
    other = offer.finish(bytes([answer[0] ^ 1]) + answer[1:])
    assert other[32:] == secret[32:]
    assert other[:32] != secret[:32]


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
        ("prime256v1", (Group.SECP256R1,)),
        ("SECP384R1:secp256r1:X25519", (Group.SECP384R1, Group.SECP256R1, Group.X25519)),
    ],
)
def test_names(names: str | list[str], groups: tuple[Group, ...]) -> None:
    assert parse_groups(names) == groups


@pytest.mark.parametrize("names", ["", [], "P-521", "ffdhe2048", "x25519:", ["x25519,P-256"]])
def test_a_wrong_name_is_answered_with_the_right_ones(names: str | list[str]) -> None:
    with pytest.raises(ConfigurationError, match="X25519MLKEM768, x25519, secp256r1, secp384r1"):
        parse_groups(names)


def test_a_group_twice_is_refused_under_any_names() -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        parse_groups("P-256:prime256v1")


def test_the_default_order() -> None:
    assert DEFAULT_GROUPS == (Group.X25519MLKEM768, Group.X25519, Group.SECP256R1, Group.SECP384R1)
