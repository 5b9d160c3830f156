"""Options that `serve` and `connect` share, in openssl's words, and the context they make."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import sealwire
from sealwire.cli.say import Exit, Failure

if TYPE_CHECKING:
    from sealwire.drive.facts import Facts

# What `openssl s_client` calls a key without a name.
_PSK_IDENTITY = "Client_identity"


def transport_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stream", action="store_true", help="TLS 1.3 over TCP instead of DTLS 1.3 over UDP")
    protocol_options(parser)
    datagram_options(parser)


def protocol_options(parser: argparse._ActionsContainer) -> None:
    """Those of every transport."""
    parser.add_argument("--alpn", metavar="A,B", help="application protocols, best first")
    parser.add_argument("--groups", metavar="A:B", help="key exchange groups, best first")
    parser.add_argument("--ciphersuites", metavar="A:B", help="cipher suites, best first")
    parser.add_argument(
        "--record-padding", type=block, metavar="N", help="pad every record to a multiple of N bytes"
    )
    parser.add_argument("--keylogfile", metavar="FILE", help="append the connections' secrets, for Wireshark")


def datagram_options(parser: argparse.ArgumentParser) -> None:
    """Those of DTLS alone."""
    parser.add_argument(
        "--use-srtp", metavar="A:B", help="agree on keys for SRTP with one of these profiles (DTLS)"
    )
    parser.add_argument(
        "--keepalive",
        type=seconds,
        metavar="SECONDS",
        help="after so much silence ask whether the peer is there (DTLS)",
    )
    parser.add_argument(
        "--max-mtu", type=datagram, metavar="N", help="look for datagrams of up to N bytes on the path (DTLS)"
    )


def psk_options(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--psk",
        metavar="@FILE|HEX",
        help="pre-shared key in hex, best from a file: what is typed here is in the process list",
    )
    parser.add_argument(
        "--psk-identity", metavar="ID", help=f"name of the pre-shared key (default: {_PSK_IDENTITY})"
    )


def psk(args: argparse.Namespace) -> sealwire.ExternalPsk | None:
    """The key of --psk; no error of it says what was given, which may be most of a key."""
    if args.psk is None:
        if args.psk_identity is not None:
            raise Failure(
                Exit.USAGE, "--psk-identity is given without --psk", "name the key with --psk @FILE"
            )
        return None
    text, step = args.psk, "give hex digits, best in a file: --psk @FILE"
    if text.startswith("@"):
        path = Path(text[1:])
        try:
            text = path.read_text("ascii")
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise Failure(
                Exit.ENVIRONMENT, f"--psk: {path}, {reason}", "name a file of hex digits"
            ) from error
        except UnicodeDecodeError:
            text = "not hex"
        step = f"{path} must hold hex digits and nothing else"
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        # Not chained: bytes.fromhex says where, and a traceback would show the key.
        raise Failure(Exit.USAGE, "--psk: that is no key in hex", step) from None
    identity = _PSK_IDENTITY if args.psk_identity is None else args.psk_identity
    try:
        return sealwire.ExternalPsk(identity, secret)
    except sealwire.ConfigurationError as error:
        raise Failure(Exit.USAGE, f"--psk: {error}", "") from error


def session_options(parser: argparse.ArgumentParser) -> None:
    """Those of a client."""
    parser.add_argument("--sess-out", metavar="FILE", help="keep the session tickets of this server there")
    parser.add_argument(
        "--sess-in",
        metavar="FILE",
        help="resume by a ticket of this file; each is used once, so the one used is removed from it",
    )
    parser.add_argument(
        "--early-data",
        metavar="FILE",
        help="send this with the first flight if the ticket of --sess-in allows it; it can be replayed, "
        "and is lost if the server does not take it",
    )


def early_data(args: argparse.Namespace) -> bytes:
    """What is in the file of --early-data."""
    if args.early_data is None:
        return b""
    path = Path(args.early_data)
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise Failure(Exit.ENVIRONMENT, f"--early-data: {path}, {reason}", "name a file to send") from error


def session_store(args: argparse.Namespace) -> sealwire.SessionStore | None:
    """The tickets of --sess-in, or none yet, if there is anything to be done with tickets."""
    if args.sess_in is None:
        return None if args.sess_out is None else sealwire.SessionStore()
    loaded: list[sealwire.SessionStore] = []
    configure(Exit.ENVIRONMENT, "--sess-in", lambda: loaded.append(sealwire.SessionStore.load(args.sess_in)))
    return loaded[0]


def save_sessions(args: argparse.Namespace, store: sealwire.SessionStore) -> None:
    """Write what --sess-out asks for; and --sess-in without the ticket that was used."""
    for option, path in (("--sess-out", args.sess_out), ("--sess-in", args.sess_in)):
        if path is not None:
            configure(Exit.ENVIRONMENT, option, partial(store.save, path))


def ticket_options(parser: argparse._ActionsContainer, *, early_data: bool = True) -> None:
    """Those of a server; `early_data` whether it may take some."""
    parser.add_argument(
        "--num-tickets",
        type=int,
        choices=range(9),
        default=2,
        metavar="N",
        help="session tickets for each client that wants some, 0 to 8 (default: 2)",
    )
    parser.add_argument(
        "--ticket-keys",
        metavar="FILE",
        help="keys for tickets that other servers accept as well, 32 bytes in hex on a line each; the first "
        "seals (default: random ones)",
    )
    parser.set_defaults(max_early_data=0, tickets_as_proof=False)
    if not early_data:
        return
    parser.add_argument(
        "--max-early-data",
        type=int,
        default=0,
        metavar="N",
        help="take up to N bytes of early data, which can be replayed, from clients that come back "
        "(default: 0)",
    )
    parser.add_argument(
        "--tickets-as-proof",
        action="store_true",
        help="over datagrams, ask no cookie of a client that comes back to where its ticket was given",
    )


def configure_value(option: str, action: Callable[[], object]) -> None:
    """As :func:`configure`, for a number that cannot be."""
    try:
        action()
    except ValueError as error:
        raise Failure(Exit.USAGE, f"{option}: {error}", "choose another number") from error


def apply_ticket_options(context: sealwire.Context, args: argparse.Namespace) -> None:
    """Raises Failure for a file without usable keys, and says nothing of what is in it."""
    context.num_tickets = args.num_tickets
    configure_value("--max-early-data", lambda: setattr(context, "max_early_data_size", args.max_early_data))
    context.tickets_as_proof = args.tickets_as_proof
    if args.ticket_keys is None:
        return
    path = Path(args.ticket_keys)
    try:
        lines = path.read_text("ascii").split()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise Failure(
            Exit.ENVIRONMENT, f"--ticket-keys: {path}, {reason}", "name a file of hex digits"
        ) from error
    except UnicodeDecodeError:
        lines = ["not hex"]
    try:
        keys = [bytes.fromhex(line) for line in lines]
    except ValueError:
        step = f"{path} must hold a key of 64 hex digits on each line"
        raise Failure(Exit.USAGE, "--ticket-keys: that is no key in hex", step) from None
    configure(Exit.USAGE, "--ticket-keys", lambda: context.set_ticket_keys(keys))


def apply_transport_options(context: sealwire.Context, args: argparse.Namespace) -> None:
    """Raises Failure(USAGE) for a name that does not exist, Failure(ENVIRONMENT) for the key log."""
    if args.groups is not None:
        configure(Exit.USAGE, "--groups", lambda: context.set_groups(args.groups))
    if args.ciphersuites is not None:
        configure(Exit.USAGE, "--ciphersuites", lambda: context.set_ciphersuites(args.ciphersuites))
    if args.alpn is not None:
        configure(Exit.USAGE, "--alpn", lambda: context.set_alpn_protocols(args.alpn.split(",")))
    if getattr(args, "use_srtp", None) is not None:
        configure(Exit.USAGE, "--use-srtp", lambda: context.use_srtp(args.use_srtp))
    if args.record_padding is not None:
        context.set_block_padding(args.record_padding)
    if args.keylogfile is not None:

        def log_keys() -> None:
            context.keylog_filename = args.keylogfile

        configure(Exit.ENVIRONMENT, "--keylogfile", log_keys)


def configure(code: Exit, option: str, action: Callable[[], object]) -> None:
    """Do what `option` asks; what is wrong with it ends the verb with `code` and names the option."""
    try:
        action()
    except sealwire.ConfigurationError as error:  # says what to do, too
        raise Failure(code, f"{option}: {error}", "") from error


def endpoint(text: str) -> tuple[str, int]:
    """``host:port``, ``[::1]:port`` or ``:port``; for argparse."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isdecimal() or int(port) > 0xFFFF or (":" in host and not bracketed):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT ({_of_endpoints(text, host, port)})")
    return (host[1:-1] if bracketed else host), int(port)


