"""`sealwire store`: a collector's directory: import a spool, compact, let old rows go, look at it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sealwire.cli import sealed
from sealwire.cli.say import Exit, Failure, Say
from sealwire.errors import ConfigurationError

if TYPE_CHECKING:
    from sealwire.probe.seal.keys import SigningKey
    from sealwire.probe.store import Rejected

_DAY = 24 * 3600 * 1_000_000_000
_MIB = 1 << 20
#: Segments stored with one fsync when a spool is imported.
_BATCH = 16


def options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    take = actions.add_parser("import", help="verify the segments of a spool and store them")
    take.add_argument("spool", type=Path, metavar="EVENTS", help="a spool or one of its files")
    take.add_argument("store", type=Path, metavar="STORE", help="the store, made where there is none")
    take.add_argument("--key", required=True, metavar="PUB", help="the probe's first public key")
    compact = actions.add_parser("compact", help="make rows of what is complete")
    compact.add_argument("store", type=Path, metavar="STORE")
    compact.add_argument(
        "--all", action="store_true", help="each probe's last file as well; no collector may be running"
    )
    retain = actions.add_parser("retain", help="let the oldest go, and sign for it")
    retain.add_argument("store", type=Path, metavar="STORE")
    retain.add_argument("--days", type=float, metavar="N", help="what came more than N days ago")
    retain.add_argument("--most", type=int, metavar="MB", help="what is too much for so many MiB")
    retain.add_argument(
        "--sign", required=True, metavar="KEY", help="the collector's key, which signs what went"
    )
    show = actions.add_parser("show", help="what a store holds")
    show.add_argument("store", type=Path, metavar="STORE")


def run(args: argparse.Namespace, say: Say) -> Exit:
    try:
        if args.action == "import":
            return _import(args, say)
        if not args.store.is_dir():
            raise Failure(Exit.ENVIRONMENT, f"there is no directory {args.store}", "check the name")
        actions = {"compact": _compact, "retain": _retain, "show": _show}
        return actions[args.action](args, say)
    except ConfigurationError as error:
        raise Failure(Exit.ENVIRONMENT, str(error), "") from error
    except OSError as error:
        # StoreFull is one as well; what was stored before it is stored.
        what = error.strerror or str(error)
        where = f"{error.filename}: " if error.filename else ""
        next_step = "make room and do it again" if _full(error) else "look at the disk"
        raise Failure(Exit.ENVIRONMENT, f"{where}{what}", next_step) from error


def _full(error: OSError) -> bool:
    from sealwire.probe.disk import NO_ROOM
    from sealwire.probe.store import StoreFull

    return isinstance(error, StoreFull) or error.errno in NO_ROOM


def _import(args: argparse.Namespace, say: Say) -> Exit:
    from sealwire.probe.store import Rejected, Store

    keys = sealed.keys([args.key])
    (key,) = keys.values()
    found = new = events = 0
    store = Store(args.store, keys.get)
    try:
        for batch in _batches(args.spool):
            for answer in store.append_many([(key.id, frame) for frame in batch], time.time_ns()):
                if isinstance(answer, Rejected):
                    return _refused(args, say, answer, found)
                found += 1
                new += answer.new
                events += (answer.last_event - answer.first_event + 1) * answer.new
    finally:
        store.close()
    say.fact(
        "imported",
        f"{args.store}: {new:,} segments with {events:,} events stored, {found - new:,} were there already",
        store=str(args.store),
        segments=new,
        events=events,
        known=found - new,
    )
    return Exit.OK


def _refused(args: argparse.Namespace, say: Say, answer: Rejected, found: int) -> Exit:
    number = "" if answer.segment is None else f" {answer.segment}"
    say.fact(
        "refused",
        f"{args.spool}: segment{number} is not stored: {answer.words}; {found:,} before it are",
        reason=answer.reason.name.lower(),
        segment=answer.segment,
        message=answer.words,
        stored=found,
    )
    return Exit.NO


def _batches(path: Path) -> Iterator[list[bytes]]:
    from sealwire.probe.seal import frames
    from sealwire.probe.seal.cose import Malformed

    batch: list[bytes] = []
    for file in sealed.files(path):
        try:
            for _, segment in sealed.segments(sealed.read(file)):
                batch.append(frames.pack(segment))
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
        except Malformed as wrong:
            yield batch
            raise Failure(Exit.NO, f"{file}: {wrong}", "sealwire verify says where") from wrong
    yield batch


def _compact(args: argparse.Namespace, say: Say) -> Exit:
    from sealwire.probe.store.compaction import compact
    from sealwire.probe.store.disk import Folders, locked

    locks = [locked(args.store, "compact.lock", "compaction or retention works")]
    try:
        if args.all:
            locks.append(locked(args.store, "lock", "a collector stores"))
        done = compact(Folders(args.store), last=args.all)
    finally:
        for lock in locks:
            lock.release()
    damaged = f", {done.damaged_bytes:,} bytes are no segments" if done.damaged_bytes else ""
    damaged += f", {done.unreadable:,} segments cannot be read" if done.unreadable else ""
    say.fact(
        "compacted",
        f"{args.store}: {done.rows:,} rows of {done.segments:,} segments in {done.files:,} files{damaged}",
        store=str(args.store),
        rows=done.rows,
        segments=done.segments,
        files=done.files,
        joined=done.joined,
        leftovers=done.leftovers,
        damaged_bytes=done.damaged_bytes,
        unreadable=done.unreadable,
    )
    return Exit.OK


def signing_key(name: str) -> SigningKey:
    """The collector's key.  Raises Failure."""
    from sealwire.probe.seal.keys import load_signing_key

    try:
        return load_signing_key(name)
    except ConfigurationError as error:
        raise Failure(Exit.ENVIRONMENT, str(error), "") from error
    except OSError as error:
        raise Failure(Exit.ENVIRONMENT, f"{name}: {error.strerror}", "check --sign") from error


