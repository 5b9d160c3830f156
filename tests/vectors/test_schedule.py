"""The key schedule on recorded runs of our own engine, recomputed with nothing but hmac and hashlib.

`tests/data/tls13/schedule.json` holds whole handshakes: messages, shared secret, and what follows from
them.  Both our schedule and the ten lines of HKDF below must arrive at what is written there, so a
clone with nothing beside it still proves the schedule.  Made anew, certificates and all, by
``python -m tests.vectors.test_schedule``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealwire.crypto.groups import Group
from sealwire.crypto.hkdf import traffic_keys
from sealwire.crypto.providers.deterministic import DeterministicProvider
from sealwire.crypto.suites import DEFAULT_SUITES, SUITES, CipherSuite
from sealwire.tls13.contract import SendMessage
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import HandshakeType
from sealwire.tls13.schedule import Deriver, EarlyStage, export
from sealwire.tls13.transcript import Transcript, message_hash
from tests import certificates, configs
from tests.record_layers import PROVIDER

FILE = Path(__file__).resolve().parent.parent / "data" / "tls13" / "schedule.json"
FLAVORS: dict[str, Flavor] = {flavor.name: flavor for flavor in (TLS, DTLS)}
EXPORT_LABEL, EXPORT_CONTEXT, EXPORT_BYTES = b"EXPERIMENTAL sealwire", b"context", 70

Case = dict[str, Any]
CASES: dict[str, Case] = json.loads(FILE.read_text("ascii"))["cases"] if FILE.exists() else {}


# --- an HKDF of its own -----------------------------------------------------------------------


def extract(name: str, salt: bytes, secret: bytes) -> bytes:
    return hmac.new(salt, secret, name).digest()


def expand_label(name: str, secret: bytes, label: bytes, context: bytes, n: int) -> bytes:
    info = n.to_bytes(2, "big") + bytes([len(label)]) + label + bytes([len(context)]) + context
    output = block = b""
    for counter in range(1, 256):
        block = hmac.new(secret, block + info + bytes([counter]), name).digest()
        output += block
        if len(output) >= n:
            break
    return output[:n]


def independent(case: Case) -> Case:
    """Everything that follows from the messages and the shared secret of a case."""
    name, prefix = case["hash"], {"TLS 1.3": b"tls13 ", "DTLS 1.3": b"dtls13"}[case["flavor"]]
    size = hashlib.new(name).digest_size
    messages = [bytes.fromhex(message) for message in case["messages"]]
    if messages[1][6:10].hex() == "cf21ad74":  # the random of a HelloRetryRequest
        messages[0] = b"\xfe\0\0" + bytes([size]) + hashlib.new(name, messages[0]).digest()
    kinds = [message[0] for message in messages]
    answer = max(at for at, kind in enumerate(kinds) if kind == 2) + 1
    finished = kinds.index(20) + 1

    def transcript(n: int) -> bytes:
        return hashlib.new(name, b"".join(messages[:n])).digest()

    def derive(secret: bytes, label: bytes, hashed: bytes) -> bytes:
        return expand_label(name, secret, prefix + label, hashed, size)

    def mac(secret: bytes, n: int) -> str:
        return hmac.new(derive(secret, b"finished", b""), transcript(n), name).hexdigest()

    empty = hashlib.new(name).digest()
    early = extract(name, bytes(size), bytes(size))
    handshake = extract(name, derive(early, b"derived", empty), bytes.fromhex(case["shared_secret"]))
    main = extract(name, derive(handshake, b"derived", empty), bytes(size))
    client = derive(handshake, b"c hs traffic", transcript(answer))
    server = derive(handshake, b"s hs traffic", transcript(answer))
    exporter = derive(main, b"exp master", transcript(finished))
    context = hashlib.new(name, bytes.fromhex(case["export_context"])).digest()
    exported = derive(exporter, case["export_label"].encode("ascii"), empty)
    n = len(case["exported"]) // 2
    key = expand_label(name, client, prefix + b"key", b"", case["key_bytes"])
    iv = expand_label(name, client, prefix + b"iv", b"", 12)
    sn = expand_label(name, client, prefix + b"sn", b"", case["key_bytes"]) if prefix == b"dtls13" else b""
    return {
        "early": early.hex(),
        "handshake": handshake.hex(),
        "main": main.hex(),
        "c hs traffic": client.hex(),
        "s hs traffic": server.hex(),
        "c ap traffic": derive(main, b"c ap traffic", transcript(finished)).hex(),
        "s ap traffic": derive(main, b"s ap traffic", transcript(finished)).hex(),
        "exp master": exporter.hex(),
        "res master": derive(main, b"res master", transcript(len(messages))).hex(),
        "server finished": mac(server, finished - 1),
        "client finished": mac(client, len(messages) - 1),
        "exported": expand_label(name, exported, prefix + b"exporter", context, n).hex(),
        "keys": [key.hex(), iv.hex(), sn.hex()],
    }


# --- the same by our own stages ---------------------------------------------------------------


def ours(case: Case) -> Case:
    flavor, spec = FLAVORS[case["flavor"]], SUITES[CipherSuite[case["suite"]]]
    messages = [bytes.fromhex(message) for message in case["messages"]]
    deriver = Deriver(PROVIDER, spec, flavor.label_prefix)
    if [message[0] for message in messages[:3]] == [1, 2, 1]:
        hashed = message_hash(PROVIDER, spec, messages.pop(0))
        transcript = Transcript.after_retry(PROVIDER, spec, hashed, messages.pop(0))
    else:
        transcript = Transcript(PROVIDER, spec)
    for message in messages[:2]:
        transcript.add(message)
    early = EarlyStage.start(deriver)
    handshake = early.handshake(bytes.fromhex(case["shared_secret"]), transcript.hash())
    protected = iter(messages[2:])
    for message in protected:
        if message[0] == HandshakeType.FINISHED:
            break
        transcript.add(message)
    server_mac = deriver.finished_mac(handshake.server_secret, transcript.hash())
    transcript.add(message)
    application = handshake.application(transcript.hash())
    for message in protected:
        client_mac = deriver.finished_mac(handshake.client_secret, transcript.hash())
        transcript.add(message)
    context, n = bytes.fromhex(case["export_context"]), len(case["exported"]) // 2
    exported = export(deriver, application.exporter_secret, case["export_label"].encode(), context, n)
    keys = traffic_keys(PROVIDER, spec, handshake.client_secret, flavor.label_prefix)
    return {
        "early": bytes(early.secret).hex(),
        "handshake": bytes(handshake.secret).hex(),
        "main": bytes(application.secret).hex(),
        "c hs traffic": bytes(handshake.client_secret).hex(),
        "s hs traffic": bytes(handshake.server_secret).hex(),
        "c ap traffic": bytes(application.client_secret).hex(),
        "s ap traffic": bytes(application.server_secret).hex(),
        "exp master": bytes(application.exporter_secret).hex(),
        "res master": bytes(application.resumption_secret(transcript.hash())).hex(),
        "server finished": server_mac.hex(),
        "client finished": client_mac.hex(),
        "exported": exported.hex(),
        "keys": [bytes(part).hex() for part in (keys.key, keys.iv, keys.sn_key)],
    }


def written(case: Case) -> Case:
    return {**case["secrets"], "exported": case["exported"], "keys": case["keys"]}


@pytest.mark.requirement("8446-KS-1", "8446-KS-2", "8446-KS-3", "8446-KS-4", "8446-KS-8", "9147-5.9-1")
@pytest.mark.parametrize("name", CASES)
def test_the_schedule_of_a_recorded_run(name: str) -> None:
    assert ours(CASES[name]) == written(CASES[name])


@pytest.mark.requirement("8446-KS-1", "8446-KS-2", "8446-KS-3", "8446-KS-4", "8446-KS-8", "9147-5.9-1")
@pytest.mark.parametrize("name", CASES)
def test_the_same_with_an_independent_hkdf(name: str) -> None:
    case = CASES[name]
    found = independent(case)
    assert found == written(case)
    # The proofs are not only written down: they are what the two engines sent each other.
    finished = [message[8:] for message in case["messages"] if message.startswith("14")]
    assert finished == [found["server finished"], found["client finished"]]


def test_the_runs_cover_both_protocols_hashes_and_a_retry() -> None:
    assert {(case["flavor"], case["hash"]) for case in CASES.values()} == {
        (flavor, name) for flavor in FLAVORS for name in ("sha256", "sha384")
    }
    retried = {case["flavor"] for case in CASES.values() if case["messages"][2].startswith("01")}
    assert retried == set(FLAVORS)
    assert {case["suite"] for case in CASES.values()} == {suite.name for suite in DEFAULT_SUITES}


# --- making the file --------------------------------------------------------------------------


class _Recording(DeterministicProvider):
    """Keeps the shared secret of the answering side."""

    shared = b""

    def respond(self, group: Group, peer_share: bytes) -> tuple[bytes, bytes]:
        share, secret = super().respond(group, peer_share)
        self.shared = bytes(secret)
        return share, secret


def run(flavor: Flavor, suite: CipherSuite, *, retry: bool, mutual: bool) -> Case:
    """One handshake between two engines, as a case of the file."""
    provider = _Recording(f"{flavor.name} {suite.name}".encode())
    own = certificates.client() if mutual else None
    server = configs.server_context(
        client_roots=own.cafile if own else None, groups=["P-256"], suites=[suite.name]
    ).config()
    client = configs.client_context(
        identity=own, groups=["X25519", "P-256"], key_shares=["X25519" if retry else "P-256"]
    ).config()
    engines = (
        Handshake.client(replace(client, provider=provider), flavor, server_name="localhost"),
        Handshake.server(replace(server, provider=provider), flavor),
    )
    messages: list[bytes] = []
    for _ in range(3):
        for sender, receiver in (engines, engines[::-1]):
            sent = [output for output in sender.outputs() if isinstance(output, SendMessage)]
            for output in sent:
                messages.append(output.message)
                receiver.receive(output.epoch, output.message)
    case: Case = {
        "flavor": flavor.name,
        "suite": suite.name,
        "hash": SUITES[suite].hash_name,
        "key_bytes": SUITES[suite].key_bytes,
        "messages": [message.hex() for message in messages],
        "shared_secret": provider.shared.hex(),
        "export_label": EXPORT_LABEL.decode("ascii"),
        "export_context": EXPORT_CONTEXT.hex(),
        "exported": engines[0].export(EXPORT_LABEL, EXPORT_CONTEXT, EXPORT_BYTES).hex(),
    }
    found = independent(case)
    exported, keys = found.pop("exported"), found.pop("keys")
    assert exported == case["exported"]
    return {**case, "keys": keys, "secrets": found}


def write() -> None:
    suites = CipherSuite
    cases = {
        "stream": run(TLS, suites.TLS_AES_128_GCM_SHA256, retry=False, mutual=False),
        "stream, retry, mutual": run(TLS, suites.TLS_AES_256_GCM_SHA384, retry=True, mutual=True),
        "datagrams, retry": run(DTLS, suites.TLS_CHACHA20_POLY1305_SHA256, retry=True, mutual=False),
        "datagrams, mutual": run(DTLS, suites.TLS_AES_256_GCM_SHA384, retry=False, mutual=True),
    }
    origin = "made by `python -m tests.vectors.test_schedule`: sealwire's own engine with its seeded provider"
    FILE.write_text(json.dumps({"provenance": origin, "cases": cases}, indent=1) + "\n", "ascii")


if __name__ == "__main__":
    write()
