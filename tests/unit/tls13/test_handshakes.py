"""Handshakes between two engines in memory: everything that can be negotiated, both protocols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from sealwire.context import PROTOCOL_SERVER, Config, Context
from sealwire.crypto.certificates import Credential
from sealwire.crypto.groups import GROUPS, HYBRID_GROUPS, Group
from sealwire.crypto.providers.deterministic import DeterministicProvider
from sealwire.crypto.signatures import SignatureScheme
from sealwire.crypto.suites import SUITES, SuiteSpec
from sealwire.errors import Alert, ConfigurationError, Error, HandshakeError
from sealwire.tls13 import extensions as ext
from sealwire.tls13.contract import Direction, HandshakeDone, InstallKeys, SendCompatibilityCcs, SendMessage
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import HandshakeType
from tests import certificates
from tests.certificates import Kind
from tests.unit.tls13.engines import (
    FLAVORS,
    NAME,
    Pair,
    client,
    client_hello,
    default,
    each_flavor,
    mutual,
    mutual_retrying,
    optional,
    put,
    refused,
    retrying,
    server,
    server_hello,
    with_alpn,
)

_KT = HandshakeType


@each_flavor
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
@pytest.mark.parametrize("spec", SUITES.values(), ids=lambda spec: spec.name)
@pytest.mark.requirement("8446-NEG-7")
def test_every_suite_with_every_group(flavor: Flavor, group: Group, spec: SuiteSpec) -> None:
    ours = replace(client(groups=(group.name,)), suites=(spec.suite,))
    theirs = replace(server(groups=(group.name,)), suites=(spec.suite,))
    pair = Pair(flavor, (ours, theirs), run=True)
    assert pair.connected
    for engine in (pair.client, pair.server):
        facts = engine.session
        assert (facts.version, facts.suite, facts.group) == (flavor.name, spec, group)
        assert facts.alpn is facts.psk_identity is None
        assert not facts.connection_ids.negotiated
        assert not facts.retried
    assert pair.client.session.server_name == pair.server.session.server_name == NAME
    pair.assert_same_keys()
    assert len(pair.installed(pair.client, Direction.SEND)) == 2
    exported = pair.client.export(b"EXPERIMENTAL", b"context", 77)
    assert exported == pair.server.export(b"EXPERIMENTAL", b"context", 77)
    assert exported != pair.client.export(b"EXPERIMENTAL", b"", 77)


@each_flavor
@pytest.mark.parametrize("kind", Kind)
@pytest.mark.requirement("8446-NEG-7", "8446-AUTH-2")
def test_every_kind_of_certificate_both_ways(flavor: Flavor, kind: Kind) -> None:
    identity, own = certificates.server(kind), certificates.client(kind)
    pair = Pair(
        flavor,
        (
            client(roots=identity.cafile, identity=own),
            replace(server(client_roots=own.cafile), credentials=_credentials(identity)),
        ),
        run=True,
    )
    server_side, client_side = pair.server.session, pair.client.session
    assert client_side.peer_certificate is not None
    assert client_side.peer_certificate.chain == identity.chain
    assert server_side.peer_certificate is not None
    assert server_side.peer_certificate.chain == own.chain
    schemes = {
        Kind.ECDSA_P256: SignatureScheme.ECDSA_SECP256R1_SHA256,
        Kind.ECDSA_P384: SignatureScheme.ECDSA_SECP384R1_SHA384,
        Kind.RSA_2048: SignatureScheme.RSA_PSS_RSAE_SHA256,
        Kind.RSA_PSS: SignatureScheme.RSA_PSS_PSS_SHA256,
        Kind.ED25519: SignatureScheme.ED25519,
    }
    assert client_side.peer_scheme is server_side.peer_scheme is schemes[kind]


def _credentials(*identities: certificates.Identity) -> tuple[Credential, ...]:
    context = Context(PROTOCOL_SERVER)
    for identity in identities:
        context.load_cert_chain(identity.certfile, identity.keyfile)
    return context.config().credentials


def test_the_certificate_follows_what_the_client_can_check() -> None:
    both = server(), certificates.server(Kind.RSA_2048), certificates.server(Kind.ED25519)
    settings = replace(both[0], credentials=_credentials(*both[1:]))
    for scheme, identity in (
        (SignatureScheme.RSA_PSS_RSAE_SHA512, both[1]),
        (SignatureScheme.ED25519, both[2]),
    ):
        ours = replace(client(roots=certificates.all_roots(both[1:])), signature_schemes=(scheme,))
        pair = Pair(TLS, (ours, settings), run=True)
        assert pair.client.session.peer_certificate is not None
        assert pair.client.session.peer_certificate.chain == identity.chain
        assert pair.client.session.peer_scheme is scheme


@each_flavor
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
@pytest.mark.requirement("9147-5.1-14", "8446-KS-3", "9147-5.1-2")
def test_retry_for_each_group(flavor: Flavor, group: Group) -> None:
    other = "X25519" if group is not Group.X25519 else "P-256"
    ours = client(groups=(other, group.name), key_shares=(other,))
    pair = Pair(flavor, (ours, server(groups=(group.name,))), run=True)
    assert pair.client.session.retried
    assert pair.server.session.retried
    assert pair.client.session.group is pair.server.session.group is group
    first, request, second, *_ = (delivery.message for delivery in pair.delivered)
    assert server_hello(request).is_retry_request
    assert server_hello(request).extensions.get(ext.KEY_SHARE_REQUEST) is group
    one, two = client_hello(first, flavor), client_hello(second, flavor)
    # [9147-5.1-4]: nothing but the key share has changed.
    assert [entry.group for entry in two.extensions.require(ext.KEY_SHARES)] == [group]
    assert replace(one, extensions=two.extensions) == two
    assert not one.extensions.differs_from(two.extensions, but=frozenset((ext.KEY_SHARES.code,)))
    pair.assert_same_keys()


@each_flavor
def test_a_client_without_shares_lets_the_server_choose(flavor: Flavor) -> None:
    pair = Pair(flavor, (replace(client(), key_shares=()), server()), run=True)
    assert pair.client.session.retried
    assert pair.client.session.group is client().groups[0]


@pytest.mark.requirement("8446-NEG-6")
@pytest.mark.parametrize(
    ("flavor", "groups", "expected"),
    [
        (TLS, None, [Group.X25519MLKEM768, Group.X25519]),
        (DTLS, None, [Group.X25519]),
        (TLS, ("X25519MLKEM768",), [Group.X25519MLKEM768]),
        (DTLS, ("X25519MLKEM768",), [Group.X25519MLKEM768]),
        (TLS, ("P-384", "X25519MLKEM768", "X25519"), [Group.SECP384R1]),
        (TLS, ("X25519MLKEM768", "P-256"), [Group.X25519MLKEM768, Group.SECP256R1]),
        (DTLS, ("X25519MLKEM768", "P-256"), [Group.SECP256R1]),
    ],
)
def test_shares_of_a_first_hello(
    flavor: Flavor, groups: tuple[str, ...] | None, expected: list[Group]
) -> None:
    settings = client() if groups is None else client(groups=groups)
    hello = client_hello(Pair(flavor, (settings, server())).waiting[0].message, flavor)
    shares = hello.extensions.require(ext.KEY_SHARES)
    assert [entry.group for entry in shares] == expected
    assert [len(entry.share) for entry in shares] == [GROUPS[group].offer_bytes for group in expected]


@pytest.mark.requirement("9147-5.3-1", "9147-5.3-2", "9147-5.3-5", "9147-5.3-6", "9147-5.1-3", "9147-5.3-8")
@each_flavor
def test_fields_of_a_first_hello(flavor: Flavor) -> None:
    pair = Pair(flavor)
    hello = client_hello(pair.waiting[0].message, flavor)
    assert hello.legacy_version == (0x0303 if flavor is TLS else 0xFEFD)
    assert len(hello.legacy_session_id) == (32 if flavor is TLS else 0)
    assert hello.legacy_cookie == b""
    assert hello.compression_methods == b"\0"
    assert set(hello.suites) <= set(SUITES)
    assert hello.extensions.get(ext.SUPPORTED_VERSIONS) == ((0x0304 if flavor is TLS else 0xFEFC),)
    assert ext.COOKIE.code not in hello.extensions
    assert next(iter(hello.extensions)) == ext.SUPPORTED_VERSIONS.code
    # 8446-KS-7: nothing of it is used twice.
    again = client_hello(Pair(flavor).waiting[0].message, flavor)
    assert again.random != hello.random
    assert again.extensions.get(ext.KEY_SHARES) != hello.extensions.get(ext.KEY_SHARES)
    if flavor is TLS:
        assert again.legacy_session_id != hello.legacy_session_id


@pytest.mark.requirement("9147-5-1", "9147-5.4-1")
@each_flavor
@pytest.mark.parametrize("settings", [default, retrying], ids=["at once", "retried"])
def test_fields_of_a_server_hello(flavor: Flavor, settings: Callable[[], tuple[Config, Config]]) -> None:
    pair = Pair(flavor, settings(), run=True)
    hello = client_hello(pair.delivered[0].message, flavor)
    answers = [server_hello(one.message) for one in pair.delivered if one.kind is _KT.SERVER_HELLO]
    assert [answer.is_retry_request for answer in answers] == [True, False][2 - len(answers) :]
    for answer in answers:
        assert answer.legacy_version == flavor.legacy_version
        assert answer.legacy_session_id_echo == hello.legacy_session_id
        assert answer.extensions.get(ext.SELECTED_VERSION) == flavor.version


@pytest.mark.requirement("9147-5-1")
def test_a_session_id_is_not_echoed_over_datagrams() -> None:
    pair = Pair(DTLS)
    delivery = pair.waiting.popleft()
    hello = replace(client_hello(delivery.message, DTLS), legacy_session_id=bytes(range(32)))
    pair.deliver(delivery.but(hello.encode(DTLS)))
    assert server_hello(pair.waiting[0].message).legacy_session_id_echo == b""


# --- certificates of clients -------------------------------------------------------------------


@each_flavor
@pytest.mark.requirement("8446-AUTH-3")
def test_client_certificate_required(flavor: Flavor) -> None:
    pair = Pair(flavor, mutual(), run=True)
    assert pair.server.session.peer_certificate is not None
    assert pair.server.session.peer_certificate.chain == certificates.client().chain
    assert [one.kind for one in pair.delivered][-3:] == [
        _KT.CERTIFICATE,
        _KT.CERTIFICATE_VERIFY,
        _KT.FINISHED,
    ]
    pair.assert_same_keys()


@each_flavor
@pytest.mark.requirement("8446-AUTH-3")
def test_client_certificate_optional(flavor: Flavor) -> None:
    pair = Pair(flavor, optional(), run=True)
    assert pair.server.session.peer is None
    assert pair.server.session.peer_scheme is None
    assert [one.kind for one in pair.delivered][-2:] == [_KT.CERTIFICATE, _KT.FINISHED]
    shown = Pair(flavor, (mutual()[0], optional()[1]), run=True)
    assert shown.server.session.peer_certificate is not None


@each_flavor
@pytest.mark.requirement("8446-AUTH-3")
def test_client_certificate_missing(flavor: Flavor) -> None:
    refused(
        Pair(flavor, (client(), mutual()[1])), Alert.CERTIFICATE_REQUIRED, "no certificate", victim="server"
    )


@each_flavor
def test_client_certificate_not_asked_for(flavor: Flavor) -> None:
    pair = Pair(flavor, (mutual()[0], server()), run=True)
    assert pair.server.session.peer is None
    assert [one.kind for one in pair.delivered if one.to_server] == [_KT.CLIENT_HELLO, _KT.FINISHED]


@each_flavor
def test_a_client_whose_key_the_server_cannot_check_shows_nothing(flavor: Flavor) -> None:
    own = certificates.client(Kind.ED25519)
    theirs = replace(
        optional()[1],
        signature_schemes=(SignatureScheme.ECDSA_SECP256R1_SHA256, SignatureScheme.RSA_PSS_RSAE_SHA256),
    )
    pair = Pair(flavor, (client(identity=own), theirs), run=True)
    assert pair.server.session.peer is None


# --- names and protocols -----------------------------------------------------------------------


@each_flavor
@pytest.mark.requirement("8446-NEG-9")
def test_application_protocols(flavor: Flavor) -> None:
    pair = Pair(flavor, with_alpn(), run=True)
    assert pair.client.session.alpn == pair.server.session.alpn == b"b/2"
    # The server's preference decides.
    ours = client(alpn=("a/1", "b/2")), server(alpn=("x", "b/2", "a/1"))
    assert Pair(flavor, ours, run=True).client.session.alpn == b"b/2"
    for silent in ((client(), server(alpn=("b/2",))), (client(alpn=("a/1",)), server())):
        pair = Pair(flavor, silent, run=True)
        assert pair.client.session.alpn is pair.server.session.alpn is None
    mismatch = client(alpn=("a/1",)), server(alpn=("b/2",))
    refused(Pair(flavor, mismatch), Alert.NO_APPLICATION_PROTOCOL, victim="server")


@each_flavor
@pytest.mark.requirement("8446-KS-7")
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_a_key_share_serves_one_connection(flavor: Flavor, group: Group) -> None:
    """Whatever the two connections have in common: settings, name, both sides."""
    settings = replace(client(), groups=(group,), key_shares=(group,)), replace(server(), groups=(group,))
    shares = []
    for _ in range(3):
        pair = Pair(flavor, settings)
        offered = pair.run_until(HandshakeType.CLIENT_HELLO, to_server=True)
        answered = pair.run_until(HandshakeType.SERVER_HELLO, to_server=False)
        shares += [
            one.share for one in client_hello(offered.message, flavor).extensions.require(ext.KEY_SHARES)
        ]
        shares.append(server_hello(answered.message).extensions.require(ext.KEY_SHARE).share)
    assert len(set(shares)) == 6


@each_flavor
@pytest.mark.requirement("8446-NEG-9", "6066-1")
def test_server_names(flavor: Flavor) -> None:
    for given, sent, known in (
        ("localhost", "localhost", "localhost"),
        ("localhost.", "localhost", "localhost."),
        ("127.0.0.1", None, "127.0.0.1"),
        ("::1", None, "::1"),
        ("[::1]", None, "[::1]"),
        ("LocalHost", "localhost", "LocalHost"),
    ):
        pair = Pair(flavor, server_name=given, run=True)
        hello = client_hello(pair.delivered[0].message, flavor)
        assert hello.extensions.get(ext.SERVER_NAME) == sent
        assert pair.server.session.server_name == sent
        assert pair.client.session.server_name == known


@each_flavor
@pytest.mark.requirement("8446-AUTH-5")
def test_a_client_needs_a_name_to_check(flavor: Flavor) -> None:
    with pytest.raises(ConfigurationError, match="no server name"):
        Handshake.client(client(), flavor, server_name=None)
    trusting = replace(client(), check_hostname=False)
    pair = Pair(flavor, (trusting, server()), server_name=None, run=True)
    assert pair.connected
    assert ext.SERVER_NAME.code not in client_hello(pair.delivered[0].message, flavor).extensions
    # The chain is checked all the same.
    stranger = replace(client(roots=certificates.server(Kind.RSA_2048).cafile), check_hostname=False)
    refused(Pair(flavor, (stranger, server()), server_name=None), Alert.UNKNOWN_CA, victim="client")


@each_flavor
@pytest.mark.parametrize("name", ["", "a..b", "exa mple", "-a.example", "a" * 300, "1.2.3.256", "n\0ul"])
def test_names_that_cannot_be_are_refused_before_anything_is_sent(flavor: Flavor, name: str) -> None:
    for settings in (client(), replace(client(), check_hostname=False)):
        with pytest.raises(ConfigurationError):
            Handshake.client(settings, flavor, server_name=name)


@each_flavor
def test_the_name_chooses_the_settings(flavor: Flavor) -> None:
    asked: list[str | None] = []
    identity = certificates.server(names=("other.example",))
    other = Context(PROTOCOL_SERVER)
    other.load_cert_chain(identity.certfile, identity.keyfile)
    other.set_alpn_protocols(["other"])

    def callback(name: str | None, context: Context) -> Context | None:
        asked.append(name)
        if name == "bad.example":
            raise HandshakeError(Alert.UNRECOGNIZED_NAME, "no such host")
        if name == "broken.example":
            raise KeyError(name)
        return other if name == "other.example" else None

    context = Context(PROTOCOL_SERVER)
    own = certificates.server()
    context.load_cert_chain(own.certfile, own.keyfile)
    context.sni_callback = callback
    settings = context.config()
    ours = client(roots=own.cafile, alpn=("other",))
    chosen = Pair(flavor, (ours, settings), server_name="other.example", run=True).client.session
    assert chosen.peer_certificate is not None
    assert chosen.peer_certificate.chain == identity.chain
    assert chosen.alpn == b"other"
    plain = Pair(flavor, (ours, settings), run=True).client.session
    assert plain.peer_certificate is not None
    assert plain.peer_certificate.chain == own.chain
    assert plain.alpn is None
    nameless = replace(ours, check_hostname=False), settings
    Pair(flavor, nameless, server_name=None, run=True)
    for name, alert in (
        ("bad.example", Alert.UNRECOGNIZED_NAME),
        ("broken.example", Alert.INTERNAL_ERROR),
    ):
        refused(Pair(flavor, (ours, settings), server_name=name), alert, victim="server")
    assert asked == ["other.example", NAME, None, "bad.example", "broken.example"]


@each_flavor
@pytest.mark.requirement("9146-1", "9147-5.1-13")
def test_a_connection_id_is_offered_and_may_be_ignored(flavor: Flavor) -> None:
    for wanted in (b"", b"\x01\x02\x03"):
        engine = Handshake.client(client(), flavor, server_name=NAME, connection_id=wanted)
        [first] = [output for output in engine.outputs() if isinstance(output, SendMessage)]
        hello = client_hello(first.message, flavor)
        assert hello.extensions.get(ext.CONNECTION_ID) == wanted
        pair = Pair(flavor)
        pair.client = engine
        pair.waiting.clear()
        pair.server.receive(0, first.message)
        pair.collect()
        pair.run()
        assert pair.connected
        assert not engine.connection_ids.negotiated


def test_the_answered_connection_id_is_known_from_server_hello_on() -> None:
    engine = Handshake.client(client(), DTLS, server_name=NAME, connection_id=b"")
    [first] = [output for output in engine.outputs() if isinstance(output, SendMessage)]
    answering = Handshake.server(server(), DTLS)
    answering.receive(0, first.message)
    answer = next(output for output in answering.outputs() if isinstance(output, SendMessage))
    hello = server_hello(answer.message)
    hello = replace(hello, extensions=put(hello.extensions, ext.CONNECTION_ID.code, b"theirs"))
    assert not engine.connection_ids.negotiated
    engine.receive(0, hello.encode())
    assert engine.connection_ids.theirs == b"theirs"
    assert not engine.connection_ids.return_routability


# --- outputs -----------------------------------------------------------------------------------


def _names(pair: Pair, engine: Handshake) -> list[str]:
    names = []
    for output in pair.outputs[engine]:
        match output:
            case SendMessage():
                names.append(f"{_KT(output.message[0]).name}@{output.epoch}")
            case InstallKeys():
                names.append(f"{output.direction.value} {output.epoch}")
            case SendCompatibilityCcs():
                names.append("ccs")
            case HandshakeDone():
                names.append("done")
    return names


@each_flavor
@pytest.mark.requirement("9147-5-2", "9147-5.6-1")
def test_outputs_come_in_the_one_right_order(flavor: Flavor) -> None:
    pair = Pair(flavor, mutual_retrying(), run=True)
    ccs = ["ccs"] if flavor is TLS else []
    assert _names(pair, pair.client) == [
        "CLIENT_HELLO@0",
        *ccs,
        "CLIENT_HELLO@0",
        "receive 2",
        "send 2",
        "receive 3",
        "CERTIFICATE@2",
        "CERTIFICATE_VERIFY@2",
        "FINISHED@2",
        "send 3",
        "done",
    ]
    assert _names(pair, pair.server) == [
        "SERVER_HELLO@0",
        *ccs,
        "SERVER_HELLO@0",
        "send 2",
        "receive 2",
        "ENCRYPTED_EXTENSIONS@2",
        "CERTIFICATE_REQUEST@2",
        "CERTIFICATE@2",
        "CERTIFICATE_VERIFY@2",
        "FINISHED@2",
        "send 3",
        "receive 3",
        "done",
    ]
    pair = Pair(flavor, run=True)
    assert _names(pair, pair.client).count("ccs") == _names(pair, pair.server).count("ccs") == len(ccs)
    for engine in (pair.client, pair.server):
        handles = [output.handle for output in pair.outputs[engine] if isinstance(output, SendMessage)]
        assert handles == sorted(set(handles))
        assert 0 not in handles
        assert engine.outputs() == []


@pytest.mark.parametrize("settings", [default, retrying], ids=["at once", "retried"])
def test_no_change_cipher_spec_for_a_client_that_did_not_ask(
    settings: Callable[[], tuple[Config, Config]],
) -> None:
    """RFC 8446 appendix D.4: the empty session id says that the client is not in that mode."""
    pair = Pair(TLS, settings())
    delivery = pair.waiting.popleft()
    hello = replace(client_hello(delivery.message, TLS), legacy_session_id=b"")
    pair.deliver(delivery.but(hello.encode(TLS)))
    assert pair.waiting
    assert "ccs" not in _names(pair, pair.server)


@each_flavor
@pytest.mark.requirement("5705-1")
def test_nothing_is_known_before_the_handshake_is_complete(flavor: Flavor) -> None:
    pair = Pair(flavor, mutual())
    while pair.waiting:
        for engine in (pair.client, pair.server):
            if not engine.complete:
                calls: list[Callable[[], object]] = [
                    partial(getattr, engine, "session"),
                    partial(engine.export, b"label", b"", 32),
                    engine.update_keys,
                ]
                for call in calls:
                    with pytest.raises(Error, match="not complete"):
                        call()
                engine.acknowledged(1)
        pair.step()
    assert pair.connected


@each_flavor
@pytest.mark.parametrize(
    "settings", [default, retrying, mutual, optional, mutual_retrying], ids=lambda make: make.__name__
)
@pytest.mark.requirement("8446-KS-2")
def test_key_logs_of_both_sides_agree_with_the_keys(
    flavor: Flavor, settings: Callable[[], tuple[Config, Config]]
) -> None:
    lines: dict[str, list[str]] = {"client": [], "server": []}
    ours, theirs = settings()
    pair = Pair(
        flavor,
        (replace(ours, keylog=lines["client"].append), replace(theirs, keylog=lines["server"].append)),
        run=True,
    )
    assert lines["client"] == lines["server"]
    random = client_hello(pair.delivered[0].message, flavor).random.hex()
    words = [line.split(" ") for line in lines["client"]]
    assert [word[1] for word in words] == [random] * 5
    logged = {word[0]: word[2] for word in words}
    secrets = {
        (keys.direction, keys.epoch): bytes(keys.secret).hex()
        for keys in pair.outputs[pair.client]
        if isinstance(keys, InstallKeys)
    }
    # RFC 9850 section 3.
    exporter = logged.pop("EXPORTER_SECRET")
    assert len(exporter) == 2 * pair.client.session.suite.hash_bytes
    assert logged == {
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET": secrets[Direction.SEND, 2],
        "SERVER_HANDSHAKE_TRAFFIC_SECRET": secrets[Direction.RECEIVE, 2],
        "CLIENT_TRAFFIC_SECRET_0": secrets[Direction.SEND, 3],
        "SERVER_TRAFFIC_SECRET_0": secrets[Direction.RECEIVE, 3],
    }


def test_the_two_protocols_and_two_connections_export_different_keys() -> None:
    exported = {
        Pair(flavor, run=True).client.export(b"EXPORTER-Channel-Binding", b"", 32)
        for flavor in (*FLAVORS, *FLAVORS)
    }
    assert len(exported) == 4


# --- the same again ----------------------------------------------------------------------------


@each_flavor
def test_a_seed_repeats_a_handshake(flavor: Flavor) -> None:
    def messages(seed: int) -> list[bytes]:
        identity = certificates.server(Kind.ED25519)
        ours = replace(client(roots=identity.cafile), provider=DeterministicProvider(seed))
        theirs = replace(
            server(groups=("P-384",)),
            credentials=_credentials(identity),
            provider=DeterministicProvider(seed + 1),
        )
        return [delivery.message for delivery in Pair(flavor, (ours, theirs), run=True).delivered]

    first = messages(1)
    assert messages(1) == first
    other = messages(2)
    assert len(other) == len(first)
    assert other[0] != first[0]
    assert other[-1] != first[-1]


def test_only_hybrid_groups_are_kept_out_of_a_first_hello_over_datagrams() -> None:
    mixed = {Group.X25519MLKEM768, Group.SECP256R1MLKEM768, Group.SECP384R1MLKEM1024}
    assert mixed == HYBRID_GROUPS


@each_flavor
@pytest.mark.requirement("8446-ALERT-1")
def test_a_signer_that_fails_ends_the_handshake_with_an_alert(flavor: Flavor) -> None:
    """An application's key may be far away; its failure must not reach whoever serves other peers."""

    def sign(scheme: SignatureScheme, content: bytes) -> bytes:
        raise OSError("the key store is gone")

    config = server()
    broken = replace(config, credentials=tuple(replace(one, sign=sign) for one in config.credentials))
    engine = Handshake.server(broken, flavor)
    [hello] = [
        one
        for one in Handshake.client(client(), flavor, server_name=NAME).outputs()
        if isinstance(one, SendMessage)
    ]
    with pytest.raises(HandshakeError, match="the key store is gone") as caught:
        engine.receive(0, hello.message)
    assert caught.value.alert is Alert.INTERNAL_ERROR
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(HandshakeError) as again:
        engine.receive(0, hello.message)
    assert again.value is caught.value
