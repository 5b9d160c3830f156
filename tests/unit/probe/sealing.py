"""What the tests of sealing share: rows, keys, moments that are made up, and a disk that keeps a log."""

from __future__ import annotations

import errno
import functools
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sealwire.probe.batch import OFFSETS
from sealwire.probe.dissect.facts import EVENT_HEAD, facts_block
from sealwire.probe.features import FIELDS, FIRST, row_struct
from sealwire.probe.seal import frames
from sealwire.probe.seal.keys import SigningKey
from sealwire.probe.seal.recorder import Recorder
from sealwire.probe.seal.segment import Moment, Segment
from sealwire.probe.spool import SUFFIX, Spool
from sealwire.probe.verify import Fault, Trust, Verifier

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
BEGIN = 1_750_000_000 * SECOND


@functools.cache
def key(number: int = 0) -> SigningKey:
    """An Ed25519 key, the same for the same number."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([number + 1]) * 32)
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey.behind(spki, private.sign)


def moment(seconds: float, step: float = 0.0) -> Moment:
    """`seconds` after the beginning of time, with a wall clock that was set by `step`."""
    passed = round(seconds * SECOND)
    return Moment(BEGIN + passed + round(step * SECOND), 1_000 * SECOND + passed)


_LIMITS = {"Q": (0, (1 << 64) - 1), "q": (-(1 << 63), (1 << 63) - 1), "I": (0, (1 << 32) - 1)}
_LIMITS |= {"H": (0, 65535), "B": (0, 255)}


def row(seed: int, first_packets: int = 0) -> bytes:
    """A row with numbers of all sizes."""
    chance = random.Random(seed)
    version = chance.choice((4, 6))
    one_way = chance.random() < 0.4
    values: list[Any] = []
    for item in FIELDS:
        least, most = _LIMITS.get(item.code, (0, 0))
        if item.name == "ip_version":
            values.append(version)
        elif item.name.endswith("_address"):
            values.append(chance.randbytes(4 if version == 4 else 16))
        elif item.name == "history_letters":
            letters = "".join(chance.choice("ShadFfR") for _ in range(chance.randrange(21)))
            values.append(letters.encode())
        elif item.name == "facts_bytes":
            values.append(0)
        elif item.name == "ended":
            values.append(BEGIN + chance.randrange(10 * SECOND))
        elif one_way and item.name.startswith("backward"):
            values.append(-1 if item.name.endswith(("gap_min", "gap_max")) else 0)
        else:
            size = chance.choice((4, 5, 8, 16, 31, 32, 63, 64))
            values.append(max(least, min(most, chance.choice((-1, 1, 1)) * chance.getrandbits(size))))
    firsts = [
        FIRST.pack(chance.randrange(-(1 << 31), 1 << 31), chance.getrandbits(32))
        for _ in range(first_packets)
    ]
    return row_struct(first_packets).pack(*values, b"".join(firsts), b"")


def block(chance: random.Random) -> bytes:
    """A facts block of any tags and values."""
    facts = [
        (chance.randrange(256), chance.randbytes(chance.choice((0, 1, 5, 23, 24, 255, 256))))
        for _ in range(chance.choice((0, 1, 3, 11, 30)))
    ]
    return facts_block(
        chance.choice((0, 1, 23, 24, 255, 65535)), chance.randrange(3), facts, chance.randrange(4)
    )


def dissected(n: int, seed: int = 0, first_packets: int = 0) -> tuple[bytes, bytes]:
    """Rows and their facts blocks; every third has none."""
    chance = random.Random(seed)
    made, blocks = [], []
    for number in range(n):
        known = b"" if number % 3 == 2 else block(chance)
        plain = bytearray(row(chance.getrandbits(40), first_packets))
        plain[FACTS_BYTES_AT : FACTS_BYTES_AT + 4] = len(known).to_bytes(4, "little")
        made.append(bytes(plain))
        blocks.append(known)
    return b"".join(made), b"".join(blocks)


def transaction(seed: int) -> bytes:
    """An event as dissection tells it."""
    chance = random.Random(seed)
    version = chance.choice((4, 6))
    known = block(chance)
    ends = [chance.randbytes(4 if version == 4 else 16) for _ in range(2)]
    return (
        EVENT_HEAD.pack(
            *(EVENT_HEAD.size + len(known), BEGIN + chance.randrange(10 * SECOND), *ends),
            *(chance.getrandbits(16), chance.getrandbits(16), version, chance.getrandbits(8)),
            *(
                chance.getrandbits(chance.choice((4, 32))),
                chance.randrange(-5, BEGIN),
                chance.getrandbits(64),
            ),
            *(chance.choice((65535, 7)), chance.choice((65535, 4000))),
        )
        + known
    )


def transactions(n: int, seed: int = 0) -> bytes:
    return b"".join(transaction(seed * 1_000_003 + i) for i in range(n))


def rows(n: int, seed: int = 0, first_packets: int = 0) -> bytes:
    return b"".join(row(seed * 1_000_003 + i, first_packets) for i in range(n))


ENDED_AT = OFFSETS["ended"][0]
FACTS_BYTES_AT = OFFSETS["facts_bytes"][0]


@dataclass(slots=True)
class MemoryDisk:
    """A Disk that logs every operation and fails when told to."""

    files: dict[str, bytearray] = field(default_factory=dict)
    log: list[tuple[Any, ...]] = field(default_factory=list)
    #: Bytes that still fit; None for any number.
    room: int | None = None
    #: Errors for the next calls of an operation, by its name; 0 is success.
    errors: dict[str, list[int]] = field(default_factory=dict)

    def _may(self, operation: str) -> None:
        coming = self.errors.get(operation)
        if coming and (code := coming.pop(0)):
            raise OSError(code, "made up")

    def names(self) -> list[str]:
        return list(self.files)

    def read(self, name: str) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return bytes(self.files[name])

    def size(self, name: str) -> int:
        return len(self.files[name])

    def create(self, name: str) -> None:
        self._may("create")
        assert name not in self.files
        self.log.append(("create", name))
        self.files[name] = bytearray()

    def append(self, name: str, data: bytes) -> None:
        fits = len(data) if self.room is None else min(self.room, len(data))
        self.log.append(("append", name, data[:fits]))
        self.files[name] += data[:fits]
        if self.room is not None:
            self.room -= fits
        self._may("append")
        if fits < len(data):
            raise OSError(errno.ENOSPC, "no space left on device")

    def sync(self, name: str) -> None:
        self._may("sync")
        self.log.append(("sync", name))

    def truncate(self, name: str, size: int) -> None:
        self._may("truncate")
        self.log.append(("truncate", name, size))
        if self.room is not None:
            self.room += len(self.files[name]) - size
        del self.files[name][size:]

    def remove(self, name: str) -> None:
        self.log.append(("remove", name))
        gone = self.files.pop(name)
        if self.room is not None:
            self.room += len(gone)

    def replace(self, name: str, data: bytes) -> None:
        self._may("replace")
        self.log.append(("replace", name, data))
        self.files[name] = bytearray(data)


def crashed(log: list[tuple[Any, ...]], operations: int, n: int, keep_unsynced: bool) -> MemoryDisk:
    """The disk after a power cut in operation number `operations`, of which `n` bytes were done.

    Without `keep_unsynced`, what was not synced is gone.
    """
    now: dict[str, bytearray] = {}
    durable: dict[str, bytes] = {}
    cut = log[operations] if operations < len(log) else None
    done = [*log[:operations]]
    if cut is not None and cut[0] == "append" and n:
        done.append((*cut[:2], cut[2][:n]))
    for operation, name, *more in done:
        match operation:
            case "create":
                now[name] = bytearray()
            case "append":
                now[name] += more[0]
            case "sync":
                durable[name] = bytes(now[name])
            case "truncate":
                del now[name][more[0] :]
            case "remove":
                now.pop(name, None)
                durable.pop(name, None)
            case "replace":
                now[name] = bytearray(more[0])
                durable[name] = bytes(more[0])
    state = now if keep_unsynced else durable
    return MemoryDisk({name: bytearray(data) for name, data in state.items()})


def recorder(
    disk: MemoryDisk,
    seconds: float = 0.0,
    *,
    boot: int = 1,
    most: int = 1 << 24,
    number: int = 0,
    **more: Any,
) -> Recorder:
    """A recorder on a spool of that disk."""
    file_bytes = more.pop("file_bytes", 0)
    return Recorder(
        *(Spool(disk, most, file_bytes), key(number), moment(seconds)),
        boot=boot.to_bytes(16, "big"),
        software="test",
        **more,
    )


def segments(disk: MemoryDisk) -> list[Segment]:
    """All whole segments of a disk, in order."""
    return [found.segment for name in files(disk) for found in frames.unpack(bytes(disk.files[name]))]


def files(disk: MemoryDisk) -> list[str]:
    return sorted(name for name in disk.files if name.endswith(SUFFIX))


def trust(*numbers: int, **more: Any) -> Trust:
    return Trust({key(n).id: key(n).public for n in numbers or (0,)}, **more)


def judge(found: Iterable[Segment], seconds: float = 0.0, given: Trust | None = None) -> Verifier:
    """A verifier that has seen these segments and the end."""
    verifier = Verifier(given or trust(), moment(seconds).wall)
    for segment in found:
        verifier.segment("memory", segment)
    verifier.finish()
    return verifier


def faults(found: Iterable[Segment], seconds: float = 0.0, given: Trust | None = None) -> list[Fault]:
    """What is wrong with these segments."""
    verifier = Verifier(given or trust(), moment(seconds).wall)
    for segment in found:
        verifier.segment("memory", segment)
    return [finding.fault for finding in verifier.finish() if finding.fault is not None]