def _of_endpoints(text: str, host: str, port: str) -> str:
    """What is wrong with one."""
    if "://" in text:
        return f"it is a URL: leave {text.partition('://')[0]}:// away"
    if text.isdecimal():
        return f"a port alone is :{text}"
    if ":" in host:
        return "an IPv6 address goes in brackets"
    if not host and ":" not in text:
        return "the port is missing"
    return "a port is a number up to 65535"


def peer(text: str) -> tuple[str, int]:
    """An endpoint one can connect to; for argparse."""
    host, port = endpoint(text)
    if port == 0:
        raise argparse.ArgumentTypeError("nobody can be reached at port 0")
    return host, port


def written(host: str, port: int) -> str:
    """The reverse of `endpoint`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def seconds(text: str) -> float:
    """A positive number of seconds; for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def block(text: str) -> int:
    """A size of padding blocks; for argparse."""
    if text.isdecimal() and int(text) <= 1 << 14:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes from 0 to 16384")


def datagram(text: str) -> int:
    """A size of datagrams; for argparse."""
    if text.isdecimal() and 128 <= int(text) <= 65_507:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes from 128 to 65507")


def upkeep(args: argparse.Namespace) -> sealwire.Upkeep:
    """What connections see to by themselves."""
    return sealwire.Upkeep(keepalive=args.keepalive, max_mtu=args.max_mtu)


