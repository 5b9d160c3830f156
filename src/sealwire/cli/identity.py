"""Options about who we are and whom we believe, in openssl's words where it has some."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

import sealwire
from sealwire.cli.options import configure
from sealwire.cli.say import Exit, Failure, Say
from sealwire.crypto.rawkeys import split_raw_public_keys

_STAPLE_MODES = {
    "none": sealwire.STAPLE_NONE,
    "optional": sealwire.STAPLE_OPTIONAL,
    "required": sealwire.STAPLE_REQUIRED,
}

_SOON: Final = datetime.timedelta(days=7)


def client_options(parser: argparse.ArgumentParser) -> None:
    _client_options(parser)
    _common_options(parser)


def server_options(parser: argparse.ArgumentParser) -> None:
    _server_options(parser)
    _common_options(parser)


def both_options(parser: argparse._ActionsContainer) -> None:
    """Of a program that is one or the other."""
    _client_options(parser)
    _server_options(parser)
    _common_options(parser)


def _client_options(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--status",
        choices=tuple(_STAPLE_MODES),
        default="optional",
        help="whether to ask for an OCSP response with the certificate, or to insist (default: optional)",
    )
    parser.add_argument(
        "--enable-client-rpk", action="store_true", help="show the public half of --key as a raw public key"
    )


def _server_options(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--status-file", metavar="FILE", help="OCSP response (DER) to staple; read again for each client"
    )
    parser.add_argument(
        "--enable-server-rpk",
        action="store_true",
        help="show the public half of --key as a raw public key to clients that take one",
    )


def _common_options(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--expected-rpks", metavar="FILE", help="accept peers with one of the raw public keys (PEM) in FILE"
    )
    parser.add_argument(
        "--cert-comp", metavar="A:B", help="compress certificates: zlib, brotli, zstd, best first"
    )
    parser.add_argument(
        "--allow-no-dhe-kex",
        action="store_true",
        help="let pre-shared keys go without a key exchange, which gives up forward secrecy",
    )


def own_key(args: argparse.Namespace, option: str, wanted: bool) -> None:
    """Raise Failure(USAGE) for a key without a use, or a use without a key."""
    flag = "--" + option
    if wanted and args.cert is None and args.key is None:
        raise Failure(Exit.USAGE, f"{flag} is given without a key", "name the key with --key")
    if args.key is not None and args.cert is None and not wanted:
        raise Failure(
            Exit.USAGE, "--key is given without --cert", f"name the certificate with --cert, or say {flag}"
        )


def check_key_is_there(args: argparse.Namespace) -> None:
    """Raise Failure(USAGE) for a --cert without --key whose file has no key in it either."""
    if args.cert is None or args.key is not None:
        return
    try:
        text = Path(args.cert).read_bytes()
    except OSError:
        return  # loading it says why
    if b"CERTIFICATE-----" in text and b"PRIVATE KEY-----" not in text:
        raise Failure(
            Exit.USAGE, f"--cert: there is no private key in {args.cert}", "name the key's file with --key"
        )


def tell_of_expiry(context: sealwire.Context, say: Say) -> None:
    """Say that our own certificate has expired, or will within a week: peers refuse it, and not we."""
    for credential in context.config().credentials:
        if not credential.chain:
            continue  # a raw public key has no dates
        try:
            end = x509.load_der_x509_certificate(credential.chain[0]).not_valid_after_utc
        except ValueError:
            continue
        left = end - datetime.datetime.now(datetime.UTC)
        if left > _SOON:
            continue
        words = "expired" if left.total_seconds() <= 0 else "expires"
        say.fact(
            "certificate",
            f"our certificate {words} on {end:%Y-%m-%d %H:%M} UTC; renew it: peers refuse it from then on",
            expires=end.isoformat(),
            expired=left.total_seconds() <= 0,
        )


def apply_client(context: sealwire.Context, args: argparse.Namespace) -> None:
    """Set `context` up as the options say, the certificate of --cert included."""
    check_key_is_there(args)
    context.staple_mode = _STAPLE_MODES[args.status]
    _apply(context, args, raw=args.enable_client_rpk)
    if args.cert is not None:
        option = "--cert" if args.key is None else "--cert, --key"
        configure(Exit.ENVIRONMENT, option, lambda: context.load_cert_chain(args.cert, args.key))


def apply_server(context: sealwire.Context, args: argparse.Namespace) -> None:
    """As :func:`apply_client`, with what a server has besides."""
    check_key_is_there(args)
    _apply(context, args, raw=args.enable_server_rpk)
    if args.cert is None:
        if args.status_file is not None:
            raise Failure(
                Exit.USAGE, "--status-file is given without --cert", "name the certificate with --cert"
            )
        return
    option = "--cert" if args.key is None else "--cert, --key"
    if args.status_file is None:
        configure(Exit.ENVIRONMENT, option, lambda: context.load_cert_chain(args.cert, args.key))
        return
    path = Path(args.status_file)
    try:
        now = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise Failure(
            Exit.ENVIRONMENT, f"--status-file: {path}, {reason}", "`openssl ocsp -respout` writes one"
        ) from error
    # Once with its content, which is checked; then with the file, which somebody keeps fresh.
    for staple in (now, path.read_bytes):
        configure(
            Exit.ENVIRONMENT,
            f"{option}, --status-file",
            lambda staple=staple: context.load_cert_chain(args.cert, args.key, ocsp_response=staple),  # type: ignore[misc]
        )


def _apply(context: sealwire.Context, args: argparse.Namespace, *, raw: bool) -> None:
    if raw:
        file = args.key or args.cert
        configure(Exit.ENVIRONMENT, "--key", lambda: context.load_raw_public_key(file))
    if args.expected_rpks is not None:
        path = Path(args.expected_rpks)
        try:
            keys = split_raw_public_keys(path.read_bytes())
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise Failure(
                Exit.ENVIRONMENT, f"--expected-rpks: {path}, {reason}", "`openssl pkey -pubout` writes one"
            ) from error
        configure(Exit.ENVIRONMENT, "--expected-rpks", lambda: context.set_raw_public_keys(keys))
    if args.cert_comp is not None:
        configure(Exit.USAGE, "--cert-comp", lambda: context.set_certificate_compression(args.cert_comp))
    if args.allow_no_dhe_kex:
        context.set_psk_key_exchange_modes("psk_dhe_ke:psk_ke", allow_without_forward_secrecy=True)
