"""`sealwire proxy`: secure any TCP service without touching it, or reach one that is secured."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import ipaddress
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import sealwire
from sealwire.cli import connect, identity, serve, watching
from sealwire.cli import options as common
from sealwire.cli.explain import explain, not_tls
from sealwire.cli.say import Exit, Failure, Say
from sealwire.drive.aio.passage import Network, ProxySettings, Report, Trouble, Unreachable
from sealwire.drive.aio.proxy import Proxy, start_proxy, where
from sealwire.drive.machine import read_machine
from sealwire.errors import HandshakeError, ProtocolError
from sealwire.limits import Limits, fit
from sealwire.proxy import Routes, Target

# Listening sockets, event loop, metrics and what files are read.
_OTHER_DESCRIPTORS: Final = 64
_DESCRIPTORS_EACH: Final = 2
# Trouble of one kind is told so often at most: strangers must not write our log.
_QUIET_SECONDS: Final = 5.0
# Of its own side each; the other has no use for them.
_SERVER_ONLY: Final = (
    "client_ca", "status_file", "enable_server_rpk", "ticket_keys", "route", "allow_name",
    "max_per_client",
)  # fmt: skip
_CLIENT_ONLY: Final = ("cafile", "servername", "enable_client_rpk")


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Secures a TCP service without touching it. With --connect it takes TLS 1.3 connections and passes "
        "them on in plain to a local service; with --connect-secure it takes plain connections of local "
        "programs and passes them on over TLS 1.3. SIGHUP reads certificates and keys again; SIGTERM or "
        "Ctrl-C lets what goes on finish, the second one ends it."
    )
    where_to = parser.add_argument_group("where")
    where_to.add_argument(
        "--listen",
        type=place,
        required=True,
        metavar="WHERE",
        help="where connections come in: HOST:PORT, :PORT or unix:PATH",
    )
    where_to.add_argument(
        "--connect", type=target, metavar="WHERE", help="the service, in plain: HOST:PORT or unix:PATH"
    )
    where_to.add_argument(
        "--connect-secure", type=target, metavar="WHERE", help="the server, over TLS: HOST:PORT or unix:PATH"
    )
    where_to.add_argument(
        "--route",
        type=route,
        action="append",
        metavar="NAME=WHERE",
        help="the service for clients that ask for this host name, *.NAME for those below it, or "
        "alpn:PROTOCOL; as often as needed; --connect is for all others",
    )
    where_to.add_argument(
        "--unsafe-plain",
        action="store_true",
        help="let the plain side be another machine's; everybody between can read and change it",
    )
    where_to.add_argument(
        "--reuse-port", action="store_true", help="let other processes listen there as well"
    )
    who = parser.add_argument_group("who we are, and whom we believe")
    who.add_argument(
        "--cert", metavar="FILE", help="our certificate chain, PEM, ours first; or --psk, or both"
    )
    who.add_argument("--key", metavar="FILE", help="its private key (default: in the same file)")
    who.add_argument("--client-ca", metavar="FILE", help="demand client certificates of these CAs")
    who.add_argument(
        "--allow-name",
        action="append",
        metavar="NAME",
        help="let in only clients whose certificate has this name; as often as needed",
    )
    who.add_argument(
        "--cafile",
        metavar="FILE",
        help="trust the CAs in this file (default: the system's; with --psk or --expected-rpks none)",
    )
    who.add_argument("--servername", metavar="NAME", help="name to expect of the server (default: its host)")
    identity.both_options(who)
    common.psk_options(who)
    common.ticket_options(who, early_data=False)
    beside = parser.add_argument_group("what else")
    common.protocol_options(beside)
    beside.add_argument(
        "--accept-proxy",
        type=networks,
        metavar="FROM",
        help="each connection begins with a PROXY protocol header (version 2) and comes from these networks, "
        "10.0.0.0/8,::1, or from any; its word on who the client is holds",
    )
    beside.add_argument(
        "--send-proxy", action="store_true", help="begin with such a header: who the client is, and its TLS"
    )
    for option, default, meaning in (
        ("--connect-timeout", 10.0, "a connection onward may take"),
        ("--handshake-timeout", 10.0, "a handshake, or a PROXY protocol header, may take"),
        ("--idle-timeout", 43_200.0, "nothing may move on a connection for so long"),
        ("--drain", 30.0, "connections may take to finish when the proxy ends"),
    ):
        beside.add_argument(
            option,
            type=common.seconds,
            default=default,
            metavar="SECONDS",
            help=f"{meaning} (default: {default:g})",
        )
    beside.add_argument(
        "--max-connections", type=count, metavar="N", help="at once; more wait (default: 10,000 or what fits)"
    )
    beside.add_argument(
        "--max-per-client",
        type=count,
        metavar="N",
        help="at once of one address or IPv6 /64 (default: 1,000)",
    )
    watching.options(beside)


def place(text: str) -> Target:
    """Where to listen; for argparse."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        # sockaddr_un has 108 bytes, one of which ends the path.
        if not path or len(path.encode()) > 107:
            raise argparse.ArgumentTypeError(f"{text!r} has no path, or one of more than 107 bytes")
        return Target(path=path)
    host, port = common.endpoint(text)
    return Target(host, port)


