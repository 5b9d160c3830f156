"""Test vectors of message mode, made from docs/wire-stcp.md and RFC 8446 alone: nothing of sealwire is used.

``python -m tests.vectors.stcp docs/wire-stcp.md`` writes them into the page; test_stcp_vectors.py holds the
page to this script, and sealwire to both.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

BEGIN: Final = "<!-- vectors: made by tests/vectors/stcp.py -->"
END: Final = "<!-- end of vectors -->"
APPLICATION_DATA: Final = 23
HANDSHAKE: Final = 22
TOKEN: Final = bytes.fromhex("0000000000000001")


@dataclass(frozen=True, slots=True)
class Keys:
    """What seals one direction (RFC 8446 section 7.3), under TLS_AES_128_GCM_SHA256."""

    secret: bytes

    @property
    def key(self) -> bytes:
        return _expand_label(self.secret, b"key", 16)

    @property
    def iv(self) -> bytes:
        return _expand_label(self.secret, b"iv", 12)

    def next(self) -> Keys:
        """After a KeyUpdate (RFC 8446 section 7.2)."""
        return Keys(_expand_label(self.secret, b"traffic upd", 32))

    def seal(self, sequence: int, content_type: int, content: bytes) -> bytes:
        """A record (RFC 8446 sections 5.2 and 5.3), without padding."""
        inner = content + bytes((content_type,))
        head = struct.pack(">BHH", APPLICATION_DATA, 0x0303, len(inner) + 16)
        nonce = bytes(a ^ b for a, b in zip(self.iv, sequence.to_bytes(12, "big"), strict=True))
        return head + AESGCM(self.key).encrypt(nonce, inner, head)


FIRST: Final = Keys(bytes(range(32)))


@dataclass(frozen=True, slots=True)
class Vector:
    """What is said, how the frames of it look, and the record they are in."""

    says: str
    keys: Keys
    sequence: int
    content_type: int
    content: bytes

    @property
    def record(self) -> bytes:
        return self.keys.seal(self.sequence, self.content_type, self.content)


def message(data: bytes) -> bytes:
    """A message's frame."""
    return struct.pack(">I", len(data)) + data


def control(body: bytes) -> bytes:
    """A control frame."""
    return struct.pack(">I", 1 << 31 | len(body)) + body


def vectors() -> list[Vector]:
    """One direction of a connection, record by record."""
    cut = message(b"in two records")
    steps = [
        ("one message, `hello`", APPLICATION_DATA, message(b"hello")),
        ("a message of no bytes", APPLICATION_DATA, message(b"")),
        ("two messages, `a` and `bc`, in one record", APPLICATION_DATA, message(b"a") + message(b"bc")),
        ("a ping", APPLICATION_DATA, control(b"\x01" + TOKEN)),
        ("a pong, and a message `x` behind it", APPLICATION_DATA, control(b"\x02" + TOKEN) + message(b"x")),
        ("the first six bytes of a message, `in two records`", APPLICATION_DATA, cut[:6]),
        ("a KeyUpdate that asks for none, between the two parts", HANDSHAKE, bytes.fromhex("1800000100")),
        ("the rest of that message, under the next keys", APPLICATION_DATA, cut[6:]),
        ("a go-away", APPLICATION_DATA, control(b"\x03")),
    ]
    found = []
    keys, sequence = FIRST, 0
    for says, content_type, content in steps:
        found.append(Vector(says, keys, sequence, content_type, content))
        sequence += 1
        if content_type == HANDSHAKE:
            keys, sequence = keys.next(), 0
    return found


def page() -> str:
    """The vectors as Markdown."""
    lines = ["```text"]
    last = None
    for vector in vectors():
        if vector.keys != last:
            last = vector.keys
            lines += [
                f"secret   {last.secret.hex()}",
                f"key      {last.key.hex()}",
                f"iv       {last.iv.hex()}",
                "",
            ]
        lines += [
            f"# {vector.says.replace('`', chr(39))}",
            f"sequence {vector.sequence}",
            f"type     {vector.content_type}",
            f"content  {vector.content.hex()}",
            f"record   {vector.record.hex()}",
            "",
        ]
    lines[-1] = "```"
    return "\n".join(lines)


def _expand_label(secret: bytes, label: bytes, n: int) -> bytes:
    # RFC 8446 section 7.1.
    full = b"tls13 " + label
    info = struct.pack(">HB", n, len(full)) + full + b"\x00"
    return HKDFExpand(algorithm=hashes.SHA256(), length=n, info=info).derive(secret)


def renew(path: Path) -> None:
    """Write the vectors into the page."""
    text = path.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{page()}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    renew(Path(sys.argv[1]))
