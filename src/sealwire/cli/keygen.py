"""`sealwire keygen`: a key that seals a probe's events, and the public key that checks them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sealwire.cli.say import Exit, Failure, Say
from sealwire.errors import ConfigurationError

_ALGORITHMS = ("ed25519", "es256", "rsa-4096", "ml-dsa-65")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the private key; its public key is FILE.pub")
    parser.add_argument(
        "--algorithm", choices=_ALGORITHMS, default="ed25519", help="kind of key (default: ed25519)"
    )


def run(args: argparse.Namespace, say: Say) -> Exit:
    from sealwire.probe.seal.keys import NAMES, generate

    private_file: Path = args.file
    public_file = private_file.with_name(private_file.name + ".pub")
    try:
        private, public, key = generate(args.algorithm)
    except ConfigurationError as error:
        raise Failure(Exit.ENVIRONMENT, str(error), "choose another --algorithm") from error
    try:
        # Both are new: a key that was used once is never written over.
        _write(private_file, private, 0o600)
        _write(public_file, public, 0o644)
    except FileExistsError as error:
        raise Failure(Exit.ENVIRONMENT, f"{error.filename} exists", "choose another name") from error
    except OSError as error:
        raise Failure(
            Exit.ENVIRONMENT, f"{error.filename}: {error.strerror}", "choose another name"
        ) from error
    say.fact(
        "key",
        f"{private_file} and {public_file}: {NAMES[key.algorithm]}, key id {key.id.hex()}",
        private=str(private_file),
        public=str(public_file),
        algorithm=NAMES[key.algorithm],
        key=key.id.hex(),
    )
    say.words(f"next: sealwire probe -r capture.pcap --sign {private_file} -w events/")
    say.words(f"      sealwire verify events/ --key {public_file}")
    return Exit.OK


def _write(path: Path, data: bytes, mode: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(file, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