def target(text: str) -> Target:
    """Where to connect to; for argparse."""
    found = place(text)
    if found.path:
        return found
    if found.port == 0:
        raise argparse.ArgumentTypeError("nobody can be reached at port 0")
    return replace(found, host=found.host or "localhost")


def route(text: str) -> tuple[str, Target]:
    """``name=where``; for argparse."""
    name, equals, onward = text.partition("=")
    if not equals or not name or name in ("alpn:", "*", "*."):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=WHERE or alpn:PROTOCOL=WHERE")
    return name, target(onward)


def networks(text: str) -> tuple[Network, ...]:
    """Networks that may send a header; for argparse."""
    if text == "any":
        return ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a list of networks nor any: {error}") from None


def count(text: str) -> int:
    """A number of connections; for argparse."""
    if text.isdecimal() and 0 < int(text) <= 1_000_000:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000")


def run(args: argparse.Namespace, say: Say) -> Exit:
    settings = _settings(args)
    return asyncio.run(_carry(args, settings, _context(args), say))


def _settings(args: argparse.Namespace) -> ProxySettings:
    secure_in = args.connect is not None or args.route is not None
    if secure_in == (args.connect_secure is not None):
        wrong = (
            "both --connect and --connect-secure are given" if secure_in else "nowhere to connect to is given"
        )
        raise Failure(
            Exit.USAGE,
            wrong,
            "say --connect WHERE to secure a service, or --connect-secure WHERE to reach a secured one",
        )
    side, wrong_ones = ("--connect-secure", _CLIENT_ONLY) if secure_in else ("--connect", _SERVER_ONLY)
    for name in wrong_ones:
        if getattr(args, name):
            option = "--" + name.replace("_", "-")
            raise Failure(Exit.USAGE, f"{option} goes with {side}", "leave it out, or connect so")
    routes = _routes(args) if secure_in else None
    plain = routes.targets() if routes is not None else {args.listen}
    for one in sorted(plain, key=str):
        if not one.local and not args.unsafe_plain:
            raise Failure(
                Exit.USAGE,
                f"the plain side at {one} is not this machine's alone: others can read it and change it",
                "use localhost or unix:PATH, or say --unsafe-plain if the network between is yours",
            )
    if args.allow_name and args.client_ca is None:
        raise Failure(
            Exit.USAGE, "--allow-name looks at certificates of clients", "say with --client-ca whose hold"
        )
    if args.connect_secure is not None and args.connect_secure.path and args.servername is None:
        raise Failure(Exit.USAGE, "a Unix socket has no name to expect", "say it with --servername")
    return ProxySettings(
        listen=args.listen,
        routes=routes,
        secure=args.connect_secure,
        server_name=args.servername,
        allow_names=frozenset(args.allow_name or ()),
        accept_header=args.accept_proxy,
        send_header=args.send_proxy,
        connect_seconds=args.connect_timeout,
        idle_seconds=args.idle_timeout,
        reuse_port=args.reuse_port,
    )


def _routes(args: argparse.Namespace) -> Routes:
    names: dict[str, Target] = {}
    protocols: dict[bytes, Target] = {}
    for name, onward in args.route or ():
        if name.startswith("alpn:"):
            protocols[name.removeprefix("alpn:").encode()] = onward
        else:
            names[name.lower().rstrip(".")] = onward
    return Routes(args.connect, names, protocols)


