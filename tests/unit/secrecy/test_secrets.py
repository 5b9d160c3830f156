"""Secrets are overwritten when they go, and are in nothing that is printed."""

from __future__ import annotations

import base64
import gc
import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sealwire
from sealwire import dtls, stcp
from sealwire.context import Config
from sealwire.crypto import erasing
from sealwire.crypto.hkdf import Secret, TrafficKeys
from sealwire.crypto.psk import ExternalPsk
from sealwire.record import protect
from sealwire.sim import Link, Pair
from tests import certificates, psks
from tests.configs import client_context, server_context

ROOT = Path(__file__).resolve().parents[3]


# --- in memory ------------------------------------------------------------------------------------


@pytest.mark.skipif(not protect.COMPILED, reason="only the compiled record layer erases")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/mem")
@pytest.mark.parametrize("engine", ["datagrams", "asleep", "streams"])
def test_keys_are_nowhere_after_close_and_secrets_after_the_connection(engine: str) -> None:
    code = "from tests.unit.secrecy.memory import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, engine],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # That they are found while they are in use says that the search can find them.
    assert found["live"]["keys"] > 0
    assert found["live"]["secrets"] > 0
    assert found["closed"]["keys"] == 0
    assert found["gone"]["keys"] == 0
    assert found["gone"]["secrets"] == 0


@pytest.mark.skipif(not erasing.ERASES, reason="only the compiled modules can overwrite")
def test_erasing_overwrites_in_place() -> None:
    text = bytes(bytearray(b"not a secret, but long"))
    erasing.erase(text)
    assert text == bytes(len(text))
    for shared in (b"", b"x"):
        before = bytes(bytearray(shared))
        erasing.erase(shared)
        assert shared == before
    for wrong in ("text", 5, bytearray(b"ab")):
        erasing.erase(wrong)  # type: ignore[arg-type]
    assert bytearray(b"ab") == b"ab"


@pytest.mark.skipif(not erasing.ERASES, reason="only the compiled modules can overwrite")
def test_a_secret_taken_leaves_no_original() -> None:
    original = bytes(bytearray(range(1, 33)))
    secret = Secret.taking(original)
    assert original == bytes(32)
    assert secret == bytes(range(1, 33))


def test_a_secret_that_somebody_still_reads_is_whole() -> None:
    secret = Secret(bytes(range(1, 33)))
    view = memoryview(secret)
    copy = bytes(secret)
    del secret
    gc.collect()
    assert bytes(view) == copy == bytes(range(1, 33))


# --- in words -------------------------------------------------------------------------------------


def forms(secret: bytes) -> list[str]:
    """How bytes could end up in a text: hexadecimal, escaped, base64, numbers; the first part is enough."""
    part = secret[:12]
    return [
        part.hex(),
        part.hex().upper(),
        part.hex(" "),
        repr(bytes(part))[2:-1],
        base64.b64encode(part).decode(),
        base64.urlsafe_b64encode(part).decode(),
        str(list(part))[1:-1],
    ]


def assert_silent(text: str, secrets: set[bytes], where: object) -> None:
    for secret in secrets:
        for form in forms(secret):
            assert form not in text, f"{where} shows a secret: {text[:200]}"


def reachable(*roots: object) -> Iterator[object]:
    """Every object of ours, and every container, that can be reached from `roots`."""
    seen: set[int] = set()
    held: list[object] = []  # what getattr makes must live as long as its identity counts
    waiting = list(roots)
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, (type, type(sys))):
            continue
        seen.add(id(one))
        held.append(one)
        ours = type(one).__module__.startswith("sealwire")
        if ours or isinstance(one, (dict, list, tuple, set, frozenset)):
            yield one
        if ours or isinstance(one, (dict, list, tuple, set, frozenset)) or callable(one):
            waiting += gc.get_referents(one)
        elif isinstance(one, bytes):
            yield one


