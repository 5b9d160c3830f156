"""Recorded DTLS 1.3 connections of other stacks, walked record by record.

The plaintext records and handshake headers are taken apart here and not by the package, so that a
mistake in the package's own header code cannot hide itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from sealwire.crypto.hkdf import DTLS13_PREFIX, next_traffic_secret, traffic_keys
from sealwire.crypto.suites import SUITES, CipherSuite, SuiteSpec
from sealwire.record import bounds, reference
from sealwire.record.protect import DISCARDS, CiphertextHeader, parse_ciphertext_header
from tests.record_layers import PROVIDER, Layer

COPIES = Path(__file__).resolve().parent.parent / "data" / "dtls13"

_EPOCHS = {
    "CLIENT_EARLY_TRAFFIC_SECRET": ("c2s", 1),
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET": ("c2s", 2),
    "SERVER_HANDSHAKE_TRAFFIC_SECRET": ("s2c", 2),
    "CLIENT_TRAFFIC_SECRET_0": ("c2s", 3),
    "SERVER_TRAFFIC_SECRET_0": ("s2c", 3),
}
_CLIENT_HELLO, _KEY_UPDATE = 1, 24
_HANDSHAKE = 22


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a capture.  `padding` is -1 for plaintext, which has none."""

    datagram: int
    direction: str
    epoch: int
    sequence: int
    content_type: int
    content: bytes
    padding: int


@dataclass(frozen=True, slots=True)
class Capture:
    """A recorded exchange: datagrams as (direction, bytes), and what is known about them."""

    name: str
    datagrams: list[tuple[str, bytes]]
    facts: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> Capture:
        facts = json.loads(path.read_text("ascii"))
        datagrams = [(d["dir"], bytes.fromhex(d["hex"])) for d in facts["datagrams"]]
        return cls(path.stem, datagrams, facts)

    def expected(self) -> list[Record]:
        """The records as the independent decoder saw them."""
        return [
            Record(
                r["dg"], r["dir"], r["epoch"], r["seq"], r["type"], bytes.fromhex(r["pt"]), r.get("pad", -1)
            )
            for r in self.facts["records"]
        ]


@dataclass(slots=True)
class _Association:
    """Keys of one of the capture's connections."""

    spec: SuiteSpec
    cids: dict[str, bytes]
    secrets: dict[tuple[str, int], bytes]
    openers: dict[tuple[str, int], reference.Opener] = field(default_factory=dict)

    def opener(self, layer: Layer, direction: str, epoch_bits: int) -> reference.Opener:
        """The newest epoch with these bits whose secret is known."""
        epoch = max(e for d, e in self.secrets if d == direction and e & 3 == epoch_bits)
        if (direction, epoch) not in self.openers:
            keys = traffic_keys(PROVIDER, self.spec, self.secrets[direction, epoch], DTLS13_PREFIX)
            # No connection id was negotiated before the server's answer, which epoch 1 precedes.
            cid = self.cids[direction] if epoch > 1 else b""
            self.openers[direction, epoch] = layer.opener(PROVIDER, self.spec, keys, epoch, cid)
        return self.openers[direction, epoch]

    def key_update(self, direction: str, epoch: int) -> None:
        secret = next_traffic_secret(PROVIDER, self.spec, self.secrets[direction, epoch], DTLS13_PREFIX)
        self.secrets[direction, epoch + 1] = secret


def _associations(capture: Capture) -> dict[bytes, _Association]:
    """By client random."""
    found: dict[bytes, _Association] = {}
    for connection in capture.facts["connections"]:
        spec = SUITES[CipherSuite(int(connection["suite"], 16))]
        # A record carries the connection id that its receiver chose.
        cids = {
            "c2s": bytes.fromhex(connection["server_cid"] or ""),
            "s2c": bytes.fromhex(connection["client_cid"] or ""),
        }
        found[bytes.fromhex(connection["client_random"])] = _Association(spec, cids, {})
    for line in capture.facts["keylog"]:
        label, client_random, secret = line.split()
        if label in _EPOCHS:
            found[bytes.fromhex(client_random)].secrets[_EPOCHS[label]] = bytes.fromhex(secret)
    return found


def handshake_fragments(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(message type, fragment offset, fragment) of each DTLS handshake fragment in a record."""
    at = 0
    while at < len(content):
        n = int.from_bytes(content[at + 9 : at + 12], "big")
        yield content[at], int.from_bytes(content[at + 6 : at + 9], "big"), content[at + 12 : at + 12 + n]
        at += 12 + n


def walk(capture: Capture, layer: Layer) -> tuple[list[Record], list[reference.Opener]]:
    """Every record of `capture`, opened by `layer` in the runs its datagrams allow; the openers used."""
    associations = _associations(capture)
    current = next(iter(associations.values()))
    records: list[Record] = []
    numbered = list(enumerate(capture.datagrams))
    for direction, group in groupby(numbered, lambda item: item[1][0]):
        run = list(group)
        base = run[0][0]
        datagrams = [data for _, (_, data) in run]
        index = offset = 0
        while index < len(datagrams):
            data = datagrams[index]
            first = data[offset]
            if first in (21, 22, 26):
                n = int.from_bytes(data[offset + 11 : offset + 13], "big")
                content = data[offset + 13 : offset + 13 + n]
                records.append(
                    Record(
                        base + index,
                        direction,
                        int.from_bytes(data[offset + 3 : offset + 5], "big"),
                        int.from_bytes(data[offset + 5 : offset + 11], "big"),
                        first,
                        content,
                        -1,
                    )
                )
                offset += 13 + n
                if offset == len(data):
                    index, offset = index + 1, 0
                if first == _HANDSHAKE:
                    for kind, start, fragment in handshake_fragments(content):
                        if kind == _CLIENT_HELLO and start == 0:
                            current = associations[fragment[2:34]]
                continue
            opener = current.opener(layer, direction, first & 3)
            # What is padding shows in the sizes, which are read from the headers alone.
            bodies = _bodies(
                datagrams, index, offset, len(current.cids[direction]) if opener.epoch > 1 else 0
            )
            entries, index, offset = opener.open_run(datagrams, index, offset)
            assert entries, "an opener made no progress"
            for (content_type, sequence, content), (at, body) in zip(entries, bodies, strict=False):
                assert content_type > 0, f"{capture.name} datagram {base + at}: {DISCARDS[-content_type]}"
                padding = body - bounds.TAG_BYTES - 1 - len(content)
                records.append(
                    Record(base + at, direction, opener.epoch, sequence, content_type, content, padding)
                )
                if content_type == _HANDSHAKE:
                    for kind, _, _ in handshake_fragments(content):
                        if kind == _KEY_UPDATE:
                            current.key_update(direction, opener.epoch)
    return records, [opener for a in associations.values() for opener in a.openers.values()]


def _bodies(datagrams: list[bytes], index: int, offset: int, cid_length: int) -> Iterator[tuple[int, int]]:
    """(datagram, ciphertext bytes) of the protected records from here on."""
    for at in range(index, len(datagrams)):
        while offset < len(datagrams[at]) and datagrams[at][offset] & 0xE0 == 0x20:
            header = parse_ciphertext_header(datagrams[at], offset, cid_length)
            assert isinstance(header, CiphertextHeader)
            yield at, header.end - header.body_offset
            offset = header.end
        offset = 0