def cid_bytes(text: str) -> int | None:
    """Length of the connection ids a server gives, None for ``off``; for argparse."""
    if text == "off":
        return None
    if text.isdecimal() and (text == "0" or 4 <= int(text) <= 20):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither 0, nor 4 to 20 bytes, nor off")


def worker_count(text: str) -> int:
    """How many processes serve; for argparse."""
    if text.isdecimal() and 1 <= int(text) <= 64:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of workers from 1 to 64")


def own_cid_bytes(text: str) -> int:
    """Length of the connection id a client wants; for argparse."""
    if text.isdecimal() and int(text) <= 255:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes from 0 to 255")


def facts(connected: Facts) -> dict[str, object]:
    """What was negotiated, for words and objects alike."""
    session = connected.connection.session
    try:
        certificate = session.peer_certificate
        names = certificate.names if certificate is not None else ()
    except sealwire.CertificateError:  # nobody verified it, so it may be anything
        names = ()
    raw = session.peer_raw_public_key
    return {
        "version": connected.version(),
        "suite": session.suite.name,
        "group": connected.group(),
        "peer": names[0] if names else None,
        "raw_public_key": None if raw is None else f"sha256:{raw.fingerprint.hex()}",
        "stapled": connected.get_ocsp_response() is not None,
        "psk_identity": connected.psk_identity(),
        "alpn": connected.selected_alpn_protocol(),
        "retried": session.retried,
        "resumed": session.resumed,
        "early_data": session.early_data.value,
        "cid_received": len(session.connection_ids.ours),
        "cid_sent": len(session.connection_ids.theirs),
        "srtp_profile": None if session.srtp_profile is None else session.srtp_profile.name,
    }


def in_words(negotiated: dict[str, object]) -> str:
    """One line of `facts`."""
    parts = [f"{negotiated['version']}, {negotiated['suite']}, {negotiated['group'] or 'no key exchange'}"]
    if negotiated["psk_identity"] is not None:
        parts.append(f"pre-shared key {negotiated['psk_identity']!r}")
    elif negotiated["raw_public_key"] is not None:
        parts.append(f"peer has raw public key {negotiated['raw_public_key']}")
    else:
        parts.append(f"peer {negotiated['peer']}" if negotiated["peer"] else "peer showed no name")
    if negotiated["stapled"]:
        parts.append("OCSP response stapled")
    if negotiated["resumed"]:
        parts.append("resumed")
    if negotiated["early_data"] != "not offered":
        parts.append(f"early data {negotiated['early_data']}")
    if negotiated["srtp_profile"]:
        parts.append(f"SRTP profile {negotiated['srtp_profile']}")
    if negotiated["alpn"]:
        parts.append(f"application protocol {negotiated['alpn']}")
    return ", ".join(parts)
