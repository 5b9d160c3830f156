"""`sealwire cert`: a development CA, a server and a client certificate in one command."""

from __future__ import annotations

import argparse
import ipaddress
from pathlib import Path

from cryptography.hazmat.primitives import hashes

from sealwire.cli import authority
from sealwire.cli.say import Exit, Failure, Say


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, default=Path(), help="where to write (default: here)")
    parser.add_argument(
        "--name",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="host names of the server (default: localhost)",
    )
    parser.add_argument(
        "--ip",
        nargs="+",
        action="extend",
        type=_address,
        metavar="ADDRESS",
        help="addresses of the server (default: 127.0.0.1 and ::1)",
    )
    parser.add_argument("--days", type=_days, default=365, help="validity in days (default: 365)")
    parser.add_argument(
        "--key-type", choices=authority.KEY_TYPES, default="ec", help="of server and client (default: ec)"
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist")


def run(args: argparse.Namespace, say: Say) -> Exit:
    directory: Path = args.dir
    existing = [name for name in authority.FILES if (directory / name).exists()]
    if existing and not args.force:
        raise Failure(
            Exit.ENVIRONMENT,
            f"{', '.join(existing)} already exist in {directory.resolve()}",
            "choose another directory with --dir, or replace them with --force",
        )
    try:
        made = authority.make(
            args.name or authority.LOCAL_NAMES,
            args.ip if args.ip is not None else authority.LOCAL_ADDRESSES,
            args.days,
            args.key_type,
        )
    except ValueError as error:
        raise Failure(Exit.USAGE, f"these names fit no certificate ({error})", "check --name") from error
    try:
        authority.write(directory, made)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Failure(
            Exit.ENVIRONMENT,
            f"cannot write to {directory.resolve()} ({reason})",
            "choose another directory with --dir",
        ) from error
    for item in made:
        certificate, key = (str(directory / name) for name in item.files)
        until = item.certificate.not_valid_after_utc
        what = f"for {', '.join(item.names)}" if item.names else "the CA, for --cafile"
        say.fact(
            "certificate",
            f"{certificate:<20} {key:<20} until {until:%Y-%m-%d}  {what}",
            role=item.role,
            certificate=certificate,
            key=key,
            names=list(item.names),
            not_after=until.isoformat(),
            sha256=item.certificate.fingerprint(hashes.SHA256()).hex(),
        )
    server = directory / "server.pem"
    say.words(
        f"next: sealwire serve --listen :4433 --cert {server} --key {server.with_suffix('.key')} --echo"
    )
    say.words(f"      sealwire connect localhost:4433 --cafile {directory / 'ca.pem'}")
    return Exit.OK


def _address(text: str) -> authority.Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address") from None


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 36_500:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to 36500")
    return int(text)
