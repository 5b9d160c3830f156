"""docs/interop.md: what makes it, and that nothing in it is made up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.interop import features
from tests.interop.features import CLIENT, LACKS, SERVER
from tests.interop.report import render

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"
VERSIONS = {"sealwire": "1", "NSS": "2"}


def cell(page: str, feature: str, column: int) -> str:
    [row] = [line for line in page.splitlines() if line.startswith(f"| {feature} |")][:1]
    return row.split("|")[column + 1].strip()


def test_a_cell_says_what_happened() -> None:
    outcomes = {
        ("wolfSSL", "X25519", CLIENT): {"passed"},
        ("wolfSSL", "X25519", SERVER): {"passed", "failed"},
        ("NSS", "X25519", CLIENT): {"skipped"},
    }
    page = render(outcomes, VERSIONS, "2026-01-01")
    assert [cell(page, "X25519", column) for column in range(1, 5)] == ["yes", "FAILED", "not run", "-"]
    assert render(outcomes, VERSIONS, "2026-01-01") == page


def test_what_a_peer_lacks_has_a_note() -> None:
    page = render({}, VERSIONS, "2026-01-01")
    number = cell(page, "early data (0-RTT)", 1)
    assert f"\n{number}. wolfSSL: " in page
    assert len(re.findall(r"^\d+\. ", page, re.M)) == len({(key[0], why) for key, why in LACKS.items()})


def test_what_only_one_role_can_show_is_empty_in_the_other() -> None:
    page = render({}, VERSIONS, "2026-01-01")
    assert cell(page, "we move to another port, they follow", 1) == ""
    assert cell(page, "we move to another port, they follow", 2) == "-"


@pytest.mark.parametrize(
    ("feature", "peer", "they"),
    [
        ("no such feature", "NSS", CLIENT),
        ("X25519", "NSS", "observer"),
        ("cookie", "OpenSSL", SERVER),
        ("early data (0-RTT)", "wolfSSL", CLIENT),
        ("we move to another port, they follow", "wolfSSL", CLIENT),
    ],
)
def test_a_mark_that_says_what_cannot_be_ends_the_run(feature: str, peer: str, they: str) -> None:
    with pytest.raises(pytest.UsageError):
        features.checked(feature, peer, they, "a test")


def test_every_note_is_of_a_feature_there_is() -> None:
    for peer, feature, they in LACKS:
        assert feature in {name for _, name in features.features(peer)}
        assert they in features.ROLES


def test_the_page_in_the_repository_has_no_gap_and_no_failure() -> None:
    page = PAGE.read_text()
    assert "FAILED" not in page
    for peer in (*features.DATAGRAM_PEERS, *features.STREAM_PEERS):
        assert f"- {peer} " in page
    rows = [line for line in page.splitlines() if line.startswith("| ") and "**" not in line]
    assert len(rows) > 60
    assert [row for row in rows if " - |" in row] == []
