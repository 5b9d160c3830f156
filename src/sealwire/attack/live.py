"""Puppets over real sockets: each has one of its own, tied to the target's interface."""

from __future__ import annotations

import selectors
import socket
import time
from dataclasses import dataclass, field
from typing import Final

from sealwire import dtls
from sealwire.attack.puppet import Puppet
from sealwire.attack.target import Target
from sealwire.context import CERT_NONE, PROTOCOL_CLIENT, Config, Context
from sealwire.errors import Error

_DATAGRAM_BYTES: Final = 65_535
_LONGEST_WAIT_SECONDS: Final = 0.1


@dataclass(slots=True)
class Done:
    """What puppets did: datagrams sent and received, misdeeds, connections, and how those ended."""

    sent: int = 0
    received: int = 0
    misdeeds: int = 0
    connections: int = 0
    ends: dict[str, int] = field(default_factory=dict)


def trusting() -> Config:
    """A client that believes any server: it only wants to annoy it."""
    context = Context(PROTOCOL_CLIENT)
    context.check_hostname = False
    context.verify_mode = CERT_NONE
    return context.config()


def assault(target: Target, kind: type[Puppet], number: int, seconds: float, rate: float | None) -> Done:
    """Let `number` puppets loose on `target` for so long; one that is thrown out comes back."""
    done = Done()
    config = trusting()
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for _ in range(number):
            _come(target, kind, config, rate, selector, done)
        try:
            while (now := time.monotonic()) < end:
                _turn(target, kind, config, rate, selector, done, min(end - now, _LONGEST_WAIT_SECONDS))
        finally:
            for key in list(selector.get_map().values()):
                done.misdeeds += key.data.misdeeds
                _socket(key).close()
    return done


def _turn(
    target: Target,
    kind: type[Puppet],
    config: Config,
    rate: float | None,
    selector: selectors.BaseSelector,
    done: Done,
    wait: float,
) -> None:
    keys = list(selector.get_map().values())
    now = time.monotonic()
    for key in keys:
        puppet: Puppet = key.data
        due = puppet.deadline()
        if due is not None and due <= now:
            puppet.wake(now)
        for datagram in puppet.transmit(now):
            try:
                _socket(key).send(datagram)
                done.sent += 1
            except OSError:
                break
        if puppet.state is dtls.State.CLOSED:
            how = str(puppet.error or "closed")
            done.ends[how] = done.ends.get(how, 0) + 1
            done.misdeeds += puppet.misdeeds
            selector.unregister(key.fileobj)
            _socket(key).close()
            _come(target, kind, config, rate, selector, done)
        else:
            due = puppet.deadline()
            wait = wait if due is None else min(wait, max(due - now, 0.0))
    for key, _ in selector.select(wait):
        try:
            while True:
                datagram = _socket(key).recv(_DATAGRAM_BYTES)
                done.received += 1
                key.data.receive(datagram, time.monotonic())
        except OSError:
            continue


def _come(
    target: Target,
    kind: type[Puppet],
    config: Config,
    rate: float | None,
    selector: selectors.BaseSelector,
    done: Done,
) -> None:
    puppet = kind.client(config, now=time.monotonic())
    assert isinstance(puppet, kind)
    if rate:
        puppet.rate = rate
    sock = target.open()
    sock.setblocking(False)
    selector.register(sock, selectors.EVENT_READ, puppet)
    done.connections += 1


def _socket(key: selectors.SelectorKey) -> socket.socket:
    assert isinstance(key.fileobj, socket.socket)
    return key.fileobj


def replay_early_data(target: Target, seconds: float, rate: float) -> Done:
    """Take a ticket, make a flight of early data under it, and send that from many ports.

    Raises:
        Error: the server gave no ticket that allows early data.
    """
    done, config, end = Done(), trusting(), time.monotonic() + seconds
    with target.open() as sock:
        sock.settimeout(_LONGEST_WAIT_SECONDS)
        first = dtls.Connection.client(config, now=time.monotonic())
        ticket = None
        while ticket is None and time.monotonic() < end and first.state is not dtls.State.CLOSED:
            for datagram in first.transmit(time.monotonic()):
                sock.send(datagram)
            try:
                first.receive(sock.recv(_DATAGRAM_BYTES), time.monotonic())
            except OSError:
                first.wake(time.monotonic())
            for event in first.events():
                if isinstance(event, dtls.TicketReceived):
                    ticket = event.ticket
    if ticket is None or not ticket.max_early_data:
        raise Error("the server gave no ticket that allows early data")
    second = dtls.Connection.client(config, now=time.monotonic(), ticket=ticket, early_data=True)
    second.send_replayable(b"replayed")
    flight = second.transmit(time.monotonic())
    while time.monotonic() < end:
        with target.open() as sock:
            for datagram in flight:
                sock.send(datagram)
                done.sent += 1
        done.misdeeds += 1
        time.sleep(1 / rate)
    return done
