"""`sealwire probe enroll`: let a collector know a probe, by its files or by a token it was given.

On the collector's machine: --key and --identity name the probe's public files; --token offers a token;
--revoke ends it; --list shows who is there.  On the probe's: --to, --token and --sign enrol over
the network.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import time
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from sealwire.cli import delivering
from sealwire.cli.options import endpoint, seconds
from sealwire.cli.say import Exit, Failure, Say
from sealwire.errors import ConfigurationError, Error
from sealwire.probe import delivery
from sealwire.probe.enrolled import Enrolled, Probe
from sealwire.probe.seal.keys import load_public_key, load_signing_key

_TOKEN_SECONDS: Final = 3600.0


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--enrolled", type=Path, metavar="DIR", help="the collector's list of probes")
    parser.add_argument("--key", metavar="PUB", help="the probe's public sealing key")
    parser.add_argument(
        "--identity", metavar="FILE", help="the certificate, or raw public key, that it connects with (PEM)"
    )
    parser.add_argument("--name", metavar="NAME", default="", help="what people call it")
    parser.add_argument("--list", action="store_true", help="show who is enrolled")
    parser.add_argument("--revoke", metavar="ID", help="hear it no more: its id, or the beginning of it")
    parser.add_argument(
        "--token",
        metavar="TOKEN",
        nargs="?",
        const="",
        help="offer a token for one probe; with --to: the token that was given to us, or @FILE",
    )
    parser.add_argument(
        "--valid", type=seconds, metavar="S", default=_TOKEN_SECONDS, help="how long (default: 3600)"
    )
    parser.add_argument("--to", type=endpoint, metavar="HOST:PORT", help="enrol with the collector there")
    parser.add_argument("--sign", metavar="KEY", help="the probe's sealing key")
    delivering.identity_options(parser)
    parser.add_argument("--collector", metavar="PUB", help="write the key of the collector's receipts there")


def run(args: argparse.Namespace, say: Say) -> Exit:
    if args.to is not None:
        return asyncio.run(_over_the_network(args, say))
    if args.enrolled is None:
        raise Failure(Exit.USAGE, "whose list?", "give --enrolled DIR, or --to HOST:PORT")
    try:
        enrolled = Enrolled(args.enrolled)
        if args.list:
            return _list(enrolled, say)
        if args.revoke is not None:
            return _revoke(enrolled, args.revoke, say)
        if args.token is not None:
            return _offer(enrolled, args, say)
        return _add(enrolled, args, say)
    except ConfigurationError as error:
        raise Failure(Exit.NO, str(error), "") from error
    except OSError as error:
        where = error.filename or args.enrolled
        raise Failure(Exit.ENVIRONMENT, f"{where}: {error.strerror or error}", "check the name") from error


def _add(enrolled: Enrolled, args: argparse.Namespace, say: Say) -> Exit:
    if args.key is None or args.identity is None:
        raise Failure(Exit.USAGE, "which probe?", "give --key PUB and --identity FILE, or --token")
    key = load_public_key(args.key)
    identity, raw_key = _identity(args.identity)
    probe = Probe(args.name or Path(args.key).stem, key, identity, time.time_ns(), raw_key)
    enrolled.add(probe)
    _show("enrolled", probe, say)
    return Exit.OK


def _identity(name: str) -> tuple[bytes, bytes]:
    """Hash of the public key that a file shows, and the key if it is a raw one."""
    data = Path(name).read_bytes()
    raw = b"PUBLIC KEY-----" in data
    try:
        key = load_pem_public_key(data) if raw else x509.load_pem_x509_certificate(data).public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{name}: this is no certificate or public key that can be read") from None
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest(), spki if raw else b""


def _show(what: str, probe: Probe, say: Say) -> None:
    state = "" if probe.revoked is None else ", revoked"
    say.fact(
        what,
        f"{what:<9} {probe.id.hex()}  {probe.name}{state}",
        probe=probe.id.hex(),
        name=probe.name,
        identity=probe.identity.hex(),
        raw_key=bool(probe.raw_key),
        revoked=probe.revoked,
    )


def _list(enrolled: Enrolled, say: Say) -> Exit:
    for probe in enrolled.probes():
        _show("probe", probe, say)
    return Exit.OK


def _revoke(enrolled: Enrolled, digits: str, say: Say) -> Exit:
    found = [probe for probe in enrolled.probes() if probe.id.hex().startswith(digits.lower())]
    if len(found) != 1:
        words = "no probe has" if not found else f"{len(found)} probes have"
        raise Failure(Exit.NO, f"{words} an id that begins with {digits!r}", "--list shows them")
    _show("revoked", enrolled.revoke(found[0].id, time.time_ns()), say)
    return Exit.OK


def _offer(enrolled: Enrolled, args: argparse.Namespace, say: Say) -> Exit:
    if args.token:
        raise Failure(Exit.USAGE, "a token is made here, not given", "--token without a value")
    token = os.urandom(delivery.TOKEN_BYTES)
    enrolled.offer(token, args.name, time.time_ns() + int(args.valid * 1e9))
    say.fact("token", token.hex(), token=token.hex(), seconds=args.valid)
    return Exit.OK


async def _over_the_network(args: argparse.Namespace, say: Say) -> Exit:
    from sealwire.probe.export.exporter import enrol

    delivering.identity(args)
    if args.sign is None or not args.token:
        raise Failure(Exit.USAGE, "enrolling takes the token and our sealing key", "--token TOKEN --sign KEY")
    text = Path(args.token[1:]).read_text().strip() if args.token.startswith("@") else args.token
    try:
        token = bytes.fromhex(text)
        if len(token) != delivery.TOKEN_BYTES:
            raise ValueError
    except ValueError:
        raise Failure(Exit.USAGE, "the token is 32 hexadecimal digits", "give it as it was printed") from None
    key = load_signing_key(args.sign)
    config = {
        "cafile": args.cafile,
        "server_keys": delivering.read(args.collector_rpks),
        "cert": args.cert,
        "tls_key": args.tls_key,
        "server_hostname": args.server_name,
    }
    host, port = args.to
    try:
        collector = await enrol(host, port, config, token, key, args.name)
    except Error as error:
        raise Failure(Exit.NO, str(error), "ask for another token, perhaps") from error
    if args.collector is not None:
        Path(args.collector).write_bytes(collector.pem())
    say.fact(
        "enrolled",
        f"probe {key.id.hex()} is enrolled; the collector signs receipts with key {collector.id.hex()}",
        probe=key.id.hex(),
        collector=collector.id.hex(),
    )
    return Exit.OK
