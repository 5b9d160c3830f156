"""What a verifier remembers of chains: acceptance alone, for the same question, and while it is true."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import pytest

from sealwire.crypto import accepted
from sealwire.crypto.certificates import CertificateVerifier, Purpose, VerifiedPeer
from sealwire.errors import CertificateError, CertificateFailure
from tests.unit.crypto.authority import NOW, Issued, authority, issue

ROOT = authority()
MIDDLE = authority("Test Intermediate", ROOT)
LEAF = issue("server", MIDDLE, names=["server.test", "other.test"])
DAY = datetime.timedelta(days=1)


class Counting(CertificateVerifier):
    """Counts the searches for a path, which are what remembering saves."""

    searches = 0
    now = NOW

    def __init__(self, roots: Sequence[Issued] = (ROOT,), **options: int) -> None:
        super().__init__([root.der for root in roots], clock=lambda: self.now, **options)  # type: ignore[arg-type]

    def _path(self, case: object) -> list:  # type: ignore[type-arg]
        self.searches += 1
        return super()._path(case)  # type: ignore[arg-type]

    def ask(
        self, *chain: Issued, purpose: Purpose = Purpose.SERVER, name: str | None = "server.test"
    ) -> VerifiedPeer:
        return self.verify([one.der for one in chain], purpose=purpose, name=name)


def test_a_chain_seen_again_costs_no_search_and_gives_the_same() -> None:
    one = Counting()
    first = one.ask(LEAF, MIDDLE)
    assert one.ask(LEAF, MIDDLE) == first
    assert one.searches == 1


def test_every_part_of_the_question_counts() -> None:
    one = Counting()
    one.ask(LEAF, MIDDLE)
    one.ask(LEAF, MIDDLE, name="other.test")
    one.ask(LEAF, MIDDLE, name=None)
    one.ask(LEAF, MIDDLE, ROOT)
    assert one.searches == 4
    with pytest.raises(CertificateError) as caught:
        one.ask(LEAF, MIDDLE, name="third.test")
    assert caught.value.failure is CertificateFailure.WRONG_NAME
    one.searches = 0
    one.ask(LEAF, MIDDLE, purpose=Purpose.CLIENT, name=None)
    assert one.searches == 1


def test_a_refusal_is_never_remembered() -> None:
    one = Counting()
    for _ in range(2):
        with pytest.raises(CertificateError):
            one.ask(LEAF)
    assert one.searches == 2


@pytest.mark.parametrize("of", [LEAF, MIDDLE, ROOT], ids=["leaf", "intermediate", "root"])
def test_out_of_date_is_out_of_date(of: Issued) -> None:
    one = Counting()
    one.ask(LEAF, MIDDLE)
    certificate = of.certificate
    for moment in (certificate.not_valid_after_utc + DAY, certificate.not_valid_before_utc - DAY):
        one.now = moment
        with pytest.raises(CertificateError) as caught:
            one.ask(LEAF, MIDDLE)
        assert caught.value.failure in (CertificateFailure.EXPIRED, CertificateFailure.NOT_YET_VALID)
    one.now = NOW
    one.ask(LEAF, MIDDLE)
    assert one.searches == 3


def test_a_changed_byte_is_another_chain() -> None:
    one = Counting()
    one.ask(LEAF, MIDDLE)
    damaged = bytearray(LEAF.der)
    damaged[-1] ^= 1
    with pytest.raises(CertificateError):
        one.verify([bytes(damaged), MIDDLE.der], purpose=Purpose.SERVER, name="server.test")


def test_shorter_lists_are_another_policy() -> None:
    one = Counting()
    one.ask(LEAF, MIDDLE, ROOT)
    with pytest.raises(CertificateError):
        one.within(2).verify([LEAF.der, MIDDLE.der, ROOT.der], purpose=Purpose.SERVER, name="server.test")


def test_what_one_remembers_its_copy_for_longer_lists_asks_again() -> None:
    one = Counting()
    one.ask(LEAF, MIDDLE)
    longer = one.within(20)
    assert isinstance(longer, Counting)
    longer.searches = 0
    for _ in range(2):
        longer.ask(LEAF, MIDDLE)
    assert longer.searches == 1


def test_afresh_nothing_is_remembered() -> None:
    one = Counting()
    one.ask(LEAF, MIDDLE)
    other = one.afresh()
    assert isinstance(other, Counting)
    other.searches = 0
    other.ask(LEAF, MIDDLE)
    assert other.searches == 1


def test_other_roots_are_another_verifier() -> None:
    Counting().ask(LEAF, MIDDLE)
    with pytest.raises(CertificateError):
        Counting([authority("Somebody Else")]).ask(LEAF, MIDDLE)


def test_no_more_is_kept_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepted, "_ENTRIES", 3)
    one = Counting()
    leaves = [issue("server", MIDDLE, names=["server.test"]) for _ in range(5)]
    for leaf in leaves:
        one.ask(leaf, MIDDLE)
    assert len(one._accepted._answers) == 3
    one.searches = 0
    for leaf in leaves[2:]:
        one.ask(leaf, MIDDLE)
    assert one.searches == 0
    one.ask(leaves[0], MIDDLE)
    assert one.searches == 1
