"""Exported keying material as BoringSSL gave it out, and PSK binders as wolfSSL and NSS sent them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sealwire.crypto.hkdf import DTLS13_PREFIX, TLS13_PREFIX, Secret
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.tls13.schedule import Deriver, export
from sealwire.tls13.transcript import Transcript
from tests.record_layers import PROVIDER
from tests.vectors.recorded import COPIES, Capture

#: One suite per hash: the schedule depends on nothing else of it.
_SPECS = {
    "sha256": SUITES[CipherSuite.TLS_AES_128_GCM_SHA256],
    "sha384": SUITES[CipherSuite.TLS_AES_256_GCM_SHA384],
}


@cache
def _read(path: Path) -> dict[str, Any]:
    answers: dict[str, Any] = json.loads(path.read_text("ascii"))
    return answers


@pytest.fixture(params=["copied", "shared"])
def answers(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The known answers."""
    if request.param == "copied":
        return _read(COPIES / "kats.json")
    shared: Path = request.getfixturevalue("shared_data")
    return _read(shared / "dtls13" / "dtls13_kats.json")


def _deriver(answer: dict[str, Any], prefix: bytes = DTLS13_PREFIX) -> Deriver:
    return Deriver(PROVIDER, _SPECS[answer["hash"]], prefix)


def _context(answer: dict[str, Any]) -> bytes:
    # RFC 8446 section 7.5 [8446-KS-8]: no context and an empty one are the same.
    return b"" if answer["context"] in ("none", "empty") else bytes.fromhex(answer["context"])


@pytest.mark.requirement("8446-KS-8", "5705-1", "9147-5.9-1")
def test_exporters(answers: dict[str, Any]) -> None:
    assert len(answers["exporter"]) == 32
    assert {answer["context"] for answer in answers["exporter"]} == {"none", "empty", "616263"}
    for answer in answers["exporter"]:
        secret = Secret(bytes.fromhex(answer["exporter_secret"]))
        label, n = answer["label"].encode("ascii"), answer["length"]
        output = export(_deriver(answer), secret, label, _context(answer), n)
        assert output.hex() == answer["output"], answer["case"]
        # Each part of the question counts.
        assert export(_deriver(answer), secret, label, _context(answer) + b"x", n) != output
        assert export(_deriver(answer), secret, label + b"x", _context(answer), n) != output
        assert export(_deriver(answer, TLS13_PREFIX), secret, label, _context(answer), n) != output


def test_exporter_secrets_are_those_of_the_captures(answers: dict[str, Any]) -> None:
    """The answers belong to the connections the other tests open, and are not made up."""
    logged = {
        line.split()[2]
        for path in COPIES.glob("bssl__*.json")
        for line in Capture.load(path).facts["keylog"]
        if line.startswith("EXPORTER_SECRET ")
    }
    assert len(logged) >= 3
    assert logged <= {answer["exporter_secret"] for answer in answers["exporter"]}


@pytest.mark.requirement("8446-KS-1", "8446-KS-2", "8446-PSK-2", "9147-5.9-1")
def test_psk_binders(answers: dict[str, Any]) -> None:
    assert {answer["label"] for answer in answers["psk_binders"]} == {"ext binder"}
    # One of them comes after a HelloRetryRequest and covers it.
    assert sum(bool(answer["transcript_prefix"]) for answer in answers["psk_binders"]) == 1
    for answer in answers["psk_binders"]:
        deriver = _deriver(answer)
        psk = bytes.fromhex(answer["psk"])
        early = PROVIDER.hkdf_extract(answer["hash"], b"", psk)
        assert early.hex() == answer["early_secret"]
        binder_key = deriver.derive(early, answer["label"].encode("ascii"), deriver.empty_hash())
        assert bytes(binder_key).hex() == answer["binder_key"]
        transcript = Transcript(PROVIDER, deriver.spec)
        transcript.add(bytes.fromhex(answer["transcript_prefix"]))
        transcript.add(bytes.fromhex(answer["truncated_client_hello"]))
        assert deriver.finished_mac(binder_key, transcript.hash()).hex() == answer["binder"]
