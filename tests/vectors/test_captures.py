"""Every recorded connection opens, record for record, as an independent decoder saw it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.record_layers import Layer, each_layer
from tests.vectors.recorded import COPIES, Capture, walk

COPIED = sorted(path.stem for path in COPIES.glob("*__*.json"))
ALL = [
    *("bssl__" + name for name in ("key_update", "key_update_x7", "loss_ack", "mutual_rsa", "resumption")),
    *("bssl__" + name for name in ("small_mtu", "srtp_sni", "x25519_ecdsa", "x25519mlkem768_rsa")),
    *("nss__" + name for name in ("basic_ec", "chacha", "external_psk", "record_size_limit")),
    *("nss__" + name for name in ("short_header", "short_header_many")),
    *("pion__" + name for name in ("basic", "cid8", "cid_rebind_rrc")),
    *("wolf__" + name for name in ("aes128gcm_p256_mutual", "aes256gcm", "alpn_sni", "chacha20_x25519")),
    *("wolf__" + name for name in ("ccm", "cid", "cid_asym", "dup", "early_data_ok", "ecdsa")),
    *("wolf__" + name for name in ("group_messages", "hrr_group", "keyupdate_client", "loss_cert")),
    *("wolf__" + name for name in ("loss_sh", "psk_dhe", "psk_nocookie", "resumption", "x25519mlkem768")),
]


def check(path: Path, layer: Layer) -> None:
    capture = Capture.load(path)
    expected = capture.expected()
    records, openers = walk(capture, layer)
    assert records == expected
    protected = [record for record in expected if record.padding >= 0]
    assert sum(opener.opened for opener in openers) == len(protected) > 0
    assert sum(opener.forged for opener in openers) == 0


@pytest.mark.requirement("9147-4-4", "9147-4-6", "9147-4-10", "9147-4.2.2-3", "9147-4.2.3-1", "9147-4.3-3")
@each_layer
@pytest.mark.parametrize("name", COPIED)
def test_a_copied_capture_opens(name: str, layer: Layer) -> None:
    check(COPIES / f"{name}.json", layer)


@each_layer
@pytest.mark.parametrize("name", ALL)
def test_a_shared_capture_opens(name: str, layer: Layer, shared_data: Path) -> None:
    check(shared_data / "dtls13" / "dtls13_captures" / f"{name}.json", layer)


def test_no_shared_capture_is_left_out(shared_data: Path) -> None:
    present = {path.stem for path in (shared_data / "dtls13" / "dtls13_captures").glob("*.json")}
    assert present == set(ALL)


@each_layer
@pytest.mark.parametrize("name", COPIED)
def test_a_capture_is_silent_under_a_wrong_key(name: str, layer: Layer) -> None:
    """The test above can fail: with any secret changed, not one record of it opens."""
    capture = Capture.load(COPIES / f"{name}.json")
    lines = [line.split() for line in capture.facts["keylog"]]
    capture.facts["keylog"] = [
        " ".join((*words[:2], f"{words[2][:-1]}{'01'[words[2][-1] == '0']}")) for words in lines
    ]
    with pytest.raises(AssertionError, match="AUTHENTICATION"):
        walk(capture, layer)


def test_the_copies_cover_every_suite_and_header_form() -> None:
    suites, forms = set(), set()
    for name in COPIED:
        facts = Capture.load(COPIES / f"{name}.json").facts
        suites |= {connection["suite"] for connection in facts["connections"]}
        forms |= {int(r["hdr"][:2], 16) >> 2 & 7 for r in facts["records"] if "hdr" in r}
    assert suites == {"0x1301", "0x1302", "0x1303", "0x1304"}
    # C S L: plain, with connection id, and NSS's short header with neither length nor second byte.
    assert forms == {0b011, 0b111, 0b000}
