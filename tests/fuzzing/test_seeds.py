"""What other projects' fuzzers found worth keeping, and malformed certificates, given to every entrance.

The data is third parties' and read in place.  Whatever the bytes: a value, a Discard, or an error
of ours; for certificates a CertificateError, for files a ConfigurationError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealwire import dtls, stcp
from sealwire.crypto.certificates import CertificateVerifier, Purpose, leaf_public_key, load_credential
from sealwire.errors import CertificateError, ConfigurationError, Error, ProtocolError
from sealwire.limits import Limits
from sealwire.tls13.flavor import DTLS, TLS
from tests import certificates, configs
from tests.fuzzing.test_datagrams import assert_ended_well
from tests.fuzzing.test_messages import assert_knows_its_alert, decode
from tests.network.world import address, both_connected, joined


@pytest.fixture(scope="session")
def seeds(shared_data: Path) -> list[tuple[str, bytes]]:
    """Name and bytes of each seed, decoded where it is text."""
    found: list[tuple[str, bytes]] = []
    for path in sorted((shared_data / "dtls13" / "fuzz_seeds").rglob("*")):
        if path.is_file() and "README" not in path.name:
            content = path.read_bytes()
            if content.startswith(b"go test fuzz v1"):
                found += [(path.name, literal) for literal in go_literals(content.decode())]
            else:
                found.append((path.name, content))
    assert len(found) > 150
    return found


_GO_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[0-7]{3}|.)")
_GO_LETTERS = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, '"': 34, "'": 39}


def go_literals(text: str) -> Iterator[bytes]:
    """The byte slices of a "go test fuzz v1" file, whose strings are interpreted Go string literals."""
    for line in text.splitlines()[1:]:
        literal = re.fullmatch(r'\[\]byte\("(.*)"\)', line)
        assert literal is not None, line
        out, end = b"", 0
        for escape in _GO_ESCAPE.finditer(literal[1]):
            out += literal[1][end : escape.start()].encode()
            end = escape.end()
            code = escape[1]
            if code in _GO_LETTERS:
                out += bytes((_GO_LETTERS[code],))
            elif code[0] in "uU":
                out += chr(int(code[1:], 16)).encode()
            else:
                out += bytes((int(code[1:], 16) if code[0] == "x" else int(code, 8),))
        yield out + literal[1][end:].encode()


def in_datagrams(seed: bytes) -> list[list[bytes]]:
    """A seed as runs of datagrams: whole, and cut as BoringSSL's fuzzers cut theirs.

    Theirs begin with two bytes of configuration; then a three-byte length before each datagram.
    """
    runs = [[seed]]
    cut, rest = [], seed[2:]
    while len(rest) >= 3:
        n = int.from_bytes(rest[:3], "big")
        cut.append(rest[3 : 3 + n])
        rest = rest[3 + n :]
    if any(cut):
        runs.append(cut)
    return runs


def law(connection: dtls.Connection, now: float) -> None:
    sent = connection.transmit(now)
    connection.events()
    connection.messages()
    connection.deadline()
    assert_ended_well(connection, sent)


def test_the_literals_are_read_as_go_reads_them() -> None:
    text = r'[]byte("\x00\x0e\n\"\u00e9é\a\101b")'
    assert list(go_literals(f"go test fuzz v1\n{text}\n")) == [b'\x00\x0e\n"\xc3\xa9\xc3\xa9\x07Ab']


def test_seeds_to_a_fresh_client_and_a_fresh_server(seeds: list[tuple[str, bytes]]) -> None:
    client_config, server_config = configs.client_context().config(), configs.server_context().config()
    for _, seed in seeds:
        for run in in_datagrams(seed):
            for connection in (
                dtls.Connection.client(client_config, now=0.0, server_name="localhost"),
                dtls.Connection.server(server_config, now=0.0),
            ):
                connection.transmit(0.0)
                connection.receive_run(run, 0.1)
                law(connection, 0.1)
                connection.wake(2.0)
                connection.transmit(2.0)
                for datagram in run:
                    if connection.state != "closed":
                        connection.receive(datagram, 2.1)
                        law(connection, 2.1)


@pytest.mark.requirement("9147-4.5.2-1", "9147-11-8")
def test_seeds_to_an_established_connection(seeds: list[tuple[str, bytes]]) -> None:
    pair = joined(1)
    assert pair.run_until(lambda: both_connected(pair), 10.0)
    for _, seed in seeds:
        for run in in_datagrams(seed):
            for connection in (pair.client, pair.server):
                assert isinstance(connection, dtls.Connection)
                connection.receive_run(run, pair.now)
                assert connection.state == "connected"
                assert connection.events() == []
                assert connection.messages() == []
    pair.client.send(b"still here")  # type: ignore[attr-defined]
    pair.run_for(1.0)
    assert pair.server_messages == [b"still here"]


def test_seeds_to_an_endpoint(seeds: list[tuple[str, bytes]]) -> None:
    config = configs.server_context().config()
    endpoint = dtls.Endpoint(lambda: config, limits=Limits())
    at_rest = endpoint.ledger.held
    for number, (_, seed) in enumerate(seeds):
        for run in in_datagrams(seed):
            endpoint.receive([(datagram, address(number)) for datagram in run], float(number))
            answers = endpoint.transmit(float(number))
            assert sum(len(datagram) for datagram, _ in answers) <= 3 * sum(map(len, run))
            assert endpoint.events() == []
    assert endpoint.connections == 0
    assert endpoint.ledger.held == at_rest
    assert endpoint.counters.discards


def test_seeds_to_streams(seeds: list[tuple[str, bytes]]) -> None:
    client_config, server_config = configs.client_context().config(), configs.server_context().config()
    for _, seed in seeds:
        for skipped in (0, 2, 5):
            for connection in (
                stcp.Connection.client(client_config, now=0.0, server_name="localhost"),
                stcp.Connection.server(server_config, now=0.0),
            ):
                connection.data_to_send()
                connection.receive_data(seed[skipped:])
                connection.receive_eof()
                assert connection.state == "closed"
                assert isinstance(connection.error, Error)


def test_seeds_as_messages(seeds: list[tuple[str, bytes]]) -> None:
    for _, seed in seeds:
        for kind in (1, 2, 4, 8, 11, 13, 15, 20, 24):
            for flavor in (TLS, DTLS):
                for message in (seed, bytes((kind,)) + len(seed).to_bytes(3, "big") + seed):
                    try:
                        decode(message, flavor)
                    except ProtocolError as error:
                        assert_knows_its_alert(error)


@pytest.fixture(scope="session")
def bad_certificates(shared_data: Path) -> list[Path]:
    found = [
        path
        for path in sorted((shared_data / "dtls13" / "bad_certs").rglob("*"))
        if path.is_file() and "README" not in path.name
    ]
    assert len(found) > 100
    return found


@pytest.mark.requirement("8446-AUTH-5")
def test_malformed_certificates_are_refused_by_name(bad_certificates: list[Path]) -> None:
    """As leaf, as issuer and as the only one; also as a root somebody configured."""
    root, good = certificates.server().root, certificates.server().chain[0]
    verifier = CertificateVerifier([root])
    refused = 0
    for path in bad_certificates:
        content = path.read_bytes()
        try:
            leaf_public_key(content)
        except CertificateError as error:
            assert_knows_its_alert(error)
        for chain in ((content,), (content, root), (content, good)):
            for purpose in Purpose:
                try:
                    verifier.verify(chain, purpose=purpose, name="localhost")
                except CertificateError as error:
                    assert_knows_its_alert(error)
                    refused += 1
        # What is not needed for the path may be anything, or be refused; it never does harm.
        try:
            verifier.verify((good, content), purpose=Purpose.SERVER, name="localhost")
        except CertificateError as error:
            assert_knows_its_alert(error)
        try:
            CertificateVerifier([content]).verify((good,), purpose=Purpose.SERVER, name="localhost")
        except (ConfigurationError, CertificateError):
            pass
    assert refused == len(bad_certificates) * 3 * len(Purpose)


def test_malformed_certificates_as_files(bad_certificates: list[Path], tmp_path: Path) -> None:
    key = certificates.server().keyfile
    for path in bad_certificates:
        for keyfile in (None, key):
            with pytest.raises(ConfigurationError) as failure:
                load_credential(path, keyfile)
            assert str(failure.value)
        context = configs.client_context()
        try:
            context.load_verify_locations(cafile=path)
            context.config()
        except ConfigurationError:
            pass  # some of them are merely unusual, and may be trusted by who wants to