class Secrets:
    """Collects what must not be seen: Secret objects, key log lines, and what is given."""

    def __init__(self) -> None:
        self.all: set[bytes] = set()

    def log(self, path: Path) -> None:
        for line in path.read_text().splitlines():
            self.all.add(bytes.fromhex(line.split()[-1]))

    def collect(self, *roots: object) -> list[object]:
        objects = list(reachable(*roots))
        self.all |= {bytes(one) for one in objects if isinstance(one, Secret) and len(one) >= 12 and any(one)}
        return objects


def check(objects: list[object], secrets: set[bytes]) -> set[str]:
    """Print every object in every way; the names of the types of ours that were printed."""
    kinds = set()
    for one in objects:
        # A plain bytes object prints what it holds; it is whoever holds it that must not.
        if isinstance(one, bytes) and not isinstance(one, Secret):
            continue
        # Containers of secrets as plain bytes are inside objects of ours, which print without them.
        if not type(one).__module__.startswith("sealwire"):
            continue
        kinds.add(type(one).__qualname__)
        for show in (repr, str, format, "{}".format, "%r".__mod__, ascii):
            argument = (one,) if isinstance(one, tuple) and show is not repr else one
            assert_silent(show(argument), secrets, type(one))
    return kinds


@pytest.fixture
def secrets() -> Secrets:
    return Secrets()


def shaken(client: Config, server: Config, **options: Any) -> Pair:
    first = dtls.Connection.client(client, now=0.0, server_name="localhost", **options)
    second = dtls.Connection.server(server, now=0.0)
    pair = Pair(first, second, Link(1), Link(2))
    pair.run_until(lambda: first.state != "handshaking" and second.state != "handshaking", 30.0)
    pair.run_for(3.0)
    return pair


def test_nothing_of_a_live_connection_shows_a_secret(tmp_path: Path, secrets: Secrets) -> None:
    keylog = tmp_path / "keys"
    client = client_context(identity=certificates.client(), keylog=keylog)
    client.session_store = sealwire.SessionStore()
    server = server_context(client_roots=certificates.client().cafile, keylog=keylog)
    server.num_tickets = 2
    pair = shaken(client.config(), server.config())
    assert isinstance(pair.client, dtls.Connection)
    assert isinstance(pair.server, dtls.Connection)
    events = [*pair.client_events, *pair.server_events]
    tickets = [event for event in events if isinstance(event, dtls.TicketReceived)]
    assert tickets
    secrets.log(keylog)
    objects = secrets.collect(pair, client, server, client.config(), server.config(), *events)
    assert len(secrets.all) >= 8  # of two sides: handshake, application, exporter, resumption
    for ticket in tickets:
        assert bytes(ticket.ticket.secret) in secrets.all
    kinds = check(objects, secrets.all)
    # The walk came to what matters.
    assert {
        "Connection",
        "Context",
        "Config",
        "Secret",
        "SessionTicket",
        "Connected",
        "Session",
        "Handshake",
    } <= kinds


def test_nothing_of_a_live_stream_shows_a_secret(tmp_path: Path, secrets: Secrets) -> None:
    keylog = tmp_path / "keys"
    client, server = client_context(keylog=keylog), server_context(keylog=keylog)
    ours = stcp.Connection.client(client.config(), now=0.0, server_name="localhost")
    theirs = stcp.Connection.server(server.config(), now=0.0)
    for _ in range(6):
        theirs.receive_data(ours.data_to_send())
        ours.receive_data(theirs.data_to_send())
    ours.send(b"hello")
    secrets.log(keylog)
    objects = secrets.collect(ours, theirs, client, server)
    kinds = check(objects, secrets.all)
    assert {"Connection", "Secret"} <= kinds