def _context(args: argparse.Namespace) -> sealwire.Context:
    """Made anew for every reload: files are read when this is called."""
    protocols = [name.removeprefix("alpn:") for name, _ in args.route or () if name.startswith("alpn:")]
    args = argparse.Namespace(**vars(args))
    if protocols:
        given = args.alpn.split(",") if args.alpn else []
        args.alpn = ",".join(dict.fromkeys([*given, *protocols]))
    if args.connect_secure is None:
        return serve.context_of(args)
    args.insecure = False
    context = connect.context_of(args)
    context.session_store = sealwire.SessionStore()
    return context


def _limits(args: argparse.Namespace) -> Limits:
    """What this machine allows, and no more than its descriptors allow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    machine = read_machine()
    limits = Limits()
    wanted = args.max_connections or limits.connections
    if machine.descriptors is not None:
        most = max((machine.descriptors - _OTHER_DESCRIPTORS) // _DESCRIPTORS_EACH, 1)
        if args.max_connections is not None and args.max_connections > most:
            raise Failure(
                Exit.ENVIRONMENT,
                f"{args.max_connections} connections need two descriptors each of {machine.descriptors}",
                "raise `ulimit -n`, or say a smaller --max-connections",
            )
        wanted = min(wanted, most)
    each = min(args.max_per_client or limits.prefix_connections, wanted)
    fitted = replace(
        limits,
        connections=wanted,
        handshakes=min(limits.handshakes, wanted),
        prefix_connections=each,
        prefix_handshakes=min(limits.prefix_handshakes, each),
        site_connections=min(2 * each, wanted),
        site_handshakes=min(limits.site_handshakes, 2 * each, wanted),
        prefixes=max(limits.prefixes, 2 * wanted),
        handshake_seconds=args.handshake_timeout,
    )
    return fit(fitted, machine)


async def _carry(
    args: argparse.Namespace, settings: ProxySettings, context: sealwire.Context, say: Say
) -> Exit:
    loop = asyncio.get_running_loop()
    try:
        proxy = await start_proxy(
            settings,
            context=context,
            limits=_limits(args),
            on_trouble=Troubles(say, settings.routes is not None).told,
        )
    except sealwire.ConfigurationError as error:
        raise Failure(Exit.USAGE, str(error), "") from error
    except OSError as error:
        raise Failure(
            Exit.ENVIRONMENT,
            f"cannot listen on {args.listen}, {(error.strerror or str(error)).lower()}",
            _listen_step(error),
        ) from error
    ending = Endings(loop)
    counted = [watching.Counted(proxy.transport, "proxy", lambda: proxy.proxy_counters)]
    async with proxy:
        ending.watch()
        loop.add_signal_handler(signal.SIGHUP, lambda: _reload(args, proxy, say))
        _listening(proxy, settings, say)
        identity.tell_of_expiry(context, say)
        async with watching.watched(args, proxy, say, counted):
            await ending.asked.wait()
            cut = await _drain(args.drain, proxy, ending, say)
    done, own = proxy.endpoint_counters(), proxy.proxy_counters
    say.fact(
        "stopped",
        f"stopped after {_many(done.handshakes_completed, 'connection')}; {cut} cut, "
        f"{_many(done.handshakes_failed, 'handshake')} failed, {own.backends_unreachable} not passed on",
        connections=done.handshakes_completed,
        cut=cut,
        handshakes_failed=done.handshakes_failed,
        **own.snapshot(),
    )
    return Exit.OK


def _listen_step(error: OSError) -> str:
    match error:
        case PermissionError():
            return "ports below 1024 and other users' directories need rights: choose another with --listen"
        case FileNotFoundError():
            return "make its directory first"
        case _ if error.errno == errno.EADDRINUSE:
            return "choose another with --listen, or stop the program that has it"
        case _:
            return "choose an address of this machine with --listen"


class Endings:
    """The first signal asks to end, the second one at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()
        self._loop = loop

    def watch(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        (self.at_once if self.asked.is_set() else self.asked).set()


async def _drain(seconds: float, proxy: Proxy, ending: Endings, say: Say) -> int:
    proxy.close()
    if proxy.connections:
        n = proxy.connections
        say.fact(
            "draining",
            f"no new connections; {_many(n, 'connection')} may take {seconds:g} seconds to finish; "
            "a second signal ends them",
            connections=n,
            seconds=seconds,
        )
    draining = asyncio.create_task(proxy.drain(seconds))
    hurry = asyncio.create_task(ending.at_once.wait())
    await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if draining.done():
        return draining.result()
    draining.cancel()
    await asyncio.wait({draining})
    return await proxy.cut()


def _reload(args: argparse.Namespace, proxy: Proxy, say: Say) -> None:
    try:
        context = _context(args)
        proxy.reload(context)
    except (Failure, sealwire.Error) as error:
        if isinstance(error, Failure):
            proxy.proxy_counters.reloads_failed += 1
        words = f"certificates and keys stay as they were: {error}"
        say.fact("reload failed", words, message=str(error))
        return
    say.fact("reloaded", "certificates and keys were read again, for new connections")
    identity.tell_of_expiry(context, say)


def _listening(proxy: Proxy, settings: ProxySettings, say: Say) -> None:
    bound = where(proxy)
    first = proxy.sockets[0].getsockname()
    onward = (
        "their service" if settings.routes is None else ", ".join(sorted(map(str, settings.routes.targets())))
    )
    words = (
        f"listening on {', '.join(bound)} for TLS 1.3, in plain to {onward}"
        if settings.routes is not None
        else f"listening on {', '.join(bound)} in plain, over TLS 1.3 to {settings.secure}"
    )
    say.fact(
        "listening",
        f"{words}; Ctrl-C ends",
        addresses=bound,
        port=first[1] if isinstance(first, tuple) else None,
        secure="in" if settings.routes is not None else "out",
        connections=proxy.limits.connections,
    )


class Troubles:
    """What goes wrong with connections, told so often as somebody can read it."""

    def __init__(self, say: Say, secure_in: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._secure_in = secure_in
        self._clock = clock
        self._told: dict[Trouble, float] = {}
        self._untold: dict[Trouble, int] = {}

    def told(self, report: Report) -> None:
        """Tell of it, or count it."""
        kind, now = report.trouble, self._clock()
        if kind is Trouble.BROKEN:
            return  # clients that leave without a word are everyday; a counter has them
        if now - self._told.get(kind, -_QUIET_SECONDS) < _QUIET_SECONDS:
            self._untold[kind] = self._untold.get(kind, 0) + 1
            return
        self._told[kind] = now
        untold = self._untold.pop(kind, 0)
        failure = self._explained(report)
        more = f" ({untold} more like it were not told)" if untold else ""
        facts = {"client": report.client, "onward": report.onward, "untold": untold, **failure.facts}
        self._say.fact("trouble", f"{failure}{more}", kind=kind.value, message=failure.wrong, **facts)

    def _explained(self, report: Report) -> Failure:
        client, error = report.client, report.error
        if report.trouble is Trouble.HEADER:
            step = (
                "who connects must send version 2 (haproxy: send-proxy-v2), or --accept-proxy is not for it"
            )
            return Failure(Exit.NO, f"{client}: {error}", step)
        if report.trouble is Trouble.REFUSED:
            reason = error.reason if isinstance(error, HandshakeError) else str(error)
            return Failure(Exit.NO, f"{client} was turned away, {reason}", "see --route and --allow-name")
        if report.trouble is Trouble.UNREACHABLE:
            why = error.why if isinstance(error, Unreachable) else error
            failure = explain(why, report.onward)
            step = _onward_step(why, "--connect" if self._secure_in else "--connect-secure")
            return Failure(Exit.ENVIRONMENT, f"{client} was let down, {failure.wrong}", step)
        failure = explain(error, client if self._secure_in else report.onward)
        if self._secure_in and isinstance(error, ProtocolError) and not_tls(error):
            step = "it does not speak TLS; does it say http where https belongs?"
            return Failure(failure.code, failure.wrong, step, **failure.facts)
        return failure


def _onward_step(why: BaseException, option: str) -> str:
    match why:
        case ConnectionRefusedError() | FileNotFoundError():
            return f"start the service there, or check {option}"
        case TimeoutError():
            return f"check {option}, and whether a firewall drops it"
        case PermissionError():
            return "let this user open it"
        case _:
            return f"check {option}"


def _many(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
