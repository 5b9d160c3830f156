"""Known answers taken from recorded connections: traffic keys, and records sealed to the byte.

A record's answer is the datagram another stack sent: sealing the known content under the known
number with the known header form must give exactly those bytes, mask and padding included.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sealwire.crypto.hkdf import DTLS13_PREFIX, next_traffic_secret, traffic_keys
from sealwire.crypto.suites import SUITES, CipherSuite, SuiteSpec
from tests.record_layers import PROVIDER, Layer, each_layer
from tests.vectors.recorded import COPIES, Capture


@cache
def _read(path: Path) -> dict[str, Any]:
    answers: dict[str, Any] = json.loads(path.read_text("ascii"))
    return answers


@pytest.fixture(params=["copied", "shared"])
def answers(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Path]:
    """The known answers, and the directory of the captures they point into."""
    if request.param == "copied":
        return _read(COPIES / "kats.json"), COPIES
    shared: Path = request.getfixturevalue("shared_data") / "dtls13"
    return _read(shared / "dtls13_kats.json"), shared / "dtls13_captures"


def _spec(suite: str) -> SuiteSpec:
    return SUITES[CipherSuite(int(suite, 16))]


@pytest.mark.requirement("9147-4.2.3-2", "9147-5.9-1")
def test_traffic_keys(answers: tuple[dict[str, Any], Path]) -> None:
    assert len(answers[0]["traffic_keys"]) >= 46
    for answer in answers[0]["traffic_keys"]:
        spec = _spec(answer["suite"])
        secret = bytes.fromhex(answer["traffic_secret"])
        keys = traffic_keys(PROVIDER, spec, secret, DTLS13_PREFIX)
        assert (keys.key.hex(), keys.iv.hex(), keys.sn_key.hex()) == (
            answer["key"],
            answer["iv"],
            answer["sn_key"],
        )
        following = next_traffic_secret(PROVIDER, spec, secret, DTLS13_PREFIX)
        assert following.hex() == answer["next_traffic_secret"]


@pytest.mark.requirement("9147-4-7", "9147-4-10", "9147-4-11", "9147-4.2.3-1")
@each_layer
def test_records(answers: tuple[dict[str, Any], Path], layer: Layer) -> None:
    known, captures = answers
    secrets: dict[tuple[str, str, int], list[tuple[str, bytes]]] = {}
    for answer in known["traffic_keys"]:
        place = (answer["case"], answer["dir"], answer["epoch"])
        secrets.setdefault(place, []).append((answer["suite"], bytes.fromhex(answer["traffic_secret"])))
    sealed_records = 0
    for answer in known["records"]:
        candidates = secrets[answer["case"], answer["dir"], answer["epoch"]]
        capture = _capture(captures / (answer["case"].replace("/", "__", 1) + ".json"))
        offset = _offset(capture, answer["dg"], answer["rec"])
        sent = capture.datagrams[answer["dg"]][1][offset : offset + _length(answer)]
        # Two connections in one capture have the same epochs; one of the two keys is right.
        records = [_seal(layer, _spec(suite), secret, answer) for suite, secret in candidates]
        assert sent in records, f"{answer['case']} datagram {answer['dg']} record {answer['rec']}"
        sealed_records += 1
    assert sealed_records >= 177


@cache
def _capture(path: Path) -> Capture:
    return Capture.load(path)


def _length(answer: dict[str, Any]) -> int:
    header, content = bytes.fromhex(answer["masked_header"]), bytes.fromhex(answer["content"])
    return len(header) + len(content) + 1 + int(answer["pad"]) + 16


def _offset(capture: Capture, datagram: int, position: int) -> int:
    """Where the datagram's record number `position` starts, counted over the ones before it."""
    offset = 0
    for record in capture.facts["records"]:
        if record["dg"] == datagram and record["rec"] < position:
            content = len(record["pt"]) // 2
            offset += content + (13 if record.get("plain") else len(record["hdr"]) // 2 + record["pad"] + 17)
    return offset


def _seal(layer: Layer, spec: SuiteSpec, secret: bytes, answer: dict[str, Any]) -> bytes:
    header = bytes.fromhex(answer["masked_header"])
    short_sequence = not header[0] & 0x08
    with_length = bool(header[0] & 0x04)
    cid = header[1 : len(header) - (1 if short_sequence else 2) - (2 if with_length else 0)]
    keys = traffic_keys(PROVIDER, spec, secret, DTLS13_PREFIX)
    sealer = layer.sealer(PROVIDER, spec, keys, answer["epoch"], cid, sequence=answer["seq"])
    return sealer.seal(
        answer["inner_type"],
        bytes.fromhex(answer["content"]),
        answer["pad"],
        short_sequence=short_sequence,
        with_length=with_length,
    )


def test_the_shared_answers_hold_every_kind(shared_data: Path) -> None:
    """The tests above and test_exporters compute every answer there is; these are among them."""
    known = _read(shared_data / "dtls13" / "dtls13_kats.json")
    counts = {kind: len(known[kind]) for kind in known}
    assert counts == {"exporter": 32, "traffic_keys": 174, "records": 1_751, "psk_binders": 4}
    keyed = {answer["case"] for answer in known["traffic_keys"]}
    assert len(keyed) == 37
    assert keyed >= {"bssl/resumption", "wolf/resumption", "wolf/early_data_ok", "wolf/hrr_group"}
    assert keyed >= {"bssl/x25519mlkem768_rsa", "wolf/x25519mlkem768", "nss/external_psk", "wolf/psk_dhe"}
    assert {answer["suite"] for answer in known["traffic_keys"]} == {"0x1301", "0x1302", "0x1303", "0x1304"}
    forms = {int(answer["masked_header"][:2], 16) >> 2 & 7: answer["case"] for answer in known["records"]}
    # C S L: NSS's short headers, plain ones, and ones with connection ids.
    assert set(forms) == {0b000, 0b011, 0b111}
    # Alerts, handshake messages, data, acknowledgements and return routability checks, over eight KeyUpdates.
    assert {answer["inner_type"] for answer in known["records"]} == {21, 22, 23, 26, 27}
    assert {answer["epoch"] for answer in known["records"]} == set(range(2, 11))