def test_a_handshake_in_the_middle_shows_nothing(secrets: Secrets, tmp_path: Path) -> None:
    keylog = tmp_path / "keys"
    client = dtls.Connection.client(client_context(keylog=keylog).config(), now=0.0, server_name="localhost")
    server = dtls.Connection.server(server_context(keylog=keylog).config(), now=0.0)
    check(secrets.collect(client, server), secrets.all)
    for datagram in client.transmit(0.0):
        server.receive(datagram, 0.0)
    flight = server.transmit(0.0)
    secrets.log(keylog)
    check(secrets.collect(client, server), secrets.all)
    for datagram in flight:
        client.receive(datagram, 0.0)
    secrets.log(keylog)
    check(secrets.collect(client, server), secrets.all)


def test_pre_shared_keys_and_ticket_keys(secrets: Secrets) -> None:
    key = ExternalPsk("device", b"\xfe\xdc" * 16)
    client, server = psks.client_context(key), psks.server_context(key)
    pair = shaken(client.config(), server.config())
    secrets.all.add(b"\xfe\xdc" * 16)
    objects = secrets.collect(pair, client, server, key)
    kinds = check(objects, secrets.all)
    assert "ExternalPsk" in kinds


def broken_pairs() -> dict[str, Callable[[], list[BaseException | None]]]:
    def errors(pair: Pair) -> list[BaseException | None]:
        return [one.error for one in (pair.client, pair.server) if isinstance(one, dtls.Connection)]

    key, wrong = ExternalPsk("device", b"\xfe\xdc" * 16), ExternalPsk("device", b"\xdc\xfe" * 16)
    stranger = certificates.server(certificates.Kind.RSA_2048).cafile

    def use(act: Callable[[dtls.Connection], object]) -> list[BaseException | None]:
        pair = shaken(client_context().config(), server_context().config())
        assert isinstance(pair.client, dtls.Connection)
        pair.client.abort()
        try:
            act(pair.client)
        except Exception as error:
            return [error]
        raise AssertionError("nothing was raised")

    return {
        "a wrong pre-shared key": lambda: errors(
            shaken(psks.client_context(key).config(), psks.server_context(wrong).config())
        ),
        "an unknown authority": lambda: errors(
            shaken(client_context(stranger).config(), server_context().config())
        ),
        "no common suite": lambda: errors(
            shaken(
                client_context(suites=["TLS_AES_128_GCM_SHA256"]).config(),
                server_context(suites=["TLS_CHACHA20_POLY1305_SHA256"]).config(),
            )
        ),
        "sending on a closed connection": lambda: use(lambda one: one.send(b"x")),
        "new keys on a closed connection": lambda: use(lambda one: one.update_keys(0.0)),
    }


@pytest.mark.parametrize("case", sorted(broken_pairs()))
def test_errors_show_no_secret(case: str, secrets: Secrets, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []
    taking = Secret.taking.__func__  # type: ignore[attr-defined]

    def spy(kind: type[Secret], derived: bytes) -> Secret:
        made.append(bytes(bytearray(derived)))
        secret: Secret = taking(kind, derived)
        return secret

    monkeypatch.setattr(Secret, "taking", classmethod(spy))
    errors = [error for error in broken_pairs()[case]() if error is not None]
    assert errors
    secrets.all |= {one for one in made if len(one) >= 12 and any(one)} | {b"\xfe\xdc" * 16, b"\xdc\xfe" * 16}
    # Where a handshake went so far, what it derived is looked for as well.
    assert len(secrets.all) > 2 or case in ("a wrong pre-shared key", "no common suite")
    for error in errors:
        text = "".join(traceback.format_exception(error)) + repr(error) + repr(error.args) + repr(vars(error))
        assert_silent(text, secrets.all, case)


def test_traffic_keys_and_secrets_print_their_length_only() -> None:
    secret = Secret(bytes(range(16)))
    keys = TrafficKeys(secret, secret, secret)
    for text in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r}",
        "{}".format(secret),  # noqa: UP032 - one of the ways
        repr([secret]),
        repr(keys),
    ):
        assert "<secret of 16 bytes>" in text
        assert_silent(text, {bytes(range(16))}, "Secret")