def _retain(args: argparse.Namespace, say: Say) -> Exit:
    from sealwire.probe.store.disk import Folders, locked
    from sealwire.probe.store.retention import Policy, retain

    if args.days is None and args.most is None:
        raise Failure(Exit.USAGE, "nothing says what may go", "give --days N, --most MB or both")
    if (args.days is not None and args.days <= 0) or (args.most is not None and args.most <= 0):
        raise Failure(Exit.USAGE, "--days and --most are more than 0", "")
    age = None if args.days is None else int(args.days * _DAY)
    most = None if args.most is None else args.most * _MIB
    key = signing_key(args.sign)
    lock = locked(args.store, "compact.lock", "compaction or retention works")
    try:
        done = retain(Folders(args.store), Policy(age, most), time.time_ns(), key)
    finally:
        lock.release()
    say.fact(
        "removed",
        f"{args.store}: {done.segments:,} segments with {done.events:,} events removed, "
        f"{done.bytes:,} bytes, signed by {key.id.hex()}",
        store=str(args.store),
        segments=done.segments,
        events=done.events,
        bytes=done.bytes,
        collector=key.id.hex(),
    )
    return Exit.OK


def _show(args: argparse.Namespace, say: Say) -> Exit:
    from sealwire.probe.store import reading
    from sealwire.probe.store.checkpoints import last_checkpoint
    from sealwire.probe.store.disk import Folders
    from sealwire.probe.store.manifest import Manifest

    disk = Folders(args.store)
    for place, probe in enumerate(reading.probes(disk)):
        manifest = Manifest.read(disk, probe)
        names = [name for name in reading.files(disk, probe) if reading.first_of(name) > manifest.removed]
        done = {file.name for file in manifest.files}
        size = sum(disk.size(f"{probe}/{name}") for name in names)
        waiting = sum(disk.size(f"{probe}/{name}") for name in names if name not in done)
        count = sum(n for unit in manifest.units for table, n in unit.rows.items() if table != "segments")
        checkpoint = last_checkpoint(disk, probe)
        tables = sum(unit.bytes for unit in manifest.units)
        removed = ""
        if checkpoint is not None:
            removed = f", up to segment {checkpoint.last_segment:,} (hash {checkpoint.hash.hex()}) removed"
        say.fact(
            "probe",
            f"{probe}: place {place}, {len(names)} files, {size:,} bytes of segments "
            f"({waiting:,} not compacted), {count:,} rows in {tables:,} bytes{removed}",
            probe=probe,
            place=place,
            files=len(names),
            segment_bytes=size,
            uncompacted_bytes=waiting,
            rows=count,
            table_bytes=tables,
            removed=None if checkpoint is None else checkpoint.last_segment,
            removed_hash=None if checkpoint is None else checkpoint.hash.hex(),
        )
    return Exit.OK
