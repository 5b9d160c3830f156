"""Sealed events as `verify` and `prove` find them: spools, their files, what `zstd -dc` gives, trust."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterator
from pathlib import Path

from sealwire.cli.say import Exit, Failure
from sealwire.errors import ConfigurationError
from sealwire.probe.seal import cbor, frames
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.keys import PublicKey, load_public_key
from sealwire.probe.seal.receipts import Received, receipts
from sealwire.probe.seal.segment import SEGMENT_MAXIMUM_BYTES, Segment
from sealwire.probe.spool import SUFFIX
from sealwire.probe.store import reading
from sealwire.probe.store.disk import Folders
from sealwire.probe.verify import Trust


def trust_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key",
        action="append",
        required=True,
        metavar="PUB",
        help="a trusted public key, from `sealwire keygen`; may be given more than once",
    )
    parser.add_argument(
        "--revoked",
        metavar="FILE",
        help="lines of key id and time: what was received under that key from then on is refused",
    )


def keys(names: list[str], option: str = "--key") -> dict[bytes, PublicKey]:
    """Trusted keys by id."""
    found = {}
    for name in names:
        try:
            key = load_public_key(name)
        except ConfigurationError as error:
            raise Failure(Exit.USAGE, str(error), "give the .pub file that keygen wrote") from error
        except OSError as error:
            raise Failure(Exit.ENVIRONMENT, f"{name}: {error.strerror}", f"check {option}") from error
        found[key.id] = key
    return found


def trust(args: argparse.Namespace) -> Trust:
    """Whom the command line says to believe."""
    head = getattr(args, "head", None)
    received = _received(getattr(args, "receipts", None) or [], getattr(args, "collector", None) or [])
    return Trust(
        keys(args.key),
        revoked=times(args.revoked, "--revoked"),
        received={**times(getattr(args, "received", None), "--received"), **received.times},
        head=None if head is None else _hash(head, "--head"),
        acknowledged=received.segments,
    )


def _received(files: list[Path], collectors: list[str]) -> Received:
    """What the collectors named say they received."""
    found = Received(keys(collectors, "--collector"))
    if files and not collectors:
        raise Failure(Exit.USAGE, "--receipts are nothing without a collector's key", "give --collector PUB")
    for file in files:
        try:
            for receipt in receipts(read(file)):
                found.take(receipt)
        except Malformed as wrong:
            raise Failure(Exit.NO, f"{file}: {wrong}", "these are no receipts, or damaged ones") from wrong
    if found.refused:
        raise Failure(
            Exit.NO,
            f"{found.refused} receipts are not signed by a trusted collector",
            "check --collector",
        )
    return found


def times(name: str | None, option: str) -> dict[bytes, int]:
    """A file of lines, each 64 hexadecimal digits and a time."""
    found: dict[bytes, int] = {}
    if name is None:
        return found
    try:
        lines = Path(name).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(Exit.ENVIRONMENT, f"{name} cannot be read ({error})", f"check {option}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        digits, _, when = line.strip().partition(" ")
        try:
            found[_hash(digits, option)] = nanoseconds(when.strip())
        except ValueError:
            raise Failure(
                Exit.USAGE, f"{name}, line {number}: {when!r} is no time", "write 2026-11-20T12:00:00+00:00"
            ) from None
    return found


def nanoseconds(text: str) -> int:
    """A time in ISO 8601 (UTC where it says nothing else) as nanoseconds since 1970.  Raises ValueError."""
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return round(moment.timestamp() * 1_000_000) * 1_000


def _hash(digits: str, option: str) -> bytes:
    try:
        found = bytes.fromhex(digits)
    except ValueError:
        found = b""
    if len(found) != 32:
        raise Failure(Exit.USAGE, f"{option}: {digits!r} is not 64 hexadecimal digits", "")
    return found


def chains(path: Path) -> list[Path]:
    """The spool of that name, or those of each probe where it is a collector's directory."""
    if not (path / reading.STORE).is_file():
        return [path]
    try:
        found = [path / probe for probe in reading.probes(Folders(path))]
    except ConfigurationError as error:
        raise Failure(Exit.ENVIRONMENT, str(error), "check the name") from error
    return [probe for probe in found if probe.is_dir()]


def files(path: Path) -> list[Path]:
    """The files of a spool in their order, or the one that is named."""
    if not path.is_dir():
        return [path]
    found = sorted(entry for entry in path.iterdir() if entry.name.endswith(SUFFIX))
    if not found:
        raise Failure(Exit.ENVIRONMENT, f"{path} has no sealed events (*{SUFFIX})", "check the name")
    return found


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(Exit.ENVIRONMENT, f"{path}: {error.strerror}", "check the name") from error


def segments(data: bytes) -> Iterator[tuple[int, Segment]]:
    """The segments of a file, zstd or what zstd -dc makes of it, with their offsets.  Raises Malformed."""
    if data[:4] in (frames.MAGIC, frames.NOTE_MAGIC):
        for found in frames.unpack(data):
            yield found.begin, found.segment
        return
    at = 0
    while at < len(data):
        end = _plain_end(data, at)
        yield at, Segment.decode(data[at:end])
        at = end


def _plain_end(data: bytes, at: int) -> int:
    """Where a segment that is not packed ends: two items of an array, the first one tagged."""
    if data[at : at + 2] != b"\x82\xd2":
        raise Malformed("no segment begins here")
    window = data[at : at + SEGMENT_MAXIMUM_BYTES]
    try:
        return at + cbor.skip(window, cbor.skip(window, 2))
    except ValueError as wrong:
        raise Malformed(str(wrong)) from None
